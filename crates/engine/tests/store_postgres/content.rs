//! Fingerprints: what counts as content, and what does not.

use crate::cluster::Cluster;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use switchback_core::data::Fingerprint;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{self, PgError, Psql, compare_fingerprints};

pub fn print(cluster: &Cluster) -> Fingerprint {
    postgres::fingerprint(cluster, &[], &Progress::none()).unwrap()
}

/// One table with every built-in type that has more than one way to be printed, and hard values.
pub const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"'); CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kinds(id bigint PRIMARY KEY, b bool, i2 int2, n numeric, f4 float4, f8 float8, t text, v varchar(9),
  c char(5), by bytea, d date, ts timestamp, tz timestamptz, ti time, tt timetz, iv interval, u uuid, j json, jb jsonb,
  x xml, a int[], ta text[], m mood, p pair, dom positive, r int4range, mr nummultirange, ip inet, mac macaddr, bi bit(3),
  vb varbit, mo money, pt point, po polygon, tsv tsvector, oi oid, rc regclass, ch "char", na name,
  g int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO kinds VALUES
 (1, true, -32768, 1.00, '1e-45', 0.1, E'tab\t nl\n bs\\ nul\\N', 'x', 'ab', '\x00ff5c', '4000-01-01 BC', 'infinity',
  '2020-03-29 02:30:00.000001+02', '24:00', '00:00-15:59', '1 mon -1 day 00:00:00.5', '00000000-0000-0000-0000-000000000001',
  '{"a": 1,  "a": 2}', '{"n": 1.00, "e": 1e400}', '<a>é</a>', '{{1,NULL},{3,4}}', '{"NULL",NULL,"a,b\\"}', 'it''s "ok"',
  '(1,"a,""b")', 1, '[1,5)', '{[1.0,2.50]}', '::1/64', '08:00:2b:01:02:03', B'101', B'', '-12.34', '(0.1,-0)', '((0,0),(1,1),(2,0))',
  'a:1A b', 4294967295, 'pg_class', E'\\377', 'näme'),
 (2, NULL, NULL, 'NaN', 'NaN', '-0', '', NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}',
  '{}', NULL, NULL, NULL, 'empty', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO kinds VALUES
 (3, false, 1, '-Infinity', '-infinity', 1.7976931348623157e308, repeat('toast é ', 30000), '日本', '', repeat('z', 9)::bytea, 'infinity');
"#;

#[test]
fn equal_content_has_equal_fingerprints_whatever_the_pages_look_like() {
    let mut a = Cluster::new();
    a.sql("app", TYPES);
    a.sql(
        "app",
        "CREATE TABLE dup(x int); INSERT INTO dup SELECT i % 3 FROM generate_series(1, 999) i;
         CREATE TABLE part(k int, v text) PARTITION BY RANGE (k);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
         CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200);
         INSERT INTO part SELECT i, 'v' || i FROM generate_series(0, 199) i;
         CREATE MATERIALIZED VIEW mv AS SELECT x, count(*) FROM dup GROUP BY x;
         CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
         CREATE UNLOGGED TABLE scratch(x int); INSERT INTO scratch VALUES (1);
         CREATE TABLE none(); INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES;
         CREATE TABLE cols(\"a b\" int, \"c\"\"d\" int); INSERT INTO cols VALUES (1, 2);
         SELECT lo_from_bytea(0, '\\x0102'), lo_create(0); CREATE SEQUENCE seq; SELECT nextval('seq');",
    );
    let b = a.copy();
    let before = print(&a);
    assert_eq!(before, print(&b));
    for (name, rows) in [
        ("app.public.kinds", 3),
        ("app.public.dup", 999),
        ("app.public.part_1", 100),
        ("app.public.part_2", 100),
        ("app.public.none", 2),
        ("app.public.never", 0),
        ("app.public.scratch (unlogged)", 1),
        ("app.public.seq (sequence)", 1),
        ("app.large objects", 2),
    ] {
        assert_eq!(before.parts.get(name).map(|p| p.items), Some(rows), "{name}");
    }
    assert!(!before.parts.contains_key("app.public.part"));
    // Other pages, other settings of the server and the databases, a session in another time zone.
    b.sql(
        "app",
        "UPDATE dup SET x = x; UPDATE kinds SET t = t; VACUUM FULL; CLUSTER kinds USING kinds_pkey;",
    );
    b.sql("app", "ALTER TABLE kinds SET WITHOUT CLUSTER");
    b.sql(
        "postgres",
        "ALTER SYSTEM SET timezone = 'Asia/Tokyo'; ALTER SYSTEM SET datestyle = 'SQL, DMY';
         ALTER SYSTEM SET intervalstyle = 'iso_8601'; ALTER SYSTEM SET extra_float_digits = -5;
         ALTER SYSTEM SET bytea_output = 'escape'; ALTER SYSTEM SET search_path = 'public';
         ALTER SYSTEM SET quote_all_identifiers = on; SELECT pg_reload_conf();",
    );
    assert_eq!(compare_fingerprints(&before, &print(&b)), postgres::Difference::default());
    // One snapshot and few processes: databases, globals, two per database and the list.
    let starts = b.starts.load(Ordering::Relaxed);
    print(&b);
    assert!(b.starts.load(Ordering::Relaxed) - starts <= 6, "{starts}");
}

