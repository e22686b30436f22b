//! Masking columns of a copy, and looking at some values of each column.
//!
//! Owns that nothing of the old values is left in the file: triggers are off (they could keep a value elsewhere), search
//! indexes are built anew, statistics with values are dropped, and the file is written anew as a whole. It must never be
//! used on a database that is not scratch.

use super::super::progress::Progress;
use super::super::{Result, Source, StoreError};
use super::open::Db;
use super::{beside, len_or_zero, quote, sql_error};
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use switchback_core::anonymise::{
    Column, Family, Key, Mask, MaskedColumn, MaskedStore, Rule, Sample, assign, by_table, days, masked,
    shifted,
};

/// The function that the statements call.
const FUNCTION: &str = "switchback_masked";
/// Above this, a time as a number counts milliseconds: as seconds it would lie after the year 5000.
const MILLISECONDS: i64 = 100_000_000_000;
/// Characters of a sampled value that are looked at.
const LOOKED_AT: usize = 4096;

/// What can be masked: tables (also virtual ones, but not what these are made of) and their columns.
const COLUMNS: &str = "SELECT t.name, x.name, x.type, x.\"notnull\", x.hidden FROM pragma_table_list t \
    JOIN pragma_table_xinfo(t.name) x WHERE t.schema = 'main' AND t.type IN ('table', 'virtual') \
    AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND x.hidden <> 1 ORDER BY t.name, x.cid";
const REFERENCES: &str = "SELECT t.name, f.\"from\", f.\"table\", coalesce(f.\"to\", \
    (SELECT name FROM pragma_table_info(f.\"table\") WHERE pk = 1)) \
    FROM pragma_table_list t JOIN pragma_foreign_key_list(t.name) f WHERE t.schema = 'main' AND t.type = 'table'";

fn columns(db: &Db) -> Result<Vec<Column>> {
    let err = |e| sql_error("read the columns of", &db.path, e);
    let mut statement = db.conn.prepare(COLUMNS).map_err(err)?;
    let rows = statement.query_map([], |row| {
        Ok(Column {
            database: String::new(),
            schema: String::new(),
            table: row.get(0)?,
            name: row.get(1)?,
            family: Family::Any,
            sql_type: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
            array: false,
            limit: None,
            required: row.get::<_, i64>(3)? != 0,
            computed: row.get::<_, i64>(4)? != 0,
        })
    });
    rows.map_err(err)?.collect::<rusqlite::Result<_>>().map_err(err)
}

fn references(db: &Db, columns: &[Column]) -> Result<Vec<(usize, usize)>> {
    let err = |e| sql_error("read the references of", &db.path, e);
    let mut statement = db.conn.prepare(REFERENCES).map_err(err)?;
    let rows = statement
        .query_map([], |row| {
            Ok([
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            ])
        })
        .map_err(err)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(err)?;
    // Names of tables and columns are compared without regard to case, as SQLite does.
    let find = |table: &str, name: &str| {
        columns.iter().position(|c| c.table.eq_ignore_ascii_case(table) && c.name.eq_ignore_ascii_case(name))
    };
    Ok(rows.iter().filter_map(|[t, from, other, to]| Some((find(t, from)?, find(other, to)?))).collect())
}

/// Masks columns; afterwards the database is one file that holds nothing of the old values.
pub(in super::super) fn mask(
    path: &Path,
    rules: &[Rule],
    key: &Key,
    progress: &Progress<'_>,
) -> Result<MaskedStore> {
    let began = Instant::now();
    let db = Db::writer(path)?;
    let err = |e| sql_error("mask", &db.path, e);
    let columns = columns(&db)?;
    let masks = assign(rules, &columns, &references(&db, &columns)?)
        .map_err(|errors| StoreError::Unsupported { path: path.to_owned(), why: errors.join("; ") })?;
    db.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map_err(err)?;
    db.conn
        .execute_batch("PRAGMA foreign_keys=OFF; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY")
        .map_err(err)?;
    register(&db, key).map_err(err)?;
    let mut done = MaskedStore::default();
    let tables = by_table(&columns, &masks);
    let total = tables.len() as u64 + 1;
    for (index, table) in tables.iter().enumerate() {
        if (progress.cancel)() {
            return Err(StoreError::Cancelled);
        }
        (progress.report)(index as u64, total);
        one(&db, &columns, table, &mut done)?;
    }
    if !tables.is_empty() {
        rebuild(&db, &mut done)?;
        clean(&db)?;
    }
    (progress.report)(total, total);
    done.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    close(db)?;
    Ok(done)
}

