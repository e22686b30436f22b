//! Backups: what goes into a snapshot of the stack, and how it comes back.
//!
//! Owns the manifest, and the facts that the plans around backups are made from. It must never read production's data
//! while it is written: snapshots are made of clones.

pub mod child;
mod confirmed;
pub mod due;
pub mod facts;
mod held;
pub mod images;
mod keys;
pub mod late;
mod rclone;
pub mod restore;
mod unplanned;
pub mod vault;
pub mod wal;

pub use confirmed::{UNCONFIRMED, confirm_key, key_confirmed};
pub use held::Held;
pub use keys::Keys;

use crate::error::EngineError;
use crate::home::Home;
use crate::journal::Journal;
use crate::store::Progress;
use crate::world::World;
use serde::de::DeserializeOwned;
use std::path::Path;
use switchback_core::backup::{Archived, MANIFEST, Manifest, Snapshot};
use switchback_core::config::{Backup, Config};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Procedure;
use vault::{Task, Vault};

/// A manifest lists fingerprints of at most 10,000 parts for each store.
const LONGEST_MANIFEST: u64 = 64 << 20;

/// What the configuration says on backups; refused where it says nothing.
pub fn configured(config: &Config) -> Result<&Backup, EngineError> {
    config.backup.as_ref().ok_or_else(|| {
        EngineError::refused(
            "no backups are configured",
            "write into switchback.yaml:  backup: { repository: /srv/backup, every: 24h }",
        )
    })
}

/// What a task answers, on the host or in a helper, as the stack's data needs it.
pub fn ask<T: DeserializeOwned>(
    home: &Home,
    world: &World,
    vault: &Vault,
    task: &Task,
    progress: &Progress<'_>,
) -> Result<T, EngineError> {
    parsed(world.data.vault(home, vault, task, progress)?)
}

/// The answer of a task.
pub fn parsed<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, EngineError> {
    serde_json::from_value(value).map_err(|e| EngineError::Internal {
        detail: format!("an answer about a repository cannot be read: {e}"),
    })
}

/// The snapshot of a stack that is meant by `latest` or the beginning of an id.
pub fn choose(all: Vec<Snapshot>, stack: &str, wanted: &str) -> Result<Snapshot, EngineError> {
    let own: Vec<Snapshot> = all.into_iter().filter(|s| s.stack == stack).collect();
    let mut fitting: Vec<&Snapshot> = match wanted {
        "latest" => own.last().into_iter().collect(),
        id => own.iter().filter(|s| s.id.starts_with(id)).collect(),
    };
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one.clone()),
        (Some(_), false) => Err(EngineError::refused(
            format!("several snapshots begin with {wanted}"),
            "write more of the id; `switchback backup list` shows them",
        )),
        (None, _) if own.is_empty() => Err(EngineError::refused(
            format!("the repository has no backup of {stack}"),
            "`switchback backup` makes one",
        )),
        (None, _) => Err(EngineError::refused(
            format!("there is no snapshot {wanted} of {stack}"),
            "`switchback backup list` shows them",
        )),
    }
}

/// The manifest of a snapshot.
pub fn manifest(text: &str, snapshot: &str) -> Result<Manifest, EngineError> {
    let bad = |why: String| {
        EngineError::refused(
            format!("snapshot {snapshot} cannot be used: {why}"),
            "it may be of another version of Switchback; its files can be restored with restic",
        )
    };
    let manifest: Manifest = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    match manifest.refused() {
        Some(why) => Err(bad(why)),
        None => Ok(manifest),
    }
}

/// The task that reads it.
pub fn read_manifest(snapshot: &str) -> Task {
    Task::Read { snapshot: snapshot.to_owned(), path: MANIFEST.to_owned(), limit: LONGEST_MANIFEST }
}

/// When the newest run of a kind that went well had ended, and what it wrote or read; however many runs there are since.
pub fn newest(home: &Home, procedure: Procedure) -> Result<Option<(i64, Archived)>, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(None) };
    journal.newest_of(
        |p| p == procedure,
        |run| {
            if journal.outcome(run)? != Some(Outcome::Done) {
                return Ok(None);
            }
            let (.., records) = journal.load(run)?;
            Ok(records.iter().rev().find_map(|r| match &r.event {
                Event::Finished { output, .. } => output.backup.clone().map(|b| (r.at_ms, b)),
                _ => None,
            }))
        },
    )
}

/// What lies where a backup should be brought back to.
pub(crate) fn occupied(what: &str) -> EngineError {
    EngineError::refused(
        format!("{what} exists already"),
        "nothing that is there is overwritten; move it away first, if it is not needed",
    )
}

/// Whether a path is a folder below another one.
pub(crate) fn below(path: &Path, root: &Path) -> bool {
    path != root && path.starts_with(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_core::ids::RunId;
    use switchback_core::journal::Output;
    use switchback_core::release::FORMAT;

    fn planned(run: &str, procedure: Procedure) -> Event {
        let plan = serde_json::json!({
            "format": FORMAT, "run": run, "procedure": procedure, "stack": "s", "made_at_ms": 5, "from": {}, "to": {},
            "from_generation": null, "to_generation": null, "reason": null, "budget_ms": 1, "instances": {}, "steps": [],
        });
        Event::Planned { plan: serde_json::from_value(plan).expect("a plan") }
    }

    #[test]
    fn the_last_drill_is_found_whatever_else_was_done_since() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("makes");
        let snapshot =
            serde_json::json!({ "id": "s", "stack": "s", "at_ms": 1, "bytes": 1, "files": 1, "added": 1 });
        let archived = Archived {
            snapshot: serde_json::from_value(snapshot).expect("a snapshot"),
            took_ms: 1,
            moment_ms: None,
            left_out: Vec::new(),
        };
        let finished = |backup: Option<Archived>| Event::Finished {
            step: "fetch".into(),
            output: Output { backup, ..Output::default() },
            took_ms: 1,
        };
        let done = Event::Ended { outcome: Outcome::Done };
        let failed = Event::Ended { outcome: Outcome::Refused { reasons: Vec::new() } };
        let mut journal = Journal::open(&home.state().join("journal.db")).expect("opens");
        let mut record = |run: &str, events: &[(i64, &Event)]| {
            journal.append_all(&RunId::from(run), events).expect("appends");
        };
        let drill = |run| planned(run, Procedure::Drill);
        record("good", &[(5, &drill("good")), (7, &finished(Some(archived.clone()))), (8, &done)]);
        record("bad", &[(9, &drill("bad")), (9, &finished(Some(archived.clone()))), (9, &failed)]);
        record("empty", &[(9, &drill("empty")), (9, &finished(None)), (9, &done)]);
        let sync = planned("sync", Procedure::StagingSync);
        record("sync", &[(10, &sync); 600]);
        assert_eq!(newest(&home, Procedure::Drill).expect("asks"), Some((7, archived)));
        assert_eq!(newest(&home, Procedure::Backup).expect("asks"), None);
        assert_eq!(due::last_tried(&home, Procedure::Drill).expect("asks"), Some(5));
        assert_eq!(due::last_tried(&home, Procedure::Backup).expect("asks"), None);
    }
}
