//! Carrying back what was written to a generation that was left: what it is planned from, and by which rules it is done.
//!
//! Reads the journal and the exports. A write is never lost by it: the export of the rollback stays as it is.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::gather::{self, SMALL_BYTES, new_run};
use crate::home::{Home, read_json};
use crate::journal::Journal;
use crate::left::{SETTLED, exported, is_back, left_by, line};
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use switchback_core::carry::{Carried, Rules};
use switchback_core::config::{Capture, Config, RuntimeKind, Writes};
use switchback_core::data::{ExportStats, StoreDiff};
use switchback_core::ids::{Digest, GenerationId, RunId, StoreName};
use switchback_core::journal::Outcome;
use switchback_core::plan::{Op, Plan, Procedure, PromoteFacts};

/// A generation that was left, whose writes are exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its number.
    pub generation: GenerationId,
    /// Writes in its export.
    pub writes: u64,
    /// The generation that they were carried into, if it is production's or an ancestor of it.
    pub carried_into: Option<GenerationId>,
    /// Likewise, where only the writes were carried that it had when it was left an earlier time.
    #[serde(skip)]
    pub earlier: Option<GenerationId>,
}

/// The folder with what was done when writes were carried.
pub fn folder(home: &Home, left: GenerationId, into: GenerationId) -> PathBuf {
    home.export_dir(left).join(format!("carried-into-{into}"))
}

/// The file that says for which rollback carrying was begun.
pub const BEGAN: &str = "began.json";

/// What it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Began {
    /// The rollback that left the generation, where that is known.
    pub rollback: Option<RunId>,
}

/// The file that says that everything was carried.
pub const DONE: &str = "carried.json";

/// What it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// The run.
    pub run: RunId,
    /// The rollback that left the generation, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RunId>,
    /// What became of the writes to each store.
    pub stores: BTreeMap<StoreName, Carried>,
}

/// Generations that were left and exported, and whose data is still there, oldest first. An export that is damaged is none.
pub fn left(home: &Home) -> Result<Vec<Left>, EngineError> {
    let Some(pointer) = home.pointer()? else { return Ok(Vec::new()) };
    let known = home.generation_ids()?;
    let line = line(home, pointer.current);
    // What is older than one that is gone may have led to it.
    let gone = line.iter().find(|(_, record)| record.is_none()).map(|(id, _)| *id);
    let behind = |id: &&GenerationId| line.contains_key(*id) || gone.is_some_and(|gone| **id < gone);
    let mut found = Vec::new();
    for entry in fs::read_dir(home.state().join("exports")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("generation-")).and_then(|n| n.parse().ok());
        let Some(generation) = number.map(GenerationId) else { continue };
        if !known.contains(&generation) {
            continue; // `gc` took its data; the export is all there is
        }
        if is_back(home, generation, pointer.current, &line) {
            continue; // production has its writes
        }
        let Ok(Some(stores)) = exported(home, generation) else {
            continue; // its export has not ended
        };
        let by = left_by(home, generation);
        let into = |of: &dyn Fn(&Done) -> bool| {
            let carried = |into: &&GenerationId| carried(home, generation, **into).is_some_and(|d| of(&d));
            known.iter().rev().filter(behind).find(carried).copied()
        };
        let carried_into = into(&|done: &Done| by.is_none() || done.rollback == by);
        let earlier = into(&|_: &Done| carried_into.is_none());
        let writes = stores.values().map(ExportStats::total).sum();
        found.push(Left { generation, writes, carried_into, earlier });
    }
    found.sort_by_key(|l| l.generation);
    Ok(found)
}

/// What was carried, where a generation, as it is, was made with the writes of another one.
fn carried(home: &Home, left: GenerationId, into: GenerationId) -> Option<Done> {
    let done = read_json::<Done>(&folder(home, left, into).join(DONE)).ok()?;
    let made = home.generation(into).ok()?.created_by;
    (done.run == made).then_some(done)
}

/// What is to be carried: a generation that was named, or the newest with writes that were not.
fn choose(home: &Home, wanted: Option<GenerationId>, again: bool) -> Result<Left, EngineError> {
    let all = left(home)?;
    let none = || {
        EngineError::refused(
            "there are no later writes to carry",
            "a rollback exports what was written since the promotion; `switchback status` says what is not exported, and `switchback export` does it",
        )
    };
    if let Some(wanted) = wanted {
        // Damage is told rather than taken for an export that has not ended.
        exported(home, wanted)?;
    }
    let found = match wanted {
        Some(wanted) => all.into_iter().find(|l| l.generation == wanted).ok_or_else(|| {
            EngineError::refused(
                format!("there are no writes of generation {wanted} that could be carried"),
                "name a generation that was left by a rollback and that is kept; once `gc` took it, its export can be applied by hand",
            )
        })?,
        None => all.into_iter().rfind(|l| l.writes > 0 && l.carried_into.is_none()).ok_or_else(none)?,
    };
    if let (Some(into), false) = (found.carried_into, again) {
        return Err(EngineError::refused(
            format!("the writes of generation {} were carried into generation {into}", found.generation),
            "rows without a key would be there twice; --again does it nevertheless",
        ));
    }
    if let (Some(into), false) = (found.earlier, again) {
        return Err(EngineError::refused(
            format!(
                "some of the writes of generation {} were carried into generation {into}, and more were made since",
                found.generation
            ),
            "rows without a key would be there twice; `switchback carry --again` does it nevertheless",
        ));
    }
    if found.writes == 0 {
        return Err(none());
    }
    Ok(found)
}

