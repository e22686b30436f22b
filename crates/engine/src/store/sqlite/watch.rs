//! Watching a database file while somebody else migrates it: who holds which lock, and what the definitions are after each transaction.
//!
//! Owns looking without taking part: locks are asked for with `F_GETLK`, which takes none; the counters are read from the file and from
//! its log. Definitions are read through SQLite, without locks where there is no log, and only after they changed.

use super::super::{Result, StoreError};
use super::open::{absolute, definitions};
use super::{beside, handles, size_bytes};
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::trace::FileSeen;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// Intervals that are kept.
const MOST_INTERVALS: usize = 100_000;

/// Bytes of the file that are locked, <https://sqlite.org/src/file/src/os.h>: a writer's intention, and the last step before it writes.
const PENDING: u64 = 0x4000_0000;
const RESERVED: u64 = PENDING + 1;
const SHARED: u64 = PENDING + 2;
const SHARED_LENGTH: u64 = 510;
/// The byte of the log's index that a writer locks, <https://sqlite.org/walformat.html>.
const WAL_WRITER: u64 = 120;

/// Where a database keeps its counters, <https://sqlite.org/fileformat2.html>.
const CHANGES_AT: u64 = 24;
const COOKIE_AT: u64 = 40;
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Watches until `stop` says so. `ready` is called once it sees.
pub(in crate::store) fn watch(
    path: &Path,
    stop: &dyn Fn() -> bool,
    ready: &mut dyn FnMut(),
) -> Result<FileSeen> {
    let path = absolute(path)?;
    let file = File::open(&path).map_err(|e| StoreError::read("open", &path, e))?;
    let mut watched = Watched {
        began: Instant::now(),
        file: handles::Plain::new(file),
        index: None,
        log: Log::default(),
        counters: None,
        unread_definitions: false,
        writing: None,
        unread: None,
        seen: FileSeen { bytes: (size_bytes(&path)?, 0), ..FileSeen::default() },
        path,
    };
    watched.counters = watched.counters_now();
    let first = definitions(&watched.path)?;
    watched.seen.definitions.push((0, first));
    ready();
    while !stop() {
        watched.look();
        std::thread::sleep(PAUSE);
    }
    watched.look();
    Ok(watched.end())
}

struct Watched {
    path: PathBuf,
    began: Instant,
    file: handles::Plain,
    /// The index of the log, with its inode: it is made anew now and then.
    index: Option<(u64, File)>,
    log: Log,
    /// Changes and cookie of the file itself.
    counters: Option<(u32, u32)>,
    /// Definitions changed, and were not read since.
    unread_definitions: bool,
    /// Since when somebody writes.
    writing: Option<u64>,
    unread: Option<u64>,
    seen: FileSeen,
}

fn held(file: &File, typ: FlockType, start: u64, length: u64) -> bool {
    let lock = Flock { start, length, pid: None, typ, offset_type: FlockOffsetType::Set };
    matches!(fcntl_getlk(file.as_fd(), &lock), Ok(Some(found)) if found.typ == FlockType::WriteLock)
}

fn number(file: &File, at: u64) -> Option<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn interval(all: &mut Vec<(u64, u64)>, open: &mut Option<u64>, held: bool, now: u64) {
    match (held, *open) {
        (true, None) => *open = Some(now),
        (false, Some(since)) => {
            *open = None;
            if all.len() < MOST_INTERVALS {
                all.push((since, now));
            }
        }
        _ => {}
    }
}

