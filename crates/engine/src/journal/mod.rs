//! The journal: an SQLite file of events, chained by hash, durable before each effect.
//!
//! It never repairs or skips anything: a record whose hash does not fit is damage, and damage is an
//! error. A write-ahead log with `synchronous=FULL` makes a commit durable before `append` returns, with
//! one wait for the disk (a rollback journal needs four). SQLite silently drops the torn end of such a log;
//! the head file beside the journal remembers how far it went, so that this is noticed.

mod head;
mod newest;
mod reading;

use crate::error::{EngineError, io};
use head::HeadFile;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, Record, RunState};
use switchback_core::plan::Plan;
use switchback_core::release::FORMAT;

/// The journal of a stack.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    head_file: HeadFile,
    /// Of a copy in memory: what the head file remembered before it was made. Others append meanwhile.
    copied_at: Option<(i64, String)>,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY, run TEXT NOT NULL, at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL, json TEXT NOT NULL, chain TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS events_by_run ON events(run, seq);
    CREATE INDEX IF NOT EXISTS events_by_kind ON events(kind, seq);
";

/// The chain value before the first event.
const GENESIS: &str = "genesis";

impl Journal {
    /// Opens the journal for writing, making it if there is none.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        refuse_lost(path)?;
        let head_file = HeadFile::open(path)?;
        let connection = Connection::open(path).map_err(|e| sqlite(path, e))?;
        let journal = Self { connection, path: path.to_owned(), head_file, copied_at: None };
        journal.connection.busy_timeout(Duration::from_secs(10)).map_err(|e| journal.wrap(e))?;
        // A corrupt file is noticed here at the latest: the first read happens before any write.
        journal.check_version()?;
        journal
            .connection
            .execute_batch(
                // Checkpoints wait for the disk: here and when the last connection closes, never in a run.
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;
                 PRAGMA wal_checkpoint(PASSIVE);",
            )
            .and_then(|()| journal.connection.execute_batch(SCHEMA))
            .map_err(|e| journal.wrap(e))?;
        journal
            .connection
            .execute("INSERT OR IGNORE INTO meta VALUES ('format', ?1)", params![FORMAT.to_string()])
            .map_err(|e| journal.wrap(e))?;
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))
            .map_err(|e| io("set the mode of", path)(e.into()))?;
        Ok(journal)
    }

    /// Opens the journal for reading; `None` if there is none yet.
    pub fn open_read(path: &Path) -> Result<Option<Self>, EngineError> {
        refuse_lost(path)?;
        if std::fs::metadata(path).map_or(0, |m| m.len()) == 0 {
            return Ok(None);
        }
        let head_file = HeadFile::open_read(path)?;
        let before = head_file.read().ok();
        let (connection, copied) = reading::open(path).map_err(|e| sqlite(path, e))?;
        let copied_at = before.filter(|_| copied);
        let journal = Self { connection, path: path.to_owned(), head_file, copied_at };
        journal.connection.busy_timeout(Duration::from_secs(10)).map_err(|e| journal.wrap(e))?;
        journal.check_version()?;
        Ok(Some(journal))
    }

    /// Copies it, as it is now, to where there is no file yet.
    pub fn copy_to(&self, path: &Path) -> Result<(), EngineError> {
        let name = path.to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", params![name]).map_err(|e| self.wrap(e))?;
        let copy = Connection::open(path).map_err(|e| sqlite(path, e))?;
        let last = copy
            .query_row("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1", [], |r| {
                Ok((r.get(0)?, r.get::<_, String>(1)?))
            })
            .optional()
            .map_err(|e| sqlite(path, e))?;
        let (seq, chain) = last.unwrap_or((0, GENESIS.to_owned()));
        HeadFile::of_copy(path, seq, &chain)
    }

    fn check_version(&self) -> Result<(), EngineError> {
        let has_meta: bool = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |r| r.get::<_, i64>(0))
            .map_err(|e| self.wrap(e))?
            > 0;
        if !has_meta {
            return Ok(());
        }
        let format: Option<String> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'format'", [], |r| r.get(0))
            .optional()
            .map_err(|e| self.wrap(e))?;
        if let Some(format) = format {
            let found = format.parse::<u32>().map_err(|_| self.damaged("its format is not a number"))?;
            if found > FORMAT {
                return Err(EngineError::NewerFormat { path: self.path.clone(), found, known: FORMAT });
            }
        }
        Ok(())
    }

    fn wrap(&self, error: rusqlite::Error) -> EngineError {
        sqlite(&self.path, error)
    }

    fn damaged(&self, detail: impl Into<String>) -> EngineError {
        EngineError::Damaged { what: self.path.clone(), detail: detail.into() }
    }

    /// The last position and chain value, confirmed against the last event.
    fn head(&self) -> Result<(i64, String), EngineError> {
        let stored: Option<String> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'head'", [], |r| r.get(0))
            .optional()
            .map_err(|e| self.wrap(e))?;
        let last: Option<(i64, String)> = self
            .connection
            .query_row("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()
            .map_err(|e| self.wrap(e))?;
        match (stored, last) {
            (None, None) => Ok((0, GENESIS.to_owned())),
            (Some(stored), Some((seq, chain))) if stored == format!("{seq}:{chain}") => Ok((seq, chain)),
            _ => Err(self.damaged("its last event is not the one it says it is")),
        }
    }

    /// Confirms that the event which the head file remembers is there.
    fn confirm(&self, (seq, remembered): &(i64, String)) -> Result<(), EngineError> {
        if *seq == 0 {
            return Ok(());
        }
        let chain: Option<String> = self
            .connection
            .query_row("SELECT chain FROM events WHERE seq = ?1", params![seq], |r| r.get(0))
            .optional()
            .map_err(|e| self.wrap(e))?;
        if chain.as_ref() == Some(remembered) {
            return Ok(());
        }
        Err(self
            .damaged(format!("event {seq} was recorded and is not there: the end of the journal is lost")))
    }

    /// Appends an event; when this returns, it is durable.
    pub fn append(&mut self, run: &RunId, at_ms: i64, event: &Event) -> Result<Record, EngineError> {
        let mut records = self.append_all(run, &[(at_ms, event)])?;
        records.pop().ok_or_else(|| EngineError::Internal { detail: "an event without a record".to_owned() })
    }

    /// Appends several events in one transaction: all of them are durable when this returns, or none is recorded.
    pub fn append_all(&mut self, run: &RunId, events: &[(i64, &Event)]) -> Result<Vec<Record>, EngineError> {
        let events: Vec<_> = events.iter().map(|(at_ms, event)| (run, *at_ms, *event)).collect();
        self.append_of_runs(&events)
    }

    /// The same, for events that belong to several runs.
    pub fn append_of_runs(&mut self, events: &[(&RunId, i64, &Event)]) -> Result<Vec<Record>, EngineError> {
        let turn = self.head_file.turn()?;
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| sqlite(&self.path, e))?;
        let append = || {
            let mut records = Vec::new();
            self.confirm(&turn.read()?)?;
            let mut head = self.head()?;
            for (run, at_ms, event) in events {
                let json = serde_json::to_string(event)
                    .map_err(|e| EngineError::Internal { detail: format!("cannot write an event: {e}") })?;
                head = self.append_locked(&head, run, *at_ms, event, &json)?;
                records.push(Record {
                    run: (*run).clone(),
                    seq: head.0.unsigned_abs(),
                    at_ms: *at_ms,
                    event: (*event).clone(),
                });
            }
            self.connection.execute_batch("COMMIT").map_err(|e| sqlite(&self.path, e))?;
            turn.write(head.0, &head.1)?;
            Ok(records)
        };
        append().inspect_err(|_| {
            let _ = self.connection.execute_batch("ROLLBACK");
        })
    }

    fn append_locked(
        &self,
        (last, previous): &(i64, String),
        run: &RunId,
        at_ms: i64,
        event: &Event,
        json: &str,
    ) -> Result<(i64, String), EngineError> {
        let seq = last + 1;
        let chain = chain(previous, seq, run.as_str(), at_ms, json);
        let kind = kind_of(event);
        self.connection
            .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut s| s.execute(params![seq, run.as_str(), at_ms, kind, json, chain]))
            .map_err(|e| self.wrap(e))?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('head', ?1)")
            .and_then(|mut s| s.execute(params![format!("{seq}:{chain}")]))
            .map_err(|e| self.wrap(e))?;
        Ok((seq, chain))
    }

    /// Reads in one transaction: what is compared must be of one moment, whoever appends meanwhile.
    fn at_one_moment<T>(&self, read: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        if !self.connection.is_autocommit() {
            return read();
        }
        // Remembered before the moment of reading, so what is remembered must be there.
        let remembered = self.copied_at.clone().map_or_else(|| self.head_file.read(), Ok)?;
        self.connection.execute_batch("BEGIN").map_err(|e| self.wrap(e))?;
        let result = self.confirm(&remembered).and_then(|()| read());
        // Nothing was written: ending the transaction can only release the read lock.
        let _ = self.connection.execute_batch("COMMIT");
        result
    }

    fn read(&self, filter: &str, value: &str) -> Result<Vec<Record>, EngineError> {
        self.at_one_moment(|| self.read_now(filter, value))
    }

    fn read_now(&self, filter: &str, value: &str) -> Result<Vec<Record>, EngineError> {
        let (head, _) = self.head()?;
        let sql = format!(
            "SELECT e.seq, e.run, e.at_ms, e.kind, e.json, e.chain, p.chain FROM events e
             LEFT JOIN events p ON p.seq = e.seq - 1 WHERE {filter} ORDER BY e.seq"
        );
        let mut statement = self.connection.prepare(&sql).map_err(|e| self.wrap(e))?;
        let mut rows = statement.query(params![value]).map_err(|e| self.wrap(e))?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().map_err(|e| self.wrap(e))? {
            let get = |e| self.wrap(e);
            let seq: i64 = row.get(0).map_err(get)?;
            let run: String = row.get(1).map_err(get)?;
            let at_ms: i64 = row.get(2).map_err(get)?;
            let kind: String = row.get(3).map_err(get)?;
            let json: String = row.get(4).map_err(get)?;
            let stored: String = row.get(5).map_err(get)?;
            let previous: Option<String> = row.get(6).map_err(get)?;
            let previous = match previous {
                Some(p) => p,
                None if seq == 1 => GENESIS.to_owned(),
                None => return Err(self.damaged(format!("event {} is missing", seq - 1))),
            };
            if seq > head || chain(&previous, seq, &run, at_ms, &json) != stored {
                return Err(self.damaged(format!("event {seq} is not as it was written")));
            }
            let event: Event = serde_json::from_str(&json)
                .map_err(|e| self.damaged(format!("event {seq} cannot be read: {e}")))?;
            if kind_of(&event) != kind {
                return Err(self.damaged(format!("event {seq} is indexed as {kind:?}")));
            }
            records.push(Record { run: run.into(), seq: seq.unsigned_abs(), at_ms, event });
        }
        Ok(records)
    }

    /// All events of a run.
    pub fn run(&self, run: &RunId) -> Result<Vec<Record>, EngineError> {
        self.read("e.run = ?1", run.as_str())
    }

    /// All events of one kind (`planned`, `ended`, `trial_began` ...), in order.
    pub fn of_kind(&self, kind: &str) -> Result<Vec<Record>, EngineError> {
        self.read("e.kind = ?1", kind)
    }

    /// Every event; reading confirms the whole chain.
    pub fn all(&self) -> Result<Vec<Record>, EngineError> {
        let (records, head) = self.at_one_moment(|| Ok((self.read_now("?1 = ''", "")?, self.head()?.0)))?;
        if records.len() as i64 != head {
            return Err(self.damaged(format!("{head} events are claimed and {} are there", records.len())));
        }
        Ok(records)
    }

    /// The number and chain value of the last event: who keeps it elsewhere can tell later whether the past was rewritten.
    pub fn tip(&self) -> Result<(i64, String), EngineError> {
        self.at_one_moment(|| self.head())
    }

    /// The number of the event with this chain value, or one that begins so; `None` if there is none.
    pub fn find_chain(&self, value: &str) -> Result<Option<i64>, EngineError> {
        let found = self.connection.query_row(
            "SELECT seq FROM events WHERE substr(chain, 1, length(?1)) = ?1 ORDER BY seq LIMIT 1",
            params![value],
            |r| r.get(0),
        );
        found.optional().map_err(|e| self.wrap(e))
    }

    /// The plan and state of a run.
    pub fn load(&self, run: &RunId) -> Result<(Plan, RunState, Vec<Record>), EngineError> {
        let records = self.run(run)?;
        let Some(Event::Planned { plan }) = records.first().map(|r| &r.event) else {
            return Err(if records.is_empty() {
                EngineError::UnknownRun { run: run.clone() }
            } else {
                self.damaged(format!("run {run} does not begin with a plan"))
            });
        };
        let plan = (**plan).clone();
        if plan.format > FORMAT {
            return Err(EngineError::NewerFormat {
                path: self.path.clone(),
                found: plan.format,
                known: FORMAT,
            });
        }
        let state = RunState::fold(&plan, records.iter().map(|r| &r.event));
        Ok((plan, state, records))
    }

    /// The runs, newest first, at most `limit`.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunId>, EngineError> {
        let mut statement = self
            .connection
            .prepare("SELECT run FROM events WHERE kind = 'planned' ORDER BY seq DESC LIMIT ?1")
            .map_err(|e| self.wrap(e))?;
        let rows = statement
            .query_map(params![limit as i64], |r| r.get::<_, String>(0))
            .map_err(|e| self.wrap(e))?;
        rows.map(|r| r.map(RunId).map_err(|e| self.wrap(e))).collect()
    }

    /// Runs that have begun and not ended, oldest first.
    pub fn unfinished(&self) -> Result<Vec<RunId>, EngineError> {
        self.at_one_moment(|| self.head())?;
        let mut statement = self
            .connection
            .prepare(
                "SELECT run FROM events p WHERE kind = 'planned'
                 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.run = p.run AND e.kind = 'ended') ORDER BY seq",
            )
            .map_err(|e| self.wrap(e))?;
        let rows = statement.query_map([], |r| r.get::<_, String>(0)).map_err(|e| self.wrap(e))?;
        rows.map(|r| r.map(RunId).map_err(|e| self.wrap(e))).collect()
    }
}

