//! Carrying later writes back: what was written to a generation that was left, brought into the one that runs now.
//!
//! These are rules and results as values. The engine's stores do it; reports read what was done.

use crate::data::{ExportStats, PartChange, RowOp, StoreDiff};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is known about the upgrade between the two, and so about which writes are the users'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Parts (tables, files) whose rows the upgrade itself touches, and whether it rewrites rows that were there; from a
    /// rehearsal. `None` if nobody rehearsed it.
    pub touched: Option<BTreeMap<String, bool>>,
    /// Whether the state that the writes are recognised by is of before the upgrade's own changes.
    pub before_upgrade: bool,
}

impl Rules {
    /// The rules that a rehearsal's difference of the data before and after its migration gives.
    pub fn of(diff: &StoreDiff, before_upgrade: bool) -> Self {
        let touched = diff.parts.iter().filter_map(|p| match p.change {
            PartChange::Unchanged | PartChange::ColumnsAdded => None,
            _ => Some((p.name.clone(), p.rows_changed + p.rows_removed > 0)),
        });
        Self { touched: Some(touched.collect()), before_upgrade }
    }

    /// What must be looked at in a part before its writes can be carried.
    pub fn part(&self, name: &str) -> Care {
        match &self.touched {
            None if self.before_upgrade => Care::Quarantine(UNKNOWN),
            None => Care::Compare,
            Some(touched) => match touched.get(name) {
                None => Care::Nothing,
                Some(_) if self.before_upgrade => Care::Quarantine(MIXED),
                Some(true) => Care::Compare,
                Some(false) => Care::Nothing,
            },
        }
    }
}

/// What must be looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Nothing: the upgrade left its columns alone.
    Nothing,
    /// Which columns the upgrade rewrote is found out by comparing the data.
    Compare,
    /// Its writes cannot be told from the upgrade's own.
    Quarantine(&'static str),
}

/// Why a write was not carried.
pub const UNKNOWN: &str = "nobody rehearsed this upgrade, and no clone of the migrated data was kept: its own changes cannot be told from later writes";
/// Why a write was not carried.
pub const MIXED: &str =
    "the upgrade changes rows of this table itself, and no clone of the migrated data was kept";
/// Why a write was not carried.
pub const NO_TABLE: &str = "this version has no such table";
/// Why a write was not carried.
pub const GONE: &str = "this version no longer has the row that was changed";
/// Why a write was not carried.
pub const DIFFERS: &str = "this version has another value there";
/// Why a write was not carried.
pub const TAKEN: &str = "this version has another row with this key";
/// Why a write was not carried.
pub const ORPHAN: &str = "it refers to a row that is not there, or another row refers to it";
/// Why a write was not carried.
pub const REWRITTEN: &str = "the upgrade rewrites values of this table";
/// Why a write was not carried.
pub const LARGE_OBJECT: &str = "a large object";

/// Why a write was not carried.
pub const EXPORTED_ONLY: &str = "later writes of MySQL and MariaDB are exported, not carried";

/// Entries of a quarantine that are written down; the export holds every write in any case.
pub const MOST_QUARANTINED: usize = 100_000;

/// A write that was not carried, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Table or file.
    pub part: String,
    /// What was done.
    pub op: RowOp,
    /// The values that name the row; empty where the row has none.
    pub key: Map<String, Value>,
    /// Why it was not carried.
    pub why: String,
}

/// What became of the writes to one table, or to the files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedPart {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Writes that were there already.
    pub already: u64,
    /// Writes that concern only columns which this version does not have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub newer_columns_only: u64,
    /// Writes that were not carried.
    pub quarantined: u64,
    /// Columns that this version does not have, and whose values stay in the export.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many were not carried for which reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl CarriedPart {
    /// Writes that are in the target now and were not before.
    pub fn carried(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }

    /// All writes that were looked at.
    pub fn total(&self) -> u64 {
        self.carried() + self.already + self.newer_columns_only + self.quarantined
    }
}

/// What became of the writes to one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// By table (or `files`).
    pub parts: BTreeMap<String, CarriedPart>,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Carried {
    /// Adds up over all parts.
    pub fn sum(&self, of: impl Fn(&CarriedPart) -> u64) -> u64 {
        self.parts.values().map(of).sum()
    }
}

/// A store's result, with the writes that were not carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The counts.
    pub carried: Carried,
    /// What was not carried, at most [`MOST_QUARANTINED`] entries.
    pub quarantine: Vec<Quarantined>,
}

impl Outcome {
    /// Counts every write that an export holds as not carried; the export names them.
    pub fn only_exported(exported: &ExportStats, why: &str) -> Self {
        let mut outcome = Self::default();
        for (name, part) in &exported.parts {
            let writes = part.inserted + part.updated + part.deleted;
            if writes > 0 {
                let counts = outcome.part(name);
                counts.quarantined = writes;
                counts.why.insert(why.to_owned(), writes);
            }
        }
        outcome
    }

    /// Counts a write as not carried.
    pub fn quarantine(&mut self, part: &str, op: RowOp, key: Map<String, Value>, why: impl Into<String>) {
        let why = why.into();
        let counts = self.part(part);
        counts.quarantined += 1;
        *counts.why.entry(why.clone()).or_default() += 1;
        if self.quarantine.len() < MOST_QUARANTINED {
            self.quarantine.push(Quarantined { part: part.to_owned(), op, key, why });
        }
    }

    /// Counts a write as carried.
    pub fn done(&mut self, part: &str, op: RowOp) {
        let counts = self.part(part);
        match op {
            RowOp::Insert => counts.inserted += 1,
            RowOp::Update => counts.updated += 1,
            RowOp::Delete => counts.deleted += 1,
        }
    }