impl Watched {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn look(&mut self) {
        let now = self.now();
        let file = self.file.file();
        // Somebody who only reads may come as long as nobody is about to write the file itself.
        let exclusive = held(file, FlockType::ReadLock, PENDING, 1)
            || held(file, FlockType::ReadLock, SHARED, SHARED_LENGTH);
        let reserved = held(file, FlockType::WriteLock, RESERVED, 1);
        self.refresh_index();
        let logging =
            self.index.as_ref().is_some_and(|(_, index)| held(index, FlockType::WriteLock, WAL_WRITER, 1));
        let writes = exclusive || reserved || logging;
        interval(&mut self.seen.writes, &mut self.writing, writes, now);
        interval(&mut self.seen.unread, &mut self.unread, exclusive, now);
        if writes && !logging {
            // What is in the file is not yet, or no longer, what counts.
            return;
        }
        let logged = self.index.is_some();
        let mut changed = self.log.read(&beside(&self.path, "-wal"), &mut self.seen);
        let counters = self.counters_now();
        if counters != self.counters {
            if let (Some((changes, cookie)), Some((was, old))) = (counters, self.counters) {
                // With a log, what comes into the file was counted when it came into the log.
                if !logged {
                    self.seen.transactions += u64::from(changes.wrapping_sub(was)).min(1 << 20);
                }
                changed |= cookie != old;
            }
            self.counters = counters;
        }
        self.unread_definitions |= changed;
        if self.unread_definitions && !logging {
            self.read_definitions(now);
        }
    }

    /// Of the file; those of a log count before they come here.
    fn counters_now(&self) -> Option<(u32, u32)> {
        let file = self.file.file();
        Some((number(file, CHANGES_AT)?, number(file, COOKIE_AT)?))
    }

    fn refresh_index(&mut self) {
        let path = beside(&self.path, "-shm");
        let inode = path.metadata().ok().map(|m| m.ino());
        if inode != self.index.as_ref().map(|(inode, _)| *inode) {
            self.index = inode.and_then(|inode| Some((inode, File::open(&path).ok()?)));
        }
    }

    /// What cannot be read now, because somebody writes again, is read later.
    fn read_definitions(&mut self, now: u64) {
        let Ok(found) = definitions(&self.path) else { return };
        self.unread_definitions = false;
        if self.seen.definitions.last().is_none_or(|(_, last)| *last != found) {
            self.seen.definitions.push((now, found));
        }
    }

    fn end(mut self) -> FileSeen {
        let now = self.now();
        interval(&mut self.seen.writes, &mut self.writing, false, now);
        interval(&mut self.seen.unread, &mut self.unread, false, now);
        match definitions(&self.path) {
            Ok(found) if self.seen.definitions.last().is_none_or(|(_, last)| *last != found) => {
                self.seen.definitions.push((now, found));
            }
            Ok(_) => {}
            Err(why) => self.seen.notes.push(format!("the definitions in the end were not read: {why}")),
        }
        if self.seen.writes.len() >= MOST_INTERVALS {
            self.seen.notes.push(format!("after {MOST_INTERVALS} transactions their times were not kept"));
        }
        self.seen.bytes.1 = size_bytes(&self.path).unwrap_or(0);
        self.seen.wal = beside(&self.path, "-wal").exists();
        self.seen
    }
}

/// How far the log was read.
#[derive(Default)]
struct Log {
    salts: Option<[u32; 2]>,
    offset: u64,
    cookie: Option<u32>,
}

impl Log {
    /// Reads what transactions were added. Says whether one of them changed definitions.
    fn read(&mut self, path: &Path, seen: &mut FileSeen) -> bool {
        let Ok(file) = File::open(path) else { return false };
        let length = file.metadata().map_or(0, |m| m.len());
        seen.wal_bytes = seen.wal_bytes.max(length);
        let (Some(first), Some(second)) = (number(&file, 16), number(&file, 20)) else { return false };
        if self.salts != Some([first, second]) {
            // Begun anew, over the old one.
            *self = Self { salts: Some([first, second]), offset: WAL_HEADER, cookie: self.cookie };
        }
        let Some(page) = number(&file, 8).filter(|size| *size >= 512) else { return false };
        let frame = FRAME_HEADER + u64::from(page);
        let mut changed = false;
        let mut ahead = self.offset;
        let mut cookie = self.cookie;
        while ahead + frame <= length
            && [number(&file, ahead + 8), number(&file, ahead + 12)] == [Some(first), Some(second)]
        {
            if number(&file, ahead) == Some(1) {
                cookie = number(&file, ahead + FRAME_HEADER + COOKIE_AT);
            }
            let commits = number(&file, ahead + 4).is_some_and(|pages| pages > 0);
            ahead += frame;
            if commits {
                self.offset = ahead;
                seen.transactions += 1;
                changed |= cookie != self.cookie;
                self.cookie = cookie;
            }
        }
        changed
    }
}
