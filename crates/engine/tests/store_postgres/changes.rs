//! Differences of rows, exactly.

use crate::cluster::Cluster;
use crate::content::TYPES;
use serde_json::json;
use std::time::Instant;
use switchback_core::data::{PartChange, PartDiff, RowOp, StoreDiff};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres;

pub fn diff(a: &Cluster, b: &Cluster) -> StoreDiff {
    postgres::diff(a, b, &[], &Progress::none()).unwrap()
}

pub fn part<'a>(diff: &'a StoreDiff, name: &str) -> &'a PartDiff {
    diff.parts.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name} in {:#?}", diff.parts))
}

fn counts(p: &PartDiff) -> (u64, u64, u64) {
    (p.rows_added, p.rows_removed, p.rows_changed)
}

#[test]
fn two_copies_are_equal_and_every_kind_of_row_change_is_counted() {
    let mut a = Cluster::new();
    a.sql("app", TYPES);
    a.sql(
        "app",
        "CREATE TABLE text_key(k text COLLATE \"und-x-icu\", n int, v text, PRIMARY KEY (k, n));
         INSERT INTO text_key SELECT k, 1, 'v' FROM unnest('{a,A,b,B,ab,a b,a-b,Z,z,é,e,f,日本,\"\",\" \",_,\"x\ty\"}'::text[]) k;
         CREATE TABLE num_key(k numeric PRIMARY KEY, v text); INSERT INTO num_key VALUES (1.0, 'a'), (10, 'b'), (2, 'c'), (-3, 'd');
         CREATE TABLE uuid_key(k uuid PRIMARY KEY, v int); INSERT INTO uuid_key SELECT gen_random_uuid(), i FROM generate_series(1, 50) i;
         CREATE TABLE ts_key(k timestamptz PRIMARY KEY, v int); INSERT INTO ts_key SELECT '2020-01-01 BC'::timestamptz + i * '300 years'::interval, i FROM generate_series(1, 50) i;
         CREATE TABLE dup(x int, y text); INSERT INTO dup VALUES (1, NULL), (1, NULL), (1, NULL), (2, ''), (3, 'a');
         CREATE TABLE part(k int PRIMARY KEY, v text) PARTITION BY RANGE (k);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
         CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (1, 'x'), (101, 'y');
         CREATE UNLOGGED TABLE loose(x int); SELECT lo_from_bytea(5, '\\x01'), lo_from_bytea(6, '\\x02');",
    );
    let b = a.copy();
    let same = diff(&a, &b);
    assert!(same.is_empty() && same.new_orphans.is_empty(), "{same:#?}");
    assert_eq!(same.unchanged, same.parts.len() as u64);
    b.sql(
        "app",
        "UPDATE kinds SET n = 1.0, jb = '{\"n\": 1, \"e\": 1e400}', f8 = 0.1 WHERE id = 1;
         UPDATE kinds SET t = NULL, by = '\\x01' WHERE id = 2; DELETE FROM kinds WHERE id = 3; INSERT INTO kinds(id) VALUES (-5);
         UPDATE text_key SET v = 'w' WHERE k IN ('A', 'é', E'x\\ty'); DELETE FROM text_key WHERE k = ' ';
         INSERT INTO text_key VALUES ('a', 2, 'n'), (E'new\\nline', 1, NULL);
         UPDATE num_key SET k = 1.00 WHERE k = 1; UPDATE num_key SET v = 'z' WHERE k = -3; INSERT INTO num_key VALUES (20, 'n');
         UPDATE uuid_key SET v = -1 WHERE v = 7; DELETE FROM uuid_key WHERE v > 40; INSERT INTO uuid_key VALUES ('ffffffff-0000-0000-0000-000000000000', 0);
         UPDATE ts_key SET v = v + 1000 WHERE v % 10 = 0;
         DELETE FROM dup WHERE ctid = '(0,1)'; INSERT INTO dup VALUES (3, 'a'), (1, '');
         UPDATE part SET k = 102 WHERE k = 1; INSERT INTO loose VALUES (1);
         SELECT lo_put(5, 0, '\\x09'), lo_unlink(6), lo_from_bytea(7, '');",
    );
    let found = diff(&a, &b);
    for (name, wanted) in [
        ("app.public.kinds", (1, 1, 1)),
        ("app.public.text_key", (2, 1, 3)),
        ("app.public.num_key", (1, 0, 1)),
        ("app.public.uuid_key", (1, 10, 1)),
        ("app.public.ts_key", (0, 0, 5)),
        ("app.public.dup", (2, 1, 0)),
        ("app.public.part_1", (0, 1, 0)),
        ("app.public.part_2", (1, 0, 0)),
        ("app.public.loose", (1, 0, 0)),
        ("app.large objects", (1, 1, 1)),
    ] {
        assert_eq!(counts(part(&found, name)), wanted, "{name}: {:#?}", part(&found, name));
        assert_eq!(part(&found, name).change, PartChange::Changed);
    }
    let kinds = part(&found, "app.public.kinds");
    assert!(kinds.notes.iter().any(|n| n.starts_with("1 row holds the same values")), "{:?}", kinds.notes);
    let update = kinds.examples.iter().find(|e| e.op == RowOp::Update).unwrap();
    assert_eq!(update.key, json!({ "id": 2 }).as_object().unwrap().clone());
    assert_eq!(update.row.as_ref().unwrap()["by"], json!({ "$blob": "AQ==" }));
    assert_eq!(update.before.as_ref().unwrap()["n"], json!("NaN"));
    assert!(part(&found, "app.public.num_key").notes[0].contains("1.00"));
    assert!(part(&found, "app.public.loose").notes[0].starts_with("unlogged"));
    assert!(found.schema_changes.is_empty(), "{:?}", found.schema_changes);
    let examples = &part(&found, "app.public.uuid_key").examples;
    assert_eq!(examples.iter().filter(|e| e.op == RowOp::Delete).count(), 5);
    // What comes out backwards is the mirror image.
    let back = diff(&b, &a);
    for p in &found.parts {
        let mirror = part(&back, &p.name);
        assert_eq!(
            (p.rows_added, p.rows_removed, p.rows_changed),
            (mirror.rows_removed, mirror.rows_added, mirror.rows_changed)
        );
    }
}

