//! Capturing which rows are written to: what it says must lead to the same as comparing everything.

use crate::cluster::Cluster;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use switchback_core::carry::{Outcome, Rules};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::capture::{self, Batch, Known, Looked, Marks, Name};
use switchback_engine::store::postgres::{self, PgError, Scope, Scopes};

const NO: &dyn Fn() -> bool = &|| false;

fn logical(options: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.stop("fast");
    cluster.options = format!("-c wal_level=logical {options}");
    cluster.start();
    cluster
}

fn begin(cluster: &Cluster) -> Marks {
    capture::begin(cluster, "app", "g2", NO).unwrap().expect("it can be captured")
}

fn look(cluster: &Cluster, marks: &Marks, most: Option<u32>, known: &mut Known) -> Looked {
    let mut each = |batch: Batch| {
        known.add(batch);
        Ok(())
    };
    capture::look(cluster, "app", marks, most, &mut each, NO).unwrap().expect("the slot is there")
}

fn scope(cluster: &Cluster, marks: &Marks, known: Known) -> (Scope, BTreeMap<Name, String>) {
    known.scope(marks, capture::compare(cluster, "app", marks, NO).unwrap())
}

fn words(whole: &BTreeMap<Name, String>) -> Vec<String> {
    whole.iter().map(|((_, table), why)| format!("{table}: {why}")).collect()
}

/// What an export holds, but for its times.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            found.insert(
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).unwrap(),
            );
        }
    }
    found
}

/// The same as a comparison of everything, for exports and for what is carried.
#[track_caller]
fn assert_same(before: &Cluster, after: &Cluster, target: &mut Cluster, scope: Scope, case: &str) -> Outcome {
    let scopes = Scopes::from([("app".to_owned(), scope)]);
    let dir = tempfile::tempdir().unwrap();
    let (all, some) = (dir.path().join("all"), dir.path().join("some"));
    postgres::export(before, after, &[], &all, &Progress::none()).unwrap();
    postgres::export_within((before, after), &[], &scopes, &some, &Progress::none()).unwrap();
    assert_eq!(files(&all), files(&some), "{case}");
    let rules = Rules { touched: Some(BTreeMap::new()), before_upgrade: false };
    let other = target.copy();
    let mut whole = postgres::carry_writes((before, after, target), &[], &rules, &Progress::none()).unwrap();
    let mut part =
        postgres::carry_within((before, after, &other), &[], &scopes, &rules, &Progress::none()).unwrap();
    (whole.carried.took_ms, part.carried.took_ms) = (0, 0);
    whole.quarantine.sort_by_key(|q| format!("{q:?}"));
    part.quarantine.sort_by_key(|q| format!("{q:?}"));
    assert_eq!(whole, part, "{case}");
    part
}

