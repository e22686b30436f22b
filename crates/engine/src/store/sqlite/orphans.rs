//! Soundness of a database: `integrity_check` and foreign keys.
//!
//! Owns both checks and the comparison of orphans between two states.

use super::super::{Result, Source, StoreError};
use super::open::Db;
use super::schema::Schema;
use super::sql_error;
use std::collections::BTreeMap;

/// Orphaned rows per foreign key, and keys that cannot be checked at all.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// (child table, child columns, parent table) to rows.
    rows: BTreeMap<(String, String, String), u64>,
    /// Tables whose foreign keys are malformed, with SQLite's words.
    broken: BTreeMap<String, String>,
}

impl Orphans {
    pub(super) fn read(db: &Db, schema: &Schema) -> Result<Self> {
        let mut found = Self::default();
        let err = |e| sql_error("check foreign keys of", &db.path, e);
        for table in schema.tables.keys() {
            let mut columns: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            let mut list = db
                .conn
                .prepare_cached("SELECT id, \"from\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq")
                .map_err(err)?;
            let mut rows = list.query([table]).map_err(err)?;
            while let Some(row) = rows.next().map_err(err)? {
                columns.entry(row.get(0).map_err(err)?).or_default().push(row.get(1).map_err(err)?);
            }
            if columns.is_empty() {
                continue;
            }
            match count(db, table) {
                Ok(counts) => {
                    for (id, parent, rows) in counts {
                        let names = columns.get(&id).map(|c| c.join("+")).unwrap_or_default();
                        *found.rows.entry((table.clone(), names, parent)).or_default() += rows;
                    }
                }
                Err(e) => match sql_error("check foreign keys of", &db.path, e) {
                    StoreError::Sqlite { source, .. } => {
                        found.broken.insert(table.clone(), source.to_string());
                    }
                    other => return Err(other),
                },
            }
        }
        Ok(found)
    }

    /// Whether every row has its parent, and every key can be checked.
    pub(super) fn none(&self) -> bool {
        self.broken.is_empty() && self.rows.values().all(|rows| *rows == 0)
    }

    /// What `after` has more than `self`, in words.
    pub(super) fn new_in(&self, after: &Self) -> Vec<String> {
        let mut words = Vec::new();
        for (key, rows) in &after.rows {
            let new = rows.saturating_sub(self.rows.get(key).copied().unwrap_or(0));
            if new > 0 {
                words.push(in_words(key, new));
            }
        }
        for (table, why) in after.broken.iter().filter(|(t, _)| !self.broken.contains_key(*t)) {
            words.push(format!("{table}: {why}"));
        }
        words
    }

    fn all(&self) -> Vec<String> {
        Self::default().new_in(self)
    }
}

fn in_words((table, columns, parent): &(String, String, String), rows: u64) -> String {
    format!("{table}.{columns}: {rows} {} without parent in {parent}", if rows == 1 { "row" } else { "rows" })
}

fn count(db: &Db, table: &str) -> rusqlite::Result<Vec<(i64, String, u64)>> {
    let mut check = db.conn.prepare_cached(
        "SELECT fkid, parent, count(*) FROM pragma_foreign_key_check(?1) GROUP BY fkid, parent",
    )?;
    let rows = check.query_map([table], |row| {
        let rows: i64 = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, u64::try_from(rows).unwrap_or(0)))
    })?;
    rows.collect()
}

/// Problems of the database; a database that cannot be read at all is a problem, not an error.
pub(in super::super) fn integrity(source: Source<'_>) -> Result<Vec<String>> {
    let as_problem = |error| match error {
        StoreError::Damaged { detail, .. } => Ok(vec![detail]),
        other => Err(other),
    };
    match Db::reader(source).and_then(|db| problems(&db)) {
        Ok(problems) => Ok(problems),
        Err(error) => as_problem(error),
    }
}

fn problems(db: &Db) -> Result<Vec<String>> {
    let mut problems = physical(db, "integrity_check")?;
    let schema = Schema::read(db)?;
    problems.extend(Orphans::read(db, &schema)?.all());
    Ok(problems)
}

/// Runs `integrity_check` or `quick_check`.
pub(super) fn physical(db: &Db, pragma: &str) -> Result<Vec<String>> {
    let err = |e| sql_error("check", &db.path, e);
    let mut check = db.conn.prepare(&format!("PRAGMA {pragma}")).map_err(err)?;
    let rows = check.query_map([], |row| row.get::<_, String>(0)).map_err(err)?;
    let lines: Vec<String> = rows.collect::<rusqlite::Result<_>>().map_err(err)?;
    Ok(lines.into_iter().filter(|l| l != "ok").collect())
}
