//! Carrying out a task on a repository.

use super::location::{Location, Vault};
use super::progress::Meter;
use super::rest::Rest;
use super::root;
use super::s3::S3;
use super::source::{Parts, Record};
use super::wal;
use super::{Retained, Task};
use crate::exec::elapsed_ms;
use crate::fault::{self, Gap, gap};
use crate::store::{self, Progress, StoreError};
use rustic_backend::LocalBackend;
use rustic_core::jiff::{Timestamp, Zoned, tz::TimeZone};
use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, IndexedFullStatus, KeepOptions, KeyOptions,
    LocalDestination, LsOptions, OpenStatus, PruneOptions, Repository, RepositoryBackends, RepositoryOptions,
    RestoreOptions, RusticError, RusticResult, SnapshotOptions, WriteBackend,
};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switchback_core::backup::{Archived, Keep, Kind, Part, Snapshot, Stamp, TAG};

/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(20);
/// The library panics on some kinds of damage.
const BROKE_OFF: &str = "its structure is damaged so much that it cannot be read";
/// What was left out is told up to so many lines.
const MOST_LINES: usize = 20;

/// Carries out a task; the answer is JSON.
pub fn perform(vault: &Vault, task: &Task, progress: &Progress<'_>) -> store::Result<Value> {
    let meter = Meter::default();
    std::thread::scope(|scope| {
        let work = scope.spawn(|| worked(vault, task, &meter));
        let mut told = Instant::now();
        while !work.is_finished() {
            std::thread::sleep(LOOK);
            if told.elapsed() >= TELL {
                let (done, total) = meter.read();
                (progress.report)(done, total);
                told = Instant::now();
            }
            if (progress.cancel)() {
                // This is a process of its own; the library knows no other way to stop.
                std::process::exit(3);
            }
        }
        work.join().unwrap_or_else(|_| match task {
            Task::Check { .. } => json([BROKE_OFF]),
            _ => Err(refused(vault, BROKE_OFF)),
        })
    })
}

pub(super) fn refused(vault: &Vault, why: impl Into<String>) -> StoreError {
    StoreError::Repository { at: vault.location.shown(), why: why.into() }
}

pub(super) fn told(vault: &Vault, error: &RusticError) -> StoreError {
    if error.is_incorrect_password() {
        return refused(vault, "the key does not open it");
    }
    let text = error.display_log();
    let text = text.strip_prefix("Error: ").unwrap_or(&text).to_owned();
    if text.contains("No space left") {
        return StoreError::NoSpace { path: PathBuf::from(vault.location.shown()), detail: text };
    }
    refused(vault, text)
}

fn worked(vault: &Vault, task: &Task, meter: &Meter) -> store::Result<Value> {
    let fails = |e: Box<RusticError>| told(vault, &e);
    match task {
        Task::Init => {
            let made = closed(vault, meter).and_then(|r| {
                r.init(
                    &Credentials::password(vault.key.reveal()),
                    &KeyOptions::default(),
                    &ConfigOptions::default(),
                )
            });
            json(made.map_err(fails)?.config().id.to_hex().as_str())
        }
        Task::Open => {
            let guarded = open(vault, meter).map_err(fails)?.key();
            json(serde_json::to_string(&guarded).map_err(|_| refused(vault, "its key cannot be told"))?)
        }
        Task::Archive { parts, stamp } => json(archive(vault, meter, parts, stamp)?),
        Task::Logs => json(wal::kept(&open(vault, meter).map_err(fails)?).map_err(fails)?),
        Task::Segments { pieces, parts } => json(wal::segments(vault, meter, pieces, parts)?),
        Task::List => {
            let repository = open(vault, meter).map_err(fails)?;
            let mut found: Vec<Snapshot> = ours(&repository).map_err(fails)?.iter().map(described).collect();
            found.sort_by_key(|s| s.at_ms);
            json(found)
        }
        Task::Read { snapshot, path, limit } => {
            let repository = open(vault, meter).and_then(Repository::to_indexed).map_err(fails)?;
            let found = found(&repository, snapshot).map_err(fails)?;
            let node = repository.node_from_snapshot_and_path(&found, path).map_err(fails)?;
            if !node.is_file() || node.meta.size > *limit {
                return Err(refused(
                    vault,
                    format!("{path} of snapshot {snapshot} is no file of the expected size"),
                ));
            }
            let mut bytes = Vec::new();
            repository.dump(&node, &mut bytes).map_err(fails)?;
            json(String::from_utf8_lossy(&bytes))
        }
        Task::Restore { snapshot, parts } => json(restore(vault, meter, snapshot, parts)?),
        Task::Check { .. } if gap(Gap::BackupCheck) => json([""; 0]),
        Task::Check { data } => {
            let repository = open(vault, meter).map_err(fails)?;
            let mut options = CheckOptions::default();
            options.read_data = *data;
            // What it stumbles over is what was looked for.
            json(match repository.check(options) {
                Ok(found) => found.0.iter().map(|(level, error)| format!("{level:?}: {error}")).collect(),
                Err(e) => vec![e.display_log()],
            })
        }
        Task::Forget { stack, keep, wal_keep_ms, dry_run } => {
            json(forget(vault, meter, stack, (*keep, *wal_keep_ms), *dry_run)?)
        }
    }
}

