//! Watching SQLite databases of this host while a migration works on them.

use super::{LocalData, place};
use crate::data::{Observing, Work};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store;
use std::sync::mpsc::TryRecvError;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::trace::Trace;

impl Observing for LocalData {
    fn trace_begin(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        _: &Work<'_>,
    ) -> Result<Option<String>, EngineError> {
        let (found, path) = place(at, store)?;
        if found.kind != StoreKind::Sqlite {
            return Ok(None);
        }
        let path = at.home.root().join(path);
        Ok(self.watchers.begin(at.instance, store, move |signals| {
            let stop = || !matches!(signals.stop.try_recv(), Err(TryRecvError::Empty));
            let mut ready = || {
                // Nobody waits any more: then `stop` is closed, too.
                let _ = signals.ready.send(());
            };
            store::watch_sqlite(&path, &stop, &mut ready).map_err(|e| e.to_string())
        }))
    }

    fn trace_end(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        _: CloneMode,
        _: &Work<'_>,
    ) -> Result<Option<Trace>, EngineError> {
        Ok(self.watchers.end(at.instance, store).map(super::super::watching::noted))
    }
}