#[test]
fn every_smallest_change_of_content_or_shape_changes_the_fingerprint() {
    let a = Cluster::new();
    a.sql("app", TYPES);
    a.sql(
        "app",
        "CREATE TABLE dup(x int); INSERT INTO dup VALUES (1), (1), (2), (2); CREATE SEQUENCE seq;
         CREATE TABLE swap(a text, b text); INSERT INTO swap VALUES ('x', 'y'), ('', NULL);
         SELECT lo_from_bytea(77, '\\x0102');",
    );
    let mut last = print(&a);
    for (change, part) in [
        ("UPDATE dup SET x = 3 - x", None),
        ("UPDATE dup SET x = 1", Some("dup")),
        ("UPDATE dup SET x = 2", Some("dup")),
        ("UPDATE kinds SET n = 1.0 WHERE id = 1", Some("kinds")),
        ("UPDATE kinds SET f8 = 0 WHERE id = 2", Some("kinds")),
        ("UPDATE kinds SET tz = tz + '1 us' WHERE id = 1", Some("kinds")),
        ("UPDATE kinds SET j = '{\"a\": 1, \"a\": 2}' WHERE id = 1", Some("kinds")),
        ("UPDATE kinds SET ta = '{NULL,NULL,\"a,b\\\\\"}' WHERE id = 1", Some("kinds")),
        ("UPDATE kinds SET t = t || '!' WHERE id = 3", Some("kinds")),
        ("UPDATE kinds SET a = NULL WHERE id = 2", Some("kinds")),
        ("UPDATE swap SET a = b, b = a WHERE a = 'x'", Some("swap")),
        ("UPDATE swap SET a = NULL WHERE b IS NULL", Some("swap")),
        ("SELECT nextval('seq')", Some("seq (sequence)")),
        ("SELECT nextval('seq')", Some("seq (sequence)")),
    ] {
        a.sql("app", change);
        let now = print(&a);
        let difference = compare_fingerprints(&last, &now);
        let found: Vec<_> = difference.tables.iter().chain(&difference.sequences).cloned().collect();
        let wanted: Vec<_> = part.iter().map(|p| format!("app.public.{p}")).collect();
        assert_eq!((difference.schema, found), (false, wanted), "{change}");
        assert_eq!(now.digest == last.digest, part.is_none(), "{change}");
        last = now;
    }
    a.sql("app", "SELECT lo_put(77, 1, '\\xff')");
    let now = print(&a);
    assert_eq!(compare_fingerprints(&last, &now).tables, ["app.large objects"]);
    a.sql("app", "ALTER ROLE postgres PASSWORD 'one'");
    assert!(compare_fingerprints(&now, &print(&a)).schema);
}