#[test]
fn hostile_names_and_texts_go_through_unharmed() {
    let mut a = Cluster::new();
    let names = [
        "a\"b",
        "semi; DROP TABLE x",
        "new\nline",
        "..",
        "日本",
        "it's",
        ":var",
        "back\\slash",
        "%I %s",
        "$sql$",
        "a.b",
    ];
    let quote = |n: &str| format!("\"{}\"", n.replace('"', "\"\""));
    a.sql("postgres", &format!("CREATE DATABASE {}", quote("o'db \"; \\q ..")));
    for database in ["app", "o'db \"; \\q .."] {
        for name in names {
            let q = quote(name);
            a.sql(
                database,
                &format!(
                    "CREATE SCHEMA {q}; CREATE TABLE {q}.{q}({q} text PRIMARY KEY, \"v\" text DEFAULT 'x');
                     CREATE TABLE {q}.child({q} text, n int); ALTER TABLE {q}.child ADD FOREIGN KEY ({q}) REFERENCES {q}.{q} NOT VALID;
                     ALTER TABLE {q}.child ADD CONSTRAINT {q} CHECK (n > 0) NOT VALID;
                     INSERT INTO {q}.{q} VALUES ('k', 'old'); CREATE SEQUENCE {q}.\"seq {}\";",
                    name.replace('"', "\"\"")
                ),
            );
        }
    }
    let b = a.copy();
    for name in names {
        let q = quote(name);
        b.sql("app", &format!("INSERT INTO {q}.{q} VALUES (E'\\\\N\\t\\n', E'tail\\\\'); UPDATE {q}.{q} SET v = 'new' WHERE v = 'old'"));
    }
    let found = diff(&a, &b);
    let changed: Vec<_> = found.parts.iter().filter(|p| p.change != PartChange::Unchanged).collect();
    assert_eq!(changed.len(), names.len(), "{changed:#?}");
    for p in changed {
        assert_eq!(counts(p), (1, 0, 1), "{}", p.name);
        assert!(p.name.starts_with("app.") && !p.name.contains('\n'));
    }
    let problems = postgres::integrity(&b, &[], postgres::Amcheck::MayCreate, &Progress::none()).unwrap();
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn other_encodings_are_compared_exactly_and_two_encodings_are_refused() {
    let mut a = Cluster::new();
    for (name, encoding) in [("latin", "LATIN1"), ("ascii", "SQL_ASCII")] {
        a.sql(
            "postgres",
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        a.sql(
            name,
            "SET client_encoding = 'UTF8'; CREATE TABLE t(k text PRIMARY KEY, v text);
            INSERT INTO t VALUES ('a', 'x'), ('é', 'x'), ('z', 'x'), ('ÿ', 'x'), ('Ã', 'x'), ('ab', 'x')",
        );
    }
    a.sql("ascii", "SET client_encoding = 'SQL_ASCII'; INSERT INTO t VALUES (E'\\xff\\xfe', E'\\xe9')");
    let b = a.copy();
    for name in ["latin", "ascii"] {
        b.sql(name, "SET client_encoding = 'UTF8'; UPDATE t SET v = 'ü' WHERE k = 'é'; DELETE FROM t WHERE k = 'ÿ'; INSERT INTO t VALUES ('è', 'new')");
    }
    b.sql("ascii", "SET client_encoding = 'SQL_ASCII'; UPDATE t SET v = E'\\xe8' WHERE k = E'\\xff\\xfe'");
    let found = diff(&a, &b);
    assert_eq!(counts(part(&found, "latin.public.t")), (1, 1, 1));
    assert_eq!(counts(part(&found, "ascii.public.t")), (1, 1, 2));
    let updates: Vec<_> =
        part(&found, "ascii.public.t").examples.iter().filter(|e| e.op == RowOp::Update).collect();
    assert_eq!(updates[1].key["k"], json!({ "$text_base64": "//4=" }));
    b.sql("postgres", "DROP DATABASE latin; CREATE DATABASE latin TEMPLATE template0");
    let error = postgres::diff(&a, &b, &["latin".into()], &Progress::none()).unwrap_err().to_string();
    assert!(error.contains("encoding is UTF8, before it was LATIN1"), "{error}");
}

#[test]
fn large_tables_are_compared_in_bounded_memory_and_little_time() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE big(id int PRIMARY KEY, a text, b text, n numeric);
         INSERT INTO big SELECT i, md5(i::text), repeat(md5((-i)::text), 5), i / 7.0 FROM generate_series(1, 300000) i;
         CREATE TABLE heap AS SELECT id % 1000 AS k, a FROM big;",
    );
    let b = a.copy();
    b.sql(
        "app",
        "UPDATE big SET a = 'changed' WHERE id IN (7, 150000); DELETE FROM big WHERE id = 299999;
         INSERT INTO big(id, a) VALUES (-1, 'new'); INSERT INTO heap SELECT * FROM heap LIMIT 1;",
    );
    let started = Instant::now();
    postgres::fingerprint(&a, &[], &Progress::none()).unwrap();
    let hashed = started.elapsed();
    let found = diff(&a, &b);
    let few = started.elapsed() - hashed;
    assert_eq!(counts(part(&found, "app.public.big")), (1, 1, 2));
    assert_eq!(counts(part(&found, "app.public.heap")), (1, 0, 0));
    b.sql("app", "UPDATE big SET b = b || 'x'");
    let before = peak_bytes();
    let started = Instant::now();
    let found = diff(&a, &b);
    let all = started.elapsed();
    assert_eq!(part(&found, "app.public.big").rows_changed, 299_999);
    eprintln!("300,000 rows twice: fingerprint {hashed:?}, few changes {few:?}, all rows changed {all:?}");
    // Both sides are 90 MB of text each; the queues hold 2 x 5 batches of 256 KiB.
    assert!(peak_bytes() - before < 20 << 20, "{} -> {}", before, peak_bytes());
    assert!(all.as_secs() < 60, "{all:?}");
}

/// Most memory that this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_table_that_was_rewritten_row_by_row_takes_more_room_and_that_is_told() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE big (id int PRIMARY KEY, t text); INSERT INTO big SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 40000) i; \
         CREATE TABLE quiet AS TABLE big;",
    );
    let b = a.copy();
    b.sql("app", "UPDATE big SET t = t || '!'; CREATE INDEX by_text ON big (t); INSERT INTO quiet SELECT * FROM quiet;");
    let found = diff(&a, &b);
    let notes = &part(&found, "app.public.big").notes;
    assert!(notes.iter().any(|n| n.starts_with("takes ") && n.contains("VACUUM FULL")), "{notes:?}");
    assert!(notes.iter().any(|n| n.starts_with("its indexes take ")), "{notes:?}");
    assert!(part(&found, "app.public.quiet").notes.is_empty());
    b.sql("app", "DROP INDEX by_text");
    b.sql("app", "VACUUM FULL big");
    let found = diff(&a, &b);
    let notes = &part(&found, "app.public.big").notes;
    assert!(notes.is_empty(), "{notes:?}");
}
