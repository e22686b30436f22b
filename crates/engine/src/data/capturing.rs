//! Keeping which rows of a store are written to.

use super::Work;
use crate::capture::{Progress, Spool};
use crate::error::EngineError;
use crate::runtime::Placement;
use switchback_core::ids::StoreName;

/// Stores of which it can be kept which rows are written to.
pub trait Capturing: Send + Sync {
    /// Prepares a store on which nothing runs: from its next start on, it logs what is written for us. `None` where there is
    /// nothing to prepare; else why it cannot be, if so.
    fn begin(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Option<Result<(), String>>, EngineError>;

    /// Brings what was written to a store that runs into its spool, and then lets the server forget it.
    fn drain(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        spool: &mut Spool,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Progress, EngineError>;

    /// Ends it for a store that runs: its server keeps nothing any more.
    fn end(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError>;

    /// Ends it in a copy of a store, on which nothing runs.
    fn forget(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError>;
}
