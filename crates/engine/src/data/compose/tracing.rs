//! Recording what is done to the databases of a copy, and what they are asked.
//!
//! Owns what is done around a Postgres server: one is started to prepare it, the one that runs is asked in the end. It must
//! never be pointed at production: such a server has triggers and settings of ours.

use super::server::Server;
use super::{ComposeData, Work, place};
use crate::data::Observing;
use crate::data::watching::noted;
use crate::docker::hands::Hands;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres::{PgError, queries, trace};
use std::collections::BTreeMap;
use std::sync::Arc;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::queries::{Form, Scheme, Use};
use switchback_core::trace::{Trace, assemble};

impl ComposeData {
    /// Asks the server of a Postgres store of a copy; `None` for any other store.
    fn asked<T>(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        ask: impl FnOnce(&Server<'_>) -> Result<T, PgError>,
    ) -> Result<Option<T>, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind != StoreKind::Postgres {
            return Ok(None);
        }
        if at.instance.is_production() {
            return Err(EngineError::Internal { detail: "production is never traced".to_owned() });
        }
        let server = Server::open(self, at, store, mount, mode)?;
        let answer = ask(&server);
        server.close(answer).map(Some)
    }
}

impl Observing for ComposeData {
    fn trace_begin(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        _: &Work<'_>,
    ) -> Result<Option<String>, EngineError> {
        let (found, mount) = place(at, store)?;
        if found.kind == StoreKind::Sqlite && !at.instance.is_production() {
            let docker = Arc::clone(&self.docker);
            let (image, stack) = (self.hands(at.home)?.image().to_owned(), at.home.id()?);
            let (mount, path) = (mount.clone(), found.path.clone());
            return Ok(self.watchers.begin(at.instance, store, move |signals| {
                let hands = Hands::new(&docker, image, stack);
                hands.watch((&mount, &path), &signals.ready, &signals.stop).map_err(|e| e.to_string())
            }));
        }
        if found.kind == StoreKind::Mysql {
            // Its server is started so that it logs; from now on it counts.
            self.traced.now(at.instance, store);
            return Ok(None);
        }
        Ok(self.asked(at, store, CloneMode::Cold, |server| trace::arm(server))?.and_then(Result::err))
    }

    fn trace_end(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Option<Trace>, EngineError> {
        if let Some(seen) = self.watchers.end(at.instance, store) {
            return Ok(Some(noted(seen)));
        }
        let (found, mount) = place(at, store)?;
        if found.kind == StoreKind::Mysql {
            if mode == CloneMode::Cold || at.instance.is_production() {
                return Ok(None);
            }
            let ago_ms = self.traced.ended(at.instance, store);
            return Ok(self.mysql_traced(at, store, mount, ago_ms, work)?.map(assemble));
        }
        let raw = self.asked(at, store, mode, |server| trace::read(server, work.progress))?;
        Ok(raw.flatten().map(assemble))
    }

    fn queries_begin(&self, at: &Placement<'_>, store: &StoreName) -> Result<Option<String>, EngineError> {
        Ok(self.asked(at, store, CloneMode::Cold, |server| queries::begin(server))?.and_then(Result::err))
    }

    fn counts_queries(&self, at: &Placement<'_>, store: &StoreName) -> Result<bool, EngineError> {
        Ok(self.asked(at, store, CloneMode::Live, |server| queries::counting(server))?.unwrap_or(false))
    }

    fn queries_reset(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError> {
        self.asked(at, store, CloneMode::Live, |server| queries::reset(server))?;
        Ok(())
    }

    fn queries(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<BTreeMap<Form, Use>, EngineError> {
        let found = self.asked(at, store, CloneMode::Live, |server| queries::read(server, work.progress))?;
        Ok(found.unwrap_or_default())
    }

    fn plans(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        forms: &[Form],
        work: &Work<'_>,
    ) -> Result<BTreeMap<Form, Scheme>, EngineError> {
        let ask = |server: &Server<'_>| queries::plans(server, forms, work.progress);
        Ok(self.asked(at, store, CloneMode::Live, ask)?.unwrap_or_default())
    }
}
