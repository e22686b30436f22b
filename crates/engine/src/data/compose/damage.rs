//! Damage on purpose to a clone, as a bad migration does it: for the proof that the checks would notice.
//!
//! It must never work on a mount that is not scratch.

use super::server::Server;
use super::{ComposeData, Work, place};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::prove::Damage;

impl ComposeData {
    pub(super) fn damage_store(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (damage, not): (Damage, &[String]),
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        let (place, mount) = place(at, store)?;
        let hands = self.hands(at.home)?;
        let scratch = self.scratch_place(at.home, &hands, mount)?;
        match place.kind {
            StoreKind::Files => Ok(0),
            StoreKind::Mysql => self.mysql_damage(at, store, (damage, not), work),
            StoreKind::Sqlite => {
                let below = scratch.below(&place.path);
                Ok(hands.damage(scratch.scratch(), &below, damage, not, work.progress)?)
            }
            StoreKind::Postgres => {
                let server = Server::open(self, at, store, mount, CloneMode::Cold)?;
                let done = postgres::damage(&server, server.databases(), damage, not, work.progress);
                server.close(done)
            }
        }
    }
}