    /// The counts of a part.
    pub fn part(&mut self, part: &str) -> &mut CarriedPart {
        if !self.carried.parts.contains_key(part) {
            self.carried.parts.insert(part.to_owned(), CarriedPart::default());
        }
        self.carried.parts.entry(part.to_owned()).or_default()
    }
}

/// How much could be carried back after a rollback, as far as a rehearsal can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Tables of all databases after the upgrade.
    pub tables: u64,
    /// Those whose later writes would be exported only, as `store.table`, and why.
    pub exported: BTreeMap<String, String>,
}

impl Coverage {
    /// Adds the tables of a database, by its difference before and after the migration.
    pub fn add(&mut self, store: &str, diff: &StoreDiff) {
        self.tables += diff.unchanged;
        for part in &diff.parts {
            let why = match part.change {
                PartChange::Unchanged | PartChange::Dropped => continue,
                PartChange::Added => Some("it is new"),
                _ => (part.rows_changed + part.rows_removed > 0).then_some("its rows are rewritten"),
            };
            self.tables += 1;
            if let Some(why) = why {
                self.exported.insert(format!("{store}.{}", part.name), why.to_owned());
            }
        }
    }

    /// Adds the tables of a database whose later writes can only be exported.
    pub fn add_exported(&mut self, store: &str, diff: &StoreDiff, why: &str) {
        let there = diff.parts.iter().filter(|p| p.change != PartChange::Dropped);
        for part in there {
            self.tables += 1;
            self.exported.insert(format!("{store}.{}", part.name), why.to_owned());
        }
    }

    /// Tables whose later writes could be carried.
    pub fn carried(&self) -> u64 {
        self.tables.saturating_sub(self.exported.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ExportPart, PartDiff};

    fn part(name: &str, change: PartChange, added: u64, changed: u64) -> PartDiff {
        PartDiff {
            name: name.to_owned(),
            change,
            before: 1,
            after: 1,
            rows_added: added,
            rows_removed: 0,
            rows_changed: changed,
            columns_added: Vec::new(),
            columns_removed: Vec::new(),
            examples: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_rehearsal_says_what_needs_care() {
        let diff = StoreDiff {
            parts: vec![
                part("same", PartChange::Unchanged, 0, 0),
                part("wider", PartChange::ColumnsAdded, 0, 0),
                part("seeded", PartChange::Changed, 3, 0),
                part("rewritten", PartChange::Changed, 0, 3),
            ],
            schema_changes: Vec::new(),
            new_orphans: Vec::new(),
            unchanged: 1,
        };
        let migrated = Rules::of(&diff, false);
        let older = Rules::of(&diff, true);
        for (name, with_clone, without) in [
            ("same", Care::Nothing, Care::Nothing),
            ("wider", Care::Nothing, Care::Nothing),
            ("unheard of", Care::Nothing, Care::Nothing),
            ("seeded", Care::Nothing, Care::Quarantine(MIXED)),
            ("rewritten", Care::Compare, Care::Quarantine(MIXED)),
        ] {
            assert_eq!(migrated.part(name), with_clone, "{name}");
            assert_eq!(older.part(name), without, "{name}");
        }
        assert_eq!(Rules { touched: None, before_upgrade: false }.part("any"), Care::Compare);
        assert_eq!(Rules { touched: None, before_upgrade: true }.part("any"), Care::Quarantine(UNKNOWN));
    }

    #[test]
    fn a_rehearsal_says_how_much_could_be_carried() {
        let diff = StoreDiff {
            parts: vec![
                part("same", PartChange::Unchanged, 0, 0),
                part("wider", PartChange::ColumnsAdded, 0, 0),
                part("seeded", PartChange::Changed, 3, 0),
                part("rewritten", PartChange::Changed, 0, 3),
                part("fresh", PartChange::Added, 0, 0),
                part("gone", PartChange::Dropped, 0, 0),
            ],
            schema_changes: Vec::new(),
            new_orphans: Vec::new(),
            unchanged: 1,
        };
        let mut coverage = Coverage::default();
        coverage.add("db", &diff);
        assert_eq!((coverage.carried(), coverage.tables), (3, 5));
        assert_eq!(coverage.exported.keys().collect::<Vec<_>>(), ["db.fresh", "db.rewritten"]);
    }

    #[test]
    fn what_is_only_exported_counts_as_not_carried() {
        let part = |inserted| ExportPart { inserted, deleted: inserted, ..ExportPart::default() };
        let parts = BTreeMap::from([("a".to_owned(), part(2)), ("b".to_owned(), part(0))]);
        let outcome = Outcome::only_exported(&ExportStats { parts, took_ms: 1 }, EXPORTED_ONLY);
        assert_eq!(outcome.carried.sum(CarriedPart::total), 4);
        assert_eq!(outcome.carried.sum(CarriedPart::carried), 0);
        assert_eq!(outcome.carried.parts["a"].why[EXPORTED_ONLY], 4);
        assert_eq!(outcome.carried.parts.len(), 1);
    }

    #[test]
    fn every_write_is_counted_once() {
        let mut outcome = Outcome::default();
        outcome.done("a", RowOp::Insert);
        outcome.done("a", RowOp::Delete);
        outcome.part("a").already += 1;
        outcome.quarantine("a", RowOp::Update, Map::new(), DIFFERS);
        outcome.quarantine("b", RowOp::Update, Map::new(), GONE);
        assert_eq!(outcome.carried.sum(CarriedPart::total), 5);
        assert_eq!(outcome.carried.sum(CarriedPart::carried), 2);
        assert_eq!(outcome.quarantine.len(), 2);
        assert_eq!(outcome.carried.parts["a"].why[DIFFERS], 1);
    }
}
