//! Finding the folder of an entry, by descriptors.
//!
//! Owns how paths of any length are reached. It must never follow a symlink below the root.

use super::super::walk::{DIR_FLAGS, ROOT, open_dir};
use super::plan::split;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, fchmod, fstat, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The folders of a tree; the one that was asked for last stays open.
pub(super) struct Folders {
    base: OwnedFd,
    name: CString,
    at: Option<(Vec<u8>, OwnedFd)>,
    /// Whether folders that forbid it may be made writable (a copy, and not as root).
    unlock: bool,
    /// Folders that were made writable.
    pub unlocked: BTreeSet<Vec<u8>>,
}

impl Folders {
    /// The tree at `root`, an absolute path whose parent exists.
    pub(super) fn new(root: &Path, unlock: bool) -> rustix::io::Result<Self> {
        let parent = root.parent().unwrap_or(Path::new("/"));
        let base = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = root.file_name().map_or(&b"."[..], |name| name.as_bytes());
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(Self { base, name, at: None, unlock, unlocked: BTreeSet::new() })
    }

    /// Forgets the folder that is open, which may have been replaced.
    pub(super) fn forget(&mut self) {
        self.at = None;
    }

    /// The folder that an entry is in, and its name there.
    pub(super) fn locate(&mut self, rel: &[u8]) -> rustix::io::Result<(BorrowedFd<'_>, CString)> {
        match split(rel) {
            None => Ok((self.base.as_fd(), self.name.clone())),
            Some((folder, name)) => {
                let name = CString::new(name).map_err(|_| Errno::INVAL)?;
                Ok((self.open(folder)?, name))
            }
        }
    }

    /// Opens a folder by its relative path.
    pub(super) fn open(&mut self, rel: &[u8]) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.at.as_ref().is_none_or(|(at, _)| at != rel) {
            let opened = self.descend(rel)?;
            self.at = Some((rel.to_vec(), opened));
        }
        match &self.at {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Errno::NOENT),
        }
    }

    fn descend(&mut self, rel: &[u8]) -> rustix::io::Result<OwnedFd> {
        // What is open may lie on the way.
        let (mut current, mut done) = match self.at.take() {
            Some((at, fd)) if at == ROOT => (fd, 0),
            Some((at, fd)) if rel.starts_with(&at) && rel.get(at.len()) == Some(&b'/') => (fd, at.len() + 1),
            _ => {
                let base = self.base.try_clone().map_err(|_| Errno::MFILE)?;
                (self.step(base.as_fd(), &self.name.clone(), ROOT)?, 0)
            }
        };
        if rel == ROOT {
            return Ok(current);
        }
        while done < rel.len() {
            let end = rel[done..].iter().position(|b| *b == b'/').map_or(rel.len(), |n| done + n);
            let name = CString::new(&rel[done..end]).map_err(|_| Errno::INVAL)?;
            current = self.step(current.as_fd(), &name, &rel[..end])?;
            done = end + 1;
        }
        Ok(current)
    }

    fn step(&mut self, dir: BorrowedFd<'_>, name: &CStr, rel: &[u8]) -> rustix::io::Result<OwnedFd> {
        if !self.unlock {
            return open_dir(dir, name);
        }
        let fd = match openat(dir, name, DIR_FLAGS, Mode::empty()) {
            Err(Errno::ACCESS) => {
                chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
                self.unlocked.insert(rel.to_vec());
                openat(dir, name, DIR_FLAGS, Mode::empty())?
            }
            other => other?,
        };
        let mode = Mode::from_raw_mode(fstat(&fd)?.st_mode & 0o7777);
        if !mode.contains(Mode::RWXU) {
            fchmod(&fd, mode | Mode::RWXU)?;
            self.unlocked.insert(rel.to_vec());
        }
        Ok(fd)
    }
}
