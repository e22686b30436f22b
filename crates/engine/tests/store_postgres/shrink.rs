//! Fewer rows of large tables, and still a database that makes sense.

use crate::cluster::Cluster;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{Amcheck, integrity, shrink};

/// Families of rows, a circle, partitions, inheritance, a key of two columns, a table that refers to itself, hostile names, triggers
/// and rules that would stop it; settings that refer to a large table through another one.
const DATA: &str = "
    CREATE SCHEMA \"odd; --\";
    CREATE TABLE account (id int PRIMARY KEY, name text);
    INSERT INTO account SELECT i, 'a' || i FROM generate_series(1, 200) i;
    CREATE TABLE \"odd; --\".\"it's $do$\" (id int PRIMARY KEY, account int NOT NULL REFERENCES account, parent int REFERENCES \"odd; --\".\"it's $do$\", body text);
    INSERT INTO \"odd; --\".\"it's $do$\" SELECT i, 1 + i % 200, CASE WHEN i % 10 = 0 THEN i - 1 END, repeat('x', 200) FROM generate_series(1, 6000) i;
    CREATE TABLE line (a int, n int, body text, PRIMARY KEY (a, n), FOREIGN KEY (a) REFERENCES \"odd; --\".\"it's $do$\" ON DELETE CASCADE);
    INSERT INTO line SELECT o.id, n, repeat('y', 50) FROM \"odd; --\".\"it's $do$\" o, generate_series(1, 4) n;
    CREATE TABLE note (id int PRIMARY KEY, a int, n int, FOREIGN KEY (a, n) REFERENCES line);
    INSERT INTO note SELECT i, i, 2 FROM generate_series(1, 3000) i;
    CREATE TABLE setting (key text PRIMARY KEY, note int NOT NULL REFERENCES note);
    INSERT INTO setting VALUES ('pinned', 2999);
    CREATE TABLE alembic_version (id int REFERENCES \"odd; --\".\"it's $do$\");
    INSERT INTO alembic_version SELECT i FROM generate_series(1, 1200) i;
    CREATE TABLE log (id int, at date NOT NULL, account int REFERENCES account) PARTITION BY RANGE (at);
    CREATE TABLE log_24 PARTITION OF log FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
    CREATE TABLE log_25 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2040-01-01');
    INSERT INTO log SELECT i, date '2024-06-01' + i % 800, 1 + i % 200 FROM generate_series(1, 5000) i;
    CREATE TABLE base (id int); CREATE TABLE derived () INHERITS (base);
    INSERT INTO base SELECT i FROM generate_series(1, 2000) i; INSERT INTO derived SELECT i FROM generate_series(1, 10) i;
    CREATE TABLE hen (id int PRIMARY KEY, egg int); CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen);
    INSERT INTO hen SELECT i, i FROM generate_series(1, 2000) i; INSERT INTO egg SELECT i, i FROM generate_series(1, 2000) i;
    ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a trigger took part''; END';
    CREATE TRIGGER no BEFORE DELETE ON line FOR EACH ROW EXECUTE FUNCTION no();
    CREATE RULE never AS ON DELETE TO hen DO INSTEAD NOTHING;
    ALTER TABLE account ENABLE ROW LEVEL SECURITY;";

fn count(cluster: &Cluster, sql: &str) -> u64 {
    cluster.sql("app", sql).trim().parse().unwrap_or_else(|e| panic!("{sql}: {e}"))
}

#[test]
fn a_share_is_left_of_large_tables_and_every_reference_leads_somewhere() {
    let cluster = Cluster::new();
    cluster.sql("app", DATA);
    let not = ["alembic_version".to_owned()];
    let whole = shrink(&cluster, &[], 100, &not, &Progress::none()).unwrap();
    assert_eq!(whole.tables, 7, "orders, lines, notes, log, base, hen, egg: {whole:?}");
    let left = shrink(&cluster, &[], 25, &not, &Progress::none()).unwrap();
    for (what, sql, low, high) in [
        ("families", "SELECT count(*) FROM \"odd; --\".\"it's $do$\"", 1300, 2700),
        ("lines", "SELECT count(*) FROM line", 5000, 6400),
        ("notes", "SELECT count(*) FROM note", 150, 900),
        ("log", "SELECT count(*) FROM log", 1100, 1400),
        ("base", "SELECT count(*) FROM ONLY base", 400, 600),
        ("derived", "SELECT count(*) FROM derived", 10, 10),
        ("accounts", "SELECT count(*) FROM account", 200, 200),
        ("settings", "SELECT count(*) FROM setting", 1, 1),
        ("bookkeeping", "SELECT count(*) FROM alembic_version", 1200, 1200),
        (
            "orphans of two columns",
            "SELECT count(*) FROM note n WHERE NOT EXISTS (SELECT FROM line l WHERE (l.a, l.n) = (n.a, n.n))",
            0,
            0,
        ),
        (
            "orphans",
            "SELECT count(*) FROM egg e WHERE NOT EXISTS (SELECT FROM hen h WHERE h.id = e.hen)",
            0,
            0,
        ),
        (
            "orphans",
            "SELECT count(*) FROM hen h WHERE NOT EXISTS (SELECT FROM egg e WHERE e.id = h.egg)",
            0,
            0,
        ),
    ] {
        let found = count(&cluster, sql);
        assert!((low..=high).contains(&found), "{what}: {found}, {left:?}");
    }
    assert!(left.bytes * 2 < whole.bytes, "{left:?} of {whole:?}");
    let said: u64 = [
        "\"odd; --\".\"it's $do$\"",
        "line",
        "note",
        "log",
        "base",
        "account",
        "setting",
        "alembic_version",
        "hen",
        "egg",
    ]
    .iter()
    .map(|table| count(&cluster, &format!("SELECT count(*) FROM {table}")))
    .sum();
    assert_eq!(left.rows, said);
    let problems = integrity(&cluster, &[], Amcheck::Skip, &Progress::none()).unwrap();
    assert_eq!(problems, Vec::<String>::new(), "orphans are problems");
}
