//! Fewer rows in a copy.
//!
//! Owns the statements. It must never be asked of a server on data that anybody needs: the caller holds scratch.

use super::super::Progress;
use super::super::thinning::{self, Dialect, Reference, Table};
use super::{Psql, Result, session};
use std::collections::BTreeMap;
use switchback_core::scaling::Shrunk;

/// Tables of users with their rows: oid, quoted name, bare name, rows. Partitions are counted with what they are partitions of.
const TABLES: &str = "\
CREATE TEMP TABLE sb_tables (oid oid, quoted text, bare text, rows bigint);
DO $do$ DECLARE t record; n bigint;
BEGIN
  FOR t IN SELECT c.oid, format('%I.%I', s.nspname, c.relname) AS quoted, c.relname, c.relkind FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND s.nspname <> 'information_schema' AND s.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') LOOP
    EXECUTE format('SELECT count(*) FROM %s %s', CASE t.relkind WHEN 'r' THEN 'ONLY' ELSE '' END, t.quoted) INTO n;
    INSERT INTO pg_temp.sb_tables VALUES (t.oid, CASE t.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || t.quoted, t.relname, n);
  END LOOP;
END $do$;
COPY (SELECT oid, quoted, bare, rows FROM pg_temp.sb_tables ORDER BY quoted) TO STDOUT;";

/// Foreign keys, a line for each of their columns: key, child's top, child, parent's top, parent, column, referred column. Those that
/// a partition has because its table has it are left out. A `top` is the table that a partition belongs to.
const REFERENCES: &str = "\
CREATE FUNCTION pg_temp.sb_top(regclass) RETURNS oid LANGUAGE sql AS $f$
  WITH RECURSIVE up(oid, n) AS (SELECT $1::oid, 0 UNION ALL SELECT i.inhparent, up.n + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
    JOIN pg_class c ON c.oid = up.oid AND c.relispartition) SELECT oid FROM up ORDER BY n DESC LIMIT 1 $f$;
COPY (SELECT k.oid, pg_temp.sb_top(k.conrelid::regclass), CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || format('%I.%I', cs.nspname, c.relname),
    pg_temp.sb_top(k.confrelid::regclass), format('%I.%I', ps.nspname, p.relname), quote_ident(a.attname), quote_ident(b.attname)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cs ON cs.oid = c.relnamespace
  JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace ps ON ps.oid = p.relnamespace
  CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS u(child, parent, n)
  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.child JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = u.parent
  WHERE k.contype = 'f' AND COALESCE(to_jsonb(k) ->> 'conparentid', '0') = '0' ORDER BY k.oid, u.n) TO STDOUT;";

/// The tables are written anew, one after the other, so that what was removed is given back.
const COMPACT: &str = "\
SELECT format('VACUUM (FULL, ANALYZE) %I.%I', s.nspname, c.relname) FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND s.nspname <> 'information_schema' AND s.nspname NOT LIKE 'pg\\_%' ORDER BY c.oid \\gexec
CHECKPOINT;";

const SIZE: &str = "\
COPY (SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND s.nspname <> 'information_schema' AND s.nspname NOT LIKE 'pg\\_%') TO STDOUT;";

struct Postgres;

impl Dialect for Postgres {
    fn orphans(&self, reference: &Reference) -> String {
        // Names of columns are qualified by the child's alias: `ONLY s.t` is no qualifier.
        let aliased = Reference { child_name: "sb_child".to_owned(), ..reference.clone() };
        thinning::orphans("DELETE FROM", &aliased).replacen(
            "DELETE FROM sb_child",
            &format!("DELETE FROM {} AS sb_child", reference.child_name),
            1,
        )
    }
    fn share(&self, table: &Table, target: u64, but: &[String]) -> String {
        let kept: String = but.iter().map(|b| format!(" AND ({b}) IS NOT TRUE")).collect();
        format!(
            "DELETE FROM {0} WHERE random() < (SELECT 1 - least({target}, count(*))::float8 / greatest(1, count(*)) FROM {0}){kept}",
            table.name
        )
    }
}

/// Statements that each tell how many rows they concerned, without triggers, rules and cascades.
fn counted(statements: &[String]) -> String {
    let each: String = statements
        .iter()
        .map(|s| format!("WITH sb_gone AS ({s} RETURNING 1) INSERT INTO pg_temp.sb_counts (rows) SELECT count(*) FROM sb_gone;\n"))
        .collect();
    session::writing(&format!(
        "SET session_replication_role = replica;\nSET max_parallel_workers_per_gather = 0;\n\
         CREATE TEMP TABLE sb_counts (n bigint GENERATED ALWAYS AS IDENTITY, rows bigint);\n\
         BEGIN;\nSELECT setseed(0.5) AS switchback \\gset\n{each}COMMIT;\n\
         COPY (SELECT rows FROM pg_temp.sb_counts ORDER BY n) TO STDOUT;"
    ))
}

