//! A promotion on the sandbox, later writes, and a rollback by command.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use super::{exports, recovery};
use crate::checks::{Suite, Target};
use crate::error::EngineError;
use crate::home::{Home, create_dir};
use crate::runtime::process::{Placement, health, read_back};
use crate::store::{self, Progress, Source};
use crate::world::World;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::config::{Config, Service};
use switchback_core::criteria::Phase;
use switchback_core::data::Fingerprint;
use switchback_core::duration::human_ms;
use switchback_core::ids::{Digest, GenerationId, RunId, ServiceName, StoreName};
use switchback_core::journal::Event;
use switchback_core::plan::CheckPhase;
use switchback_core::release::{Instance, Release};

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
        lab.rest(Phase::Rollback, &Verdict::NotRun { why: why.clone() });
        return Err(EngineError::refused(why, "see the phases staging, validation and database").into());
    }
    let config = lab.sandbox()?.desired.clone();
    by_command(lab, &config)?;
    recovery::automatic(lab, &config)?;
    recovery::failure(lab, &config)
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
pub fn runs(home: &Home, instance: &Instance) -> Result<Result<Vec<String>, Vec<String>>, EngineError> {
    let services = definitions(&home.release(&instance.release)?);
    read_back(home, instance, &services)
}

fn definitions(release: &Release) -> BTreeMap<ServiceName, Service> {
    release.services.iter().map(|(n, s)| (n.clone(), s.definition.clone())).collect()
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
    let files_promoted = config_files(&home, &old)?;
    let before_writes = snapshot(lab, &new, "before-writes")?;
    let results = use_it(lab, config, &new, &promoted.plan.run)?;
    let data_before = fingerprints(lab, &old)?;
    let (ran, outage) = rolled_back(lab, config, &old)?;
    let after = [
        timed(&ran),
        downtime(&ran, outage),
        data(&ran, &data_promoted, &data_before),
        configuration(&home, &ran, &old, &files_promoted)?,
        services(&home, &ran, &old)?,
        validated(&ran),
        exports::prove(lab, &ran, &new, &before_writes, &results)?,
    ];
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
            Some(Event::TrialConfirmed { probes }) => proof.measure("probes", probes).demand(
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
    let good = proof.verdict() == Verdict::Pass;
    lab.add(proof);
    if good {
        return Ok(ran);
    }
    let why = "the promotion on the sandbox did not succeed".to_owned();
    lab.rest(Phase::Rollback, &Verdict::NotRun { why: why.clone() });
    Err(EngineError::refused(why, "see promotion.trial").into())
}

/// Fingerprints of the stores of an instance on which nothing runs.
fn fingerprints(lab: &Lab<'_>, instance: &Instance) -> Result<BTreeMap<StoreName, Fingerprint>, Stop> {
    let scratch = folder(lab, "scratch")?;
    let mut found = BTreeMap::new();
    for (name, place) in &instance.stores {
        let path = Path::new(&place.path);
        if path.exists() {
            let source = Source::cold(path, &scratch);
            found.insert(name.clone(), store::fingerprint(place.kind, source, &Progress::none())?);
        }
    }
    Ok(found)
}

/// A folder beside the sandbox's stack for what verify itself keeps.
pub fn folder(lab: &Lab<'_>, name: &str) -> Result<PathBuf, EngineError> {
    let path = lab.sandbox()?.home.state().join("kept-by-verify").join(name);
    create_dir(&path)?;
    Ok(path)
}

/// Clones the stores of a running instance.
fn snapshot(lab: &Lab<'_>, instance: &Instance, name: &str) -> Result<BTreeMap<StoreName, PathBuf>, Stop> {
    let folder = folder(lab, name)?;
    let mut found = BTreeMap::new();
    for (name, place) in &instance.stores {
        let (from, to) = (Path::new(&place.path), folder.join(name.as_str()));
        if from.exists() {
            store::clone_live(place.kind, from, &to, &Progress::none())?;
            found.insert(name.clone(), to);
        }
    }
    Ok(found)
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
    let world = World::open(config)?;
    let target = Target {
        world: &world,
        placement: Placement { home, config, instance, release: &release },
        environment: "promoted".to_owned(),
        run: run.as_str(),
        run_dir: &run_dir,
        scratch: &scratch,
    };
    let cancelled = || lab.request.cancel.requested();
    Ok(suite.run(&[target], CheckPhase::Staging, &|_| {}, &cancelled)?)
}

/// Hashes of an instance's configuration files.
fn config_files(home: &Home, instance: &Instance) -> Result<BTreeMap<String, Option<Digest>>, EngineError> {
    let release = home.release(&instance.release)?;
    let work = home.instance_dir(instance).join("work");
    let read = |f: &String| std::fs::read(work.join(f)).ok().map(|c| Digest::of(&c));
    Ok(release.config.keys().map(|f| (f.clone(), read(f))).collect())
}

/// Rolls back while somebody from outside asks for the services' health.
fn rolled_back(lab: &Lab<'_>, config: &Config, old: &Instance) -> Result<(Ran, Option<u64>), Stop> {
    let home = lab.sandbox()?.home.clone();
    let release = home.release(&old.release)?;
    let services = definitions(&release);
    let placement = Placement { home: &home, config, instance: old, release: &release };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut seen: Vec<(Instant, bool)> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let ok = services.iter().all(|(n, s)| health::probe(&placement, n, s).ok);
                seen.push((Instant::now(), ok));
                std::thread::sleep(Duration::from_millis(10));
            }
            outage(&seen)
        });
        let ran = lab.roll_back(config, "verify: a rollback by command");
        stop.store(true, Ordering::Relaxed);
        let outage = looker.join().unwrap_or(None);
        Ok((ran?, outage))
    })
}

