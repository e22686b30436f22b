//! Rows per table, for people.
//!
//! Owns counting. It says nothing about content: that is for fingerprints.

use super::super::Progress;
use super::{Client, Result, names, schema, session};
use std::collections::BTreeMap;

/// Rows of every table of databases (all of them if none is named), by `database.table`. Each database is read in one snapshot.
pub fn counts(
    client: &dyn Client,
    databases: &[String],
    progress: &Progress<'_>,
) -> Result<BTreeMap<String, u64>> {
    let flavour = schema::flavour(client)?;
    let mut found = BTreeMap::new();
    for database in session::chosen(client, databases)? {
        let tables = schema::read(client, &database, flavour, progress)?.tables;
        let names: Vec<&String> = tables.keys().collect();
        let queries = names.iter().enumerate().map(|(number, name)| {
            format!("SELECT 'r', {number}, COUNT(*) FROM {};\n", names::table(&database, name))
        });
        let sql = session::reading(&queries.collect::<String>());
        session::each_line(client, &database, &sql, &session::cancel(progress), |row| {
            if let Some(name) = names.get(row.number::<usize>(1)?) {
                found.insert(names::part(&database, name), row.number(2)?);
            }
            Ok(())
        })?;
    }
    Ok(found)
}
