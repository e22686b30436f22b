//! Walking a tree by folder descriptors.
//!
//! Owns the order of visits and the handling of depth: only the current folder is open, going up
//! is by `..` with a check of device and inode, so that neither path length nor the limit of open
//! files matters. It must never follow a symlink below the root.

use super::super::{Result, StoreError};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The relative path that stands for the root itself.
pub(super) const ROOT: &[u8] = b".";

/// One entry, seen from the folder it is in.
pub(super) struct Found<'a> {
    /// The folder.
    pub dir: BorrowedFd<'a>,
    /// The name in the folder.
    pub name: &'a CStr,
    /// The path relative to the root; [`ROOT`] for the root.
    pub rel: &'a [u8],
    /// Its attributes when it was met.
    pub stat: &'a Stat,
}

impl Found<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What is done with the entries of a tree.
pub(super) trait Visit {
    /// A folder was opened as `opened`, before its entries.
    fn enter(&mut self, found: &Found<'_>, opened: BorrowedFd<'_>) -> Result<()>;
    /// Anything but a folder. [`Errno::NOENT`] may be answered by `Ok` where things may vanish.
    fn leaf(&mut self, found: &Found<'_>) -> Result<()>;
    /// All entries of a folder were visited.
    fn leave(&mut self, opened: BorrowedFd<'_>, rel: &[u8], stat: &Stat) -> Result<()>;
    /// The folder `name` in `parent` is closed (not called for the root).
    fn closed(&mut self, _parent: BorrowedFd<'_>, _name: &CStr) -> Result<()> {
        Ok(())
    }
    /// An entry vanished, or a folder became something else, between being listed and being visited.
    fn vanished(&mut self, rel: &[u8]) -> Result<()>;
}

struct Frame {
    names: std::vec::IntoIter<CString>,
    stat: Stat,
    name: CString,
    rel_len: usize,
}

/// The identity of a file: device and inode.
pub(super) fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Joins root and relative path for messages.
pub(super) fn shown(root: &Path, rel: &[u8]) -> PathBuf {
    if rel == ROOT { root.to_owned() } else { root.join(OsStr::from_bytes(rel)) }
}

pub(super) const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder, if allowed without touching its access time.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match openat(dir, name, DIR_FLAGS | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, DIR_FLAGS, Mode::empty()),
        other => other,
    }
}

/// The names in a folder, in byte order so that results do not depend on the file system.
fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The names in a folder that was opened; a folder that was removed since has none.
fn list(
    dir: BorrowedFd<'_>,
    root: &Path,
    rel: &[u8],
    visitor: &mut impl Visit,
) -> Result<std::vec::IntoIter<CString>> {
    match names(dir) {
        Ok(names) => Ok(names.into_iter()),
        Err(Errno::NOENT) => {
            visitor.vanished(rel)?;
            Ok(Vec::new().into_iter())
        }
        Err(e) => Err(StoreError::io("list", &shown(root, rel), e)),
    }
}

/// Visits the tree (or the single file) at `root`, which may itself be a symlink to it.
pub(super) fn walk(root: &Path, visitor: &mut impl Visit) -> Result<()> {
    let real = std::fs::canonicalize(root).map_err(|e| StoreError::read("resolve", root, e))?;
    let name = CString::new(real.file_name().unwrap_or(OsStr::new(".")).as_bytes())
        .map_err(|_| StoreError::NotFound { path: root.to_owned() })?;
    let parent_path = real.parent().unwrap_or(Path::new("/"));
    let parent = openat(CWD, parent_path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| StoreError::read("open", parent_path, e))?;
    walk_at(parent.as_fd(), &name, root, visitor)
}

/// Visits the tree (or the single file) `name` in the folder `parent`; `root` is its path in messages.
pub(super) fn walk_at(
    parent: BorrowedFd<'_>,
    name: &CStr,
    root: &Path,
    visitor: &mut impl Visit,
) -> Result<()> {
    let err = |e| StoreError::read("open", root, e);
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(err)?;
    let found = Found { dir: parent, name, rel: ROOT, stat: &stat };
    if found.kind() != FileType::Directory {
        return visitor.leaf(&found);
    }
    let mut current = open_dir(parent, name).map_err(err)?;
    let stat = fstat(&current).map_err(err)?;
    visitor.enter(&Found { dir: parent, name, rel: ROOT, stat: &stat }, current.as_fd())?;
    let mut rel: Vec<u8> = Vec::new();
    let inside = list(current.as_fd(), root, ROOT, visitor)?;
    let mut frames = vec![Frame { names: inside, stat, name: name.to_owned(), rel_len: 0 }];
    while let Some(frame) = frames.last_mut() {
        let Some(child) = frame.names.next() else {
            let rel_now: &[u8] = if rel.is_empty() { ROOT } else { &rel };
            visitor.leave(current.as_fd(), rel_now, &frame.stat)?;
            let done = frames.pop();
            if let (Some(done), Some(up)) = (done, frames.last()) {
                let above = openat(&current, c"..", DIR_FLAGS, Mode::empty())
                    .map_err(|e| StoreError::io("leave", &shown(root, &rel), e))?;
                let now = fstat(&above).map_err(|e| StoreError::io("stat", &shown(root, &rel), e))?;
                if id(&now) != id(&up.stat) {
                    return Err(StoreError::Changed { path: shown(root, &rel) });
                }
                current = above;
                visitor.closed(current.as_fd(), &done.name)?;
                rel.truncate(up.rel_len);
            }
            continue;
        };
        let base = frame.rel_len;
        rel.truncate(base);
        if base > 0 {
            rel.push(b'/');
        }
        rel.extend_from_slice(child.to_bytes());
        let stat = match statat(&current, &child, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                visitor.vanished(&rel)?;
                continue;
            }
            Err(e) => return Err(StoreError::io("stat", &shown(root, &rel), e)),
        };
        let found = Found { dir: current.as_fd(), name: &child, rel: &rel, stat: &stat };
        if found.kind() != FileType::Directory {
            visitor.leaf(&found)?;
            continue;
        }
        let opened = match open_dir(current.as_fd(), &child) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                visitor.vanished(&rel)?;
                continue;
            }
            Err(e) => return Err(StoreError::io("open", &shown(root, &rel), e)),
        };
        let stat = fstat(&opened).map_err(|e| StoreError::io("stat", &shown(root, &rel), e))?;
        let found = Found { dir: current.as_fd(), name: &child, rel: &rel, stat: &stat };
        visitor.enter(&found, opened.as_fd())?;
        let inside = list(opened.as_fd(), root, &rel, visitor)?;
        let rel_len = rel.len();
        current = opened;
        frames.push(Frame { names: inside, stat, name: child, rel_len });
    }
    Ok(())
}