fn json(value: impl Serialize) -> store::Result<Value> {
    serde_json::to_value(value).map_err(|e| StoreError::Io {
        doing: "encode",
        path: PathBuf::new(),
        source: e.into(),
    })
}

fn closed(vault: &Vault, meter: &Meter) -> RusticResult<Repository<()>> {
    let backend: Arc<dyn WriteBackend> = match &vault.location {
        Location::Folder(path) => Arc::new(LocalBackend::new(path, Vec::new())?),
        Location::Rest(url) => Arc::new(Rest::new(url.reveal(), vault.location.shown())),
        Location::Rclone { url, .. } => Arc::new(Rest::new(url.reveal(), vault.location.shown())),
        Location::S3(place) => Arc::new(S3::new(place, vault.location.shown())?),
    };
    let mut options = RepositoryOptions::default();
    // A cache would lie in somebody's home folder, and helpers have none.
    options.no_cache = true;
    Repository::new_with_progress(&options, &RepositoryBackends::new(backend, None), meter.clone())
}

pub(super) fn open(vault: &Vault, meter: &Meter) -> RusticResult<Repository<OpenStatus>> {
    let guarded = vault.opened.as_ref().and_then(|k| serde_json::from_str(k.reveal()).ok());
    let credentials =
        guarded.map_or_else(|| Credentials::password(vault.key.reveal()), Credentials::Masterkey);
    closed(vault, meter)?.open(&credentials)
}

/// The snapshots that this program made.
fn ours(repository: &Repository<OpenStatus>) -> RusticResult<Vec<SnapshotFile>> {
    Ok(repository.get_all_snapshots()?.into_iter().filter(|s| s.tags.contains(TAG)).collect())
}

pub(super) fn found(repository: &Repository<IndexedFullStatus>, id: &str) -> RusticResult<SnapshotFile> {
    repository.get_snapshot_from_str(id, |_| true)
}

pub(super) fn described(snapshot: &SnapshotFile) -> Snapshot {
    let summary = snapshot.summary.as_ref();
    Snapshot {
        id: snapshot.id.to_hex().as_str().to_owned(),
        stack: snapshot.hostname.clone(),
        at_ms: snapshot.time.timestamp().as_millisecond(),
        bytes: summary.map_or(0, |s| s.total_bytes_processed),
        files: summary.map_or(0, |s| s.total_files_processed),
        added: summary.map_or(0, |s| s.data_added_packed),
        bases: wal::bases(snapshot),
    }
}

fn archive(vault: &Vault, meter: &Meter, parts: &[Part], stamp: &Stamp) -> store::Result<Archived> {
    let fails = |e: Box<RusticError>| told(vault, &e);
    let began = Instant::now();
    let record = Record::default();
    let source = Parts::new(parts.to_vec(), record.clone()).map_err(fails)?;
    let repository = open(vault, meter).map_err(fails)?;
    let mut options = BackupOptions::default();
    // Named: segments of a log are snapshots of this stack as well, and nothing in them was in an earlier one.
    if stamp.kind == Kind::Whole {
        let own = ours(&repository).map_err(fails)?.into_iter().filter(|s| s.hostname == stamp.stack);
        let newest = own.max_by_key(|s| s.time.timestamp());
        options.parent_opts.parents = newest.iter().map(|s| s.id.to_hex().as_str().to_owned()).collect();
    }
    options.parent_opts.force = options.parent_opts.parents.is_empty();
    let repository = repository.to_indexed_ids().map_err(fails)?;
    // What is to become one with another snapshot is none by itself.
    let kind = if stamp.with.is_some() { Kind::Part } else { stamp.kind };
    let snapshot = stamped(stamp, kind).map_err(fails)?;
    let saved = repository.archive(&options, &source, snapshot, &[PathBuf::from("/")]).map_err(fails)?;
    let mut seen = std::mem::take(&mut *record.lock());
    // With what was written just now.
    let repository = repository.drop_index().to_indexed().map_err(fails)?;
    if seen.broken.is_empty() {
        // The library passes over what it cannot read: what is in the snapshot is looked at, not believed.
        let root = repository.node_from_snapshot_and_path(&saved, "").map_err(fails)?;
        for entry in repository.ls(&root, &LsOptions::default()).map_err(fails)? {
            let (path, node) = entry.map_err(fails)?;
            if node.is_file() && seen.files.remove(&Path::new("/").join(&path)).is_none() {
                seen.broken.push(format!("{}: not asked for", path.display()));
            }
        }
        for part in parts.iter().filter(|p| !p.live) {
            if repository.node_from_snapshot_and_path(&saved, &part.logical).is_err() {
                seen.broken.push(format!("{}: it is missing", part.logical));
            }
        }
        seen.broken.extend(seen.files.keys().map(|p| format!("{}: it is missing", p.display())));
    }
    if let Some(first) = seen.broken.first() {
        let why =
            format!("{} file(s) are not in the snapshot, which was removed: {first}", seen.broken.len());
        let _ = repository.delete_snapshots(&[saved.id]);
        return Err(refused(vault, why));
    }
    let mut described = described(&saved);
    if let Some(with) = &stamp.with {
        described = wal::merged(&repository, with, saved, stamped(stamp, stamp.kind).map_err(fails)?)
            .map_err(fails)?;
    }
    let mut left_out = seen.left_out;
    if left_out.len() > MOST_LINES {
        let more = left_out.len() - MOST_LINES;
        left_out.truncate(MOST_LINES);
        left_out.push(format!("and {more} more"));
    }
    Ok(Archived { snapshot: described, took_ms: elapsed_ms(began), moment_ms: None, left_out })
}

