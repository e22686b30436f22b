//! Tracing migrations: every lock, every statement, and nothing left behind.

use crate::cluster::Cluster;
use switchback_core::trace::{Effect, Existence, Lock, Statement, Trace, assemble};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{Psql as _, fingerprint, trace};

/// A cluster with data, prepared for a trace, running.
fn armed(setup: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.sql("app", setup);
    assert_eq!(trace::arm(&cluster).unwrap(), Ok(()));
    restart(&mut cluster);
    cluster
}

fn restart(cluster: &mut Cluster) {
    cluster.stop("fast");
    cluster.start();
}

fn read(cluster: &Cluster) -> Trace {
    assemble(trace::read(cluster, &Progress::none()).unwrap().expect("it was armed"))
}

fn find<'t>(trace: &'t Trace, text: &str) -> &'t Statement {
    let found = trace.statements.iter().find(|s| s.text == text);
    found.unwrap_or_else(|| panic!("{text} is not in {:#?}", trace.statements))
}

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, v text, n int);
    INSERT INTO a SELECT i, 'value ' || i, i FROM generate_series(1, 20000) i;
    CREATE TABLE b (id int PRIMARY KEY, a_id int);
    INSERT INTO b SELECT i, i FROM generate_series(1, 1000) i;
    CREATE TABLE p (id int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p2 (id int);
    CREATE MATERIALIZED VIEW m AS SELECT id FROM a; CREATE UNIQUE INDEX m_id ON m (id);
    CREATE VIEW w AS SELECT id FROM a;
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE ROLE other;";

/// Statements, a table that they lock, and how: after the documentation of Postgres, \"Explicit Locking\" and the pages of the
/// commands.
const STATEMENTS: [(&str, &str, Lock); 41] = [
    ("ALTER TABLE a ADD COLUMN c1 int", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ADD COLUMN c2 uuid DEFAULT gen_random_uuid()", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ALTER COLUMN n TYPE bigint", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ALTER COLUMN v SET NOT NULL", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ALTER COLUMN v SET DEFAULT 'x'", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ALTER COLUMN v SET STATISTICS 200", "a", Lock::ShareUpdateExclusive),
    ("ALTER TABLE a SET (fillfactor = 70)", "a", Lock::ShareUpdateExclusive),
    ("ALTER TABLE a ADD CONSTRAINT a_chk CHECK (id > 0) NOT VALID", "a", Lock::AccessExclusive),
    ("ALTER TABLE a VALIDATE CONSTRAINT a_chk", "a", Lock::ShareUpdateExclusive),
    (
        "ALTER TABLE b ADD CONSTRAINT b_a FOREIGN KEY (a_id) REFERENCES a NOT VALID",
        "a",
        Lock::ShareRowExclusive,
    ),
    ("ALTER TABLE b VALIDATE CONSTRAINT b_a", "b", Lock::ShareUpdateExclusive),
    ("CREATE INDEX a_n ON a (n)", "a", Lock::Share),
    ("CREATE INDEX CONCURRENTLY a_c ON a (c1)", "a", Lock::ShareUpdateExclusive),
    ("CREATE UNIQUE INDEX a_u ON public.a (id, v)", "a", Lock::Share),
    ("DROP INDEX a_n", "a", Lock::AccessExclusive),
    ("DROP INDEX CONCURRENTLY a_c", "a", Lock::ShareUpdateExclusive),
    ("REINDEX TABLE a", "a", Lock::Share),
    ("REINDEX TABLE CONCURRENTLY a", "a", Lock::ShareUpdateExclusive),
    ("CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()", "a", Lock::ShareRowExclusive),
    ("ALTER TABLE a DISABLE TRIGGER t", "a", Lock::ShareRowExclusive),
    ("DROP TRIGGER t ON a", "a", Lock::AccessExclusive),
    ("CREATE STATISTICS s ON id, n FROM a", "a", Lock::ShareUpdateExclusive),
    ("ALTER TABLE a RENAME COLUMN c1 TO c9", "a", Lock::AccessExclusive),
    ("ALTER TABLE a DROP COLUMN c2", "a", Lock::AccessExclusive),
    ("ALTER TABLE a CLUSTER ON a_pkey", "a", Lock::ShareUpdateExclusive),
    ("CLUSTER a USING a_pkey", "a", Lock::AccessExclusive),
    ("VACUUM FULL a", "a", Lock::AccessExclusive),
    ("VACUUM a", "a", Lock::ShareUpdateExclusive),
    ("ANALYZE a", "a", Lock::ShareUpdateExclusive),
    ("COMMENT ON TABLE a IS 'x'", "a", Lock::ShareUpdateExclusive),
    ("ALTER TABLE a OWNER TO other", "a", Lock::AccessExclusive),
    ("ALTER TABLE a ENABLE ROW LEVEL SECURITY", "a", Lock::AccessExclusive),
    ("CREATE POLICY q ON a USING (true)", "a", Lock::AccessExclusive),
    ("ALTER TABLE a REPLICA IDENTITY FULL", "a", Lock::AccessExclusive),
    ("REFRESH MATERIALIZED VIEW m", "m", Lock::AccessExclusive),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", "m", Lock::Exclusive),
    ("ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)", "p2", Lock::AccessExclusive),
    ("ALTER TABLE p DETACH PARTITION p1", "p1", Lock::AccessExclusive),
    ("DROP VIEW w", "w", Lock::AccessExclusive),
    ("TRUNCATE b", "b", Lock::AccessExclusive),
    ("DROP TABLE b", "b", Lock::AccessExclusive),
];

#[test]
fn every_lock_of_the_documentation_is_found() {
    let cluster = armed(TABLES);
    for (statement, _, _) in STATEMENTS {
        cluster.sql("app", statement);
    }
    cluster.sql("app", "BEGIN; LOCK TABLE p2 IN EXCLUSIVE MODE; COMMIT");
    let trace = read(&cluster);
    assert!(trace.timed && trace.notes.is_empty(), "{:?}", trace.notes);
    let wrong: Vec<String> = STATEMENTS
        .iter()
        .filter_map(|(text, table, lock)| {
            let seen = find(&trace, text);
            let table = format!("app.public.{table}");
            (seen.lock != Some(*lock) || !seen.locked.contains(&table)).then(|| {
                format!("{text}: {lock:?} of {table} wanted, {:?} of {:?} seen", seen.lock, seen.locked)
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let locked = trace.statements.iter().find(|s| s.tag == "LOCK TABLE").unwrap();
    assert_eq!(
        (locked.lock, locked.locked.as_slice()),
        (Some(Lock::Exclusive), &["app.public.p2".to_owned()][..])
    );

    let rewrote: Vec<&str> =
        trace.statements.iter().filter(|s| !s.rewrote.is_empty()).map(|s| s.text.as_str()).collect();
    assert!(rewrote.contains(&STATEMENTS[1].0) && rewrote.contains(&STATEMENTS[2].0), "{rewrote:?}");
    let table = |name: &str| trace.tables.iter().find(|t| t.name == format!("app.public.{name}")).unwrap();
    // Also by statements that have no event: CLUSTER, VACUUM FULL, TRUNCATE.
    assert!(table("a").rewritten);
    assert_eq!(table("b").existence, Existence::Gone);
    assert_eq!(find(&trace, "DROP TABLE b").effect, Effect::Destroys);
    assert_eq!(find(&trace, "DROP TABLE b").dropped, ["table public.b"]);
    assert_eq!(find(&trace, "ALTER TABLE a DROP COLUMN c2").effect, Effect::Destroys);
    assert_eq!(find(&trace, "ALTER TABLE a ALTER COLUMN n TYPE bigint").effect, Effect::Destroys);
    assert_eq!(find(&trace, "CREATE INDEX a_n ON a (n)").effect, Effect::Adds);
}

#[test]
fn locks_count_to_the_end_of_the_transaction_and_rows_are_counted() {
    let cluster = armed(TABLES);
    cluster.sql(
        "app",
        "BEGIN; ALTER TABLE a ADD COLUMN extra int; UPDATE a SET extra = n * 2 WHERE v <> 'secret value';
         SELECT pg_sleep(0.5); COMMIT;
         INSERT INTO b SELECT i, i FROM generate_series(2000, 2099) i; DELETE FROM b WHERE id < 11;
         CREATE TABLE fresh (id int); INSERT INTO fresh VALUES (1), (2);",
    );
    for i in 0..50 {
        cluster.sql("app", &format!("INSERT INTO fresh VALUES ({i})"));
    }
    let refused =
        cluster.script("app", "ALTER TABLE nowhere ADD x int; SELECT 'secret'", &mut Vec::new(), &|| false);
    assert!(refused.is_err());
    let trace = read(&cluster);
    let table = |name: &str| trace.tables.iter().find(|t| t.name == format!("app.public.{name}")).unwrap();
    let a = table("a");
    assert_eq!((a.lock, a.updated, a.rewritten), (Some(Lock::AccessExclusive), 20_000, false));
    assert!(a.reads_blocked_us >= 500_000 && a.writes_blocked_us == a.reads_blocked_us, "{a:?}");
    assert_eq!((table("b").inserted, table("b").deleted), (100, 10));
    // Nobody could have waited for what was not there before.
    let fresh = table("fresh");
    assert_eq!((fresh.existence, fresh.lock, fresh.inserted), (Existence::New, None, 52));
    let alter = find(&trace, "ALTER TABLE a ADD COLUMN extra int");
    assert!(alter.held_us > 500_000 && alter.took_us < 500_000, "{alter:?}");
    let update = find(&trace, "UPDATE a SET extra = n * ? WHERE v <> ?");
    assert_eq!((update.effect, update.lock), (Effect::Destroys, Some(Lock::RowExclusive)));
    assert_eq!(find(&trace, "INSERT INTO fresh VALUES (?)").calls, 50);
    assert!(trace.reads > 0 && trace.reads_us >= 500_000 && trace.wal_bytes > 100_000);
    assert!(trace.bytes_after > trace.bytes_before);
    assert_eq!((trace.errors.len(), trace.errors[0].sqlstate.as_str()), (1, "42P01"));
    assert!(!format!("{trace:?}").contains("secret"), "{trace:?}");
}

#[test]
fn statements_within_blocks_and_functions_are_found() {
    let cluster = armed(TABLES);
    cluster.sql(
        "app",
        "DO $$ BEGIN FOR i IN 1..3 LOOP EXECUTE format('CREATE TABLE made_%s (id int)', i); END LOOP;
           ALTER TABLE a ADD x int; PERFORM pg_sleep(0.2); END $$;
         CREATE FUNCTION migrate() RETURNS int LANGUAGE plpgsql AS 'BEGIN DROP TABLE b; RETURN 1; END';
         SELECT migrate();
         SET session_replication_role = replica; ALTER TABLE a ADD y int;",
    );
    let trace = read(&cluster);
    let block = trace.statements.iter().find(|s| s.tag == "DO").unwrap();
    assert_eq!(block.lock, Some(Lock::AccessExclusive));
    assert_eq!(block.objects.iter().filter(|o| o.contains("made_")).count(), 3, "{block:?}");
    let call = trace.statements.iter().find(|s| s.tag == "SELECT").unwrap();
    assert_eq!(
        (call.dropped.as_slice(), call.effect),
        (&["table public.b".to_owned()][..], Effect::Destroys)
    );
    find(&trace, "ALTER TABLE a ADD y int");
    let a = trace.tables.iter().find(|t| t.name == "app.public.a").unwrap();
    assert!(a.reads_blocked_us >= 200_000, "{a:?}");
}

#[test]
fn nothing_is_left_of_a_trace_and_the_content_is_as_it_would_be_without() {
    let mut cluster = Cluster::new();
    cluster.sql("app", TABLES);
    let before = fingerprint(&cluster, &[], &Progress::none()).unwrap();
    let settings = "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'";
    for _ in 0..2 {
        // Safe to repeat.
        assert_eq!(trace::arm(&cluster).unwrap(), Ok(()));
    }
    restart(&mut cluster);
    let trace = read(&cluster);
    assert!(trace.is_empty(), "{trace:#?}");
    assert_eq!(trace::read(&cluster, &Progress::none()).unwrap(), None);
    assert_eq!(cluster.sql("app", settings), "0\n");
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM pg_event_trigger"), "0\n");
    assert_eq!(fingerprint(&cluster, &[], &Progress::none()).unwrap().digest, before.digest);
}

#[test]
fn what_cannot_be_traced_is_told_and_left_alone() {
    let mut cluster = Cluster::new();
    cluster.sql("app", &format!("{TABLES} CREATE ROLE poor LOGIN;"));
    let owner = std::mem::replace(&mut cluster.user, "poor".into());
    let why = trace::arm(&cluster).unwrap().unwrap_err();
    assert!(why.contains("superuser"), "{why}");
    cluster.user = owner;
    assert_eq!(
        cluster.sql("app", "SELECT count(*) FROM pg_namespace WHERE nspname = 'switchback_trace'"),
        "0\n"
    );

    // A setting on the command line wins; definitions are traced nevertheless.
    assert_eq!(trace::arm(&cluster).unwrap(), Ok(()));
    cluster.options = "-c log_min_duration_statement=-1".into();
    restart(&mut cluster);
    cluster.sql("app", "BEGIN; ALTER TABLE a ADD COLUMN z int; UPDATE a SET z = 1; COMMIT");
    let trace = read(&cluster);
    assert!(!trace.timed && trace.notes[0].contains("command line"), "{:?}", trace.notes);
    assert_eq!(trace.statements.len(), 1);
    assert_eq!(trace.statements[0].lock, Some(Lock::AccessExclusive));
}
