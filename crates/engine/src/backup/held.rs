//! What a backup held, and whether that came back.

use crate::data::{Work, contents};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use switchback_core::backup::Manifest;
use switchback_core::data::Fingerprint;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;

/// What is expected of stores that a snapshot is brought back into, before anything starts on them.
pub struct Held {
    /// By store.
    pub expected: BTreeMap<StoreName, Fingerprint>,
    /// Stores that cannot be compared: a server would have to be started, and their logs are yet to be replayed.
    pub uncompared: BTreeSet<StoreName>,
    /// Those of `expected` that are read row by row.
    by_rows: BTreeSet<StoreName>,
}

impl Held {
    /// What a snapshot says of the stores that are wanted.
    pub fn of(said: &Manifest, wanted: impl Fn(&StoreName) -> bool, replayed: &BTreeSet<StoreName>) -> Self {
        let mut expected = said.contents.clone();
        let (mut by_rows, mut uncompared) = (BTreeSet::new(), BTreeSet::new());
        for (name, fingerprint) in &said.fingerprints {
            if expected.contains_key(name) || !wanted(name) {
                continue;
            }
            if replayed.contains(name) {
                uncompared.insert(name.clone());
                continue;
            }
            by_rows.insert(name.clone());
            expected.insert(name.clone(), fingerprint.clone());
        }
        expected.retain(|name, _| wanted(name));
        Self { expected, uncompared, by_rows }
    }

    /// What the stores hold.
    pub fn read(
        &self,
        at: &Placement<'_>,
        world: &World,
        work: &Work<'_>,
    ) -> Result<BTreeMap<StoreName, Fingerprint>, EngineError> {
        let names = self.expected.keys().filter(|n| !self.by_rows.contains(*n));
        let mut found = contents(world.data.as_ref(), at, names, work.progress, work.temp)?;
        for name in &self.by_rows {
            if world.data.exists(at, name)? {
                found.insert(name.clone(), world.data.fingerprint(at, name, CloneMode::Cold, work)?);
            }
        }
        Ok(found)
    }
}
