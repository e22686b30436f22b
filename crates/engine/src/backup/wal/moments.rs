//! Moments that can be returned to: where backups stand in logs, and what leads from one to a moment.

use super::{chains, file};
use crate::backup::ask;
use crate::backup::vault::{Task, Vault};
use crate::error::EngineError;
use crate::home::{Home, write_json};
use crate::lock::Lock;
use crate::runtime::Placement;
use crate::store::Progress;
use crate::world::World;
use std::collections::BTreeSet;
use std::time::Duration;
use switchback_core::backup::Snapshot;
use switchback_core::config::Config;
use switchback_core::ids::{GenerationId, StoreName};
use switchback_core::times::utc;
use switchback_core::wal::{Base, Bases, Begin, Kept, Way, way, windows};

/// Where a clone, on which nothing ever ran, stands in the logs of its stores. What cannot be replayed from is told.
pub fn bases(
    at: &Placement<'_>,
    world: &World,
    production: GenerationId,
) -> Result<(Bases, Vec<String>), EngineError> {
    let (mut bases, mut notes) = (Bases::new(), Vec::new());
    let known = chains(at.home)?;
    let Some(logs) = world.data.logs() else { return Ok((bases, notes)) };
    for store in at.config.archived() {
        let Some(chain) = known.stores.get(&store) else {
            notes.push(format!(
                "{store}: its log is not archived yet, so nothing can be replayed on this backup"
            ));
            continue;
        };
        let (system, timeline, redo) = logs.begins(at, &store)?;
        if system != chain.system || timeline != chain.timeline {
            notes.push(format!(
                "{store}: the archived log is of another history; nothing can be replayed on this backup"
            ));
            continue;
        }
        if chain.generation != production || redo < chain.first {
            notes.push(format!(
                "{store}: the archived log does not reach back to this backup; nothing can be replayed on it"
            ));
            continue;
        }
        bases.insert(store, Base { chain: chain.chain.clone(), generation: chain.generation, redo });
    }
    Ok((bases, notes))
}

/// Records that a backup was made from which chains go on.
pub fn based(home: &Home, bases: &Bases, at_ms: i64) -> Result<(), EngineError> {
    if bases.is_empty() {
        return Ok(());
    }
    let _own = Lock::take(&home.state().join("wal.lock"), "archiving", Duration::from_secs(60))?;
    let mut known = chains(home)?;
    for (store, base) in bases {
        if let Some(chain) = known.stores.get_mut(store).filter(|c| c.chain == base.chain) {
            chain.based_ms = Some(at_ms);
        }
    }
    write_json(&file(home), &known)
}

/// The backups of a stack that logs go on from.
pub fn begins(all: &[Snapshot]) -> Vec<Begin<'_>> {
    all.iter().map(|s| Begin { snapshot: &s.id, at_ms: s.at_ms, bases: &s.bases }).collect()
}

/// The archived logs of a stack.
pub fn kept(all: Vec<Kept>, stack: &str) -> Vec<Kept> {
    all.into_iter().filter(|k| k.stack == stack).collect()
}

/// What leads to a moment; refused with what there is.
pub fn way_to(
    stores: &BTreeSet<StoreName>,
    backups: &[Snapshot],
    logs: &[Kept],
    at_ms: i64,
) -> Result<Way, EngineError> {
    let begins = begins(backups);
    way(stores, &begins, logs, at_ms).map_err(|why| {
        let found = windows(stores, &begins, logs);
        let shown: Vec<String> =
            found.iter().map(|(from, until)| format!("{} to {}", utc(*from), utc(*until))).collect();
        EngineError::refused(
            format!("{} cannot be returned to: {why}", utc(at_ms)),
            if shown.is_empty() {
                "nothing is covered; `switchback backup list` shows backups, which can be restored as they are".to_owned()
            } else {
                format!("covered: {}", shown.join("; "))
            },
        )
    })
}

/// What leads to a moment of this stack, as its repository has it.
pub fn find(
    home: &Home,
    config: &Config,
    world: &World,
    vault: &Vault,
    at_ms: i64,
) -> Result<Way, EngineError> {
    let none = Progress::none();
    let stack = config.stack.as_str();
    let backups: Vec<Snapshot> = ask(home, world, vault, &Task::List, &none)?;
    let backups: Vec<Snapshot> = backups.into_iter().filter(|s| s.stack == stack).collect();
    let logs = kept(ask(home, world, vault, &Task::Logs, &none)?, stack);
    way_to(&config.archived(), &backups, &logs, at_ms)
}

/// The last moment that can be returned to, if any can.
pub fn newest(
    home: &Home,
    config: &Config,
    world: &World,
    vault: &Vault,
) -> Result<Option<i64>, EngineError> {
    let none = Progress::none();
    let stack = config.stack.as_str();
    let backups: Vec<Snapshot> = ask(home, world, vault, &Task::List, &none)?;
    let backups: Vec<Snapshot> = backups.into_iter().filter(|s| s.stack == stack).collect();
    let logs = kept(ask(home, world, vault, &Task::Logs, &none)?, stack);
    let found = windows(&config.archived(), &begins(&backups), &logs);
    Ok(found.last().map(|(_, until)| until - 1))
}
