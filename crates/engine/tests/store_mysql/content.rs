//! What counts as content, and how differences are named.

use crate::server::Server;
use serde_json::{Value, json};
use switchback_core::data::{PartChange, PartDiff, RowOp, StoreDiff};
use switchback_engine::store::Progress;
use switchback_engine::store::mysql::{asked, counts, diff, export, fingerprint};

/// A table with a column of every kind.
const EVERY: &str = "\
CREATE TABLE every (
  id bigint unsigned PRIMARY KEY AUTO_INCREMENT, small tinyint, number decimal(20,4), single float, `double` double, flag bit(3),
  name varchar(100), old varchar(50) CHARACTER SET latin1, note text, kind enum('a', 'b'), many set('x', 'y'), doc json,
  raw varbinary(50), big longblob, day date, at datetime(6), stamp timestamp(3) NULL, hour time, born year, place point,
  twice bigint AS (small * 2) VIRTUAL, thrice bigint AS (small * 3) PERSISTENT);
INSERT INTO every (small, number, single, `double`, flag, name, old, note, kind, many, doc, raw, big, day, at, stamp, hour, born, place) VALUES
  (1, 1.5, 0.1, 0.1, b'101', 'Ann\t\n\\\\', 'caf\u{e9}', 'long', 'a', 'x,y', '{\"a\": 1}', X'00FF', X'0A0D', '2026-11-29', '2026-11-29 12:00:00.000001', '2026-11-29 12:00:00.5', '12:00', 2026, POINT(1, 2)),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, 3, 3, 3, 3, '', '', '', 'b', '', '[]', '', '', '2026-01-01', '2026-01-01', '2026-01-01', '00:00', 2000, POINT(0, 0));
CREATE TABLE loose (word varchar(20), n int);
INSERT INTO loose VALUES ('twice', 1), ('twice', 1), ('once', 2), (NULL, NULL);
";

fn differ(a: &Server, b: &Server) -> StoreDiff {
    diff(a, b, &[], &Progress::none()).unwrap()
}

fn part<'d>(diff: &'d StoreDiff, name: &str) -> &'d PartDiff {
    diff.parts.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name} in {diff:?}"))
}

fn digest(server: &Server) -> String {
    fingerprint(server, &[], &Progress::none()).unwrap().digest.0
}

#[test]
fn a_copy_is_equal_and_every_smallest_change_is_seen() {
    let mut a = Server::new();
    a.app(EVERY);
    let b = a.copy();
    assert_eq!(digest(&a), digest(&b));
    let same = differ(&a, &b);
    assert!(same.is_empty() && same.unchanged == 2, "{same:?}");
    let all = fingerprint(&a, &[], &Progress::none()).unwrap();
    assert_eq!(all.items, 7);
    assert_eq!(all.parts.keys().collect::<Vec<_>>(), ["app.every", "app.loose"]);
    // The order on disk, statistics and a table that is written anew do not count.
    b.app("ALTER TABLE every ENGINE = InnoDB, FORCE; ANALYZE TABLE every; OPTIMIZE TABLE loose;");
    assert_eq!(digest(&a), digest(&b));
    let changes = [
        ("small = 2", "small"),
        ("small = 0 WHERE id = 2", "small"),
        ("number = 1.5001", "number"),
        ("single = 0.10000001", "single"),
        ("`double` = 0.1 + 1e-17 + 2e-17", "double"),
        ("flag = b'100'", "flag"),
        ("name = 'ann\t\n\\\\'", "name"),
        ("name = 'Ann\t\n\\\\ '", "name"),
        ("name = '' WHERE id = 2", "name"),
        ("old = 'cafe'", "old"),
        ("note = 'lonG'", "note"),
        ("kind = 'b'", "kind"),
        ("many = 'x'", "many"),
        ("doc = '{\"a\":1}'", "doc"),
        ("raw = X'00FE'", "raw"),
        ("big = X'0A0D00'", "big"),
        ("day = '2026-11-30'", "day"),
        ("at = '2026-11-29 12:00:00.000002'", "at"),
        ("stamp = '2026-11-29 12:00:00.501'", "stamp"),
        ("hour = '12:00:01'", "hour"),
        ("born = 2025", "born"),
        ("place = POINT(1, 3)", "place"),
    ];
    for (change, column) in changes {
        let condition = if change.contains("WHERE") { "" } else { " WHERE id = 1" };
        let before = digest(&b);
        b.app(&format!("UPDATE every SET {change}{condition};"));
        assert_ne!(digest(&b), before, "{change}");
        let found = differ(&a, &b);
        let every = part(&found, "app.every");
        assert_eq!((every.rows_added, every.rows_removed, every.rows_changed), (0, 0, 1), "{change}");
        let example = &every.examples[0];
        let (old, new) = (example.before.as_ref().unwrap(), example.row.as_ref().unwrap());
        assert_ne!(old[column], new[column], "{change}");
        b.app("DROP TABLE every, loose;");
        b.app(EVERY);
        assert_eq!(digest(&a), digest(&b), "after {change}");
    }
}

