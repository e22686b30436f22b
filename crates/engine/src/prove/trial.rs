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

/// Stops and starts the new side as a rollback does, and judges the time by a budget of half of it. What is left of it.
pub fn over_budget(ground: &Ground<'_>, row: &mut Row) -> Result<State, EngineError> {
    let release = ground.home.release(&ground.new.release)?;
    let at = placement(ground, ground.config, &release);
    let stage = Stage { cancelled: ground.cancelled, ..Stage::quiet() };
    let began = Instant::now();
    ground.world.runtime.stop(&at, &stage)?;
    if let Err(failed) = ground.world.runtime.start(&at, &stage) {
        row.outcome = Outcome::Unviable { why: failed.error.message };
        return Ok(State::Stopped);
    }
    let took_ms = crate::exec::elapsed_ms(began);
    row.landed = 1;
    row.outcome = if let Some(e) = judged(took_ms, ground.config.rollback.budget.as_millis()) {
        Outcome::Unviable { why: format!("without a fault: {e}") }
    } else {
        match judged(took_ms, took_ms / 2) {
            Some(e) => Outcome::Caught { by: "rollback.budget".to_owned(), why: e.to_string() },
            None => Outcome::Survived { instead: Vec::new(), advice: "set rollback.budget".to_owned() },
        }
    };
    Ok(State::Used)
}
