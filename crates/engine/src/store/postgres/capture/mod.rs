//! Capturing which rows are written to, from the server's own log of writes.
//!
//! Owns replication slots whose names begin with `switchback_`. Nothing is made in the users' databases: no table, trigger or
//! publication, and no table is changed for it. It must never take what was captured for complete unless the server's log was
//! read to its end without a gap, and the tables are what they were in the beginning.

mod decode;

pub use decode::{Batch, Keyed, Name, Touched};

use decode::TOO_MANY;

use super::names::literal;
use super::scope::{Keys, Scope};
use super::{PgError, Psql, Result, session};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The first major version that is read.
const SINCE: u32 = 14;
/// What is known of rows is handed over when it takes this much memory.
const BATCH: usize = 1 << 20;
/// What the server keeps beyond what was read, in bytes, before it is told to let go although nothing was written.
const IDLE: u64 = 16 << 20;

/// What names of slots begin with.
pub const PREFIX: &str = "switchback_";

const MARKS: &str = include_str!("begin.sql");

/// A database when capturing began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The slot.
    pub slot: String,
    /// Where in the server's log it begins.
    pub at: u64,
    /// The tables.
    pub tables: Vec<Mark>,
    /// What types were like.
    pub types: BTreeSet<String>,
}

/// A table when capturing began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Differs if anything but its rows was changed.
    pub stamp: String,
    /// Whether its rows are in the server's log.
    pub logged: bool,
    /// The columns that its rows can be looked up by; none if they cannot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

impl Marks {
    /// The keys of tables that have one.
    pub fn keyed(&self) -> Keyed {
        let with_key = self.tables.iter().filter(|t| !t.key.is_empty());
        with_key.map(|t| ((t.schema.clone(), t.table.clone()), t.key.clone())).collect()
    }
}

/// Tables and types as they are.
#[derive(Default)]
struct Seen {
    tables: BTreeMap<Name, Mark>,
    types: BTreeSet<String>,
}

fn seen(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool) -> Result<Seen> {
    let mut seen = Seen::default();
    session::each_line(psql, database, &session::reading(MARKS), cancel, |line| {
        match line.tag() {
            "x" => {
                let (schema, table) = (line.owned(1)?, line.owned(2)?);
                let mark = Mark {
                    schema: schema.clone(),
                    table: table.clone(),
                    stamp: line.owned(3)?,
                    logged: line.flag(4)?,
                    key: Vec::new(),
                };
                seen.tables.insert((schema, table), mark);
            }
            "k" => {
                if let Some(mark) = seen.tables.get_mut(&(line.owned(1)?, line.owned(2)?)) {
                    mark.key.push(line.owned(3)?);
                }
            }
            _ => _ = seen.types.insert(line.owned(1)?),
        }
        Ok(())
    })?;
    Ok(seen)
}

/// Begins to capture, on a server that nobody else uses. `None` with why, if it cannot.
pub fn begin(
    psql: &dyn Psql,
    database: &str,
    label: &str,
    cancel: &dyn Fn() -> bool,
) -> Result<std::result::Result<Marks, String>> {
    let asked = session::reading(
        "COPY (SELECT 'v', current_setting('server_version_num')::int / 10000, current_setting('wal_level'), \
         (SELECT oid FROM pg_database WHERE datname = current_database())) TO STDOUT;",
    );
    let lines = session::lines(psql, database, &asked, cancel)?;
    let facts = lines.first().ok_or_else(|| PgError::protocol(database, "no version"))?;
    let (major, level): (u32, String) = (facts.number(1)?, facts.owned(2)?);
    if major < SINCE {
        return Ok(Err(format!("it needs Postgres {SINCE}, the server is {major}")));
    }
    if level != "logical" {
        return Ok(Err(format!("the server has wal_level = {level}")));
    }
    let slot = format!("{PREFIX}{label}_{}", facts.text(3)?);
    let create = session::writing(&format!(
        "COPY (SELECT 'd', pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE starts_with(slot_name, {}) AND database = current_database()) TO STDOUT;\n\
         COPY (SELECT 's', (lsn - '0/0'::pg_lsn)::text FROM pg_create_logical_replication_slot({}, 'test_decoding')) TO STDOUT;",
        literal(PREFIX),
        literal(&slot)
    ));
    let made = match session::lines(psql, database, &create, cancel) {
        Ok(lines) => lines,
        // No such plugin, no free slot, no right to.
        Err(PgError::Server { sqlstate, message, .. })
            if matches!(sqlstate.as_str(), "58P01" | "53400" | "55000" | "42501") =>
        {
            return Ok(Err(message));
        }
        Err(e) => return Err(e),
    };
    let at = made.iter().find(|l| l.tag() == "s").ok_or_else(|| PgError::protocol(database, "no slot"))?;
    let seen = seen(psql, database, cancel)?;
    Ok(Ok(Marks { slot, at: at.number(1)?, tables: seen.tables.into_values().collect(), types: seen.types }))
}