/// An empty or missing journal beside a stack that has generations is damage, not a fresh start.
fn refuse_lost(path: &Path) -> Result<(), EngineError> {
    let empty = std::fs::metadata(path).map_or(0, |m| m.len()) == 0;
    if empty && path.with_file_name("current.json").exists() {
        return Err(EngineError::Damaged {
            what: path.to_owned(),
            detail: "it is empty or missing, yet production has a current generation".to_owned(),
        });
    }
    Ok(())
}

fn chain(previous: &str, seq: i64, run: &str, at_ms: i64, json: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [previous, &seq.to_string(), run, &at_ms.to_string(), json] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Planned { .. } => "planned",
        Event::Started { .. } => "started",
        Event::Finished { .. } => "finished",
        Event::Failed { .. } => "failed",
        Event::Skipped { .. } => "skipped",
        Event::UndoStarted { .. } => "undo_started",
        Event::Undone { .. } => "undone",
        Event::UndoFailed { .. } => "undo_failed",
        Event::Interrupted { .. } => "interrupted",
        Event::Resumed { .. } => "resumed",
        Event::AbortRequested { .. } => "abort_requested",
        Event::Ended { .. } => "ended",
        Event::TrialBegan { .. } => "trial_began",
        Event::TrialProbe { .. } => "trial_probe",
        Event::TriggerChanged { .. } => "trigger_changed",
        Event::TrialConfirmed { .. } => "trial_confirmed",
        Event::TrialFailed { .. } => "trial_failed",
        Event::TrialCancelled { .. } => "trial_cancelled",
    }
}

fn sqlite(path: &Path, error: rusqlite::Error) -> EngineError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            EngineError::Damaged { what: path.to_owned(), detail: error.to_string() }
        }
        _ => EngineError::Journal { path: path.to_owned(), source: error },
    }
}

#[cfg(test)]
mod tests;
