//! The exact content of databases in a comparable form.
//!
//! Owns what counts: rows without their order, shapes, roles; not sizes, statistics and InnoDB's own numbers.

use super::super::Progress;
use super::super::postgres::schema::digest;
use super::super::progress::Meter;
use super::schema::{Flavour, Schema, Table};
use super::sums::{self, Sum};
use super::{Client, MyError, Result, globals, names, schema, session};
use std::collections::BTreeMap;
use switchback_core::data::{Fingerprint, Part};
use switchback_core::ids::Digest;

/// How often a database that is altered meanwhile is read again.
const ATTEMPTS: usize = 3;

/// Reads again what was altered while it was read.
pub(super) fn settled<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = MyError::protocol("", "it was not read");
    for _ in 0..ATTEMPTS {
        match read() {
            Err(e) if e.is_altered() => last = e,
            other => return other,
        }
    }
    Err(last)
}

fn hashed<'a>(fields: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    Digest::from(hasher.finalize().to_hex().to_string())
}

/// The sums of tables over the columns that are given with them.
pub(super) fn sums_of(
    client: &dyn Client,
    database: &str,
    tables: &[(&String, Vec<&super::schema::Column>, u64)],
    progress: &Progress<'_>,
    mut meter: Option<&mut Meter<'_>>,
) -> Result<Vec<Sum>> {
    let mut found = vec![Sum::default(); tables.len()];
    if tables.is_empty() {
        return Ok(found);
    }
    let sql: String = tables
        .iter()
        .enumerate()
        .map(|(n, (name, columns, _))| sums::query(n, database, name, columns))
        .collect();
    session::each_line(client, database, &session::reading(&sql), &session::cancel(progress), |row| {
        let (number, sum) = sums::take(database, row)?;
        let (Some(place), Some((_, _, bytes))) = (found.get_mut(number), tables.get(number)) else {
            return Err(MyError::protocol(database, format!("a sum of table {number}")));
        };
        *place = sum;
        meter.as_mut().map_or(Ok(()), |m| m.add(*bytes))?;
        Ok(())
    })?;
    Ok(found)
}

fn parts(
    client: &dyn Client,
    database: &str,
    schema: &Schema,
    progress: &Progress<'_>,
    meter: &mut Meter<'_>,
) -> Result<BTreeMap<String, Part>> {
    let tables: Vec<(&String, Vec<&super::schema::Column>, u64)> =
        schema.tables.iter().map(|(name, table)| (name, table.stored(), table.bytes)).collect();
    let sums = sums_of(client, database, &tables, progress, Some(meter))?;
    let told = tables.iter().zip(sums).map(|((name, columns, _), sum)| {
        let name = names::part(database, name);
        let rows = sum.rows.to_string();
        let fields =
            columns.iter().map(|c| c.name.as_str()).chain([name.as_str(), &rows, &sum.high, &sum.low]);
        let digest = hashed(fields);
        (name, Part { items: sum.rows, digest })
    });
    Ok(told.collect())
}

/// Reads databases (all of them if none is named), each in one snapshot.
pub fn fingerprint(
    client: &dyn Client,
    databases: &[String],
    progress: &Progress<'_>,
) -> Result<Fingerprint> {
    let flavour = schema::flavour(client)?;
    settled(|| read(client, databases, flavour, progress))
}

fn read(
    client: &dyn Client,
    databases: &[String],
    flavour: Flavour,
    progress: &Progress<'_>,
) -> Result<Fingerprint> {
    let chosen = session::chosen(client, databases)?;
    let mut schemas = BTreeMap::new();
    for database in &chosen {
        schemas.insert(database.clone(), schema::read(client, database, flavour, progress)?);
    }
    let bytes: u64 = schemas.values().flat_map(|s| s.tables.values()).map(|t: &Table| t.bytes).sum();
    let mut meter = Meter::new(progress, bytes);
    let mut all = BTreeMap::new();
    for (database, schema) in &schemas {
        all.extend(parts(client, database, schema, progress, &mut meter)?);
    }
    meter.finish();
    let globals = globals::globals(client, &session::cancel(progress))?.unwrap_or_default();
    let shapes = schemas.into_iter().map(|(database, schema)| (database, schema.objects)).collect();
    let schema = digest(&shapes, &globals);
    let told = all.iter().flat_map(|(name, part)| [name.as_str(), part.digest.0.as_str()]);
    Ok(Fingerprint {
        digest: hashed([schema.0.as_str()].into_iter().chain(told)),
        schema,
        items: all.values().map(|p| p.items).sum(),
        bytes,
        parts: all,
    })
}
