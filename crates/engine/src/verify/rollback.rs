//! A promotion on the sandbox, later writes, and a rollback by command.

use super::lab::{Fingerprints, Lab, Ran};
use super::proof::{Proof, Stop};
use super::{apart, carried, exports, recovery, trends};
use crate::checks::{Suite, Target};
use crate::error::EngineError;
use crate::home::create_dir;
use crate::runtime::Placement;
use crate::scratch::Scratch;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::config::Config;
use switchback_core::criteria::{Judgement, Phase};
use switchback_core::data::Fingerprint;
use switchback_core::duration::human_ms;
use switchback_core::ids::{Digest, GenerationId, RunId, StoreName};
use switchback_core::journal::Event;
use switchback_core::plan::{CheckPhase, CloneMode, stores_in};
use switchback_core::release::{Instance, Shared};

/// The acceptance criterion's limit, whatever the stack's own budget is.
pub const LIMIT_MS: u64 = 5 * 60 * 1000;
/// What a trial of some seconds may need in all on a busy host.
pub const TRIAL_ENDS: Duration = Duration::from_secs(60);
/// Starting and ending the steps around stop and start.
const OVERHEAD_MS: u64 = 500;

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    if !lab.rehearsed()?.done() {
        let why = "the rehearsal issued no certificate, so nothing was promoted".to_owned();
        lab.rest(Phase::Rollback, &Judgement::NotRun { why: why.clone() });
        return Err(EngineError::refused(why, "see the phases staging, validation and database").into());
    }
    let config = lab.sandbox()?.desired.clone();
    by_command(lab, &config)?;
    recovery::automatic(lab, &config)?;
    recovery::failure(lab, &config)?;
    apart::prove(lab, &config)?;
    let proof = trends::prove(lab)?;
    lab.add(proof);
    Ok(())
}

/// The generation that the sandbox's pointer names, and the one that a rollback returns to.
pub fn generations(lab: &Lab<'_>) -> Result<(Instance, Option<Instance>), EngineError> {
    let home = &lab.sandbox()?.home;
    let pointer = home
        .pointer()?
        .ok_or_else(|| EngineError::Internal { detail: "the sandbox has no pointer".to_owned() })?;
    let previous = pointer.previous.map(|p| home.generation(p)).transpose()?;
    Ok((home.generation(pointer.current)?.instance, previous.map(|g| g.instance)))
}

/// Confirms that exactly this instance runs.
pub fn runs(lab: &Lab<'_>, instance: &Instance) -> Result<Result<Vec<String>, Vec<String>>, Stop> {
    lab.placed(instance, |at, _| lab.world.runtime.read_back(at))
}

fn by_command(lab: &mut Lab<'_>, config: &Config) -> Result<(), Stop> {
    let promoted = promotion(lab, config)?;
    let (new, old) = generations(lab)?;
    let Some(old) = old else {
        return Err(
            EngineError::Internal { detail: "a promotion without a previous generation".to_owned() }.into()
        );
    };
    let home = lab.sandbox()?.home.clone();
    let data_promoted = fingerprints(lab, &old)?;
    let files_promoted = lab.ground.config_now(&home, &old)?;
    let before_writes = keep(lab, &new, "before-writes", CloneMode::Live)?;
    let results = use_it(lab, config, &new, &promoted.plan.run)?;
    let data_before = fingerprints(lab, &old)?;
    let (ran, outage) = rolled_back(lab, config, &old)?;
    let after = [
        timed(&ran),
        downtime(&ran, outage),
        data(&ran, &data_promoted, &data_before),
        configuration(lab, &ran, &old, &files_promoted)?,
        services(lab, &ran, &old)?,
        validated(&ran),
        exports::prove(lab, &ran, &new, &before_writes.instance, &results)?,
        carried::prove(lab, config, &ran, &new, &old)?,
    ];
    before_writes.remove(lab)?;
    for proof in after {
        lab.add(proof);
    }
    Ok(())
}