fn one(db: &Db, columns: &[Column], table: &[(usize, Mask)], done: &mut MaskedStore) -> Result<()> {
    let err = |e| sql_error("mask", &db.path, e);
    let Some(name) = table.first().and_then(|(i, _)| columns.get(*i)).map(|c| quote(&c.table)) else {
        return Ok(());
    };
    let named: Vec<(String, Mask, &Column)> =
        table.iter().filter_map(|(i, m)| columns.get(*i).map(|c| (quote(&c.name), *m, c))).collect();
    let counts: Vec<String> = named.iter().map(|(n, ..)| format!("count({n})")).collect();
    let counts = db
        .conn
        .query_row(&format!("SELECT {} FROM {name}", counts.join(", ")), [], |row| {
            (0..named.len()).map(|i| row.get::<_, i64>(i)).collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(err)?;
    let sets: Vec<String> = named
        .iter()
        .map(|(n, mask, _)| match mask {
            Mask::Null => format!("{n} = NULL"),
            mask => format!("{n} = {FUNCTION}('{}', {n})", mask.as_str()),
        })
        .collect();
    db.conn.execute(&format!("UPDATE {name} SET {}", sets.join(", ")), []).map_err(err)?;
    for ((_, mask, column), values) in named.iter().zip(counts) {
        let values = u64::try_from(values).unwrap_or_default();
        done.columns.push(MaskedColumn { column: column.path(), mask: *mask, values });
    }
    Ok(())
}

/// What a virtual table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Virtual {
    /// A full-text index that can be built anew from its rows.
    Search,
    /// One that keeps words without their rows.
    Contentless,
    /// Anything else.
    Other,
}

/// The virtual tables of a database.
pub(super) fn virtual_tables(db: &Db) -> Result<Vec<(String, Virtual)>> {
    let err = |e| sql_error("read the schema of", &db.path, e);
    let mut statement = db
        .conn
        .prepare("SELECT name, lower(sql) FROM sqlite_schema WHERE type = 'table' AND lower(sql) LIKE 'create virtual table%'")
        .map_err(err)?;
    let found = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .map_err(err)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .map_err(err)?;
    let kind = |sql: &str| {
        let plain: String = sql.chars().filter(|c| !c.is_whitespace()).collect();
        if !["fts5", "fts4", "fts3"].iter().any(|kind| plain.contains(kind)) {
            Virtual::Other
        } else if plain.contains("content=''") || plain.contains("content=\"\"") {
            Virtual::Contentless
        } else {
            Virtual::Search
        }
    };
    Ok(found.into_iter().map(|(name, sql)| (name, kind(&sql))).collect())
}

/// Builds a full-text index anew.
pub(super) fn rebuild_search(db: &Db, name: &str) -> Result<()> {
    let sql = format!("INSERT INTO {0}({0}) VALUES('rebuild')", quote(name));
    db.conn.execute(&sql, []).map_err(|e| sql_error("rebuild a search index of", &db.path, e))?;
    Ok(())
}

/// Full-text indexes keep the words of their rows in a form of their own.
fn rebuild(db: &Db, done: &mut MaskedStore) -> Result<()> {
    for (name, kind) in virtual_tables(db)? {
        match kind {
            Virtual::Search => rebuild_search(db, &name)?,
            Virtual::Contentless => {
                done.notes
                    .push(format!("the search index {name} keeps words without their rows; it was emptied"));
                let sql = format!("INSERT INTO {0}({0}) VALUES('delete-all')", quote(&name));
                db.conn.execute(&sql, []).map_err(|e| sql_error("empty a search index of", &db.path, e))?;
            }
            Virtual::Other => {
                done.notes.push(format!("the virtual table {name} may keep values in a form of its own"));
            }
        }
    }
    Ok(())
}

fn clean(db: &Db) -> Result<()> {
    let err = |e| sql_error("write anew", &db.path, e);
    for table in ["sqlite_stat4", "sqlite_stat3"] {
        let there: i64 = db
            .conn
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
            .map_err(err)?;
        if there > 0 {
            db.conn.execute(&format!("DELETE FROM {table}"), []).map_err(err)?;
        }
    }
    db.conn.execute_batch("VACUUM").map_err(err)
}

/// Leaves one file: what a `-wal` or a journal holds are old pages.
pub(super) fn close(db: Db) -> Result<()> {
    let path = db.path.clone();
    let err = |e| sql_error("close", &path, e);
    let busy: i64 =
        db.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(err)?;
    if busy != 0 {
        return Err(StoreError::Busy { doing: "mask", path });
    }
    db.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(err)?;
    drop(db);
    for suffix in ["-wal", "-shm", "-journal"] {
        let left = beside(&path, suffix);
        if suffix == "-wal" && len_or_zero(&left) > 0 {
            return Err(StoreError::Busy { doing: "mask", path });
        }
        match std::fs::remove_file(&left) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &left, e));
            }
            _ => {}
        }
    }
    let file = std::fs::File::open(&path).map_err(|e| StoreError::io("open", &path, e))?;
    file.sync_all().map_err(|e| StoreError::io("fsync", &path, e))
}

