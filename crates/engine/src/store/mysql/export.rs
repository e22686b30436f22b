//! Exporting everything that differs between two states of a server.
//!
//! Owns the export's layout and the rule for when a row counts as unchanged: all common columns are identical, and columns that were
//! added hold what rows get when they are.

use super::super::Progress;
use super::super::jsonl::{Lines, manifest};
use super::super::place::Place;
use super::super::postgres::{names::file, words};
use super::super::progress::Meter;
use super::diff::{Chosen, Sides, both_sums};
use super::merge::{Line, Matched, Pair, content, harmonised, merge, rows};
use super::represent::as_added;
use super::schema::{Column, Table};
use super::{Client, Result, names, schema, session, value};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::data::{ExportPart, ExportStats, RowChange, RowOp};

/// One table's file, made when the first row needs it.
struct Out {
    path: PathBuf,
    lines: Option<Lines>,
    part: ExportPart,
}

impl Out {
    fn new(dir: &Path, name: &str) -> Self {
        let file = file(name) + ".jsonl";
        Self { path: dir.join(&file), lines: None, part: ExportPart { file, ..ExportPart::default() } }
    }

    fn push(&mut self, change: &RowChange) -> Result<()> {
        match change.op {
            RowOp::Insert => self.part.inserted += 1,
            RowOp::Update => self.part.updated += 1,
            RowOp::Delete => self.part.deleted += 1,
        }
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => self.lines.insert(Lines::create(&self.path)?),
        };
        lines.push(change)?;
        Ok(())
    }
}

/// What an export holds besides rows; becomes the manifest.
#[derive(Default)]
struct Found {
    parts: BTreeMap<String, ExportPart>,
    dropped_tables: Vec<String>,
    schema_changes: Vec<String>,
}

/// Writes every row that differs between two running servers to `out_dir`, exactly.
///
/// `out_dir` must not exist, its parent must. Per table one file of JSON Lines; `manifest.json` is written last. All is made
/// durable before the folder gets its name.
pub fn export(
    before: &dyn Client,
    after: &dyn Client,
    databases: &[String],
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    let started = Instant::now();
    let place = Place::prepare(out_dir)?;
    place.make_dir()?;
    let dir = place.temp().to_owned();
    let sides: Sides<'_> = (before, after);
    let flavours = (schema::flavour(before)?, schema::flavour(after)?);
    let chosen = Chosen::read(sides, databases)?;
    let mut found = Found::default();
    for database in &chosen.both {
        let old = schema::read(before, database, flavours.0, progress)?;
        let new = schema::read(after, database, flavours.1, progress)?;
        found.schema_changes.extend(words::changes(database, None, &old.objects, &new.objects));
        let gone = old.tables.keys().filter(|t| !new.tables.contains_key(*t));
        found.dropped_tables.extend(gone.map(|t| names::part(database, t)));
        tables(sides, database, (&old.tables, &new.tables), (&dir, &mut found), progress)?;
    }
    for database in &chosen.added {
        let new = schema::read(after, database, flavours.1, progress)?;
        tables((after, after), database, (&BTreeMap::new(), &new.tables), (&dir, &mut found), progress)?;
    }
    manifest(
        &dir,
        &json!({
            "format": "switchback-export", "version": 1, "kind": "mysql",
            "parts": found.parts,
            "dropped_tables": found.dropped_tables,
            "dropped_databases": chosen.dropped,
            "added_databases": chosen.added,
            "schema_changes": found.schema_changes,
        }),
    )?;
    place.commit(&dir)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ExportStats { parts: found.parts, took_ms })
}

