//! What two states of a store differ in.

use super::server::Server;
use super::{ComposeData, Work, place};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres;
use switchback_core::data::{StoreDiff, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;

impl ComposeData {
    pub(super) fn compare_stores(
        &self,
        before: &Placement<'_>,
        after: &Placement<'_>,
        mode: CloneMode,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<StoreDiff, EngineError> {
        let ((old, old_mount), (new, new_mount)) = (place(before, store)?, place(after, store)?);
        if new.kind == StoreKind::Mysql {
            return self.mysql_diff(before, after, mode, store, work);
        }
        if new.kind == StoreKind::Postgres {
            let was = Server::open(self, before, store, old_mount, CloneMode::Cold)?;
            let is = match Server::open(self, after, store, new_mount, mode) {
                Ok(is) => is,
                Err(e) => return was.close(Ok(())).and(Err(e)),
            };
            let found = postgres::diff(&was, &is, is.databases(), work.progress);
            let found = is.close(found);
            return was.close(Ok(())).and(found);
        }
        let hands = self.hands(after.home)?;
        let (old, new, kind) = ((old_mount, old.path.as_str()), (new_mount, new.path.as_str()), new.kind);
        Ok(match mode {
            CloneMode::Live => hands.diff_live(kind, old, new, work.progress)?,
            CloneMode::Cold => hands.diff(kind, old, new, work.progress)?,
        })
    }
}