#[test]
fn rows_without_a_key_count_as_often_as_they_are_there() {
    let mut a = Server::new();
    a.app(EVERY);
    let b = a.copy();
    b.app(
        "DELETE FROM loose WHERE word = 'twice' LIMIT 1; INSERT INTO loose VALUES ('once', 2), ('once', 2);",
    );
    let found = differ(&a, &b);
    let loose = part(&found, "app.loose");
    assert_eq!((loose.before, loose.after), (4, 5));
    assert_eq!((loose.rows_added, loose.rows_removed, loose.rows_changed), (2, 1, 0));
    // Values that changed places are found too.
    b.app(
        "DELETE FROM loose; INSERT INTO loose VALUES ('twice', 1), ('twice', 2), ('once', 1), (NULL, NULL);",
    );
    let loose = differ(&a, &b);
    assert_eq!((part(&loose, "app.loose").rows_added, part(&loose, "app.loose").rows_removed), (2, 2));
}

#[test]
fn what_a_migration_does_to_tables_is_named() {
    let mut a = Server::new();
    a.app(EVERY);
    a.app("CREATE TABLE child (id int PRIMARY KEY, parent bigint unsigned, CONSTRAINT up FOREIGN KEY (parent) REFERENCES every (id)); \
           INSERT INTO child VALUES (1, 1); CREATE VIEW seen AS SELECT id FROM every; CREATE TABLE gone (a int PRIMARY KEY); INSERT INTO gone VALUES (1);\n\
           CREATE TRIGGER t BEFORE INSERT ON loose FOR EACH ROW SET NEW.n = 1; CREATE FUNCTION f(a int) RETURNS int DETERMINISTIC RETURN a; CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM gone;");
    let b = a.copy();
    b.app(
        "ALTER TABLE every ADD COLUMN extra int DEFAULT 5; ALTER TABLE loose DROP COLUMN n; DROP TABLE gone; \
         CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1), (2); DROP TRIGGER t; DROP FUNCTION f; DROP EVENT nightly; CREATE INDEX named ON every (name(10)); \
         CREATE OR REPLACE VIEW seen AS SELECT id, name FROM every; SET foreign_key_checks = 0; INSERT INTO child VALUES (2, 77); \
         CREATE USER reader@localhost IDENTIFIED BY 'x'; GRANT SELECT ON app.* TO reader@localhost; CREATE DATABASE other; CREATE TABLE other.t (a int);",
    );
    let found = differ(&a, &b);
    let of = |name: &str| (part(&found, name).change, part(&found, name).before, part(&found, name).after);
    assert_eq!(of("app.every"), (PartChange::ColumnsAdded, 3, 3));
    assert_eq!(part(&found, "app.every").columns_added, ["extra"]);
    assert_eq!(of("app.loose"), (PartChange::Changed, 4, 4));
    assert_eq!(part(&found, "app.loose").columns_removed, ["n"]);
    assert_eq!(of("app.gone"), (PartChange::Dropped, 1, 0));
    assert_eq!(of("app.fresh"), (PartChange::Added, 0, 2));
    assert_eq!(of("other.t"), (PartChange::Added, 0, 0));
    let words = found.schema_changes.join("\n");
    for expected in [
        "column every.extra added",
        "column loose.n removed",
        "table gone removed",
        "table fresh added",
        "trigger t removed",
        "function f removed",
        "event nightly removed",
        "index every.named added",
        "view seen",
        "role reader@localhost added",
        "privilege reader@localhost on app added",
        "database other added",
    ] {
        assert!(words.contains(expected), "{expected} in\n{words}");
    }
    assert!(!words.contains("gone.a"), "{words}");
    assert_eq!(found.new_orphans, ["app.child, foreign key up: 1 row without parent in app.every"]);
}

