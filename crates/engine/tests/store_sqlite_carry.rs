//! Carrying later writes into another state of a SQLite database: what fits is there afterwards, what does not is named, and
//! nothing that the target has is overwritten.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use rusqlite::Connection;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use switchback_core::carry::{DIFFERS, GONE, MIXED, NO_TABLE, ORPHAN, Outcome, REWRITTEN, Rules, TAKEN};
use switchback_core::data::StoreKind;
use switchback_engine::store::{self, Progress, Source};

/// The three states of one test.
struct Three {
    folder: tempfile::TempDir,
}

fn sql(path: &Path, text: &str) {
    Connection::open(path).unwrap().execute_batch(text).unwrap();
}

fn rows(path: &Path, query: &str) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare(query).unwrap();
    let columns = statement.column_count();
    let found = statement.query_map([], |row| {
        let all: Vec<String> = (0..columns)
            .map(|i| match row.get_ref(i).unwrap() {
                rusqlite::types::ValueRef::Null => "null".to_owned(),
                rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                rusqlite::types::ValueRef::Real(n) => n.to_string(),
                rusqlite::types::ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
                rusqlite::types::ValueRef::Blob(b) => format!("{b:02x?}"),
            })
            .collect();
        Ok(all.join("|"))
    });
    found.unwrap().map(|r| r.unwrap()).collect()
}