#[test]
fn a_role_without_rights_and_a_missing_role_or_database_are_told_plainly() {
    let mut a = Cluster::new();
    a.sql("app", "CREATE TABLE t(x int); CREATE ROLE weak LOGIN");
    a.sql(
        "app",
        "CREATE TABLE zz_rls(x int); INSERT INTO zz_rls VALUES (1); ALTER TABLE zz_rls ENABLE ROW LEVEL SECURITY; GRANT SELECT ON zz_rls TO weak",
    );
    let missing = postgres::fingerprint(&a, &["nope".into()], &Progress::none()).unwrap_err().to_string();
    assert!(missing.contains("\"nope\"") && missing.contains("app, postgres"), "{missing}");
    a.user = "weak".into();
    let error = postgres::fingerprint(&a, &["app".into()], &Progress::none()).unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"));
    let text = error.to_string();
    assert!(text.contains("permission denied") && text.contains("needs a superuser"), "{text}");
    // Rows that a policy hides are an error, not missing.
    a.user = "postgres".into();
    a.sql("app", "GRANT SELECT ON t TO weak");
    a.user = "weak".into();
    let text = postgres::fingerprint(&a, &["app".into()], &Progress::none()).unwrap_err().to_string();
    assert!(text.contains("row-level security"), "{text}");
    let facts = postgres::server_facts(&a).unwrap();
    assert!(!facts.superuser && facts.hba.is_none() && facts.preload.is_none());
    assert!(facts.warnings()[0].contains("role weak is no superuser"), "{:?}", facts.warnings());
    let connection =
        postgres::standby::Connection { host: a.socket(), port: 5432, user: a.user.clone(), password: None };
    let refused = postgres::standby::refusals(&facts, &connection, &[]);
    assert!(refused.len() == 1 && refused[0].contains("role weak may not replicate"), "{refused:?}");
    a.user = "nobody".into();
    let text = postgres::databases(&a).unwrap_err().to_string();
    assert!(text.contains("role \"nobody\" does not exist") && text.contains("POSTGRES_USER"), "{text}");
    a.user = "postgres".into();
    a.stop("fast");
    let text = postgres::databases(&a).unwrap_err().to_string();
    assert!(text.contains("does not accept connections"), "{text}");
}

#[test]
fn cancelling_stops_psql_soon() {
    let a = Cluster::new();
    a.sql("app", "CREATE TABLE t AS SELECT i, repeat('x', 500) FROM generate_series(1, 100000) i");
    let started = Instant::now();
    let late = || started.elapsed() > Duration::from_millis(120);
    let progress = Progress { cancel: &late, report: &|_, _| () };
    let error = postgres::fingerprint(&a, &[], &progress).unwrap_err();
    assert!(matches!(error, PgError::Cancelled), "{error}");
    let error = a.script("app", "SELECT pg_sleep(60)", &mut std::io::sink(), &late).unwrap_err();
    assert!(matches!(error, PgError::Cancelled), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_table_that_is_altered_meanwhile_is_read_again() {
    let a = Cluster::new();
    a.sql("app", "CREATE TABLE t(x int); INSERT INTO t VALUES (1)");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..6 {
                a.sql(
                    "app",
                    &format!("ALTER TABLE t ADD COLUMN c{i} int; CREATE TABLE n{i}(x int); DROP TABLE n{i}"),
                );
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            match postgres::fingerprint(&a, &["app".into()], &Progress::none()) {
                Ok(print) => assert_eq!(print.parts["app.public.t"].items, 1),
                Err(e) => assert!(e.to_string().contains("altered during"), "{e}"),
            }
        }
    });
}

#[test]
fn a_cluster_without_the_usual_database_is_read_all_the_same() {
    let a = Cluster::new();
    a.sql("app", "DROP DATABASE postgres");
    assert_eq!(postgres::databases(&a).unwrap(), ["app"]);
    assert_eq!(postgres::server_facts(&a).unwrap().databases.len(), 1);
    assert!(print(&a).parts.is_empty());
}
