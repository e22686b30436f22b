//! Exporting every row that differs between two databases.
//!
//! Owns the export format and the rule for when a row counts as unchanged: all common columns are
//! identical and every added column holds exactly its declared default.

use super::super::jsonl::{Lines, manifest};
use super::super::place::Place;
use super::super::progress::{Meter, Progress};
use super::super::{Result, Source};
use super::compare::{Key, Matched, Pair};
use super::diff::States;
use super::schema::{Column, Table};
use super::{quote, size_bytes, sql_error, value};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;
use switchback_core::data::{ExportPart, ExportStats, RowChange, RowOp};

/// Longest part of a table name kept readable in a file name: names have at most 255 bytes.
const NAME_PART: usize = 180;

/// A table name as a file name: everything but `[A-Za-z0-9_-]` percent-encoded. Distinct names stay
/// distinct, also where they are cut.
fn file_name(table: &str) -> String {
    let mut name = String::new();
    for byte in table.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    if name.len() > NAME_PART {
        name.truncate(NAME_PART);
        let _ = write!(name, "%{}", &blake3::hash(table.as_bytes()).to_hex()[..32]);
    }
    name + ".jsonl"
}

/// The value a column's default gives, in canonical form. `None` if it is not a constant: then no row
/// can be told to be untouched.
fn default_of(table: &Table, column: &Column) -> Option<Vec<u8>> {
    let Some(text) = &column.default else {
        let mut null = Vec::new();
        value::encode(rusqlite::types::ValueRef::Null, &mut null);
        return Some(null);
    };
    // CURRENT_TIMESTAMP, random() and the like give another value for each row. Neither can be
    // excluded cheaply once there is a call.
    if text.contains('(') || text.to_ascii_uppercase().contains("CURRENT_") {
        return None;
    }
    let conn = Connection::open_in_memory().ok()?;
    // Affinity comes from the declared type; ANY means "as it is" in STRICT tables only.
    let decl = if table.strict && column.decl.eq_ignore_ascii_case("any") { "BLOB" } else { &column.decl };
    let decl = if decl.is_empty() { String::new() } else { quote(decl) };
    conn.execute_batch(&format!("CREATE TABLE t(a, c {decl} DEFAULT ({text})); INSERT INTO t(a) VALUES(1);"))
        .ok()?;
    conn.query_row("SELECT c FROM t", [], |row| {
        let mut out = Vec::new();
        value::encode(row.get_ref(0)?, &mut out);
        Ok(out)
    })
    .ok()
}

/// Added columns: their position in the new table and their default.
pub(super) type Defaults = Vec<(usize, Option<Vec<u8>>)>;

pub(super) fn defaults(pair: &Pair<'_>) -> Defaults {
    let at = |c: &Column| pair.after.columns.iter().position(|x| x.name == c.name);
    pair.added.iter().filter_map(|c| Some((at(c)?, default_of(pair.after, c)))).collect()
}

pub(super) fn untouched(
    matched: &Matched<'_>,
    defaults: &Defaults,
    buffer: &mut Vec<u8>,
) -> rusqlite::Result<bool> {
    let Some(after) = matched.after.as_ref().filter(|_| matched.same) else { return Ok(false) };
    for (column, default) in defaults {
        buffer.clear();
        value::encode(after.get(*column)?, buffer);
        if default.as_ref() != Some(buffer) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One table's file, made when the first row needs it.
struct Out<'a> {
    dir: &'a Path,
    lines: Option<Lines>,
    part: ExportPart,
}

impl Out<'_> {
    fn push(&mut self, change: &RowChange) -> Result<()> {
        match change.op {
            RowOp::Insert => self.part.inserted += 1,
            RowOp::Update => self.part.updated += 1,
            RowOp::Delete => self.part.deleted += 1,
        }
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => self.lines.insert(Lines::create(&self.dir.join(&self.part.file))?),
        };
        lines.push(change).map(|_| ())
    }
}