impl Three {
    /// The old generation; `migration` makes what the later writes are recognised by.
    fn new(old: &str, migration: &str) -> Self {
        let three = Self { folder: tempfile::tempdir().unwrap() };
        sql(&three.target(), old);
        std::fs::copy(three.target(), three.before()).unwrap();
        sql(&three.before(), migration);
        std::fs::copy(three.before(), three.after()).unwrap();
        three
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn target(&self) -> PathBuf {
        self.at("target.db")
    }
    fn before(&self) -> PathBuf {
        self.at("before.db")
    }
    fn after(&self) -> PathBuf {
        self.at("after.db")
    }

    fn carry(&self, rules: &Rules) -> Outcome {
        let (before, after, scratch) = (self.before(), self.after(), self.at("scratch"));
        std::fs::create_dir_all(&scratch).unwrap();
        let (old, new) = (Source::cold(&before, &scratch), Source::cold(&after, &scratch));
        let kind = StoreKind::Sqlite;
        store::carry_writes(kind, old, new, &self.target(), rules, &Progress::none()).unwrap()
    }

    /// By the data alone: nobody rehearsed.
    fn compared(&self) -> Outcome {
        self.carry(&Rules::default())
    }
}

fn why(outcome: &Outcome, part: &str) -> Vec<(String, String)> {
    let all = outcome.quarantine.iter().filter(|q| q.part == part);
    all.map(|q| (serde_json::to_string(&q.key).unwrap(), q.why.clone())).collect()
}

fn counts(outcome: &Outcome, part: &str) -> (u64, u64, u64, u64, u64) {
    let p = outcome.carried.parts.get(part).cloned().unwrap_or_default();
    (p.inserted, p.updated, p.deleted, p.already, p.quarantined)
}

const NOTES: &str =
    "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, n, b BLOB);
    INSERT INTO notes (title, n) VALUES ('one', 1), ('two', 2.5), ('three', NULL);";

#[test]
fn new_changed_and_deleted_rows_are_there_and_new_columns_stay_in_the_export() {
    let three = Three::new(NOTES, "ALTER TABLE notes ADD COLUMN pinned INTEGER DEFAULT 0");
    sql(
        &three.after(),
        "INSERT INTO notes (title, n, b, pinned) VALUES ('four', 9007199254740993, x'00ff', 1);
         UPDATE notes SET title = 'zwei', pinned = 1 WHERE id = 2; UPDATE notes SET pinned = 1 WHERE id = 1;
         DELETE FROM notes WHERE id = 3;",
    );
    let outcome = three.compared();
    assert_eq!(counts(&outcome, "notes"), (1, 1, 1, 0, 0));
    let part = &outcome.carried.parts["notes"];
    assert_eq!(part.newer_columns_only, 1);
    assert_eq!(part.left_out, ["pinned"]);
    assert_eq!(
        rows(&three.target(), "SELECT id, title, n, b FROM notes ORDER BY id"),
        ["1|one|1|null", "2|zwei|2.5|null", "4|four|9007199254740993|[00, ff]"]
    );
    // The counter goes on behind it.
    sql(&three.target(), "INSERT INTO notes (title) VALUES ('next')");
    assert_eq!(rows(&three.target(), "SELECT max(id) FROM notes"), ["5"]);
    // Once more: all of it is there.
    let again = three.carry(&Rules { touched: Some(BTreeMap::new()), before_upgrade: false });
    assert_eq!(counts(&again, "notes"), (0, 0, 0, 3, 0));
}

#[test]
fn what_the_target_has_is_never_overwritten() {
    let three = Three::new(NOTES, "");
    sql(
        &three.after(),
        "UPDATE notes SET title = 'A' WHERE id = 1; UPDATE notes SET title = 'A' WHERE id = 2;
         DELETE FROM notes WHERE id = 3; INSERT INTO notes (id, title) VALUES (4, 'A'), (5, 'A');",
    );
    sql(
        &three.target(),
        "UPDATE notes SET title = 'M' WHERE id = 1; DELETE FROM notes WHERE id = 2; UPDATE notes SET n = 7 WHERE id = 3;
         INSERT INTO notes (id, title) VALUES (4, 'M');",
    );
    let known = Rules { touched: Some(BTreeMap::new()), before_upgrade: false };
    let outcome = three.carry(&known);
    assert_eq!(counts(&outcome, "notes"), (1, 0, 0, 0, 4));
    let mut found = why(&outcome, "notes");
    found.sort();
    let named = |id: i64, why: &str| (json!({ "id": id }).to_string(), why.to_owned());
    assert_eq!(found, [named(1, DIFFERS), named(2, GONE), named(3, DIFFERS), named(4, TAKEN)]);
    assert_eq!(
        rows(&three.target(), "SELECT id, title, n FROM notes ORDER BY id"),
        ["1|M|1", "3|three|7", "4|M|null", "5|A|null"]
    );
}

#[test]
fn values_that_the_upgrade_rewrote_are_not_taken_for_writes() {
    let old = "CREATE TABLE prices (id INTEGER PRIMARY KEY, euros REAL, label TEXT);
        INSERT INTO prices VALUES (1, 1.5, 'a'), (2, 2.5, 'b'), (3, 3.5, 'c');";
    let three =
        Three::new(old, "UPDATE prices SET euros = euros * 100; CREATE TABLE fresh (id INTEGER PRIMARY KEY)");
    sql(
        &three.after(),
        "UPDATE prices SET label = 'B' WHERE id = 2; UPDATE prices SET euros = 999 WHERE id = 3;
         INSERT INTO prices VALUES (4, 400, 'd'); INSERT INTO fresh VALUES (1);",
    );
    let outcome = three.compared();
    assert_eq!(counts(&outcome, "prices"), (0, 1, 0, 0, 2));
    assert!(why(&outcome, "prices").iter().all(|(_, why)| why == REWRITTEN), "{:?}", outcome.quarantine);
    assert_eq!(why(&outcome, "fresh"), [(json!({ "id": 1 }).to_string(), NO_TABLE.to_owned())]);
    assert_eq!(rows(&three.target(), "SELECT * FROM prices ORDER BY id"), ["1|1.5|a", "2|2.5|B", "3|3.5|c"]);
}

#[test]
fn without_a_clone_of_the_migrated_data_only_tables_that_the_upgrade_leaves_alone_are_carried() {
    let old = "CREATE TABLE a (id INTEGER PRIMARY KEY, v); CREATE TABLE b (id INTEGER PRIMARY KEY, v);
        INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1);";
    let three = Three::new(old, "");
    // The upgrade and the users wrote since.
    sql(
        &three.after(),
        "UPDATE a SET v = v * 100; INSERT INTO a VALUES (2, 200); INSERT INTO b VALUES (2, 2)",
    );
    let rules = Rules { touched: Some([("a".to_owned(), true)].into()), before_upgrade: true };
    let outcome = three.carry(&rules);
    assert_eq!(counts(&outcome, "b"), (1, 0, 0, 0, 0));
    assert!(why(&outcome, "a").iter().all(|(_, why)| why == MIXED));
    assert_eq!(counts(&outcome, "a"), (0, 0, 0, 0, 2));
    assert_eq!(rows(&three.target(), "SELECT v FROM a"), ["1"]);
}

