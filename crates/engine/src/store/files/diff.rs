//! What differs between two trees, in words.
//!
//! Owns the comparison. Content is compared byte by byte and only where size and kind agree, so
//! that an unchanged tree costs one read of both.

use super::super::progress::{Meter, Progress};
use super::super::{Result, Source, StoreError};
use super::census::{Census, Depth, Item, kind_name};
use super::walk::{ROOT, shown};
use super::{escape, size_bytes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, read};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use switchback_core::data::{PartChange, PartDiff, StoreDiff};

/// Read size for comparing.
const BUFFER: usize = 1 << 20;

/// One differing path.
pub(super) struct Difference {
    pub rel: Vec<u8>,
    pub before: Option<Item>,
    pub after: Option<Item>,
    /// What changed, in words.
    pub notes: Vec<String>,
}

/// Opens a file below `root` by relative path of any length, never through a symlink.
pub(super) fn open_below(root: &Path, rel: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let err = |e| StoreError::io("open", &shown(root, rel), e);
    if rel == ROOT {
        return openat(CWD, root, flags | OFlags::CLOEXEC, Mode::empty()).map_err(err);
    }
    let dir_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, root, dir_flags, Mode::empty()).map_err(err)?;
    let mut parts = rel.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() { dir_flags } else { flags | OFlags::CLOEXEC };
        let next =
            match openat2(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
                Err(Errno::NOSYS | Errno::PERM) => {
                    openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty())
                }
                other => other,
            };
        dir = next.map_err(err)?;
    }
    Ok(dir)
}

fn fill(fd: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match read(fd, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

fn same_content(before: &Path, after: &Path, rel: &[u8], meter: &mut Meter<'_>) -> Result<bool> {
    let (a, b) = (open_below(before, rel, OFlags::RDONLY)?, open_below(after, rel, OFlags::RDONLY)?);
    let (mut in_a, mut in_b) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let n = fill(&a, &mut in_a).map_err(|e| StoreError::io("read", &shown(before, rel), e))?;
        let m = fill(&b, &mut in_b).map_err(|e| StoreError::io("read", &shown(after, rel), e))?;
        meter.add((n + m) as u64)?;
        if in_a[..n] != in_b[..m] {
            return Ok(false);
        }
        if n < BUFFER {
            return Ok(true);
        }
    }
}

/// Finds every differing path; returns them and the number of equal ones.
pub(super) fn differences(
    before: Source<'_>,
    after: Source<'_>,
    progress: &Progress<'_>,
) -> Result<(Vec<Difference>, u64)> {
    let mut meter = Meter::new(progress, size_bytes(before.path)? + size_bytes(after.path)?);
    let mut old = Census::take(before, Depth::Attributes, &mut meter)?;
    let mut new = Census::take(after, Depth::Attributes, &mut meter)?;
    let paths: BTreeSet<Vec<u8>> = old.keys().chain(new.keys()).cloned().collect();
    let mut found = Vec::new();
    let mut unchanged = 0;
    for rel in paths {
        let (a, b) = (old.remove(&rel), new.remove(&rel));
        let notes = match (&a, &b) {
            (Some(a), Some(b)) => {
                let mut notes = attributes(a, b);
                if a.kind == FileType::RegularFile && b.kind == FileType::RegularFile {
                    if a.size != b.size {
                        notes.push(format!("content (size {} -> {})", a.size, b.size));
                    } else if a.size > 0 && !same_content(before.path, after.path, &rel, &mut meter)? {
                        notes.push("content".to_owned());
                    }
                }
                if notes.is_empty() {
                    unchanged += 1;
                    continue;
                }
                notes
            }
            (Some(item), None) | (None, Some(item)) => vec![kind_name(item.kind).to_owned()],
            (None, None) => continue,
        };
        found.push(Difference { rel, before: a, after: b, notes });
    }
    meter.finish();
    Ok((found, unchanged))
}

fn attributes(a: &Item, b: &Item) -> Vec<String> {
    let mut notes = Vec::new();
    if a.kind != b.kind {
        notes.push(format!("{} -> {}", kind_name(a.kind), kind_name(b.kind)));
    }
    if a.mode != b.mode {
        notes.push(format!("mode {:o} -> {:o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        notes.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if a.target != b.target {
        notes.push(format!("target {} -> {}", escape(&a.target), escape(&b.target)));
    }
    if a.xattrs != b.xattrs {
        let names: BTreeSet<_> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
        for name in names.into_iter().filter(|n| a.xattrs.get(*n) != b.xattrs.get(*n)) {
            notes.push(format!("attribute {}", escape(name)));
        }
    }
    notes
}

/// The difference of two trees; lists only what differs.
pub(in super::super) fn diff(
    before: Source<'_>,
    after: Source<'_>,
    progress: &Progress<'_>,
) -> Result<StoreDiff> {
    let (found, unchanged) = differences(before, after, progress)?;
    let parts = found
        .into_iter()
        .map(|d| {
            let change = match (&d.before, &d.after) {
                (None, _) => PartChange::Added,
                (_, None) => PartChange::Dropped,
                _ => PartChange::Changed,
            };
            PartDiff {
                name: escape(&d.rel),
                change,
                before: d.before.as_ref().map_or(0, |i| i.size),
                after: d.after.as_ref().map_or(0, |i| i.size),
                rows_added: u64::from(change == PartChange::Added),
                rows_removed: u64::from(change == PartChange::Dropped),
                rows_changed: u64::from(change == PartChange::Changed),
                columns_added: Vec::new(),
                columns_removed: Vec::new(),
                examples: Vec::new(),
                notes: d.notes,
            }
        })
        .collect();
    Ok(StoreDiff { parts, schema_changes: Vec::new(), new_orphans: Vec::new(), unchanged })
}