/// How far a look went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Where in the server's log it began.
    pub from: u64,
    /// The end of the last transaction that was seen whole; none if there was none.
    pub to: Option<u64>,
    /// Where the server's log ended when the look began.
    pub end: u64,
    /// Bytes of its log that the server keeps.
    pub kept: u64,
}

/// Reads what was written since the slot's place, at most about so many changes, and hands it over in parts. The slot stays where
/// it is. `Err` of the inner result: nothing can be read any more, and why.
pub fn look(
    psql: &dyn Psql,
    database: &str,
    marks: &Marks,
    most: Option<u32>,
    each: &mut dyn FnMut(Batch) -> Result<()>,
    cancel: &dyn Fn() -> bool,
) -> Result<std::result::Result<Looked, String>> {
    let slot = literal(&marks.slot);
    let state = format!(
        "COPY (SELECT 'h', coalesce(wal_status, 'lost'), plugin = 'test_decoding' AND database = current_database(), \
         (confirmed_flush_lsn - '0/0'::pg_lsn)::text, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text, \
         greatest(pg_current_wal_flush_lsn() - restart_lsn, 0)::text \
         FROM pg_replication_slots WHERE slot_name = {slot}) TO STDOUT;\n"
    );
    let (keyed, mut batch) = (marks.keyed(), Batch::default());
    let mut looked = Looked::default();
    let most = most.map_or("NULL".to_owned(), |n| n.to_string());
    let read = session::reading(&format!(
        "{state}COPY (SELECT 'c', (lsn - '0/0'::pg_lsn)::text, left(data, {}) FROM pg_logical_slot_peek_changes({slot}, NULL, {most}, \
         'include-xids', '0', 'skip-empty-xacts', '0')) TO STDOUT;",
        decode::LONGEST
    ));
    let read = session::each_line(psql, database, &read, cancel, |line| {
        if line.tag() == "h" {
            let kept = line.number(5).unwrap_or(0);
            looked = Looked { from: line.number(3)?, to: None, end: line.number(4)?, kept };
            return Ok(());
        }
        let text = line.text(2)?;
        if batch.take(text, &keyed) {
            looked.to = Some(line.number(1)?);
        } else if text.contains('\u{fffd}') {
            // What is not UTF-8 cannot be looked up.
            batch.everything = Some("names or keys are not UTF-8".to_owned());
        }
        if batch.bytes >= BATCH {
            each(std::mem::take(&mut batch))?;
        }
        Ok(())
    });
    if let Err(error @ PgError::Server { .. }) = read {
        // Whether it will never be otherwise.
        let lines = session::lines(psql, database, &session::reading(&state), cancel)?;
        let why = match lines.first() {
            None => "the server's slot is gone",
            Some(line) if line.text(1)? == "lost" => {
                "the server gave up what it kept: it was more than its limit"
            }
            Some(line) if !line.flag(2)? => "the server's slot is not ours",
            Some(_) => return Err(error),
        };
        return Ok(Err(why.to_owned()));
    }
    read?;
    each(batch)?;
    Ok(Ok(looked))
}

/// Lets the server forget its log up to the end of a transaction that was seen, once what was seen is safe.
pub fn advance(
    psql: &dyn Psql,
    database: &str,
    marks: &Marks,
    to: u64,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    let sql = format!(
        "COPY (SELECT 'a', end_lsn FROM pg_replication_slot_advance({}, '0/0'::pg_lsn + {to}::numeric)) TO STDOUT;",
        literal(&marks.slot)
    );
    session::lines(psql, database, &session::writing(&sql), cancel).map(drop)
}

/// Where nothing was written for long, but something else fills the log: writes an empty message, at whose end the next look can
/// let go of what is before it.
pub fn nudge(psql: &dyn Psql, database: &str, looked: &Looked, cancel: &dyn Fn() -> bool) -> Result<bool> {
    if looked.to.is_some() || looked.kept < IDLE {
        return Ok(false);
    }
    let sql = "COPY (SELECT 'm', pg_logical_emit_message(true, 'switchback', '')) TO STDOUT;";
    session::lines(psql, database, &session::writing(sql), cancel)?;
    Ok(true)
}

