//! Fingerprints of a cluster.
//!
//! Owns what a fingerprint covers: every stored row of every table, leaf partition and materialized
//! view, every sequence and large object, the shape of the databases and what belongs to the cluster.
//! All of a database is read in one snapshot.

use super::super::Progress;
use super::super::progress::Meter;
use super::lines::Texts;
use super::names::ident;
use super::schema::{self, GLOBALS_SQL, Kind, Objects, SCHEMA_SQL, Schema, Sequence, Table};
use super::sums::{self, Sum};
use super::{PgError, Psql, Result, session};
use std::collections::BTreeMap;
use switchback_core::data::{Fingerprint, Part};
use switchback_core::ids::Digest;

/// How often a database is read again because its shape changed meanwhile.
const ATTEMPTS: usize = 3;

const SEQUENCE: &str = " (sequence)";
const UNLOGGED: &str = " (unlogged)";

/// The name of a sequence's part.
pub(super) fn sequence_part(name: &str) -> String {
    format!("{name}{SEQUENCE}")
}

/// Reads the shape of one database.
pub(super) fn load(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool) -> Result<Schema> {
    let mut shape = Schema::default();
    session::each_line(psql, database, &session::reading(SCHEMA_SQL), cancel, |line| {
        if shape.take(database, &line)? {
            return Ok(());
        }
        Err(PgError::protocol(database, format!("line {:?}", line.tag())))
    })?;
    Ok(shape)
}

/// Reads what belongs to the cluster.
pub(super) fn globals(psql: &dyn Psql, cancel: &dyn Fn() -> bool) -> Result<Objects> {
    let mut objects = Objects::new();
    for line in session::cluster_lines(psql, &session::reading(GLOBALS_SQL), cancel)? {
        schema::object(&mut objects, &line)?;
    }
    Ok(objects)
}

/// A query for the state of a sequence, whose line is: q, number, last value, whether it was used.
pub(super) fn sequence_query(number: usize, sequence: &Sequence) -> String {
    format!(
        "COPY (SELECT 'q', {number}, last_value, is_called FROM {}.{}) TO STDOUT;\n",
        ident(&sequence.schema),
        ident(&sequence.name)
    )
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub last: i64,
    pub called: bool,
}

/// Takes a `q` line over.
pub(super) fn position(line: &Texts) -> Result<(usize, Position)> {
    Ok((line.number(1)?, Position { last: line.number(2)?, called: line.flag(3)? }))
}

/// The shape without sizes, which change by themselves.
fn shape(schema: &Schema) -> Schema {
    let mut shape = schema.clone();
    for table in shape.tables.values_mut() {
        (table.bytes, table.index_bytes, table.dead) = (0, 0, 0);
    }
    shape
}

fn script(schema: &Schema) -> String {
    let mut body = String::from(SCHEMA_SQL);
    body.push_str("COPY (SELECT 'Z', pg_database_size(current_database())) TO STDOUT;\n");
    for (number, table) in schema.tables.values().enumerate() {
        let columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        body.push_str(&sums::query(number, table, &columns, "0"));
        body.push_str(&format!("COPY (SELECT 'd', {number}) TO STDOUT;\n"));
    }
    for (number, sequence) in schema.sequences.values().enumerate() {
        body.push_str(&sequence_query(number, sequence));
    }
    session::reading(&body)
}

/// Whether an error means that something was altered or dropped while it was read: a relation, column or
/// schema is missing, or (XX000) an entry of the catalogue vanished in the middle of describing it.
fn altered(error: &PgError) -> bool {
    matches!(error.sqlstate(), Some("42P01" | "42703" | "3F000" | "XX000"))
}

/// What one database holds.
struct Content {
    schema: Schema,
    bytes: u64,
    parts: BTreeMap<String, Part>,
}

fn hashed(fields: &[&str]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    Digest::from(hasher.finalize().to_hex().to_string())
}

fn table_part(name: &str, table: &Table, sum: &Sum) -> (String, Part) {
    let rows = sum.rows.to_string();
    let mut fields: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
    fields.extend([name, &rows, &sum.low, &sum.high]);
    let mark = if table.kind == Kind::Unlogged { UNLOGGED } else { "" };
    (format!("{name}{mark}"), Part { items: sum.rows, digest: hashed(&fields) })
}