#[test]
fn references_hold_whatever_the_order_and_triggers_do_not_run() {
    let old = "CREATE TABLE item (id INTEGER PRIMARY KEY, box INTEGER REFERENCES zbox (id) ON DELETE CASCADE);
        CREATE TABLE zbox (id INTEGER PRIMARY KEY, up INTEGER REFERENCES zbox (id));
        CREATE TABLE log (what TEXT);
        CREATE TRIGGER watch AFTER INSERT ON zbox BEGIN INSERT INTO log VALUES ('box ' || NEW.id); END;
        INSERT INTO zbox VALUES (1, NULL), (2, NULL); INSERT INTO item VALUES (1, 1), (2, 2); DELETE FROM log;";
    let three = Three::new(old, "");
    sql(
        &three.after(),
        "PRAGMA foreign_keys=ON; INSERT INTO zbox VALUES (10, NULL); INSERT INTO zbox VALUES (9, 10);
         INSERT INTO item VALUES (7, 9); DELETE FROM zbox WHERE id = 1; DELETE FROM zbox WHERE id = 2;
         INSERT INTO zbox VALUES (3, NULL); INSERT INTO item VALUES (8, 3);",
    );
    // Since then somebody put something into box 2, which must not go with it; and number 3 is another one.
    sql(&three.target(), "INSERT INTO item VALUES (50, 2)");
    let outcome = three.compared();
    assert_eq!(why(&outcome, "zbox"), [(json!({ "id": 2 }).to_string(), ORPHAN.to_owned())]);
    assert_eq!(rows(&three.target(), "SELECT id FROM zbox ORDER BY id"), ["2", "3", "9", "10"]);
    assert_eq!(rows(&three.target(), "SELECT id, box FROM item ORDER BY id"), ["7|9", "8|3", "50|2"]);
    // What the trigger wrote is a write itself: once each.
    assert_eq!(rows(&three.target(), "SELECT what FROM log ORDER BY what"), ["box 10", "box 3", "box 9"]);
    assert_eq!(rows(&three.target(), "PRAGMA foreign_key_check"), Vec::<String>::new());
}

#[test]
fn a_row_that_the_old_version_forbids_is_refused_and_rows_without_a_key_are_carried() {
    let old = "CREATE TABLE strict_one (id INTEGER PRIMARY KEY, v TEXT NOT NULL CHECK (length(v) < 5));
        CREATE TABLE heap (v TEXT); INSERT INTO heap VALUES ('same'), ('same'), ('gone');
        CREATE VIRTUAL TABLE search USING fts5(v, content='heap');
        INSERT INTO search(search) VALUES('rebuild');";
    let three =
        Three::new(old, "DROP TABLE strict_one; CREATE TABLE strict_one (id INTEGER PRIMARY KEY, v TEXT)");
    sql(
        &three.after(),
        "INSERT INTO strict_one VALUES (1, 'fits'), (2, 'too long'), (3, NULL);
         INSERT INTO heap VALUES ('same'), ('needle'); DELETE FROM heap WHERE v = 'gone';",
    );
    sql(&three.target(), "INSERT INTO heap VALUES ('mine')");
    let outcome = three.compared();
    assert_eq!(counts(&outcome, "strict_one"), (1, 0, 0, 0, 2));
    let text = format!("{:?}", outcome.quarantine);
    assert!(text.contains("CHECK constraint") && text.contains("NOT NULL constraint"), "{text}");
    assert!(!text.contains("too long"), "a value is in the reason: {text}");
    assert_eq!(
        rows(&three.target(), "SELECT v FROM heap ORDER BY v"),
        ["mine", "needle", "same", "same", "same"]
    );
    assert_eq!(rows(&three.target(), "SELECT v FROM search WHERE search MATCH 'needle'"), ["needle"]);
}

