//! The spool: which rows were written to, durably, in the order in which it was read.
//!
//! Owns the file's form: frames of a length, a hash that goes on from the frame before, and JSON. What is appended is on the
//! disk before [`Spool::append`] returns; only then may a server be told to forget it. A frame that was torn by a crash is cut
//! off: the server still has what it held. What it must never do is go on behind a gap.

use crate::error::{EngineError, io};
use crate::gather::{RESERVE_BYTES, free_bytes};
use crate::home::sync_dir;
use crate::store::postgres::capture::{Batch, Marks, Name, Touched};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 8] = b"SBSPOOL1";
/// A length that no frame has: what was read is no frame.
const LONGEST: u32 = 1 << 28;
/// A spool that is larger is given up: so many writes are compared as fast.
const MOST_BYTES: u64 = 256 << 20;

/// How it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What is captured, by database.
    pub databases: BTreeMap<String, Marks>,
}

/// Rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The keys of rows that were written to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Vec<String>>,
    /// Why any of its rows may have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

/// How far a database was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The database.
    pub database: String,
    /// Where the look began.
    pub from: u64,
    /// Everything that was committed up to here is in the spool.
    pub to: u64,
}

/// The end: everything is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Where each server's log ended, by database.
    pub ends: BTreeMap<String, u64>,
    /// Tables that are compared as a whole, by database, and why.
    pub whole: BTreeMap<String, Vec<Table>>,
    /// The number of the next transaction: as long as it is the same, nothing was written since.
    pub next_transaction: String,
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Entry {
    /// The first one.
    Start(Start),
    /// Rows.
    Rows {
        /// The database.
        database: String,
        /// Its tables.
        tables: Vec<Table>,
        /// Why nothing is known of any table, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        everything: Option<String>,
    },
    /// All frames up to here hold what was committed up to there.
    Read(Position),
    /// Nothing more comes.
    Sealed(Sealed),
    /// It is of no use, and why.
    GivenUp {
        /// Why.
        why: String,
    },
}

impl Entry {
    /// A batch as an entry; nothing if it is empty.
    pub fn of(database: &str, batch: Batch) -> Option<Self> {
        if batch.tables.is_empty() && batch.everything.is_none() {
            return None;
        }
        let table = |((schema, table), touched): (Name, Touched)| match touched {
            Touched::Rows(rows) => Table { schema, table, rows: rows.into_iter().collect(), whole: None },
            Touched::Whole(why) => Table { schema, table, rows: Vec::new(), whole: Some(why) },
        };
        Some(Self::Rows {
            database: database.to_owned(),
            tables: batch.tables.into_iter().map(table).collect(),
            everything: batch.everything,
        })
    }

    /// Rows as they were read, with their database.
    pub fn batch(self) -> Option<(String, Batch)> {
        let Self::Rows { database, tables, everything } = self else { return None };
        let touched = |t: Table| {
            let what = t.whole.map_or_else(|| Touched::Rows(t.rows.into_iter().collect()), Touched::Whole);
            ((t.schema, t.table), what)
        };
        let tables = tables.into_iter().map(touched).collect();
        Some((database, Batch { tables, everything, ..Batch::default() }))
    }
}

/// A spool that is open, and nobody else's.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    end: u64,
    hash: [u8; 32],
    start: Start,
    read: BTreeMap<String, u64>,
    sealed: Option<Sealed>,
    given_up: Option<String>,
}

impl Spool {
    /// Makes a new one in place of any other.
    pub fn create(path: &Path, start: Start) -> Result<Self, EngineError> {
        let parent = path.parent().unwrap_or(path);
        crate::home::create_dir(parent)?;
        let temporary = path.with_extension("spool.tmp");
        let mut file = private().truncate(true).open(&temporary).map_err(io("create", &temporary))?;
        file.write_all(MAGIC).map_err(io("write", &temporary))?;
        let read = start.databases.iter().map(|(name, marks)| (name.clone(), marks.at)).collect();
        let mut made = Self {
            path: temporary.clone(),
            file,
            end: MAGIC.len() as u64,
            hash: [0; 32],
            start: start.clone(),
            read,
            sealed: None,
            given_up: None,
        };
        made.append(&Entry::Start(start))?;
        std::fs::rename(&temporary, path).map_err(io("rename", &temporary))?;
        sync_dir(parent)?;
        path.clone_into(&mut made.path);
        Ok(made)
    }

