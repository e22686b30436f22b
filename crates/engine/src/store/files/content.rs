//! Copying the content of one file: shared blocks where possible, else data without holes.
//!
//! Owns the choice between reflink and copying. It must never turn a hole into zeros on disk.

use super::super::place::require_space;
use super::super::progress::Meter;
use super::super::{Result, StoreError};
use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// The kernel copies this much per call: large enough for full speed, small enough that progress
/// and cancelling work several times a second even at 100 MB/s.
const CHUNK: u64 = 8 << 20;
/// Buffer where the kernel cannot copy by itself.
const BUFFER: usize = 1 << 20;

/// Copies files between two file systems and remembers what these can do.
pub(crate) struct Copier {
    reflink: bool,
    /// Whether a file that cannot share its blocks is an error.
    only_share: bool,
    kernel_copy: bool,
    buffer: Vec<u8>,
    /// Bytes that must be free in a folder once blocks turn out not to be shared.
    pub(crate) require: Option<(PathBuf, u64)>,
}

/// How one file was copied.
pub(crate) struct Copied {
    /// Whether the blocks are shared.
    pub reflinked: bool,
    /// Bytes written (0 if shared; holes do not count).
    pub written: u64,
}

impl Copier {
    pub(crate) fn new() -> Self {
        Self { reflink: true, only_share: false, kernel_copy: true, buffer: Vec::new(), require: None }
    }

    /// One that never copies: a file that cannot share its blocks is [`StoreError::CannotShare`].
    pub(super) fn only_sharing() -> Self {
        Self { only_share: true, ..Self::new() }
    }

    /// Lets `to` share all blocks of `from`, where the file systems can. Says whether it does.
    pub(super) fn share(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> Result<bool> {
        if !self.reflink {
            return Ok(false);
        }
        let why = match ioctl_ficlone(to, from) {
            Ok(()) => return Ok(true),
            // About this file only; the rest is about the pair of file systems.
            Err(Errno::INVAL) => "it is marked nodatacow, or the block sizes differ",
            Err(Errno::XDEV) => {
                self.reflink = false;
                "the copy would be on another file system or mount"
            }
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
                self.reflink = false;
                "its file system has no shared blocks"
            }
            Err(e) => return Err(StoreError::io("share the blocks of", path, e)),
        };
        if self.only_share {
            let why = format!("{why}; copy this mount in passes instead");
            return Err(StoreError::CannotShare { path: path.to_owned(), why });
        }
        Ok(false)
    }

    /// Refuses what would not fit, before the first byte is copied.
    pub(super) fn require_space(&mut self) -> Result<()> {
        match self.require.take() {
            Some((dir, needed)) => require_space(&dir, needed),
            None => Ok(()),
        }
    }

    /// Copies the content of `from` into the empty file `to`.
    pub(crate) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<Copied> {
        let err = |e: Errno| StoreError::io("copy", path, e);
        let stat = fstat(from).map_err(err)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            meter.add(0)?;
            return Ok(Copied { reflinked: false, written: 0 });
        }
        if self.share(from, to, path)? {
            meter.add(size)?;
            return Ok(Copied { reflinked: true, written: 0 });
        }
        self.require_space()?;
        let mut written = 0;
        if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
            written = self.range(from, to, 0, size, path, meter)?;
            return Ok(Copied { reflinked: false, written });
        }
        // It has holes (or is compressed): copy the data between them.
        let mut at = 0;
        while at < size {
            let data = match seek(from, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(Errno::INVAL) => at,
                Err(e) => return Err(err(e)),
            };
            meter.add(data - at)?;
            if data >= size {
                break;
            }
            let hole = match seek(from, SeekFrom::Hole(data)) {
                Ok(hole) => hole.min(size),
                Err(Errno::INVAL | Errno::NXIO) => size,
                Err(e) => return Err(err(e)),
            };
            written += self.range(from, to, data, hole, path, meter)?;
            at = hole.max(data + 1);
        }
        ftruncate(to, size).map_err(err)?;
        Ok(Copied { reflinked: false, written })
    }

    /// Copies the bytes `at..end` to the same place; stops early where the source ends.
    pub(super) fn range(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut at: u64,
        end: u64,
        path: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<u64> {
        let err = |e: Errno| StoreError::io("copy", path, e);
        let start = at;
        while at < end {
            let want = (end - at).min(CHUNK);
            // Small files: two calls through a buffer cost less than setting up a kernel copy.
            if self.kernel_copy && want > 65536 {
                let (mut off_in, mut off_out) = (at, at);
                let want = usize::try_from(want).unwrap_or(BUFFER);
                match copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), want) {
                    Ok(0) => break,
                    Ok(n) => {
                        at += n as u64;
                        meter.add(n as u64)?;
                        continue;
                    }
                    Err(Errno::INTR) => continue,
                    Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        self.kernel_copy = false;
                    }
                    Err(e) => return Err(err(e)),
                }
            }
            self.buffer.resize(BUFFER, 0);
            let want = usize::try_from(want).unwrap_or(BUFFER).min(BUFFER);
            let n = match pread(from, &mut self.buffer[..want], at) {
                Ok(0) => break,
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(err(e)),
            };
            let mut done = 0;
            while done < n {
                match pwrite(to, &self.buffer[done..n], at + done as u64) {
                    Ok(0) => return Err(err(Errno::IO)),
                    Ok(wrote) => done += wrote,
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(err(e)),
                }
            }
            at += n as u64;
            meter.add(n as u64)?;
        }
        Ok(at - start)
    }
}
