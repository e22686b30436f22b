//! Changing clones on this host on purpose.

use super::{LocalData, place};
use crate::data::{Altering, Work};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::scratch::Scratch;
use crate::store;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::prove::Damage;
use switchback_core::scaling::Shrunk;

impl Altering for LocalData {
    fn damage(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (damage, not): (Damage, &[String]),
        _: &Scratch,
        _: &Work<'_>,
    ) -> Result<u64, EngineError> {
        let (place, path) = place(at, store)?;
        match place.kind {
            StoreKind::Sqlite => Ok(store::damage_sqlite(path, damage, not)?),
            _ => Ok(0),
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
        let (place, path) = place(at, store)?;
        match place.kind {
            StoreKind::Sqlite => Ok(store::shrink_sqlite(path, percent, not, work.progress)?),
            _ => Ok(Shrunk::default()),
        }
    }
}