const TABLES: &str = "
    CREATE TABLE whole(id int PRIMARY KEY, v text); CREATE TABLE \"odd \"\"T.x, y: z\"(\"k \"\"1\" text, n bigint, v text, PRIMARY KEY (n, \"k \"\"1\"));
    CREATE TABLE full_id(id uuid PRIMARY KEY, v text, big text); ALTER TABLE full_id REPLICA IDENTITY FULL;
    CREATE TABLE heap(v text); CREATE TABLE heap2(v text); CREATE TABLE none(id int PRIMARY KEY, v text); ALTER TABLE none REPLICA IDENTITY NOTHING;
    CREATE TABLE num(id numeric PRIMARY KEY, v text); CREATE UNLOGGED TABLE fast(id int PRIMARY KEY, v text);
    CREATE TABLE parts(id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
    CREATE TABLE emptied(id int PRIMARY KEY, v text); CREATE TABLE altered(id int PRIMARY KEY, v text);
    CREATE TABLE times(at timestamptz PRIMARY KEY, v text); CREATE TABLE bytes(b bytea PRIMARY KEY, v text);
    INSERT INTO whole SELECT i, 'v' || i FROM generate_series(-50, 500) i;
    INSERT INTO \"odd \"\"T.x, y: z\" SELECT 'k''\"\\,{}' || i % 7, i / 7, 'v' FROM generate_series(0, 300) i;
    INSERT INTO full_id SELECT md5(i::text)::uuid, 'v' || i, repeat('x', 9000) FROM generate_series(1, 50) i;
    INSERT INTO heap SELECT 'v' || i % 5 FROM generate_series(1, 50) i; INSERT INTO heap2 SELECT v FROM heap;
    INSERT INTO none SELECT i, 'v' FROM generate_series(1, 50) i; INSERT INTO num SELECT i / 10.0, 'v' FROM generate_series(1, 50) i;
    INSERT INTO fast SELECT i, 'v' FROM generate_series(1, 50) i;
    INSERT INTO parts SELECT i, date '2020-06-01' + i % 300, 'v' FROM generate_series(1, 300) i;
    INSERT INTO emptied SELECT i, 'v' FROM generate_series(1, 50) i; INSERT INTO altered SELECT i, 'v' FROM generate_series(1, 50) i;
    INSERT INTO times SELECT timestamptz '2026-03-29 00:30+00' + i * interval '1 min', 'v' FROM generate_series(1, 50) i;
    INSERT INTO bytes SELECT decode(md5(i::text), 'hex'), 'v' FROM generate_series(1, 50) i;
    SELECT lo_from_bytea(70, '\\x01');";

#[test]
fn what_was_captured_leads_to_the_same_as_comparing_everything() {
    let mut target = logical("");
    target.sql("app", TABLES);
    let before = target.copy();
    let mut after = target.copy();
    let marks = begin(&after);
    let first = capture::next_transaction(&after, "app", NO).unwrap();
    after.sql(
        "app",
        "INSERT INTO whole VALUES (1000, 'n'), (1001, E'a\\tb\\n'); UPDATE whole SET id = 2000 WHERE id = 7; UPDATE whole SET v = 'x' WHERE id < -45;
         DELETE FROM whole WHERE id BETWEEN 10 AND 20; INSERT INTO whole VALUES (3000, 'gone again'); DELETE FROM whole WHERE id = 3000;
         BEGIN; INSERT INTO whole VALUES (4000, 'never'); ROLLBACK;
         BEGIN; INSERT INTO whole VALUES (5000, 'never'); SAVEPOINT a; INSERT INTO whole VALUES (5001, 'x'); ROLLBACK TO a; INSERT INTO whole VALUES (5002, 'y'); COMMIT;
         UPDATE \"odd \"\"T.x, y: z\" SET v = 'w' WHERE n = 3; UPDATE \"odd \"\"T.x, y: z\" SET \"k \"\"1\" = 'new ''key''' WHERE n = 4 AND \"k \"\"1\" LIKE '%1';
         DELETE FROM \"odd \"\"T.x, y: z\" WHERE n = 5; UPDATE full_id SET v = 'w' WHERE v = 'v3'; UPDATE full_id SET id = md5('z')::uuid WHERE v = 'v4';
         DELETE FROM full_id WHERE v = 'v5'; INSERT INTO heap VALUES ('v1'); INSERT INTO fast VALUES (99, 'n'); UPDATE num SET v = 'w' WHERE id = 1.0;
         UPDATE none SET id = 999 WHERE id = 3; UPDATE parts SET v = 'w' WHERE id = 9; UPDATE parts SET at = '2021-12-01' WHERE id = 10; DELETE FROM parts WHERE id = 11;
         TRUNCATE emptied; INSERT INTO emptied VALUES (3, 'v'); ALTER TABLE altered ADD c int DEFAULT random() * 10; CREATE TABLE fresh(id int PRIMARY KEY); INSERT INTO fresh VALUES (1);
         UPDATE times SET v = 'w' WHERE at < '2026-03-29 00:40+00'; DELETE FROM bytes WHERE b = decode(md5('3'), 'hex'); SELECT lo_from_bytea(71, '\\x02')",
    );
    assert_ne!(capture::next_transaction(&after, "app", NO).unwrap(), first);
    // Killed, as by the kernel: what the server had not written down of the slot is said once more.
    let mut known = Known::default();
    let some = look(&after, &marks, Some(5), &mut known);
    capture::advance(&after, "app", &marks, some.to.unwrap(), NO).unwrap();
    after.stop("immediate");
    after.start();
    after.sql("app", "UPDATE whole SET v = 'after the crash' WHERE id = 30");
    let rest = look(&after, &marks, None, &mut known);
    assert!(rest.from <= some.to.unwrap() && rest.to.unwrap() <= rest.end, "{some:?} {rest:?}");
    let (found, whole) = scope(&after, &marks, known);
    assert_eq!(
        words(&whole),
        [
            "altered: its definition was changed",
            "emptied: its definition was changed",
            "heap: it is new, or its rows have no key that can be looked up",
            "none: it is new, or its rows have no key that can be looked up",
            "num: it is new, or its rows have no key that can be looked up",
        ]
    );
    let rows = |table: &str| found[&("public".to_owned(), table.to_owned())].rows.len();
    assert_eq!((rows("heap2"), rows("full_id"), rows("bytes"), rows("times")), (0, 4, 1, 9));
    assert_eq!(rows("whole"), 2 + 2 + 5 + 11 + 1 + 2 + 1, "each row that was written to, once");
    assert!(!found.contains_key(&("public".to_owned(), "fast".to_owned())), "it is not logged");
    assert_same(&before, &after, &mut target, found, "all kinds");
    assert_eq!(capture::drop_slots(&after, NO).unwrap(), 1);
    assert_eq!(capture::drop_slots(&after, NO).unwrap(), 0);
}

#[test]
fn random_writes_in_a_random_order_are_captured() {
    let mut seed = 7_u64;
    let mut next = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut target = logical("");
    target.sql("app", TABLES);
    let before = target.copy();
    let after = target.copy();
    let marks = begin(&after);
    let mut known = Known::default();
    for round in 0..12 {
        let mut sql = String::new();
        for _ in 0..40 {
            let (id, other) = (next(600), next(100_000));
            let table = ["whole", "emptied", "altered"][next(3) as usize];
            let _ = match next(7) {
                0 | 1 => write!(
                    sql,
                    "INSERT INTO {table} VALUES ({id}, 'r{other}') ON CONFLICT (id) DO UPDATE SET v = 'c{other}';"
                ),
                2 => write!(sql, "UPDATE {table} SET v = 'u{other}' WHERE id % 97 = {};", id % 97),
                3 => write!(sql, "DELETE FROM {table} WHERE id = {id};"),
                4 => write!(sql, "UPDATE {table} SET id = id + 10000 + {other} * 10 WHERE id = {id};"),
                5 => write!(sql, "BEGIN; DELETE FROM {table} WHERE id < {id}; ROLLBACK;"),
                _ => write!(
                    sql,
                    "INSERT INTO parts VALUES ({other}, date '2020-01-01' + {id}, 'r') ON CONFLICT DO NOTHING;"
                ),
            };
        }
        after.sql("app", &sql);
        if round % 3 != 0 {
            let looked = look(&after, &marks, (round % 2 == 0).then_some(20), &mut known);
            if let Some(to) = looked.to {
                capture::advance(&after, "app", &marks, to, NO).unwrap();
            }
        }
    }
    look(&after, &marks, None, &mut known);
    let (found, whole) = scope(&after, &marks, known);
    assert_eq!(words(&whole), [""; 0]);
    let outcome = assert_same(&before, &after, &mut target, found, "random");
    assert!(outcome.carried.sum(switchback_core::carry::CarriedPart::carried) > 100, "{outcome:?}");
}

#[test]
fn what_cannot_be_captured_is_said_and_a_changed_type_leaves_nothing_known() {
    let plain = Cluster::new();
    let why = capture::begin(&plain, "app", "g2", NO).unwrap().expect_err("it is not logical");
    assert!(why.contains("wal_level = replica"), "{why}");
    let none = logical("-c max_replication_slots=0");
    assert!(capture::begin(&none, "app", "g2", NO).unwrap().is_err());

    let cluster = logical("-c max_slot_wal_keep_size=1 -c min_wal_size=32MB -c max_wal_size=32MB");
    cluster.sql("app", "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t(id int PRIMARY KEY, m mood); INSERT INTO t VALUES (1, 'a')");
    let marks = begin(&cluster);
    cluster.sql("app", "ALTER TYPE mood ADD VALUE 'c'");
    let done = capture::compare(&cluster, "app", &marks, NO).unwrap();
    assert_eq!(done.everything, None, "no row differs by it");
    cluster.sql("app", "ALTER TYPE mood RENAME VALUE 'a' TO 'z'");
    let (found, whole) = scope(&cluster, &marks, Known::default());
    assert_eq!((found.len(), words(&whole)), (0, vec!["t: the definition of a type was changed".to_owned()]));

    // Nobody reads it, and the server may keep 1 MB: production's disk does not fill.
    for _ in 0..6 {
        cluster.sql("app", "CREATE TABLE x AS SELECT i, repeat('x', 500) FROM generate_series(1, 40000) i; DROP TABLE x; SELECT pg_switch_wal(); CHECKPOINT");
    }
    let mut each = |_: Batch| Ok::<_, PgError>(());
    let lost = capture::look(&cluster, "app", &marks, None, &mut each, NO).unwrap().expect_err("lost");
    assert!(lost.contains("more than its limit"), "{lost}");
    capture::drop_slots(&cluster, NO).unwrap();
    let gone = capture::look(&cluster, "app", &marks, None, &mut each, NO).unwrap().expect_err("gone");
    assert!(gone.contains("gone"), "{gone}");
}

#[test]
fn the_server_lets_go_of_its_log_also_where_nothing_is_written_to_the_database() {
    let cluster = logical("");
    cluster.sql("app", "CREATE TABLE t(id int PRIMARY KEY)");
    let marks = begin(&cluster);
    let mut known = Known::default();
    cluster.sql(
        "postgres",
        "CREATE TABLE x AS SELECT i, repeat('x', 500) FROM generate_series(1, 50000) i; CHECKPOINT",
    );
    let looked = look(&cluster, &marks, None, &mut known);
    assert!(looked.to.is_none() && looked.kept > 16 << 20, "{looked:?}");
    assert!(capture::nudge(&cluster, "app", &looked, NO).unwrap());
    let looked = look(&cluster, &marks, None, &mut known);
    capture::advance(&cluster, "app", &marks, looked.to.expect("the message"), NO).unwrap();
    // The server says where it is now and then; decoding begins there.
    cluster.sql("postgres", "CHECKPOINT");
    assert!(capture::nudge(&cluster, "app", &Looked { to: None, ..looked }, NO).unwrap());
    let looked = look(&cluster, &marks, None, &mut known);
    capture::advance(&cluster, "app", &marks, looked.to.expect("the message"), NO).unwrap();
    let after = look(&cluster, &marks, None, &mut known);
    assert!(after.kept < 16 << 20, "{after:?}");
    assert!(!capture::nudge(&cluster, "app", &after, NO).unwrap());
}

/// How long carrying the same writes takes, where everything is compared, and where it is known which rows were written to.
/// `cargo nextest run -p switchback-engine --test store_postgres --run-ignored only what_it_saves --no-capture`.
#[test]
#[ignore = "a measurement"]
fn what_it_saves() {
    eprintln!("| rows | database | writes | comparing, ms | reading the log, ms | capture, ms |");
    for rows in [200_000, 2_000_000] {
        let mut target = logical("");
        target.sql(
            "app",
            &format!("CREATE TABLE accounts(id int PRIMARY KEY, balance int, filler char(84)); INSERT INTO accounts SELECT i, 0, 'f' FROM generate_series(1, {rows}) i; VACUUM ANALYZE"),
        );
        let size = target.sql("app", "SELECT pg_database_size('app') / 1000000");
        let before = target.copy();
        let after = target.copy();
        let marks = begin(&after);
        after.sql("app", &format!("UPDATE accounts SET balance = balance + 1 WHERE id IN (SELECT 1 + g * 7919 % {rows} FROM generate_series(1, 1000) g)"));
        let began = std::time::Instant::now();
        let mut known = Known::default();
        look(&after, &marks, None, &mut known);
        let (found, _) = scope(&after, &marks, known);
        let read = began.elapsed().as_millis();
        let scopes = Scopes::from([("app".to_owned(), found)]);
        let rules = Rules { touched: Some(BTreeMap::new()), before_upgrade: false };
        let other = target.copy();
        let took = |one: &Cluster, scopes: &Scopes| {
            let began = std::time::Instant::now();
            let servers =
                (&before as &dyn postgres::Psql, &after as &dyn postgres::Psql, one as &dyn postgres::Psql);
            let done = postgres::carry_within(servers, &[], scopes, &rules, &Progress::none()).unwrap();
            assert_eq!(done.carried.parts["app.public.accounts"].updated, 1000);
            began.elapsed().as_millis()
        };
        let (whole, part) = (took(&target, &Scopes::new()), took(&other, &scopes));
        eprintln!("| {rows} | {} MB | 1000 | {whole} | {read} | {part} |", size.trim());
    }
}
