//! Rows whose foreign key has no parent, also where a constraint was never validated or its triggers
//! were switched off.
//!
//! Owns counting and wording. Temporal foreign keys (Postgres 18, `PERIOD`) are left out.

use super::lines::Texts;
use super::{Result, names};
use std::collections::BTreeMap;

/// Counts orphans of all foreign keys of a database.
pub(super) const ORPHANS_SQL: &str = include_str!("orphans.sql");

/// Orphans by table, constraint and parent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orphans(BTreeMap<(String, String, String), (u64, bool)>);

impl Orphans {
    /// Takes an `f` line over.
    pub(super) fn take(&mut self, line: &Texts) -> Result<()> {
        let key = (line.owned(1)?, line.owned(2)?, line.owned(3)?);
        self.0.insert(key, (line.number(5)?, line.flag(4)?));
        Ok(())
    }

    /// What `after` has more than `self`, in words.
    pub(super) fn new_in(&self, database: &str, after: &Self) -> Vec<String> {
        let mut words = Vec::new();
        for (key, (rows, validated)) in &after.0 {
            let new = rows.saturating_sub(self.0.get(key).map_or(0, |(rows, _)| *rows));
            if new == 0 {
                continue;
            }
            let (table, constraint, parent) = key;
            words.push(format!(
                "{}.{table}, foreign key {constraint}: {new} {} without parent in {parent}{}",
                names::database(database),
                if new == 1 { "row" } else { "rows" },
                if *validated { "" } else { " (the constraint is NOT VALID)" }
            ));
        }
        words
    }

    /// All of them, in words.
    pub(super) fn all(&self, database: &str) -> Vec<String> {
        Self::default().new_in(database, self)
    }
}
