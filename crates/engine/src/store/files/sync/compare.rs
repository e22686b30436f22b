//! Comparing a range of a file with its copy, and writing the pages that differ.
//!
//! Owns how it is read: in blocks that stay in the processor's cache, of both sides in turn, and by several threads
//! where the range is long. It must never write a page that is the same.

use super::super::super::progress::Meter;
use super::super::super::{Result, StoreError};
use super::patch::{Pair, Patched};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, pread, pwrite};
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Bytes read from each side at a time: both blocks fit into the cache of a core, so that comparing them costs little
/// more than reading them.
const BLOCK: usize = 128 << 10;
/// Bytes that a thread takes at a time, which the system is asked to have ready: enough for a disk to work on.
const CHUNK: u64 = 4 << 20;
/// Bytes written at the least: a page, which is what the system writes out.
const PAGE: usize = 4096;
/// Threads at the most: beyond, a disk gains nothing, and production runs beside.
const THREADS: usize = 4;

/// What the threads share.
struct Range<'r, 'f> {
    pair: &'r Pair<'f>,
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
    read: AtomicU64,
    compared: AtomicU64,
    written: AtomicU64,
}

/// Compares the bytes `at..end`, which the copy has, and writes what differs.
pub(super) fn compare(
    pair: &Pair<'_>,
    at: u64,
    end: u64,
    done: &mut Patched,
    meter: &mut Meter<'_>,
) -> Result<()> {
    let zero = || AtomicU64::new(0);
    let range = Range {
        pair,
        next: AtomicU64::new(at),
        end,
        stop: AtomicBool::new(false),
        read: zero(),
        compared: zero(),
        written: zero(),
    };
    let chunks = usize::try_from(end.saturating_sub(at).div_ceil(CHUNK)).unwrap_or(usize::MAX);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Twice the cores: while one reads from the disk, another one compares.
    let threads = chunks.min(2 * cores).min(THREADS);
    let result = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| range.work(&mut || Ok(())))).collect();
        let mut told = 0;
        let own = range.work(&mut || {
            let read = range.read.load(Ordering::Relaxed);
            meter.add(read - told)?;
            told = read;
            Ok(())
        });
        if own.is_err() {
            range.stop.store(true, Ordering::Relaxed);
        }
        let panicked = || StoreError::io("update the copy of", pair.path, Errno::IO);
        let joined = others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(panicked())));
        let others = joined.fold(Ok(()), Result::and);
        own.and(others)?;
        meter.add(range.read.load(Ordering::Relaxed) - told)
    });
    done.read += range.read.into_inner();
    done.compared += range.compared.into_inner();
    done.written += range.written.into_inner();
    result
}

impl Range<'_, '_> {
    /// Takes chunk after chunk; `tick` is called after each block.
    fn work(&self, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let size = usize::try_from(self.end - self.next.load(Ordering::Relaxed).min(self.end));
        let size = size.unwrap_or(BLOCK).min(BLOCK);
        let mut buffers = (vec![0; size], vec![0; size]);
        loop {
            let at = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if at >= self.end {
                return Ok(());
            }
            let done = self.chunk(at, self.end.min(at + CHUNK), &mut buffers, tick);
            if done.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            done?;
        }
    }

    fn chunk(
        &self,
        mut at: u64,
        end: u64,
        (source, copy): &mut (Vec<u8>, Vec<u8>),
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let Pair { from, to, path } = *self.pair;
        let err = |e: Errno| StoreError::io("update the copy of", path, e);
        if let Some(len) = NonZeroU64::new(end - at) {
            for side in [from, to] {
                // Only advice: a file system that does not take it reads all the same.
                let _ = fadvise(side, at, Some(len), Advice::WillNeed);
            }
        }
        while at < end && !self.stop.load(Ordering::Relaxed) {
            let want = usize::try_from(end - at).unwrap_or(BLOCK).min(source.len());
            let got = read_full(from, &mut source[..want], at).map_err(err)?;
            if got == 0 {
                break;
            }
            let had = read_full(to, &mut copy[..got], at).map_err(err)?;
            let (source, copy) = (&source[..got], &copy[..had]);
            if source != copy {
                let written = write_pages(to, source, copy, at).map_err(err)?;
                self.written.fetch_add(written, Ordering::Relaxed);
            }
            self.read.fetch_add(got as u64, Ordering::Relaxed);
            self.compared.fetch_add(had as u64, Ordering::Relaxed);
            at += got as u64;
            tick()?;
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
