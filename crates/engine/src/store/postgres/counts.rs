//! Rows per table, for people.
//!
//! Owns counting. It says nothing about content: that is for fingerprints.

use super::super::Progress;
use super::{PgError, Psql, Result, session};
use std::collections::BTreeMap;

/// One statement per table that keeps rows itself (partitions and materialised views too), each writing its name
/// and count.
const COUNTS: &str = "\
SELECT pg_catalog.format('COPY (SELECT %L, count(*) FROM ONLY %I.%I) TO STDOUT;', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
AND (c.relkind <> 'm' OR c.relispopulated)
ORDER BY 1 \\gexec";

/// Rows of every table of databases (all of them if none is named), by `database.schema.table`. Each database is read
/// in one snapshot.
pub fn counts(
    psql: &dyn Psql,
    databases: &[String],
    progress: &Progress<'_>,
) -> Result<BTreeMap<String, u64>> {
    let cancel = session::cancel(progress);
    let mut found = BTreeMap::new();
    for database in session::chosen(psql, databases)? {
        for line in session::lines(psql, &database, &session::reading(COUNTS), &cancel)? {
            let (table, rows) = (line.owned(0)?, line.owned(1)?);
            let rows =
                rows.parse().map_err(|_| PgError::protocol(&database, format!("{rows:?} is no count")))?;
            found.insert(format!("{database}.{table}"), rows);
        }
    }
    Ok(found)
}
