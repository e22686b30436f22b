//! Random changes, found by the real comparison as by a naive one.

use crate::changes::{diff, part};
use crate::cluster::Cluster;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A small generator of numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Keys of all kinds; NULL is for tables without a key.
const KEYS: [&str; 12] =
    ["''", "'a'", "'A'", "'b'", "'a b'", "'ä'", "E'\\\\N'", "E'x\\ty'", "'~'", "'日'", "E'\\n'", "'aa'"];
const VALUES: [&str; 6] = ["NULL", "''", "'x'", "'NULL'", "E'a\\nb'", "'\\N'"];

const TABLES: [&str; 4] = ["keyed", "pair", "loose", "leaf"];

type Rows = Vec<(usize, i64, usize)>;

fn random(dice: &mut Dice, table: &str) -> Rows {
    let mut rows = Rows::new();
    for _ in 0..dice.roll(25) {
        let row = (
            usize::try_from(dice.roll(12)).unwrap(),
            i64::try_from(dice.roll(4)).unwrap() - 1,
            usize::try_from(dice.roll(6)).unwrap(),
        );
        let clash = rows.iter().any(|r: &(usize, i64, usize)| match table {
            "keyed" => r.0 == row.0,
            "pair" => (r.0, r.1) == (row.0, row.1),
            "leaf" => r.1 == row.1,
            _ => false,
        });
        if !clash {
            rows.push(row);
        }
    }
    rows
}

fn fill(table: &str, rows: &Rows) -> String {
    let mut sql = format!("TRUNCATE {table};\n");
    for (k, n, v) in rows {
        let _ = writeln!(sql, "INSERT INTO {table}(k, n, v) VALUES ({}, {n}, {});", KEYS[*k], VALUES[*v]);
    }
    sql
}

fn naive(table: &str, before: &Rows, after: &Rows) -> (u64, u64, u64) {
    let key = |r: &(usize, i64, usize)| match table {
        "keyed" => (r.0, 0, 0),
        "pair" => (r.0, r.1, 0),
        "leaf" => (0, r.1, 0),
        _ => *r,
    };
    let group = |rows: &Rows| {
        let mut map: BTreeMap<_, Rows> = BTreeMap::new();
        for r in rows {
            map.entry(key(r)).or_default().push(*r);
        }
        map
    };
    let (a, b) = (group(before), group(after));
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    for key in a.keys().chain(b.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (x, y) = (a.get(key).map_or(0, Vec::len), b.get(key).map_or(0, Vec::len));
        added += y.saturating_sub(x) as u64;
        removed += x.saturating_sub(y) as u64;
        changed += u64::from(table != "loose" && x == 1 && y == 1 && a[key] != b[key]);
    }
    (added, removed, changed)
}

#[test]
fn random_changes_are_counted_as_a_naive_comparison_counts_them() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE keyed(k text PRIMARY KEY, n int, v text); CREATE TABLE pair(k text, n int, v text, PRIMARY KEY (n, k));
         CREATE TABLE loose(k text, n int, v text);
         CREATE TABLE tree(k text, n int PRIMARY KEY, v text) PARTITION BY RANGE (n);
         CREATE TABLE leaf PARTITION OF tree DEFAULT;",
    );
    let b = a.copy();
    let mut dice = Dice(20_261_122);
    for round in 0..15 {
        let states: Vec<(Rows, Rows)> = TABLES
            .iter()
            .map(|t| {
                let old = random(&mut dice, t);
                // Every third state is a small change of the old one, the others are unrelated.
                let new = if dice.roll(3) == 0 {
                    old.iter().skip(1).copied().collect()
                } else {
                    random(&mut dice, t)
                };
                (old, new)
            })
            .collect();
        let script = |new: bool| -> String {
            TABLES.iter().zip(&states).map(|(t, (x, y))| fill(t, if new { y } else { x })).collect()
        };
        a.sql("app", &script(false));
        b.sql("app", &script(true));
        let found = diff(&a, &b);
        for (table, (old, new)) in TABLES.iter().zip(&states) {
            let p = part(&found, &format!("app.public.{table}"));
            assert_eq!(
                (p.rows_added, p.rows_removed, p.rows_changed),
                naive(table, old, new),
                "round {round}, {table}: {old:?} -> {new:?}"
            );
            assert_eq!((p.before, p.after), (old.len() as u64, new.len() as u64));
        }
    }
}
