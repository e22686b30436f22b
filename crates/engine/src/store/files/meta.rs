//! Attributes of files: owner, mode, times, extended attributes.
//!
//! Owns carrying them over faithfully and in the right order. It must never change a source.

use super::super::{Result, StoreError};
use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::fs::{fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, futimens};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The kernel's limits: XATTR_LIST_MAX and XATTR_SIZE_MAX are both 64 KiB.
const XATTR_MAX: usize = 65536;

/// Extended attributes by name, both as bytes.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whether files may be given away: only root may.
pub(super) fn may_chown() -> bool {
    rustix::process::geteuid().is_root()
}

/// Reads all extended attributes; none where the file system has none.
pub(super) fn xattrs(fd: BorrowedFd<'_>, path: &Path) -> Result<Xattrs> {
    let mut found = Xattrs::new();
    for name in names(fd, path)? {
        let mut value: Vec<u8> = vec![0; XATTR_MAX];
        match fgetxattr(fd, &name[..], &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                found.insert(name, value);
            }
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(e) => return Err(StoreError::io("read attributes of", path, e)),
        }
    }
    Ok(found)
}

/// The names of all extended attributes.
fn names(fd: BorrowedFd<'_>, path: &Path) -> Result<Vec<Vec<u8>>> {
    // Most files have none: ask with a small buffer first.
    let mut list: Vec<u8> = vec![0; 256];
    let len = loop {
        match flistxattr(fd, &mut list[..]) {
            Ok(len) => break len,
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(Errno::RANGE) if list.len() < XATTR_MAX => list.resize(XATTR_MAX, 0),
            Err(e) => return Err(StoreError::io("list attributes of", path, e)),
        }
    };
    Ok(list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The times of a file with nanoseconds.
pub(super) fn times(stat: &Stat) -> Timestamps {
    let at = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The permission bits with setuid, setgid and sticky.
pub(super) fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// Gives `to` the owner, mode, extended attributes and times of `from`.
///
/// The order matters: changing the owner clears setuid and capabilities, everything changes times.
/// Returns the attributes the destination refused.
pub(crate) fn carry(
    from: BorrowedFd<'_>,
    stat: &Stat,
    to: BorrowedFd<'_>,
    path: &Path,
) -> Result<Vec<String>> {
    let mut refused = Vec::new();
    if may_chown() {
        fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .map_err(|e| StoreError::io("set the owner of", path, e))?;
    }
    let wanted = xattrs(from, path)?;
    // An earlier pass may have left some, and a folder's default access list is inherited.
    for name in names(to, path)? {
        if !wanted.contains_key(&name) {
            match fremovexattr(to, &name[..]) {
                Ok(()) | Err(Errno::NODATA) => {}
                // Such as a security label, which the system gives to every file.
                Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
                Err(e) => return Err(StoreError::io("remove attributes of", path, e)),
            }
        }
    }
    // After an inherited access list is gone, which would take part of the mode.
    fchmod(to, mode(stat)).map_err(|e| StoreError::io("set the mode of", path, e))?;
    for (name, value) in wanted {
        match fsetxattr(to, &name[..], &value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM) => refused.push(String::from_utf8_lossy(&name).into_owned()),
            Err(e) => return Err(StoreError::io("set attributes of", path, e)),
        }
    }
    futimens(to, &times(stat)).map_err(|e| StoreError::io("set the times of", path, e))?;
    Ok(refused)
}
