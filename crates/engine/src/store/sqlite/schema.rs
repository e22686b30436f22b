//! The shape of a database: tables, columns, keys, and everything in `sqlite_schema`.
//!
//! Owns reading it, for hostile names as well. It must never interpret SQL text beyond recognising
//! virtual tables.

use super::super::Result;
use super::open::Db;
use super::{quote, sql_error};
use std::collections::BTreeMap;
use switchback_core::ids::Digest;

/// The shape of one state.
#[derive(Debug)]
pub(super) struct Schema {
    /// Everything in `sqlite_schema` but statistics, by type and name.
    pub objects: BTreeMap<(String, String), Object>,
    /// Tables with rows of their own, by name.
    pub tables: BTreeMap<String, Table>,
    pub user_version: i64,
    pub application_id: i64,
    pub encoding: String,
}

/// A row of `sqlite_schema`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub table: String,
    pub sql: Option<String>,
}

/// A table that holds rows.
#[derive(Debug)]
pub(super) struct Table {
    pub name: String,
    /// All stored columns in their order; no generated ones.
    pub columns: Vec<Column>,
    /// Primary key columns in key order; empty if none.
    pub key: Vec<String>,
    /// Whether the key is the rowid under another name.
    pub integer_key: bool,
    /// A name under which the rowid can be read.
    pub rowid: Option<&'static str>,
    pub strict: bool,
}

/// A stored column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub decl: String,
    pub notnull: bool,
    /// The SQL text of the default.
    pub default: Option<String>,
    /// Position in the primary key, from 1; 0 if not in it.
    pub pk: i64,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// A SELECT of the given columns, qualified so that no name can be taken for a string.
    pub(super) fn select(&self, columns: &[String]) -> String {
        let list: Vec<_> = columns.iter().map(|c| format!("T.{}", quote(c))).collect();
        format!("SELECT {} FROM {} AS T", list.join(","), quote(&self.name))
    }

    pub(super) fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.name.clone()).collect()
    }
}

impl Schema {
    /// Reads the shape.
    pub(super) fn read(db: &Db) -> Result<Self> {
        Self::query(db).map_err(|e| sql_error("read the schema of", &db.path, e))
    }

    fn query(db: &Db) -> rusqlite::Result<Self> {
        let pragma =
            |name: &str| db.conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let mut objects = BTreeMap::new();
        let mut read = db.conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            let text = |i| row.get_ref(i).map(lossy);
            let name = text(1)?.unwrap_or_default();
            if name.starts_with("sqlite_stat") {
                continue;
            }
            let key = (text(0)?.unwrap_or_default(), name);
            objects.insert(key, Object { table: text(2)?.unwrap_or_default(), sql: text(3)? });
        }
        drop(rows);
        let mut tables = BTreeMap::new();
        let mut list = db.conn.prepare(
            "SELECT name, wr, strict FROM pragma_table_list WHERE schema='main' AND type IN ('table','shadow')",
        )?;
        let mut rows = list.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let listed = objects.get(&("table".to_owned(), name.clone()));
            // What is not in `sqlite_schema` is `sqlite_schema` itself or statistics.
            if listed.is_some_and(|o| !o.is_virtual()) {
                let table = read_table(db, &name, row.get(1)?, row.get(2)?)?;
                tables.insert(name, table);
            }
        }
        drop(rows);
        Ok(Self {
            objects,
            tables,
            user_version: pragma("user_version")?,
            application_id: pragma("application_id")?,
            encoding: db.conn.query_row("PRAGMA encoding", [], |row| row.get(0))?,
        })
    }

    /// Digest over everything that shapes the data.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut field = |text: Option<&str>| match text {
            Some(text) => {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            None => {
                hasher.update(&u64::MAX.to_le_bytes());
            }
        };
        for ((kind, name), object) in &self.objects {
            field(Some(kind));
            field(Some(name));
            field(Some(&object.table));
            field(object.sql.as_deref());
        }
        field(Some(&self.encoding));
        hasher.update(&self.user_version.to_le_bytes());
        hasher.update(&self.application_id.to_le_bytes());
        Digest::from(hasher.finalize().to_hex().to_string())
    }
}

impl Object {
    /// Whether this is a virtual table, whose rows live in its shadow tables.
    pub(super) fn is_virtual(&self) -> bool {
        let mut words = self.sql.as_deref().unwrap_or("").split_ascii_whitespace();
        words.next().is_some_and(|w| w.eq_ignore_ascii_case("create"))
            && words.next().is_some_and(|w| w.eq_ignore_ascii_case("virtual"))
    }
}

fn lossy(value: rusqlite::types::ValueRef<'_>) -> Option<String> {
    match value {
        rusqlite::types::ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

fn read_table(db: &Db, name: &str, without_rowid: bool, strict: bool) -> rusqlite::Result<Table> {
    let mut info = db.conn.prepare_cached(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)",
    )?;
    let mut columns = Vec::new();
    let mut all_names = Vec::new();
    let mut rows = info.query([name])?;
    while let Some(row) = rows.next()? {
        let column = Column {
            name: row.get(0)?,
            decl: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            notnull: row.get(2)?,
            default: row.get(3)?,
            pk: row.get(4)?,
        };
        all_names.push(column.name.clone());
        // 2 and 3 are generated columns.
        if row.get::<_, i64>(5)? < 2 {
            columns.push(column);
        }
    }
    let mut key: Vec<&Column> = columns.iter().filter(|c| c.pk > 0).collect();
    key.sort_by_key(|c| c.pk);
    let key: Vec<String> = key.into_iter().map(|c| c.name.clone()).collect();
    // A rowid table's key is the rowid itself exactly if no index was made for it.
    let indexed: bool = db
        .conn
        .prepare_cached("SELECT count(*) FROM pragma_index_list(?1) WHERE origin='pk'")?
        .query_row([name], |row| row.get(0))?;
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|r| !without_rowid && !all_names.iter().any(|n| n.eq_ignore_ascii_case(r)));
    Ok(Table {
        name: name.to_owned(),
        integer_key: key.len() == 1 && !without_rowid && !indexed,
        columns,
        key,
        rowid,
        strict,
    })
}
