//! Cloning a tree or a single file.
//!
//! Owns which kinds of files are carried over and how concurrent writers are noticed. It must never
//! follow a symlink below the root and never leave the destination's folder.

use super::super::place::Place;
use super::super::progress::{Meter, Progress};
use super::super::{Result, StoreError};
use super::content::Copier;
use super::walk::{Found, ROOT, Visit, id, open_dir, shown, walk};
use super::{Writers, meta};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::fs::{chmodat, chownat, fstat, ftruncate, linkat, mkdirat, mknodat, openat, readlinkat};
use rustix::fs::{symlinkat, syncfs, utimensat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::data::CopyStats;

/// A file that keeps changing is copied this often; after that a copy would be luck.
const ATTEMPTS: u32 = 3;
/// More paths than this in a note help nobody.
pub(super) const NAMED: usize = 20;

/// Adds up a tree before it is copied and refuses what cannot be cloned.
#[derive(Default)]
pub(super) struct Scan {
    root: PathBuf,
    /// Apparent bytes.
    pub bytes: u64,
    /// Bytes on disk, hard links counted once.
    allocated: u64,
    seen: std::collections::HashSet<(u64, u64)>,
}

impl Scan {
    pub(super) fn run(root: &Path) -> Result<Self> {
        let mut scan = Self { root: root.to_owned(), ..Self::default() };
        walk(root, &mut scan)?;
        Ok(scan)
    }
}

impl Visit for Scan {
    fn enter(&mut self, _: &Found<'_>, _: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        match found.kind() {
            FileType::RegularFile => {
                if found.stat.st_nlink > 1 && !self.seen.insert(id(found.stat)) {
                    return Ok(());
                }
                self.bytes += u64::try_from(found.stat.st_size).unwrap_or(0);
                self.allocated += u64::try_from(found.stat.st_blocks).unwrap_or(0).saturating_mul(512);
                Ok(())
            }
            _ => refuse_device(&self.root, found),
        }
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        Ok(())
    }
    fn vanished(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Device nodes are no data: a clone of one would act on the same device.
pub(super) fn refuse_device(root: &Path, found: &Found<'_>) -> Result<()> {
    match found.kind() {
        FileType::CharacterDevice | FileType::BlockDevice => Err(StoreError::Unsupported {
            path: shown(root, found.rel),
            why: "it is a device node, which is not data and cannot be cloned; move it out of the store"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Clones `src` to `dst`.
pub(in super::super) fn clone(
    src: &Path,
    dst: &Path,
    writers: Writers,
    progress: &Progress<'_>,
) -> Result<CopyStats> {
    let started = Instant::now();
    refuse_nested(src, dst)?;
    let place = Place::prepare(dst)?;
    let scan = Scan::run(src)?;
    let parent = place.dst().parent().unwrap_or(Path::new("/"));
    let mut cloner = Cloner::new(src, place.temp(), writers, Meter::new(progress, scan.bytes))?;
    cloner.copier.require = Some((parent.to_owned(), scan.allocated));
    walk(src, &mut cloner)?;
    syncfs(&cloner.at).map_err(|e| StoreError::io("sync", place.dst(), e))?;
    cloner.meter.finish();
    let mut stats = cloner.finish();
    let made = place.temp().to_owned();
    place.commit(&made)?;
    stats.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

/// Clones `src` to `dst` by sharing blocks, or not at all. Nothing is durable yet.
pub(in super::super) fn reflink_tree(src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    let started = Instant::now();
    refuse_nested(src, dst)?;
    let place = Place::prepare(dst)?;
    // The tree is not added up first, as writers are waiting: the total stays unknown.
    let mut cloner = Cloner::new(src, place.temp(), Writers::Stopped, Meter::new(progress, 0))?;
    cloner.copier = Copier::only_sharing();
    walk(src, &mut cloner)?;
    cloner.meter.finish();
    let mut stats = cloner.finish();
    let made = place.temp().to_owned();
    place.name(&made)?;
    stats.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    stats.writers_waited_ms = stats.took_ms;
    Ok(stats)
}

/// A copy inside its source would contain itself.
pub(super) fn refuse_nested(src: &Path, dst: &Path) -> Result<()> {
    let real = std::fs::canonicalize(src).map_err(|e| StoreError::read("resolve", src, e))?;
    if let Some(parent) = std::path::absolute(dst).ok().and_then(|d| d.parent()?.canonicalize().ok())
        && parent.starts_with(&real)
    {
        return Err(StoreError::Nested { src: src.to_owned(), dst: dst.to_owned() });
    }
    Ok(())
}

/// Copies entries into a folder of its own.
pub(super) struct Cloner<'p> {
    root: PathBuf,
    top: CString,
    writers: Writers,
    pub(super) copier: Copier,
    pub(super) meter: Meter<'p>,
    /// The destination folder of the entries being visited.
    pub(super) at: OwnedFd,
    top_fd: Option<OwnedFd>,
    links: HashMap<(u64, u64), Vec<u8>>,
    stats: CopyStats,
    sockets: u64,
    gone: u64,
    torn: Vec<String>,
    unlinked: u64,
    refused: std::collections::BTreeSet<String>,
}

impl<'p> Cloner<'p> {
    /// Clones the tree `root` to the name `to`, whose parent exists.
    pub(super) fn new(root: &Path, to: &Path, writers: Writers, meter: Meter<'p>) -> Result<Self> {
        let parent = to.parent().unwrap_or(Path::new("/"));
        let at = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| StoreError::io("open", parent, e))?;
        let top = CString::new(to.file_name().unwrap_or_default().as_bytes())
            .map_err(|_| StoreError::NotFound { path: to.to_owned() })?;
        Ok(Self {
            root: root.to_owned(),
            top,
            writers,
            copier: Copier::new(),
            meter,
            at,
            top_fd: None,
            links: HashMap::new(),
            stats: CopyStats::default(),
            sockets: 0,
            gone: 0,
            torn: Vec::new(),
            unlinked: 0,
            refused: std::collections::BTreeSet::new(),
        })
    }

    fn name<'f>(&'f self, found: &'f Found<'_>) -> CString {
        if found.rel == ROOT { self.top.clone() } else { found.name.to_owned() }
    }

    /// The result with its notes.
    pub(super) fn finish(self) -> CopyStats {
        let mut stats = self.stats;
        let mut note = |n: u64, text: &str| {
            if n > 0 {
                stats.notes.push(format!("{n} {text}"));
            }
        };
        note(self.sockets, "socket(s) left out: they belong to a running process");
        note(self.gone, "file(s) vanished while the tree was copied");
        note(self.unlinked, "hard link(s) became files of their own: the path is too long to link to");
        if !self.torn.is_empty() {
            let named = self.torn.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            stats
                .notes
                .push(format!("torn: {} file(s) kept changing while being copied: {named}", self.torn.len()));
        }
        if !self.refused.is_empty() {
            let names = self.refused.into_iter().collect::<Vec<_>>().join(", ");
            stats.notes.push(format!("attributes the destination does not take: {names}"));
        }
        stats
    }

    fn regular(&mut self, found: &Found<'_>, name: &CStr) -> Result<()> {
        let path = shown(&self.root, found.rel);
        if found.stat.st_nlink > 1 && self.link(found, name, &path)? {
            return Ok(());
        }
        let Some(from) = open_file(found).map_err(|e| StoreError::io("open", &path, e))? else {
            return self.vanished(found.rel);
        };
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(&self.at, name, create, Mode::RUSR | Mode::WUSR)
            .map_err(|e| StoreError::io("create the copy of", &path, e))?;
        let mut before = fstat(&from).map_err(|e| StoreError::io("stat", &path, e))?;
        let mut attempt = 1;
        let (copied, stat) = loop {
            let copied = self.copier.copy(from.as_fd(), to.as_fd(), &path, &mut self.meter)?;
            let after = fstat(&from).map_err(|e| StoreError::io("stat", &path, e))?;
            if same_moment(&before, &after) {
                break (copied, after);
            }
            if self.writers == Writers::Stopped {
                return Err(StoreError::Changed { path });
            }
            if attempt == ATTEMPTS {
                self.torn.push(super::escape(found.rel));
                break (copied, after);
            }
            attempt += 1;
            before = after;
            ftruncate(&to, 0).map_err(|e| StoreError::io("truncate", &path, e))?;
        };
        self.refused.extend(meta::carry(from.as_fd(), &stat, to.as_fd(), &path)?);
        self.stats.files += 1;
        self.stats.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        self.stats.bytes_written += copied.written;
        self.stats.reflinked += u64::from(copied.reflinked);
        Ok(())
    }

    /// Makes a hard link to a file that was copied before. Remembers the first of each.
    fn link(&mut self, found: &Found<'_>, name: &CStr, path: &Path) -> Result<bool> {
        let Some(top) = &self.top_fd else { return Ok(false) };
        match self.links.entry(id(found.stat)) {
            Entry::Vacant(first) => {
                first.insert(found.rel.to_vec());
                Ok(false)
            }
            Entry::Occupied(first) => match linkat(top, &first.get()[..], &self.at, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // NOENT: the first one vanished from a live tree before it could be copied.
                Err(Errno::NAMETOOLONG | Errno::MLINK | Errno::NOENT) => {
                    self.unlinked += 1;
                    Ok(false)
                }
                Err(e) => Err(StoreError::io("link the copy of", path, e)),
            },
        }
    }

    fn symlink(&mut self, found: &Found<'_>, name: &CStr) -> Result<()> {
        let path = shown(&self.root, found.rel);
        let err = |doing| {
            let path = path.clone();
            move |e: Errno| StoreError::io(doing, &path, e)
        };
        let target = match readlinkat(found.dir, found.name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::INVAL) => return self.vanished(found.rel),
            Err(e) => return Err(err("read the symlink")(e)),
        };
        symlinkat(&target, &self.at, name).map_err(err("create the copy of"))?;
        self.attributes(found, name, &path)
    }

    fn fifo(&mut self, found: &Found<'_>, name: &CStr) -> Result<()> {
        let path = shown(&self.root, found.rel);
        mknodat(&self.at, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|e| StoreError::io("create the copy of", &path, e))?;
        self.attributes(found, name, &path)?;
        chmodat(&self.at, name, meta::mode(found.stat), AtFlags::empty())
            .map_err(|e| StoreError::io("set the mode of", &path, e))
    }

    /// Owner and times of something that cannot be opened.
    fn attributes(&mut self, found: &Found<'_>, name: &CStr, path: &Path) -> Result<()> {
        if meta::may_chown() {
            let (uid, gid) = (Uid::from_raw(found.stat.st_uid), Gid::from_raw(found.stat.st_gid));
            chownat(&self.at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| StoreError::io("set the owner of", path, e))?;
        }
        utimensat(&self.at, name, &meta::times(found.stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| StoreError::io("set the times of", path, e))?;
        self.stats.files += 1;
        Ok(())
    }
}

impl Visit for Cloner<'_> {
    fn enter(&mut self, found: &Found<'_>, _: BorrowedFd<'_>) -> Result<()> {
        let path = shown(&self.root, found.rel);
        if let Some(top) = &self.top_fd
            && fstat(top).is_ok_and(|own| id(&own) == id(found.stat))
        {
            return Err(StoreError::Nested { src: self.root.clone(), dst: path });
        }
        let name = self.name(found);
        mkdirat(&self.at, &name, Mode::RWXU).map_err(|e| StoreError::io("create the copy of", &path, e))?;
        let made =
            open_dir(self.at.as_fd(), &name).map_err(|e| StoreError::io("open the copy of", &path, e))?;
        if found.rel == ROOT {
            self.top_fd = Some(made.try_clone().map_err(|e| StoreError::io("open the copy of", &path, e))?);
        }
        self.at = made;
        self.meter.add(0)
    }

    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        let name = self.name(found);
        match found.kind() {
            FileType::RegularFile => self.regular(found, &name),
            FileType::Symlink => self.symlink(found, &name),
            FileType::Fifo => self.fifo(found, &name),
            FileType::Socket => {
                self.sockets += 1;
                Ok(())
            }
            _ => refuse_device(&self.root, found),
        }
    }

    fn leave(&mut self, opened: BorrowedFd<'_>, rel: &[u8], stat: &Stat) -> Result<()> {
        let path = shown(&self.root, rel);
        // Before the mode is set, which may forbid it.
        let above = openat(&self.at, c"..", super::walk::DIR_FLAGS, Mode::empty())
            .map_err(|e| StoreError::io("leave the copy of", &path, e))?;
        let made = std::mem::replace(&mut self.at, above);
        self.refused.extend(meta::carry(opened, stat, made.as_fd(), &path)?);
        Ok(())
    }

    fn vanished(&mut self, rel: &[u8]) -> Result<()> {
        if self.writers == Writers::Stopped {
            return Err(StoreError::Changed { path: shown(&self.root, rel) });
        }
        self.gone += 1;
        Ok(())
    }
}

/// Opens a regular file for reading, without touching its access time where allowed.
/// `None` if it vanished or is no regular file any more.
pub(super) fn open_file(found: &Found<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    open_file_at(found.dir, found.name)
}

/// Like [`open_file`], by folder and name.
pub(super) fn open_file_at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    // NONBLOCK: if it became a fifo meanwhile, opening must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    };
    match opened {
        Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::RegularFile => Ok(Some(fd)),
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a file was not written between two looks.
fn same_moment(a: &Stat, b: &Stat) -> bool {
    let key = |s: &Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec, s.st_ctime, s.st_ctime_nsec);
    key(a) == key(b)
}
