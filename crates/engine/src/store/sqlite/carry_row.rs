//! Carrying one row into a table that may have changed meanwhile.
//!
//! Owns when a write may be applied: a new row where its key is free, a changed column where the old value is still there, a
//! deletion where the row is as it was. Values that differ are never overwritten.

use super::carry::fatal;
use super::compare::{Key, Matched, Pair};
use super::open::Db;
use super::schema::{self, Schema};
use super::{Result, quote, sql_error, value};
use rusqlite::ffi;
use rusqlite::types::Value;
use serde_json::Map;
use std::collections::BTreeSet;
use switchback_core::carry::{DIFFERS, GONE, REWRITTEN, TAKEN};
use switchback_core::data::RowOp;

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    Done,
    /// It was there.
    Already,
    /// It concerns only columns that the target does not have.
    Newer,
    /// It does not fit.
    Not(&'static str),
    /// The database does not take it.
    Refused(String),
    /// What it refers to may come later.
    Later,
}

/// A column of the target, with its positions in the two states.
struct Shared {
    name: String,
    before: Option<usize>,
    after: Option<usize>,
}

/// A table of the target.
pub(super) struct Table {
    pub name: String,
    /// Columns whose values the upgrade rewrote.
    pub rewritten: BTreeSet<String>,
    columns: Vec<Shared>,
    own: BTreeSet<String>,
    key: Vec<String>,
    rowid: Option<&'static str>,
    /// Whether rows exist that follow a row of this table when it goes, as a query with the row called `p`.
    followers: Vec<String>,
}

/// A write.
pub(super) struct Row {
    pub op: RowOp,
    pub shown: Map<String, serde_json::Value>,
    key: Vec<(String, Value)>,
    rowid: Option<i64>,
    before: Vec<Option<Value>>,
    after: Vec<Option<Value>>,
    changed: Vec<usize>,
    /// Whether it holds text that is none.
    odd: bool,
}

impl Table {
    pub(super) fn new(db: &Db, schema: &Schema, own: &schema::Table, pair: &Pair<'_>) -> Result<Self> {
        let position = |table: &schema::Table, name: &str| table.columns.iter().position(|c| c.name == name);
        let columns = own.columns.iter().map(|c| Shared {
            name: c.name.clone(),
            before: position(pair.before, &c.name),
            after: position(pair.after, &c.name),
        });
        Ok(Self {
            name: own.name.clone(),
            rewritten: BTreeSet::new(),
            columns: columns.filter(|c| c.before.is_some() || c.after.is_some()).collect(),
            own: own.column_names().into_iter().collect(),
            key: own.key.clone(),
            rowid: own.rowid,
            followers: followers(db, schema, own)?,
        })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.own.contains(column)
    }

    /// A difference as a write to this table.
    pub(super) fn row(
        &self,
        key: &Key,
        matched: &Matched<'_>,
        op: RowOp,
        shown: Map<String, serde_json::Value>,
    ) -> rusqlite::Result<Row> {
        let mut row = Row {
            op,
            shown,
            key: Vec::new(),
            rowid: None,
            before: Vec::new(),
            after: Vec::new(),
            changed: Vec::new(),
            odd: false,
        };
        for (i, column) in self.columns.iter().enumerate() {
            for (side, at, list) in [
                (&matched.before, column.before, &mut row.before),
                (&matched.after, column.after, &mut row.after),
            ] {
                let read = side.as_ref().zip(at).map(|(s, i)| s.get(i)).transpose()?;
                let value = read.map(Value::try_from).transpose();
                row.odd |= value.is_err();
                list.push(value.unwrap_or_default());
            }
            if let (Some(a), Some(b), Some(i_a), Some(i_b)) =
                (&matched.before, &matched.after, column.before, column.after)
                && !value::same(a.get(i_a)?, b.get(i_b)?)
            {
                row.changed.push(i);
            }
        }
        let side = matched.after.as_ref().or(matched.before.as_ref());
        match (key, side) {
            (Key::Primary { columns, .. }, Some(side)) => {
                for (i, name) in columns.iter().enumerate() {
                    let value = Value::try_from(side.key(i)?);
                    row.odd |= value.is_err();
                    row.key.push((name.clone(), value.unwrap_or(Value::Null)));
                }
            }
            (Key::Rowid { .. }, Some(side)) => {
                if let rusqlite::types::ValueRef::Integer(n) = side.key(0)? {
                    row.rowid = Some(n);
                }
            }
            _ => {}
        }
        Ok(row)
    }
}

