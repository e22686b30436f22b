//! Carrying later writes into another state of a database, row by row.
//!
//! Owns the order (rows whose parents come later are tried again, deletes come last), that no trigger runs (what it wrote is
//! among the writes itself), and that nothing but scratch is written. All of it is one transaction.

use super::super::progress::{Meter, Progress};
use super::super::{Result, Source, StoreError};
use super::carry_row::{Applied, Row, Table, apply};
use super::compare::{Key, Matched, Pair};
use super::diff::States;
use super::export::{defaults, untouched};
use super::mask::{Virtual, close, rebuild_search, virtual_tables};
use super::open::Db;
use super::orphans::Orphans;
use super::schema::Schema;
use super::{size_bytes, sql_error, value};
use rusqlite::config::DbConfig;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;
use switchback_core::carry::{Care, NO_TABLE, ORPHAN, Outcome, Rules};
use switchback_core::data::RowOp;

/// Where SQLite keeps the counters of AUTOINCREMENT.
const SEQUENCES: &str = "sqlite_sequence";

/// Carries what differs between two states into a third, which is scratch and which nobody has open.
pub(in super::super) fn carry_writes(
    before: Source<'_>,
    after: Source<'_>,
    target: &Path,
    rules: &Rules,
    progress: &Progress<'_>,
) -> Result<Outcome> {
    let began = Instant::now();
    let states = States::open(before, after)?;
    let db = Db::writer(target)?;
    let schema = Schema::read(&db)?;
    let size = size_bytes(before.path)? + size_bytes(after.path)?;
    let mut meter = Meter::new(progress, size * 2);
    let mut outcome = Outcome::default();
    let err = |e| sql_error("carry writes into", &db.path, e);
    db.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(err)?;
    // An application that does not keep its foreign keys itself must not be held to them now.
    let keeps = Orphans::read(&states.new, &states.after)?.none();
    let mode = if keeps { "ON" } else { "OFF" };
    db.conn.execute_batch(&format!("PRAGMA foreign_keys={mode}; BEGIN IMMEDIATE")).map_err(err)?;
    let shadows = shadows(&states.new)?;
    let mut tables: Vec<Table> = Vec::new();
    let mut later: Vec<(usize, Row)> = Vec::new();
    for name in states.tables() {
        if name == SEQUENCES || (shadows.contains(name) && !name.ends_with("_content")) {
            continue;
        }
        carry_table(&states, &db, &schema, name, rules, &mut meter, &mut tables, &mut later, &mut outcome)?;
    }
    settle(&db, &tables, later, &mut outcome)?;
    sequences(&states, &db, &schema)?;
    if outcome.carried.parts.values().any(|p| p.carried() > 0) {
        rebuild(&db, &mut outcome)?;
    }
    db.conn.execute_batch("COMMIT").map_err(err)?;
    meter.finish();
    drop(states);
    close(db)?;
    outcome.carried.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; what is read, what is written, what is collected"
)]
fn carry_table(
    states: &States,
    db: &Db,
    schema: &Schema,
    name: &str,
    rules: &Rules,
    meter: &mut Meter<'_>,
    tables: &mut Vec<Table>,
    later: &mut Vec<(usize, Row)>,
    outcome: &mut Outcome,
) -> Result<()> {
    let Some(new) = states.after.tables.get(name) else {
        return Ok(()); // dropped by the upgrade
    };
    let old = states.before.tables.get(name);
    let (pair, added) = (Pair::new(old.unwrap_or(new), new), old.is_none());
    if !added && pair.added.is_empty() && states.same_rows(&pair, meter)?.is_some() {
        return Ok(());
    }
    let care = rules.part(name);
    let mut table = schema.tables.get(name).map(|t| Table::new(db, schema, t, &pair)).transpose()?;
    if let (Some(table), Care::Compare, false) = (&mut table, care, added) {
        table.rewritten = rewritten(states, db, schema, name, meter)?;
    }
    let defaults = defaults(&pair);
    let err = |e| sql_error("read", &states.new.path, e);
    let number = tables.len();
    let mut buffer = Vec::new();
    let mut each = |key: &Key, matched: &Matched<'_>| -> Result<()> {
        if untouched(matched, &defaults, &mut buffer).map_err(err)? {
            return Ok(());
        }
        let Some(change) = pair.change(key, matched).map_err(err)? else { return Ok(()) };
        let refused = match (&table, care) {
            (None, _) => Some(NO_TABLE),
            (_, Care::Quarantine(why)) => Some(why),
            _ => None,
        };
        let (Some(table), None) = (&table, refused) else {
            outcome.quarantine(name, change.op, change.key, refused.unwrap_or(NO_TABLE));
            return Ok(());
        };
        let row = table.row(key, matched, change.op, change.key).map_err(err)?;
        // What others refer to goes last.
        if row.op == RowOp::Delete {
            later.push((number, row));
            return Ok(());
        }
        match apply(db, table, &row)? {
            Applied::Later => later.push((number, row)),
            applied => count(outcome, table, row, applied),
        }
        Ok(())
    };
    if added {
        pair.only_after(&states.new, meter, &mut each)?;
    } else {
        pair.merge(&states.old, &states.new, states.encodings(), meter, each)?;
    }
    if let Some(table) = table {
        let missing = pair.common.iter().chain(pair.added.iter().map(|c| &c.name));
        let missing: Vec<String> = missing.filter(|c| !table.has(c)).cloned().collect();
        if outcome.carried.parts.contains_key(name) {
            outcome.part(name).left_out = missing;
        }
        tables.push(table);
    }
    Ok(())
}

