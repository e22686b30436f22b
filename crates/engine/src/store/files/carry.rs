//! Carrying later writes into another state of a tree, file by file.
//!
//! Owns when that may be done: where the target still has what was there before, byte by byte. It must never follow a symlink
//! below a root, and never write to anything but the target, which is scratch and which nobody has open.

use super::super::progress::Progress;
use super::super::{Result, Source, StoreError};
use super::census::Item;
use super::diff::{Difference, differences, open_below};
use super::walk::{ROOT, shown};
use super::{escape, meta};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::fs::{chownat, fstat, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;
use serde_json::Map;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;
use switchback_core::carry::{Care, DIFFERS, GONE, ORPHAN, Outcome, Rules, TAKEN};
use switchback_core::data::RowOp;

/// The part that all files of a store are counted as.
const FILES: &str = "files";

/// Carries what differs between two states into a third.
pub(in super::super) fn carry_writes(
    before: Source<'_>,
    after: Source<'_>,
    target: &Path,
    rules: &Rules,
    progress: &Progress<'_>,
) -> Result<Outcome> {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let (mut found, _) = differences(before, after, progress)?;
    if !found.is_empty() {
        let own = Source { path: target, access: before.access };
        let moved = paths(before, own, progress)?;
        let unlike = if moved.is_empty() { BTreeSet::new() } else { paths(after, own, progress)? };
        found.sort_by(|a, b| a.rel.cmp(&b.rel));
        let mut ready = Vec::new();
        for difference in found {
            match verdict(&difference, rules, &moved, &unlike) {
                Some(why) => give_up(&mut outcome, &difference, why),
                None if moved.contains(&difference.rel) => outcome.part(FILES).already += 1,
                None => ready.push(difference),
            }
        }
        apply(after.path, target, &ready, &mut outcome, progress)?;
    }
    outcome.carried.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

fn paths(a: Source<'_>, b: Source<'_>, progress: &Progress<'_>) -> Result<BTreeSet<Vec<u8>>> {
    Ok(differences(a, b, progress)?.0.into_iter().map(|d| d.rel).collect())
}

fn op(difference: &Difference) -> RowOp {
    match (&difference.before, &difference.after) {
        (None, _) => RowOp::Insert,
        (_, None) => RowOp::Delete,
        _ => RowOp::Update,
    }
}

/// Why a write cannot be carried.
fn verdict(
    difference: &Difference,
    rules: &Rules,
    moved: &BTreeSet<Vec<u8>>,
    unlike: &BTreeSet<Vec<u8>>,
) -> Option<&'static str> {
    if let Care::Quarantine(why) = rules.part(&escape(&difference.rel)) {
        return Some(why);
    }
    // The target has something else than before, and not what is to be carried either.
    if moved.contains(&difference.rel) && unlike.contains(&difference.rel) {
        return Some(match op(difference) {
            RowOp::Insert => TAKEN,
            RowOp::Update | RowOp::Delete => DIFFERS,
        });
    }
    None
}

fn give_up(outcome: &mut Outcome, difference: &Difference, why: &str) {
    let key = Map::from_iter([("path".to_owned(), escape(&difference.rel).into())]);
    outcome.quarantine(FILES, op(difference), key, why);
}

/// An entry's folder, opened, and its name there.
fn locate(root: &Path, rel: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
    let folder = OFlags::PATH | OFlags::DIRECTORY;
    if rel == ROOT {
        let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
            return Err(StoreError::NotFound { path: root.to_owned() });
        };
        let dir = openat(CWD, parent, folder | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| StoreError::io("open", parent, e))?;
        return Ok((dir, name.as_bytes().to_vec()));
    }
    let (above, name) = match rel.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&rel[..slash], &rel[slash + 1..]),
        None => (ROOT, rel),
    };
    Ok((open_below(root, above, folder)?, name.to_vec()))
}

