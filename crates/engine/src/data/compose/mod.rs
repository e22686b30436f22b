//! Stores on the mounts of containers: volumes and directories of the engine's host, and the databases in them.
//!
//! Mounts are cloned as a whole, several at one moment; stores are looked at one by one. Files and SQLite are
//! read by helper containers, Postgres through its own server. It must never start a server on production's pristine
//! data, and never write to a mount that is not scratch.

mod ahead;
mod altering;
mod archive;
mod capturing;
mod carrying;
mod convert;
mod difference;
mod facts;
mod masking;
mod mounts;
mod mysql;
mod owned;
mod pause;
mod preflight;
mod refresh;
mod removal;
mod server;
mod sharing;
mod standby;
mod throwaway;
mod tracing;
mod wal;

pub use facts::{MountFacts, PostgresFacts};
pub(crate) use mounts::live_volumes;

use super::watching::{Began, Watchers};
use super::{Altering, Capturing, Cost, Data, Logs, Observing, SAMPLES, Work, no_columns};
use crate::backup::vault::{Task, Vault};
use crate::docker::hands::{self, Hands, Ready};
use crate::docker::helper::HelperImages;
use crate::docker::{Docker, helper};
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::{Placement, Stage};
use crate::scratch::Scratch;
use crate::store::Progress;
use crate::store::postgres::{self, Amcheck};
use serde_json::Value;
use server::Server;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use switchback_core::anonymise::{Key, MaskedStore, Rule, Sample};
use switchback_core::backup::{Archived, Part, Stamp};
use switchback_core::carry::{Outcome, Rules};
use switchback_core::data::{ExportStats, Fingerprint, StoreDiff, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::{CloneMode, Majors};
use switchback_core::release::{Instance, MountPlace, StorePlace};

/// Data that the engine's containers can reach.
pub struct ComposeData {
    docker: Arc<Docker>,
    /// What helpers and guards are made of.
    program: PathBuf,
    helper: Mutex<Option<String>>,
    /// Folders for clones that this process has made.
    made: Mutex<BTreeSet<String>>,
    /// Helpers that wait for their work.
    ready: Ready,
    watchers: Watchers,
    traced: Began,
}

impl ComposeData {
    /// The data on an engine.
    pub fn new(docker: Arc<Docker>) -> Self {
        Self::of_program(docker, helper::this_program())
    }

    /// The same, where the caller is not `switchback` itself: helpers and guards are made of the program at this path.
    pub fn of_program(docker: Arc<Docker>, program: PathBuf) -> Self {
        let ready = Ready::new(Arc::clone(&docker));
        Self {
            docker,
            program,
            helper: Mutex::default(),
            made: Mutex::default(),
            ready,
            watchers: Watchers::default(),
            traced: Began::default(),
        }
    }

    /// Helper containers for a stack.
    fn hands(&self, home: &Home) -> Result<Hands<'_>, EngineError> {
        let mut known = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        let image = HelperImages::default().ensure_known(&self.docker, &self.program, &mut known)?;
        Ok(Hands::new(&self.docker, image, home.id()?).with(&self.ready).of(&self.program))
    }
}

/// The place of a store and the mount it lies on.
fn place<'i>(at: &Placement<'i>, store: &StoreName) -> Result<(&'i StorePlace, &'i MountPlace), EngineError> {
    let missing = || EngineError::Internal { detail: format!("{} has no store {store}", at.instance.key()) };
    let place = at.instance.stores.get(store).ok_or_else(missing)?;
    let mount = place.mount.as_ref().ok_or_else(missing)?;
    Ok((place, &mount.at))
}

impl Data for ComposeData {
    fn prepare(&self, at: &Placement<'_>) -> Result<(), EngineError> {
        self.prepare_places(&Placement { instance: &at.instance.own(), ..*at })
    }

    fn get_ready(&self, from: &Placement<'_>, to: &Placement<'_>, base: bool) -> Result<(), EngineError> {
        self.foresee(from, to, base)
    }

    fn exists(&self, at: &Placement<'_>, store: &StoreName) -> Result<bool, EngineError> {
        let (place, mount) = place(at, store)?;
        match mount {
            MountPlace::Volume(name) if place.path.is_empty() || place.kind.has_server() => {
                Ok(self.docker.volume(name)?.is_some())
            }
            // The engine would make a volume that is mounted and does not exist.
            MountPlace::Volume(name) if self.docker.volume(name)?.is_none() => Ok(false),
            // What this host sees needs no helper; it may not see what belongs to another user.
            MountPlace::Dir(path)
                if self.docker.is_local() && Path::new(path).join(&place.path).symlink_metadata().is_ok() =>
            {
                Ok(true)
            }
            _ => Ok(self.hands(at.home)?.exists((mount, &place.path))?),
        }
    }

