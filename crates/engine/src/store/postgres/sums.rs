//! Sums of row hashes, computed inside the server.
//!
//! Owns the exact row hash: two 64-bit hashes of the row's text with different seeds, summed exactly, so that
//! equal rows never cancel and order does not count. Text is what the types' own output functions write;
//! casts, which users can define, are never called. Buckets by key let a comparison look only at the
//! parts of a table that differ.

use super::compare::{Pair, Side};
use super::lines::Texts;
use super::names::ident;
use super::quick;
use super::schema::{Schema, Table};
use super::{PgError, Result};
use std::collections::BTreeMap;

/// Exact totals of the two hashes, as the server prints them (they exceed 128 bits for long tables).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub rows: u64,
    pub low: String,
    pub high: String,
}

/// Sums by bucket.
pub(super) type Buckets = BTreeMap<u32, Sum>;

/// Rows of all buckets.
pub(super) fn rows(buckets: &Buckets) -> u64 {
    buckets.values().map(|s| s.rows).sum()
}

/// The text of a row, the same for the same values on every server.
pub(super) fn row_text(columns: &[String]) -> String {
    let list: Vec<String> = columns.iter().map(|c| format!("t.{}", ident(c))).collect();
    format!("ROW({})::text COLLATE \"C\"", list.join(","))
}

/// A query whose lines are: s, number of the table, bucket, rows, low sum, high sum.
pub(super) fn query(number: usize, table: &Table, columns: &[String], bucket: &str) -> String {
    if !table.populated {
        return String::new();
    }
    // OFFSET 0 keeps the planner from computing the text once for each of its two uses.
    format!(
        "COPY (SELECT 's', {number}, b, count(*), sum(hashtextextended(r, 1)), sum(hashtextextended(r, 2)) \
         FROM (SELECT {bucket} AS b, {} AS r FROM {} OFFSET 0) q GROUP BY b) TO STDOUT;\n",
        row_text(columns),
        table.from(),
    )
}

/// The same for one side of a pair, by the server's own hash where that is enough.
pub(super) fn of_pair(number: usize, pair: &Pair<'_>, side: Side) -> String {
    match pair.quick {
        Some(seed) => quick::query(number, pair, side, seed),
        None => query(number, pair.table(side), &pair.common, &bucket(pair)),
    }
}

/// Takes an `s` line over.
pub(super) fn take(line: &Texts) -> Result<(usize, u32, Sum)> {
    let sum = Sum { rows: line.number(3)?, low: line.owned(4)?, high: line.owned(5)? };
    Ok((line.number(1)?, line.number(2)?, sum))
}

/// Largest table, in bytes, that is compared as one bucket: sorting it is cheap, and a cluster may have
/// thousands of tables.
const ONE_BUCKET: u64 = 1 << 20;

/// Buckets of larger tables: a few changed rows then need 1/256 of the table to be sorted and sent.
const BUCKETS: u32 = 256;

/// Whether a pair is large enough for buckets.
pub(super) fn in_buckets(pair: &Pair<'_>) -> bool {
    pair.before.bytes.max(pair.after.bytes) > ONE_BUCKET
}

/// How the rows of a pair are cut into buckets; the same on both sides.
pub(super) fn bucket(pair: &Pair<'_>) -> String {
    if !in_buckets(pair) {
        return "0".to_owned();
    }
    if let Some(range) = pair.range {
        return range.bucket(pair);
    }
    match pair.quick {
        Some(seed) => format!("{} & {}", quick::key(pair, seed), BUCKETS - 1),
        None => format!("hashtextextended({}, 0) & {}", pair.key_text(), BUCKETS - 1),
    }
}

/// Which buckets of a pair differ.
pub(super) fn differing(before: &Buckets, after: &Buckets) -> Vec<u32> {
    let keys: std::collections::BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
    keys.into_iter().filter(|k| before.get(k) != after.get(k)).collect()
}

/// Refuses to compare hashes of text in different encodings.
pub(super) fn require_same_encoding(database: &str, before: &Schema, after: &Schema) -> Result<()> {
    if before.encoding == after.encoding {
        return Ok(());
    }
    Err(PgError::Unsupported {
        what: format!("database {database:?}"),
        why: format!("its encoding is {}, before it was {}", after.encoding, before.encoding),
    })
}
