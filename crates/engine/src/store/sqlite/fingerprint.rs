//! Fingerprints of databases.
//!
//! Owns the row hash. Sums of hashes, never XOR: two equal rows must not cancel each other.

use super::super::progress::{Meter, Progress};
use super::super::{Result, Source};
use super::open::Db;
use super::schema::{Schema, Table};
use super::{size_bytes, sql_error, value};
use std::collections::BTreeMap;
use switchback_core::data::{Fingerprint, Part};
use switchback_core::ids::Digest;

/// Rows between looks at the clock and the cancel flag: well below a millisecond.
pub(super) const ROWS_PER_TICK: u64 = 512;

/// Rows of a table and the wrapping sum of the first 128 bits of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub rows: u64,
    pub hash: u128,
}

/// Sums up the given columns of all rows, in any order.
pub(super) fn sum(db: &Db, table: &Table, columns: &[String], meter: &mut Meter<'_>) -> Result<Sum> {
    let err = |e| sql_error("read", &db.path, e);
    let sql = if columns.is_empty() {
        format!("SELECT 1 FROM {}", super::quote(&table.name))
    } else {
        table.select(columns)
    };
    let mut statement = db.conn.prepare(&sql).map_err(err)?;
    let mut rows = statement.query([]).map_err(err)?;
    let mut sum = Sum { rows: 0, hash: 0 };
    let mut buffer = Vec::with_capacity(1024);
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(err)? {
        buffer.clear();
        for i in 0..columns.len() {
            value::encode(row.get_ref(i).map_err(err)?, &mut buffer);
        }
        let hash = blake3::hash(&buffer);
        let (first, _) = hash.as_bytes().split_at(16);
        sum.hash = sum.hash.wrapping_add(u128::from_le_bytes(first.try_into().expect("split at 16")));
        sum.rows += 1;
        bytes += buffer.len() as u64;
        if sum.rows.is_multiple_of(ROWS_PER_TICK) {
            meter.add(std::mem::take(&mut bytes))?;
        }
    }
    meter.add(bytes)?;
    Ok(sum)
}

/// The content of a database as digests.
pub(in super::super) fn fingerprint(source: Source<'_>, progress: &Progress<'_>) -> Result<Fingerprint> {
    let db = Db::reader(source)?;
    let bytes = size_bytes(source.path)?;
    let mut meter = Meter::new(progress, bytes);
    let schema = Schema::read(&db)?;
    let mut parts = BTreeMap::new();
    let mut all = blake3::Hasher::new();
    let mut items = 0;
    let shape = schema.digest();
    all.update(shape.as_str().as_bytes());
    for (name, table) in &schema.tables {
        let columns = table.column_names();
        let sum = sum(&db, table, &columns, &mut meter)?;
        let mut part = blake3::Hasher::new();
        for column in columns.iter().chain([name]) {
            part.update(&(column.len() as u64).to_le_bytes());
            part.update(column.as_bytes());
        }
        part.update(&sum.rows.to_le_bytes());
        part.update(&sum.hash.to_le_bytes());
        let digest = part.finalize();
        all.update(digest.as_bytes());
        items += sum.rows;
        parts.insert(
            name.clone(),
            Part { items: sum.rows, digest: Digest::from(digest.to_hex().to_string()) },
        );
    }
    meter.finish();
    Ok(Fingerprint {
        digest: Digest::from(all.finalize().to_hex().to_string()),
        schema: shape,
        items,
        bytes,
        parts,
    })
}
