//! Faults that no check of the stack is asked about: what watches a trial, tells settings apart, and judges times has to see them.

use super::live::{not_applicable, placement};
use super::{Ground, State};
use crate::checks::Suite;
use crate::error::EngineError;
use crate::ops::over_budget as judged;
use crate::runtime::Stage;
use crate::watch;
use std::time::{Duration, Instant};
use switchback_core::duration::Span;
use switchback_core::ids::ServiceName;
use switchback_core::prove::{Mutant, Outcome, Row};
use switchback_core::release::Release;

/// The longest that is waited for a service that was ended to be started again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that is waited for a service that does not end: nobody waits for the configured time.
const GRACE: Span = Span::secs(5);

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

/// How long the new side took to stop and to start again.
struct Rolled {
    stop_ms: u64,
    start_ms: u64,
    /// Whether the service that was meant had to be killed.
    killed: bool,
}

/// Why a rollback with a service that does not end is not good enough, if the budget is half of the wait longer than it would have
/// taken without. A start that takes longer another time, as on a busy machine, makes no difference.
fn spoiled(plain: &Rolled, deaf: &Rolled) -> Option<EngineError> {
    judged(deaf.stop_ms + deaf.start_ms, plain.stop_ms + deaf.start_ms + GRACE.as_millis() / 2)
}

/// Stops and starts the new side as a rollback does, first as it is, then with a service that does not end when it is told to;
/// the budget is in between. What is left of it.
pub fn over_budget(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<State, EngineError> {
    let mut release = ground.home.release(&ground.new.release)?;
    let Some(name) = asked(&release).cloned() else {
        row.outcome = not_applicable(mutant, "no service has a port");
        return Ok(State::Clean);
    };
    for (other, service) in &mut release.services {
        let grace = &mut service.definition.stop.grace;
        // The wait for the one that is meant has to stand out from what stopping takes otherwise.
        *grace = if *other == name { GRACE } else { (*grace).min(GRACE) };
    }
    let at = placement(ground, ground.config, &release);
    let stage = Stage { cancelled: ground.cancelled, ..Stage::quiet() };
    let rolled = || -> Result<Rolled, EngineError> {
        let began = Instant::now();
        let stopped = ground.world.runtime.stop(&at, &stage)?;
        let (stop_ms, began) = (crate::exec::elapsed_ms(began), Instant::now());
        let started = ground.world.runtime.start(&at, &stage);
        started.map_err(|f| EngineError::refused(f.error.message, "see the logs of its services"))?;
        let killed = stopped.services.get(&name).is_some_and(|s| s.killed);
        Ok(Rolled { stop_ms, start_ms: crate::exec::elapsed_ms(began), killed })
    };
    let plain = rolled()?;
    if let Some(e) = judged(plain.stop_ms + plain.start_ms, ground.config.rollback.budget.as_millis()) {
        row.outcome = Outcome::Unviable { why: format!("without a fault: {e}") };
        return Ok(State::Used);
    }
    row.landed = ground.world.runtime.deaf(&at, &name)?;
    let deaf = rolled()?;
    row.outcome = match spoiled(&plain, &deaf) {
        _ if row.landed == 0 || !deaf.killed => {
            Outcome::Unviable { why: format!("{name} ended all the same") }
        }
        Some(e) => Outcome::Caught { by: "rollback.budget".to_owned(), why: e.to_string() },
        None => Outcome::Survived { instead: Vec::new(), advice: mutant.advice.to_owned() },
    };
    Ok(State::Used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_does_not_end_spoils_a_rollback_however_long_it_takes_to_start() {
        let rolled = |stop_ms, start_ms| Rolled { stop_ms, start_ms, killed: true };
        for start_ms in [2_000, 20_000, 60_000] {
            let why = spoiled(&rolled(3_000, 30_000), &rolled(7_500, start_ms)).expect("too long");
            assert!(why.to_string().contains("the budget is"), "{why}");
            assert!(spoiled(&rolled(3_000, 30_000), &rolled(4_000, start_ms)).is_none());
        }
    }
}
