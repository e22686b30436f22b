//! An incremental copy: passes while writers run, and a short one while they are paused.
//!
//! Owns what a pass may skip. It must never skip a file whose content may differ from the copy's, and
//! never change anything in a copy that its own record does not claim.
//!
//! # When a file may be skipped
//!
//! A pass lists the tree with all attributes (`plan`), has the file system write out its dirty pages
//! (`syncfs`), and then reads what it has to. A file is skipped if device, inode, mode, owner, links,
//! size, modification and change time are those that an earlier pass *listed* before it read the file,
//! and that pass found it *sure*. The change time cannot be set by programs, but it does not tell all:
//!
//! - **Writes through a mapping** move the change time only when they dirty a clean page. Found by
//!   experiment on ext4, XFS and btrfs (Linux 6.18): the first store to a clean page moves it; a second
//!   store to the same page, `msync(MS_ASYNC)`, a store after that, and `munmap` do not; after `syncfs`,
//!   `fdatasync` or `sync_file_range` the next store does. On tmpfs none of them does. So the pages are
//!   written out *after* the listing and *before* the reading: what was stored before is read, and what
//!   is stored afterwards has a change time later than the one listed.
//!   `a_store_through_a_mapping_is_seen_by_the_next_pass` repeats this where the tests run.
//! - **A long write** sets the change time when it begins. On ext4 and btrfs a file can be read while 1
//!   GiB is being written to it with one call, and its attributes do not change afterwards (found by
//!   experiment). Asking for the next hole (`SEEK_HOLE`) waits for the end of such a call there, and
//!   reading does on XFS; so the hole is asked for between listing and reading.
//! - **Ticks, whole seconds, direct writes**: see [`plan::SETTLED`]. What changed so shortly before the
//!   listing is not sure.
//! - **Other file systems** (tmpfs, NFS, overlays, FUSE, ZFS) and mounts inside the tree are never sure:
//!   each pass compares all of their files.
//! - A pass with stopped writers does not wait for `syncfs`; what it reads is exact, but not sure for a
//!   later pass. What a pass that was killed had begun to change is withdrawn from the record first.
//!   After a restart of the machine nothing is sure.
//!
//! A copy that others write to between two rounds of passes is looked at as well: see [`seal`].

mod apply;
mod compare;
mod folders;
mod links;
mod memo;
mod patch;
mod plan;
mod record;
mod seal;

use super::super::progress::{Meter, Progress};
use super::super::{Result, StoreError};
use super::Writers;
use super::clone::refuse_nested;
use super::content::Copier;
use super::walk::{Found, Visit, walk};
use apply::{Apply, Done};
use folders::Folders;
pub(super) use memo::Memo;
pub(in super::super) use patch::patch_file;
use plan::{Look, Plan, SETTLED};
use record::{Certainty, Known, Record};
use rustix::fs::{FileType, Stat, syncfs};
pub use seal::{sync_begin, sync_seal};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes per millisecond that are compared if a pass gives no measure: 500 MB/s, a modest disk.
const ASSUMED_RATE: u64 = 500_000;
/// A pass that read less than this says nothing about the rate.
const MEASURABLE: u64 = 64 << 20;
/// Opening, comparing and closing a small file takes some 50 µs; twice that to be careful.
const PER_FILE_US: u64 = 100;

/// What a pass of an incremental copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStats {
    /// Bytes of the source (apparent size, hard links counted once).
    pub bytes: u64,
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes read from the copy, to be compared.
    pub compared: u64,
    /// Bytes written to the copy.
    pub written: u64,
    /// Entries of the source that are no folders; sockets do not count.
    pub files: u64,
    /// Entries whose content was compared or copied, or that were made anew.
    pub files_copied: u64,
    /// Entries removed from the copy; a folder with all that is in it counts once.
    pub removed: u64,
    /// Entries that changed or vanished while they were read, which the next pass has to deal with.
    pub left: u64,
    /// The paths of the first of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_named: Vec<String>,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// How long a pass with paused writers would take now, in milliseconds: listing the tree as long as
    /// this time, and reading what is not sure or changed within a time as long as this pass.
    pub estimate_next_ms: u64,
    /// What a person should know: sockets left out, attributes that the copy does not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Brings the copy `dst` to the state of `src`; one pass of several.
