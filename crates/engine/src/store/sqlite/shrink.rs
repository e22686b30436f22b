//! Fewer rows in a copy.
//!
//! It must never be asked of a database that anybody needs: the caller holds scratch.

use super::super::thinning::{self, Dialect, Reference, Table};
use super::super::{Progress, Result, StoreError};
use super::mask::{Virtual, close, rebuild_search, virtual_tables};
use super::open::Db;
use super::{quote, sql_error};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::scaling::Shrunk;

struct Sqlite;

impl Dialect for Sqlite {
    fn orphans(&self, reference: &Reference) -> String {
        thinning::orphans("DELETE FROM", reference)
    }
    fn share(&self, table: &Table, target: u64, but: &[String]) -> String {
        let kept: String = but.iter().map(|b| format!(" AND ({b}) IS NOT TRUE")).collect();
        // The share is worked out once, before the first row goes.
        format!(
            "DELETE FROM {0} WHERE abs(random() % 1000000) < (SELECT 1000000 - 1000000 * min({target}, count(*)) / max(1, count(*)) FROM {0}){kept}",
            table.name
        )
    }
}

/// Removes rows of large tables, so that about `percent` of them are left; tables in `not` are kept whole. Measures at 100.
pub(in super::super) fn shrink(
    path: &Path,
    percent: u8,
    not: &[String],
    progress: &Progress<'_>,
) -> Result<Shrunk> {
    let db = Db::writer(path)?;
    let err = |e| sql_error("remove rows of", &db.path, e);
    let (tables, references) = read(&db.conn, not).map_err(err)?;
    let mut done = Shrunk {
        tables: tables.iter().filter(|t| thinning::is_large(t)).count() as u64,
        ..Shrunk::default()
    };
    if percent < 100 && done.tables > 0 {
        db.conn.execute_batch("PRAGMA foreign_keys = OFF").map_err(err)?;
        db.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(err)?;
        db.conn.execute_batch("BEGIN IMMEDIATE").map_err(err)?;
        for sql in thinning::statements(&tables, &references, percent, &Sqlite) {
            (progress.cancel)().then_some(()).map_or(Ok(()), |()| Err(StoreError::Cancelled))?;
            db.conn.execute(&sql, []).map_err(err)?;
        }
        for _ in 0..thinning::ROUNDS {
            let mut gone = 0;
            for (table, sql) in thinning::repairs(&references, &Sqlite) {
                let rows = db.conn.execute(&sql, []).map_err(err)? as u64;
                gone += rows;
                if !thinning::is_large(&tables[table]) {
                    done.followed += rows;
                }
            }
            if gone == 0 {
                break;
            }
        }
        for (name, kind) in virtual_tables(&db)? {
            if kind == Virtual::Search {
                rebuild_search(&db, &name)?;
            }
        }
        db.conn.execute_batch("COMMIT; VACUUM; ANALYZE").map_err(err)?;
    }
    for table in &tables {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        let rows: i64 = db.conn.query_row(&sql, [], |r| r.get(0)).map_err(err)?;
        done.rows += u64::try_from(rows).unwrap_or_default();
    }
    let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = db.conn.query_row(size, [], |r| r.get(0)).map_err(err)?;
    done.bytes = u64::try_from(bytes).unwrap_or_default();
    close(db)?;
    Ok(done)
}

/// A foreign key as SQLite lists it: the parent, columns, and the columns that they refer to where they are named.
type Key = (String, Vec<String>, Vec<Option<String>>);