/// The facts of carrying: a promotion of the release that runs.
pub fn facts(
    home: &Home,
    config: &Config,
    world: &World,
    wanted: Option<GenerationId>,
    again: bool,
) -> Result<(PromoteFacts, Left), EngineError> {
    let (pointer, production) = gather::production(home, config, world)?;
    let found = choose(home, wanted, again)?;
    if found.generation == pointer.current {
        return Err(EngineError::refused(
            format!("generation {} is production itself", found.generation),
            "its writes are there",
        ));
    }
    let journal = Journal::open_read(&home.state().join("journal.db"))?;
    let known = journal.as_ref().map(|j| history(j, found.generation, &production.release)).transpose()?;
    let Some(known) = known.flatten() else {
        return Err(EngineError::refused(
            format!("no promotion made generation {}", found.generation),
            "writes are carried from a generation that a promotion made; apply the export by hand",
        ));
    };
    if known.before_upgrade && known.rehearsed.is_none() {
        return Err(EngineError::refused(
            format!(
                "what was written to generation {} cannot be told from what the upgrade did itself",
                found.generation
            ),
            "it was not rehearsed, and no clone of the migrated data was kept; apply the export by hand, row by row",
        ));
    }
    let Cost { bytes, shared } = world.data.cost(home, &production)?;
    let precopy = config.runtime == RuntimeKind::Compose && !shared;
    let facts = PromoteFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        previous: pointer.previous,
        next: home.next_generation(pointer.current)?,
        target: production.release.clone(),
        target_versions: production.versions.clone(),
        target_ports: production.ports.clone(),
        migrate: Vec::new(),
        edit: (BTreeMap::new(), BTreeMap::new()),
        convert: BTreeMap::new(),
        cheap_base: shared || !precopy && bytes <= SMALL_BYTES,
        precopy,
        need_bytes: if shared { 0 } else { bytes * 2 },
        budget_ms: config.rollback.budget.as_millis(),
        watch_ms: config.rollback.watch.as_millis(),
        waiver: None,
        capture: config.rollback.capture == Capture::Continuous,
        carry: Some(found.generation),
        production,
    };
    Ok((facts, found))
}

/// What is carried by itself after a rollback, if the configuration says so: once for each generation that is left. `None` if
/// there is nothing to carry; why not, where it cannot be.
pub fn after_rollback(
    home: &Home,
    config: &Config,
    left_by: &Plan,
) -> Option<Result<PromoteFacts, EngineError>> {
    let generation = left_by.from_generation?;
    if config.rollback.writes != Writes::Carry || left_by.procedure != Procedure::Rollback {
        return None;
    }
    match is_due(home, generation) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(e) => return Some(Err(e)),
    }
    let found = World::open(config).and_then(|world| facts(home, config, &world, Some(generation), false));
    Some(found.map(|(facts, _)| facts))
}

/// Whether there are writes of a generation which nobody has tried to carry.
fn is_due(home: &Home, generation: GenerationId) -> Result<bool, EngineError> {
    if is_tried(home, generation) {
        return Ok(false);
    }
    exported(home, generation)?;
    Ok(left(home)?.into_iter().any(|l| l.generation == generation && l.writes > 0))
}

/// Whether somebody tried since the generation was left last: one that is left again has other writes.
fn is_tried(home: &Home, generation: GenerationId) -> bool {
    let by = left_by(home, generation);
    let for_it =
        |began: PathBuf| by.is_none() || read_json::<Began>(&began).is_ok_and(|began| began.rollback == by);
    fs::read_dir(home.export_dir(generation)).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        name == SETTLED
            || name.to_string_lossy().starts_with("carried-into-") && for_it(entry.path().join(BEGAN))
    })
}

/// Has nobody carry the writes of the generation that a rollback left without being asked. On a full disk, what was kept aside is for this: people would be
/// told of the same again and again.
pub fn settle(home: &Home, rolled: &Plan) -> Result<(), EngineError> {
    let Some(generation) = rolled.from_generation else { return Ok(()) };
    let mark = home.export_dir(generation).join(SETTLED);
    let write = || fs::write(&mark, "");
    write()
        .or_else(|e| if home.release_reserve() { write() } else { Err(e) })
        .map_err(crate::error::io("write", &mark))
}

