//! Bringing the content of a copied file up to date, block by block.
//!
//! Owns which parts of a file are compared, copied and made holes. It must never leave data of the copy where the
//! source has a hole.

use super::super::super::progress::Meter;
use super::super::super::{Result, StoreError};
use super::super::content::Copier;
use super::compare::compare;
use rustix::fs::{FallocateFlags, SeekFrom, Stat, fallocate, fstat, ftruncate, seek};
use rustix::io::{Errno, pwrite};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Zeros that are written at a time.
const BLOCK: usize = 1 << 20;

/// What was done to a file.
#[derive(Default)]
pub(in super::super::super) struct Patched {
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes read from the copy.
    pub compared: u64,
    /// Bytes written to the copy.
    pub written: u64,
}

/// A file of the source and its copy.
pub(super) struct Pair<'f> {
    pub from: BorrowedFd<'f>,
    pub to: BorrowedFd<'f>,
    /// The source's path, for messages.
    pub path: &'f Path,
}

/// Makes the content of `to` that of `from`, whose attributes are `now`; `had` are those of `to`.
pub(super) fn patch(
    pair: &Pair<'_>,
    now: &Stat,
    had: &Stat,
    copier: &mut Copier,
    meter: &mut Meter<'_>,
) -> Result<Patched> {
    let err = |e: Errno| StoreError::io("update the copy of", pair.path, e);
    let size = u64::try_from(now.st_size).unwrap_or(0);
    let mut known = u64::try_from(had.st_size).unwrap_or(0);
    if known > size {
        ftruncate(pair.to, size).map_err(err)?;
        known = size;
    }
    let mut done = Patched::default();
    if size > 0 && copier.share(pair.from, pair.to, pair.path)? {
        // A file that was longer than the source is now is cut above; if the source grew or shrank
        // since, the next pass sees it.
        meter.add(size)?;
        return Ok(done);
    }
    copier.require_space()?;
    let sparse = u64::try_from(now.st_blocks).unwrap_or(0).saturating_mul(512) < size;
    let mut at = 0;
    while at < size {
        let (data, hole) = if sparse { next_data(pair.from, at, size).map_err(err)? } else { (at, size) };
        if data > at {
            punch(pair.to, at, data.min(known)).map_err(err)?;
            meter.add(data - at)?;
        }
        let compared = hole.min(known).max(data);
        compare(pair, data, compared, &mut done, meter)?;
        if compared < hole {
            let written = copier.range(pair.from, pair.to, compared, hole, pair.path, meter)?;
            done.read += written;
            done.written += written;
        }
        at = hole.max(at + 1);
    }
    if known < size {
        ftruncate(pair.to, size).map_err(err)?;
    }
    Ok(done)
}

/// Makes the content of one file that of another one, on which nobody works; `path` is named in errors.
pub(in super::super::super) fn patch_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &Path,
    meter: &mut Meter<'_>,
) -> Result<Patched> {
    let stat = |fd| fstat(fd).map_err(|e| StoreError::io("stat", path, e));
    let (now, had) = (stat(from)?, stat(to)?);
    patch(&Pair { from, to, path }, &now, &had, &mut Copier::new(), meter)
}

/// Where data begins at or after `at`, and where it ends; both `size` if there is none.
fn next_data(file: BorrowedFd<'_>, at: u64, size: u64) -> rustix::io::Result<(u64, u64)> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        // A file system that knows no holes.
        Err(Errno::INVAL) => return Ok((at, size)),
        Err(e) => return Err(e),
    };
    match seek(file, SeekFrom::Hole(data)) {
        Ok(hole) => Ok((data, hole.min(size).max(data))),
        Err(Errno::INVAL | Errno::NXIO) => Ok((data, size)),
        Err(e) => Err(e),
    }
}

/// Makes `at..end` of a file a hole, where it is not one.
fn punch(file: BorrowedFd<'_>, mut at: u64, end: u64) -> rustix::io::Result<()> {
    while at < end {
        let (data, hole) = next_data(file, at, end)?;
        if data >= end {
            break;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(file, flags, data, hole - data) {
            Ok(()) => {}
            // Zeros read the same as a hole.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, data, hole)?,
            Err(e) => return Err(e),
        }
        at = hole.max(data + 1);
    }
    Ok(())
}

fn write_zeros(file: BorrowedFd<'_>, mut at: u64, end: u64) -> rustix::io::Result<()> {
    let zeros = vec![0; BLOCK];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
        match pwrite(file, &zeros[..want], at) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
