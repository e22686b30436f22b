//! Looking for damage and contradictions inside of a server's databases.
//!
//! Owns the checks. `CHECK TABLE` reads everything and holds locks: for clones.

use super::super::Progress;
use super::{Client, Result, names, orphans, schema, session};

/// Whether tables and indexes are checked page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// No: it is production.
    Skip,
    /// By `CHECK TABLE`.
    Check,
}

/// Lists what is wrong in databases (all of them if none is named); empty means sound: tables and indexes that `CHECK TABLE`
/// complains of, foreign keys without parent.
pub fn integrity(
    client: &dyn Client,
    databases: &[String],
    pages: Pages,
    progress: &Progress<'_>,
) -> Result<Vec<String>> {
    let cancel = session::cancel(progress);
    let flavour = schema::flavour(client)?;
    let mut problems = Vec::new();
    for database in session::chosen(client, databases)? {
        let found = schema::read(client, &database, flavour, progress)?;
        let orphans = orphans::read(client, &database, &found.foreign, &cancel)?;
        problems.extend(orphans::more(&orphans::Orphans::new(), &orphans));
        if pages == Pages::Skip || found.tables.is_empty() {
            continue;
        }
        let checks: String =
            found.tables.keys().map(|t| format!("CHECK TABLE {};\n", names::table(&database, t))).collect();
        session::each_line(client, &database, &session::writing(&checks), &cancel, |row| {
            // Table, operation, kind of message, message.
            let (kind, text) = (row.text(2)?, row.text(3)?);
            if !(text == "OK" || kind == "note") {
                problems.push(format!("table {}: {kind}: {text}", row.text(0)?));
            }
            Ok(())
        })?;
    }
    Ok(problems)
}
