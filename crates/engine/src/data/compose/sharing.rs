//! Whether clones share their blocks with what they are made from.

use super::ComposeData;
use super::mounts::{Job, parts};
use crate::docker::ScratchVolume;
use crate::error::EngineError;
use crate::home::Home;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use switchback_core::data::StoreKind;
use switchback_core::release::{Mount, MountPlace};

/// Engines whose volumes turned out to share no blocks: planning finds out, and the run need not ask again.
static UNSHARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl ComposeData {
    /// Whether every clone can share its blocks with its original. Looks by doing it, with one small file, unless it is known that
    /// the engine's volumes cannot.
    pub(super) fn can_share(&self, home: &Home, jobs: &[Job]) -> Result<bool, EngineError> {
        let hands = self.hands(home)?;
        for job in jobs {
            if self.unshared(false) && self.is_plain(&job.from)? && self.is_plain(&job.to)? {
                return Ok(false);
            }
            let folder = match &job.to {
                MountPlace::Volume(_) => job.to.clone(),
                MountPlace::Dir(path) => {
                    let (beside, suffix) = parts(path)?;
                    MountPlace::Dir(format!("{beside}/{suffix}"))
                }
            };
            if !hands.can_reflink((&job.from, ""), (&folder, ""))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What clones of a mount, where they will lie, would have to copy; none if they can share its blocks. Those in volumes are
    /// tried with one made for it.
    pub(super) fn to_copy(
        &self,
        home: &Home,
        mount: &Mount,
        probe: Option<&ScratchVolume>,
    ) -> Result<Option<u64>, EngineError> {
        let hands = self.hands(home)?;
        let folder = match (&mount.beside, probe) {
            (Some(beside), _) => {
                let folder = MountPlace::Dir(beside.clone());
                hands.make_dir((&folder, ""), 0o700, (0, 0))?;
                folder
            }
            (None, Some(probe)) => probe.place(),
            (None, None) => return Ok(Some(hands.size_bytes(StoreKind::Files, (&mount.at, ""))?)),
        };
        let found = hands.to_copy((&mount.at, ""), (&folder, ""))?;
        if found.is_some() && self.is_plain(&mount.at)? && self.is_plain(&folder)? {
            self.unshared(true);
        }
        Ok(found)
    }

    /// Whether it is known that the engine's own volumes share no blocks with each other; `found` makes it so.
    fn unshared(&self, found: bool) -> bool {
        let mut known = UNSHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.docker.endpoint();
        found && known.insert(engine.to_owned()) || known.contains(engine)
    }

    /// Whether it is a volume that lies where the engine keeps its own.
    fn is_plain(&self, at: &MountPlace) -> Result<bool, EngineError> {
        match at {
            MountPlace::Volume(name) => Ok(self.docker.volume(name)?.is_some_and(|v| v.is_plain())),
            MountPlace::Dir(_) => Ok(false),
        }
    }
}
