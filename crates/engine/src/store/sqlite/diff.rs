//! The difference of two databases.
//!
//! Owns counting and the choice of examples.

use super::super::progress::{Meter, Progress};
use super::super::{Result, Source};
use super::compare::Pair;
use super::fingerprint::sum;
use super::open::Db;
use super::orphans::Orphans;
use super::schema::{Schema, Table};
use super::{size_bytes, sql_error, words};
use std::collections::BTreeSet;
use switchback_core::data::{PartChange, PartDiff, RowOp, StoreDiff};

/// Examples kept per table and kind of change.
const EXAMPLES: usize = 5;

/// Two states, open.
pub(super) struct States {
    pub old: Db,
    pub new: Db,
    pub before: Schema,
    pub after: Schema,
}

impl States {
    pub(super) fn open(before: Source<'_>, after: Source<'_>) -> Result<Self> {
        let (old, new) = (Db::reader(before)?, Db::reader(after)?);
        let (before, after) = (Schema::read(&old)?, Schema::read(&new)?);
        Ok(Self { old, new, before, after })
    }

    pub(super) fn encodings(&self) -> (&str, &str) {
        (&self.before.encoding, &self.after.encoding)
    }

    /// Tables of either state.
    pub(super) fn tables(&self) -> BTreeSet<&String> {
        self.before.tables.keys().chain(self.after.tables.keys()).collect()
    }

    /// Whether the rows agree in all common columns as a multiset; found by scanning, without
    /// sorting. Returns the rows.
    pub(super) fn same_rows(&self, pair: &Pair<'_>, meter: &mut Meter<'_>) -> Result<Option<u64>> {
        let a = sum(&self.old, pair.before, &pair.common, meter)?;
        let b = sum(&self.new, pair.after, &pair.common, meter)?;
        Ok((a == b).then_some(a.rows))
    }
}

fn whole(db: &Db, table: &Table, meter: &mut Meter<'_>) -> Result<u64> {
    Ok(sum(db, table, &[], meter)?.rows)
}

fn empty(name: &str, change: PartChange) -> PartDiff {
    PartDiff {
        name: name.to_owned(),
        change,
        before: 0,
        after: 0,
        rows_added: 0,
        rows_removed: 0,
        rows_changed: 0,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        examples: Vec::new(),
        notes: Vec::new(),
    }
}

/// Compares two databases table by table.
pub(in super::super) fn diff(
    before: Source<'_>,
    after: Source<'_>,
    progress: &Progress<'_>,
) -> Result<StoreDiff> {
    let states = States::open(before, after)?;
    let mut meter = Meter::new(progress, size_bytes(before.path)? + size_bytes(after.path)?);
    let mut parts = Vec::new();
    let mut unchanged = 0;
    for name in states.tables() {
        let part = match (states.before.tables.get(name), states.after.tables.get(name)) {
            (Some(old), Some(new)) => compare(&states, &Pair::new(old, new), &mut meter)?,
            (None, Some(new)) => {
                let rows = whole(&states.new, new, &mut meter)?;
                PartDiff { after: rows, rows_added: rows, ..empty(name, PartChange::Added) }
            }
            (Some(old), None) => {
                let rows = whole(&states.old, old, &mut meter)?;
                PartDiff { before: rows, rows_removed: rows, ..empty(name, PartChange::Dropped) }
            }
            (None, None) => continue,
        };
        unchanged += u64::from(part.change == PartChange::Unchanged);
        parts.push(part);
    }
    let orphans = Orphans::read(&states.old, &states.before)?;
    let new_orphans = orphans.new_in(&Orphans::read(&states.new, &states.after)?);
    meter.finish();
    Ok(StoreDiff {
        parts,
        schema_changes: words::schema_changes(&states.before, &states.after),
        new_orphans,
        unchanged,
    })
}

fn compare(states: &States, pair: &Pair<'_>, meter: &mut Meter<'_>) -> Result<PartDiff> {
    let mut part = empty(&pair.after.name, PartChange::Unchanged);
    part.columns_added = pair.added.iter().map(|c| c.name.clone()).collect();
    part.columns_removed.clone_from(&pair.removed);
    if let Some(rows) = states.same_rows(pair, meter)? {
        (part.before, part.after) = (rows, rows);
    } else {
        pair.merge(&states.old, &states.new, states.encodings(), meter, |key, matched| {
            part.before += u64::from(matched.before.is_some());
            part.after += u64::from(matched.after.is_some());
            if matched.same {
                return Ok(());
            }
            let (count, op) = match (&matched.before, &matched.after) {
                (Some(_), Some(_)) => (&mut part.rows_changed, RowOp::Update),
                (None, _) => (&mut part.rows_added, RowOp::Insert),
                (_, None) => (&mut part.rows_removed, RowOp::Delete),
            };
            *count += 1;
            if part.examples.iter().filter(|e| e.op == op).count() < EXAMPLES {
                let change = pair.change(key, matched).map_err(|e| sql_error("read", &states.new.path, e))?;
                part.examples.extend(change);
            }
            Ok(())
        })?;
    }
    part.change =
        if part.rows_added + part.rows_removed + part.rows_changed > 0 || !part.columns_removed.is_empty() {
            PartChange::Changed
        } else if !part.columns_added.is_empty() {
            PartChange::ColumnsAdded
        } else {
            PartChange::Unchanged
        };
    Ok(part)
}