fn register(db: &Db, key: &Key) -> rusqlite::Result<()> {
    let key = key.clone();
    let all: BTreeMap<&'static str, Mask> = [
        Mask::Email,
        Mask::Name,
        Mask::Phone,
        Mask::Address,
        Mask::Text,
        Mask::Token,
        Mask::DateShift,
        Mask::Hash,
    ]
    .map(|m| (m.as_str(), m))
    .into();
    let days = days(&key);
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    db.conn.create_scalar_function(FUNCTION, 2, flags, move |context| {
        let odd = |what: String| rusqlite::Error::UserFunctionError(what.into());
        let name: String = context.get(0)?;
        let mask = *all.get(name.as_str()).ok_or_else(|| odd(format!("there is no mask {name}")))?;
        replaced(&key, mask, context.get_raw(1), days).map_err(odd)
    })
}

/// The masked value. SQLite's values have types of their own, whatever the column is declared as.
fn replaced(key: &Key, mask: Mask, value: ValueRef<'_>, days: i64) -> std::result::Result<Value, String> {
    let text = |value: &str| Value::Text(masked(key, mask, value, None));
    Ok(match (mask, value) {
        (_, ValueRef::Null) => Value::Null,
        (Mask::DateShift, ValueRef::Integer(n)) => {
            Value::Integer(n.saturating_add(days * if n.abs() > MILLISECONDS { 86_400_000 } else { 86_400 }))
        }
        // Seconds; a Julian day has seven digits at most.
        (Mask::DateShift, ValueRef::Real(n)) => {
            Value::Real(n + if n.abs() < 10_000_000.0 { days as f64 } else { days as f64 * 86_400.0 })
        }
        (Mask::DateShift, ValueRef::Text(bytes)) => {
            let value = String::from_utf8_lossy(bytes);
            if value.is_empty() {
                return Ok(Value::Text(String::new()));
            }
            Value::Text(shifted(&value, days).ok_or("a value of a column with `date_shift` is no date")?)
        }
        (Mask::DateShift, ValueRef::Blob(_)) => {
            return Err("a value of a column with `date_shift` is no date".to_owned());
        }
        (Mask::Hash, ValueRef::Integer(n)) => Value::Integer(key.number(n)),
        (Mask::Hash, ValueRef::Real(n)) => Value::Text(masked(key, mask, &n.to_string(), None)),
        (_, ValueRef::Integer(n)) => text(&n.to_string()),
        (_, ValueRef::Real(n)) => text(&n.to_string()),
        (_, ValueRef::Text([])) => Value::Text(String::new()),
        (_, ValueRef::Text(bytes)) => text(&String::from_utf8_lossy(bytes)),
        (_, ValueRef::Blob(bytes)) => Value::Blob(key.bytes(bytes)),
    })
}

/// Some values of each column.
pub(in super::super) fn samples(source: Source<'_>, each: u32) -> Result<Vec<Sample>> {
    let db = Db::reader(source)?;
    let mut found = Vec::new();
    for column in columns(&db)? {
        let err = |e| sql_error("look at the values of", &db.path, e);
        let name = quote(&column.name);
        let sql = format!(
            "SELECT substr(CAST({name} AS TEXT), 1, {LOOKED_AT}) FROM {} WHERE {name} IS NOT NULL AND typeof({name}) <> 'blob' LIMIT {each}",
            quote(&column.table)
        );
        let values = match db.conn.prepare(&sql) {
            Ok(mut statement) => statement
                .query_map([], |row| {
                    Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default()).into_owned())
                })
                .map_err(err)?
                .collect::<rusqlite::Result<_>>()
                .map_err(err)?,
            // A virtual table whose module is not built in.
            Err(_) => Vec::new(),
        };
        found.push(Sample { column, values });
    }
    Ok(found)
}
