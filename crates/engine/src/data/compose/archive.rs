//! Mounts into the repository of backups, and back.

use super::mounts::mounts;
use super::{ComposeData, Work};
use crate::backup::child;
use crate::backup::vault::{Location, Task, Vault};
use crate::docker::hands::Placed;
use crate::error::{EngineError, io};
use crate::home::Home;
use crate::runtime::Placement;
use crate::store::Progress;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::backup::{Archived, Part, Stamp, part};
use switchback_core::data::{Fingerprint, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::release::MountPlace;

fn place_name(place: &MountPlace) -> String {
    match place {
        MountPlace::Volume(name) => format!("the volume {name}"),
        MountPlace::Dir(path) => path.clone(),
    }
}

impl ComposeData {
    /// Mounts are taken as a whole, under the name of the first store on each.
    pub(super) fn backup_parts(
        &self,
        at: &Placement<'_>,
    ) -> Result<BTreeMap<StoreName, String>, EngineError> {
        let mut found = BTreeMap::new();
        for (mount, stores) in mounts(at.instance) {
            if let Some(first) = stores.first()
                && self.mount_exists(at.home, &mount.at)?
            {
                found.insert(first.clone(), part(first));
            }
        }
        Ok(found)
    }

    pub(super) fn archive_mounts(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        (beside, contents): (Vec<Part>, &BTreeMap<StoreName, Fingerprint>),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError> {
        self.must_be_local()?;
        let named = self.backup_parts(at)?;
        let all = mounts(at.instance);
        let mut placed = Vec::new();
        for (mount, stores) in &all {
            let Some(logical) = stores.first().and_then(|s| named.get(s)) else { continue };
            let mut part = Part::new("", logical);
            for (name, place) in stores.iter().filter_map(|s| Some((s, at.instance.stores.get(s)?))) {
                match (place.kind, contents.get(name)) {
                    (StoreKind::Sqlite, _) | (_, None) => {}
                    // Of a server, the whole mount.
                    (StoreKind::Postgres | StoreKind::Mysql, Some(content)) => part.mark("", content),
                    (StoreKind::Files, Some(content)) => part.mark(&place.path, content),
                }
            }
            placed.push(Placed { at: (&mount.at, ""), part });
        }
        // Files of this host: the folder is mounted, also for a single file.
        let mut folders = Vec::new();
        for part in beside {
            let path = Path::new(&part.real);
            let (folder, file) = match (path.is_dir(), path.parent(), path.file_name()) {
                (false, Some(up), Some(file)) => (up.to_owned(), file.to_string_lossy().into_owned()),
                _ => (path.to_owned(), String::new()),
            };
            folders.push((MountPlace::Dir(folder.to_string_lossy().into_owned()), file, part));
        }
        placed.extend(
            folders
                .iter()
                .map(|(folder, file, part)| Placed { at: (folder, file.as_str()), part: part.clone() }),
        );
        let task = Task::Archive { parts: Vec::new(), stamp: Box::new(stamp.clone()) };
        crate::backup::parsed(self.on_repository(at.home, vault, &task, &placed, work.progress)?)
    }

    pub(super) fn fetch_mounts(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        (snapshot, said): (&str, &BTreeMap<StoreName, String>),
        scratch: bool,
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        self.must_be_local()?;
        if scratch {
            // What an earlier attempt left.
            self.remove_mounts(at.home, at.instance)?;
        }
        let all = mounts(at.instance);
        let mut placed = Vec::new();
        for (mount, stores) in &all {
            let Some(logical) = stores.iter().find_map(|s| said.get(s)) else { continue };
            if !scratch && self.mount_exists(at.home, &mount.at)? {
                return Err(crate::backup::occupied(&place_name(&mount.at)));
            }
            match &mount.at {
                // The user's own folder, which no generation was made beside.
                MountPlace::Dir(path)
                    if !mount.beside.as_ref().is_some_and(|b| path.starts_with(b.as_str())) =>
                {
                    std::fs::create_dir_all(path).map_err(io("make", Path::new(path)))?;
                }
                at_place => self.make_place(at.home, at.instance, at_place)?,
            }
            placed.push(Placed { at: (&mount.at, ""), part: Part::new("", logical) });
        }
        let task = Task::Restore { snapshot: snapshot.to_owned(), parts: Vec::new() };
        crate::backup::parsed(self.on_repository(at.home, vault, &task, &placed, work.progress)?)
    }

    /// The repository lies on this host, and so does what is written into it.
    fn must_be_local(&self) -> Result<(), EngineError> {
        if self.docker.is_local() {
            return Ok(());
        }
        Err(EngineError::refused(
            "backups of a stack on a remote engine cannot be made from here",
            "run Switchback on the engine's host",
        ))
    }

    pub(super) fn on_repository(
        &self,
        home: &Home,
        vault: &Vault,
        task: &Task,
        placed: &[Placed<'_>],
        progress: &Progress<'_>,
    ) -> Result<Value, EngineError> {
        if let Location::Folder(path) = &vault.location {
            self.must_be_local()?;
            match task {
                Task::Init => {
                    std::fs::create_dir_all(path).map_err(io("make", Path::new(path)))?;
                }
                _ if !Path::new(path).is_dir() => {
                    return Err(EngineError::refused(
                        format!("there is no repository at {path}"),
                        "mount the disk it lies on, or make one: `switchback backup init`",
                    ));
                }
                _ => {}
            }
        }
        if placed.is_empty() && vault.location.is_ours() {
            // A helper takes a third of a second to start.
            return child::perform(vault, task, progress);
        }
        Ok(self.hands(home)?.vault(vault, task, placed, progress)?)
    }
}
