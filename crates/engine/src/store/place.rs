//! Where a result is put: temporary sibling first, durable, then renamed.
//!
//! Owns the names of unfinished results and their removal. It must never replace something that
//! exists, and never remove anything but its own unfinished results.

use super::{Result, StoreError, files};
use rustix::fs::{CWD, RenameFlags, fsync, ioctl_ficlone, renameat_with, statvfs, syncfs};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Longest file name part taken over into a temporary name: names have at most 255 bytes.
const NAME_PART: usize = 150;

/// A destination that does not exist yet, with the temporary name beside it.
#[derive(Debug)]
pub(super) struct Place {
    dst: PathBuf,
    parent: PathBuf,
    temp: PathBuf,
    committed: bool,
}

impl Place {
    /// Checks the destination and removes what a crashed run left under the temporary name.
    pub(super) fn prepare(dst: &Path) -> Result<Self> {
        let place = Self::of(dst)?;
        files::remove(&place.temp)?;
        if place.dst.symlink_metadata().is_ok() {
            return Err(StoreError::DstExists { path: place.dst.clone() });
        }
        Ok(place)
    }

    /// The names of a destination, without touching anything.
    fn of(dst: &Path) -> Result<Self> {
        let dst = std::path::absolute(dst).map_err(|e| StoreError::io("resolve", dst, e))?;
        let (Some(name), Some(parent)) = (dst.file_name(), dst.parent()) else {
            return Err(StoreError::Unsupported {
                path: dst,
                why: "the destination needs a file name".to_owned(),
            });
        };
        let parent = parent.to_owned();
        if !parent.is_dir() {
            return Err(StoreError::NotFound { path: parent });
        }
        let mut temp = OsString::from(".");
        let bytes = name.as_bytes();
        if bytes.len() > NAME_PART {
            temp.push(blake3::hash(bytes).to_hex().as_str());
        } else {
            temp.push(OsString::from_vec(bytes.to_vec()));
        }
        temp.push(".switchback-partial");
        let temp = parent.join(temp);
        Ok(Self { dst, parent, temp, committed: false })
    }

    /// The temporary name.
    pub(super) fn temp(&self) -> &Path {
        &self.temp
    }

    /// The final name.
    pub(super) fn dst(&self) -> &Path {
        &self.dst
    }

    /// Makes a private folder under the temporary name.
    pub(super) fn make_dir(&self) -> Result<()> {
        rustix::fs::mkdir(&self.temp, rustix::fs::Mode::RWXU)
            .map_err(|e| StoreError::io("create", &self.temp, e))
    }

    /// Gives the finished and synced result its name and makes the name durable.
    pub(super) fn commit(self, made: &Path) -> Result<()> {
        let parent = self.parent.clone();
        self.name(made)?;
        sync_dir(&parent)
    }

    /// Gives the finished result its name, which is not durable yet.
    pub(super) fn name(mut self, made: &Path) -> Result<()> {
        match renameat_with(CWD, made, CWD, &self.dst, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(StoreError::DstExists { path: self.dst.clone() }),
            // Some network file systems know no NOREPLACE; `prepare` saw that the name was free.
            Err(rustix::io::Errno::INVAL) if self.dst.symlink_metadata().is_err() => {
                std::fs::rename(made, &self.dst).map_err(|e| StoreError::io("rename", made, e))?;
            }
            Err(e) => return Err(StoreError::io("rename", made, e)),
        }
        self.committed = true;
        if made != self.temp {
            files::remove(&self.temp)?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.committed {
            // The error that led here is the one to report; a leftover is removed by the next run.
            let _ = files::remove(&self.temp);
        }
    }
}

/// Removes what a crashed run left beside `dst`.
pub(super) fn clear(dst: &Path) -> Result<()> {
    files::remove(&Place::of(dst)?.temp)
}

/// Syncs the file system of `path` and the folder that names it.
pub(super) fn make_durable(path: &Path) -> Result<()> {
    let path = std::fs::canonicalize(path).map_err(|e| StoreError::read("resolve", path, e))?;
    let file = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() || meta.is_file() => File::open(&path),
        _ => File::open(path.parent().unwrap_or(Path::new("/"))),
    };
    let file = file.map_err(|e| StoreError::io("open", &path, e))?;
    syncfs(&file).map_err(|e| StoreError::io("sync", &path, e))?;
    // The parent is on another file system where `path` is a mount point.
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(|e| StoreError::io("open", dir, e))?;
    fsync(&file).map_err(|e| StoreError::io("fsync", dir, e))
}

/// Refuses a copy that would fill the file system of `dir`, before the first byte is written.
pub(super) fn require_space(dir: &Path, needed: u64) -> Result<()> {
    let stat = statvfs(dir).map_err(|e| StoreError::io("statvfs", dir, e))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed > free {
        return Err(StoreError::NoSpace {
            path: dir.to_owned(),
            detail: format!("the copy needs {needed} bytes, {free} are free"),
        });
    }
    Ok(())
}

/// Finds out whether a file of `from_dir` can share its blocks with one in `to_dir`, by doing it.
///
/// Makes and removes one small file in each folder. Any failure counts as "no".
pub fn can_reflink(from_dir: &Path, to_dir: &Path) -> bool {
    let name = |side: &str| format!(".switchback-reflink-{side}-{}", ulid::Ulid::generate());
    let (from, to) = (from_dir.join(name("a")), to_dir.join(name("b")));
    let attempt = || -> std::io::Result<()> {
        let mut source = File::create_new(&from)?;
        // More than a block, so that no file system keeps it inline.
        source.write_all(&[7; 8192])?;
        source.sync_data()?;
        let source = File::open(&from)?;
        let target = File::create_new(&to)?;
        ioctl_ficlone(&target, &source)?;
        Ok(())
    };
    let ok = attempt().is_ok();
    let _ = std::fs::remove_file(&from);
    let _ = std::fs::remove_file(&to);
    ok
}