///
/// The first pass makes `dst`, whose parent must exist; later ones change it in place and remove what
/// the source has no more. `state` is a small file for the record of the passes, outside both; a
/// `dst` without it is refused ([`StoreError::DstExists`]). Files that look as they did are not read
/// again (the module documentation of `store::files::sync` has the exact rule); others are
/// compared, and only pages that differ are written. Attributes, links, holes and sockets are dealt with
/// as in a clone. On file systems with shared blocks, changed files share them.
///
/// With [`Writers::Running`], what vanishes or changes is left to the next pass. With
/// [`Writers::Stopped`] (or paused), the copy is exactly the source afterwards, and a change meanwhile
/// is [`StoreError::Changed`]. A pass that needs more than `budget` ends with
/// [`StoreError::OverBudget`]; after any error, and if the process is killed, `dst` is a valid base for
/// the next pass. Nothing is durable until [`make_durable`](crate::store::make_durable).
pub fn sync_pass(
    src: &Path,
    dst: &Path,
    state: &Path,
    writers: Writers,
    budget: Option<Duration>,
    progress: &Progress<'_>,
) -> Result<SyncStats> {
    let started = Instant::now();
    let late = || budget.is_some_and(|budget| started.elapsed() >= budget);
    let cancel = || (progress.cancel)() || late();
    let limited = Progress { cancel: &cancel, report: progress.report };
    let mut compared = 0;
    match pass(src, dst, state, writers, &limited, &mut compared) {
        Err(StoreError::Cancelled) if late() && !(progress.cancel)() => Err(StoreError::OverBudget {
            path: src.to_owned(),
            budget_ms: ms(budget.unwrap_or_default()),
            done_bytes: compared,
        }),
        other => other,
    }
}

fn pass(
    src: &Path,
    dst: &Path,
    state: &Path,
    writers: Writers,
    progress: &Progress<'_>,
    compared: &mut u64,
) -> Result<SyncStats> {
    let started = Instant::now();
    let (src, dst, state) = places(src, dst, state)?;
    let (record, known) = Record::open(&state, &src, &dst)?;
    let plan = Plan::make(&src, writers, progress)?;
    let listed_ms = ms(started.elapsed());
    let before: Vec<_> = plan.entries.iter().map(|entry| known.entries.get(&entry.rel).copied()).collect();
    let there = if known.doubtful { names(&dst)? } else { BTreeSet::new() };

    let mut seen = HashSet::new();
    let (mut bytes, mut files, mut to_read, mut new_bytes) = (0, 0, 0, 0);
    for (entry, before) in plan.entries.iter().zip(&before) {
        let look = &entry.look;
        files += u64::from(look.kind() != FileType::Directory);
        if look.kind() != FileType::RegularFile || (look.nlink > 1 && !seen.insert(look.id())) {
            continue;
        }
        bytes += look.size;
        if !Apply::is_kept(&plan, *before, look) {
            to_read += look.size;
        }
        if before.is_none() && !there.contains(&entry.rel) {
            new_bytes += entry.allocated;
        }
    }
    let vanished = vanished(&plan, &known, there);
    let synced = writers == Writers::Running && plan.any_trusted() && to_read > 0;
    if synced {
        let file = File::open(&src).map_err(|e| StoreError::read("open", &src, e))?;
        syncfs(&file).map_err(|e| StoreError::io("sync", &src, e))?;
    }

    let working = Instant::now();
    let open = |path: &Path, copy: bool| {
        Folders::new(path, copy && !super::meta::may_chown()).map_err(|e| StoreError::io("open", path, e))
    };
    let mut meter = Meter::new(progress, to_read);
    let mut copier = Copier::new();
    let room = if dst.is_dir() { &*dst } else { dst.parent().unwrap_or(Path::new("/")) };
    copier.require = Some((room.to_owned(), new_bytes));
    let count = plan.entries.len();
    let mut apply = Apply {
        plan: &plan,
        src_root: src.clone(),
        writers,
        synced,
        src: open(&src, false)?,
        dst: open(&dst, true)?,
        other: open(&dst, true)?,
        copier,
        meter: &mut meter,
        record,
        before,
        after: vec![None; count],
        altered: vec![false; count],
        done: Done::default(),
    };
    let result = apply.run(&known, &vanished);
    *compared = apply.done.read;
    result?;
    let Apply { record, after, done, .. } = apply;
    meter.finish();
    let work_ms = ms(working.elapsed());
    // Writers wait: what was changed is withdrawn already, and the next pass compares it again.
    let keep = writers == Writers::Stopped && record.holds();
    let certainty = |index: usize| after[index].unwrap_or(Certainty::Unknown);
    let entries = plan.entries.iter().enumerate().map(|(index, entry)| (entry, certainty(index)));
    if !keep {
        record.save(&src, &dst, entries)?;
    }

    let took = started.elapsed();
    // Writing a new copy is slower than comparing what was read a moment ago.
    let measured = done.read >= MEASURABLE && done.written < done.read / 4;
    let rate = if measured { done.read / work_ms.max(1) } else { ASSUMED_RATE };
    let (hot_files, hot_bytes) = hot(&plan, took, certainty);
    let reading_ms = hot_bytes / rate.max(1) + hot_files * PER_FILE_US / 1000;
    Ok(SyncStats {
        bytes,
        read: done.read,
        compared: done.compared,
        written: done.written,
        files,
        files_copied: done.copied,
        removed: done.removed,
        left: done.left,
        took_ms: ms(took),
        estimate_next_ms: listed_ms + reading_ms,
        notes: notes(&plan, &done),
        left_named: done.left_named,
    })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Resolves the three paths and refuses those that lie within each other.
fn places(src: &Path, dst: &Path, state: &Path) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let real = std::fs::canonicalize(src).map_err(|e| StoreError::read("resolve", src, e))?;
    let settle = |path: &Path| -> Result<PathBuf> {
        let path = std::path::absolute(path).map_err(|e| StoreError::io("resolve", path, e))?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(StoreError::Unsupported { path, why: "it needs a file name".to_owned() });
        };
        Ok(parent.canonicalize().map_err(|e| StoreError::read("resolve", parent, e))?.join(name))
    };
    let (dst, state) = (settle(dst)?, settle(state)?);
    refuse_nested(&real, &dst)?;
    refuse_nested(&real, &state)?;
    for inner in [&real, &state] {
        if inner.starts_with(&dst) {
            return Err(StoreError::Nested { src: dst.clone(), dst: inner.clone() });
        }
    }
    Ok((real, dst, state))
}

