//! Staging environments that a person keeps: what is recorded about one.
//!
//! Owns the record and the rules of names. What plans make of it is `plan::staging`'s.

use crate::anonymise::{Mask, MaskedStore};
use crate::ids::{GenerationId, NameError, RunId, ServiceName, StoreName};
use crate::release::{Instance, PRODUCTION};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name that an environment has when none is given.
pub const DEFAULT_NAME: &str = "staging";

/// Names that rehearsals and production use.
const TAKEN: [&str; 5] = [PRODUCTION, "baseline", "candidate", "code-only", "base"];

/// Checks the name of an environment: it becomes part of project names, volumes and folders.
///
/// 1 to 24 lower-case letters, digits and `-`, beginning with a letter; not one that Switchback uses itself.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let refuse = |why| Err(NameError { what: "environment", name: name.to_owned(), why });
    if name.is_empty() || name.len() > 24 {
        return refuse("it must have 1 to 24 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return refuse("it must start with a lower-case letter");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return refuse("only lower-case letters, digits and '-' may be used");
    }
    if TAKEN.contains(&name) {
        return refuse("Switchback itself uses this name");
    }
    Ok(())
}

/// The folder of an environment, relative to the state folder.
pub fn dir(name: &str) -> String {
    format!("staging/env-{name}")
}

/// The folder, in the state, of the clone that backups are made of where it is kept. No environment has it: theirs begin with `env-`.
pub const BACKUP_COPY: &str = "staging/backup-copy";

/// A staging environment as recorded on disk, in `environment.json` in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// On-disk format.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// What it runs, where, and on which data.
    pub instance: Instance,
    /// The untouched copy that `reset` returns to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pristine: Option<Instance>,
    /// The run that brought it to this state.
    pub run: RunId,
    /// UTC, milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it is removed; UTC, milliseconds since 1970. None: never by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Production's generation that its data is from.
    pub from_generation: GenerationId,
    /// Whether its data is whole: not while it is replaced.
    pub whole: bool,
    /// Its data.
    pub data: Synced,
}

/// The last time that an environment got production's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Synced {
    /// When production's data was cut; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// The backup that it came from, if it did not come from production itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Bytes of the data.
    pub bytes: u64,
    /// Bytes that had to be written.
    pub written: u64,
    /// The longest time that production's writers waited, in milliseconds.
    pub waited_ms: u64,
    /// Wall time of all copying, in milliseconds.
    pub took_ms: u64,
    /// Whether the copy was compared with the snapshot that it was made from, and found equal.
    pub compared: bool,
    /// Rows per table, or files, per store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<StoreName, BTreeMap<String, u64>>,
    /// What was masked, per store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<StoreName, MaskedStore>,
    /// The rules that it was masked by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Mask>,
}

/// What an environment was doing at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// Whether every service was as it should be.
    pub well: bool,
    /// Per service.
    pub services: BTreeMap<ServiceName, ServiceSample>,
}

/// What a service of an environment was doing at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSample {
    /// Whether it was as it should be.
    pub well: bool,
    /// What it was doing, in words.
    pub state: String,
    /// How often it was started.
    pub starts: u32,
    /// Processor time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
    /// Lines near the end of its log that tell of errors.
    pub log_errors: u64,
}

impl Sample {
    /// What is not well, in words.
    pub fn words(&self) -> String {
        let bad = self.services.iter().filter(|(_, s)| !s.well);
        let words: Vec<String> = bad.map(|(name, s)| format!("{name} is {}", s.state)).collect();
        if words.is_empty() { "every service is well".to_owned() } else { words.join(", ") }
    }
}

impl Environment {
    /// Whether its time is over.
    pub fn expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_folder_or_collide_are_refused() {
        for bad in ["", "../x", "a/b", "A", "1a", "a_b", "a.b", "production", "baseline", "a b", "ä", "-a"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&"a".repeat(25)).is_err());
        for good in ["a", "staging", "try-n8n-2", &"a".repeat(24)] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
