//! Who watches the watchdog: one that was killed is started again, and people are told.
//!
//! The keeper looks every few seconds, and so do the commands that a clock starts.

use super::{Due, due, ensure, holder, tell, trouble, wanted};
use crate::error::EngineError;
use crate::home::Home;
use std::time::{Duration, Instant};
use switchback_core::notify::Severity;

/// A watchdog that is being started holds its lock after this time, and one that goes home has gone.
const SETTLES: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Starts a watchdog where one is needed and none is there; true if it did.
pub fn guard(home: &Home) -> Result<bool, EngineError> {
    let until = Instant::now() + SETTLES;
    while holder(home).is_none() && wanted(home)? {
        if Instant::now() >= until {
            return again(home).map(|()| true);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(false)
}

/// The same, only for a trial: what a clock starts leaves a run that was interrupted by the end of the machine to a person.
pub fn ensure_of_trial(home: &Home) -> Result<bool, EngineError> {
    if holder(home).is_none() && matches!(due(home)?, Due::Trial(_)) { guard(home) } else { Ok(false) }
}

fn again(home: &Home) -> Result<(), EngineError> {
    let (what, run) = match due(home)? {
        Due::Trial(trial) => {
            let generation = trial.state.trial.as_ref().map_or(0, |t| t.generation.0);
            (format!("the trial of generation {generation}"), Some(trial.plan.run))
        }
        _ => ("a run that changes production".to_owned(), None),
    };
    let who = ensure(home)?;
    // One that could not do its work has said why; it was not killed.
    if trouble(home).is_some() {
        return Ok(());
    }
    let config = run.map_or_else(|| home.config(), |run| home.run_config(&run).or_else(|_| home.config()));
    if let Ok(config) = config {
        let title = format!("{what} had lost its watchdog; another one was started");
        let lines = [
            who,
            "the one before was killed: for want of memory, or at the end of a login session (`loginctl enable-linger`)"
                .to_owned(),
        ];
        tell(home, &config, Severity::Bad, "watchdog_restarted", title, &lines);
    }
    Ok(())
}