/// What is known when the log was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Tables that were changed otherwise than by writing rows; why they are compared as a whole.
    pub whole: BTreeMap<Name, String>,
    /// Why that holds for all of them.
    pub everything: Option<String>,
}

/// Compares tables and types with what they were like.
pub fn compare(
    psql: &dyn Psql,
    database: &str,
    marks: &Marks,
    cancel: &dyn Fn() -> bool,
) -> Result<Finished> {
    let now = seen(psql, database, cancel)?;
    let mut whole = BTreeMap::new();
    for mark in &marks.tables {
        let name = (mark.schema.clone(), mark.table.clone());
        // One that is gone is told by the comparison itself.
        if now.tables.get(&name).is_some_and(|m| m.stamp != mark.stamp) {
            whole.insert(name, "its definition was changed".to_owned());
        }
    }
    // A type that is new changes no value that was there.
    let everything =
        (!marks.types.is_subset(&now.types)).then(|| "the definition of a type was changed".to_owned());
    Ok(Finished { whole, everything })
}

/// Everything that was captured of one database.
#[derive(Debug, Default)]
pub struct Known {
    tables: BTreeMap<Name, Touched>,
    everything: Option<String>,
}

/// Rows of one table that are looked up one by one.
const MOST_ROWS: usize = 500_000;

impl Known {
    /// Adds some more.
    pub fn add(&mut self, batch: Batch) {
        if batch.everything.is_some() {
            self.everything = batch.everything;
        }
        for (name, touched) in batch.tables {
            match (self.tables.get_mut(&name), touched) {
                (Some(Touched::Rows(known)), Touched::Rows(rows)) => {
                    known.extend(rows);
                    if known.len() > MOST_ROWS {
                        self.tables.insert(name, Touched::Whole(TOO_MANY.to_owned()));
                    }
                }
                (Some(Touched::Whole(_)), _) => {}
                (_, touched) => _ = self.tables.insert(name, touched),
            }
        }
    }

    /// Which rows of which tables are looked at, and which tables are compared as a whole, and why.
    pub fn scope(mut self, marks: &Marks, finished: Finished) -> (Scope, BTreeMap<Name, String>) {
        let mut scope = Scope::new();
        let mut whole = finished.whole;
        let everything = self.everything.or(finished.everything);
        for mark in marks.tables.iter().filter(|m| m.logged) {
            let name = (mark.schema.clone(), mark.table.clone());
            if whole.contains_key(&name) {
                continue;
            }
            if let Some(why) = &everything {
                whole.insert(name, why.clone());
                continue;
            }
            match self.tables.remove(&name) {
                Some(Touched::Whole(why)) => _ = whole.insert(name, why),
                Some(Touched::Rows(rows)) => {
                    let rows = rows.into_iter().collect();
                    scope.insert(name, Keys { columns: mark.key.clone(), rows });
                }
                None => _ = scope.insert(name, Keys { columns: mark.key.clone(), rows: Vec::new() }),
            }
        }
        (scope, whole)
    }
}

/// The number of the next transaction: the same as long as nothing was written.
pub fn next_transaction(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool) -> Result<String> {
    let sql = session::reading("COPY (SELECT 'n', pg_snapshot_xmax(pg_current_snapshot())::text) TO STDOUT;");
    let lines = session::lines(psql, database, &sql, cancel)?;
    lines.first().ok_or_else(|| PgError::protocol(database, "no transaction"))?.owned(1)
}

/// Drops the slots of a server that are ours. How many there were.
pub fn drop_slots(psql: &dyn Psql, cancel: &dyn Fn() -> bool) -> Result<usize> {
    let own = literal(PREFIX);
    let list = session::reading(&format!(
        "COPY (SELECT DISTINCT 'd', database FROM pg_replication_slots WHERE starts_with(slot_name, {own}) \
         AND slot_type = 'logical') TO STDOUT;"
    ));
    let mut dropped = 0;
    for line in session::cluster_lines(psql, &list, cancel)? {
        let sql = session::writing(&format!(
            "COPY (SELECT 'x', pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE starts_with(slot_name, {own}) AND database = current_database()) TO STDOUT;"
        ));
        dropped += session::lines(psql, line.text(1)?, &sql, cancel)?.len();
    }
    Ok(dropped)
}