#[test]
fn examples_and_exports_have_the_exact_values() {
    let mut a = Server::new();
    a.app(EVERY);
    let b = a.copy();
    b.app("DELETE FROM every WHERE id = 3; UPDATE every SET name = 'B' WHERE id = 1; INSERT INTO every (id, big, number) VALUES (18446744073709551615, X'00FF', 0.1); INSERT INTO loose VALUES ('new', 9);");
    let found = differ(&a, &b);
    let every = part(&found, "app.every");
    assert_eq!((every.rows_added, every.rows_removed, every.rows_changed), (1, 1, 1));
    let example = |op: RowOp| every.examples.iter().find(|e| e.op == op).unwrap();
    let added = example(RowOp::Insert);
    assert_eq!(Value::Object(added.key.clone()), json!({ "id": u64::MAX }));
    let row = added.row.as_ref().unwrap();
    assert_eq!(
        (&row["big"], &row["number"], &row["name"]),
        (&json!({ "$blob": "AP8=" }), &json!("0.1000"), &Value::Null)
    );
    assert!(!row.contains_key("twice"), "what is computed is not told: {row:?}");
    assert_eq!(example(RowOp::Update).before.as_ref().unwrap()["name"], json!("Ann\t\n\\"));
    assert_eq!(example(RowOp::Delete).before.as_ref().unwrap()["number"], json!("3.0000"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    let stats = export(&a, &b, &[], &out, &Progress::none()).unwrap();
    assert_eq!((stats.total(), stats.parts.len()), (4, 2));
    let lines = std::fs::read_to_string(out.join(&stats.parts["app.every"].file)).unwrap();
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().any(|l| l["op"] == "update" && l["row"]["name"] == "B"), "{lines:?}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        (&manifest["kind"], &manifest["parts"]["app.loose"]["inserted"]),
        (&json!("mysql"), &json!(1))
    );
}

#[test]
fn hostile_names_stay_names() {
    let mut a = Server::new();
    a.sql("CREATE DATABASE `a``b; DROP`; USE `a``b; DROP`; CREATE TABLE `t\"'``;--` (`c``'\"` varchar(20) PRIMARY KEY, `日本` int); INSERT INTO `t\"'``;--` VALUES ('x', 1), ('y', 2); CREATE TABLE App (a int); CREATE TABLE app (a int);");
    let b = a.copy();
    b.sql("USE `a``b; DROP`; UPDATE `t\"'``;--` SET `日本` = 3 WHERE `c``'\"` = 'x'; INSERT INTO App VALUES (1);");
    let found = differ(&a, &b);
    let changed: Vec<(&str, u64, u64)> = found
        .parts
        .iter()
        .filter(|p| p.change == PartChange::Changed)
        .map(|p| (p.name.as_str(), p.rows_added, p.rows_changed))
        .collect();
    assert_eq!(changed, [("\"a`b; DROP\".App", 1, 0), ("\"a`b; DROP\".\"t\"\"'`;--\"", 0, 1)]);
    let rows = counts(&b, &[], &Progress::none()).unwrap();
    assert_eq!(rows["\"a`b; DROP\".App"], 1);
    assert_eq!(rows["\"a`b; DROP\".app"], 0);
}

#[test]
fn a_query_of_ones_own_is_answered_and_cannot_write() {
    let a = Server::new();
    a.app(EVERY);
    let ask = |sql: &str, values: &[Value]| asked(&a, Some("app"), sql, values);
    assert_eq!(ask("SELECT COUNT(*) FROM every;", &[]).unwrap(), json!(3));
    assert_eq!(ask("SELECT name FROM every WHERE id = ?1", &[json!(3)]).unwrap(), json!(""));
    assert_eq!(ask("SELECT ?1", &[json!("it's; \\ \"")]).unwrap(), json!("it's; \\ \""));
    assert_eq!(ask("SELECT small FROM every WHERE id = 2", &[]).unwrap(), Value::Null);
    assert!(ask("SELECT 1 FROM every WHERE id = 7", &[]).unwrap_err().contains("no row"));
    assert!(ask("SELECT 1; DROP TABLE every", &[]).is_err());
    assert_eq!(ask("SELECT COUNT(*) FROM every", &[]).unwrap(), json!(3));
}

#[test]
fn who_is_not_let_in_or_may_not_read_is_told() {
    let mut a = Server::new();
    a.app(EVERY);
    a.sql("CREATE USER nobody@localhost IDENTIFIED BY 'secret';");
    a.user = "nobody".to_owned();
    let denied = fingerprint(&a, &[], &Progress::none()).unwrap_err();
    assert!(denied.is_denied() && denied.to_string().contains("password_env"), "{denied}");
    a.user = "root".to_owned();
    let missing = diff(&a, &a, &["nowhere".to_owned()], &Progress::none()).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}

#[test]
fn what_is_too_large_to_be_sent_is_told_and_never_taken_for_equal() {
    let mut a = Server::new();
    a.app("CREATE TABLE films (id int PRIMARY KEY, film longblob, title text); INSERT INTO films VALUES (1, REPEAT('x', 40000000), 'one'), (2, 'y', 'two');");
    let b = a.copy();
    assert!(differ(&a, &b).is_empty());
    b.app("UPDATE films SET film = CONCAT(film, 'z') WHERE id = 1;");
    let found = differ(&a, &b);
    let films = part(&found, "app.films");
    assert_eq!(films.rows_changed, 1);
    let row = films.examples[0].row.as_ref().unwrap();
    assert_eq!(
        (&row["film"], &row["title"]),
        (&json!({ "$left_out": "too large to be shown" }), &json!("one"))
    );
    // An export must not leave anything out.
    let folder = tempfile::tempdir().unwrap();
    let refused = export(&a, &b, &[], &folder.path().join("export"), &Progress::none()).unwrap_err();
    assert!(refused.to_string().contains("max_allowed_packet"), "{refused}");
    assert!(!folder.path().join("export").exists());
}

#[test]
fn rows_that_only_got_new_columns_are_no_later_writes() {
    let mut a = Server::new();
    a.app("CREATE TABLE t (id int PRIMARY KEY, name varchar(20)); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');");
    let b = a.copy();
    b.app("ALTER TABLE t ADD COLUMN state varchar(10) NOT NULL DEFAULT 'open', ADD COLUMN n int, ADD COLUMN flag tinyint NOT NULL, ADD COLUMN word varchar(5) NOT NULL; UPDATE t SET state = 'Open' WHERE id = 2;");
    let folder = tempfile::tempdir().unwrap();
    let stats = export(&a, &b, &[], &folder.path().join("export"), &Progress::none()).unwrap();
    assert_eq!((stats.parts["app.t"].updated, stats.total()), (1, 1));
}
