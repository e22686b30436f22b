//! Changing clones on purpose: as a bad migration would, or to have fewer rows.

use super::Work;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::scratch::Scratch;
use switchback_core::ids::StoreName;
use switchback_core::prove::Damage;
use switchback_core::scaling::Shrunk;

/// Stores of clones that can be changed on purpose. Nothing runs on them, and the caller holds their [`Scratch`].
pub trait Altering: Send + Sync {
    /// Damages a database as a bad migration would; but no table that is named in `not`. How many rows, columns or tables it
    /// concerned; none for files.
    fn damage(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        damage: (Damage, &[String]),
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<u64, EngineError>;

    /// Removes rows of the large tables of a database, so that a share of them (in percent) is left and every reference leads
    /// somewhere; tables named in `not` are kept whole. Then its size; at 100 it is only measured. Nothing for files. After an error
    /// or an interruption the store is of no use until it was copied again.
    fn shrink(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        share: (u8, &[String]),
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Shrunk, EngineError>;
}
