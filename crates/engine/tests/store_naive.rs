//! Every kind of small change to a table, found by the real diff as by a naive one.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::data::StoreKind::Sqlite;
use switchback_engine::store::{self, Progress, Source};

type Row = (Value, Value, Value);

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (-2i64..3).prop_map(Value::Integer),
        prop_oneof![Just(1.0), Just(0.5), Just(-2.0), Just(9.3e18)].prop_map(Value::Real),
        "[a1A]{0,2}".prop_map(Value::Text),
        proptest::collection::vec(0u8..3, 0..2).prop_map(Value::Blob),
    ]
}

fn shown(v: &Value) -> String {
    format!("{v:?}")
}

const SHAPES: [(&str, bool); 5] = [
    ("CREATE TABLE t(k, a, b)", false),
    ("CREATE TABLE t(k PRIMARY KEY, a, b)", true),
    ("CREATE TABLE t(k NOT NULL PRIMARY KEY, a, b) WITHOUT ROWID", true),
    ("CREATE TABLE t(k, a, b, PRIMARY KEY(a, k))", true),
    ("CREATE TABLE t(rowid, _rowid_, oid)", false),
];

fn fill(path: &Path, shape: &str, rows: &[Row]) -> Vec<Row> {
    let conn = make(path, shape);
    let columns = if shape.contains("_rowid_") { ["rowid", "_rowid_", "oid"] } else { ["k", "a", "b"] };
    for row in rows {
        // Rows that the key forbids are left out; what went in is read back.
        let _ = conn.execute("INSERT INTO t VALUES(?1,?2,?3)", rusqlite::params![row.0, row.1, row.2]);
    }
    let sql = format!("SELECT T.{},T.{},T.{} FROM t AS T", columns[0], columns[1], columns[2]);
    let mut read = conn.prepare(&sql).unwrap();
    let rows = read.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn multiset(rows: &[Row]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for r in rows {
        *counts.entry(format!("{}|{}|{}", shown(&r.0), shown(&r.1), shown(&r.2))).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_change_is_found(
        shape in 0..SHAPES.len(),
        rows in proptest::collection::vec((value(), value(), value()), 0..8),
        edits in proptest::collection::vec((0usize..8, 0usize..3, value(), any::<bool>()), 0..3),
        swap in any::<Option<(proptest::sample::Index, proptest::sample::Index)>>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut changed = rows.clone();
        for (at, column, to, delete) in edits {
            if at < changed.len() {
                if delete { changed.remove(at); continue; }
                let row = &mut changed[at];
                *[&mut row.0, &mut row.1, &mut row.2].into_iter().nth(column).unwrap() = to;
            } else {
                changed.push((to.clone(), to, Value::Null));
            }
        }
        if let Some((i, j)) = swap && !changed.is_empty() {
            let (i, j) = (i.index(changed.len()), j.index(changed.len()));
            changed.swap(i, j);
        }
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let (sql, keyed) = SHAPES[shape];
        let (old, new) = (fill(&a, sql, &rows), fill(&b, sql, &changed));
        let (sa, sb) = (Source::cold(&a, dir.path()), Source::cold(&b, dir.path()));
        let diff = store::diff(Sqlite, sa, sb, &none()).unwrap();
        let equal = multiset(&old) == multiset(&new);
        prop_assert_eq!(diff.is_empty(), equal);
        let (pa, pb) = (store::fingerprint(Sqlite, sa, &none()).unwrap(), store::fingerprint(Sqlite, sb, &none()).unwrap());
        prop_assert_eq!(pa.digest == pb.digest, equal);
        let part = &diff.parts[0];
        prop_assert_eq!((part.before, part.after), (old.len() as u64, new.len() as u64));
        prop_assert_eq!(part.after as i64 - part.before as i64, part.rows_added as i64 - part.rows_removed as i64);
        // What is neither removed nor changed is in both: never more than the common multiset,
        // and with a key or as a multiset exactly as much.
        let (mo, mn) = (multiset(&old), multiset(&new));
        let common: i64 = mo.iter().map(|(row, n)| (*n).min(mn.get(row).copied().unwrap_or(0))).sum();
        let kept = (part.before - part.rows_removed - part.rows_changed) as i64;
        prop_assert!(kept <= common);
        if keyed || sql.contains("_rowid_") {
            prop_assert_eq!(kept, common, "{:?}", part);
        }
        let out = dir.path().join("out");
        let stats = store::export(Sqlite, sa, sb, &out, &none()).unwrap();
        prop_assert_eq!(stats.total(), part.rows_added + part.rows_removed + part.rows_changed);
    }
}

fn none() -> Progress<'static> {
    Progress::none()
}

fn make(path: &Path, sql: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}
