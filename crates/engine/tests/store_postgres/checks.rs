//! Facts, integrity, and keeping clones harmless.

use crate::cluster::{Cluster, give_to_server};
use std::os::unix::fs::FileExt as _;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{
    self, Amcheck, Subscriptions, harmless_settings, make_harmless, server_facts,
};

fn integrity(cluster: &Cluster, amcheck: Amcheck) -> Vec<String> {
    postgres::integrity(cluster, &[], amcheck, &Progress::none()).unwrap()
}

#[test]
fn what_matters_for_a_clone_is_told_about_a_server() {
    let mut a = Cluster::new();
    a.stop("fast");
    a.options = "-c wal_level=logical -c max_prepared_transactions=5 -c archive_mode=on -c archive_command='false --key=s3cret'".into();
    a.start();
    let space = a.folder.path().join("space");
    std::fs::create_dir(&space).unwrap();
    give_to_server(&space);
    a.sql("postgres", &format!("CREATE TABLESPACE spc LOCATION '{}'", space.display()));
    a.sql(
        "app",
        "CREATE TABLE far(x int) TABLESPACE spc; CREATE UNLOGGED TABLE loose(x int); SELECT lo_create(0); CREATE EXTENSION hstore;
         CREATE PUBLICATION pub; SELECT pg_create_physical_replication_slot('theirs', true);
         SELECT pg_create_logical_replication_slot('logical', 'pgoutput'); CREATE TABLE t(x int);
         CREATE COLLATION german (provider = icu, locale = 'de'); CREATE TABLE g(x text COLLATE german);
         UPDATE pg_collation SET collversion = '0.0' WHERE collname = 'german';
         BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'open';",
    );
    let facts = server_facts(&a).unwrap();
    let app = facts.databases.iter().find(|d| d.name == "app").unwrap();
    assert_eq!(
        (facts.wal_level.as_str(), facts.archive_mode.as_str(), facts.archives),
        ("logical", "on", true)
    );
    assert!(!serde_json::to_string(&facts).unwrap().contains("s3cret"));
    assert!(facts.superuser && facts.data_checksums && !facts.in_recovery && facts.major() >= 12);
    assert_eq!(facts.tablespaces[0].location, space.to_str().unwrap());
    assert_eq!(facts.slots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["logical", "theirs"]);
    assert_eq!(facts.prepared_transactions, 1);
    assert!(facts.hba.as_ref().unwrap().iter().any(|r| r.kind == "local" && r.method == "trust"));
    assert_eq!(
        (app.encoding.as_str(), app.provider.as_str(), app.collate.as_str()),
        ("UTF8", "libc", "C.UTF-8")
    );
    assert_eq!((app.unlogged.as_slice(), app.large_objects), (&["public.loose".to_owned()][..], 1));
    assert_eq!(
        (app.publications.as_slice(), app.tablespaces.as_slice()),
        (&["pub".to_owned()][..], &["spc".to_owned()][..])
    );
    assert!(app.extensions.contains_key("hstore"));
    let warnings = facts.warnings().join("\n");
    for word in ["public.loose", "tablespace spc", "prepared transactions", "public.german"] {
        assert!(warnings.contains(word), "{word}: {warnings}");
    }
    assert!(integrity(&a, Amcheck::Skip).iter().any(|p| p.contains("public.german")));
    a.sql("app", "ROLLBACK PREPARED 'open'");
}

