//! Bringing a clone of a database, which others have written to, to the present state of the database.
//!
//! Owns the order: what was left beside the clone goes first, then its pages are overwritten where they differ from a
//! private copy, which is of one moment. It must never read the database itself page by page while it is in use.

use super::super::place::sync_dir;
use super::super::progress::{Meter, Progress};
use super::super::{Access, Result, Source, StoreError, files};
use super::copy::{Making, check, copy_live};
use super::handles::Plain;
use super::open::{absolute, check_header, copy_cold};
use super::{beside, len_or_zero, size_bytes};
use rustix::fs::{Mode, OFlags, fstat};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::data::CopyStats;

/// Brings the file `dst`, which exists, to the state of a database.
pub(in super::super) fn refresh(
    source: Source<'_>,
    dst: &Path,
    progress: &Progress<'_>,
) -> Result<CopyStats> {
    let started = Instant::now();
    let src = absolute(source.path)?;
    check_header(&src)?;
    let mut name = dst.as_os_str().to_owned();
    name.push(".fresh");
    // Never finished: it goes when this is done.
    let making = Making::begin(&PathBuf::from(name))?;
    let mut meter = Meter::new(progress, size_bytes(&src)?.saturating_mul(2));
    let mut stats = CopyStats::default();
    match source.access {
        Access::Live => copy_live(&src, &making.copy, &mut stats, &mut meter)?,
        Access::Cold { .. } => {
            copy_cold(&src, &making.copy, &mut meter)?;
        }
    }
    stats.bytes = len_or_zero(&making.copy);
    check(&src, &making.copy, stats.bytes, &mut stats)?;
    for suffix in ["-wal", "-shm", "-journal"] {
        files::remove(&beside(dst, suffix))?;
    }
    let open = |path: &Path, flags| -> Result<File> {
        let fd = rustix::fs::open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        Ok(File::from(fd.map_err(|e| StoreError::io("open", path, e))?))
    };
    let (from, to) = (open(&making.copy, OFlags::RDONLY)?, open(dst, OFlags::RDWR)?);
    let patched = files::patch_file(from.as_fd(), to.as_fd(), &src, &mut meter)?;
    let original = Plain::new(File::open(&src).map_err(|e| StoreError::read("open", &src, e))?);
    let stat = fstat(original.file()).map_err(|e| StoreError::io("stat", &src, e))?;
    let refused = files::carry(original.file().as_fd(), &stat, to.as_fd(), &src)?;
    if !refused.is_empty() {
        stats.notes.push(format!("attributes the destination does not take: {}", refused.join(", ")));
    }
    to.sync_all().map_err(|e| StoreError::io("fsync", dst, e))?;
    sync_dir(dst.parent().unwrap_or(Path::new("/")))?;
    stats.files = 1;
    stats.reflinked = 0;
    stats.bytes_read = patched.read + patched.compared;
    stats.bytes_written = patched.written;
    stats.bytes_saved = stats.bytes.saturating_sub(patched.written);
    meter.finish();
    stats.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}