/// Exports the differences of two databases.
pub(in super::super) fn export(
    before: Source<'_>,
    after: Source<'_>,
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    let started = Instant::now();
    let place = Place::prepare(out_dir)?;
    place.make_dir()?;
    let dir = place.temp().to_owned();
    let states = States::open(before, after)?;
    let mut meter = Meter::new(progress, size_bytes(before.path)? + size_bytes(after.path)?);
    let mut parts: BTreeMap<String, ExportPart> = BTreeMap::new();
    let mut dropped = Vec::new();
    for name in states.tables() {
        let Some(new) = states.after.tables.get(name) else {
            dropped.push(name.clone());
            continue;
        };
        let part = ExportPart { file: file_name(name), ..ExportPart::default() };
        let mut out = Out { dir: &dir, lines: None, part };
        match states.before.tables.get(name) {
            Some(old) => table(&states, &Pair::new(old, new), &mut meter, &mut out)?,
            None => fresh(&states, new, &mut meter, &mut out)?,
        }
        if let Some(lines) = out.lines.take() {
            out.part.digest = lines.finish()?;
            parts.insert(name.clone(), out.part);
        }
    }
    let virtual_tables: Vec<&String> =
        states.after.objects.iter().filter(|(_, o)| o.is_virtual()).map(|((_, name), _)| name).collect();
    manifest(
        &dir,
        &json!({
            "format": "switchback-export", "version": 1, "kind": "sqlite",
            "parts": parts,
            "dropped_tables": dropped,
            "virtual_tables_left_out": virtual_tables,
            "before_schema": states.before.digest(),
            "after_schema": states.after.digest(),
        }),
    )?;
    meter.finish();
    drop(states);
    place.commit(&dir)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ExportStats { parts, took_ms })
}

fn table(states: &States, pair: &Pair<'_>, meter: &mut Meter<'_>, out: &mut Out<'_>) -> Result<()> {
    if pair.added.is_empty() && states.same_rows(pair, meter)?.is_some() {
        return Ok(());
    }
    let err = |e| sql_error("read", &states.new.path, e);
    let defaults = defaults(pair);
    let mut buffer = Vec::new();
    pair.merge(&states.old, &states.new, states.encodings(), meter, |key: &Key, matched| {
        if untouched(matched, &defaults, &mut buffer).map_err(err)? {
            return Ok(());
        }
        match pair.change(key, matched).map_err(err)? {
            Some(change) => out.push(&change),
            None => Ok(()),
        }
    })
}

/// Exports all rows of a new table.
fn fresh(states: &States, new: &Table, meter: &mut Meter<'_>, out: &mut Out<'_>) -> Result<()> {
    let err = |e| sql_error("read", &states.new.path, e);
    let columns = new.column_names();
    let (keys, expressions): (Vec<&str>, Vec<String>) = if new.key.is_empty() {
        new.rowid.into_iter().map(|r| ("rowid", format!("T.{r}"))).unzip()
    } else {
        new.key.iter().map(|k| (k.as_str(), format!("T.{}", quote(k)))).unzip()
    };
    let all: Vec<String> =
        expressions.into_iter().chain(columns.iter().map(|c| format!("T.{}", quote(c)))).collect();
    let sql = format!("SELECT {} FROM {} AS T", all.join(","), quote(&new.name));
    let mut statement = states.new.conn.prepare(&sql).map_err(err)?;
    let mut rows = statement.query([]).map_err(err)?;
    let pick =
        |row: &rusqlite::Row<'_>, from: usize, names: &[&str]| -> rusqlite::Result<Map<String, Value>> {
            names
                .iter()
                .enumerate()
                .map(|(i, n)| Ok(((*n).to_owned(), value::json(row.get_ref(from + i)?))))
                .collect()
        };
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    while let Some(row) = rows.next().map_err(err)? {
        let change = RowChange {
            op: RowOp::Insert,
            key: pick(row, 0, &keys).map_err(err)?,
            row: Some(pick(row, keys.len(), &names).map_err(err)?),
            before: None,
        };
        out.push(&change)?;
        meter.add(0)?;
    }
    Ok(())
}
