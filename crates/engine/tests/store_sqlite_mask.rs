//! Masking a SQLite copy: values, what belongs together, and that nothing of the old ones is left in any file.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use rusqlite::Connection;
use std::fs;
use std::path::Path;
use switchback_core::anonymise::{Key, Mask, MaskedStore, Rule, masked, propose, rules};
use switchback_engine::store::{self, Progress, Source, StoreError};

const MARK: &[u8] = b"pii7f";

fn key() -> Key {
    Key::new([42; 32])
}

fn parsed(all: &[(&str, Mask)]) -> Vec<Rule> {
    rules(&all.iter().map(|(t, m)| ((*t).to_owned(), *m)).collect()).unwrap()
}

fn mask(path: &Path, all: &[(&str, Mask)]) -> Result<MaskedStore, StoreError> {
    store::mask_sqlite(path, &parsed(all), &key(), &Progress::none())
}

fn holding(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let found = files.filter(|f| fs::read(f).unwrap().windows(MARK.len()).any(|w| w == MARK));
    found.map(|f| f.display().to_string()).collect()
}

/// 10,000 personal values: in rows, deleted rows, a search index, a log of writes that is not folded in, statistics.
fn seed(path: &Path, journal: &str) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode={journal}; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE NOT NULL, name TEXT, phone, born TEXT, at INTEGER, key BLOB);
         CREATE TABLE orders (id INTEGER PRIMARY KEY, email TEXT REFERENCES users (email), note TEXT);
         CREATE TABLE audit (what TEXT);
         CREATE TRIGGER watch AFTER UPDATE ON users BEGIN INSERT INTO audit VALUES (OLD.email); END;
         CREATE VIRTUAL TABLE search USING fts5(note, content='orders', content_rowid='id');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO users SELECT i, 'pii7f' || i || '@mail.test', 'pii7f ' || i, 'pii7f+49' || i,
           date('2000-01-01', i || ' days'), 1600000000 + i, CAST('pii7f' || i AS BLOB) FROM n;
         INSERT INTO orders SELECT id, email, 'pii7f note pii7fword' || id FROM users;
         INSERT INTO search(search) VALUES('rebuild');
         CREATE INDEX by_name ON users (name); ANALYZE;
         INSERT INTO users SELECT id + 10000, 'gone' || email, name, phone, born, at, key FROM users;
         DELETE FROM users WHERE id > 10000;"
    ))
    .unwrap();
    // As after kill -9: what was written last lies beside the file.
    std::mem::forget(conn);
}

const RULES: [(&str, Mask); 7] = [
    ("db.users.email", Mask::Email),
    ("db.orders.email", Mask::Email),
    ("db.users.name", Mask::Name),
    ("db.users.phone", Mask::Phone),
    ("db.users.born", Mask::DateShift),
    ("db.users.key", Mask::Hash),
    ("db.orders.note", Mask::Text),
];

#[test]
fn no_file_keeps_any_of_ten_thousand_masked_values() {
    for journal in ["WAL", "DELETE", "PERSIST", "TRUNCATE"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        seed(&path, journal);
        assert!(!holding(folder.path()).is_empty(), "the search finds what is there");
        let done = mask(&path, &RULES).unwrap();
        assert_eq!(done.columns.iter().map(|c| c.values).sum::<u64>(), 14_000, "{done:?}");
        assert_eq!(holding(folder.path()), Vec::<String>::new(), "{journal}: old values are left");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{journal}: one file");

        let conn = Connection::open(&path).unwrap();
        let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("PRAGMA integrity_check"), "ok");
        assert_eq!(one("SELECT count(*) || '' FROM orders JOIN users USING (id, email)"), "2000");
        assert_eq!(one("SELECT count(*) || '' FROM audit"), "0", "a trigger kept old values");
        assert_eq!(
            one("SELECT email FROM users WHERE id = 7"),
            masked(&key(), Mask::Email, "pii7f7@mail.test", None)
        );
        assert_eq!(one("SELECT count(*) || '' FROM search WHERE search MATCH 'lorem'"), "2000");
        assert_eq!(one("SELECT (julianday(max(born)) - julianday(min(born))) || '' FROM users"), "1999.0");
        assert_eq!(one("PRAGMA journal_mode").eq_ignore_ascii_case("wal"), journal == "WAL", "{journal}");
        let trigger = "SELECT count(*) || '' FROM sqlite_schema WHERE type = 'trigger'";
        assert_eq!(one(trigger), "1");
    }
}

#[test]
fn rules_that_cannot_be_carried_out_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    seed(&path, "DELETE");
    let before = blake3::hash(&fs::read(&path).unwrap());
    for (all, why) in [
        (&[("db.users.mail", Mask::Email)][..], "the table has id, email"),
        (&[("db.users.email", Mask::Email)], "both need the same mask"),
        (&[("db.users.email", Mask::Null), ("db.orders.email", Mask::Null)], "must have a value"),
    ] {
        let error = mask(&path, all).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(blake3::hash(&fs::read(&path).unwrap()), before);
    // A value that is no date cannot be moved; nothing is left half done that could be used: the caller copies again.
    let error = mask(&path, &[("db.users.name", Mask::DateShift)]).expect_err("refused").to_string();
    assert!(error.contains("is no date"), "{error}");
}

#[test]
fn likely_personal_data_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    seed(&path, "WAL");
    let samples = store::sample_sqlite(Source::live(&path), 50).unwrap();
    let found: Vec<(String, Mask)> =
        samples.iter().filter_map(|s| Some((s.column.path(), propose(s)?.mask))).collect();
    for (column, mask) in
        [("users.email", Mask::Email), ("orders.email", Mask::Email), ("users.phone", Mask::Phone)]
    {
        assert!(found.contains(&(column.to_owned(), mask)), "{column}: {found:?}");
    }
    assert!(!found.iter().any(|(c, _)| c == "users.id" || c == "users.at"), "{found:?}");
}