/// The rollback whose later writes are to be carried by itself, and that nobody does it for: what should have, was killed.
pub fn pending(home: &Home, journal: &Journal) -> Result<Option<Plan>, EngineError> {
    // Asked every few seconds: mostly there is no export, or none whose writes anybody wants to have carried. One that is
    // damaged may have some.
    let there = |l: &Left| l.writes > 0 && !is_tried(home, l.generation);
    let damaged = |id: &GenerationId| exported(home, *id).is_err() && !is_tried(home, *id);
    if !left(home)?.iter().any(there) && !home.generation_ids()?.iter().any(damaged)
        || home.config().map_or(true, |config| config.rollback.writes != Writes::Carry)
    {
        return Ok(None);
    }
    let last = journal.newest_of(Procedure::switches, |run| journal.load(run).map(Some))?;
    let Some((plan, state, _)) = last else { return Ok(None) };
    let (Procedure::Rollback, Some(Outcome::Done), Some(from)) =
        (plan.procedure, &state.ended, plan.from_generation)
    else {
        return Ok(None);
    };
    let wanted = home.run_config(&plan.run)?.rollback.writes == Writes::Carry;
    // Where its export is damaged, whoever carries says so.
    Ok((wanted && is_due(home, from).unwrap_or(true)).then_some(plan))
}

/// How a generation came to be.
struct History {
    /// Whether the clone kept beside it is of before the upgrade's own changes.
    before_upgrade: bool,
    /// What the upgrade does to the data, from its last rehearsal; only if it led from the release that runs now.
    rehearsed: Option<BTreeMap<StoreName, StoreDiff>>,
}

fn history(
    journal: &Journal,
    generation: GenerationId,
    now: &Digest,
) -> Result<Option<History>, EngineError> {
    let mut made: Option<(Plan, bool)> = None;
    let makes = |p| matches!(p, Procedure::Promote | Procedure::Carry);
    let from = |run: &RunId| {
        let (plan, state, _) = journal.load(run)?;
        match &made {
            None => {
                if makes(plan.procedure) && plan.to_generation == Some(generation) {
                    let before = plan.steps.iter().any(|s| match &s.op {
                        Op::Base { instance, source } => instance != source,
                        _ => false,
                    });
                    made = Some((plan, before));
                }
            }
            Some((promoted, before_upgrade)) => {
                if promoted.procedure == Procedure::Carry {
                    return Ok(Some(None)); // nothing was migrated
                }
                let has = |release: &Digest| plan.instances.values().any(|i| i.release == *release);
                let target = release_of(promoted, promoted.to_generation);
                let rehearses = plan.procedure == Procedure::Rehearse
                    && has(now)
                    && target.as_ref().is_some_and(has)
                    && release_of(promoted, promoted.from_generation).as_ref() == Some(now);
                let diffs: Vec<_> = plan
                    .steps
                    .iter()
                    .filter(|s| rehearses && matches!(s.op, Op::Diff { .. }))
                    .filter_map(|s| state.output(&s.id))
                    .flat_map(|o| o.diffs.clone())
                    .collect();
                if !diffs.is_empty() {
                    let rehearsed = Some(diffs.into_iter().collect());
                    return Ok(Some(Some(History { before_upgrade: *before_upgrade, rehearsed })));
                }
            }
        }
        Ok(None)
    };
    if let Some(Some(found)) = journal.newest_of(|p| makes(p) || p == Procedure::Rehearse, from)? {
        return Ok(Some(found));
    }
    Ok(made.map(|(promoted, before)| match promoted.procedure {
        // Both sides have the same release: whatever differs was written by users.
        Procedure::Carry => History { before_upgrade: false, rehearsed: Some(BTreeMap::new()) },
        _ => History { before_upgrade: before, rehearsed: None },
    }))
}

fn release_of(plan: &Plan, generation: Option<GenerationId>) -> Option<Digest> {
    plan.instances
        .values()
        .find(|i| i.is_production() && Some(i.generation) == generation)
        .map(|i| i.release.clone())
}

/// The rules for each store: read once, since production waits meanwhile.
pub fn rules(
    home: &Home,
    left: GenerationId,
    now: &Digest,
) -> Result<impl Fn(&StoreName) -> Rules, EngineError> {
    let journal = Journal::open_read(&home.state().join("journal.db"))?;
    let found = journal.as_ref().map(|j| history(j, left, now)).transpose()?.flatten();
    Ok(move |store: &StoreName| match &found {
        None => Rules { touched: None, before_upgrade: true },
        Some(History { before_upgrade, rehearsed: None }) => {
            Rules { touched: None, before_upgrade: *before_upgrade }
        }
        Some(History { before_upgrade, rehearsed: Some(diffs) }) => match diffs.get(store) {
            Some(diff) => Rules::of(diff, *before_upgrade),
            None => Rules { touched: Some(BTreeMap::new()), before_upgrade: *before_upgrade },
        },
    })
}
