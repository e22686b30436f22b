//! Bringing the content of a copied file up to date, block by block.
//!
//! Owns what is compared and what is written. It must never leave data of the copy where the source
//! has a hole, and never write a block that is the same.

use super::super::super::progress::Meter;
use super::super::super::{Result, StoreError};
use super::super::content::Copier;
use rustix::fs::{FallocateFlags, SeekFrom, Stat, fallocate, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Bytes read from each side at a time.
const BLOCK: usize = 1 << 20;
/// Bytes written at the least: a page, which is what the system writes out.
const PAGE: usize = 4096;

/// Compares and writes, with its buffers.
pub(super) struct Patcher {
    source: Vec<u8>,
    copy: Vec<u8>,
}

/// What was done to a file.
#[derive(Default)]
pub(super) struct Patched {
    /// Bytes read from the source.
    pub read: u64,
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

impl Patcher {
    pub(super) fn new() -> Self {
        Self { source: Vec::new(), copy: Vec::new() }
    }

    /// Makes the content of `to` that of `from`, whose attributes are `now`; `had` are those of `to`.
    pub(super) fn patch(
        &mut self,
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
            self.compare(pair, data, compared, &mut done, meter)?;
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

    /// Compares the bytes `at..end`, which the copy has, and writes what differs.
    fn compare(
        &mut self,
        pair: &Pair<'_>,
        mut at: u64,
        end: u64,
        done: &mut Patched,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let err = |e: Errno| StoreError::io("update the copy of", pair.path, e);
        self.source.resize(BLOCK, 0);
        self.copy.resize(BLOCK, 0);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read_full(pair.from, &mut self.source[..want], at).map_err(err)?;
            if got == 0 {
                break;
            }
            let had = read_full(pair.to, &mut self.copy[..got], at).map_err(err)?;
            let (source, copy) = (&self.source[..got], &self.copy[..had]);
            if source != copy {
                done.written += write_pages(pair.to, source, copy, at).map_err(err)?;
            }
            done.read += got as u64;
            at += got as u64;
            meter.add(got as u64)?;
        }
        Ok(())
    }
}

/// Writes the pages of `source` that are not in `copy`, in runs. Returns the bytes written.
fn write_pages(to: BorrowedFd<'_>, source: &[u8], copy: &[u8], at: u64) -> rustix::io::Result<u64> {
    let differs = |page: usize| {
        let end = (page + PAGE).min(source.len());
        copy.get(page..end) != Some(&source[page..end])
    };
    let mut written = 0;
    let mut page = 0;
    while page < source.len() {
        if !differs(page) {
            page += PAGE;
            continue;
        }
        let start = page;
        while page < source.len() && differs(page) {
            page += PAGE;
        }
        let end = page.min(source.len());
        let mut done = start;
        while done < end {
            match pwrite(to, &source[done..end], at + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        written += (end - start) as u64;
    }
    Ok(written)
}

/// Reads until the buffer is full or the file ends.
fn read_full(from: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(from, &mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
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