fn promotion(lab: &mut Lab<'_>, config: &Config) -> Result<Ran, Stop> {
    let mut proof = Proof::new(
        "promotion.trial",
        "the promotion was done with a certificate, and its watched trial was confirmed by the detached watchdog",
    );
    let ran = lab.promote(config)?;
    proof.runs.push(ran.plan.run.clone());
    if ran.done() {
        let ended = lab.wait_trial(&ran.plan.run, TRIAL_ENDS)?;
        match &ended {
            Some(Event::TrialConfirmed { probes, .. }) => proof.measure("probes", probes).demand(
                *probes > 0,
                "trial",
                "it was confirmed without a probe",
            ),
            Some(other) => proof.demand(false, "trial", format!("it was not confirmed: {other:?}")),
            None => proof.demand(false, "trial", "it did not end; the watchdog is gone"),
        };
        proof.measure("trial", config.rollback.watch);
        if let Some(ms) = ran.report.times.downtime_ms {
            proof.measure("downtime of the promotion", human_ms(ms));
        }
    } else {
        proof.demand(false, "promotion", ran.why());
    }
    let good = proof.verdict() == Judgement::Pass;
    lab.add(proof);
    if good {
        return Ok(ran);
    }
    let why = "the promotion on the sandbox did not succeed".to_owned();
    lab.rest(Phase::Rollback, &Judgement::NotRun { why: why.clone() });
    Err(EngineError::refused(why, "see promotion.trial").into())
}

/// A folder beside the sandbox's stack for what verify itself keeps.
pub fn folder(lab: &Lab<'_>, name: &str) -> Result<PathBuf, EngineError> {
    let path = lab.sandbox()?.home.state().join("kept-by-verify").join(name);
    create_dir(&path)?;
    Ok(path)
}

/// The data of an instance as it is at one moment, kept aside.
pub struct Kept {
    /// It as an instance on which nothing ever runs.
    pub instance: Instance,
    scratch: Scratch,
}

/// Clones the stores of an instance.
fn keep(lab: &Lab<'_>, of: &Instance, name: &str, mode: CloneMode) -> Result<Kept, Stop> {
    let home = &lab.sandbox()?.home;
    let dir = format!("staging/kept-by-verify/{name}");
    let scratch = Scratch::create(home, &dir)?;
    let folder = home.instance_dir(&Instance { dir: dir.clone(), ..of.clone() });
    let prefix = of.project.as_deref().unwrap_or_default();
    let instance = Instance {
        environment: "kept-by-verify".to_owned(),
        stores: stores_in(&of.stores, &folder.to_string_lossy(), prefix, name),
        ports: BTreeMap::new(),
        dir,
        shared: Shared::default(),
        ..of.clone()
    };
    let release = home.release(&of.release)?;
    lab.placed(of, |from, work| {
        let to = Placement { instance: &instance, release: &release, ..*from };
        lab.world.data.clone(from, &to, mode, &scratch, work).map(drop)
    })?;
    Ok(Kept { instance, scratch })
}

impl Kept {
    /// Removes it.
    fn remove(self, lab: &Lab<'_>) -> Result<(), Stop> {
        lab.world.data.discard(&lab.sandbox()?.home, &self.instance, &self.scratch)?;
        Ok(self.scratch.remove()?)
    }
}

/// Fingerprints of the stores of an instance on which nothing runs.
///
/// A database server that is started for reading writes to its data: it gets a clone.
pub fn fingerprints(lab: &Lab<'_>, instance: &Instance) -> Result<Fingerprints, Stop> {
    if instance.stores.values().all(|s| s.mount.is_none()) {
        return lab.fingerprints(instance, CloneMode::Cold);
    }
    let kept = keep(lab, instance, "to-be-read", CloneMode::Cold)?;
    let found = lab.fingerprints(&kept.instance, CloneMode::Cold);
    kept.remove(lab)?;
    found
}

/// Runs every check once, those that write included, on what was promoted.
fn use_it(
    lab: &Lab<'_>,
    config: &Config,
    instance: &Instance,
    run: &RunId,
) -> Result<Vec<CheckResult>, Stop> {
    let home = &lab.sandbox()?.home;
    let release = home.release(&instance.release)?;
    let suite = Suite::load(home, run, config)?;
    let (run_dir, scratch) = (home.run_dir(run), folder(lab, "scratch")?);
    let target = Target {
        world: lab.world,
        placement: Placement { home, config, instance, release: &release },
        environment: "promoted".to_owned(),
        run: run.as_str(),
        run_dir: &run_dir,
        scratch: &scratch,
        through: None,
    };
    let cancelled = || lab.request.cancel.requested();
    Ok(suite.run(&[target], CheckPhase::Staging, &|_| {}, &cancelled)?)
}

