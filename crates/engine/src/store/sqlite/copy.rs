//! Cloning databases.
//!
//! Live: blocks are shared under a write lock held for milliseconds where the file system can, else
//! SQLite's backup API. Cold: the files are copied and the copy is folded. Owns the locks taken on
//! live databases; it must never copy bytes while it holds one, but for the last resort in
//! rollback-journal mode, which is measured and reported.

use super::super::place::{Place, require_space, sync_dir};
use super::super::progress::{Meter, Progress};
use super::super::{Result, StoreError, files};
use super::handles::Plain;
use super::open::{Db, absolute, check_header, copy_cold, fold};
use super::{beside, len_or_zero, orphans, size_bytes, sql_error};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{fstat, ioctl_ficlone};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::data::CopyStats;

/// Sharing blocks costs time per extent; if a trial without the lock takes longer than this, the
/// writers would notice it under the lock, and the backup API is used instead.
const SHARE_LIMIT: Duration = Duration::from_millis(500);
/// Pages per backup step in WAL mode, where nobody waits: 16 MiB at 4 KiB, so progress and cancelling work.
const STEP_WAL: i32 = 4096;
/// Pages per step in rollback-journal mode, where writers wait for each: about a millisecond.
const STEP_ROLLBACK: i32 = 256;
/// Pause between such steps: SQLite's busy handler looks again after 1, 2, 5 ms.
const PAUSE: Duration = Duration::from_millis(3);
/// Every write restarts the copy in rollback-journal mode; after this many, one step under the lock.
const RESTARTS: u32 = 3;
/// A writer that keeps us out of a step this long is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// How long to look for a gap between writers; the backup API needs none.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks: shorter than the gap between two commits of a busy writer.
const LOCK_PAUSE: Duration = Duration::from_micros(500);
/// Copies up to this size are checked page by page; beyond, the check would take longer than the copy.
const CHECK_LIMIT: u64 = 512 << 20;

/// The destination, with the folder the copy is made in.
pub(super) struct Making {
    place: Place,
    pub(super) copy: PathBuf,
}

impl Making {
    pub(super) fn begin(dst: &Path) -> Result<Self> {
        let place = Place::prepare(dst)?;
        // A leftover -wal would be replayed into the copy by whoever opens it.
        for suffix in ["-wal", "-shm", "-journal"] {
            let left = beside(place.dst(), suffix);
            if left.symlink_metadata().is_ok() {
                return Err(StoreError::DstExists { path: left });
            }
        }
        place.make_dir()?;
        let copy = place.temp().join("db");
        Ok(Self { place, copy })
    }

    /// Checks the copy, gives it the attributes of the source, and moves it into place.
    fn finish(self, src: &Path, stats: &mut CopyStats) -> Result<()> {
        let bytes = len_or_zero(&self.copy);
        check(src, &self.copy, bytes, stats)?;
        let err = |doing| {
            let path = self.copy.clone();
            move |e: std::io::Error| StoreError::io(doing, &path, e)
        };
        let from = Plain::new(File::open(src).map_err(|e| StoreError::read("open", src, e))?);
        let to = File::options().write(true).open(&self.copy).map_err(err("open"))?;
        let stat = fstat(from.file()).map_err(|e| StoreError::io("stat", src, e))?;
        let refused = files::carry(from.file().as_fd(), &stat, to.as_fd(), src)?;
        if !refused.is_empty() {
            stats.notes.push(format!("attributes the destination does not take: {}", refused.join(", ")));
        }
        to.sync_all().map_err(err("fsync"))?;
        sync_dir(self.place.temp())?;
        stats.bytes = bytes;
        stats.files = 1;
        let copy = self.copy.clone();
        self.place.commit(&copy)
    }
}

