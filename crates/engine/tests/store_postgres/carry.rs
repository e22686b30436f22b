//! Carrying later writes into another state of a cluster.

use crate::cluster::Cluster;
use std::collections::BTreeMap;
use switchback_core::carry::{
    DIFFERS, GONE, LARGE_OBJECT, NO_TABLE, ORPHAN, Outcome, REWRITTEN, Rules, TAKEN,
};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres;

fn known() -> Rules {
    Rules { touched: Some(BTreeMap::new()), before_upgrade: false }
}

fn carry(before: &Cluster, after: &Cluster, target: &Cluster, rules: &Rules) -> Outcome {
    postgres::carry_writes((before, after, target), &[], rules, &Progress::none()).unwrap()
}

fn counts(outcome: &Outcome, part: &str) -> (u64, u64, u64, u64, u64) {
    let p = outcome.carried.parts.get(part).cloned().unwrap_or_default();
    (p.inserted, p.updated, p.deleted, p.already, p.quarantined)
}

fn why(outcome: &Outcome, part: &str) -> Vec<String> {
    let mut all: Vec<String> =
        outcome.quarantine.iter().filter(|q| q.part == part).map(|q| q.why.clone()).collect();
    all.sort();
    all
}

/// The old generation, one to recognise writes by, and the one that was written to.
fn three(old: &str, migration: &str) -> (Cluster, Cluster, Cluster) {
    let mut target = Cluster::new();
    target.sql("app", old);
    let mut before = target.copy();
    before.sql("app", migration);
    let after = before.copy();
    (before, after, target)
}

#[test]
fn rows_of_every_type_arrive_as_they_were_and_nothing_is_overwritten() {
    let (before, after, target) = three(
        "CREATE TYPE mood AS ENUM ('ok', 'it''s'); CREATE DOMAIN small AS int CHECK (VALUE < 100);
         CREATE TABLE \"odd \"\"t$switchback$\"(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric(10,2), f float8, t text, b bytea,
           j jsonb, k json, a int[], m mood, s small, at timestamptz, i interval, c char(4), r int4range, ok bool,
           g int GENERATED ALWAYS AS (1 + 1) STORED);
         INSERT INTO \"odd \"\"t$switchback$\"(n, f, t, ok) SELECT i, i / 3.0, 'x' || i, true FROM generate_series(1, 5) i;",
        "ALTER TABLE \"odd \"\"t$switchback$\" ADD extra text DEFAULT 'e'",
    );
    let table = "\"odd \"\"t$switchback$\"";
    after.sql(
        "app",
        &format!(
            "INSERT INTO {table}(n, f, t, b, j, k, a, m, s, at, i, c, r, ok, extra) VALUES
               (1.50, 'NaN', E'tab\\t\\\\.\\nnew :line {{}} $1', '\\x00ff', '{{\"a\": \"it''s\"}}', '{{\"b\" :1}}', '{{1,NULL,3}}', 'it''s', 99,
                '2026-03-29 01:30:00.123456+00', '1 mon 2 days', 'ab', '[1,5)', false, 'own'),
               (NULL, '-Infinity', '\\N', NULL, NULL, NULL, NULL, NULL, NULL, 'infinity', NULL, NULL, NULL, NULL, 'e');
             UPDATE {table} SET n = n + 0.01, extra = 'z' WHERE id = 1; UPDATE {table} SET extra = 'z' WHERE id = 2;
             UPDATE {table} SET t = 'A' WHERE id = 3; DELETE FROM {table} WHERE id = 4; UPDATE {table} SET t = NULL WHERE id = 5;"
        ),
    );
    target.sql(
        "app",
        &format!("UPDATE {table} SET t = 'M' WHERE id = 3; UPDATE {table} SET n = 77 WHERE id = 5"),
    );
    let outcome = carry(&before, &after, &target, &known());
    let part = outcome.carried.parts.keys().next().unwrap().clone();
    assert_eq!(counts(&outcome, &part), (2, 2, 1, 0, 1), "{outcome:?}");
    assert_eq!(why(&outcome, &part), [DIFFERS]);
    let found = &outcome.carried.parts[&part];
    assert_eq!((found.newer_columns_only, found.left_out.clone()), (1, vec!["extra".to_owned()]));
    let columns = "id, n, f, t, b, j, k::text, a, m, s, at, i, c, r, ok, g";
    let written =
        |c: &Cluster| c.sql("app", &format!("SELECT {columns} FROM {table} WHERE id > 5 ORDER BY id"));
    assert_eq!(written(&after), written(&target));
    let old = target.sql("app", &format!("SELECT id, n, t FROM {table} WHERE id < 6 ORDER BY id"));
    assert_eq!(old.trim(), "1|1.01|x1\n2|2.00|x2\n3|3.00|M\n5|77.00|");
    // The identity goes on behind what was carried.
    let next = target.sql("app", &format!("INSERT INTO {table}(t) VALUES ('n') RETURNING id"));
    assert!(next.trim().starts_with('8'), "{next}");
    // Once more: all of it is there.
    let again = carry(&before, &after, &target, &known());
    assert_eq!(counts(&again, &part), (0, 0, 0, 5, 1));
}