/// Rows that a foreign key would delete or change together with a row of this table.
fn followers(db: &Db, schema: &Schema, own: &schema::Table) -> Result<Vec<String>> {
    let err = |e| sql_error("read the foreign keys of", &db.path, e);
    let mut found = Vec::new();
    for child in schema.tables.keys() {
        let mut list = db
            .conn
            .prepare_cached("SELECT id, \"table\", \"from\", \"to\", on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq")
            .map_err(err)?;
        let rows = list
            .query_map([child], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, Option<String>>(3)?,
                    row.get::<_, String>(4)?,
                ))
            })
            .map_err(err)?
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(err)?;
        let ids: BTreeSet<i64> = rows
            .iter()
            .filter(|(_, parent, .., action)| {
                parent.eq_ignore_ascii_case(&own.name) && !matches!(action.as_str(), "NO ACTION" | "RESTRICT")
            })
            .map(|(id, ..)| *id)
            .collect();
        for id in ids {
            let on: Vec<String> = rows
                .iter()
                .filter(|(other, ..)| *other == id)
                .enumerate()
                .filter_map(|(i, (_, _, from, to, _))| {
                    let to = to.as_ref().or_else(|| own.key.get(i))?;
                    Some(format!("c.{} = p.{}", quote(from), quote(to)))
                })
                .collect();
            found.push(format!("EXISTS(SELECT 1 FROM {} AS c WHERE {})", quote(child), on.join(" AND ")));
        }
    }
    Ok(found)
}

/// Conditions with their values.
#[derive(Default)]
struct Where {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    /// `name` is what the value is compared with, already quoted.
    fn is(&mut self, name: &str, value: &Value) {
        self.sql.push(format!("{name} COLLATE BINARY IS ?"));
        self.values.push(value.clone());
    }

    fn text(&self) -> String {
        if self.sql.is_empty() { "0".to_owned() } else { self.sql.join(" AND ") }
    }
}

impl Row {
    /// The row itself, by what names it.
    fn named(&self, table: &Table, alias: &str) -> Option<Where> {
        let mut found = Where::default();
        for (name, value) in &self.key {
            found.is(&format!("{alias}{}", quote(name)), value);
        }
        if let (Some(rowid), Some(name)) = (self.rowid, table.rowid) {
            found.is(&format!("{alias}{name}"), &Value::Integer(rowid));
        }
        (!found.sql.is_empty()).then_some(found)
    }
}

/// Applies a write.
pub(super) fn apply(db: &Db, table: &Table, row: &Row) -> Result<Applied> {
    if !row.key.is_empty() && row.key.iter().map(|(n, _)| n).ne(table.key.iter()) {
        return Ok(Applied::Not("this version names the rows of this table by another key"));
    }
    if row.odd {
        return Ok(Applied::Not("its text is not UTF-8"));
    }
    match row.op {
        RowOp::Insert => insert(db, table, row),
        RowOp::Update => update(db, table, row),
        RowOp::Delete => delete(db, table, row),
    }
}

/// Runs a statement: the rows it changed, or what the database said.
fn run(db: &Db, sql: &str, values: &[Value]) -> Result<std::result::Result<usize, rusqlite::Error>> {
    let done = db.conn.prepare_cached(sql).and_then(|mut s| s.execute(rusqlite::params_from_iter(values)));
    match done {
        Ok(rows) => Ok(Ok(rows)),
        Err(e) => {
            let code = e.sqlite_error().map(|c| c.extended_code).unwrap_or_default();
            let text = e.to_string();
            let error = sql_error("carry a write into", &db.path, e);
            if fatal(&error) {
                return Err(error);
            }
            Ok(Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text))))
        }
    }
}

fn there(db: &Db, table: &Table, conditions: &Where) -> Result<bool> {
    let sql = format!("SELECT EXISTS(SELECT 1 FROM {} AS p WHERE {})", quote(&table.name), conditions.text());
    db.conn
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(rusqlite::params_from_iter(&conditions.values), |row| row.get(0)))
        .map_err(|e| sql_error("read", &db.path, e))
}

fn code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map(|c| c.extended_code).unwrap_or_default()
}

fn refused(error: &rusqlite::Error) -> Applied {
    if code(error) == ffi::SQLITE_CONSTRAINT_FOREIGNKEY {
        return Applied::Later;
    }
    // Such as "NOT NULL constraint failed: note.author": names, no values.
    Applied::Refused(format!("the database refuses it: {error}"))
}

fn taken(error: &rusqlite::Error) -> bool {
    [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_ROWID]
        .contains(&code(error))
}

