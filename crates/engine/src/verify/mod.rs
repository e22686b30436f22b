//! The acceptance run: every phase on a copy of a stack, and the evidence that comes of it.
//!
//! Owns the order of the phases and what each proves. It drives the real procedures on a sandbox stack
//! and never touches production but for one snapshot. What was not observed is never evidence.

mod apart;
mod backups;
mod carried;
mod certificate;
mod database;
pub mod docs;
mod environment;
mod exports;
mod ground;
mod lab;
mod ledger;
mod locks;
#[cfg(test)]
mod made_up;
mod mutants;
pub mod mutate;
mod production;
mod progress;
mod proof;
mod recovery;
mod rollback;
mod sandbox;
mod staging;
mod trends;
mod validation;
mod versions;

use crate::engine::{Cancel, Observer, now_ms};
use crate::error::EngineError;
use crate::home::Home;
use crate::lock::Lock;
use crate::world::World;
use lab::Lab;
use progress::Kept;
use proof::{Proof, Stop};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::criteria::{Catalogue, Judgement, Matrix, Phase, Subject, judge};
use switchback_core::ids::{Digest, RunId, ServiceName};
use switchback_core::release::describe_change;
use switchback_core::report::Report;

/// Writes the report files of a run and returns the report.
pub type WriteReport<'a> = &'a dyn Fn(&Home, &RunId) -> Result<Report, EngineError>;

/// What is asked of an acceptance run.
pub struct Request<'a> {
    /// Versions to try instead of the configured ones.
    pub versions: BTreeMap<ServiceName, String>,
    /// The phases to run.
    pub phases: BTreeSet<Phase>,
    /// Whether to go on after the last phase that ended, where a run was interrupted.
    pub resume: bool,
    /// Whether the sandbox's folder stays.
    pub keep: bool,
    /// The folder of the matrix; the runs' files are copied below it.
    pub output: PathBuf,
    /// Makes the stack of the example in a (new) folder, for the examples of the documentation; `true` for a trial that is still
    /// running when somebody looks.
    pub example: &'a dyn Fn(&Path, bool) -> Result<(), EngineError>,
    /// The folder of the documentation, if there is one.
    pub docs: Option<PathBuf>,
    /// What the documentation must mention.
    pub reference: docs::Reference,
    /// The criteria.
    pub catalogue: &'a Catalogue,
    /// The program's name and version.
    pub tool: &'a str,
    /// Asked within long work.
    pub cancel: &'a Cancel,
    /// Told what the procedures do.
    pub observe: Observer<'a>,
    /// Told about phases, one line each.
    pub say: &'a dyn Fn(&str),
    /// Writes the report of a run.
    pub write_report: WriteReport<'a>,
}

/// Runs the phases and judges the criteria; `None` if it was interrupted (everything is cleaned up then too, but for what was
/// proved so far).
pub fn run(home: &Home, config: &Config, request: &Request<'_>) -> Result<Option<Matrix>, EngineError> {
    sandbox::folder(home)?;
    let _one = lock(home)?;
    sandbox::remove_leftovers(home, config.runtime)?;
    let ground = ground::open(config.runtime)?;
    let world = World::open(config)?;
    let basis = progress::basis(home, config, request, ground.as_ref())?;
    let kept = begin(home, request, basis)?;
    let started_at_ms = kept.started_at_ms;
    let mut lab = Lab::new(home, config, request, (ground.as_ref(), &world), kept);
    let result = phases(&mut lab);
    // Whatever happened: the runs' files are kept, and nothing of the sandbox stays.
    let kept = lab.keep_runs();
    lab.dispose();
    match result {
        Ok(()) => {}
        Err(Stop::Interrupted) => return Ok(None),
        Err(Stop::Error(e)) => return Err(e),
    }
    kept?;
    progress::forget(home)?;
    lab.footprint_after();
    lab.full_run();
    let (from, to) = lab.versions();
    let subject = Subject {
        stack: config.stack.clone(),
        change: describe_change(&from, &to),
        from,
        to,
        tool: request.tool.to_owned(),
        host: crate::host_name(),
        started_at_ms,
        ended_at_ms: now_ms(),
        notes: lab.notes.clone(),
    };
    Ok(Some(judge(request.catalogue, lab.evidence(), subject)))
}