/// What the copy has, or may have, that the source has not; `there` is what was found in it.
fn vanished(plan: &Plan, known: &Known, there: BTreeSet<Box<[u8]>>) -> BTreeSet<Box<[u8]>> {
    let present: HashSet<&[u8]> = plan.entries.iter().map(|entry| &*entry.rel).collect();
    let mut candidates = there;
    candidates.extend(known.entries.keys().cloned());
    candidates.retain(|rel| !present.contains(&**rel));
    candidates
}

fn names(dst: &Path) -> Result<BTreeSet<Box<[u8]>>> {
    let mut names = Names { found: BTreeSet::new() };
    walk(dst, &mut names)?;
    Ok(names.found)
}

/// Collects all relative paths of a tree.
struct Names {
    found: BTreeSet<Box<[u8]>>,
}

impl Visit for Names {
    fn enter(&mut self, found: &Found<'_>, _: BorrowedFd<'_>) -> Result<()> {
        self.leaf(found)
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        self.found.insert(found.rel.into());
        Ok(())
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        Ok(())
    }
    fn vanished(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Files, and their bytes, that a pass right after this one would read.
fn hot(plan: &Plan, took: Duration, certainty: impl Fn(usize) -> Certainty) -> (u64, u64) {
    let window = i64::try_from(took.max(SETTLED).as_nanos()).unwrap_or(i64::MAX);
    let since = plan.began_ns.saturating_sub(window);
    let is_hot = |index: usize, look: &Look| {
        look.kind() == FileType::RegularFile
            && (certainty(index) != Certainty::Sure || look.ctime_ns >= since)
    };
    plan.entries
        .iter()
        .enumerate()
        .filter(|(index, entry)| is_hot(*index, &entry.look))
        .fold((0, 0), |(files, bytes), (_, entry)| (files + 1, bytes + entry.look.size))
}

fn notes(plan: &Plan, done: &Done) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.sockets > 0 {
        notes.push(format!("{} socket(s) left out: they belong to a running process", plan.sockets));
    }
    if done.unlinked > 0 {
        notes.push(format!("{} hard link(s) became files of their own: there are too many", done.unlinked));
    }
    if !done.refused.is_empty() {
        let names = done.refused.iter().cloned().collect::<Vec<_>>().join(", ");
        notes.push(format!("attributes the destination does not take: {names}"));
    }
    if !plan.any_trusted() {
        notes.push("every pass compares all files: this file system does not tell what changed".to_owned());
    }
    notes
}