    fn cost(&self, home: &Home, instance: &Instance) -> Result<Cost, EngineError> {
        self.measure(home, instance)
    }

    fn preflight(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        need_bytes: u64,
    ) -> Result<Vec<String>, EngineError> {
        preflight::preflight(self, from, to, need_bytes)
    }

    fn precopy(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        self.copy_ahead(from, to, work)
    }

    fn forget_precopy(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError> {
        self.forget_standbys(from, to, stage)
    }

    fn clone(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        self.clone_mounts(from, to, mode, work)
    }

    fn refresh(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        self.refresh_mounts(from, to, mode, work)
    }

    fn keep_base(
        &self,
        from: &Placement<'_>,
        beside: &Placement<'_>,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        self.clone_base(from, beside, scratch, work)
    }

    fn has_base(&self, at: &Placement<'_>) -> Result<bool, EngineError> {
        Ok(mounts::base_mark(at).exists())
    }

    fn base(&self, at: &Placement<'_>) -> Instance {
        let mut base = at.instance.clone();
        for mount in base.stores.values_mut().filter_map(|s| s.mount.as_mut()) {
            mount.at = mounts::base_of(&mount.at);
        }
        base
    }

    fn seed(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        self.clone_mounts(from, to, mode, work)
    }

    fn fingerprint(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind == StoreKind::Mysql {
            return self.mysql_fingerprint(at, store, mode, work);
        }
        if place.kind == StoreKind::Postgres {
            let server = Server::open(self, at, store, mount, mode)?;
            let found = postgres::fingerprint(&server, server.databases(), work.progress);
            return server.close(found);
        }
        let live = mode == CloneMode::Live;
        Ok(self.hands(at.home)?.fingerprint(place.kind, (mount, &place.path), live, work.progress)?)
    }

    fn content(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        let (place, mount) = place(at, store)?;
        // A server would have to be started to read its tables; the files say more, and sooner.
        let (kind, path) = match place.kind {
            StoreKind::Postgres | StoreKind::Mysql => (StoreKind::Files, ""),
            kind => (kind, place.path.as_str()),
        };
        let hands = self.hands(at.home)?;
        if kind == StoreKind::Files && refresh::mark(at.home, at.instance).exists() {
            let record = refresh::passes_of(mount);
            return Ok(hands.content_of_copy((mount, path), (&record, store), work.progress)?);
        }
        Ok(hands.fingerprint(kind, (mount, path), false, work.progress)?)
    }

    fn counts(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<BTreeMap<String, u64>, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind == StoreKind::Mysql {
            return self.mysql_counts(at, store, mode, work);
        }
        if place.kind == StoreKind::Postgres {
            let server = Server::open(self, at, store, mount, mode)?;
            let found = postgres::counts(&server, server.databases(), work.progress);
            return server.close(found);
        }
        Ok(super::counted(place.kind, self.fingerprint(at, store, mode, work)?))
    }

    fn integrity(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let (place, mount) = place(at, store)?;
        if place.kind == StoreKind::Mysql {
            return self.mysql_integrity(at, store, mode, work);
        }
        if place.kind == StoreKind::Postgres {
            let server = Server::open(self, at, store, mount, mode)?;
            let amcheck = if at.instance.is_production() { Amcheck::IfInstalled } else { Amcheck::MayCreate };
            let found = postgres::integrity(&server, server.databases(), amcheck, work.progress);
            return server.close(found);
        }
        let live = mode == CloneMode::Live;
        Ok(self.hands(at.home)?.integrity(place.kind, (mount, &place.path), live, work.progress)?)
    }

    fn diff(
        &self,
        before: &Placement<'_>,
        after: &Placement<'_>,
        mode: CloneMode,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<StoreDiff, EngineError> {
        self.compare_stores(before, after, mode, store, work)
    }

    fn altering(&self) -> &dyn Altering {
        self
    }

    fn export(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        out: &Path,
        work: &Work<'_>,
    ) -> Result<Option<ExportStats>, EngineError> {
        let (place, mount) = place(at, store)?;
        let base = mounts::base_of(mount);
        if !self.mount_exists(at.home, &base)? {
            return Ok(None);
        }
        if place.kind == StoreKind::Mysql {
            return self.mysql_export(at, store, out, work).map(Some);
        }
        if place.kind == StoreKind::Postgres {
            return self.export_rows(at, store, (&base, mount), (out, work)).map(Some);
        }
        let hands = self.hands(at.home)?;
        let stats =
            hands.export(place.kind, (&base, &place.path), (mount, &place.path), out, work.progress)?;
        Ok(Some(stats))
    }

    fn carry(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        rules: &Rules,
        work: &Work<'_>,
    ) -> Result<Option<Outcome>, EngineError> {
        self.carry_store(from, to, store, rules, work)
    }

    fn conversions(&self, from: &Placement<'_>, to: &Placement<'_>) -> Result<Majors, EngineError> {
        convert::needed(self, from, to)
    }

    fn convert(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        majors: (u32, u32),
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        self.convert_store(from, to, store, majors, work)
    }

    fn capturing(&self) -> Option<&dyn Capturing> {
        Some(self)
    }

    fn logs(&self) -> Option<&dyn Logs> {
        Some(self)
    }

    fn observing(&self) -> Option<&dyn Observing> {
        Some(self)
    }

    fn mask(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        rules: &[Rule],
        key: &Key,
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<MaskedStore, EngineError> {
        self.mask_store(at, store, rules, key, work)
    }

    fn samples(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<Sample>, EngineError> {
        let (place, mount) = place(at, store)?;
        match place.kind {
            StoreKind::Postgres => {
                let server = Server::open(self, at, store, mount, mode)?;
                let found = postgres::samples(&server, server.databases(), SAMPLES, work.progress);
                server.close(found)
            }
            StoreKind::Sqlite => {
                let live = mode == CloneMode::Live;
                Ok(self.hands(at.home)?.samples((mount, &place.path), live, SAMPLES)?)
            }
            StoreKind::Files | StoreKind::Mysql => Ok(Vec::new()),
        }
    }

    fn sql(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        sql: &str,
        values: &[Value],
    ) -> Result<Value, String> {
        let (place, mount) = place(at, store).map_err(|e| e.to_string())?;
        match place.kind {
            StoreKind::Postgres => {
                let server =
                    Server::open(self, at, store, mount, CloneMode::Live).map_err(|e| e.to_string())?;
                server.value(sql, values)
            }
            StoreKind::Sqlite => {
                let hands = self.hands(at.home).map_err(|e| e.to_string())?;
                hands.sql((mount, &place.path), sql, values).map_err(|e| e.to_string())
            }
            StoreKind::Mysql => self.mysql_value(at, store, sql, values),
            StoreKind::Files => Err(format!("the store {store} is not a database")),
        }
    }

    fn tidy(&self) -> Result<usize, EngineError> {
        let own = helper::ensure(&self.docker, &self.program)?;
        Ok(helper::prune_helpers(&self.docker, &own)?)
    }

    fn end_leftovers(&self, home: &Home) -> Result<(), EngineError> {
        hands::remove_leftovers(&self.docker, &home.id()?)?;
        self.remove_probe(home)
    }

    fn discard(&self, home: &Home, instance: &Instance, _: &Scratch) -> Result<(), EngineError> {
        self.watchers.forget(instance);
        self.remove_mounts(home, &instance.own())
    }

    fn parts(&self, at: &Placement<'_>) -> Result<BTreeMap<StoreName, String>, EngineError> {
        self.backup_parts(at)
    }

    fn archive(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        parts: (Vec<Part>, &BTreeMap<StoreName, Fingerprint>),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError> {
        self.archive_mounts(at, vault, parts, stamp, work)
    }

    fn fetch(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        snapshot: (&str, &BTreeMap<StoreName, String>),
        scratch: Option<&Scratch>,
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        self.fetch_mounts(at, vault, snapshot, scratch.is_some(), work)
    }

    fn vault(
        &self,
        home: &Home,
        vault: &Vault,
        task: &Task,
        progress: &Progress<'_>,
    ) -> Result<Value, EngineError> {
        self.on_repository(home, vault, task, &[], progress)
    }

    fn keep(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        self.mark_mounts(home, &instance.own(), false)
    }

    fn retire(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        self.mark_mounts(home, &instance.own(), true)
    }
}