/// A snapshot that is about to be written.
fn stamped(stamp: &Stamp, kind: Kind) -> RusticResult<SnapshotFile> {
    let mut options = SnapshotOptions::default().add_tags(kind.tag())?;
    options.host = Some(stamp.stack.clone());
    options.description = stamp.note.as_ref().and_then(|n| serde_json::to_string(n).ok());
    let mut snapshot = options.to_snapshot()?;
    if let Ok(at) = Timestamp::from_millisecond(stamp.at_ms) {
        snapshot.time = Zoned::new(at, TimeZone::UTC);
    }
    Ok(snapshot)
}

fn restore(vault: &Vault, meter: &Meter, snapshot: &str, parts: &[Part]) -> store::Result<u64> {
    let fails = |e: Box<RusticError>| told(vault, &e);
    let repository = open(vault, meter).and_then(Repository::to_indexed).map_err(fails)?;
    let found = found(&repository, snapshot).map_err(fails)?;
    let mut options = RestoreOptions::default();
    options.numeric_id = true;
    let mut bytes = 0;
    for part in parts {
        let node = repository.node_from_snapshot_and_path(&found, &part.logical).map_err(fails)?;
        let entries = repository.ls(&node, &LsOptions::default()).map_err(fails)?;
        for entry in entries.clone() {
            let (path, _) = entry.map_err(fails)?;
            if !path.components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(refused(vault, format!("snapshot {snapshot} holds the path {}", path.display())));
            }
        }
        let to = LocalDestination::new(&part.real, true, !node.is_dir()).map_err(fails)?;
        let folder = node.is_dir().then(|| (PathBuf::new(), node.clone()));
        let entries = folder.into_iter().map(Ok).chain(entries);
        let plan = repository.prepare_restore(&options, entries.clone(), &to, false).map_err(fails)?;
        bytes += plan.restore_size;
        repository.restore(plan, &options, entries, &to).map_err(fails)?;
        if node.is_dir() {
            root::restore(&node, Path::new(&part.real))?;
        }
        // Nothing that was brought back is only in memory.
        File::open(&part.real)
            .and_then(|f| rustix::fs::syncfs(&f).map_err(Into::into))
            .map_err(|source| StoreError::Io { doing: "sync", path: PathBuf::from(&part.real), source })?;
    }
    Ok(bytes)
}

fn forget(
    vault: &Vault,
    meter: &Meter,
    stack: &str,
    (keep, wal_keep_ms): (Keep, Option<i64>),
    dry_run: bool,
) -> store::Result<Retained> {
    let fails = |e: Box<RusticError>| told(vault, &e);
    let repository = open(vault, meter).map_err(fails)?;
    let mut own = ours(&repository).map_err(fails)?;
    own.retain(|s| s.hostname == stack);
    let count = |n: u32| Some(i32::try_from(n).unwrap_or(i32::MAX)).filter(|n| *n > 0);
    let mut options = KeepOptions::default();
    options.keep_last = count(keep.last);
    options.keep_daily = count(keep.daily);
    options.keep_weekly = count(keep.weekly);
    options.keep_monthly = count(keep.monthly);
    let judged = options.apply(own, &Zoned::now()).map_err(fails)?;
    let id = |s: &SnapshotFile| s.id.to_hex().as_str().to_owned();
    let result = Retained {
        kept: judged.iter().filter(|s| s.keep).map(|s| id(&s.snapshot)).collect(),
        removed: judged.iter().filter(|s| !s.keep).map(|s| id(&s.snapshot)).collect(),
    };
    if !dry_run {
        let (stay, go): (Vec<_>, Vec<_>) = judged.into_iter().partition(|s| s.keep);
        let stay: Vec<Snapshot> = stay.iter().map(|s| described(&s.snapshot)).collect();
        let mut gone: Vec<_> = go.into_iter().map(|s| s.snapshot.id).collect();
        gone.extend(wal::useless(&repository, stack, &stay, wal_keep_ms).map_err(fails)?);
        if !gone.is_empty() {
            repository.delete_snapshots(&gone).map_err(fails)?;
        }
        fault::point(fault::Way::Do, "prune", fault::At::During);
        let options = PruneOptions::default();
        let plan = repository.prune_plan(&options).map_err(fails)?;
        repository.prune(&options, plan).map_err(fails)?;
    }
    Ok(result)
}