/// Removes rows of large tables, so that about `percent` of them are left; tables whose bare name is in `not` are kept whole. Only
/// measures at 100.
pub fn shrink(
    psql: &dyn Psql,
    databases: &[String],
    percent: u8,
    not: &[String],
    progress: &Progress<'_>,
) -> Result<Shrunk> {
    let cancel = session::cancel(progress);
    let mut done = Shrunk::default();
    for database in session::chosen(psql, databases)? {
        let one = of_database(psql, &database, percent, not, &cancel)?;
        done.bytes += one.bytes;
        done.rows += one.rows;
        done.tables += one.tables;
        done.followed += one.followed;
    }
    Ok(done)
}

fn of_database(
    psql: &dyn Psql,
    database: &str,
    percent: u8,
    not: &[String],
    cancel: &dyn Fn() -> bool,
) -> Result<Shrunk> {
    let number = |sql: &str| -> Result<u64> {
        let lines = session::lines(psql, database, &session::writing(sql), cancel)?;
        lines.first().map_or(Ok(0), |line| line.number(0))
    };
    let (tables, oids) = tables(psql, database, not, cancel)?;
    let mut done = Shrunk {
        tables: tables.iter().filter(|t| thinning::is_large(t)).count() as u64,
        rows: tables.iter().map(|t| t.rows).sum(),
        ..Shrunk::default()
    };
    if percent < 100 && done.tables > 0 {
        let references = references(psql, database, &oids, cancel)?;
        let run = |statements: &[String]| -> Result<Vec<u64>> {
            session::lines(psql, database, &counted(statements), cancel)?
                .iter()
                .map(|l| l.number(0))
                .collect()
        };
        let mut gone: u64 =
            run(&thinning::statements(&tables, &references, percent, &Postgres))?.iter().sum();
        let (owners, repairs): (Vec<usize>, Vec<String>) =
            thinning::repairs(&references, &Postgres).into_iter().unzip();
        for _ in 0..thinning::ROUNDS {
            let rows = run(&repairs)?;
            gone += rows.iter().sum::<u64>();
            let small = owners.iter().zip(&rows).filter(|(t, _)| !thinning::is_large(&tables[**t]));
            done.followed += small.map(|(_, n)| n).sum::<u64>();
            if rows.iter().all(|n| *n == 0) {
                break;
            }
        }
        done.rows = done.rows.saturating_sub(gone);
        session::lines(psql, database, &session::writing(COMPACT), cancel)?;
    }
    done.bytes = number(SIZE)?;
    Ok(done)
}

/// The tables of users, and the number of each by its oid.
fn tables(
    psql: &dyn Psql,
    database: &str,
    not: &[String],
    cancel: &dyn Fn() -> bool,
) -> Result<(Vec<Table>, BTreeMap<u64, usize>)> {
    let mut tables = Vec::new();
    let mut oids = BTreeMap::new();
    for line in session::lines(psql, database, &session::writing(TABLES), cancel)? {
        let bare = line.owned(2)?;
        oids.insert(line.number(0)?, tables.len());
        let whole = not.iter().any(|n| n.eq_ignore_ascii_case(&bare));
        tables.push(Table { name: line.owned(1)?, rows: line.number(3)?, whole });
    }
    Ok((tables, oids))
}

fn references(
    psql: &dyn Psql,
    database: &str,
    oids: &BTreeMap<u64, usize>,
    cancel: &dyn Fn() -> bool,
) -> Result<Vec<Reference>> {
    let mut keys: BTreeMap<u64, Reference> = BTreeMap::new();
    for line in session::lines(psql, database, &session::writing(REFERENCES), cancel)? {
        let (Some(child), Some(parent)) =
            (oids.get(&line.number(1)?).copied(), oids.get(&line.number(3)?).copied())
        else {
            continue;
        };
        let key = keys.entry(line.number::<u64>(0)?).or_insert(Reference {
            child,
            child_name: line.owned(2)?,
            columns: Vec::new(),
            parent,
            parent_name: line.owned(4)?,
            keys: Vec::new(),
        });
        key.columns.push(line.owned(5)?);
        key.keys.push(line.owned(6)?);
    }
    Ok(keys.into_values().collect())
}
