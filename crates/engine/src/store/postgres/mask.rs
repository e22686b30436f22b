//! Masking columns of a clone, and looking at some values of each column.
//!
//! Owns the order: the values are replaced, tables are written anew with their indexes, and what the catalogue keeps of
//! values (statistics, materialised views) is made again. What lies beside the tables (the log of writes, files of the server)
//! is removed by the caller after the server has stopped: [`LEFT_BEHIND`]. It must only be used on clones.

use super::super::Progress;
use super::names::ident;
use super::{PgError, Psql, Result, mask_sql, session};
use std::time::Instant;
use switchback_core::anonymise::{
    Column, Family, Key, Mask, MaskedColumn, MaskedStore, Rule, Sample, assign, by_table,
};

/// Folders of the data directory with files that may hold values and that a server starts without: its own logs, and the
/// texts of statements. The log of writes (`pg_wal`) needs `pg_resetwal`.
pub const LEFT_BEHIND: [&str; 4] = ["log", "pg_log", "pg_stat", "pg_stat_tmp"];

/// Columns of tables of users: partitioned ones and their partitions, too. The family is told by the base type.
const COLUMNS: &str = "\
COPY (WITH RECURSIVE base AS (
  SELECT oid, oid AS first, typtype, typbasetype, typtypmod, typname, typcategory, typelem FROM pg_type
  UNION ALL
  SELECT b.oid, t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typname, t.typcategory, t.typelem
  FROM base b JOIN pg_type t ON b.typtype = 'd' AND t.oid = b.typbasetype)
SELECT c.oid, a.attnum, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  coalesce(e.typname, b.typname), coalesce(e.typcategory, b.typcategory), b.typcategory = 'A',
  CASE WHEN coalesce(e.typname, b.typname) IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
  a.attnotnull, a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
JOIN base b ON b.oid = a.atttypid AND b.typtype <> 'd'
LEFT JOIN pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY n.nspname, c.relname, a.attnum) TO STDOUT;
COPY (SELECT 'reference', conrelid, conkey[i], confrelid, confkey[i]
FROM pg_constraint, generate_subscripts(conkey, 1) i WHERE contype = 'f') TO STDOUT;";

/// The columns of a database, and which of them refer to which.
struct Shape {
    columns: Vec<Column>,
    references: Vec<(usize, usize)>,
}

fn family(base: &str, category: &str) -> Family {
    match (base, category) {
        ("json" | "jsonb", _) => Family::Json,
        ("int2", _) => Family::Integer(2),
        ("int4", _) => Family::Integer(4),
        ("int8", _) => Family::Integer(8),
        ("numeric", _) => Family::Decimal,
        ("uuid", _) => Family::Uuid,
        ("bytea", _) => Family::Bytes,
        ("date" | "timestamp" | "timestamptz", _) => Family::Date,
        // `name` is cut at 63 bytes by the server, and only catalogues have it.
        ("name" | "char", _) => Family::Other,
        (_, "S") => Family::Text,
        _ => Family::Other,
    }
}