/// Reads a database in one snapshot. `None` if its shape is no longer the expected one.
fn read(
    psql: &dyn Psql,
    database: &str,
    expected: &Schema,
    progress: &Progress<'_>,
    meter: &mut Meter<'_>,
) -> Result<Option<Content>> {
    let tables: Vec<(&String, &Table)> = expected.tables.iter().collect();
    let mut schema = Schema::default();
    let mut bytes = 0;
    let mut sums: BTreeMap<usize, Sum> = BTreeMap::new();
    let mut positions: BTreeMap<usize, Position> = BTreeMap::new();
    let result = session::each_line(psql, database, &script(expected), &session::cancel(progress), |line| {
        match line.tag() {
            "Z" => bytes = line.number(1)?,
            "d" => meter.add(tables.get(line.number::<usize>(1)?).map_or(0, |(_, t)| t.bytes))?,
            "s" => {
                let (number, _, sum) = sums::take(&line)?;
                sums.insert(number, sum);
            }
            "q" => {
                let (number, position) = position(&line)?;
                positions.insert(number, position);
            }
            _ if schema.take(database, &line)? => {}
            other => return Err(PgError::protocol(database, format!("line {other:?}"))),
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(e) if altered(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    if shape(&schema) != shape(expected) {
        return Ok(None);
    }
    let mut parts = BTreeMap::new();
    for (number, (name, table)) in tables.iter().enumerate() {
        let sum = sums.remove(&number).unwrap_or_default();
        parts.extend([table_part(name, table, &sum)]);
    }
    for (number, name) in expected.sequences.keys().enumerate() {
        let at = positions
            .get(&number)
            .ok_or_else(|| PgError::protocol(database, format!("no answer about {name}")))?;
        let last = at.last.to_string();
        let fields = [last.as_str(), if at.called { "called" } else { "not called" }];
        parts.insert(sequence_part(name), Part { items: 1, digest: hashed(&fields) });
    }
    Ok(Some(Content { schema, bytes, parts }))
}

fn settled(
    psql: &dyn Psql,
    database: &str,
    mut expected: Schema,
    progress: &Progress<'_>,
    meter: &mut Meter<'_>,
) -> Result<Content> {
    let mut known = true;
    for _ in 0..ATTEMPTS {
        if known && let Some(content) = read(psql, database, &expected, progress, meter)? {
            return Ok(content);
        }
        known = match load(psql, database, &session::cancel(progress)) {
            Ok(schema) => {
                expected = schema;
                true
            }
            Err(e) if altered(&e) => false,
            Err(e) => return Err(e),
        };
    }
    Err(PgError::Unsupported {
        what: format!("database {database:?}"),
        why: format!(
            "its tables were altered during each of {ATTEMPTS} attempts to read it; stop what alters them"
        ),
    })
}

/// The exact content of databases (all of them if none is named) as digests.
///
/// Parts are `database.schema.table` with count and digest, `... (sequence)`, `... (unlogged)` (a
/// crash or a clone of a running server empties those) and `database.large objects`. The digest of the
/// schema covers what [`super::diff`] tells of in words, and the cluster's roles, databases and
/// tablespaces. Each database is read in one repeatable-read snapshot; no two databases share one.
pub fn fingerprint(psql: &dyn Psql, databases: &[String], progress: &Progress<'_>) -> Result<Fingerprint> {
    let cancel = session::cancel(progress);
    let mut expected = Vec::new();
    for database in session::chosen(psql, databases)? {
        let schema = match load(psql, &database, &cancel) {
            // `settled` reads it again.
            Err(e) if altered(&e) => Schema::default(),
            other => other?,
        };
        expected.push((database, schema));
    }
    let total = expected.iter().flat_map(|(_, s)| s.tables.values()).map(|t| t.bytes).sum();
    let mut meter = Meter::new(progress, total);
    let globals = globals(psql, &cancel)?;
    let mut objects = BTreeMap::new();
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let mut bytes = 0;
    for (database, schema) in expected {
        let content = settled(psql, &database, schema, progress, &mut meter)?;
        bytes += content.bytes;
        parts.extend(content.parts);
        objects.insert(database, content.schema.objects);
    }
    let schema = schema::digest(&objects, &globals);
    let mut all = blake3::Hasher::new();
    all.update(schema.as_str().as_bytes());
    for (name, part) in &parts {
        all.update(&(name.len() as u64).to_le_bytes());
        all.update(name.as_bytes());
        all.update(part.digest.as_str().as_bytes());
    }
    meter.finish();
    Ok(Fingerprint {
        digest: Digest::from(all.finalize().to_hex().to_string()),
        schema,
        items: parts.iter().filter(|(n, _)| !n.ends_with(SEQUENCE)).map(|(_, p)| p.items).sum(),
        bytes,
        parts,
    })
}

/// In what two fingerprints differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Whether the shape differs.
    pub schema: bool,
    /// Tables, materialized views and large objects that differ or are in one only.
    pub tables: Vec<String>,
    /// Sequences that differ or are in one only. A promoted standby, like a server after a crash,
    /// has those ahead by up to 32 numbers that were used after the last log record of the sequence.
    pub sequences: Vec<String>,
}

impl Difference {
    /// Whether every row and the shape are the same; sequences do not count.
    pub fn same_rows(&self) -> bool {
        !self.schema && self.tables.is_empty()
    }
}

/// Compares two fingerprints part by part.
pub fn compare(before: &Fingerprint, after: &Fingerprint) -> Difference {
    let mut difference = Difference { schema: before.schema != after.schema, ..Difference::default() };
    let names: std::collections::BTreeSet<&String> = before.parts.keys().chain(after.parts.keys()).collect();
    for name in names {
        if before.parts.get(name) == after.parts.get(name) {
            continue;
        }
        let list = if name.ends_with(SEQUENCE) { &mut difference.sequences } else { &mut difference.tables };
        list.push(name.clone());
    }
    difference
}
