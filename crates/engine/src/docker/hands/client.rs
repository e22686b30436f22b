//! The program's side: which operation, on which places, with what mounted.
//!
//! Owns the helper's container. It must never mount a place writable that the operation only reads.

use super::super::{
    BoundMount, Docker, DockerError, GATEWAY, HELPER_LABEL, NetworkMode, RunSpec, STACK_LABEL, ScratchVolume,
    helper, name,
};
use super::lines::Lines;
use super::ready::Ready;
use super::serve::STORE_VERB;
use super::wire::{At, DIRS, Entry, Request, Room, SCRATCH, VOLUMES};
use crate::store::{Progress, StoreError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path};
use switchback_core::data::{CopyStats, Fingerprint, StoreDiff, StoreKind};
use switchback_core::release::MountPlace;

/// What copying needs of root: owners, modes of others' files, devices, file capabilities. `trusted.*` attributes
/// would need SYS_ADMIN, which is as good as the host: they are not copied.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];
/// Threads of a helper: the store uses a few; more would be a mistake.
const PIDS: u32 = 64;

/// Why a store operation in a helper failed.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// The engine did not do its part.
    #[error(transparent)]
    Docker(DockerError),
    /// The store operation failed, as it would have outside.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The helper ended without an answer.
    #[error("the helper container ended without an answer (exit code {code}): {why}")]
    Broken {
        /// Exit code; 137 if it was killed, by a person or for want of memory.
        code: i64,
        /// The end of its standard error.
        why: String,
    },
}

impl From<DockerError> for HandsError {
    /// A cancelled container is a cancelled store operation.
    fn from(error: DockerError) -> Self {
        match error {
            DockerError::Cancelled => Self::Store(StoreError::Cancelled),
            other => Self::Docker(other),
        }
    }
}

/// Result of a store operation in a helper.
pub type Result<T> = std::result::Result<T, HandsError>;

/// A folder beside production's data that Switchback made for a stack and that is not live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchDir {
    pub(super) beside: String,
    pub(super) suffix: String,
}

impl ScratchDir {
    /// Its absolute path on the engine's host.
    pub fn path(&self) -> String {
        format!("{}/{}", self.beside, self.suffix)
    }
    pub(super) fn beside(&self) -> MountPlace {
        MountPlace::Dir(self.beside.clone())
    }
}

/// What may be written to and removed.
#[derive(Debug, Clone, Copy)]
pub enum Scratch<'a> {
    /// A scratch volume.
    Volume(&'a ScratchVolume),
    /// A marked folder.
    Dir(&'a ScratchDir),
}

/// Does store operations in helper containers.
#[derive(Debug, Clone)]
pub struct Hands<'a> {
    pub(super) docker: &'a Docker,
    pub(super) image: String,
    pub(super) stack: String,
    pub(super) ready: Option<&'a Ready>,
    /// What the image is made of, should it be gone.
    program: Option<&'a Path>,
}

/// A place and a path below it; empty for the place itself.
pub(super) type Below<'p> = (&'p MountPlace, &'p str);

/// What is mounted for one operation: place to whether it is writable.
#[derive(Default)]
pub(super) struct Mounts(BTreeMap<MountPlace, bool>);

pub(super) fn bad_path(path: &str) -> HandsError {
    DockerError::BadName { kind: "path of a store", name: path.to_owned() }.into()
}

