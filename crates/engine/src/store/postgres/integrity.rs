//! Looking for damage and contradictions inside a cluster.
//!
//! Owns the checks. It writes only where the caller allows it to make the extension `amcheck`, which is
//! gone again afterwards; that is for clones.

use super::super::Progress;
use super::facts::server_facts;
use super::names::{ident, literal};
use super::orphans::{ORPHANS_SQL, Orphans};
use super::{PgError, Psql, Result, names, session};
use std::fmt::Write as _;

const INTEGRITY_SQL: &str = include_str!("integrity.sql");

/// Where the extension is put while it is needed; no user's schema has this name.
const SCRATCH_SCHEMA: &str = "switchback_amcheck";

/// Whether indexes and tables are checked page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amcheck {
    /// Not at all: it reads everything.
    Skip,
    /// Where the extension is installed already.
    IfInstalled,
    /// The extension may be created for the time of the check. For clones only.
    MayCreate,
}

/// Lists what is wrong in databases (all of them if none is named); empty means sound.
///
/// Invalid indexes, constraints that were never validated and do not hold, foreign keys without parent,
/// sequences behind their columns, collations whose version changed, failed page checksums, and with
/// `amcheck` every B-tree (structure) and every table (heap). Where amcheck was wanted and is not there,
/// that is said too, as a line that begins with "not checked:".
pub fn integrity(
    psql: &dyn Psql,
    databases: &[String],
    amcheck: Amcheck,
    progress: &Progress<'_>,
) -> Result<Vec<String>> {
    let cancel = session::cancel(progress);
    let chosen = session::chosen(psql, databases)?;
    let facts = server_facts(psql)?;
    let mut problems = Vec::new();
    for database in facts.databases.iter().filter(|d| chosen.contains(&d.name)) {
        problems.extend(database.changed_collations());
    }
    for database in &chosen {
        let place = names::database(database);
        let mut orphans = Orphans::default();
        let sql = session::reading(&format!("{INTEGRITY_SQL}{ORPHANS_SQL}"));
        session::each_line(psql, database, &sql, &cancel, |line| {
            match line.tag() {
                "p" => problems.push(format!("{place}: {}", line.text(1)?)),
                "f" => orphans.take(&line)?,
                other => return Err(PgError::protocol(database, format!("line {other:?}"))),
            }
            Ok(())
        })?;
        problems.extend(orphans.all(database));
        if amcheck != Amcheck::Skip {
            problems.extend(pages(psql, database, facts.version_num, amcheck, &cancel)?);
        }
    }
    Ok(problems)
}

const AMCHECK_LIST: &str = "\
COPY (SELECT 'x', n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck') TO STDOUT;
COPY (SELECT 'a' FROM pg_available_extensions WHERE name = 'amcheck') TO STDOUT;
COPY (
  SELECT 'i', c.oid, format('index %I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam
  WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid AND i.indisready
    AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) ORDER BY c.oid
) TO STDOUT;
COPY (
  SELECT 'h', c.oid, format('table %I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_am m ON m.oid = c.relam
  WHERE m.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
    AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) ORDER BY c.oid
) TO STDOUT;
";

/// The first version whose amcheck checks tables.
const HEAP_SINCE: u32 = 140_000;

/// SQL that escapes a text as COPY does.
fn escaped(sql: &str) -> String {
    format!(
        "replace(replace(replace({sql}, chr(92), chr(92) || chr(92)), chr(10), chr(92) || 'n'), chr(9), chr(92) || 't')"
    )
}

/// Checks every B-tree and table of a database page by page.
fn pages(
    psql: &dyn Psql,
    database: &str,
    version: u32,
    amcheck: Amcheck,
    cancel: &dyn Fn() -> bool,
) -> Result<Vec<String>> {
    let place = names::database(database);
    let mut schema = None;
    let mut available = false;
    let mut checks = String::new();
    let mut targets = Vec::new();
    for line in session::lines(psql, database, &session::reading(AMCHECK_LIST), cancel)? {
        match line.tag() {
            "x" => schema = Some(line.owned(1)?),
            "a" => available = true,
            tag => targets.push((tag.to_owned(), line.number::<u32>(1)?, line.owned(2)?)),
        }
    }
    // What a check that was killed left behind is ours to use and to remove.
    let ours = schema.as_deref().is_none_or(|s| s == SCRATCH_SCHEMA);
    if ours && (amcheck != Amcheck::MayCreate || !available) {
        let why =
            if available { "the extension amcheck is not installed" } else { "the image has no amcheck" };
        return Ok(vec![format!("not checked: pages of {place}: {why}")]);
    }
    let schema = ident(schema.as_deref().unwrap_or(SCRATCH_SCHEMA));
    for (kind, oid, what) in &targets {
        let what = literal(what);
        // Plain queries: psql sets `ERROR` after those, but not where a COPY fails half-way. Their one
        // column is escaped as COPY would.
        let query = match kind.as_str() {
            "i" => format!("SELECT 'v' || {schema}.bt_index_check({oid}::regclass)::text"),
            _ if version < HEAP_SINCE => continue,
            _ => format!(
                "SELECT 'p' || chr(9) || {} FROM {schema}.verify_heapam({oid}::regclass)",
                escaped(&format!("{what} || format(', page %s: %s', blkno, msg)"))
            ),
        };
        // A damaged object must not keep the others from being checked. psql sets the variables.
        let _ = write!(
            checks,
            "{query};\n\\if :ERROR\nCOPY (SELECT 'p', {what} || ': ' || :'LAST_ERROR_MESSAGE') TO STDOUT;\n\\endif\n"
        );
    }
    let (create, remove) = if ours {
        (
            format!(
                "CREATE SCHEMA IF NOT EXISTS {schema};\nCREATE EXTENSION IF NOT EXISTS amcheck SCHEMA {schema};\n"
            ),
            format!("DROP EXTENSION IF EXISTS amcheck;\nDROP SCHEMA IF EXISTS {schema};\n"),
        )
    } else {
        (String::new(), String::new())
    };
    let body = format!("{create}\\set ON_ERROR_STOP 0\n{checks}\\set ON_ERROR_STOP 1\n{remove}");
    let mut problems = Vec::new();
    session::each_line(psql, database, &session::writing(&body), cancel, |line| {
        if line.tag() == "p" {
            problems.push(format!("{place}: {}", line.text(1)?));
        }
        Ok(())
    })?;
    Ok(problems)
}
