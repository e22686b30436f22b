//! Backups: what goes into a snapshot of the stack, and how it comes back.
//!
//! Owns the manifest, and the facts that the plans around backups are made from. It must never read production's data
//! while it is written: snapshots are made of clones.

pub mod child;
pub mod due;
pub mod facts;
mod held;
pub mod images;
mod keys;
pub mod late;
mod rclone;
pub mod restore;
pub mod vault;
pub mod wal;

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

/// Runs that are looked through for the newest backup.
const LOOK_BACK: usize = 500;
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

/// When the newest run of a kind that went well had ended, and what it wrote or read.
pub fn newest(home: &Home, procedure: Procedure) -> Result<Option<(i64, Archived)>, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(None) };
    for run in journal.runs(LOOK_BACK)? {
        let (plan, state, records) = journal.load(&run)?;
        if plan.procedure != procedure || !matches!(state.ended, Some(Outcome::Done)) {
            continue;
        }
        let found = records.iter().rev().find_map(|r| match &r.event {
            Event::Finished { output, .. } => output.backup.clone().map(|b| (r.at_ms, b)),
            _ => None,
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Where it is recorded that somebody proved to have the key elsewhere.
fn confirmed_file(home: &Home) -> std::path::PathBuf {
    home.state().join("backup.confirmed")
}

/// Whether somebody proved to have the key elsewhere than on this machine.
pub fn key_confirmed(home: &Home) -> bool {
    confirmed_file(home).exists()
}

/// Records that.
pub fn confirm_key(home: &Home) -> Result<(), EngineError> {
    crate::home::write_atomic(&confirmed_file(home), b"")
}

/// What a backup must say as long as nobody did.
pub const UNCONFIRMED: &str = "the key lies on this machine only, as far as is known: who loses the machine loses the backups. Copy it, then `switchback backup key --confirm`";

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
