//! Mounts that are no longer needed: removed, or marked as what may be.
//!
//! Owns the removal of volumes and folders. It must never remove what Switchback did not make, or what production uses or may
//! return to.

use super::mounts::{base_of, live_volumes, mounts, parts};
use super::{ComposeData, refresh};
use crate::docker::DockerError;
use crate::docker::hands::HandsError;
use crate::error::EngineError;
use crate::home::Home;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use switchback_core::release::{Instance, MountPlace};

impl ComposeData {
    /// Removes the mounts of an instance, if Switchback made them and production does not use them.
    pub(super) fn remove_mounts(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        self.ready.clear();
        let mut folders = BTreeSet::new();
        for mount in mounts(instance).keys() {
            let mut places = vec![base_of(&mount.at), mount.at.clone()];
            // Looking into a folder takes a helper: only where there may be something.
            if refresh::mark(home, instance).exists() || matches!(mount.at, MountPlace::Volume(_)) {
                places.push(refresh::passes_of(&mount.at));
            }
            for place in places {
                match &place {
                    MountPlace::Volume(_) => self.drop_place(home, &place)?,
                    MountPlace::Dir(path)
                        if mount.beside.as_ref().is_some_and(|b| path.starts_with(b.as_str())) =>
                    {
                        let (beside, suffix) = parts(path)?;
                        folders.insert((beside.to_owned(), suffix.to_owned()));
                    }
                    MountPlace::Dir(_) => {}
                }
            }
        }
        for (beside, suffix) in folders {
            let hands = self.hands(home)?;
            self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("{beside}/{suffix}"));
            match hands.scratch_open(&beside, &suffix) {
                Ok(Some(dir)) => hands.scratch_remove(&dir, &crate::store::Progress::none())?,
                Ok(None) | Err(HandsError::Docker(DockerError::NoSuch { .. })) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Removes a volume, if Switchback made it and production does not use it.
    pub(super) fn drop_place(&self, home: &Home, place: &MountPlace) -> Result<(), EngineError> {
        let MountPlace::Volume(name) = place else { return Ok(()) };
        self.ready.clear();
        let live = live_volumes(home)?;
        let live: Vec<&str> = live.iter().map(String::as_str).collect();
        match self.docker.scratch_volume(name, &home.id()?, &live) {
            Ok(Some(scratch)) => self.remove_volume(&scratch),
            // The user's own volume of the first generation is never removed.
            Ok(None) | Err(DockerError::NotScratch { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// A stopped container keeps its volume in use; those of staging and of generations that were left are removed.
    fn remove_volume(&self, volume: &crate::docker::ScratchVolume) -> Result<(), EngineError> {
        match self.docker.volume_remove(volume) {
            Err(DockerError::VolumeInUse { by, .. }) => {
                for name in by {
                    let Some(container) = self.docker.inspect(&name)? else { continue };
                    if container.state.running || container.state.paused {
                        return Err(EngineError::refused(
                            format!("the volume {} is in use by {name}, which runs", volume.name()),
                            "stop it first",
                        ));
                    }
                    self.docker.remove(&container.id, false)?;
                }
                Ok(self.docker.volume_remove(volume)?)
            }
            other => Ok(other?),
        }
    }

    /// Marks the folders beside production's data as scratch, or as live. Volumes are told by the pointer.
    pub(super) fn mark_mounts(
        &self,
        home: &Home,
        instance: &Instance,
        scratch: bool,
    ) -> Result<(), EngineError> {
        let mut folders = BTreeSet::new();
        for mount in mounts(instance).into_keys() {
            if let (Some(beside), MountPlace::Dir(path)) = (&mount.beside, &mount.at)
                && path.starts_with(beside.as_str())
            {
                // Several mounts may lie in one folder: it is marked once.
                let (beside, suffix) = parts(path)?;
                folders.insert((beside.to_owned(), suffix.to_owned()));
            }
        }
        for (beside, suffix) in folders {
            let hands = self.hands(home)?;
            if scratch {
                hands.scratch_mark(&beside, &suffix)?;
            } else {
                hands.scratch_keep(&beside, &suffix)?;
            }
        }
        Ok(())
    }
}