fn insert(db: &Db, table: &Table, row: &Row) -> Result<Applied> {
    if !table.rewritten.is_empty() {
        return Ok(Applied::Not(REWRITTEN));
    }
    let mut names = Vec::new();
    let mut values = Vec::new();
    for (column, value) in table.columns.iter().zip(&row.after) {
        if let Some(value) = value {
            names.push(quote(&column.name));
            values.push(value.clone());
        }
    }
    if names.is_empty() {
        return Ok(Applied::Newer);
    }
    let mut same = Where::default();
    for (name, value) in names.iter().zip(&values) {
        same.is(&format!("p.{name}"), value);
    }
    let statement = |names: &[String]| {
        let marks = vec!["?"; names.len()].join(",");
        format!("INSERT INTO {} ({}) VALUES ({marks})", quote(&table.name), names.join(","))
    };
    let plain = statement(&names);
    let done = match (row.rowid, table.rowid) {
        (Some(rowid), Some(name)) => {
            let mut own = same;
            own.is(&format!("p.{name}"), &Value::Integer(rowid));
            if there(db, table, &own)? {
                return Ok(Applied::Already);
            }
            let all: Vec<String> = names.iter().cloned().chain([name.to_owned()]).collect();
            let given: Vec<Value> = values.iter().cloned().chain([Value::Integer(rowid)]).collect();
            match run(db, &statement(&all), &given)? {
                // Rows without a key of their own may have another number.
                Err(e) if taken(&e) => run(db, &plain, &values)?,
                other => other,
            }
        }
        _ => match run(db, &plain, &values)? {
            Err(e) if taken(&e) && there(db, table, &same)? => return Ok(Applied::Already),
            other => other,
        },
    };
    Ok(match done {
        Ok(_) => Applied::Done,
        Err(e) if taken(&e) => Applied::Not(TAKEN),
        Err(e) => refused(&e),
    })
}

fn update(db: &Db, table: &Table, row: &Row) -> Result<Applied> {
    if row.changed.is_empty() {
        return Ok(Applied::Newer);
    }
    let Some(named) = row.named(table, "") else { return Ok(Applied::Not(GONE)) };
    let (mut sets, mut values) = (Vec::new(), Vec::new());
    let (mut was, mut is) = (Where::default(), row.named(table, "p.").unwrap_or_default());
    for i in &row.changed {
        let (Some(column), Some(Some(before)), Some(Some(after))) =
            (table.columns.get(*i), row.before.get(*i), row.after.get(*i))
        else {
            continue;
        };
        if table.rewritten.contains(&column.name) {
            return Ok(Applied::Not(REWRITTEN));
        }
        let name = quote(&column.name);
        sets.push(format!("{name} = ?"));
        values.push(after.clone());
        was.is(&name, before);
        is.is(&format!("p.{name}"), after);
    }
    let sql = format!(
        "UPDATE {} SET {} WHERE {} AND {}",
        quote(&table.name),
        sets.join(", "),
        named.text(),
        was.text()
    );
    values.extend(named.values.iter().chain(&was.values).cloned());
    Ok(match run(db, &sql, &values)? {
        Ok(0) if there(db, table, &is)? => Applied::Already,
        Ok(0) if there(db, table, &row.named(table, "p.").unwrap_or_default())? => Applied::Not(DIFFERS),
        Ok(0) => Applied::Not(GONE),
        Ok(_) => Applied::Done,
        Err(e) if taken(&e) => Applied::Not(TAKEN),
        Err(e) => refused(&e),
    })
}

fn delete(db: &Db, table: &Table, row: &Row) -> Result<Applied> {
    let mut own = row.named(table, "p.").unwrap_or_default();
    let keyed = !own.sql.is_empty();
    for (column, before) in table.columns.iter().zip(&row.before) {
        if let (Some(before), false) = (before, table.rewritten.contains(&column.name)) {
            own.is(&format!("p.{}", quote(&column.name)), before);
        }
    }
    if !there(db, table, &own)? {
        let named = row.named(table, "p.").unwrap_or_default();
        return Ok(if keyed && there(db, table, &named)? { Applied::Not(DIFFERS) } else { Applied::Already });
    }
    if !table.followers.is_empty() {
        let mut followed = Where { sql: own.sql.clone(), values: own.values.clone() };
        followed.sql.push(format!("({})", table.followers.join(" OR ")));
        if there(db, table, &followed)? {
            return Ok(Applied::Later);
        }
    }
    let name = quote(&table.name);
    let sql = match table.rowid {
        // One of several equal rows.
        Some(rowid) => format!(
            "DELETE FROM {name} WHERE {rowid} = (SELECT p.{rowid} FROM {name} AS p WHERE {} LIMIT 1)",
            own.text()
        ),
        None => format!("DELETE FROM {name} AS p WHERE {}", own.text()),
    };
    Ok(match run(db, &sql, &own.values)? {
        Ok(0) => Applied::Already,
        Ok(_) => Applied::Done,
        Err(e) => refused(&e),
    })
}
