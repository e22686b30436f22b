//! Tracing migrations in the databases of a copy.
//!
//! Owns what is done around a Postgres server: one is started to prepare it, the one that runs is asked in the end. It must
//! never be pointed at production: a traced server has triggers and settings of ours.

use super::server::Server;
use super::{ComposeData, Work, place};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres::trace;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::trace::{Trace, assemble};

impl ComposeData {
    pub(super) fn arm_store(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
    ) -> Result<Option<String>, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind != StoreKind::Postgres {
            return Ok(None);
        }
        if at.instance.is_production() {
            return Err(EngineError::Internal { detail: "production is never traced".to_owned() });
        }
        let server = Server::open(self, at, store, mount, CloneMode::Cold)?;
        let armed = trace::arm(&server);
        Ok(server.close(armed)?.err())
    }

    pub(super) fn traced_store(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Option<Trace>, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind != StoreKind::Postgres {
            return Ok(None);
        }
        let server = Server::open(self, at, store, mount, mode)?;
        let read = trace::read(&server, work.progress);
        Ok(server.close(read)?.map(assemble))
    }
}
