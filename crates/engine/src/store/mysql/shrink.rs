//! Fewer rows in a copy.
//!
//! Owns the statements. It must never be asked of a server on data that anybody needs: the caller holds scratch.

use super::super::Progress;
use super::super::thinning::{self, Dialect, Reference, Table};
use super::names::{ident, part, table as quoted};
use super::{Client, Result, schema, session};
use std::collections::BTreeMap;
use switchback_core::scaling::Shrunk;

struct Mysql;

impl Dialect for Mysql {
    // A table cannot be asked about in a statement that deletes from it, but it can be joined with itself.
    fn orphans(&self, reference: &Reference) -> String {
        let pairs = || reference.columns.iter().zip(&reference.keys);
        let on: Vec<String> = pairs().map(|(c, k)| format!("sb_p.{k} = sb_c.{c}")).collect();
        let set: Vec<String> = pairs().map(|(c, _)| format!("sb_c.{c} IS NOT NULL")).collect();
        format!(
            "DELETE sb_c FROM {} AS sb_c LEFT JOIN {} AS sb_p ON {} WHERE {} AND sb_p.{} IS NULL",
            reference.child_name,
            reference.parent_name,
            on.join(" AND "),
            set.join(" AND "),
            reference.keys.first().map_or("", String::as_str)
        )
    }
    fn share(&self, table: &Table, target: u64, but: &[String]) -> String {
        let kept: String = but.iter().map(|b| format!(" AND ({b}) IS NOT TRUE")).collect();
        format!(
            "SET @sb_gone = (SELECT 1 - LEAST({target}, COUNT(*)) / GREATEST(1, COUNT(*)) FROM {0});\nDELETE FROM {0} WHERE RAND() < @sb_gone{kept}",
            table.name
        )
    }
}

/// Removes rows of large tables, so that about `percent` of them are left; tables whose bare name is in `not` are kept whole. Only
/// measures at 100. References are followed within a database.
pub fn shrink(
    client: &dyn Client,
    databases: &[String],
    percent: u8,
    not: &[String],
    progress: &Progress<'_>,
) -> Result<Shrunk> {
    let cancel = session::cancel(progress);
    let flavour = schema::flavour(client)?;
    let counts = super::counts(client, databases, progress)?;
    let mut done = Shrunk::default();
    for database in session::chosen(client, databases)? {
        let found = schema::read(client, &database, flavour, progress)?;
        let names: Vec<&String> =
            found.tables.iter().filter(|(_, t)| !t.columns.is_empty()).map(|(n, _)| n).collect();
        let tables: Vec<Table> = names
            .iter()
            .map(|name| Table {
                name: quoted(&database, name),
                rows: counts.get(&part(&database, name)).copied().unwrap_or(0),
                whole: not.iter().any(|n| n.eq_ignore_ascii_case(name)),
            })
            .collect();
        let number: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
        let references: Vec<Reference> = found
            .foreign
            .iter()
            .filter(|key| key.parent.0 == database)
            .filter_map(|key| {
                let (child, parent) = (*number.get(key.table.as_str())?, *number.get(key.parent.1.as_str())?);
                let (columns, keys) = key.columns.iter().map(|(c, k)| (ident(c), ident(k))).unzip();
                Some(Reference {
                    child,
                    child_name: tables[child].name.clone(),
                    columns,
                    parent,
                    parent_name: tables[parent].name.clone(),
                    keys,
                })
            })
            .collect();
        let large: Vec<&Table> = tables.iter().filter(|t| thinning::is_large(t)).collect();
        done.tables += large.len() as u64;
        let run = |statements: &[String]| -> Result<Vec<u64>> {
            // A DELETE of a join needs a default database, even where every name has its own.
            let used = format!("USE {};\n", ident(&database));
            let body: String = std::iter::once(used)
                .chain(statements.iter().map(|s| format!("{s};\nSELECT 'n', ROW_COUNT();\n")))
                .collect();
            let mut rows = Vec::new();
            session::each_line(client, &database, &session::writing(&body), &cancel, |row| {
                rows.push(row.number::<i64>(1)?.try_into().unwrap_or(0));
                Ok(())
            })?;
            Ok(rows)
        };
        if percent < 100 && !large.is_empty() {
            run(&thinning::statements(&tables, &references, percent, &Mysql))?;
            let (owners, repairs): (Vec<usize>, Vec<String>) =
                thinning::repairs(&references, &Mysql).into_iter().unzip();
            for _ in 0..thinning::ROUNDS {
                let rows = run(&repairs)?;
                let small = owners.iter().zip(&rows).filter(|(t, _)| !thinning::is_large(&tables[**t]));
                done.followed += small.map(|(_, n)| n).sum::<u64>();
                if rows.iter().all(|n| *n == 0) {
                    break;
                }
            }
            // Written anew, each for itself, so that what was removed is given back; what the server says of it is a table.
            let anew: String = tables
                .iter()
                .map(|t| format!("ALTER TABLE {} FORCE;\nANALYZE TABLE {0};\n", t.name))
                .collect();
            session::each_line(client, &database, &session::writing(&anew), &cancel, |_| Ok(()))?;
        }
        // What the server knows about sizes is old otherwise.
        let sizes = format!(
            "SELECT 'b', COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES WHERE {};\n",
            super::names::is("TABLE_SCHEMA", &database)
        );
        session::each_line(client, &database, &session::reading(&sizes), &cancel, |row| {
            done.bytes += row.number::<u64>(1)?;
            Ok(())
        })?;
    }
    done.rows = super::counts(client, databases, progress)?.values().sum();
    Ok(done)
}
