//! Changing a clone on purpose: damage as a bad migration does it, for the proof that the checks would notice; fewer rows, to time a
//! migration at several sizes.
//!
//! It must never work on a mount that is not scratch.

use super::server::Server;
use super::{ComposeData, Work, place};
use crate::data::Altering;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::scratch::Scratch;
use crate::store::postgres;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::prove::Damage;
use switchback_core::scaling::Shrunk;

impl Altering for ComposeData {
    fn damage(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (damage, not): (Damage, &[String]),
        _: &Scratch,
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

    fn shrink(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (percent, not): (u8, &[String]),
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<Shrunk, EngineError> {
        let (place, mount) = place(at, store)?;
        let hands = self.hands(at.home)?;
        let scratch = self.scratch_place(at.home, &hands, mount)?;
        match place.kind {
            StoreKind::Files => Ok(Shrunk::default()),
            StoreKind::Mysql => self.mysql_shrink(at, store, (percent, not), work),
            StoreKind::Sqlite => {
                let below = scratch.below(&place.path);
                Ok(hands.shrink(scratch.scratch(), &below, (percent, not), work.progress)?)
            }
            StoreKind::Postgres => {
                let server = Server::open(self, at, store, mount, CloneMode::Cold)?;
                let done = postgres::shrink(&server, server.databases(), percent, not, work.progress);
                server.close(done)
            }
        }
    }
}
