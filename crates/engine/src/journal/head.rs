//! The head file of the journal: the last event that was recorded, outside the database.
//!
//! It is written after each commit and not waited for: after a loss of power it may be behind the journal,
//! never ahead of it. A journal that ends before it has lost something.

use crate::error::{EngineError, io};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Always this long, so that a write replaces it within one block.
const LENGTH: usize = 128;

/// The open head file.
#[derive(Debug)]
pub struct HeadFile {
    file: File,
    path: PathBuf,
}

/// The exclusive right to append.
#[derive(Debug)]
pub struct Turn<'a>(&'a HeadFile);

impl HeadFile {
    /// Opens the head file of a journal for writing; makes it for a new journal.
    pub fn open(journal: &Path) -> Result<Self, EngineError> {
        let path = journal.with_extension("head");
        let new = std::fs::metadata(journal).map_or(0, |m| m.len()) == 0;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(new)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| missing(&path, e))?;
        let head = Self { file, path };
        if new {
            let turn = head.turn()?;
            if head.file.metadata().map_err(io("look at", &head.path))?.len() == 0 {
                turn.write(0, "")?;
                head.file.sync_all().map_err(io("sync", &head.path))?;
            }
        }
        Ok(head)
    }

    /// Makes the one of a copy of a journal.
    pub fn of_copy(journal: &Path, seq: i64, chain: &str) -> Result<(), EngineError> {
        let path = journal.with_extension("head");
        std::fs::write(&path, line(seq, chain)).map_err(io("write", &path))
    }

    /// Opens it for reading.
    pub fn open_read(journal: &Path) -> Result<Self, EngineError> {
        let path = journal.with_extension("head");
        let file = File::open(&path).map_err(|e| missing(&path, e))?;
        Ok(Self { file, path })
    }

    /// Waits for the right to append.
    pub fn turn(&self) -> Result<Turn<'_>, EngineError> {
        self.lock(FlockOperation::LockExclusive)?;
        Ok(Turn(self))
    }

    fn lock(&self, operation: FlockOperation) -> Result<(), EngineError> {
        loop {
            match flock(&self.file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(|e| io("lock", &self.path)(e.into())),
            }
        }
    }

    /// The last event that was recorded (position and chain value), or 0.
    pub fn read(&self) -> Result<(i64, String), EngineError> {
        self.lock(FlockOperation::LockShared)?;
        let found = self.read_locked();
        self.lock(FlockOperation::Unlock)?;
        found
    }

    fn read_locked(&self) -> Result<(i64, String), EngineError> {
        let damaged = || EngineError::Damaged {
            what: self.path.clone(),
            detail: "it does not say what the last event of the journal is".to_owned(),
        };
        let mut bytes = [0; LENGTH];
        self.file.read_exact_at(&mut bytes, 0).map_err(|_| damaged())?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let (line, padding) = text.split_once('\n').ok_or_else(damaged)?;
        let (seq, chain) = line.split_once(':').ok_or_else(damaged)?;
        if padding.bytes().any(|b| b != b' ') {
            return Err(damaged());
        }
        Ok((seq.parse().map_err(|_| damaged())?, chain.to_owned()))
    }
}

impl Turn<'_> {
    /// The last event that was recorded.
    pub fn read(&self) -> Result<(i64, String), EngineError> {
        self.0.read_locked()
    }

    /// Remembers the last event.
    pub fn write(&self, seq: i64, chain: &str) -> Result<(), EngineError> {
        self.0.file.write_all_at(line(seq, chain).as_bytes(), 0).map_err(io("write", &self.0.path))
    }
}

/// What a head file holds.
fn line(seq: i64, chain: &str) -> String {
    format!("{:<LENGTH$}", format!("{seq}:{chain}\n"))
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Closing the file gives the lock up as well.
        let _ = self.0.lock(FlockOperation::Unlock);
    }
}

fn missing(path: &Path, error: std::io::Error) -> EngineError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return EngineError::Damaged {
            what: path.to_owned(),
            detail: "it is missing beside a journal that has events".to_owned(),
        };
    }
    EngineError::Io { doing: "open", path: path.to_owned(), source: error }
}
