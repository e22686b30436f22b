//! Comparing two servers' databases exactly.
//!
//! Owns which tables are read row by row: those whose sums differ.

use super::super::Progress;
use super::super::postgres::words;
use super::super::progress::Meter;
use super::fingerprint::{settled, sums_of};
use super::merge::{Pair, harmonised};
use super::orphans::{self, Orphans};
use super::schema::{Flavour, Schema, Table};
use super::sums::Sum;
use super::{Client, MyError, Result, change, globals, names, schema, session};
use std::collections::BTreeSet;
use switchback_core::data::{PartChange, PartDiff, StoreDiff};

/// Both states.
pub(super) type Sides<'a> = (&'a dyn Client, &'a dyn Client);

/// The databases to compare.
pub(super) struct Chosen {
    pub both: Vec<String>,
    pub added: Vec<String>,
    pub dropped: Vec<String>,
}

impl Chosen {
    /// Those that were named, or all of either state.
    pub(super) fn read((before, after): Sides<'_>, wanted: &[String]) -> Result<Self> {
        let (old, new) = (session::databases(before)?, session::databases(after)?);
        let all: BTreeSet<String> = if wanted.is_empty() {
            old.iter().chain(&new).cloned().collect()
        } else {
            wanted.iter().cloned().collect()
        };
        let mut chosen = Self { both: Vec::new(), added: Vec::new(), dropped: Vec::new() };
        for database in all {
            match (old.contains(&database), new.contains(&database)) {
                (true, true) => chosen.both.push(database),
                (false, true) => chosen.added.push(database),
                (true, false) => chosen.dropped.push(database),
                (false, false) => {
                    return Err(MyError::Unsupported {
                        what: format!("database {database:?}"),
                        why: "neither state has such a database".to_owned(),
                    });
                }
            }
        }
        Ok(chosen)
    }
}

/// Compares two running servers. Memory use does not grow with the rows.
pub fn diff(
    before: &dyn Client,
    after: &dyn Client,
    databases: &[String],
    progress: &Progress<'_>,
) -> Result<StoreDiff> {
    settled(|| compared((before, after), databases, progress))
}

fn compared(sides: Sides<'_>, databases: &[String], progress: &Progress<'_>) -> Result<StoreDiff> {
    let cancel = session::cancel(progress);
    let flavours = (schema::flavour(sides.0)?, schema::flavour(sides.1)?);
    let chosen = Chosen::read(sides, databases)?;
    let mut found =
        StoreDiff { parts: Vec::new(), schema_changes: Vec::new(), new_orphans: Vec::new(), unchanged: 0 };
    if let (Some(old), Some(new)) = (globals::globals(sides.0, &cancel)?, globals::globals(sides.1, &cancel)?)
    {
        found.schema_changes.extend(words::changes("", None, &old, &new));
    }
    for database in &chosen.both {
        one(sides, flavours, database, progress, &mut found)?;
    }
    for (list, client, flavour, change, word) in [
        (&chosen.added, sides.1, flavours.1, PartChange::Added, "added"),
        (&chosen.dropped, sides.0, flavours.0, PartChange::Dropped, "removed"),
    ] {
        for database in list {
            found.schema_changes.push(format!("database {database} {word}"));
            let schema = schema::read(client, database, flavour, progress)?;
            let tables: Vec<_> = schema.tables.iter().collect();
            found.parts.extend(alone(client, database, &tables, change, progress)?);
        }
    }
    Ok(found)
}

/// Tables that only one state has.
fn alone(
    client: &dyn Client,
    database: &str,
    tables: &[(&String, &Table)],
    change: PartChange,
    progress: &Progress<'_>,
) -> Result<Vec<PartDiff>> {
    let asked: Vec<_> = tables.iter().map(|(name, table)| (*name, Vec::new(), table.bytes)).collect();
    let sums = sums_of(client, database, &asked, progress, None)?;
    let gone = change == PartChange::Dropped;
    let told = tables.iter().zip(sums).map(|((name, table), sum)| {
        let columns = || table.columns.iter().map(|c| c.name.clone()).collect();
        PartDiff {
            before: if gone { sum.rows } else { 0 },
            after: if gone { 0 } else { sum.rows },
            rows_added: if gone { 0 } else { sum.rows },
            rows_removed: if gone { sum.rows } else { 0 },
            columns_added: if gone { Vec::new() } else { columns() },
            columns_removed: if gone { columns() } else { Vec::new() },
            ..plain(&names::part(database, name), change, 0)
        }
    });
    Ok(told.collect())
}