#[test]
fn references_hold_whatever_the_order_and_no_trigger_of_the_user_runs() {
    let (before, after, target) = three(
        "CREATE TABLE zbox(id int PRIMARY KEY, up int REFERENCES zbox); CREATE TABLE item(id int PRIMARY KEY, box int REFERENCES zbox ON DELETE CASCADE);
         CREATE TABLE log(what text); CREATE TABLE heap(v text); INSERT INTO heap VALUES ('s'), ('s'), ('gone');
         CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO log VALUES (TG_OP || ' ' || NEW.id); RETURN NEW; END$$;
         CREATE TRIGGER a AFTER INSERT ON zbox FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE TRIGGER b AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION noted(); ALTER TABLE item ENABLE ALWAYS TRIGGER b;
         INSERT INTO zbox VALUES (1), (2); INSERT INTO item VALUES (1, 1), (2, 2); DELETE FROM log;",
        "CREATE TABLE fresh(id int)",
    );
    after.sql(
        "app",
        "INSERT INTO zbox VALUES (10, NULL), (9, 10); INSERT INTO item VALUES (7, 9); DELETE FROM zbox WHERE id IN (1, 2); INSERT INTO fresh VALUES (1);
         DELETE FROM heap WHERE v = 'gone'; INSERT INTO heap VALUES ('s'), ('new'); SELECT lo_from_bytea(70, '\\x01');
         INSERT INTO zbox VALUES (11); INSERT INTO item VALUES (8, 11)",
    );
    // Box 2 holds something since. Number 11 is another one.
    target.sql("app", "INSERT INTO item VALUES (50, 2); INSERT INTO zbox VALUES (11, 2)");
    let log = target.sql("app", "SELECT count(*) FROM log");
    let outcome = carry(&before, &after, &target, &known());
    assert_eq!(why(&outcome, "app.public.zbox"), [ORPHAN, TAKEN]);
    assert_eq!(why(&outcome, "app.public.fresh"), [NO_TABLE]);
    assert_eq!(why(&outcome, "app.large objects"), [LARGE_OBJECT]);
    assert_eq!(target.sql("app", "SELECT id FROM zbox ORDER BY id").trim(), "2\n9\n10\n11");
    assert_eq!(target.sql("app", "SELECT id, box FROM item ORDER BY id").trim(), "7|9\n8|11\n50|2");
    assert_eq!(target.sql("app", "SELECT v FROM heap ORDER BY v").trim(), "new\ns\ns\ns");
    assert_eq!(log.trim(), "2");
    // What the triggers wrote are writes themselves, once each.
    assert_eq!(target.sql("app", "SELECT count(*) FROM log").trim(), "7");
    let state =
        target.sql("app", "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1");
    assert_eq!(state.trim(), "a|O\nb|A");
}

#[test]
fn what_the_upgrade_rewrote_and_what_the_old_version_forbids_is_named() {
    let (before, after, target) = three(
        "CREATE TABLE prices(id int PRIMARY KEY, euros numeric, label text); INSERT INTO prices VALUES (1, 1.5, 'a'), (2, 2.5, 'b'), (3, 3.5, 'c');
         CREATE TABLE tight(id int PRIMARY KEY, v varchar(4) NOT NULL); CREATE TABLE other(id int PRIMARY KEY);
         CREATE TABLE gone(id int PRIMARY KEY, v text); INSERT INTO gone VALUES (1, 'x')",
        "UPDATE prices SET euros = euros * 100; ALTER TABLE tight ALTER v TYPE text, ALTER v DROP NOT NULL;
         ALTER TABLE other DROP CONSTRAINT other_pkey, ADD COLUMN k int DEFAULT 1, ADD PRIMARY KEY (k)",
    );
    after.sql(
        "app",
        "UPDATE prices SET label = 'B' WHERE id = 2; UPDATE prices SET euros = 999 WHERE id = 3; INSERT INTO prices VALUES (4, 400, 'd');
         INSERT INTO tight VALUES (1, 'fits'), (2, 'much too long'), (3, NULL); INSERT INTO other VALUES (5, 7);
         UPDATE gone SET v = 'y'",
    );
    target.sql("app", "DELETE FROM gone");
    let outcome = carry(&before, &after, &target, &Rules::default());
    assert_eq!(counts(&outcome, "app.public.prices"), (0, 1, 0, 0, 2));
    assert_eq!(why(&outcome, "app.public.prices"), [REWRITTEN, REWRITTEN]);
    assert_eq!(target.sql("app", "SELECT * FROM prices ORDER BY id").trim(), "1|1.5|a\n2|2.5|B\n3|3.5|c");
    assert_eq!(counts(&outcome, "app.public.tight"), (1, 0, 0, 0, 2));
    let refused = why(&outcome, "app.public.tight");
    assert!(
        refused[0].contains("23502, column v") && refused[1].contains("too long or too precise for v"),
        "{refused:?}"
    );
    assert!(!format!("{outcome:?}").contains("much too long"));
    assert_eq!(counts(&outcome, "app.public.other").4, 1);
    assert_eq!(why(&outcome, "app.public.gone"), [GONE]);
}

#[test]
fn ten_thousand_writes_are_carried_in_batches() {
    let (before, after, target) = three("CREATE TABLE orders(id int PRIMARY KEY, v text)", "");
    after.sql("app", "INSERT INTO orders SELECT i, repeat('o', i % 50) FROM generate_series(1, 10000) i");
    target.sql("app", "INSERT INTO orders SELECT i, 'mine' FROM generate_series(20001, 20500) i");
    let outcome = carry(&before, &after, &target, &known());
    assert_eq!(counts(&outcome, "app.public.orders"), (10000, 0, 0, 0, 0));
    let same = |c: &Cluster| {
        c.sql("app", "SELECT count(*), md5(string_agg(v, ',' ORDER BY id)) FROM orders WHERE id <= 10000")
    };
    assert_eq!(same(&after), same(&target));
}