/// What is gone on with: nothing, unless that is asked for and an earlier run kept something that fits.
fn begin(home: &Home, request: &Request<'_>, basis: Digest) -> Result<Kept, EngineError> {
    if request.resume {
        match progress::read(home, &basis) {
            Ok(mut kept) => {
                let ended: Vec<&str> = kept.ended.iter().map(|p| p.as_str()).collect();
                let ended = ended.join(", ");
                (request.say)(&format!("going on after {ended}"));
                kept.notes.push(format!(
                    "The run was interrupted and gone on with. Before that ended: {ended}; the others ran on a new sandbox."
                ));
                return Ok(kept);
            }
            Err(why) => (request.say)(&format!("nothing to go on with, so it begins anew: {why}")),
        }
    }
    progress::forget(home)?;
    Ok(Kept::new(basis))
}

/// One acceptance run at a time.
fn lock(home: &Home) -> Result<Lock, EngineError> {
    Lock::take(&home.state().join("verify.lock"), "verify", Duration::ZERO)
}

/// Sandboxes that a killed acceptance run left, and their size; none while one runs.
pub fn leftovers(home: &Home) -> Result<Vec<PathBuf>, EngineError> {
    if !home.state().is_dir() || lock(home).is_err() {
        return Ok(Vec::new());
    }
    sandbox::leftovers(home)
}

/// Ends and removes what a killed acceptance run left, wherever it is.
pub fn remove_leftovers(home: &Home, config: &Config) -> Result<(), EngineError> {
    let _one = lock(home)?;
    sandbox::remove_leftovers(home, config.runtime)
}

type PhaseFn = fn(&mut Lab<'_>) -> Result<(), Stop>;

fn phases(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let sandboxed: [(Phase, PhaseFn); 5] = [
        (Phase::Staging, staging::prove),
        (Phase::Validation, validation::prove),
        (Phase::Database, database::prove),
        (Phase::Certificate, certificate::prove),
        (Phase::Rollback, rollback::prove),
    ];
    if sandboxed.iter().any(|(phase, _)| lab.wants(*phase)) {
        // Without a sandbox there is nothing to say about any of them: that is an error of this run.
        lab.say("sandbox: copying the stack");
        lab.make_sandbox()?;
        lab.say("sandbox: starting it and rehearsing the upgrade");
        match lab.set_up() {
            Ok(()) => {
                for (phase, prove) in sandboxed {
                    one(lab, phase, prove)?;
                }
            }
            Err(Stop::Interrupted) => return Err(Stop::Interrupted),
            Err(Stop::Error(e)) => {
                lab.say(&format!("✗ sandbox: {e}"));
                let mut proof = Proof::new("staging.deployed", "the stack runs healthy in a sandbox");
                proof.demand(false, "sandbox", e.to_string());
                lab.add(proof);
                let why = format!("there was no rehearsal: {e}");
                for (phase, _) in sandboxed {
                    lab.rest(phase, &Judgement::NotRun { why: why.clone() });
                }
            }
        }
    }
    one(lab, Phase::Documentation, docs::prove)
}

/// Runs one phase; an error of it leaves the rest of its evidence inconclusive.
fn one(lab: &mut Lab<'_>, phase: Phase, prove: PhaseFn) -> Result<(), Stop> {
    if !lab.asked(phase) {
        lab.rest(phase, &Judgement::NotRun { why: format!("the phase {} was left out", phase.as_str()) });
        return Ok(());
    }
    if !lab.wants(phase) {
        lab.say(&format!("{}: ended before the interruption", phase.as_str()));
        return Ok(());
    }
    lab.say(&format!("{}: running", phase.as_str()));
    match prove(lab) {
        Ok(()) => {
            lab.ended.push(phase);
            lab.keep_progress()?;
        }
        Err(Stop::Interrupted) => return Err(Stop::Interrupted),
        Err(Stop::Error(e)) => {
            let why = format!("the phase {} could not be finished: {e}", phase.as_str());
            lab.say(&format!("{}: {e}", phase.as_str()));
            lab.rest(phase, &Judgement::Inconclusive { why });
        }
    }
    lab.say(&lab.summary(phase));
    Ok(())
}