fn count(outcome: &mut Outcome, table: &Table, row: Row, applied: Applied) {
    let name = &table.name;
    match applied {
        Applied::Done => outcome.done(name, row.op),
        Applied::Already => outcome.part(name).already += 1,
        Applied::Newer => outcome.part(name).newer_columns_only += 1,
        Applied::Not(why) => outcome.quarantine(name, row.op, row.shown, why),
        Applied::Refused(why) => outcome.quarantine(name, row.op, row.shown, why),
        Applied::Later => outcome.quarantine(name, row.op, row.shown, ORPHAN),
    }
}

/// Tries what had to wait until nothing more goes.
fn settle(db: &Db, tables: &[Table], mut later: Vec<(usize, Row)>, outcome: &mut Outcome) -> Result<()> {
    loop {
        let before = later.len();
        let mut still = Vec::new();
        for (number, row) in later {
            let Some(table) = tables.get(number) else { continue };
            match apply(db, table, &row)? {
                Applied::Later => still.push((number, row)),
                applied => count(outcome, table, row, applied),
            }
        }
        if still.len() == before || still.is_empty() {
            for (number, row) in still {
                if let Some(table) = tables.get(number) {
                    count(outcome, table, row, Applied::Later);
                }
            }
            return Ok(());
        }
        later = still;
    }
}

/// Columns that differ between the state after the upgrade and the target, in rows that both have.
fn rewritten(
    states: &States,
    db: &Db,
    schema: &Schema,
    name: &str,
    meter: &mut Meter<'_>,
) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let (Some(old), Some(own)) = (states.before.tables.get(name), schema.tables.get(name)) else {
        return Ok(found);
    };
    let pair = Pair::new(old, own);
    let position =
        |table: &super::schema::Table, name: &str| table.columns.iter().position(|c| c.name == name);
    let err = |e| sql_error("read", &db.path, e);
    pair.merge(&states.old, db, (&states.before.encoding, &schema.encoding), meter, |_, matched| {
        let (Some(a), Some(b)) = (&matched.before, &matched.after) else { return Ok(()) };
        if matched.same {
            return Ok(());
        }
        for column in &pair.common {
            if let (Some(i), Some(j)) = (position(old, column), position(own, column))
                && !value::same(a.get(i).map_err(err)?, b.get(j).map_err(err)?)
            {
                found.insert(column.clone());
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Tables that virtual tables are made of.
fn shadows(db: &Db) -> Result<BTreeSet<String>> {
    let err = |e| sql_error("read the schema of", &db.path, e);
    let mut statement = db
        .conn
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")
        .map_err(err)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(err)?;
    rows.collect::<rusqlite::Result<_>>().map_err(err)
}

/// Counters never give a number twice.
fn sequences(states: &States, db: &Db, schema: &Schema) -> Result<()> {
    if !states.after.tables.contains_key(SEQUENCES) || !schema.tables.contains_key(SEQUENCES) {
        return Ok(());
    }
    let err = |e| sql_error("carry the counters into", &db.path, e);
    let mut statement = states.new.conn.prepare("SELECT name, seq FROM sqlite_sequence").map_err(err)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
        .map_err(err)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(err)?;
    for (name, seq) in rows.into_iter().filter(|(name, _)| schema.tables.contains_key(name)) {
        let changed = db
            .conn
            .execute("UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (&name, seq))
            .map_err(err)?;
        if changed == 0 {
            db.conn
                .execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?1, ?2)", (&name, seq))
                .map_err(err)?;
        }
    }
    Ok(())
}

/// Search indexes of the target are built anew from their rows: they are no rows that could be carried.
fn rebuild(db: &Db, outcome: &mut Outcome) -> Result<()> {
    for (name, kind) in virtual_tables(db)? {
        match kind {
            Virtual::Search => rebuild_search(db, &name)?,
            _ => outcome
                .carried
                .notes
                .push(format!("{name}: a virtual table whose later writes were not carried")),
        }
    }
    Ok(())
}

/// A damaged or full database stops everything; any other answer is about one row.
pub(super) fn fatal(error: &StoreError) -> bool {
    !matches!(error, StoreError::Sqlite { .. } | StoreError::Unsupported { .. })
}
