//! Carrying writes between the stores of two generations.
//!
//! Owns what is done around the servers of databases: three states are at rest, each gets a server of its own.

use super::server::Server;
use super::{ComposeData, Work, mounts, place};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres::{self, Psql};
use std::path::Path;
use switchback_core::carry::{EXPORTED_ONLY, Outcome, Rules};
use switchback_core::data::{ExportStats, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::MountPlace;

impl ComposeData {
    pub(super) fn carry_store(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        rules: &Rules,
        work: &Work<'_>,
    ) -> Result<Option<Outcome>, EngineError> {
        let ((left, mount), (own, target)) = (place(from, store)?, place(to, store)?);
        let base = mounts::base_of(mount);
        for there in [&base, mount, target] {
            if !self.mount_exists(from.home, there)? {
                return Ok(None);
            }
        }
        let hands = self.hands(to.home)?;
        let scratch = self.scratch_place(to.home, &hands, target)?;
        if left.kind == StoreKind::Mysql {
            let exported = crate::left::exported(from.home, from.instance.generation)?.unwrap_or_default();
            let of_store = exported.get(store).cloned().unwrap_or_default();
            return Ok(Some(Outcome::only_exported(&of_store, EXPORTED_ONLY)));
        }
        if left.kind == StoreKind::Postgres {
            return self.carry_rows(from, to, store, rules, work).map(Some);
        }
        let states = ((&base, left.path.as_str()), (mount, left.path.as_str()));
        let written = (scratch.scratch(), scratch.below(&own.path));
        Ok(Some(hands.carry(left.kind, states, (written.0, &written.1), rules, work.progress)?))
    }

    /// Exports the rows in which two states of the databases of a store differ.
    pub(super) fn export_rows(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (base, mount): (&MountPlace, &MountPlace),
        (out, work): (&Path, &Work<'_>),
    ) -> Result<ExportStats, EngineError> {
        let was = Server::open(self, at, store, base, CloneMode::Cold)?;
        let is = match Server::open(self, at, store, mount, CloneMode::Cold) {
            Ok(is) => is,
            Err(e) => return was.close(Ok(())).and(Err(e)),
        };
        let found = self.within(at, store, &is, work).and_then(|(scopes, _)| {
            postgres::export_within((&was, &is), is.databases(), &scopes, out, work.progress)
        });
        let found = is.close(found);
        was.close(Ok(())).and(found)
    }

    fn carry_rows(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        rules: &Rules,
        work: &Work<'_>,
    ) -> Result<Outcome, EngineError> {
        let ((_, mount), (_, target)) = (place(from, store)?, place(to, store)?);
        let was = Server::open(self, from, store, &mounts::base_of(mount), CloneMode::Cold)?;
        let is = match Server::open(self, from, store, mount, CloneMode::Cold) {
            Ok(is) => is,
            Err(e) => return was.close(Ok(())).and(Err(e)),
        };
        let own = match Server::open(self, to, store, target, CloneMode::Cold) {
            Ok(own) => own,
            Err(e) => return is.close(Ok(())).and(was.close(Ok(()))).and(Err(e)),
        };
        let done = self.within(from, store, &is, work).and_then(|(scopes, notes)| {
            let servers: (&dyn Psql, &dyn Psql, &dyn Psql) = (&was, &is, &own);
            let mut done = postgres::carry_within(servers, own.databases(), &scopes, rules, work.progress)?;
            done.carried.notes.extend(notes);
            Ok(done)
        });
        // Its server stops properly, so that what was written is in its files.
        let done = own.close(done);
        let done = is.close(Ok(())).and(done);
        was.close(Ok(())).and(done)
    }
}
