//! Faults that no check of the stack is asked about: what watches a trial, tells settings apart, and judges times has to see them.

use super::live::{not_applicable, placement};
use super::{Ground, State};
use crate::checks::Suite;
use crate::error::EngineError;
use crate::ops::over_budget as judged;
use crate::runtime::Stage;
use crate::watch;
use std::time::{Duration, Instant};
use switchback_core::ids::ServiceName;
use switchback_core::prove::{Mutant, Outcome, Row};
use switchback_core::release::Release;

/// The longest that is waited for a service that was ended to be started again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that is waited for a service that does not end: nobody waits for the configured time.
const GRACE: Duration = Duration::from_secs(5);

/// The service that a person asks: the first with a health check over HTTP, else the first with a port.
fn asked(release: &Release) -> Option<&ServiceName> {
    let services = || release.services.iter().map(|(name, s)| (name, &s.definition));
    let health = services().find(|(_, s)| s.health.http.is_some());
    health.or_else(|| services().find(|(_, s)| !s.ports.is_empty())).map(|(name, _)| name)
}

/// Ends a service before each look of a watchdog but the first. What is left of the new side.
pub fn ending(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<State, EngineError> {
    let release = ground.home.release(&ground.new.release)?;
    let Some(name) = asked(&release) else {
        row.outcome = not_applicable(mutant, "no service has a port");
        return Ok(State::Clean);
    };
    let at = placement(ground, ground.config, &release);
    let suite = Suite::load(ground.home, ground.run, ground.config)?;
    let mut ended = 0;
    let seen = watch::tried(ground.world, at, (&suite, ground.run), &mut || {
        ended += ground.world.runtime.end(&at, name)?;
        std::thread::sleep(AGAIN);
        Ok((ground.cancelled)())
    })?;
    row.landed = ended;
    row.outcome = match seen {
        watch::Tried::Ill(why) => {
            Outcome::Unviable { why: format!("it is not well before anything is done: {why}") }
        }
        _ if ended == 0 => Outcome::Unviable { why: format!("{name} could not be ended") },
        watch::Tried::Condemned { by, why } => Outcome::Caught { by, why },
        watch::Tried::Spared => Outcome::Survived { instead: Vec::new(), advice: mutant.advice.to_owned() },
    };
    Ok(State::Stopped)
}

/// Compares the settings of the release with those of the same one without a variable.
pub fn lacking(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<(), EngineError> {
    let release = ground.home.release(&ground.new.release)?;
    let runtime = &ground.world.runtime;
    let Some((what, told)) = runtime.lacking(ground.home, (&ground.new.release, &release))? else {
        row.outcome = not_applicable(mutant, "no service has a variable of the stack's");
        return Ok(());
    };
    row.landed = 1;
    row.outcome = match told.into_iter().find(|line| line.contains(&what)) {
        Some(why) => Outcome::Caught { by: "settings".to_owned(), why },
        None => Outcome::Survived { instead: Vec::new(), advice: mutant.advice.to_owned() },
    };
    Ok(())
}

/// Stops and starts the new side as a rollback does, first as it is, then with a service that does not end when it is told to;
/// the budget is in between. What is left of it.
pub fn over_budget(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<State, EngineError> {
    let mut release = ground.home.release(&ground.new.release)?;
    let Some(name) = asked(&release).cloned() else {
        row.outcome = not_applicable(mutant, "no service has a port");
        return Ok(State::Clean);
    };
    for service in release.services.values_mut() {
        let grace = &mut service.definition.stop.grace.0;
        *grace = (*grace).min(GRACE);
    }
    let grace_ms = release.services.get(&name).map_or(0, |s| s.definition.stop.grace.as_millis());
    let at = placement(ground, ground.config, &release);
    let stage = Stage { cancelled: ground.cancelled, ..Stage::quiet() };
    let rolled = || -> Result<(u64, bool), EngineError> {
        let began = Instant::now();
        let stopped = ground.world.runtime.stop(&at, &stage)?;
        let started = ground.world.runtime.start(&at, &stage);
        started.map_err(|f| EngineError::refused(f.error.message, "see the logs of its services"))?;
        Ok((crate::exec::elapsed_ms(began), stopped.services.get(&name).is_some_and(|s| s.killed)))
    };
    let (plain_ms, _) = rolled()?;
    if let Some(e) = judged(plain_ms, ground.config.rollback.budget.as_millis()) {
        row.outcome = Outcome::Unviable { why: format!("without a fault: {e}") };
        return Ok(State::Used);
    }
    row.landed = ground.world.runtime.deaf(&at, &name)?;
    let (took_ms, killed) = rolled()?;
    row.outcome = match judged(took_ms, plain_ms + grace_ms / 2) {
        _ if row.landed == 0 || !killed => Outcome::Unviable { why: format!("{name} ended all the same") },
        Some(e) => Outcome::Caught { by: "rollback.budget".to_owned(), why: e.to_string() },
        None => Outcome::Survived { instead: Vec::new(), advice: mutant.advice.to_owned() },
    };
    Ok(State::Used)
}
