//! The repository of backups: restic's format, in a folder or behind a REST server.
//!
//! Owns every use of the library that speaks the format. Work on it runs in a process of its own (this program under a hidden
//! command, on this host or in a helper container): the library cannot be interrupted, a process can. It must never tell the
//! key, nor take a snapshot for whole that lacks something.

mod http;
mod location;
mod progress;
mod rest;
mod root;
mod s3;
mod source;
mod wal;
mod work;

pub use location::{Key, Location, Vault, keep_key, key_file};
pub use wal::SEGMENTS;
pub use work::perform;

use serde::{Deserialize, Serialize};
use switchback_core::backup::{Keep, Part, Stamp};
use switchback_core::wal::Piece;

/// What is to be done with a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Makes it. The answer is its id.
    Init,
    /// Opens it. The answer is what the key guards (`Vault::opened`): for a process of this host only, as what helpers say may be kept.
    Open,
    /// Writes a snapshot. The answer is an `Archived`.
    Archive {
        /// What is in it.
        parts: Vec<Part>,
        /// What is said of it.
        stamp: Box<Stamp>,
    },
    /// Lists the snapshots with segments of logs. The answer is a list of `Kept`.
    Logs,
    /// Brings segments into a data folder of Postgres, to be replayed from there. The answer is the number of bytes.
    Segments {
        /// Which.
        pieces: Vec<Piece>,
        /// The data folder; its name in a snapshot does not matter.
        parts: Vec<Part>,
    },
    /// Lists the snapshots of this program, newest last.
    List,
    /// Reads a small file. The answer is its text.
    Read {
        /// The snapshot: its whole id.
        snapshot: String,
        /// The path in it.
        path: String,
        /// At most so many bytes.
        limit: u64,
    },
    /// Brings parts of a snapshot back. The answer is the number of bytes.
    Restore {
        /// The snapshot: its whole id.
        snapshot: String,
        /// From where, and to where.
        parts: Vec<Part>,
    },
    /// Looks for damage. The answer is a list of what was found.
    Check {
        /// Whether all data is read.
        data: bool,
    },
    /// Removes snapshots that no rule keeps, and what only they used. The answer is a `Retained`.
    Forget {
        /// The stack whose snapshots are looked at.
        stack: String,
        /// The rules.
        keep: Keep,
        /// Segments of logs that lead only to moments longer ago are removed, too; without it, those that no kept snapshot needs.
        wal_keep_ms: Option<i64>,
        /// Only says what would be removed.
        dry_run: bool,
    },
}

/// What was kept and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// Ids that stay.
    pub kept: Vec<String>,
    /// Ids that were removed.
    pub removed: Vec<String>,
}
