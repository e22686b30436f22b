//! Merging rows of two servers, table by table, in constant memory.
//!
//! Owns the two threads that read and the queues between. It must never hold more than a few batches
//! (and the longest row), and must never take a stream that broke off for one that ended.

use super::super::progress::{Meter, Progress};
use super::compare::{Key, Pair, Side};
use super::lines::{Cutter, split};
use super::schema::Column;
use super::scope::Rows;
use super::session::{END, reading};
use super::{PgError, Psql, Result, value};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use switchback_core::data::{RowChange, RowOp};

/// Bytes collected before they are handed over: large enough that the queue costs nothing.
const BATCH_BYTES: usize = 256 * 1024;

/// Batches waiting per side.
const BATCHES: usize = 4;

/// A table to be read on both sides, and how much of it.
pub(super) struct Task<'a> {
    pub pair: Pair<'a>,
    /// Which of its rows.
    pub rows: Rows,
    /// Sides that have the table.
    pub sides: Sides,
}

/// Which sides have a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    Both,
    AfterOnly,
}

/// Fields of a row, still escaped.
pub(super) struct Row<'a> {
    fields: Vec<&'a [u8]>,
    keys: usize,
    columns: &'a [&'a Column],
}

impl<'a> Row<'a> {
    fn new(line: &'a [u8], keys: usize, columns: &'a [&'a Column]) -> Self {
        Self { fields: split(line).collect(), keys, columns }
    }

    fn key(&self, i: usize) -> &'a [u8] {
        self.fields.get(2 + i).copied().unwrap_or(b"")
    }

    /// A column by its position among those that were read.
    pub(super) fn get(&self, i: usize) -> (&'a Column, &'a [u8]) {
        (self.columns[i], self.fields.get(2 + self.keys + i).copied().unwrap_or(b"\\N"))
    }

    fn json(&self) -> Map<String, Value> {
        (0..self.columns.len())
            .map(|i| {
                let (column, raw) = self.get(i);
                (column.name.clone(), value::json(column, raw))
            })
            .collect()
    }
}

/// Two rows that belong together, or one alone.
pub(super) struct Matched<'a> {
    pub before: Option<Row<'a>>,
    pub after: Option<Row<'a>>,
    /// Whether all common columns are the same, byte by byte; false if one side is missing.
    pub same: bool,
}

impl Matched<'_> {
    /// Whether all columns that only the new state has hold their default.
    pub(super) fn untouched(&self) -> bool {
        self.after.as_ref().is_some_and(|r| r.fields.get(1) == Some(&&b"t"[..]))
    }

    /// The difference as a value. `None` where both sides are missing.
    pub(super) fn change(&self, pair: &Pair<'_>) -> Option<RowChange> {
        let (op, row) = match (&self.before, &self.after) {
            (Some(_), Some(after)) => (RowOp::Update, after),
            (None, Some(after)) => (RowOp::Insert, after),
            (Some(before), None) => (RowOp::Delete, before),
            (None, None) => return None,
        };
        let all = row.json();
        let pick = |names: &mut dyn Iterator<Item = &String>| {
            names.filter_map(|n| Some((n.clone(), all.get(n)?.clone()))).collect()
        };
        let key = match &pair.key {
            Key::Primary(columns) => pick(&mut columns.iter().map(|(n, _)| n)),
            Key::Values => pick(&mut pair.common.iter()),
        };
        Some(RowChange {
            op,
            key,
            row: self.after.as_ref().map(Row::json),
            before: self.before.as_ref().map(Row::json),
        })
    }
}

/// Lines of one side.
struct Stream {
    batches: Receiver<Vec<u8>>,
    batch: Vec<u8>,
    from: usize,
    to: usize,
    bytes: u64,
}

impl Stream {
    fn new(batches: Receiver<Vec<u8>>) -> Self {
        Self { batches, batch: Vec::new(), from: 0, to: 0, bytes: 0 }
    }

    /// Goes to the next line. False if the other end is gone.
    fn advance(&mut self) -> bool {
        let next = if self.batch.is_empty() { 0 } else { self.to + 1 };
        if next >= self.batch.len() {
            let Ok(batch) = self.batches.recv() else { return false };
            self.batch = batch;
            self.from = 0;
        } else {
            self.from = next;
        }
        let rest = &self.batch[self.from..];
        self.to = self.from + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        self.bytes += (self.to - self.from) as u64;
        true
    }

    fn line(&self) -> &[u8] {
        &self.batch[self.from..self.to]
    }

    fn at_row(&self) -> bool {
        self.line().starts_with(b"r\t")
    }
}

fn script(tasks: &[Task<'_>], side: Side) -> String {
    let mut body = String::new();
    for (i, task) in tasks.iter().enumerate() {
        body.push_str(&format!("COPY (SELECT 'table', {i}) TO STDOUT;\n"));
        if task.sides == Sides::Both || side == Side::After {
            body.push_str(&task.pair.query(side, &task.rows));
        }
    }
    reading(&body)
}

fn produce(
    psql: &dyn Psql,
    database: &str,
    sql: &str,
    cancel: &dyn Fn() -> bool,
    send: &SyncSender<Vec<u8>>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH_BYTES + 4096);
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut out = Cutter::new(|line: &[u8]| {
        batch.extend_from_slice(line);
        batch.push(b'\n');
        if batch.len() >= BATCH_BYTES || line == END {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_BYTES + 4096));
            send.send(full).map_err(|_| gone())?;
        }
        Ok(())
    });
    psql.script(database, sql, &mut out, cancel)
}

