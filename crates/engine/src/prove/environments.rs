//! The two environments that mutants are tried in: made, reset, and removed again.

use super::{Ground, PATIENCE, prove};
use crate::engine::{Cancel, Observer, RunEnd};
use crate::environments as known;
use crate::error::EngineError;
use crate::gather::Target;
use crate::home::Home;
use crate::runtime::Stage;
use crate::session::Session;
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use switchback_core::config::Config;
use switchback_core::environment::Environment;
use switchback_core::plan::{self, Plan};
use switchback_core::prove::{Proved, Row};

/// The environments that it makes and removes.
const OLD: &str = "prove-old";
const NEW: &str = "prove-new";

/// What is asked for.
pub struct Request<'a> {
    /// Only these mutants; all, if none is named.
    pub only: BTreeSet<String>,
    /// Repetitions of the controls.
    pub controls: usize,
    /// Ends it.
    pub cancel: &'a Cancel,
    /// Told of the steps.
    pub observe: Observer<'a>,
    /// Told what is being done.
    pub say: &'a dyn Fn(&str),
    /// Told each row when it is known.
    pub told: &'a dyn Fn(&Row),
}

struct Work<'a, 'h> {
    home: &'a Home,
    config: &'a Config,
    world: &'a World,
    session: RefCell<&'a mut Session<'h>>,
    request: &'a Request<'a>,
}

/// Tries the mutants on a stack; `None` if it was interrupted. The environments are gone afterwards, whatever happened.
pub fn on_stack(
    home: &Home,
    config: &Config,
    session: &mut Session<'_>,
    request: &Request<'_>,
) -> Result<Option<Proved>, EngineError> {
    let world = World::open(config)?;
    let work = Work { home, config, world: &world, session: RefCell::new(session), request };
    // What an earlier one left that was killed.
    work.down()?;
    let result = tried(&work);
    let removed = work.down();
    let proved = result?;
    removed?;
    Ok(proved)
}

fn tried(work: &Work<'_, '_>) -> Result<Option<Proved>, EngineError> {
    let Some(old) = work.up(OLD)? else { return Ok(None) };
    let Some(new) = work.up(NEW)? else { return Ok(None) };
    prove(&Ground {
        home: work.home,
        config: work.config,
        world: work.world,
        old: &old.instance,
        new: &new.instance,
        pristine: new.pristine.as_ref(),
        run: &new.run,
        only: work.request.only.clone(),
        controls: work.request.controls,
        reset: &|| work.reset(),
        say: work.request.say,
        told: work.request.told,
        cancelled: &|| work.request.cancel.requested(),
        limit: Cell::new(PATIENCE),
    })
}

impl Work<'_, '_> {
    fn carry_out(&self, plan: &Plan, cancel: &Cancel) -> Result<RunEnd, EngineError> {
        self.session.borrow_mut().carry_out(plan, self.config, cancel, self.request.observe)
    }

    /// Makes an environment of the release that runs; `None` if it was interrupted.
    fn up(&self, name: &str) -> Result<Option<Environment>, EngineError> {
        (self.request.say)(&format!("making {name}"));
        let target = Target::default();
        let mut facts =
            known::new_facts(self.home, self.config, self.world, name, &target, None, &Stage::quiet())?;
        // As in a rehearsal: what the checks ask for by name must be there, or they compare nothing.
        facts.rules.clear();
        match self.carry_out(&plan::staging_up(&facts), self.request.cancel)? {
            RunEnd::Interrupted => Ok(None),
            RunEnd::Ended(_) => match known::find(self.home, name)? {
                Some(environment) => Ok(Some(environment)),
                None => Err(EngineError::refused(
                    format!("{name} did not come up"),
                    format!("`switchback report {}` tells why", facts.environment.run),
                )),
            },
        }
    }

    /// Gives both their untouched data again: what a fault left in one would be a difference.
    fn reset(&self) -> Result<(), EngineError> {
        for name in [OLD, NEW] {
            let facts = known::facts_of(self.home, self.config, self.world, known::get(self.home, name)?)?;
            if facts.environment.pristine.is_some() {
                let plan = plan::staging_reset(&facts);
                self.carry_out(&plan, &Cancel::never())?;
            }
        }
        Ok(())
    }

    /// Removes both environments.
    fn down(&self) -> Result<(), EngineError> {
        for name in [OLD, NEW] {
            if let Some(found) = known::find(self.home, name)? {
                let facts = known::facts_of(self.home, self.config, self.world, found)?;
                self.carry_out(&plan::staging_down(&facts), &Cancel::never())?;
            }
        }
        Ok(())
    }
}