/// A small generator, so that a failure can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn scribble(path: &Path, dice: &mut Dice, who: &str) {
    let mut text = String::from("BEGIN;");
    for _ in 0..dice.roll(30) {
        let id = 1 + dice.roll(24);
        text.push_str(&match dice.roll(4) {
            0 => format!("INSERT OR IGNORE INTO t VALUES ({id}, '{who}{}', {});", dice.roll(3), dice.roll(3)),
            1 => format!("UPDATE t SET a = '{who}{}' WHERE id = {id};", dice.roll(3)),
            2 => format!("UPDATE t SET b = {} WHERE id = {id};", dice.roll(3)),
            _ => format!("DELETE FROM t WHERE id = {id};"),
        });
    }
    text.push_str("COMMIT;");
    sql(path, &text);
}

type Table = BTreeMap<i64, (String, i64)>;

fn table(path: &Path) -> Table {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT id, a, b FROM t").unwrap();
    let all = statement.query_map([], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?)))).unwrap();
    all.map(|r| r.unwrap()).collect()
}

/// What a person who merges by hand would get: each row's columns by themselves.
fn merged(before: &Table, after: &Table, own: &Table) -> (Table, u64) {
    let mut result = own.clone();
    let mut refused = 0;
    for id in before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>() {
        match (before.get(id), after.get(id), own.get(id)) {
            (a, b, _) if a == b => {}
            (None, Some(_), None) => drop(result.insert(*id, after[id].clone())),
            (None, Some(new), Some(mine)) => refused += u64::from(new != mine),
            (Some(old), None, Some(mine)) if old == mine => drop(result.remove(id)),
            (Some(_), None, Some(_)) => refused += 1,
            (Some(_), None, None) => {}
            (Some(_), Some(_), None) => refused += 1,
            (Some(old), Some(new), Some(mine)) => {
                let free = (old.0 == new.0 || old.0 == mine.0) && (old.1 == new.1 || old.1 == mine.1);
                let there = (old.0 == new.0 || new.0 == mine.0) && (old.1 == new.1 || new.1 == mine.1);
                if free {
                    let row = result.get_mut(id).unwrap();
                    if old.0 != new.0 {
                        row.0.clone_from(&new.0);
                    }
                    if old.1 != new.1 {
                        row.1 = new.1;
                    }
                } else {
                    refused += u64::from(!there);
                }
            }
            (None, None, _) => {}
        }
    }
    (result, refused)
}

#[test]
fn any_writes_on_both_sides_merge_as_a_person_would() {
    for seed in 0..150 {
        let mut dice = Dice(seed * 7919 + 1);
        let old = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12)
            INSERT INTO t SELECT i, 'x', i FROM n;";
        let three = Three::new(old, "ALTER TABLE t ADD COLUMN c DEFAULT 5");
        // The column that the old version has not is at its default.
        sql(&three.after(), "CREATE VIEW v AS SELECT 1; ALTER TABLE t DROP COLUMN c");
        scribble(&three.after(), &mut dice, "A");
        scribble(&three.target(), &mut dice, "M");
        let (before, after, own) = (table(&three.before()), table(&three.after()), table(&three.target()));
        let known = Rules { touched: Some(BTreeMap::new()), before_upgrade: false };
        let outcome = three.carry(&known);
        let (expected, refused) = merged(&before, &after, &own);
        assert_eq!(table(&three.target()), expected, "seed {seed}");
        let counted = counts(&outcome, "t");
        assert_eq!(counted.4, refused, "seed {seed}: {:?}", outcome.quarantine);
        let writes = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
        let differing = writes.into_iter().filter(|id| before.get(id) != after.get(id)).count() as u64;
        assert_eq!(counted.0 + counted.1 + counted.2 + counted.3 + counted.4, differing, "seed {seed}");
    }
}
