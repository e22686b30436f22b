//! Recording what copies of databases are asked and what is done to them.

use super::Work;
use crate::error::EngineError;
use crate::runtime::Placement;
use std::collections::BTreeMap;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::queries::{Form, Scheme, Use};
use switchback_core::trace::Trace;

/// Stores that can record how they are used. Only for copies: production is never prepared for it.
pub trait Observing: Send + Sync {
    /// Prepares a store on which nothing runs to record what is done to it from its next start on. Returns why it cannot be, if so;
    /// `None` also where there is nothing to prepare.
    fn trace_begin(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Option<String>, EngineError>;

    /// Reads what a store recorded, and removes what [`Observing::trace_begin`] put into it. `None` if nothing was. `mode` says
    /// whether its services are running.
    fn trace_end(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Option<Trace>, EngineError>;

    /// Has a store on which nothing runs count statements from its next start on. Returns why it cannot, if so; `None` also where
    /// there is nothing to count.
    fn queries_begin(&self, _at: &Placement<'_>, _store: &StoreName) -> Result<Option<String>, EngineError> {
        Ok(None)
    }

    /// Whether a store that runs counts statements.
    fn counts_queries(&self, _at: &Placement<'_>, _store: &StoreName) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Forgets what a store that runs counted so far.
    fn queries_reset(&self, _at: &Placement<'_>, _store: &StoreName) -> Result<(), EngineError> {
        Ok(())
    }

    /// What a store that runs counted.
    fn queries(
        &self,
        _at: &Placement<'_>,
        _store: &StoreName,
        _work: &Work<'_>,
    ) -> Result<BTreeMap<Form, Use>, EngineError> {
        Ok(BTreeMap::new())
    }

    /// How a store that runs would carry statements out, as far as it can say.
    fn plans(
        &self,
        _at: &Placement<'_>,
        _store: &StoreName,
        _forms: &[Form],
        _work: &Work<'_>,
    ) -> Result<BTreeMap<Form, Scheme>, EngineError> {
        Ok(BTreeMap::new())
    }
}