/// Rolls back while somebody from outside asks for the services' health.
fn rolled_back(lab: &Lab<'_>, config: &Config, old: &Instance) -> Result<(Ran, Option<u64>), Stop> {
    let home = lab.sandbox()?.home.clone();
    let release = home.release(&old.release)?;
    let placement = Placement { home: &home, config, instance: old, release: &release };
    let (stop, good) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut seen: Vec<(Instant, bool)> = Vec::new();
            let mut ended: Option<Instant> = None;
            // To a good answer: the last probe may have waited for a service that was not there yet.
            while ended.is_none_or(|at| !seen.last().is_some_and(|s| s.1) && at.elapsed() < TRIAL_ENDS) {
                let ok = release.services.keys().all(|n| lab.world.runtime.probe(&placement, n).ok);
                seen.push((Instant::now(), ok));
                good.fetch_or(ok, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
                if ended.is_none() && stop.load(Ordering::Relaxed) {
                    ended = Some(Instant::now());
                }
            }
            outage(&seen)
        });
        // An outage has a beginning: what was used a moment ago may not answer at once.
        let began = Instant::now();
        while !good.load(Ordering::Relaxed) && began.elapsed() < TRIAL_ENDS {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ran = lab.roll_back(config, "verify: a rollback by command");
        stop.store(true, Ordering::Relaxed);
        let outage = looker.join().unwrap_or(None);
        Ok((ran?, outage))
    })
}

/// From the last good answer before the first bad one to the first good answer after the last bad one; what was bad before anything was
/// good is no part of it. `None` where no outage was seen, or no end of it.
fn outage(seen: &[(Instant, bool)]) -> Option<u64> {
    let seen = seen.get(seen.iter().position(|(_, ok)| *ok)?..)?;
    let first_bad = seen.iter().position(|(_, ok)| !ok)?;
    let last_bad = seen.iter().rposition(|(_, ok)| !ok)?;
    let from = seen.get(first_bad.checked_sub(1)?)?.0;
    let to = seen.get(last_bad + 1)?.0;
    u64::try_from(to.duration_since(from).as_millis()).ok()
}

fn timed(ran: &Ran) -> Proof {
    let times = &ran.report.times;
    let limit = times.budget_ms.min(LIMIT_MS);
    let mut proof = Proof::new(
        "rollback.timed",
        format!("from the command to read back, within {} (the budget, at most 5 minutes)", human_ms(limit)),
    )
    .of_run(&ran.plan.run);
    proof.measure("budget", human_ms(times.budget_ms)).demand(ran.done(), "rollback", ran.why());
    if let Some(ms) = times.rollback_ms {
        proof.measure("rollback", human_ms(ms));
    }
    proof.demand_known(times.rollback_ms, |ms| *ms <= limit, "rollback", "it took longer than its limit");
    proof
}

fn downtime(ran: &Ran, outage: Option<u64>) -> Proof {
    let took = |id: &str| ran.report.steps.iter().find(|s| s.id == id).and_then(|s| s.took_ms);
    let parts = took("stop-new").zip(took("start-old"));
    let mut proof = Proof::new(
        "rollback.downtime",
        "the outage, asked for from outside every 10 ms, is no longer than stopping the one and starting the other version takes: nothing is copied in it",
    )
    .of_run(&ran.plan.run);
    if let Some(ms) = outage {
        proof.measure("outage seen from outside", human_ms(ms));
    }
    if let Some(ms) = ran.report.times.rollback_downtime_ms {
        proof.measure("outage as reported", human_ms(ms));
    }
    if let Some((stop, start)) = parts {
        proof.measure("stop and start", format!("{} + {}", human_ms(stop), human_ms(start)));
    }
    proof.demand_known(
        outage.zip(parts),
        |(outage, (stop, start))| *outage <= stop + start + OVERHEAD_MS && *outage <= LIMIT_MS,
        "outage",
        "it was longer than stopping and starting takes",
    );
    proof
}

