//! Comparing one table between two states, row by row, in constant memory.
//!
//! Both states are read in the order of their key and merged. Owns the choice of the key and the
//! merge; what is done with the differences is up to the caller.

use super::super::progress::Meter;
use super::super::{Result, StoreError};
use super::fingerprint::ROWS_PER_TICK;
use super::open::Db;
use super::schema::{Column, Table};
use super::value::{self, TextOrder};
use super::{quote, sql_error};
use rusqlite::Row;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use switchback_core::data::{RowChange, RowOp};

/// How rows of two states belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// By the primary key, in key order.
    Primary { columns: Vec<String>, integer: bool },
    /// By rowid: its name in the old and the new state.
    Rowid { before: &'static str, after: &'static str },
    /// By nothing but their values: equal rows belong together, whatever is left is gone or new.
    Values,
}

/// One table in two states.
pub(super) struct Pair<'a> {
    pub before: &'a Table,
    pub after: &'a Table,
    pub key: Key,
    /// Columns of both states, in the new order.
    pub common: Vec<String>,
    pub added: Vec<&'a Column>,
    pub removed: Vec<String>,
}

/// A row with the columns that were selected.
pub(super) struct Side<'a> {
    row: &'a Row<'a>,
    table: &'a Table,
    key_len: usize,
}

impl Side<'_> {
    /// A column by its position in the table.
    pub(super) fn get(&self, column: usize) -> rusqlite::Result<rusqlite::types::ValueRef<'_>> {
        self.row.get_ref(self.key_len + column)
    }

    /// A value that the row is matched by.
    pub(super) fn key(&self, i: usize) -> rusqlite::Result<rusqlite::types::ValueRef<'_>> {
        self.row.get_ref(i)
    }

    fn to_json(&self) -> rusqlite::Result<Map<String, Value>> {
        let mut map = Map::new();
        for (i, column) in self.table.columns.iter().enumerate() {
            map.insert(column.name.clone(), value::json(self.get(i)?));
        }
        Ok(map)
    }
}

/// Two rows that belong together, or one alone.
pub(super) struct Matched<'a> {
    pub before: Option<Side<'a>>,
    pub after: Option<Side<'a>>,
    /// Whether all common columns are the same; false if one side is missing.
    pub same: bool,
}

impl<'a> Pair<'a> {
    pub(super) fn new(before: &'a Table, after: &'a Table) -> Self {
        let common: Vec<String> = after
            .columns
            .iter()
            .filter(|c| before.column(&c.name).is_some())
            .map(|c| c.name.clone())
            .collect();
        let key = match (before.rowid, after.rowid) {
            _ if !before.key.is_empty() && before.key == after.key => {
                Key::Primary { columns: before.key.clone(), integer: before.integer_key && after.integer_key }
            }
            (Some(old), Some(new)) => Key::Rowid { before: old, after: new },
            _ => Key::Values,
        };
        Self {
            before,
            after,
            key,
            added: after.columns.iter().filter(|c| before.column(&c.name).is_none()).collect(),
            removed: before
                .columns
                .iter()
                .filter(|c| after.column(&c.name).is_none())
                .map(|c| c.name.clone())
                .collect(),
            common,
        }
    }