fn apply(
    from: &Path,
    target: &Path,
    ready: &[Difference],
    outcome: &mut Outcome,
    progress: &Progress<'_>,
) -> Result<()> {
    let other_kind =
        |d: &Difference| d.before.as_ref().zip(d.after.as_ref()).is_some_and(|(a, b)| a.kind != b.kind);
    let mut blocked = BTreeSet::new();
    // The deepest first.
    for difference in ready.iter().rev().filter(|d| d.after.is_none() || other_kind(d)) {
        if (progress.cancel)() {
            return Err(StoreError::Cancelled);
        }
        if !remove(target, difference)? {
            blocked.insert(difference.rel.clone());
            give_up(outcome, difference, ORPHAN);
        } else if difference.after.is_none() {
            outcome.done(FILES, RowOp::Delete);
        }
    }
    for difference in ready {
        let Some(item) = difference.after.as_ref().filter(|_| !blocked.contains(&difference.rel)) else {
            continue;
        };
        if (progress.cancel)() {
            return Err(StoreError::Cancelled);
        }
        match put(from, target, difference, item) {
            Ok(()) => outcome.done(FILES, op(difference)),
            // The folder that it belongs into was not carried.
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                give_up(outcome, difference, GONE);
            }
            Err(StoreError::NotFound { .. }) => give_up(outcome, difference, GONE),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// False if a folder holds something that is not to be removed.
fn remove(target: &Path, difference: &Difference) -> Result<bool> {
    let (dir, name) = locate(target, &difference.rel)?;
    let folder = difference.before.as_ref().is_some_and(|i| i.kind == FileType::Directory);
    let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(&dir, &name[..], flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(e) => Err(StoreError::io("remove", &shown(target, &difference.rel), e)),
    }
}

fn put(from: &Path, target: &Path, difference: &Difference, item: &Item) -> Result<()> {
    let rel = &difference.rel;
    let path = shown(target, rel);
    let err = |doing: &'static str| {
        let path = path.clone();
        move |e: Errno| StoreError::io(doing, &path, e)
    };
    match item.kind {
        FileType::Directory => {
            if *rel != ROOT {
                let (dir, name) = locate(target, rel)?;
                match mkdirat(&dir, &name[..], Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(err("create")(e)),
                }
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let (old, new) = (open_below(from, rel, flags)?, open_below(target, rel, flags)?);
            let stat = fstat(&old).map_err(err("stat"))?;
            meta::carry(old.as_fd(), &stat, new.as_fd(), &path)?;
        }
        FileType::RegularFile => {
            let (dir, name) = locate(target, rel)?;
            let source = open_below(from, rel, OFlags::RDONLY)?;
            let temp = format!(".switchback-{}", ulid::Ulid::generate());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(&dir, temp.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(err("create"))?;
            let stat = fstat(&source).map_err(err("stat"))?;
            let (mut source, mut made) = (File::from(source), File::from(made));
            let copied = std::io::copy(&mut source, &mut made)
                .map_err(|e| StoreError::io("write", &path, e))
                .and_then(|_| meta::carry(source.as_fd(), &stat, made.as_fd(), &path))
                .and_then(|_| made.sync_all().map_err(|e| StoreError::io("fsync", &path, e)))
                .and_then(|()| renameat(&dir, temp.as_str(), &dir, &name[..]).map_err(err("rename")));
            if copied.is_err() {
                let _ = unlinkat(&dir, temp.as_str(), AtFlags::empty());
            }
            copied?;
        }
        FileType::Symlink => {
            let (dir, name) = locate(target, rel)?;
            let temp = format!(".switchback-{}", ulid::Ulid::generate());
            symlinkat(&item.target[..], &dir, temp.as_str()).map_err(err("create"))?;
            own(&dir, temp.as_bytes(), item).map_err(err("set the owner of"))?;
            renameat(&dir, temp.as_str(), &dir, &name[..]).map_err(err("rename"))?;
        }
        FileType::Fifo => {
            let (dir, name) = locate(target, rel)?;
            match unlinkat(&dir, &name[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(err("remove")(e)),
            }
            mknodat(&dir, &name[..], FileType::Fifo, Mode::from_raw_mode(item.mode), 0)
                .map_err(err("create"))?;
            own(&dir, &name, item).map_err(err("set the owner of"))?;
        }
        _ => return Err(StoreError::Unsupported { path, why: "such a file cannot be carried".to_owned() }),
    }
    Ok(())
}

fn own(dir: &OwnedFd, name: &[u8], item: &Item) -> rustix::io::Result<()> {
    if !meta::may_chown() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(item.uid), Gid::from_raw(item.gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