#[test]
fn contradictions_inside_are_found_and_a_sound_cluster_has_none() {
    let a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE t(id serial PRIMARY KEY, n int, \"odd %s\" text); INSERT INTO t(n) SELECT generate_series(1, 5000);
         CREATE TABLE child(t int REFERENCES t); INSERT INTO child VALUES (1);
         CREATE TABLE i(k int GENERATED ALWAYS AS IDENTITY, v int); INSERT INTO i(v) VALUES (1), (2);
         ALTER TABLE t ADD CONSTRAINT fine CHECK (n > 0) NOT VALID;",
    );
    assert_eq!(integrity(&a, Amcheck::MayCreate), Vec::<String>::new());
    assert_eq!(a.sql("app", "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'").trim(), "0");
    assert_eq!(a.sql("app", "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%amcheck%'").trim(), "0");
    let skipped = integrity(&a, Amcheck::IfInstalled);
    assert_eq!(
        skipped,
        [
            "not checked: pages of app: the extension amcheck is not installed",
            "not checked: pages of postgres: the extension amcheck is not installed"
        ]
    );
    a.sql(
        "app",
        "INSERT INTO t(id, n) VALUES (9000, 1); SELECT setval('i_k_seq', 2, false);
         ALTER TABLE t ADD CONSTRAINT big CHECK (n < 4999) NOT VALID;
         CREATE FUNCTION mine(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
         ALTER TABLE t ADD CONSTRAINT own CHECK (mine(n)) NOT VALID;
         INSERT INTO child VALUES (1);",
    );
    a.sql("app", "SET session_replication_role = replica; INSERT INTO child VALUES (-1)");
    let failed =
        a.psql("app").args(["-c", "CREATE UNIQUE INDEX CONCURRENTLY broken ON child(t)"]).output().unwrap();
    assert!(!failed.status.success());
    let found = integrity(&a, Amcheck::MayCreate);
    for wanted in [
        "app: index public.broken of table public.child is invalid: rebuild it with REINDEX",
        "app: sequence public.t_id_seq stands at 5000 behind public.t.id at 9000",
        "app: sequence public.i_k_seq stands at 2 behind public.i.k at 2",
        "app: constraint big on public.t was never validated; rows that violate it: 2",
        "app: constraint own on public.t was never validated and calls a user's function; it was not checked",
        "app.public.child, foreign key child_t_fkey: 1 row without parent in public.t",
    ] {
        assert!(found.iter().any(|p| p == wanted), "{wanted} in {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn damaged_pages_are_found_one_by_one() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE bad(id int PRIMARY KEY); INSERT INTO bad SELECT generate_series(1, 5000);
         CREATE TABLE heap(v text); INSERT INTO heap SELECT repeat('v', 100) FROM generate_series(1, 5000); CREATE TABLE good(id int PRIMARY KEY); CHECKPOINT",
    );
    let file =
        |name: &str| a.data().join(a.sql("app", &format!("SELECT pg_relation_filepath('{name}')")).trim());
    let files = [file("bad_pkey"), file("heap")];
    a.stop("fast");
    for path in files {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        // In the middle of the third page.
        file.write_all_at(&[0x5a; 64], 2 * 8192 + 4000).unwrap();
    }
    a.start();
    let found = integrity(&a, Amcheck::MayCreate);
    for wanted in ["app: index public.bad_pkey", "app: table public.heap"] {
        assert!(found.iter().any(|p| p.starts_with(wanted)), "{wanted} in {found:#?}");
    }
    assert!(found.iter().any(|p| p.contains("invalid page")), "{found:#?}");
    assert!(!found.iter().any(|p| p.contains("good")), "{found:#?}");
    let error = postgres::fingerprint(&a, &["app".into()], &Progress::none()).unwrap_err();
    assert!(error.to_string().contains("invalid page"), "{error}");
}

#[test]
fn a_clone_forgets_subscriptions_and_slots_without_contacting_anybody() {
    let mut a = Cluster::new();
    a.stop("fast");
    a.options = "-c wal_level=logical".into();
    a.start();
    a.sql(
        "app",
        "CREATE SUBSCRIPTION \"odd \"\" sub\" CONNECTION 'host=203.0.113.1 password=s3cret' PUBLICATION p WITH (connect = false, slot_name = 'far', enabled = false);
         SELECT pg_create_physical_replication_slot('theirs', true); SELECT pg_create_logical_replication_slot('logical', 'pgoutput');",
    );
    let mut b = a.copy();
    b.stop("fast");
    for (name, value) in harmless_settings(15) {
        b.options.push_str(&format!(" -c {name}='{value}'"));
    }
    b.start();
    assert_eq!(b.sql("app", "SHOW archive_mode").trim(), "off");
    assert_eq!(b.sql("app", "SHOW max_logical_replication_workers").trim(), "0");
    let done = make_harmless(&b, Subscriptions::Disable).unwrap();
    assert_eq!(done.len(), 3, "{done:?}");
    assert!(!done.concat().contains("s3cret"));
    assert_eq!(b.sql("app", "SELECT subenabled, subslotname FROM pg_subscription").trim(), "f|");
    assert_eq!(b.sql("app", "SELECT count(*) FROM pg_replication_slots").trim(), "0");
    make_harmless(&b, Subscriptions::Disable).unwrap();
    make_harmless(&b, Subscriptions::Drop).unwrap();
    assert_eq!(b.sql("app", "SELECT count(*) FROM pg_subscription").trim(), "0");
    assert_eq!(make_harmless(&b, Subscriptions::Drop).unwrap(), Vec::<String>::new());
    assert_eq!(a.sql("app", "SELECT count(*) FROM pg_replication_slots").trim(), "2");
}
