//! The write-ahead logs of stores: archiving what a server wrote, and replaying it into a copy.

use super::Work;
use crate::backup::vault::Vault;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres::wal::{Mark, State};
use switchback_core::backup::{Archived, Stamp};
use switchback_core::ids::StoreName;
use switchback_core::wal::Piece;

/// The log of a store, as its server tells it.
pub type Here = State;

/// Stores whose log can be archived. Of production only: its server is asked, and its log is read; what it keeps for us is in a
/// replication slot, which it bounds itself.
pub trait Logs: Send + Sync {
    /// The log of a store that runs; `None` while no server runs on exactly this instance's data.
    fn state(&self, at: &Placement<'_>, store: &StoreName) -> Result<Option<Here>, EngineError>;

    /// Has the server keep its log from now on, at most so many GiB of it.
    fn open(&self, at: &Placement<'_>, store: &StoreName, limit_gib: u64) -> Result<(), EngineError>;

    /// Has the server complete a segment, with a commit in it that is later than the present moment.
    fn mark(&self, at: &Placement<'_>, store: &StoreName, size: u64) -> Result<Mark, EngineError>;

    /// Writes segments of the log into a repository.
    fn ship(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        segments: (&[String], &str),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError>;

    /// Lets the server forget what lies before a segment.
    fn release(&self, at: &Placement<'_>, store: &StoreName, next: u64, size: u64)
    -> Result<(), EngineError>;

    /// Has the server keep nothing any more.
    fn close(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError>;

    /// Where replaying of a copy, on which nothing ever ran, would begin: system, time line and segment.
    fn begins(&self, at: &Placement<'_>, store: &StoreName) -> Result<(String, u32, u64), EngineError>;

    /// Brings a store's data from a snapshot once more, where it lies already.
    fn again(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        snapshot: (&str, &str),
        work: &Work<'_>,
    ) -> Result<u64, EngineError>;

    /// Replays a log into a copy, on which nothing ever ran, up to a moment (UTC, milliseconds since 1970). The number of bytes
    /// brought, and the moment of the last transaction in it. After an error the copy is of no use until it was brought again.
    fn replay(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        pieces: &[Piece],
        at_ms: i64,
        work: &Work<'_>,
    ) -> Result<(u64, Option<i64>), EngineError>;
}
