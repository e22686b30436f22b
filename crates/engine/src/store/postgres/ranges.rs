//! Ranges of an integer key, as buckets: what differs is then found by the key's index, not by looking at every row again.

use super::Result;
use super::compare::{Key, Pair, Side, Sort};
use super::lines::Texts;
use super::names::ident;
use std::collections::BTreeMap;

/// Buckets of a table.
const BUCKETS: i64 = 256;
/// Keys are dense enough if there are no more of them, used or not, than one for so many bytes of the table: no bucket then has much
/// more than its share.
const BYTES: u64 = 16;

/// How keys are cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    low: i64,
    width: i64,
}

/// The integer column that is the key of a pair, if it is one column of one type on both sides.
fn column<'a>(pair: &'a Pair<'_>) -> Option<&'a str> {
    let Key::Primary(columns) = &pair.key else { return None };
    let [(name, Sort::Integer)] = columns.as_slice() else { return None };
    let (before, after) = (pair.before.column(name)?, pair.after.column(name)?);
    (before.decl == after.decl && after.decl == after.base_decl()?).then_some(name)
}

/// A query whose line is: m, number of the pair, least and greatest key; empty for pairs that have no such key.
pub(super) fn query(number: usize, pair: &Pair<'_>, side: Side) -> String {
    let table = pair.table(side);
    match column(pair) {
        Some(name) if table.populated => {
            let key = ident(name);
            let from = table.from();
            format!("COPY (SELECT 'm', {number}, min(t.{key}), max(t.{key}) FROM {from}) TO STDOUT;\n")
        }
        _ => String::new(),
    }
}

/// The least and greatest keys of both sides together, by number of the pair.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<usize, (i64, i64)>);

impl Ends {
    /// Takes an `m` line over. A table without rows has no keys.
    pub(super) fn take(&mut self, line: &Texts) -> Result<()> {
        if line.optional(2).is_some() {
            let (number, low, high) = (line.number(1)?, line.number::<i64>(2)?, line.number::<i64>(3)?);
            let known = self.0.entry(number).or_insert((low, high));
            *known = (known.0.min(low), known.1.max(high));
        }
        Ok(())
    }

    /// With those of the other side.
    pub(super) fn join(&mut self, other: &Self) {
        for (number, (low, high)) in &other.0 {
            let known = self.0.entry(*number).or_insert((*low, *high));
            *known = (known.0.min(*low), known.1.max(*high));
        }
    }

    /// How the keys of a pair are cut, if they are dense.
    pub(super) fn range(&self, number: usize, bytes: u64) -> Option<Range> {
        let (low, high) = *self.0.get(&number)?;
        let keys = u64::try_from(high.checked_sub(low)?.checked_add(1)?).ok()?;
        (keys <= bytes / BYTES).then(|| Range {
            low,
            width: i64::try_from(keys.div_ceil(BUCKETS.unsigned_abs())).unwrap_or(i64::MAX),
        })
    }
}

impl Range {
    /// The bucket of a row, as SQL. What came into being since is in the first or the last one.
    pub(super) fn bucket(self, pair: &Pair<'_>) -> String {
        let key = ident(column(pair).unwrap_or_default());
        format!(
            "least(greatest((t.{key} - {}::int8) / {}::int8, 0::int8), {}::int8)",
            Literal(self.low),
            self.width,
            BUCKETS - 1
        )
    }

    /// The rows of some buckets, as SQL that an index can answer.
    pub(super) fn filter(self, pair: &Pair<'_>, buckets: &[u32]) -> String {
        let key = ident(column(pair).unwrap_or_default());
        let mut sorted: Vec<i64> = buckets.iter().map(|b| i64::from(*b)).collect();
        sorted.sort_unstable();
        sorted.dedup();
        // Neighbours are one range.
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for bucket in sorted {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == bucket => *last = bucket,
                _ => runs.push((bucket, bucket)),
            }
        }
        let at = |bucket: i64| Literal(self.low.saturating_add(self.width.saturating_mul(bucket)));
        let words = runs.into_iter().map(|(first, last)| {
            let from = (first > 0).then(|| format!("t.{key} >= {}::int8", at(first)));
            let to = (last < BUCKETS - 1).then(|| format!("t.{key} < {}::int8", at(last + 1)));
            let both: Vec<String> = from.into_iter().chain(to).collect();
            if both.is_empty() { "true".to_owned() } else { format!("({})", both.join(" AND ")) }
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() { "false".to_owned() } else { words.join(" OR ") }
    }
}

/// A number as SQL takes it everywhere: the least one has no positive form.
struct Literal(i64);

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Column, Kind, Table};
    use super::*;

    fn table() -> Table {
        let column = |name: &str, decl: &str, base: &str| Column {
            name: name.into(),
            decl: decl.into(),
            base: base.into(),
            default: None,
            constant: false,
        };
        Table {
            schema: "public".into(),
            name: "t".into(),
            kind: Kind::Table,
            populated: true,
            index_bytes: 0,
            dead: 0,
            bytes: 1 << 30,
            columns: vec![column("id", "bigint", "int8"), column("v", "text", "text")],
            key: vec!["id".into()],
        }
    }

    fn range(low: i64, high: i64, bytes: u64) -> Option<Range> {
        Ends(BTreeMap::from([(0, (low, high))])).range(0, bytes)
    }

    #[test]
    fn only_dense_keys_are_cut_into_ranges() {
        assert_eq!(range(1, 6_000_000, 600 << 20), Some(Range { low: 1, width: 23_438 }));
        assert_eq!(range(i64::MIN, i64::MAX, u64::MAX), None);
        assert_eq!(range(1, 1 << 50, 600 << 20), None, "such as numbers made of the time");
        assert_eq!(Ends::default().range(0, 1 << 30), None);
    }

    #[test]
    fn neighbouring_buckets_are_one_range_and_the_ends_are_open() {
        let (before, after) = (table(), table());
        let pair = Pair::new("t", &before, &after, true);
        let cut = Range { low: 1, width: 10 };
        assert_eq!(
            cut.filter(&pair, &[3, 0, 4, 255]),
            "(t.\"id\" < '11'::int8) OR (t.\"id\" >= '31'::int8 AND t.\"id\" < '51'::int8) OR (t.\"id\" >= '2551'::int8)"
        );
        let all: Vec<u32> = (0..256).collect();
        assert_eq!(cut.filter(&pair, &all), "true");
        assert_eq!(cut.filter(&pair, &[]), "false");
    }
}
