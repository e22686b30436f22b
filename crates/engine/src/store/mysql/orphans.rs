//! Rows whose foreign key has no parent: they come in where checks were switched off.
//!
//! Owns counting and wording.

use super::names::{ident, part, table as quoted};
use super::session::Row;
use super::{Client, Result, session};
use std::collections::{BTreeMap, BTreeSet};

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    pub table: String,
    pub name: String,
    pub parent: (String, String),
    /// Pairs of columns: the child's, the parent's.
    pub columns: Vec<(String, String)>,
}

impl ForeignKey {
    /// Takes an `f` line over: one pair of columns.
    pub(super) fn take(all: &mut Vec<Self>, row: &Row<'_>) -> Result<()> {
        let (table, name) = (row.name(1)?, row.name(2)?);
        let columns = (row.name(5)?, row.name(6)?);
        match all.last_mut().filter(|k| k.table == table && k.name == name) {
            Some(key) => key.columns.push(columns),
            None => {
                all.push(Self { table, name, parent: (row.name(3)?, row.name(4)?), columns: vec![columns] });
            }
        }
        Ok(())
    }

    fn query(&self, number: usize, database: &str, there: bool) -> String {
        let on: Vec<String> =
            self.columns.iter().map(|(c, p)| format!("p.{} = c.{}", ident(p), ident(c))).collect();
        let set: Vec<String> =
            self.columns.iter().map(|(c, _)| format!("c.{} IS NOT NULL", ident(c))).collect();
        if !there {
            // The parent is gone: whoever refers to it has none.
            let child = quoted(database, &self.table);
            return format!("SELECT 'f', {number}, COUNT(*) FROM {child} c WHERE {};\n", set.join(" AND "));
        }
        let first = self.columns.first().map(|(_, p)| ident(p)).unwrap_or_default();
        format!(
            "SELECT 'f', {number}, COUNT(*) FROM {} c LEFT JOIN {} p ON {} WHERE {} AND p.{first} IS NULL;\n",
            quoted(database, &self.table),
            quoted(&self.parent.0, &self.parent.1),
            on.join(" AND "),
            set.join(" AND "),
        )
    }
}

/// Orphans by table, constraint and parent.
pub(super) type Orphans = BTreeMap<(String, String, String), u64>;

/// Counts the orphans of foreign keys of a database.
pub(super) fn read(
    client: &dyn Client,
    database: &str,
    keys: &[ForeignKey],
    cancel: &dyn Fn() -> bool,
) -> Result<Orphans> {
    let mut found = Orphans::new();
    if keys.is_empty() {
        return Ok(found);
    }
    let mut tables = BTreeSet::new();
    let all = "SELECT 't', HEX(TABLE_SCHEMA), HEX(TABLE_NAME) FROM information_schema.TABLES;";
    session::each_line(client, database, &session::reading(all), cancel, |row| {
        tables.insert((row.name(1)?, row.name(2)?));
        Ok(())
    })?;
    let query =
        |(number, key): (usize, &ForeignKey)| key.query(number, database, tables.contains(&key.parent));
    let sql: String = keys.iter().enumerate().map(query).collect();
    session::each_line(client, database, &session::reading(&sql), cancel, |row| {
        if let Some(key) = keys.get(row.number::<usize>(1)?) {
            let name = (part(database, &key.table), key.name.clone(), part(&key.parent.0, &key.parent.1));
            found.insert(name, row.number(2)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// What `after` has more than `before`, in words.
pub(super) fn more(before: &Orphans, after: &Orphans) -> Vec<String> {
    let mut words = Vec::new();
    for (key, rows) in after {
        let new = rows.saturating_sub(before.get(key).copied().unwrap_or(0));
        let (table, constraint, parent) = key;
        if new > 0 {
            let rows = if new == 1 { "row" } else { "rows" };
            words.push(format!("{table}, foreign key {constraint}: {new} {rows} without parent in {parent}"));
        }
    }
    words
}