fn tables(
    sides: Sides<'_>,
    database: &str,
    (old, new): (&BTreeMap<String, Table>, &BTreeMap<String, Table>),
    (dir, found): (&Path, &mut Found),
    progress: &Progress<'_>,
) -> Result<()> {
    let mut meter = Meter::new(progress, new.values().map(|t| t.bytes).sum());
    for (name, after) in new {
        let part = names::part(database, name);
        let mut out = Out::new(dir, &part);
        match old.get(name) {
            Some(before) => {
                let (before, after) = harmonised(before, after);
                let pair = Pair { database, name, before: &before, after: &after };
                let (was, is) = both_sums(sides, database, std::slice::from_ref(&pair), progress, None)?;
                if was != is || pair.added().iter().any(|c| c.stored) {
                    differing(sides, &pair, &mut out, progress)?;
                }
            }
            None => whole(sides.1, database, name, after, &mut out, progress)?,
        }
        if let Some(lines) = out.lines.take() {
            out.part.digest = lines.finish()?;
            found.parts.insert(part, out.part);
        }
        meter.add(after.bytes)?;
    }
    meter.finish();
    Ok(())
}

fn named(key: &[&Column], row: &Map<String, Value>) -> Map<String, Value> {
    key.iter().filter_map(|c| row.get(&c.name).map(|v| (c.name.clone(), v.clone()))).collect()
}

fn read(database: &str, columns: &[&Column], line: &Line) -> Result<Map<String, Value>> {
    let told: Vec<&str> = line.values.iter().map(String::as_str).collect();
    value::row(database, columns, &told)
}

/// Every row of a table that is new.
fn whole(
    client: &dyn Client,
    database: &str,
    name: &str,
    table: &Table,
    out: &mut Out,
    progress: &Progress<'_>,
) -> Result<()> {
    let columns = table.stored();
    let key: Vec<&Column> = table.key.iter().filter_map(|k| table.column(k)).collect();
    let sql = rows((database, name), None, &content(&columns), &columns, None);
    super::merge::each_row(client, database, &sql, &session::cancel(progress), |line| {
        let row = read(database, &columns, &line)?;
        out.push(&RowChange { op: RowOp::Insert, key: named(&key, &row), row: Some(row), before: None })
    })
}

/// Every row of a table that differs.
fn differing(sides: Sides<'_>, pair: &Pair<'_>, out: &mut Out, progress: &Progress<'_>) -> Result<()> {
    let (old_common, new_common) = pair.common();
    let added: Vec<&Column> = pair.added().into_iter().filter(|c| c.stored).collect();
    // What the old state does not have counts there as what rows get when a column is added.
    let content_of = |common: &[&Column], more: Option<&[&Column]>| {
        let base = content(common);
        let told: Vec<String> = match more {
            _ if added.is_empty() => return base,
            None => vec!["'|d'".to_owned(); added.len()],
            Some(columns) => columns.iter().map(|c| as_added(c)).collect(),
        };
        format!("CONCAT({base}, {})", told.join(", "))
    };
    let (old_columns, new_columns) = (pair.before.stored(), pair.after.stored());
    let keys = pair.key();
    let (old_key, new_key) = (keys.as_ref().map(|k| k.0.as_slice()), keys.as_ref().map(|k| k.1.as_slice()));
    let at = (pair.database, pair.name);
    let old_sql = rows(at, old_key, &content_of(&old_common, None), &old_columns, None);
    let new_sql = rows(at, new_key, &content_of(&new_common, Some(&added)), &new_columns, None);
    let cancel = session::cancel(progress);
    merge((sides.0, &old_sql), (sides.1, &new_sql), pair.database, &cancel, &mut |matched| {
        let (op, before, row) = match &matched {
            Matched::Both(old, new) if old.content == new.content => return Ok(()),
            Matched::Both(old, new) => (RowOp::Update, Some(old), Some(new)),
            Matched::Before(old) => (RowOp::Delete, Some(old), None),
            Matched::After(new) => (RowOp::Insert, None, Some(new)),
        };
        let before = before.map(|line| read(pair.database, &old_columns, line)).transpose()?;
        let row = row.map(|line| read(pair.database, &new_columns, line)).transpose()?;
        let key = match (&row, &before) {
            (Some(row), _) => named(new_key.unwrap_or_default(), row),
            (None, Some(row)) => named(old_key.unwrap_or_default(), row),
            (None, None) => Map::new(),
        };
        out.push(&RowChange { op, key, row, before })
    })
}
