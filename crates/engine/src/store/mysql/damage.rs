//! Damage on purpose, to a clone: what bad migrations do to a database.
//!
//! Owns the statements. It must never be asked of a server on data that anybody needs: the caller holds scratch.

use super::super::Progress;
use super::names::{ident, part, table as quoted};
use super::schema::{Class, Table};
use super::{Client, Result, schema, session};
use switchback_core::prove::Damage;

/// The statements to try on a table, in turn, until one concerns something.
fn attempts(database: &str, name: &str, table: &Table, rows: u64, damage: Damage) -> Vec<String> {
    let at = quoted(database, name);
    let free = || table.stored().into_iter().rev().filter(|c| !table.key.contains(&c.name));
    let texts = || free().filter(|c| c.class == Class::Text).map(|c| ident(&c.name));
    let told = "SELECT 'n', ROW_COUNT();\n";
    match damage {
        Damage::RowsLost => vec![format!("DELETE FROM {at} LIMIT {};\n{told}", rows.div_ceil(100))],
        Damage::TextsCut => texts()
            .map(|c| {
                format!("UPDATE {at} SET {c} = LEFT({c}, CHAR_LENGTH({c}) - 1) WHERE CHAR_LENGTH({c}) > 1;\n{told}")
            })
            .collect(),
        Damage::ColumnDropped => free()
            .map(|c| format!("ALTER TABLE {at} DROP COLUMN {};\nSELECT 'n', 1;\n", ident(&c.name)))
            .collect(),
        Damage::HalfMoved => texts()
            .enumerate()
            .map(|(number, c)| {
                let moved = format!("switchback_moved_{number}");
                format!(
                    "ALTER TABLE {at} ADD COLUMN {moved} longtext;\n\
                     UPDATE {at} SET {moved} = {c}, {c} = '' WHERE CHAR_LENGTH({c}) > 0 LIMIT {};\n{told}",
                    rows.div_ceil(2)
                )
            })
            .collect(),
        Damage::TablesRenamed => {
            let other: String = format!("renamed_{name}").chars().take(64).collect();
            vec![format!("RENAME TABLE {at} TO {};\nSELECT 'n', 1;\n", quoted(database, &other))]
        }
    }
}

/// Damages databases of a clone (all of them if none is named): the largest table that has what it needs, or every table. How many
/// rows, columns or tables it concerned. Tables that are named in `not` (`table` or `database.table`) are left alone.
pub fn damage(
    client: &dyn Client,
    databases: &[String],
    damage: Damage,
    not: &[String],
    progress: &Progress<'_>,
) -> Result<u64> {
    let cancel = session::cancel(progress);
    let flavour = schema::flavour(client)?;
    let counts = super::counts(client, databases, progress)?;
    let mut sum = 0;
    for database in session::chosen(client, databases)? {
        let found = schema::read(client, &database, flavour, progress)?;
        let mut tables: Vec<(&String, &Table)> = found.tables.iter().collect();
        tables.sort_by_key(|(name, table)| (std::cmp::Reverse(table.bytes), (*name).clone()));
        for (name, table) in tables {
            let part = part(&database, name);
            if not.iter().any(|n| part == *n || part.ends_with(&format!(".{n}"))) {
                continue;
            }
            let rows = counts.get(&part).copied().unwrap_or(0);
            let mut landed: u64 = 0;
            for attempt in attempts(&database, name, table, rows, damage) {
                let tried =
                    session::each_line(client, &database, &session::writing(&attempt), &cancel, |row| {
                        landed = row.number::<i64>(1)?.try_into().unwrap_or(0);
                        Ok(())
                    });
                match tried {
                    // What a rule of the table forbids is tried with its next column.
                    Err(e) if e.code().is_some() && !e.is_denied() => landed = 0,
                    other => other?,
                }
                if landed > 0 {
                    break;
                }
            }
            sum += landed;
            if landed > 0 && damage != Damage::TablesRenamed {
                return Ok(sum);
            }
        }
    }
    Ok(sum)
}
