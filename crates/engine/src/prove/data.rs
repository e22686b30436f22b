//! Faults in the data: what a migration does wrong. Made in the data of the new side's environment while nothing runs on it; the
//! untouched copy tells what it was.

use super::{Ground, State, judge, run};
use crate::data::Work;
use crate::error::EngineError;
use crate::exec::elapsed_ms;
use crate::ops::losses;
use crate::runtime::{Placement, Stage};
use crate::scratch::Scratch;
use crate::store::Progress;
use std::collections::BTreeMap;
use std::time::Instant;
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::prove::{Damage, Mutant, Outcome, Row};
use switchback_core::release::Instance;

use super::fault::Kind;

/// Stores with tables, in order of name.
fn databases(instance: &Instance) -> impl Iterator<Item = (&StoreName, StoreKind)> {
    let all = instance.stores.iter().map(|(name, place)| (name, place.kind));
    all.filter(|(_, kind)| *kind != StoreKind::Files)
}

/// Calls with the new side stopped on the data of its untouched copy. Afterwards it does not run.
fn on_untouched<T>(
    ground: &Ground<'_>,
    pristine: &Instance,
    work: impl FnOnce(&Placement<'_>, &Placement<'_>, &Scratch, &Work<'_>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let temp = ground.home.run_dir(ground.run).join("tmp");
    crate::home::create_dir(&temp)?;
    let release = ground.home.release(&ground.new.release)?;
    let at = |instance| Placement { home: ground.home, config: ground.config, instance, release: &release };
    let (from, to) = (at(pristine), at(ground.new));
    let scratch = Scratch::open(ground.home, &ground.new.dir)?
        .ok_or_else(|| EngineError::Internal { detail: format!("{} has no folder", ground.new.key()) })?;
    let stage = Stage { cancelled: ground.cancelled, ..Stage::quiet() };
    let progress = Progress::none();
    let working = Work { stage, progress: &progress, temp: &temp };
    ground.world.runtime.stop(&to, &stage)?;
    ground.world.data.refresh(&from, &to, CloneMode::Cold, &scratch, &working)?;
    work(&from, &to, &scratch, &working)
}

/// Names of tables of a store in which the upgrade may change anything, as in `checks.expected_changes`.
fn expected(ground: &Ground<'_>, store: &StoreName) -> Vec<String> {
    let prefix = format!("{store}.");
    let all = ground.config.checks.expected_changes.iter();
    let named = all.filter_map(|e| e.strip_prefix(prefix.as_str())).map(str::to_owned);
    named.chain(crate::ops::BOOKKEEPING.iter().map(|name| (*name).to_owned())).collect()
}

/// Damages the data, and compares it as a rehearsal compares what a migration made. What is left of the new side.
pub fn damaged(
    ground: &Ground<'_>,
    mutant: &Mutant,
    damage: Damage,
    row: &mut Row,
) -> Result<State, EngineError> {
    let Some(pristine) = usable(ground, mutant, row) else { return Ok(State::Clean) };
    let began = Instant::now();
    let results = on_untouched(ground, pristine, |was, is, scratch, work| {
        for (store, kind) in databases(pristine) {
            let not = expected(ground, store);
            let landed = ground.world.data.altering().damage(is, store, (damage, &not), scratch, work)?;
            row.landed += usize::try_from(landed).unwrap_or(usize::MAX);
            if landed > 0 {
                let diff = ground.world.data.diff(was, is, CloneMode::Cold, store, work)?;
                let failures = losses(store, kind, &diff, &ground.config.checks.expected_changes);
                let verdict = Verdict::from_failures(failures);
                return Ok(vec![result(
                    ground,
                    format!("integrity/{store}"),
                    CheckKind::Integrity,
                    verdict,
                    began,
                )]);
            }
        }
        Ok(Vec::new())
    })?;
    if row.landed == 0 {
        row.outcome = nothing(mutant, "no table has what it needs");
    } else {
        judge(mutant, &results, &ground.new.environment, row);
    }
    Ok(State::Stopped)
}

/// Damages the data so that the old version cannot work on it, and starts it there, as a rehearsal does to find out whether going
/// back without the data would do.
pub fn irreversible(
    ground: &Ground<'_>,
    mutant: &Mutant,
    damage: Damage,
    row: &mut Row,
) -> Result<State, EngineError> {
    let Some(pristine) = usable(ground, mutant, row) else { return Ok(State::Clean) };
    let began = Instant::now();
    let started = on_untouched(ground, pristine, |_, is, scratch, work| {
        for (store, _) in databases(pristine) {
            let landed = ground.world.data.altering().damage(is, store, (damage, &[]), scratch, work)?;
            row.landed += usize::try_from(landed).unwrap_or(usize::MAX);
        }
        Ok(if row.landed > 0 { Some(ground.world.runtime.start(is, &work.stage)) } else { None })
    })?;
    match started {
        None => row.outcome = nothing(mutant, "no table has what it needs"),
        Some(Ok(_)) => {
            let tried = run(ground, Kind::Nothing, Some(false), mutant.expects)?;
            judge(mutant, &tried.results, &ground.new.environment, row);
        }
        Some(Err(failed)) => {
            let reason = switchback_core::check::Failure {
                at: ground.new.environment.clone(),
                what: failed.error.message,
                ..Default::default()
            };
            let verdict = Verdict::Fail { reasons: vec![reason] };
            let seen = result(ground, "health/start".to_owned(), CheckKind::Health, verdict, began);
            judge(mutant, &[seen], &ground.new.environment, row);
        }
    }
    Ok(State::Stopped)
}

/// The untouched copy, if there is one and it has a database.
fn usable<'a>(ground: &Ground<'a>, mutant: &Mutant, row: &mut Row) -> Option<&'a Instance> {
    let Some(pristine) = ground.pristine else {
        row.outcome = nothing(mutant, "the environment has no untouched copy (staging.pristine)");
        return None;
    };
    if databases(pristine).next().is_none() {
        row.outcome = nothing(mutant, "no store is a database");
        return None;
    }
    Some(pristine)
}

fn nothing(mutant: &Mutant, why: &str) -> Outcome {
    Outcome::NotApplicable { why: why.to_owned(), advice: mutant.advice.to_owned() }
}

pub(super) fn result(
    ground: &Ground<'_>,
    id: String,
    kind: CheckKind,
    verdict: Verdict,
    began: Instant,
) -> CheckResult {
    CheckResult {
        looks: Vec::new(),
        id,
        kind,
        environment: ground.new.environment.clone(),
        verdict,
        took_ms: elapsed_ms(began),
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
    }
}