/// Refuses a copy whose pages do not hang together: then the source was damaged.
pub(super) fn check(src: &Path, copy: &Path, bytes: u64, stats: &mut CopyStats) -> Result<()> {
    let damaged = |detail| StoreError::Damaged { path: src.to_owned(), detail };
    check_header(copy)?;
    // The parent folder of the copy is private, which makes it a scratch folder as well.
    let scratch = copy.parent().unwrap_or(Path::new("/"));
    let as_source = |e| match e {
        StoreError::Damaged { detail, .. } => damaged(detail),
        other => other,
    };
    let db = Db::reader(super::super::Source::cold(copy, scratch)).map_err(as_source)?;
    let sql = |e| sql_error("check the copy of", src, e);
    let pages: i64 = db
        .conn
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |r| r.get(0))
        .map_err(sql)?;
    let pages = u64::try_from(pages).unwrap_or(u64::MAX);
    if pages > bytes {
        return Err(damaged(format!("its header speaks of {pages} bytes, it has {bytes}")));
    }
    if bytes > CHECK_LIMIT {
        stats.notes.push(format!(
            "pages not checked: larger than {} MiB; run the integrity check",
            CHECK_LIMIT >> 20
        ));
        return Ok(());
    }
    match orphans::physical(&db, "quick_check(20)") {
        Ok(problems) => {
            // Values that break a constraint are the application's affair; broken pages are not.
            let broken = problems.into_iter().find(|p| {
                !(p.starts_with("NULL value in")
                    || p.starts_with("CHECK constraint failed")
                    || p.contains(" value in "))
            });
            broken.map_or(Ok(()), |detail| Err(damaged(detail)))
        }
        Err(e @ StoreError::Damaged { .. }) => Err(as_source(e)),
        // A function or collation that only the application knows.
        Err(StoreError::Sqlite { source, .. }) => {
            stats.notes.push(format!("pages not checked: {source}"));
            Ok(())
        }
        Err(other) => Err(other),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Clones a database that nobody has open.
pub(in super::super) fn clone_cold(src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    let started = Instant::now();
    let src = absolute(src)?;
    check_header(&src)?;
    let making = Making::begin(dst)?;
    let mut meter = Meter::new(progress, size_bytes(&src)?);
    let copied = copy_cold(&src, &making.copy, &mut meter)?;
    let mut stats = CopyStats {
        bytes_written: copied.written,
        reflinked: u64::from(copied.reflinked),
        ..CopyStats::default()
    };
    making.finish(&src, &mut stats)?;
    meter.finish();
    stats.took_ms = millis(started.elapsed());
    Ok(stats)
}

/// Clones a database in use as one consistent state.
pub(in super::super) fn clone_live(src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    let started = Instant::now();
    let src = absolute(src)?;
    check_header(&src)?;
    let making = Making::begin(dst)?;
    let mut meter = Meter::new(progress, size_bytes(&src)?);
    let mut stats = CopyStats::default();
    copy_live(&src, &making.copy, &mut stats, &mut meter)?;
    making.finish(&src, &mut stats)?;
    meter.finish();
    stats.took_ms = millis(started.elapsed());
    Ok(stats)
}

/// Makes a copy of a database in use, as one consistent state.
pub(super) fn copy_live(src: &Path, copy: &Path, stats: &mut CopyStats, meter: &mut Meter<'_>) -> Result<()> {
    match share(src, copy, meter)? {
        Some(waited) => {
            stats.writers_waited_ms = millis(waited);
            stats.reflinked = 1;
            fold(src, copy)
        }
        None => {
            if let Some(dir) = copy.parent() {
                require_space(dir, size_bytes(src)?)?;
            }
            stats.writers_waited_ms = millis(backup(src, copy, meter)?);
            stats.bytes_written = len_or_zero(copy);
            Ok(())
        }
    }
}

/// Shares the blocks of main file and `-wal` while no writer can write. `None` if that is not
/// possible here; then the lock is released and nothing was copied.
///
/// Under the write lock nothing is appended to the `-wal` and it is not reset. A checkpoint may still
/// move pages into the main file, but each of them stays in the `-wal` and is replayed in the copy.
/// In rollback-journal mode the lock keeps everybody from changing the main file.
fn share(src: &Path, copy: &Path, meter: &mut Meter<'_>) -> Result<Option<Duration>> {
    let read = |e| StoreError::read("open", src, e);
    let err = |e| sql_error("lock", src, e);
    // Opened before the connection and closed after it: closing drops locks.
    let db;
    let main = Plain::new(File::open(src).map_err(read)?);
    let trial = beside(copy, "-trial");
    let target = File::create_new(&trial).map_err(|e| StoreError::io("create", &trial, e))?;
    let begun = Instant::now();
    let shared = ioctl_ficlone(&target, main.file()).is_ok();
    let took = begun.elapsed();
    drop(target);
    std::fs::remove_file(&trial).map_err(|e| StoreError::io("remove", &trial, e))?;
    if !shared || took > SHARE_LIMIT {
        return Ok(None);
    }
    meter.add(0)?;
    // Sharing has to write dirty pages first: better now than under the lock.
    let wal_path = beside(src, "-wal");
    main.file().sync_data().map_err(|e| StoreError::io("sync", src, e))?;
    if let Ok(wal) = File::open(&wal_path) {
        wal.sync_data().map_err(|e| StoreError::io("sync", &wal_path, e))?;
    }
    db = Db::writer(src)?;
    if !lock(&db, meter)? {
        return Ok(None);
    }
    let locked = Instant::now();
    let result = share_locked(src, &main, &wal_path, copy);
    db.conn.execute_batch("ROLLBACK").map_err(err)?;
    let waited = locked.elapsed();
    drop(db);
    match result {
        Ok(()) => Ok(Some(waited)),
        Err(_) => {
            for path in [copy.to_owned(), beside(copy, "-wal")] {
                files::remove(&path)?;
            }
            Ok(None)
        }
    }
}

/// Takes the write lock. False if writers leave no gap within the limit.
///
/// SQLite's own busy handler looks only every 100 ms in the end and so starves beside busy writers
/// (measured: two of them kept it out for 15 s); looking every half millisecond finds the gap.
fn lock(db: &Db, meter: &mut Meter<'_>) -> Result<bool> {
    let err = |e| sql_error("lock", &db.path, e);
    db.conn.busy_timeout(Duration::ZERO).map_err(err)?;
    let begun = Instant::now();
    loop {
        match db.conn.execute_batch("BEGIN IMMEDIATE").map_err(err) {
            Ok(()) => return Ok(true),
            Err(StoreError::Busy { .. }) if begun.elapsed() < LOCK_LIMIT => {}
            Err(StoreError::Busy { .. }) => return Ok(false),
            Err(other) => return Err(other),
        }
        meter.add(0)?;
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn share_locked(src: &Path, main: &Plain, wal: &Path, copy: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let (opened, named) = (main.file().metadata()?, src.metadata()?);
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(std::io::Error::other("the database was replaced"));
    }
    ioctl_ficlone(File::create_new(copy)?, main.file())?;
    if len_or_zero(wal) > 0 {
        ioctl_ficlone(File::create_new(beside(copy, "-wal"))?, File::open(wal)?)?;
    }
    Ok(())
}

/// Copies by SQLite's backup API. Returns the longest time writers had to wait.
fn backup(src: &Path, copy: &Path, meter: &mut Meter<'_>) -> Result<Duration> {
    let err = |e| sql_error("back up", src, e);
    // A writer's connection can recover a hot journal; a read-only file system gets a reader's.
    let db = match Db::writer(src) {
        Err(StoreError::Sqlite { .. }) => Db::reader(super::super::Source::live(src))?,
        other => other?,
    };
    let mode: String = db.conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(err)?;
    if mode == "wal" {
        // Readers do not block writers: hold one read transaction over all steps.
        steps(&db, copy, Hold::Transaction, STEP_WAL, meter)?;
        return Ok(Duration::ZERO);
    }
    match steps(&db, copy, Hold::Step, STEP_ROLLBACK, meter)? {
        Steps::Done { longest } => Ok(longest),
        Steps::TooManyRestarts { longest } => {
            files::remove(copy)?;
            match steps(&db, copy, Hold::Transaction, STEP_WAL, meter)? {
                Steps::Done { longest: whole } | Steps::TooManyRestarts { longest: whole } => {
                    Ok(longest.max(whole))
                }
            }
        }
    }
}

/// How long the read lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Over the whole copy.
    Transaction,
    /// For each step.
    Step,
}

enum Steps {
    Done { longest: Duration },
    TooManyRestarts { longest: Duration },
}

fn steps(db: &Db, copy: &Path, hold: Hold, pages: i32, meter: &mut Meter<'_>) -> Result<Steps> {
    let err = |e| sql_error("back up", &db.path, e);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy_err = |e| sql_error("write the copy of", &db.path, e);
    let mut target = Connection::open_with_flags(copy, flags).map_err(copy_err)?;
    // The copy is synced once when it is complete, and thrown away if it is not.
    target.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF;").map_err(copy_err)?;
    let page: u32 = db.conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(err)?;
    let page = u64::from(page);
    let begun = Instant::now();
    let own = hold == Hold::Transaction && db.conn.is_autocommit();
    if own {
        db.conn.execute_batch("BEGIN").map_err(err)?;
        db.conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(err)?;
    }
    let (mut longest, mut restarts, mut left) = (Duration::ZERO, 0, i32::MAX);
    let mut progressed = Instant::now();
    let backup = Backup::new(&db.conn, &mut target).map_err(err)?;
    let result = loop {
        let step = Instant::now();
        let result = backup.step(pages).map_err(err)?;
        longest = longest.max(step.elapsed());
        let at = backup.progress();
        let total = u64::try_from(at.pagecount).unwrap_or(0) * page;
        let rest = u64::try_from(at.remaining).unwrap_or(0) * page;
        meter.set(total.saturating_sub(rest), total)?;
        match result {
            StepResult::Done => break Steps::Done { longest },
            StepResult::More => progressed = Instant::now(),
            _ if progressed.elapsed() > STUCK => {
                return Err(StoreError::Busy { doing: "back up", path: db.path.clone() });
            }
            _ => {}
        }
        if hold == Hold::Step {
            if at.remaining > left {
                restarts += 1;
                if restarts > RESTARTS {
                    break Steps::TooManyRestarts { longest };
                }
            }
            left = at.remaining;
            std::thread::sleep(PAUSE);
        }
    };
    drop(backup);
    if own {
        db.conn.execute_batch("COMMIT").map_err(err)?;
    }
    target.close().map_err(|(_, e)| copy_err(e))?;
    for suffix in ["-wal", "-shm", "-journal"] {
        files::remove(&beside(copy, suffix))?;
    }
    Ok(match (result, hold) {
        (Steps::Done { .. }, Hold::Transaction) => Steps::Done { longest: begun.elapsed() },
        (other, _) => other,
    })
}