    /// Opens one, waiting for whoever has it open; `None` if there is none. `each` gets what it holds.
    pub fn open(
        path: &Path,
        wait: Duration,
        mut each: impl FnMut(Entry),
    ) -> Result<Option<Self>, EngineError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("open", path)(e)),
        };
        let until = Instant::now() + wait;
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if Instant::now() >= until {
                return Err(io("lock", path)(e.into()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let damaged =
            |detail: &str| EngineError::Damaged { what: path.to_owned(), detail: detail.to_owned() };
        let length = file.metadata().map_err(io("look at", path))?.len();
        let mut reader = BufReader::with_capacity(1 << 17, &file);
        let mut magic = [0; 8];
        if reader.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(damaged("it is no spool"));
        }
        let (mut end, mut hash) = (MAGIC.len() as u64, [0; 32]);
        let (mut start, mut read) = (None::<Start>, BTreeMap::new());
        let (mut sealed, mut given_up) = (None, None);
        while let Some((payload, next)) = frame(&mut reader, &hash, length - end) {
            let entry: Entry =
                serde_json::from_slice(&payload).map_err(|_| damaged("it is of another version"))?;
            match &entry {
                Entry::Start(found) => {
                    read = found.databases.iter().map(|(n, m)| (n.clone(), m.at)).collect();
                    start = Some(found.clone());
                }
                Entry::Read(p) => {
                    let known = read.get(&p.database).copied().unwrap_or(0);
                    if p.from > known {
                        return Err(damaged("it has a gap"));
                    }
                    read.insert(p.database.clone(), known.max(p.to));
                }
                Entry::Sealed(found) => sealed = Some(found.clone()),
                Entry::GivenUp { why } => given_up = Some(why.clone()),
                Entry::Rows { .. } => {}
            }
            each(entry);
            end += 36 + payload.len() as u64;
            hash = next;
        }
        let start = start.ok_or_else(|| damaged("it has no beginning"))?;
        if end < length {
            // Torn: it was not acknowledged, and the server has it still.
            file.set_len(end).map_err(io("cut", path))?;
            file.sync_all().map_err(io("fsync", path))?;
        }
        Ok(Some(Self { path: path.to_owned(), file, end, hash, start, read, sealed, given_up }))
    }

    /// Appends, and returns once it is on the disk.
    pub fn append(&mut self, entry: &Entry) -> Result<(), EngineError> {
        let payload = serde_json::to_vec(entry).map_err(|e| io("encode", &self.path)(e.into()))?;
        let length = u32::try_from(payload.len()).ok().filter(|l| *l < LONGEST);
        let length = length.ok_or_else(|| EngineError::Internal { detail: "a frame is too long".into() })?;
        let next = chain(&self.hash, &payload);
        let mut bytes = Vec::with_capacity(36 + payload.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(next);
        bytes.extend(payload);
        let path = self.path.clone();
        self.file.seek(SeekFrom::Start(self.end)).map_err(io("write", &path))?;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            // As if nothing had been written: the server has it still.
            let _ = self.file.set_len(self.end);
            return Err(io("write", &path)(e));
        }
        self.end += bytes.len() as u64;
        self.hash = next;
        match entry {
            Entry::Read(p) => {
                let known = self.read.entry(p.database.clone()).or_default();
                *known = (*known).max(p.to);
            }
            Entry::Sealed(sealed) => self.sealed = Some(sealed.clone()),
            Entry::GivenUp { why } => self.given_up = Some(why.clone()),
            Entry::Start(_) | Entry::Rows { .. } => {}
        }
        Ok(())
    }

    /// Whether there is room for more: the disk has its reserve, and the spool is no longer than one may be. Why not, else, and
    /// whether that is for good.
    pub fn room(&self) -> Result<(), (String, bool)> {
        if self.end > MOST_BYTES {
            return Err(("more was written than a spool holds".to_owned(), true));
        }
        match free_bytes(&self.path) {
            Ok(free) if free < RESERVE_BYTES => Err(("the disk is full".to_owned(), false)),
            _ => Ok(()),
        }
    }

    /// Lets others have it for a while.
    pub fn rest(&self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    /// Takes it again; false if somebody else has it, or wrote to it meanwhile.
    pub fn take_again(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && self.file.metadata().is_ok_and(|m| m.len() == self.end)
            && self.path.exists()
    }

    /// How it began.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Everything of a database that was committed up to here is in it.
    pub fn read_to(&self, database: &str) -> u64 {
        self.read.get(database).copied().unwrap_or(0)
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Whether everything is known.
    pub fn sealed(&self) -> Option<&Sealed> {
        self.sealed.as_ref()
    }

    /// Why it is of no use, if so.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }
}

fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Keys may be personal data.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn chain(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// The next frame's content and hash; `None` if there is no whole one.
fn frame(reader: &mut impl std::io::Read, before: &[u8; 32], left: u64) -> Option<(Vec<u8>, [u8; 32])> {
    let (mut length, mut hash) = ([0; 4], [0; 32]);
    reader.read_exact(&mut length).ok()?;
    reader.read_exact(&mut hash).ok()?;
    let length = u32::from_le_bytes(length);
    if length >= LONGEST || u64::from(length) + 36 > left {
        return None;
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload).ok()?;
    (chain(before, &payload) == hash).then_some((payload, hash))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn start() -> Start {
        let marks = Marks { slot: "s".into(), at: 10, tables: Vec::new(), types: BTreeSet::new() };
        Start { databases: BTreeMap::from([("app".to_owned(), marks)]) }
    }

    fn rows(id: u64) -> Entry {
        let table = Table {
            schema: "public".into(),
            table: "t".into(),
            rows: vec![vec![id.to_string()]],
            whole: None,
        };
        Entry::Rows { database: "app".into(), tables: vec![table], everything: None }
    }

    fn read(from: u64, to: u64) -> Entry {
        Entry::Read(Position { database: "app".into(), from, to })
    }

    fn all(path: &Path) -> (Spool, Vec<Entry>) {
        let mut found = Vec::new();
        let spool = Spool::open(path, Duration::ZERO, |e| found.push(e)).unwrap().unwrap();
        (spool, found)
    }

    #[test]
    fn wherever_it_is_torn_what_was_acknowledged_before_is_there_and_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.spool");
        let mut spool = Spool::create(&path, start()).unwrap();
        let mut ends = vec![(spool.bytes(), 10)];
        for step in 1..4 {
            spool.append(&rows(step)).unwrap();
            ends.push((spool.bytes(), 10 * step));
            spool.append(&read(10 * step, 10 * (step + 1))).unwrap();
            ends.push((spool.bytes(), 10 * (step + 1)));
        }
        drop(spool);
        let bytes = std::fs::read(&path).unwrap();
        for length in (ends[0].0 as usize)..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let known = ends.iter().rfind(|(end, _)| *end as usize <= length).unwrap();
            let (mut spool, _) = all(&path);
            assert_eq!((spool.bytes(), spool.read_to("app")), *known, "cut at {length}");
            spool.append(&rows(99)).unwrap();
            drop(spool);
            assert_eq!(all(&path).1.last(), Some(&rows(99)));
        }
        // A byte that is wrong anywhere ends what is known there.
        for at in (ends[0].0 as usize..bytes.len()).step_by(7) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            let known = ends.iter().rfind(|(end, _)| *end as usize <= at).unwrap();
            assert_eq!(all(&path).0.read_to("app"), known.1, "changed at {at}");
        }
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert!(Spool::open(&path, Duration::ZERO, drop).is_err(), "without a beginning it is of no use");
    }

    #[test]
    fn a_gap_is_found_and_nobody_else_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.spool");
        assert!(Spool::open(&path, Duration::ZERO, drop).unwrap().is_none());
        let mut spool = Spool::create(&path, start()).unwrap();
        spool.append(&read(5, 20)).unwrap();
        // What was said once more does not go back.
        spool.append(&read(5, 15)).unwrap();
        assert_eq!(spool.read_to("app"), 20);
        drop(spool);
        let (spool, entries) = all(&path);
        assert_eq!((entries.len(), spool.read_to("app")), (3, 20));
        assert!(Spool::open(&path, Duration::from_millis(60), drop).is_err(), "it is open");
        spool.rest();
        assert!(spool.take_again());
        spool.rest();
        all(&path).0.append(&read(20, 21)).unwrap();
        assert!(!spool.take_again(), "somebody else wrote to it");
        drop(spool);
        let mut spool = all(&path).0;
        spool.append(&read(22, 30)).unwrap();
        drop(spool);
        let error = Spool::open(&path, Duration::ZERO, drop).unwrap_err().to_string();
        assert!(error.contains("gap"), "{error}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
