//! Damage on purpose, to a clone: what bad migrations do to a database.
//!
//! It must never be asked of a database that anybody needs: the caller holds scratch.

use super::super::Result;
use super::open::Db;
use super::{quote, sql_error};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::Path;
use switchback_core::prove::Damage;

/// Damages a database: the longest table that has what it needs, or every table; but none that is named in `not`. How many rows,
/// columns or tables it concerned.
pub(in super::super) fn damage(path: &Path, damage: Damage, not: &[String]) -> Result<u64> {
    let db = Db::writer(path)?;
    let err = |e| sql_error("damage", &db.path, e);
    // Neither cascades nor triggers: a migration that copies badly has none either.
    db.conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF").map_err(err)?;
    db.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(err)?;
    let mut sum = 0;
    for table in tables(&db.conn).map_err(err)?.into_iter().filter(|t| !not.contains(t)) {
        let landed = one(&db.conn, &table, damage).map_err(err)?;
        sum += landed;
        if landed > 0 && damage != Damage::TablesRenamed {
            break;
        }
    }
    Ok(sum)
}

/// Damages one table. What a rule of the table forbids is tried with its next column.
fn one(connection: &Connection, table: &str, damage: Damage) -> rusqlite::Result<u64> {
    let quoted = quote(table);
    let landed = match damage {
        Damage::RowsLost => {
            let rows: i64 =
                connection.query_row(&format!("SELECT count(*) FROM {quoted}"), [], |r| r.get(0))?;
            let lost = (rows + 99) / 100;
            let sql = format!(
                "DELETE FROM {quoted} WHERE rowid IN (SELECT rowid FROM {quoted} ORDER BY rowid LIMIT {lost})"
            );
            connection.execute(&sql, []).unwrap_or(0)
        }
        Damage::ColumnDropped => of_columns(connection, table, |column| {
            connection.execute_batch(&format!("ALTER TABLE {quoted} DROP COLUMN {column}")).map_or(0, |()| 1)
        })?,
        Damage::TextsCut => of_columns(connection, table, |column| {
            let sql = format!(
                "UPDATE {quoted} SET {column} = substr({column}, 1, length({column}) - 1) WHERE typeof({column}) = 'text' AND length({column}) > 1"
            );
            connection.execute(&sql, []).unwrap_or(0)
        })?,
        Damage::HalfMoved => of_columns(connection, table, |column| {
            half_moved(connection, &quoted, column).unwrap_or_else(|_| {
                let _ = connection.execute_batch("ROLLBACK TO half; RELEASE half");
                0
            })
        })?,
        Damage::TablesRenamed => {
            let name = quote(&format!("renamed_{table}"));
            connection.execute_batch(&format!("ALTER TABLE {quoted} RENAME TO {name}")).map_or(0, |()| 1)
        }
    };
    Ok(landed as u64)
}

/// Moves a column's texts into a new one, for half of the rows that have any; all or nothing. Names are quoted.
fn half_moved(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<usize> {
    connection.execute_batch("SAVEPOINT half")?;
    let whose = format!("typeof({column}) = 'text' AND length({column}) > 0");
    let rows: i64 =
        connection.query_row(&format!("SELECT count(*) FROM {table} WHERE {whose}"), [], |r| r.get(0))?;
    connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN switchback_moved TEXT"))?;
    let moved = connection.execute(
        &format!(
            "UPDATE {table} SET switchback_moved = {column}, {column} = '' WHERE rowid IN \
             (SELECT rowid FROM {table} WHERE {whose} ORDER BY rowid LIMIT {})",
            (rows + 1) / 2
        ),
        [],
    )?;
    connection.execute_batch(if moved > 0 { "RELEASE half" } else { "ROLLBACK TO half; RELEASE half" })?;
    Ok(moved)
}

/// Tries columns from the last to the first, until something came of it.
fn of_columns(
    connection: &Connection,
    table: &str,
    mut change: impl FnMut(&str) -> usize,
) -> rusqlite::Result<usize> {
    let mut statement =
        connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk = 0 ORDER BY cid DESC")?;
    let names: Vec<String> = statement.query_map([table], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    Ok(names.iter().map(|name| change(&quote(name))).find(|n| *n > 0).unwrap_or(0))
}

/// Ordinary tables, the longest first.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND NOT wr AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let names: Vec<String> = statement.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut sized: Vec<(i64, String)> = names
        .into_iter()
        .filter_map(|name| {
            let sql = format!("SELECT count(*) FROM {}", quote(&name));
            Some((connection.query_row(&sql, [], |r| r.get(0)).ok()?, name))
        })
        .collect();
    sized.sort_by(|a, b| b.cmp(a));
    Ok(sized.into_iter().map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_lands_in_the_longest_table_that_may_be_damaged() {
        for (what, check, expected) in [
            (Damage::ColumnDropped, "SELECT count(*) FROM pragma_table_info('notes') WHERE name = 'body'", 0),
            (Damage::RowsLost, "SELECT count(*) FROM notes", 297),
            (Damage::TextsCut, "SELECT count(*) FROM notes WHERE body LIKE '%end'", 0),
            (
                Damage::HalfMoved,
                "SELECT count(*) FROM notes WHERE body = '' AND switchback_moved = 'the end'",
                150,
            ),
            (Damage::TablesRenamed, "SELECT count(*) FROM renamed_notes, renamed_small", 300),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("x.db");
            let connection = Connection::open(&path).expect("opens");
            connection
                .execute_batch(
                    "CREATE TABLE notes (id INTEGER PRIMARY KEY, n INTEGER, body TEXT);
                     CREATE TABLE log (id INTEGER PRIMARY KEY, n INTEGER, body TEXT);
                     CREATE TABLE small (id INTEGER PRIMARY KEY);
                     INSERT INTO small VALUES (1);
                     WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 300)
                     INSERT INTO notes SELECT n, n, 'the end' FROM i;
                     INSERT INTO log SELECT * FROM notes; INSERT INTO log VALUES (301, 301, 'more');",
                )
                .expect("writes");
            drop(connection);
            assert!(damage(&path, what, &["log".to_owned()]).expect("damages") > 0, "{what:?}");
            let connection = Connection::open(&path).expect("opens");
            let value: i64 = connection.query_row(check, [], |r| r.get(0)).expect("asks");
            assert_eq!(value, expected, "{what:?}");
            let untouched: i64 =
                connection.query_row("SELECT count(body) FROM log", [], |r| r.get(0)).expect("asks");
            assert_eq!(untouched, 301, "{what:?}");
        }
    }
}