/// Whether a path is made of plain names only (and begins with `/`, if it is absolute).
pub(super) fn plain(path: &str, absolute: bool) -> bool {
    let path = path.strip_prefix('/').filter(|_| absolute).unwrap_or(if absolute { "/" } else { path });
    !path.contains('\0') && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

fn target(place: &MountPlace) -> String {
    match place {
        MountPlace::Volume(name) => format!("{VOLUMES}/{name}"),
        MountPlace::Dir(path) => format!("{DIRS}{}", path.trim_end_matches('/')),
    }
}

impl Mounts {
    /// Mounts what is read. Returns the path in the helper.
    pub(super) fn reads(&mut self, at: Below<'_>) -> Result<String> {
        self.add(at, false)
    }

    /// Mounts what is written to.
    pub(super) fn writes(&mut self, at: Below<'_>) -> Result<String> {
        self.add(at, true)
    }

    /// Mounts where something is made that does not exist: for a directory of its own, the one above it.
    pub(super) fn makes(&mut self, (place, below): Below<'_>) -> Result<String> {
        match place {
            MountPlace::Dir(path) if below.is_empty() => match path.trim_end_matches('/').rsplit_once('/') {
                Some((up, last)) if !up.is_empty() => self.add((&MountPlace::Dir(up.to_owned()), last), true),
                _ => Err(bad_path(path)),
            },
            _ => self.add((place, below), true),
        }
    }

    /// Mounts a store that is read. SQLite takes part in its locks where it is in use.
    pub(super) fn store(&mut self, kind: StoreKind, at: Below<'_>, live: bool) -> Result<At> {
        Ok(At { path: self.add(at, live && kind == StoreKind::Sqlite)?, live })
    }

    fn add(&mut self, (place, below): Below<'_>, write: bool) -> Result<String> {
        match place {
            MountPlace::Volume(volume) => {
                name::object("volume", volume)?;
            }
            MountPlace::Dir(path) if plain(path, true) && path.len() > 1 => {}
            MountPlace::Dir(path) => return Err(bad_path(path)),
        }
        if !plain(below, false) {
            return Err(bad_path(below));
        }
        *self.0.entry(place.clone()).or_default() |= write;
        let below = below.trim_end_matches('/');
        Ok(if below.is_empty() { target(place) } else { format!("{}/{below}", target(place)) })
    }
}

/// Removes the containers that were made to work on a stack's data (helpers, throwaway servers, migrations), at work
/// or not, and the networks of migrations. Only for the holder of the stack's lock. Returns how many there were.
pub fn remove_leftovers(docker: &Docker, stack: &str) -> std::result::Result<usize, DockerError> {
    let mut left = docker.containers(&[(STACK_LABEL, stack), (HELPER_LABEL, "")])?;
    left.retain(|c| c.labels.get(HELPER_LABEL).is_none_or(|kind| kind != GATEWAY));
    for container in &left {
        docker.remove_with_scratch(&container.id)?;
    }
    for network in docker.networks(&[(STACK_LABEL, stack), (HELPER_LABEL, "")])? {
        docker.network_remove(&network.name, stack)?;
    }
    Ok(left.len())
}

impl<'a> Hands<'a> {
    /// Hands that use a helper image (see [`helper::ensure`]) for a stack.
    pub fn new(docker: &'a Docker, image: impl Into<String>, stack: impl Into<String>) -> Self {
        Self { docker, image: image.into(), stack: stack.into(), ready: None, program: None }
    }

    /// The same, made anew of this program where the image is gone: another stack's `gc` removes images that no container has at that
    /// moment, if they are of another version of the program.
    #[must_use]
    pub fn of(mut self, program: &'a Path) -> Self {
        self.program = Some(program);
        self
    }

    /// The same with the image made anew, if it can be and that was what was missing.
    pub(super) fn renewed(&self, error: &HandsError) -> Result<Option<Self>> {
        let (HandsError::Docker(DockerError::ImageMissing { .. }), Some(program)) = (error, self.program)
        else {
            return Ok(None);
        };
        let image = helper::ensure(self.docker, program)?;
        Ok(Some(Self { image, program: None, ..self.clone() }))
    }

    /// The same, with helpers that were started ahead.
    #[must_use]
    pub fn with(mut self, ready: &'a Ready) -> Self {
        self.ready = Some(ready);
        self
    }

    /// The helper's container.
    pub(super) fn spec(&self, mounts: Mounts, scratch: bool) -> RunSpec {
        RunSpec {
            image: self.image.clone(),
            entrypoint: Some(vec![helper::PROGRAM.to_owned(), STORE_VERB.to_owned()]),
            user: Some("0:0".to_owned()),
            mounts: mounts
                .0
                .into_iter()
                .map(|(place, write)| BoundMount { target: target(&place), place, read_only: !write })
                .collect(),
            scratch: if scratch { vec![SCRATCH.to_owned()] } else { Vec::new() },
            network: NetworkMode::None,
            cap_drop_all: true,
            cap_add: CAPABILITIES.map(str::to_owned).to_vec(),
            read_only_root: true,
            unlabelled: true,
            labels: BTreeMap::from([
                (STACK_LABEL.to_owned(), self.stack.clone()),
                (HELPER_LABEL.to_owned(), "1".to_owned()),
            ]),
            pids: Some(PIDS),
            ..RunSpec::default()
        }
    }

    /// Runs one operation.
    pub(super) fn call(
        &self,
        mounts: Mounts,
        request: &Request,
        progress: &Progress<'_>,
        rest: Option<&mut dyn Write>,
    ) -> Result<Value> {
        let spec = self.spec(mounts, uses_scratch(request));
        let text =
            serde_json::to_vec(request).map_err(|e| HandsError::Broken { code: -1, why: e.to_string() })?;
        let mut lines = Lines::new(rest, progress);
        let cancel = || (progress.cancel)();
        let mut ran = self.docker.run(&spec, Some(&mut text.as_slice()), &mut lines, &cancel);
        if let Err(e @ DockerError::ImageMissing { .. }) = ran {
            let e = HandsError::Docker(e);
            let Some(renewed) = self.renewed(&e)? else { return Err(e) };
            let spec = RunSpec { image: renewed.image, ..spec };
            ran = self.docker.run(&spec, Some(&mut text.as_slice()), &mut lines, &cancel);
        }
        let ended = ran?;
        match lines.answer {
            Some(answer) if ended.code == 0 => Ok(answer?),
            _ => Err(HandsError::Broken { code: ended.code, why: ended.stderr_tail.trim().to_owned() }),
        }
    }

    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        mounts: Mounts,
        request: &Request,
        progress: &Progress<'_>,
    ) -> Result<T> {
        parsed(self.call(mounts, request, progress, None)?)
    }

    /// Removes helper containers of this stack that a killed program left. Only for the holder of the stack's lock:
    /// helpers at work are removed, too. Returns how many there were.
    pub fn remove_leftovers(&self) -> Result<usize> {
        Ok(remove_leftovers(self.docker, &self.stack)?)
    }

    /// Measures a store in bytes.
    pub fn size_bytes(&self, kind: StoreKind, at: Below<'_>) -> Result<u64> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        self.ask(mounts, &Request::SizeBytes { kind, path }, &Progress::none())
    }

    /// How many bytes a clone of a place in a folder would have to copy; none if it can share its blocks.
    pub fn to_copy(&self, from: Below<'_>, to: Below<'_>) -> Result<Option<u64>> {
        let mut mounts = Mounts::default();
        let (from, to) = (mounts.reads(from)?, mounts.writes(to)?);
        self.ask(mounts, &Request::ToCopy { from, to }, &Progress::none())
    }

    /// How much room there is on the file system of a mount. Only to be asked where that is not this host's.
    pub fn room(&self, at: Below<'_>) -> Result<Room> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        self.ask(mounts, &Request::Room { path }, &Progress::none())
    }

    /// Clones a store whose writers are running to a path that does not exist, or a tree into an empty volume.
    pub fn clone_live(
        &self,
        kind: StoreKind,
        from: Below<'_>,
        to: Below<'_>,
        progress: &Progress<'_>,
    ) -> Result<CopyStats> {
        let mut mounts = Mounts::default();
        let from = mounts.store(kind, from, true)?.path;
        let to = mounts.makes(to)?;
        self.ask(mounts, &Request::CloneLive { kind, from, to }, progress)
    }

    /// Clones a store that nobody has open; otherwise like [`Self::clone_live`].
    pub fn clone_cold(
        &self,
        kind: StoreKind,
        from: Below<'_>,
        to: Below<'_>,
        progress: &Progress<'_>,
    ) -> Result<CopyStats> {
        let mut mounts = Mounts::default();
        let from = mounts.reads(from)?;
        let to = mounts.makes(to)?;
        self.ask(mounts, &Request::CloneCold { kind, from, to }, progress)
    }

    /// Computes the exact content of a store.
    pub fn fingerprint(
        &self,
        kind: StoreKind,
        at: Below<'_>,
        live: bool,
        progress: &Progress<'_>,
    ) -> Result<Fingerprint> {
        let mut mounts = Mounts::default();
        let at = mounts.store(kind, at, live)?;
        self.ask(mounts, &Request::Fingerprint { kind, at }, progress)
    }

    /// Lists what is wrong inside a store.
    pub fn integrity(
        &self,
        kind: StoreKind,
        at: Below<'_>,
        live: bool,
        progress: &Progress<'_>,
    ) -> Result<Vec<String>> {
        let mut mounts = Mounts::default();
        let at = mounts.store(kind, at, live)?;
        self.ask(mounts, &Request::Integrity { kind, at }, progress)
    }

    /// Compares two states of a store that nobody has open.
    pub fn diff(
        &self,
        kind: StoreKind,
        before: Below<'_>,
        after: Below<'_>,
        progress: &Progress<'_>,
    ) -> Result<StoreDiff> {
        let mut mounts = Mounts::default();
        let before = mounts.store(kind, before, false)?;
        let after = mounts.store(kind, after, false)?;
        self.ask(mounts, &Request::Diff { kind, before, after }, progress)
    }

    /// Compares a store that nobody has open with one that is in use.
    pub fn diff_live(
        &self,
        kind: StoreKind,
        before: Below<'_>,
        after: Below<'_>,
        progress: &Progress<'_>,
    ) -> Result<StoreDiff> {
        let mut mounts = Mounts::default();
        let before = mounts.store(kind, before, false)?;
        let after = mounts.store(kind, after, true)?;
        self.ask(mounts, &Request::Diff { kind, before, after }, progress)
    }

    /// Whether clones of `from` in the existing folder `to` can share its blocks. Makes and removes a file in `to`.
    pub fn can_reflink(&self, from: Below<'_>, to: Below<'_>) -> Result<bool> {
        let mut mounts = Mounts::default();
        let from = mounts.reads(from)?;
        let to = mounts.writes(to)?;
        self.ask(mounts, &Request::CanReflink { from, to }, &Progress::none())
    }

    /// Asks a SQLite database for one value: the first column of the first row.
    pub fn sql(&self, at: Below<'_>, query: &str, values: &[Value]) -> Result<Value> {
        let mut mounts = Mounts::default();
        let path = mounts.store(StoreKind::Sqlite, at, true)?.path;
        let request = Request::Sql { path, query: query.to_owned(), values: values.to_vec() };
        self.ask(mounts, &request, &Progress::none())
    }

    /// Whether something is at a path. Also `false` if the place itself does not exist.
    pub fn exists(&self, at: Below<'_>) -> Result<bool> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        match self.ask(mounts, &Request::Exists { path }, &Progress::none()) {
            Err(HandsError::Docker(DockerError::NoSuch { .. })) => Ok(false),
            other => other,
        }
    }

    /// Makes a folder; fine if it exists. Returns whether it was made. The folder above must exist. The root of an
    /// empty volume gets owner and mode too.
    pub fn make_dir(&self, at: Below<'_>, mode: u32, (uid, gid): (u32, u32)) -> Result<bool> {
        let mut mounts = Mounts::default();
        let path = mounts.makes(at)?;
        self.ask(mounts, &Request::MakeDir { path, mode, uid, gid }, &Progress::none())
    }

    /// Lists a folder.
    pub fn list(&self, at: Below<'_>) -> Result<Vec<Entry>> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        self.ask(mounts, &Request::List { path }, &Progress::none())
    }

    /// Reads a file of at most so many bytes.
    pub fn read_file(&self, at: Below<'_>, limit_bytes: u64) -> Result<Vec<u8>> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        let text: String =
            self.ask(mounts, &Request::ReadFile { path, limit: limit_bytes }, &Progress::none())?;
        BASE64_STANDARD.decode(text).map_err(|e| HandsError::Broken { code: 0, why: e.to_string() })
    }

    /// Removes a file or tree strictly below a scratch volume or folder. Returns whether the path was reached.
    pub fn remove(&self, scratch: Scratch<'_>, below: &str, progress: &Progress<'_>) -> Result<bool> {
        let mut mounts = Mounts::default();
        let (root, stack) = match scratch {
            Scratch::Volume(volume) => (mounts.writes((&volume.place(), ""))?, None),
            Scratch::Dir(dir) => (mounts.writes((&dir.beside(), &dir.suffix))?, Some(self.stack.clone())),
        };
        if below.is_empty() || !plain(below, false) {
            return Err(bad_path(below));
        }
        let path = format!("{root}/{below}");
        self.ask(mounts, &Request::Remove { root, path, stack }, progress)
    }
}

