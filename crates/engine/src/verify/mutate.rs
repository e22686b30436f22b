//! Damage on purpose: what the known-bad upgrades of an acceptance run do to the sandbox's data.
//!
//! Called as a hidden command from a wrapped migration. It says in a file what it did, so that the check
//! that must notice can be held against it.

use crate::error::EngineError;
use crate::home::write_json;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// The hidden command.
pub const MUTATE_VERB: &str = "__mutate";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// The table or file.
    pub part: String,
    /// Rows before (1 for a file).
    pub before: u64,
    /// Rows removed.
    pub lost: u64,
}

/// Performs `lose-rows DATABASE RECORD` or `lose-file FOLDER RECORD`; the record `-` is standard output.
pub fn run(args: &[String]) -> Result<(), EngineError> {
    let [what, target, record] = args else {
        return Err(EngineError::Internal { detail: format!("{MUTATE_VERB} takes three arguments") });
    };
    let (target, record) = (Path::new(target), Path::new(record));
    // Only data of a sandbox is ever damaged, whoever calls this.
    let inside = super::sandbox::is_inside;
    let real = target.canonicalize().map_err(crate::error::io("open", target))?;
    let told = record == Path::new("-");
    if !inside(&real) || !(told || inside(record)) {
        return Err(EngineError::Internal { detail: format!("{} is not a sandbox's", target.display()) });
    }
    let done = match what.as_str() {
        "lose-rows" => lose_rows(&real)?,
        "lose-file" => lose_file(&real)?,
        other => return Err(EngineError::Internal { detail: format!("unknown mutation {other:?}") }),
    };
    if told {
        let text = serde_json::to_vec(&done).map_err(|e| EngineError::Internal { detail: e.to_string() })?;
        return std::io::stdout().write_all(&text).map_err(crate::error::io("write to", Path::new("stdout")));
    }
    write_json(record, &done)
}

fn lose_rows(path: &Path) -> Result<Mutation, EngineError> {
    let wrap = |e: rusqlite::Error| EngineError::Internal { detail: format!("{}: {e}", path.display()) };
    let connection = Connection::open(path).map_err(wrap)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(wrap)?;
    // Neither cascades nor triggers: exactly these rows go, as with a migration that copies badly.
    connection.execute_batch("PRAGMA foreign_keys = OFF").map_err(wrap)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(wrap)?;
    let names: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND wr = 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .map_err(wrap)?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut largest: Option<(u64, String)> = None;
    for name in names.into_iter().filter(|n| !crate::ops::is_bookkeeping(n)) {
        let sql = format!("SELECT count(*) FROM {}", quoted(&name));
        let rows: i64 = connection.query_row(&sql, [], |r| r.get(0)).map_err(wrap)?;
        let rows = rows.unsigned_abs();
        if rows > 0 && largest.as_ref().is_none_or(|(most, _)| rows > *most) {
            largest = Some((rows, name));
        }
    }
    let Some((before, part)) = largest else {
        return Err(EngineError::Internal { detail: "no table has a row to lose".to_owned() });
    };
    // One in a hundred: few enough that only an exact comparison notices.
    let lose = (before / 100).max(1);
    let table = quoted(&part);
    let sql =
        format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT {lose})");
    let lost = connection.execute(&sql, []).map_err(wrap)? as u64;
    Ok(Mutation { part, before, lost })
}

fn lose_file(root: &Path) -> Result<Mutation, EngineError> {
    let file = walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .find(|e| e.file_type().is_file())
        .ok_or_else(|| EngineError::Internal { detail: "no file to lose".to_owned() })?;
    std::fs::remove_file(file.path()).map_err(crate::error::io("remove", file.path()))?;
    let part = file.path().strip_prefix(root).unwrap_or(file.path()).to_string_lossy().into_owned();
    Ok(Mutation { part, before: 1, lost: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_a_sandbox_can_be_damaged_and_it_says_what_it_did() {
        let dir = tempfile::tempdir().expect("tempdir");
        let outside = dir.path().join("live.db");
        let make = |path: &Path| {
            let db = Connection::open(path).expect("opens");
            db.execute_batch(
                "CREATE TABLE small(a); INSERT INTO small VALUES (1);
                 CREATE TABLE schema_migrations(v); CREATE TABLE notes(id INTEGER PRIMARY KEY, t);
                 CREATE TRIGGER gone AFTER DELETE ON notes BEGIN DELETE FROM small; END;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 250) INSERT INTO notes SELECT i, 't' FROM n;
                 INSERT INTO schema_migrations SELECT id FROM notes; INSERT INTO schema_migrations SELECT id FROM notes;",
            )
            .expect("fills");
        };
        make(&outside);
        let record = dir.path().join("record.json");
        let (o, r) = (outside.to_string_lossy(), record.to_string_lossy());
        assert!(run(&words(&["lose-rows", &o, &r])).is_err());
        let folder = dir.path().join(".switchback/verify/x");
        std::fs::create_dir_all(&folder).expect("creates");
        let inside = folder.join("copy.db");
        make(&inside);
        let record = folder.join("record.json");
        run(&words(&["lose-rows", &inside.to_string_lossy(), &record.to_string_lossy()])).expect("runs");
        let done: Mutation = crate::home::read_json(&record).expect("reads");
        assert_eq!(done, Mutation { part: "notes".to_owned(), before: 250, lost: 2 });
        let db = Connection::open(&inside).expect("opens");
        let left: i64 = db.query_row("SELECT count(*) FROM small", [], |r| r.get(0)).expect("asks");
        assert_eq!(left, 1, "a trigger ran");
    }
}
