//! What there is to do when nobody asks: a change of what is desired is rehearsed, and promoted as far as the policy allows.
//!
//! It decides; the command line carries out. It never goes on with what a person has to look at: an unfinished run, a trial, a
//! release that production was taken back from before.

use crate::error::EngineError;
use crate::gather::{self, Target};
use crate::home::{Home, read_json, write_json};
use crate::journal::Journal;
use crate::outdated;
use crate::runtime::Stage;
use crate::session::Session;
use crate::taken_back::{Asked, refuse_what_failed};
use crate::watch;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use switchback_core::config::Config;
use switchback_core::ids::{Digest, RunId};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::{Plan, Procedure};

/// What there is to do.
#[derive(Debug)]
pub enum Found {
    /// Nothing, and why.
    Nothing(String),
    /// A change that was not tried yet.
    Rehearse(Box<Plan>),
    /// A change that has a certificate, and the versions that are not in the configuration yet.
    Ready(Box<Plan>, Target),
}

/// Looks what there is to do.
pub fn look(session: &Session<'_>, config: &Config, stage: &Stage<'_>) -> Result<Found, EngineError> {
    if let Some(trial) = watch::current(&session.journal)? {
        let generation = trial.state.trial.as_ref().map_or(0, |t| t.generation.0);
        return Ok(Found::Nothing(format!("generation {generation} is on trial")));
    }
    let mut target = Target::default();
    let world = World::open(config)?;
    // What a person wants comes first.
    if !gather::differs(session.home, config, &world, &target, stage)? {
        let (versions, problems) = outdated::followed(session.home, config, &world, stage)?;
        if versions.is_empty() {
            let mut why = "production runs exactly what switchback.yaml says".to_owned();
            if !problems.is_empty() {
                why = format!("{why}; what is newer is not known: {}", problems.join("; "));
            } else if !config.promotion.follow.is_empty() {
                why.push_str(", and nothing that it follows is newer");
            }
            return Ok(Found::Nothing(why));
        }
        let (_, production) = gather::production(session.home, config, &world)?;
        // A stop that is demanded comes first; the next look goes on from there.
        target.versions = crate::path::next_step(config, &production.versions, &versions);
    }
    let certified = session.plan_promotion(config, &target, None, stage);
    let plan = match certified {
        Ok(plan) => plan,
        // Without a certificate, above all; what else stands in the way does so for a rehearsal too.
        Err(EngineError::Refused { .. }) => session.plan_rehearsal(config, &target, stage)?,
        Err(e) => return Err(e),
    };
    match refuse_what_failed(&session.journal, &plan, Asked::ByClock) {
        Ok(()) => {}
        Err(e @ EngineError::Refused { .. }) => {
            let again = "`switchback promote --again` promotes it all the same";
            return Ok(Found::Nothing(format!("{e}; {again}")));
        }
        Err(e) => return Err(e),
    }
    if plan.procedure == Procedure::Promote {
        return Ok(Found::Ready(Box::new(plan), target));
    }
    match refused_before(&session.journal, &plan)? {
        Some(run) => Ok(Found::Nothing(format!(
            "run {run} refused exactly this change; `switchback rehearse` tries it again"
        ))),
        None => Ok(Found::Rehearse(Box::new(plan))),
    }
}

/// The releases that a rehearsal is from and to.
fn releases(plan: &Plan) -> Option<(&Digest, &Digest)> {
    let production = plan.instances.values().find(|i| i.is_production())?;
    let new = plan.instances.values().find(|i| i.release != production.release)?;
    Some((&production.release, &new.release))
}

/// The last rehearsal of exactly this change, if it refused it. Its data may have changed since; only a person can tell whether
/// that matters.
fn refused_before(journal: &Journal, plan: &Plan) -> Result<Option<RunId>, EngineError> {
    for record in journal.of_kind("ended")?.into_iter().rev() {
        let Event::Ended { outcome } = &record.event else { continue };
        let (earlier, ..) = journal.load(&record.run)?;
        if earlier.procedure != Procedure::Rehearse || releases(&earlier) != releases(plan) {
            continue;
        }
        return Ok(matches!(outcome, Outcome::Refused { .. }).then_some(record.run));
    }
    Ok(None)
}

/// What people were told already, so that a clock does not tell it again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    what: String,
}

fn file(home: &Home) -> PathBuf {
    home.state().join("auto.json")
}

/// Whether this is news; from now on it is not.
pub fn is_news(home: &Home, what: &str) -> Result<bool, EngineError> {
    let path = file(home);
    let told: Told = if path.exists() { read_json(&path)? } else { Told::default() };
    if told.what == what {
        return Ok(false);
    }
    write_json(&path, &Told { what: what.to_owned() })?;
    Ok(true)
}
