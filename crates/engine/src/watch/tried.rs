//! The watchdog's looks at an environment of staging, for the proof that it would end a trial.

use super::look::{Eye, Look, Marks};
use crate::checks::Suite;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::world::World;
use switchback_core::ids::RunId;
use switchback_core::trigger::{Before, Judge};

/// Looks in all, besides those that may fail in a row.
const LOOKS: u32 = 6;

/// What a watchdog would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It would have rolled back.
    Condemned {
        /// What for: a trigger, or probes in a row.
        by: String,
        /// What it saw.
        why: String,
    },
    /// It would have gone on.
    Spared,
    /// The first look was not good already.
    Ill(String),
}

/// Looks again and again, with something done before each look but the first, which may end it.
pub fn tried(
    world: &World,
    at: Placement<'_>,
    (suite, run): (&Suite, &RunId),
    between: &mut dyn FnMut() -> Result<bool, EngineError>,
) -> Result<Tried, EngineError> {
    let rules = &at.config.rollback;
    let mut judge = Judge::new(&rules.triggers, Before::default(), rules.watch.as_millis());
    let mut eye = Eye { home: at.home, world, placement: at, suite, run, marks: Marks::new(), looks: 0 };
    let mut failures = 0;
    for number in 0..=LOOKS + rules.failures {
        if number > 0 && between()? {
            break;
        }
        // A look that does not come about is no failure: the next one counts.
        let Look { ok, seen, sample, doubt } = match eye.look() {
            Ok(look) => look,
            Err(e) if number == 0 => return Ok(Tried::Ill(e.to_string())),
            Err(_) => continue,
        };
        if number == 0 && !ok {
            return Ok(Tried::Ill(doubt.unwrap_or_else(|| seen.join("; "))));
        }
        judge.look(sample);
        failures = match doubt {
            None if ok => 0,
            None => failures + 1,
            Some(_) => failures,
        };
        if let Some(trigger) = judge.condemned() {
            let by = format!("watchdog: {}", trigger.as_str());
            return Ok(Tried::Condemned { by, why: judge.why(trigger) });
        }
        if failures >= rules.failures {
            let by = format!("watchdog: {failures} probes in a row");
            return Ok(Tried::Condemned { by, why: seen.join("; ") });
        }
    }
    Ok(Tried::Spared)
}
