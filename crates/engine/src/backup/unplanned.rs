//! Scheduled backups and drills that could not even be planned: there is no run in the journal to recognise the attempt by.
//!
//! Owns when each was last tried in vain, and what was told of it. One that cannot be planned must never keep others from
//! being made, nor be told at every attempt.

use crate::error::EngineError;
use crate::home::{Home, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use switchback_core::plan::Procedure;

/// The same error is told again after this time.
const TELL_AGAIN_MS: i64 = 24 * 60 * 60 * 1000;

/// An attempt in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Vain {
    /// When it was made. UTC, milliseconds since 1970.
    at_ms: i64,
    /// What kept it from being planned.
    why: String,
    /// When that was told.
    told_ms: i64,
}

type All = BTreeMap<String, Vain>;

fn file(home: &Home) -> PathBuf {
    home.state().join("unplanned.json")
}

fn all(home: &Home) -> Result<All, EngineError> {
    let file = file(home);
    if file.exists() { read_json(&file) } else { Ok(All::new()) }
}

/// When it was last tried in vain.
pub(super) fn last(home: &Home, procedure: Procedure) -> Result<Option<i64>, EngineError> {
    Ok(all(home)?.get(procedure.as_str()).map(|v| v.at_ms))
}

/// Records an attempt in vain. Whether it is to be told: an error that was not told today.
pub(super) fn note(home: &Home, procedure: Procedure, why: &str, now: i64) -> Result<bool, EngineError> {
    let mut all = all(home)?;
    let told_ms = all
        .get(procedure.as_str())
        .filter(|was| was.why == why && was.told_ms.saturating_add(TELL_AGAIN_MS) > now)
        .map(|was| was.told_ms);
    let vain = Vain { at_ms: now, why: why.to_owned(), told_ms: told_ms.unwrap_or(now) };
    all.insert(procedure.as_str().to_owned(), vain);
    write_json(&file(home), &all)?;
    Ok(told_ms.is_none())
}

/// Forgets it: it was planned.
pub(super) fn forget(home: &Home, procedure: Procedure) -> Result<(), EngineError> {
    let mut all = all(home)?;
    if all.remove(procedure.as_str()).is_some() { write_json(&file(home), &all) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_is_told_once_a_day_and_another_one_at_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("makes");
        let note = |procedure, why, now| note(&home, procedure, why, now).expect("records");
        let minute = 60_000;
        assert_eq!(last(&home, Procedure::Backup).expect("reads"), None);
        assert!(note(Procedure::Backup, "no key", 0));
        assert!(!note(Procedure::Backup, "no key", 15 * minute));
        assert_eq!(last(&home, Procedure::Backup).expect("reads"), Some(15 * minute));
        assert!(note(Procedure::Drill, "no key", 15 * minute), "of each");
        assert!(note(Procedure::Backup, "the engine is away", 30 * minute));
        assert!(!note(Procedure::Backup, "the engine is away", 45 * minute));
        assert!(note(Procedure::Backup, "the engine is away", 30 * minute + TELL_AGAIN_MS));
        forget(&home, Procedure::Backup).expect("forgets");
        forget(&home, Procedure::Backup).expect("forgets");
        assert_eq!(last(&home, Procedure::Backup).expect("reads"), None);
        assert!(note(Procedure::Backup, "no key", 60 * minute));
        assert_eq!(last(&home, Procedure::Drill).expect("reads"), Some(15 * minute));
    }
}