/// Ordinary tables, and what they refer to.
fn read(connection: &Connection, not: &[String]) -> rusqlite::Result<(Vec<Table>, Vec<Reference>)> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names: Vec<String> = statement.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut tables = Vec::new();
    let mut number = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let rows: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {}", quote(name)), [], |r| r.get(0))?;
        // Names are the same in upper and lower case.
        let folded = name.to_ascii_lowercase();
        let whole = not.iter().any(|n| n.eq_ignore_ascii_case(name));
        tables.push(Table { name: quote(name), rows: u64::try_from(rows).unwrap_or_default(), whole });
        number.insert(folded, at);
    }
    let mut references = Vec::new();
    for (child, name) in names.iter().enumerate() {
        let mut list = connection.prepare(
            "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
        )?;
        let rows = list.query_map([name], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, String>(2)?,
                r.get::<_, Option<String>>(3)?,
            ))
        })?;
        let mut keys: BTreeMap<i64, Key> = BTreeMap::new();
        for row in rows {
            let (id, parent, from, to) = row?;
            let (_, columns, tos) = keys.entry(id).or_insert_with(|| (parent, Vec::new(), Vec::new()));
            columns.push(quote(&from));
            tos.push(to);
        }
        for (parent_name, columns, tos) in keys.into_values() {
            let Some(parent) = number.get(&parent_name.to_ascii_lowercase()).copied() else { continue };
            let keys: Vec<String> = match tos.into_iter().collect::<Option<Vec<String>>>() {
                Some(named) => named.iter().map(|n| quote(n)).collect(),
                // Without names the parent's primary key is meant.
                None => {
                    let mut key = connection
                        .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
                    key.query_map([&names[parent]], |r| r.get::<_, String>(0))?
                        .map(|n| n.map(|n| quote(&n)))
                        .collect::<rusqlite::Result<_>>()?
                }
            };
            if keys.len() == columns.len() {
                references.push(Reference {
                    child,
                    child_name: quote(name),
                    columns,
                    parent,
                    parent_name: quote(&names[parent]),
                    keys,
                });
            }
        }
    }
    Ok((tables, references))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        Connection::open(&path).expect("opens").execute_batch(sql).expect("writes");
        (folder, path)
    }

    fn one(path: &Path, sql: &str) -> i64 {
        Connection::open(path).expect("opens").query_row(sql, [], |r| r.get(0)).expect("asks")
    }

    #[test]
    fn a_share_is_left_of_large_tables_and_every_reference_leads_somewhere() {
        let (_folder, path) = made(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE alembic_version (n INTEGER);
             CREATE TABLE \"or;ders\" (id INTEGER PRIMARY KEY, user INTEGER NOT NULL REFERENCES users, parent INTEGER REFERENCES \"or;ders\"(id));
             CREATE TABLE lines (\"order\" INTEGER NOT NULL REFERENCES \"or;ders\", n INTEGER, note TEXT, PRIMARY KEY (\"order\", n)) WITHOUT ROWID;
             CREATE TABLE pinned (id INTEGER PRIMARY KEY, \"order\" INTEGER REFERENCES \"or;ders\");
             CREATE TRIGGER t AFTER DELETE ON lines BEGIN DELETE FROM users; END;
             CREATE VIRTUAL TABLE found USING fts5(note, content='notes', content_rowid='id');
             CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT);
             WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 6000)
             INSERT INTO notes SELECT n, 'word' || n FROM i;
             INSERT INTO found(found) VALUES('rebuild');
             WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 50) INSERT INTO users SELECT n, 'u' FROM i;
             WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 4000)
             INSERT INTO \"or;ders\" SELECT n, 1 + n % 50, CASE WHEN n % 10 = 0 THEN n - 1 END FROM i;
             INSERT INTO lines SELECT o.id, n.id, 'some text that takes room in the file' FROM \"or;ders\" o, users n WHERE n.id <= 5;
             INSERT INTO alembic_version SELECT id FROM \"or;ders\";
             INSERT INTO pinned VALUES (1, 4000), (2, 3999), (3, 1);",
        );
        let whole = shrink(&path, 100, &["ALEMBIC_VERSION".to_owned()], &Progress::none()).expect("measures");
        assert_eq!((whole.rows, whole.tables), (6000 + 50 + 4000 + 20_000 + 4000 + 3, 3));
        let left = shrink(&path, 25, &["alembic_version".to_owned()], &Progress::none()).expect("removes");
        for (what, sql, low, high) in [
            ("orders", "SELECT count(*) FROM \"or;ders\"", 800, 1050),
            ("lines", "SELECT count(*) FROM lines", 4000, 5300),
            ("notes", "SELECT count(*) FROM notes", 1350, 1650),
            ("users", "SELECT count(*) FROM users", 50, 50),
            ("bookkeeping", "SELECT count(*) FROM alembic_version", 4000, 4000),
            ("pinned", "SELECT count(*) FROM pinned", 3, 3),
            ("orphans", "SELECT count(*) FROM pragma_foreign_key_check", 0, 0),
        ] {
            let found = one(&path, sql);
            assert!((low..=high).contains(&found), "{what}: {found}");
        }
        assert_eq!(left.followed, 0, "what a small table refers to was kept");
        assert!(left.bytes * 2 < whole.bytes, "{left:?} of {whole:?}");
        assert_eq!(left.bytes, std::fs::metadata(&path).expect("there").len());
        assert_eq!(
            one(&path, "SELECT count(*) FROM found WHERE found MATCH 'word*'"),
            one(&path, "SELECT count(*) FROM notes")
        );
    }

    #[test]
    fn what_is_small_is_left_alone() {
        let (_folder, path) = made("CREATE TABLE a (id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1), (2);");
        let left = shrink(&path, 10, &[], &Progress::none()).expect("measures");
        assert_eq!((left.rows, left.tables), (2, 0));
    }
}