/// From the last good answer before the first bad one to the first good answer after the last bad one.
/// `None` where no outage was seen, or no end of it.
fn outage(seen: &[(Instant, bool)]) -> Option<u64> {
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
        proof.not_run("the stack has no data");
    }
    proof
}

fn configuration(
    home: &Home,
    ran: &Ran,
    old: &Instance,
    then: &BTreeMap<String, Option<Digest>>,
) -> Result<Proof, EngineError> {
    let mut proof = Proof::new(
        "rollback.configuration",
        "every configuration file of the old generation has the content that its release records, before and after; its definition is the stored one",
    )
    .of_run(&ran.plan.run);
    let release = home.release(&old.release)?;
    let now = config_files(home, old)?;
    for (file, wanted) in &release.config {
        for (when, seen) in [("before", then), ("after", &now)] {
            let same = seen.get(file).is_some_and(|d| d.as_ref() == Some(wanted));
            proof.demand(same, file, format!("it was not the recorded one {when} the rollback"));
        }
    }
    proof
        .measure("configuration files", release.config.len())
        .measure("release", old.release.short())
        .demand(release.id() == old.release, "release", "it is not what its name says")
        .demand(ran.done(), "rollback", ran.why());
    Ok(proof)
}

fn services(home: &Home, ran: &Ran, old: &Instance) -> Result<Proof, EngineError> {
    let mut proof = Proof::new(
        "rollback.services",
        "the processes that run and hold the ports are the old version's, and no other generation's",
    )
    .of_run(&ran.plan.run);
    let pointer = home.pointer()?.map(|p| p.current);
    proof.demand(pointer == Some(old.generation), "pointer", format!("it names {pointer:?}"));
    match runs(home, old)? {
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
    if ran.report.checks.is_empty() {
        proof.doubt("no check ran after the rollback");
    }
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
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_measured_from_the_last_good_to_the_next_good_answer() {
        let zero = Instant::now();
        let seen = |list: &[(u64, bool)]| {
            outage(&list.iter().map(|(ms, ok)| (zero + Duration::from_millis(*ms), *ok)).collect::<Vec<_>>())
        };
        assert_eq!(
            seen(&[(0, true), (10, false), (20, true), (30, false), (70, true), (80, true)]),
            Some(70)
        );
        assert_eq!(seen(&[(0, true), (10, true)]), None);
        assert_eq!(seen(&[(0, true), (10, false)]), None, "an outage without an end");
        assert_eq!(seen(&[]), None);
    }
}