fn plain(name: &str, change: PartChange, rows: u64) -> PartDiff {
    PartDiff {
        name: name.to_owned(),
        change,
        before: rows,
        after: rows,
        rows_added: 0,
        rows_removed: 0,
        rows_changed: 0,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        examples: Vec::new(),
        notes: Vec::new(),
    }
}

/// Both states' sums over the columns that both have, at once.
pub(super) fn both_sums(
    sides: Sides<'_>,
    database: &str,
    pairs: &[Pair<'_>],
    progress: &Progress<'_>,
    meter: Option<&mut Meter<'_>>,
) -> Result<(Vec<Sum>, Vec<Sum>)> {
    let names: Vec<String> = pairs.iter().map(|p| p.name.to_owned()).collect();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (pair, name) in pairs.iter().zip(&names) {
        let (before, after) = pair.common();
        old.push((name, before, pair.after.bytes));
        new.push((name, after, pair.after.bytes));
    }
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| sums_of(sides.0, database, &old, progress, None));
        let is = sums_of(sides.1, database, &new, progress, meter);
        let was = reading.join().unwrap_or_else(|_| Err(MyError::protocol(database, "reading it panicked")));
        Ok((was?, is?))
    })
}

fn one(
    sides: Sides<'_>,
    flavours: (Flavour, Flavour),
    database: &str,
    progress: &Progress<'_>,
    found: &mut StoreDiff,
) -> Result<()> {
    let cancel = session::cancel(progress);
    let old = schema::read(sides.0, database, flavours.0, progress)?;
    let new = schema::read(sides.1, database, flavours.1, progress)?;
    found.schema_changes.extend(words::changes(database, None, &old.objects, &new.objects));
    let only = |a: &'_ Schema, b: &Schema| -> Vec<String> {
        a.tables.keys().filter(|t| !b.tables.contains_key(*t)).cloned().collect()
    };
    for (client, own, other, change) in
        [(sides.0, &old, &new, PartChange::Dropped), (sides.1, &new, &old, PartChange::Added)]
    {
        let names = only(own, other);
        let tables: Vec<_> = own.tables.iter().filter(|(name, _)| names.contains(name)).collect();
        found.parts.extend(alone(client, database, &tables, change, progress)?);
    }
    let shared = old
        .tables
        .iter()
        .filter_map(|(name, before)| new.tables.get(name).map(|after| (name, harmonised(before, after))));
    let shared: Vec<_> = shared.collect();
    let pairs: Vec<Pair<'_>> =
        shared.iter().map(|(name, (before, after))| Pair { database, name, before, after }).collect();
    let mut meter = Meter::new(progress, pairs.iter().map(|p| p.after.bytes).sum());
    let (was, is) = both_sums(sides, database, &pairs, progress, Some(&mut meter))?;
    for (pair, (was, is)) in pairs.iter().zip(was.iter().zip(&is)) {
        let mut part = if was == is {
            let (added, removed) = (pair.added(), pair.removed());
            let change = match (added.is_empty(), removed.is_empty()) {
                (true, true) => PartChange::Unchanged,
                (false, true) => PartChange::ColumnsAdded,
                _ => PartChange::Changed,
            };
            PartDiff {
                columns_added: added.iter().map(|c| c.name.clone()).collect(),
                columns_removed: removed.iter().map(|c| c.name.clone()).collect(),
                ..plain(&names::part(database, pair.name), change, was.rows)
            }
        } else {
            change::changed(sides, pair, (was.rows, is.rows), &cancel)?
        };
        // A table that is written anew keeps everybody waiting who writes to it, and takes as much room again meanwhile.
        if let (Some(a), Some(b)) = (pair.before.number, pair.after.number)
            && a != b
        {
            part.notes.push(format!("written anew ({} MiB)", pair.after.bytes.div_ceil(1 << 20)));
        }
        if part.change == PartChange::Unchanged {
            found.unchanged += 1;
        }
        found.parts.push(part);
    }
    meter.finish();
    let before: Orphans = orphans::read(sides.0, database, &old.foreign, &cancel)?;
    let after: Orphans = orphans::read(sides.1, database, &new.foreign, &cancel)?;
    found.new_orphans.extend(orphans::more(&before, &after));
    Ok(())
}
