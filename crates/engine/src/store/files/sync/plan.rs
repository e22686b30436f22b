//! What a tree looks like before a pass, from its attributes alone.
//!
//! Owns which file systems tell truthfully that a file was written. It must never read content.

use super::super::super::progress::Progress;
use super::super::super::{Result, StoreError};
use super::super::Writers;
use super::super::clone::refuse_device;
use super::super::walk::{Found, ROOT, Visit, walk};
use rustix::fs::{FileType, Stat, statfs};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that changed less than this before it was looked at is read again in the next pass.
///
/// It covers what a change time cannot tell: ticks of up to 10 ms, within which two writes get the same
/// time; file systems that keep whole seconds; and direct and asynchronous writes, which set the time
/// when they are submitted and reach the file when the disk is done.
pub(super) const SETTLED: Duration = Duration::from_secs(5);
/// A folder that is moved while a tree is listed makes the listing useless; writers seldom do that.
const LISTINGS: u32 = 10;

/// File systems whose change time moves with each write through a mapping after a sync (the module
/// documentation tells how that was found out): ext2 to ext4, XFS, btrfs.
const TRUSTED: [i64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

/// The attributes that change when a file does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Kind and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
}

impl Look {
    pub(super) fn of(stat: &Stat) -> Self {
        let ns = |sec: i64, nsec: u64| {
            sec.saturating_mul(1_000_000_000).saturating_add(i64::try_from(nsec).unwrap_or(0))
        };
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            nlink: stat.st_nlink,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// One entry of the source.
pub(super) struct Entry {
    /// The path relative to the root.
    pub rel: Box<[u8]>,
    /// The folder it is in, as an index; none for the root.
    pub parent: Option<usize>,
    pub look: Look,
    /// Bytes on disk.
    pub allocated: u64,
}

/// A tree as it was listed.
pub(super) struct Plan {
    /// In the order of a walk: a folder before what is in it.
    pub entries: Vec<Entry>,
    pub sockets: u64,
    /// When the listing began, in nanoseconds of the clock that file times are taken from.
    pub began_ns: i64,
    /// The device whose change times can be relied on, if any.
    trusted: Option<u64>,
}

impl Plan {
    /// Lists the tree at `root`.
    pub(super) fn make(root: &Path, writers: Writers, progress: &Progress<'_>) -> Result<Self> {
        let known = is_trusted(root)?;
        let mut left = LISTINGS;
        loop {
            let mut lister = Lister {
                root: root.to_owned(),
                writers,
                cancel: progress.cancel,
                entries: Vec::new(),
                open: Vec::new(),
                sockets: 0,
            };
            let now = clock_gettime(ClockId::Realtime);
            let began_ns = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
            left -= 1;
            match walk(root, &mut lister) {
                Err(StoreError::Changed { .. }) if writers == Writers::Running && left > 0 => {}
                Err(e) => return Err(e),
                Ok(()) => {
                    let trusted = lister.entries.first().filter(|_| known).map(|root| root.look.dev);
                    return Ok(Self { entries: lister.entries, sockets: lister.sockets, began_ns, trusted });
                }
            }
        }
    }

    /// Whether change times can be relied on anywhere in the tree.
    pub(super) fn any_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// Whether the change time of a file tells when it was written.
    pub(super) fn trusts(&self, look: &Look) -> bool {
        self.trusted == Some(look.dev)
    }

    /// Whether a file was left alone for long enough before the listing began.
    pub(super) fn is_settled(&self, look: &Look) -> bool {
        let window = i64::try_from(SETTLED.as_nanos()).unwrap_or(i64::MAX);
        look.ctime_ns < self.began_ns.saturating_sub(window)
    }
}

/// Whether the file system at a path tells truthfully that a file was written.
pub(super) fn is_trusted(path: &Path) -> Result<bool> {
    let found = statfs(path).map_err(|e| StoreError::read("statfs", path, e))?.f_type;
    Ok(TRUSTED.contains(&found))
}

struct Lister<'p> {
    root: PathBuf,
    writers: Writers,
    cancel: &'p (dyn Fn() -> bool + Sync),
    entries: Vec<Entry>,
    /// The folders that are being listed, as indices.
    open: Vec<usize>,
    sockets: u64,
}

impl Lister<'_> {
    fn push(&mut self, found: &Found<'_>) {
        self.entries.push(Entry {
            rel: found.rel.into(),
            parent: self.open.last().copied(),
            look: Look::of(found.stat),
            allocated: u64::try_from(found.stat.st_blocks).unwrap_or(0).saturating_mul(512),
        });
    }
}

impl Visit for Lister<'_> {
    fn enter(&mut self, found: &Found<'_>, _: BorrowedFd<'_>) -> Result<()> {
        if (self.cancel)() {
            return Err(StoreError::Cancelled);
        }
        self.push(found);
        self.open.push(self.entries.len() - 1);
        Ok(())
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        refuse_device(&self.root, found)?;
        if found.kind() == FileType::Socket {
            self.sockets += 1;
        } else {
            self.push(found);
        }
        Ok(())
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        self.open.pop();
        Ok(())
    }
    fn vanished(&mut self, rel: &[u8]) -> Result<()> {
        match self.writers {
            Writers::Running => Ok(()),
            Writers::Stopped => Err(StoreError::Changed { path: super::super::walk::shown(&self.root, rel) }),
        }
    }
}

/// The folder and the name of an entry; none for the root.
pub(super) fn split(rel: &[u8]) -> Option<(&[u8], &[u8])> {
    if rel == ROOT {
        return None;
    }
    Some(match rel.iter().rposition(|b| *b == b'/') {
        Some(at) => (&rel[..at], &rel[at + 1..]),
        None => (ROOT, rel),
    })
}