/// Only reading SQLite databases that were not closed well, and exports, need room of their own.
fn uses_scratch(request: &Request) -> bool {
    let sqlite = |kind: &StoreKind| *kind == StoreKind::Sqlite;
    match request {
        Request::Export { .. } => true,
        Request::Fingerprint { kind, at } | Request::Integrity { kind, at } => sqlite(kind) && !at.live,
        Request::Diff { kind, .. } => sqlite(kind),
        Request::Samples { at, .. } => !at.live,
        _ => false,
    }
}

pub(super) fn parsed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| HandsError::Broken { code: 0, why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_refused_and_only_what_is_written_is_writable() {
        let volume = MountPlace::Volume("app_data".into());
        let mut mounts = Mounts::default();
        for below in ["../x", "a/../../x", "/etc", "a\0b", "./x/.."] {
            assert!(mounts.reads((&volume, below)).is_err(), "{below:?}");
        }
        for dir in ["", "/", "relative", "/a/../b", "/a/.."] {
            assert!(mounts.reads((&MountPlace::Dir(dir.into()), "")).is_err(), "{dir:?}");
        }
        assert!(mounts.reads((&MountPlace::Volume("../x".into()), "")).is_err());
        assert!(mounts.0.is_empty());
        let dir = MountPlace::Dir("/srv/app data".into());
        assert_eq!(mounts.reads((&volume, "")).expect("fine"), "/volume/app_data");
        assert_eq!(
            mounts.store(StoreKind::Sqlite, (&dir, "hub.db"), false).expect("fine").path,
            "/dir/srv/app data/hub.db"
        );
        assert!(mounts.0.values().all(|write| !write));
        mounts.store(StoreKind::Files, (&dir, ""), true).expect("fine");
        assert!(mounts.0.values().all(|write| !write), "a live tree is only read");
        mounts.store(StoreKind::Sqlite, (&dir, "hub.db"), true).expect("fine");
        assert_eq!((mounts.0[&dir], mounts.0[&volume]), (true, false));
        let mut mounts = Mounts::default();
        assert_eq!(
            mounts.makes((&MountPlace::Dir("/srv/g7/data".into()), "")).expect("fine"),
            "/dir/srv/g7/data"
        );
        assert_eq!(mounts.0.keys().next(), Some(&MountPlace::Dir("/srv/g7".into())));
    }
}