    /// Merges both states, calling `each` for every row or pair of rows.
    pub(super) fn merge(
        &self,
        old: &Db,
        new: &Db,
        encodings: (&str, &str),
        meter: &mut Meter<'_>,
        mut each: impl FnMut(&Key, &Matched<'_>) -> Result<()>,
    ) -> Result<()> {
        let by_text = match &self.key {
            Key::Primary { integer, .. } => !integer,
            Key::Rowid { .. } => false,
            Key::Values => true,
        };
        if by_text && encodings.0 != encodings.1 {
            return Err(StoreError::Unsupported {
                path: new.path.clone(),
                why: format!("its text encoding is {}, before it was {}", encodings.1, encodings.0),
            });
        }
        let text = TextOrder::of(encodings.1);
        let nullable = match &self.key {
            Key::Primary { columns, integer: false } => {
                let loose = |t: &Table| {
                    t.rowid.is_some() && t.key.iter().any(|k| t.column(k).is_some_and(|c| !c.notnull))
                };
                (loose(self.before) || loose(self.after)).then_some(columns)
            }
            _ => None,
        };
        let Some(columns) = nullable else {
            return self.pass(old, new, &self.key, "", text, meter, &mut each);
        };
        // SQLite lets NULL into keys, and any number of them: such rows have no key to match by.
        let keyed: Vec<_> = columns.iter().map(|c| format!("T.{} IS NOT NULL", quote(c))).collect();
        let keyed = keyed.join(" AND ");
        self.pass(old, new, &self.key, &format!(" WHERE {keyed}"), text, meter, &mut each)?;
        self.pass(old, new, &Key::Values, &format!(" WHERE NOT ({keyed})"), text, meter, &mut each)
    }

    /// Calls `each` for every row of the new state, as if the old one had none.
    pub(super) fn only_after(
        &self,
        new: &Db,
        meter: &mut Meter<'_>,
        each: &mut impl FnMut(&Key, &Matched<'_>) -> Result<()>,
    ) -> Result<()> {
        let rowid = match &self.key {
            Key::Rowid { after, .. } => *after,
            _ => "",
        };
        let (sql, key_len) = self.sql(self.after, &self.key, rowid, "");
        let err = |e| sql_error("read", &new.path, e);
        let mut statement = prepare(new, &self.after.name, &sql)?;
        let mut rows = statement.query([]).map_err(err)?;
        while let Some(row) = rows.next().map_err(err)? {
            let after = Some(Side { row, table: self.after, key_len });
            each(&self.key, &Matched { before: None, after, same: false })?;
            meter.add(64)?;
        }
        Ok(())
    }

    fn sql(&self, table: &Table, key: &Key, rowid: &str, filter: &str) -> (String, usize) {
        let t = |c: &String| format!("T.{}", quote(c));
        let (keys, order): (Vec<String>, Vec<String>) = match key {
            Key::Primary { columns, integer: true } => {
                (columns.iter().map(t).collect(), columns.iter().map(t).collect())
            }
            Key::Primary { columns, integer: false } => (
                columns.iter().map(t).collect(),
                columns.iter().map(|c| format!("{} COLLATE BINARY", t(c))).collect(),
            ),
            Key::Rowid { .. } => (vec![format!("T.{rowid}")], vec![format!("T.{rowid}")]),
            Key::Values => (
                self.common.iter().map(t).collect(),
                self.common.iter().map(|c| format!("{0} COLLATE BINARY, typeof({0})", t(c))).collect(),
            ),
        };
        let all: Vec<String> = keys.iter().cloned().chain(table.columns.iter().map(|c| t(&c.name))).collect();
        let mut sql = format!("SELECT {} FROM {} AS T{filter}", all.join(","), quote(&table.name));
        if !order.is_empty() {
            sql.push_str(" ORDER BY ");
            sql.push_str(&order.join(","));
        }
        (sql, keys.len())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site per kind of key, all arguments differ in type"
    )]
    fn pass(
        &self,
        old: &Db,
        new: &Db,
        key: &Key,
        filter: &str,
        text: TextOrder,
        meter: &mut Meter<'_>,
        each: &mut impl FnMut(&Key, &Matched<'_>) -> Result<()>,
    ) -> Result<()> {
        let (rowid_a, rowid_b) = match key {
            Key::Rowid { before, after } => (*before, *after),
            _ => ("", ""),
        };
        let (sql_a, key_len) = self.sql(self.before, key, rowid_a, filter);
        let (sql_b, _) = self.sql(self.after, key, rowid_b, filter);
        let a_err = |e| sql_error("read", &old.path, e);
        let b_err = |e| sql_error("read", &new.path, e);
        let mut a_stmt = prepare(old, &self.before.name, &sql_a)?;
        let mut b_stmt = prepare(new, &self.after.name, &sql_b)?;
        let mut a_rows = a_stmt.query([]).map_err(a_err)?;
        let mut b_rows = b_stmt.query([]).map_err(b_err)?;
        let position = |table: &Table, name: &String| table.columns.iter().position(|c| c.name == *name);
        let common: Vec<(usize, usize)> = self
            .common
            .iter()
            .filter_map(|c| position(self.before, c).zip(position(self.after, c)))
            .collect();
        let mut a_row = a_rows.next().map_err(a_err)?;
        let mut b_row = b_rows.next().map_err(b_err)?;
        let mut count = 0u64;
        loop {
            let side = match (a_row, b_row) {
                (None, None) => return meter.add(0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => key_order(a, b, key, key_len, text).map_err(a_err)?,
            };
            let before = a_row.filter(|_| side.is_le()).map(|row| Side { row, table: self.before, key_len });
            let after = b_row.filter(|_| side.is_ge()).map(|row| Side { row, table: self.after, key_len });
            let mut same = false;
            if let (Some(a), Some(b)) = (&before, &after) {
                same = true;
                for (i, j) in &common {
                    if !value::same(a.get(*i).map_err(a_err)?, b.get(*j).map_err(b_err)?) {
                        same = false;
                        break;
                    }
                }
            }
            each(key, &Matched { before, after, same })?;
            count += 1;
            if count.is_multiple_of(ROWS_PER_TICK) {
                // An estimate: rows have no position in bytes here.
                meter.add(ROWS_PER_TICK * 64)?;
            }
            if side.is_le() {
                a_row = a_rows.next().map_err(a_err)?;
            }
            if side.is_ge() {
                b_row = b_rows.next().map_err(b_err)?;
            }
        }
    }

    /// A difference as a value. `None` where both sides are missing.
    pub(super) fn change(&self, key: &Key, matched: &Matched<'_>) -> rusqlite::Result<Option<RowChange>> {
        let (op, side) = match (&matched.before, &matched.after) {
            (Some(_), Some(after)) => (RowOp::Update, after),
            (None, Some(after)) => (RowOp::Insert, after),
            (Some(before), None) => (RowOp::Delete, before),
            (None, None) => return Ok(None),
        };
        let names: Vec<&str> = match key {
            Key::Primary { columns, .. } => columns.iter().map(String::as_str).collect(),
            Key::Rowid { .. } => vec!["rowid"],
            Key::Values => self.common.iter().map(String::as_str).collect(),
        };
        let mut key_map = Map::new();
        for (i, name) in names.into_iter().enumerate() {
            key_map.insert(name.to_owned(), value::json(side.row.get_ref(i)?));
        }
        Ok(Some(RowChange {
            op,
            key: key_map,
            row: matched.after.as_ref().map(Side::to_json).transpose()?,
            before: matched.before.as_ref().map(Side::to_json).transpose()?,
        }))
    }
}

fn key_order(a: &Row<'_>, b: &Row<'_>, key: &Key, len: usize, text: TextOrder) -> rusqlite::Result<Ordering> {
    for i in 0..len {
        let (a, b) = (a.get_ref(i)?, b.get_ref(i)?);
        let order =
            if *key == Key::Values { value::order_typed(a, b, text) } else { value::order(a, b, text) };
        if order.is_ne() {
            return Ok(order);
        }
    }
    Ok(Ordering::Equal)
}

/// Prepares a scan. An index with a collation only the application knows must not be used for it.
fn prepare<'c>(db: &'c Db, table: &str, sql: &str) -> Result<rusqlite::Statement<'c>> {
    match db.conn.prepare(sql) {
        Err(e) if e.to_string().contains("no such collation sequence") => {
            let name = quote(table);
            let plain =
                sql.replacen(&format!("FROM {name} AS T"), &format!("FROM {name} AS T NOT INDEXED"), 1);
            db.conn.prepare(&plain).map_err(|e| sql_error("read", &db.path, e))
        }
        other => other.map_err(|e| sql_error("read", &db.path, e)),
    }
}