fn data(
    ran: &Ran,
    promoted: &BTreeMap<StoreName, Fingerprint>,
    before: &BTreeMap<StoreName, Fingerprint>,
) -> Proof {
    let mut proof = Proof::new(
        "rollback.data",
        "the old generation's fingerprint after the promotion and right before the rollback are equal: what was returned to is what was left",
    )
    .of_run(&ran.plan.run);
    for (store, one) in promoted {
        let other = before.get(store);
        let other_short = other.map_or("nothing", |o| o.digest.short());
        proof.measure(
            store.as_str(),
            format!("{} then, {other_short} now, {} items", one.digest.short(), one.items),
        );
        proof.demand(
            other.is_some_and(|o| o.digest == one.digest),
            store.as_str(),
            "the old data was changed",
        );
    }
    proof.demand(ran.done(), "rollback", ran.why());
    if promoted.is_empty() {
        proof.not_applicable("the stack has no data");
    }
    proof
}

fn configuration(
    lab: &Lab<'_>,
    ran: &Ran,
    old: &Instance,
    then: &BTreeMap<String, Option<Digest>>,
) -> Result<Proof, EngineError> {
    let sandbox = lab.sandbox()?;
    let home = &sandbox.home;
    let mut proof = Proof::new(
        "rollback.configuration",
        format!(
            "every configuration file of the old generation has the content that its release records, before and after; its definition is the stored one{}",
            lab.ground.words().configuration
        ),
    )
    .of_run(&ran.plan.run);
    let release = home.release(&old.release)?;
    let now = lab.ground.config_now(home, old)?;
    lab.ground.running_configuration(home, &sandbox.current, old, &mut proof)?;
    same_files(&mut proof, &release.config, then, &now);
    proof
        .measure("configuration files", release.config.len())
        .measure("release", old.release.short())
        .demand(release.id() == old.release, "release", "it is not what its name says")
        .demand(ran.done(), "rollback", ran.why());
    Ok(proof)
}

/// Demands that every recorded file had its content before and after.
fn same_files(
    proof: &mut Proof,
    recorded: &BTreeMap<String, Digest>,
    then: &BTreeMap<String, Option<Digest>>,
    now: &BTreeMap<String, Option<Digest>>,
) {
    for (file, wanted) in recorded {
        for (when, seen) in [("before", then), ("after", now)] {
            let same = seen.get(file).is_some_and(|d| d.as_ref() == Some(wanted));
            proof.demand(same, file, format!("it was not the recorded one {when} the rollback"));
        }
    }
}

fn services(lab: &Lab<'_>, ran: &Ran, old: &Instance) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "rollback.services",
        format!(
            "the {} that run and hold the ports are the old version's, and no other generation's",
            lab.ground.words().many
        ),
    )
    .of_run(&ran.plan.run);
    let pointer = lab.sandbox()?.home.pointer()?.map(|p| p.current);
    proof.demand(pointer == Some(old.generation), "pointer", format!("it names {pointer:?}"));
    match runs(lab, old)? {
        Ok(lines) => {
            for (index, line) in lines.iter().enumerate() {
                proof.measure(format!("read back {}", index + 1), line);
            }
            proof.demand(!lines.is_empty(), "read back", "nothing was compared");
        }
        Err(differences) => {
            proof.demand(false, "read back", differences.join("; "));
        }
    }
    Ok(proof)
}

fn validated(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "rollback.validated",
        "the rollback itself ran the health checks and every check that is safe on production; all passed",
    )
    .of_run(&ran.plan.run);
    for check in &ran.report.checks {
        proof.measure(&check.id, check.verdict.word());
        match &check.verdict {
            Verdict::Pass => proof.demand(true, &check.id, ""),
            Verdict::Fail { .. } => proof.demand(false, &check.id, "it failed after the rollback"),
            other => proof.doubt(format!("{}: {}", check.id, other.word())),
        };
    }
    let beyond = ran.report.checks.iter().filter(|c| c.kind != CheckKind::Health).count();
    proof.measure("checks beyond health", beyond);
    proof.demand(!ran.report.checks.is_empty(), "checks", "none ran after the rollback");
    proof
}

/// A rollback that somebody else than the command line began after this promotion.
pub fn rollback_after(lab: &Lab<'_>, promoted: &Ran) -> Result<Option<RunId>, EngineError> {
    let journal = lab.journal()?;
    for run in journal.runs(5)? {
        let (plan, state, _) = journal.load(&run)?;
        let left: Option<GenerationId> = promoted.plan.to_generation;
        if plan.procedure == switchback_core::plan::Procedure::Rollback
            && plan.from_generation == left
            && run > promoted.plan.run
        {
            return Ok(state.ended.is_some().then_some(run));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "rollback_tests.rs"]
mod tests;