/// Reads all tasks on both servers at the same time and calls `each` for every row or pair of rows.
pub(super) fn merge(
    before: &dyn Psql,
    after: &dyn Psql,
    database: &str,
    tasks: &[Task<'_>],
    progress: &Progress<'_>,
    meter: &mut Meter<'_>,
    mut each: impl FnMut(usize, &Matched<'_>) -> Result<()>,
) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let scripts = (script(tasks, Side::Before), script(tasks, Side::After));
    let (send_old, old) = sync_channel(BATCHES);
    let (send_new, new) = sync_channel(BATCHES);
    let cancel = || (progress.cancel)();
    std::thread::scope(|scope| {
        let (sql_old, sql_new) = (&scripts.0, &scripts.1);
        let reader_old = scope.spawn(move || produce(before, database, sql_old, &cancel, &send_old));
        let reader_new = scope.spawn(move || produce(after, database, sql_new, &cancel, &send_new));
        let mut streams = (Stream::new(old), Stream::new(new));
        let merged = all(database, tasks, &mut streams, meter, &mut each);
        // Readers that still send find the queue closed and stop.
        drop(streams);
        let mut results = Vec::new();
        for reader in [reader_old, reader_new] {
            results.push(
                reader.join().unwrap_or_else(|_| Err(PgError::protocol(database, "its reader failed"))),
            );
        }
        match merged {
            Ok(true) => results.into_iter().collect(),
            // A stream broke off: the reader's own error is the reason, unless it only lost its peer.
            Ok(false) => {
                let mut errors: Vec<PgError> = results.into_iter().filter_map(Result::err).collect();
                errors.sort_by_key(|e| matches!(e, PgError::Output(_)));
                Err(errors
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| PgError::protocol(database, "it ended early")))
            }
            Err(error) => Err(error),
        }
    })
}

/// Returns false if a stream broke off.
fn all(
    database: &str,
    tasks: &[Task<'_>],
    (old, new): &mut (Stream, Stream),
    meter: &mut Meter<'_>,
    each: &mut impl FnMut(usize, &Matched<'_>) -> Result<()>,
) -> Result<bool> {
    if !old.advance() || !new.advance() {
        return Ok(false);
    }
    for (number, task) in tasks.iter().enumerate() {
        let mark = format!("table\t{number}");
        for stream in [&mut *old, &mut *new] {
            if stream.line() != mark.as_bytes() {
                return Err(PgError::protocol(database, format!("no rows of {}", task.pair.name)));
            }
            if !stream.advance() {
                return Ok(false);
            }
        }
        let integers = task.pair.integers();
        let columns = (task.pair.read_columns(Side::Before), task.pair.read_columns(Side::After));
        while old.at_row() || new.at_row() {
            let row = |stream: &'_ Stream| stream.at_row();
            let (has_old, has_new) = (row(old), row(new));
            let side = {
                let a = has_old.then(|| Row::new(old.line(), integers.len(), &columns.0));
                let b = has_new.then(|| Row::new(new.line(), integers.len(), &columns.1));
                let side = match (&a, &b) {
                    (Some(a), Some(b)) => order(database, &integers, a, b)?,
                    (Some(_), None) => Ordering::Less,
                    _ => Ordering::Greater,
                };
                let common = task.pair.common.len();
                let matched = Matched {
                    same: side.is_eq()
                        && a.as_ref()
                            .zip(b.as_ref())
                            .is_some_and(|(a, b)| (0..common).all(|i| a.get(i).1 == b.get(i).1)),
                    before: a.filter(|_| side.is_le()),
                    after: b.filter(|_| side.is_ge()),
                };
                each(number, &matched)?;
                side
            };
            if (side.is_le() && !old.advance()) || (side.is_ge() && !new.advance()) {
                return Ok(false);
            }
            if old.bytes + new.bytes >= BATCH_BYTES as u64 {
                meter.add(std::mem::take(&mut old.bytes) + std::mem::take(&mut new.bytes))?;
            }
        }
    }
    if old.line() != END || new.line() != END {
        return Err(PgError::protocol(database, "more than was asked for"));
    }
    Ok(true)
}

fn order(database: &str, integers: &[bool], a: &Row<'_>, b: &Row<'_>) -> Result<Ordering> {
    for (i, integer) in integers.iter().enumerate() {
        let (a, b) = (a.key(i), b.key(i));
        if a == b {
            continue;
        }
        return if *integer {
            let number = |raw: &[u8]| {
                std::str::from_utf8(raw)
                    .ok()
                    .and_then(|t| t.parse::<i64>().ok())
                    .ok_or_else(|| PgError::protocol(database, "a key is not the integer it should be"))
            };
            Ok(number(a)?.cmp(&number(b)?))
        } else {
            // Sorted as unescaped bytes, so compared as such. Keys are never NULL.
            Ok(super::lines::field(a).cmp(&super::lines::field(b)))
        };
    }
    Ok(Ordering::Equal)
}
