//! Faults in the data: what a migration does wrong. Made in a copy of the untouched copy, so nothing that runs is concerned.

use super::{Ground, judge};
use crate::data::Work;
use crate::error::{EngineError, io};
use crate::exec::elapsed_ms;
use crate::ops::losses;
use crate::runtime::{Placement, Stage};
use crate::store::Progress;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::prove::{Mutant, Outcome, Row};

/// Tries one on the largest SQLite store.
pub fn try_one(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<(), EngineError> {
    let nothing =
        |why: &str| Outcome::NotApplicable { why: why.to_owned(), advice: mutant.advice.to_owned() };
    let Some(pristine) = ground.pristine else {
        row.outcome = nothing("the environment has no untouched copy (staging.pristine)");
        return Ok(());
    };
    let local = pristine.stores.iter().filter(|(_, p)| p.kind == StoreKind::Sqlite && p.mount.is_none());
    let size = |path: &str| fs::metadata(path).map_or(0, |m| m.len());
    let Some((store, place)) = local.max_by_key(|(_, p)| size(&p.path)) else {
        row.outcome = nothing("this version makes it in SQLite databases of local processes only");
        return Ok(());
    };
    let folder = ground.home.run_dir(ground.run).join("mutant");
    let _ = fs::remove_dir_all(&folder);
    crate::home::create_dir(&folder)?;
    let result = in_folder(ground, mutant, row, store, Path::new(&place.path), &folder);
    fs::remove_dir_all(&folder).map_err(io("remove", &folder))?;
    result
}

fn in_folder(
    ground: &Ground<'_>,
    mutant: &Mutant,
    row: &mut Row,
    store: &StoreName,
    original: &Path,
    folder: &Path,
) -> Result<(), EngineError> {
    let Some(pristine) = ground.pristine else { return Ok(()) };
    let copy = folder.join("data.db");
    for suffix in ["", "-wal"] {
        let (from, to) = (with_suffix(original, suffix), with_suffix(&copy, suffix));
        if from.exists() {
            fs::copy(&from, &to).map_err(io("copy", &from))?;
        }
    }
    let wrap = |e: rusqlite::Error| EngineError::Internal { detail: format!("{}: {e}", copy.display()) };
    let landed = damage(&copy, mutant.id).map_err(wrap)?;
    row.landed = usize::try_from(landed).unwrap_or(usize::MAX);
    if landed == 0 {
        let why = "no table has what it needs".to_owned();
        row.outcome = Outcome::NotApplicable { why, advice: mutant.advice.to_owned() };
        return Ok(());
    }
    let mut mutated = ground.new.clone();
    if let Some(place) = mutated.stores.get_mut(store) {
        place.path = copy.to_string_lossy().into_owned();
        place.mount = None;
    }
    let release = ground.home.release(&ground.new.release)?;
    let at = |instance| Placement { home: ground.home, config: ground.config, instance, release: &release };
    let work = Work { stage: Stage::quiet(), progress: &Progress::none(), temp: folder };
    let began = Instant::now();
    let diff = ground.world.data.diff(&at(pristine), &at(&mutated), CloneMode::Cold, store, &work)?;
    let failures = losses(store, StoreKind::Sqlite, &diff, &ground.config.checks.expected_changes);
    let result = CheckResult {
        looks: Vec::new(),
        id: format!("integrity/{store}"),
        kind: CheckKind::Integrity,
        environment: ground.new.environment.clone(),
        verdict: Verdict::from_failures(failures),
        took_ms: elapsed_ms(began),
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
    };
    judge(mutant, &[result], &ground.new.environment, row);
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Damages the database; how many rows (or columns) it concerned.
fn damage(path: &Path, id: &str) -> rusqlite::Result<u64> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // Neither cascades nor triggers: a migration that copies badly has none either.
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF")?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    for table in tables(&connection)? {
        let quoted = quote(&table);
        let landed = match id {
            "M07" => {
                let rows: i64 =
                    connection.query_row(&format!("SELECT count(*) FROM {quoted}"), [], |r| r.get(0))?;
                let lost = (rows + 99) / 100;
                let sql = format!(
                    "DELETE FROM {quoted} WHERE rowid IN (SELECT rowid FROM {quoted} ORDER BY rowid LIMIT {lost})"
                );
                connection.execute(&sql, []).unwrap_or(0)
            }
            "M06" => of_columns(&connection, &table, |column| {
                connection
                    .execute_batch(&format!("ALTER TABLE {quoted} DROP COLUMN {column}"))
                    .map_or(0, |()| 1)
            })?,
            "M08" => of_columns(&connection, &table, |column| {
                let sql = format!(
                    "UPDATE {quoted} SET {column} = substr({column}, 1, length({column}) - 1) WHERE typeof({column}) = 'text' AND length({column}) > 1"
                );
                connection.execute(&sql, []).unwrap_or(0)
            })?,
            _ => 0,
        };
        if landed > 0 {
            return Ok(landed as u64);
        }
    }
    Ok(0)
}

/// Tries columns from the last to the first, until something came of it.
fn of_columns(
    connection: &Connection,
    table: &str,
    mut change: impl FnMut(&str) -> usize,
) -> rusqlite::Result<usize> {
    let mut statement =
        connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk = 0 ORDER BY cid DESC")?;
    let names: Vec<String> = statement.query_map([table], |r| r.get(0))?.collect::<Result<_, _>>()?;
    drop(statement);
    Ok(names.iter().map(|name| change(&quote(name))).find(|n| *n > 0).unwrap_or(0))
}

/// Ordinary tables, the longest first.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND NOT wr AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%migration%'",
    )?;
    let names: Vec<String> = statement.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
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

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_lands_in_the_longest_table() {
        for (id, check) in [
            ("M06", "SELECT count(*) FROM pragma_table_info('notes') WHERE name = 'body'"),
            ("M07", "SELECT count(*) = 297 FROM notes"),
            ("M08", "SELECT count(*) = 0 FROM notes WHERE body LIKE '%end'"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("x.db");
            let connection = Connection::open(&path).expect("opens");
            connection
                .execute_batch(
                    "CREATE TABLE notes (id INTEGER PRIMARY KEY, n INTEGER, body TEXT);
                     CREATE TABLE small (id INTEGER PRIMARY KEY);
                     WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 300)
                     INSERT INTO notes SELECT n, n, 'the end' FROM i;",
                )
                .expect("writes");
            drop(connection);
            assert!(damage(&path, id).expect("damages") > 0, "{id}");
            let connection = Connection::open(&path).expect("opens");
            let value: i64 = connection.query_row(check, [], |r| r.get(0)).expect("asks");
            assert_eq!(value, i64::from(id != "M06"), "{id}");
        }
    }
}
