//! Exports: every differing row, exactly, in files that belong where they are.

use crate::cluster::Cluster;
use serde_json::{Value, json};
use std::path::Path;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres;

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn an_export_holds_every_differing_row_object_and_sequence() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE t(id int PRIMARY KEY, n numeric, v text); INSERT INTO t SELECT i, 1.0, 'v' FROM generate_series(1, 9) i;
         CREATE TABLE wide(id int PRIMARY KEY, v text); INSERT INTO wide SELECT i, 'w' FROM generate_series(1, 9) i;
         CREATE TABLE same(x int); INSERT INTO same VALUES (1); CREATE TABLE gone(x int); CREATE SEQUENCE seq;
         CREATE TABLE \"../up\"(x text); SELECT lo_from_bytea(70, '\\x01'), lo_from_bytea(71, '\\x01'), lo_from_bytea(72, '\\x01');",
    );
    let b = a.copy();
    b.sql("postgres", "CREATE DATABASE late");
    b.sql("late", "CREATE TABLE x(y int); INSERT INTO x VALUES (1), (2)");
    b.sql(
        "app",
        "UPDATE t SET n = 1.00 WHERE id = 1; UPDATE t SET v = NULL WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (99, NULL, E'q\\n');
         ALTER TABLE wide ADD k int DEFAULT 5, ADD m text DEFAULT 'm'; UPDATE wide SET k = 6 WHERE id = 4; INSERT INTO wide VALUES (50);
         DROP TABLE gone; CREATE TABLE fresh(id int PRIMARY KEY, b bytea); INSERT INTO fresh VALUES (1, '\\x00');
         INSERT INTO \"../up\" VALUES ('u'); SELECT nextval('seq');
         SELECT lo_put(70, 5000, '\\xff'), lo_unlink(71), lo_create(73);",
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    let stats = postgres::export(&a, &b, &[], &out, &Progress::none()).unwrap();
    let count = |name: &str| stats.parts.get(name).map(|p| (p.inserted, p.updated, p.deleted));
    assert_eq!(count("app.public.t"), Some((1, 2, 1)));
    assert_eq!(count("app.public.wide"), Some((1, 1, 0)));
    assert_eq!(count("app.public.fresh"), Some((1, 0, 0)));
    assert_eq!(count("late.public.x"), Some((2, 0, 0)));
    assert_eq!(count("app.large objects"), Some((1, 1, 1)));
    assert_eq!(count("app.public.\"../up\""), Some((1, 0, 0)));
    assert_eq!(stats.parts.len(), 6, "{:?}", stats.parts.keys());
    for part in stats.parts.values() {
        assert!(!part.file.contains('/') && !part.file.starts_with('.'), "{}", part.file);
        let bytes = std::fs::read(out.join(&part.file)).unwrap();
        assert_eq!(part.digest, switchback_core::ids::Digest::of(&bytes));
    }
    let rows = lines(&out.join("app.public.t.jsonl"));
    assert_eq!(
        rows[0],
        json!({ "op": "update", "key": { "id": 1 }, "row": { "id": 1, "n": "1.00", "v": "v" }, "before": { "id": 1, "n": "1.0", "v": "v" } })
    );
    assert_eq!(
        rows[3],
        json!({ "op": "insert", "key": { "id": 99 }, "row": { "id": 99, "n": null, "v": "q\n" } })
    );
    let wide = lines(&out.join("app.public.wide.jsonl"));
    assert_eq!(wide[0]["row"], json!({ "id": 4, "v": "w", "k": 6, "m": "m" }));
    let objects = out.join("large-objects/app");
    let mut sparse = vec![1];
    sparse.resize(5000, 0);
    sparse.push(255);
    assert_eq!(std::fs::read(objects.join("70")).unwrap(), sparse);
    assert_eq!(std::fs::read(objects.join("73")).unwrap(), b"");
    assert!(!objects.join("71").exists() && !objects.join("72").exists());
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["kind"], "postgres");
    assert_eq!(manifest["dropped_tables"], json!(["app.public.gone"]));
    assert_eq!(manifest["added_databases"], json!(["late"]));
    assert_eq!(manifest["sequences"][0]["after"], json!({ "last_value": 1, "is_called": true }));
    assert!(
        manifest["schema_changes"].as_array().unwrap().iter().any(|w| w == "app: table public.gone removed")
    );
    let again = postgres::export(&a, &b, &[], &out, &Progress::none()).unwrap_err().to_string();
    assert!(again.contains("never overwritten"), "{again}");
    // Nothing differs: nothing but the manifest; and a failure leaves nothing behind.
    let none = folder.path().join("none");
    assert_eq!(postgres::export(&a, &a, &[], &none, &Progress::none()).unwrap().total(), 0);
    assert_eq!(std::fs::read_dir(&none).unwrap().count(), 1);
    b.sql("app", "CREATE ROLE weak LOGIN");
    b.stop_and_fail(&a, &folder.path().join("failed"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

impl Cluster {
    fn stop_and_fail(mut self, other: &Self, out: &Path) {
        self.stop("fast");
        assert!(postgres::export(other, &self, &[], out, &Progress::none()).is_err());
    }
}