fn shape(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool) -> Result<Shape> {
    let (mut columns, mut keys, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for line in session::lines(psql, database, &session::reading(COLUMNS), cancel)? {
        let first = line.owned(0)?;
        if first == "reference" {
            pairs.push([(line.owned(1)?, line.owned(2)?), (line.owned(3)?, line.owned(4)?)]);
            continue;
        }
        keys.push((first, line.owned(1)?));
        let limit = line.optional(9).map(|_| line.number(9)).transpose()?;
        columns.push(Column {
            database: database.to_owned(),
            schema: line.owned(2)?,
            table: line.owned(3)?,
            name: line.owned(4)?,
            sql_type: line.owned(5)?,
            family: family(&line.owned(6)?, &line.owned(7)?),
            array: line.flag(8)?,
            limit,
            required: line.flag(10)?,
            computed: line.flag(11)?,
        });
    }
    let find = |key: &(String, String)| keys.iter().position(|k| k == key);
    let references = pairs.iter().filter_map(|[from, to]| Some((find(from)?, find(to)?))).collect();
    Ok(Shape { columns, references })
}

/// Masks columns of databases (all of them if none is named).
///
/// Afterwards no table, index or catalogue holds an old value. A rule that means no column of any database is an error.
pub fn mask(
    psql: &dyn Psql,
    databases: &[String],
    rules: &[Rule],
    key: &Key,
    progress: &Progress<'_>,
) -> Result<MaskedStore> {
    let began = Instant::now();
    let cancel = session::cancel(progress);
    let chosen = session::chosen(psql, databases)?;
    let mut all = Shape { columns: Vec::new(), references: Vec::new() };
    for database in &chosen {
        let found = shape(psql, database, &cancel)?;
        let offset = all.columns.len();
        all.columns.extend(found.columns);
        all.references.extend(found.references.iter().map(|(a, b)| (a + offset, b + offset)));
    }
    let masks = assign(rules, &all.columns, &all.references).map_err(|errors| PgError::Unsupported {
        what: "staging.anonymise".to_owned(),
        why: errors.join("; "),
    })?;
    let tables = by_table(&all.columns, &masks);
    let mut done = MaskedStore::default();
    let total = tables.len() as u64;
    let mut count = 0;
    for database in &chosen {
        let own = tables.iter().filter(|t| t.iter().all(|(i, _)| all.columns[*i].database == *database));
        let mut touched = false;
        for table in own {
            (progress.report)(count, total);
            count += 1;
            touched = true;
            one(psql, database, &all.columns, table, key, &cancel, &mut done)?;
        }
        if touched {
            clean(psql, database, &cancel, &mut done)?;
        }
    }
    (progress.report)(total, total);
    done.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(done)
}

fn one(
    psql: &dyn Psql,
    database: &str,
    columns: &[Column],
    table: &[(usize, Mask)],
    key: &Key,
    cancel: &dyn Fn() -> bool,
    done: &mut MaskedStore,
) -> Result<()> {
    let named: Vec<(&Column, Mask)> = table.iter().map(|(i, m)| (&columns[*i], *m)).collect();
    let Some((first, _)) = named.first() else { return Ok(()) };
    let name = format!("{}.{}", ident(&first.schema), ident(&first.table));
    let sets: Vec<String> = named.iter().map(|(c, m)| mask_sql::assignment(key, c, *m)).collect();
    let some: Vec<String> = named.iter().map(|(c, _)| format!("t.{} IS NOT NULL", ident(&c.name))).collect();
    let counted: Vec<&Column> = named.iter().map(|(c, _)| *c).collect();
    // The names are quoted by `ident`, and psql replaces no variables within double quotes.
    let script = format!(
        "{}COPY (SELECT 'values'{} FROM {name}) TO STDOUT;\nUPDATE {name} AS t SET {} WHERE {};\n\
         WITH RECURSIVE tree AS (SELECT '{regclass}'::regclass::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) \
         SELECT format('VACUUM (FULL) %s', tree.oid::regclass) FROM tree JOIN pg_class c USING (oid) WHERE c.relkind = 'r' \\gexec",
        mask_sql::session(key),
        mask_sql::counts(&counted),
        sets.join(", "),
        some.join(" OR "),
        regclass = name.replace('\'', "''"),
    );
    for line in session::lines(psql, database, &session::writing(&script), cancel)? {
        if line.owned(0)? != "values" {
            continue;
        }
        for (index, (column, mask)) in named.iter().enumerate() {
            let values = line.number(index + 1)?;
            done.columns.push(MaskedColumn { column: column.path(), mask: *mask, values });
        }
    }
    Ok(())
}

/// What the catalogue keeps of values, and what is made of tables.
const CLEAN: &str = "\
SET log_statement = 'none';
DELETE FROM pg_statistic;
SELECT 'DELETE FROM pg_statistic_ext_data' WHERE to_regclass('pg_catalog.pg_statistic_ext_data') IS NOT NULL \\gexec
SELECT format('REFRESH MATERIALIZED VIEW %s', c.oid::regclass) FROM pg_class c WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid \\gexec
VACUUM (FULL) pg_statistic;
SELECT 'VACUUM (FULL) pg_statistic_ext_data' WHERE to_regclass('pg_catalog.pg_statistic_ext_data') IS NOT NULL \\gexec
ANALYZE;
CHECKPOINT;
COPY (SELECT 'objects', count(*) FROM pg_largeobject_metadata) TO STDOUT;";

fn clean(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool, done: &mut MaskedStore) -> Result<()> {
    for line in session::lines(psql, database, &session::writing(CLEAN), cancel)? {
        let (what, count) = (line.owned(0)?, line.owned(1)?);
        if what == "objects" && count != "0" {
            done.notes
                .push(format!("{count} large objects in {database} are as they were: no rule reaches them"));
        }
    }
    Ok(())
}

/// Characters of a sampled value that are looked at.
const LOOKED_AT: usize = 4096;

/// Some values of each column.
pub fn samples(
    psql: &dyn Psql,
    databases: &[String],
    each: u32,
    progress: &Progress<'_>,
) -> Result<Vec<Sample>> {
    let cancel = session::cancel(progress);
    let mut found = Vec::new();
    for database in session::chosen(psql, databases)? {
        let shape = shape(psql, &database, &cancel)?;
        let looked =
            |c: &Column| matches!(c.family, Family::Text | Family::Json | Family::Date | Family::Integer(_));
        let mut script = String::new();
        for (index, column) in shape.columns.iter().enumerate().filter(|(_, c)| looked(c)) {
            let (schema, table, name) = (ident(&column.schema), ident(&column.table), ident(&column.name));
            script.push_str(&format!(
                "COPY (SELECT {index}, left({name}::text, {LOOKED_AT}) FROM {schema}.{table} WHERE {name} IS NOT NULL LIMIT {each}) TO STDOUT;\n"
            ));
        }
        let mut all: Vec<Sample> =
            shape.columns.into_iter().map(|column| Sample { column, values: Vec::new() }).collect();
        for line in session::lines(psql, &database, &session::reading(&script), &cancel)? {
            let index: usize = line.number(0)?;
            if let Some(sample) = all.get_mut(index) {
                sample.values.push(line.owned(1)?);
            }
        }
        found.extend(all);
    }
    Ok(found)
}
