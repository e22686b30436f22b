//! The state: journal, runs, generations, and whether a rollback would work.

use super::Findings;
use std::fs;
use std::path::Path;
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::duration::human_ms;
use switchback_core::ids::GenerationId;
use switchback_core::journal::Record;
use switchback_core::plan::Procedure;
use switchback_core::release::{Generation, Instance, MountPlace, Pointer, Release};
use switchback_engine::engine::{now_ms, production_down};
use switchback_engine::error::EngineError;
use switchback_engine::gather::artefact_digest;
use switchback_engine::home::Home;
use switchback_engine::journal::Journal;
use switchback_engine::left::unexported;
use switchback_engine::lock::Lock;
use switchback_engine::runtime::Placement;
use switchback_engine::runtime::compose::lock_drift;
use switchback_engine::watch;
use switchback_engine::world::World;

/// A difference between clock and journal that people's time servers make.
const CLOCK_SLACK_MS: i64 = 2_000;

/// The runtime of the current generation, where the configuration cannot say it.
pub fn runtime(home: &Home) -> Option<RuntimeKind> {
    let generation = home.generation(home.pointer().ok()??.current).ok()?;
    Some(if generation.instance.project.is_some() { RuntimeKind::Compose } else { RuntimeKind::Process })
}

/// What generations are looked at with.
struct View<'a> {
    home: &'a Home,
    config: &'a Config,
    world: &'a World,
}

impl View<'_> {
    fn at<'b>(&'b self, instance: &'b Instance, release: &'b Release) -> Placement<'b> {
        Placement { home: self.home, config: self.config, instance, release }
    }
}

/// Looks at the state; `reached` says whether what runs the services can be asked.
pub fn look(home: &Home, config: Option<&Config>, reached: bool, findings: &mut Findings) {
    if !home.state().is_dir() {
        findings.ok("started", "not started by Switchback yet; `switchback up` does it");
        return;
    }
    let busy = Lock::holder(&home.state().join("lock"));
    if let Some(holder) = &busy {
        findings.ok("busy", format!("a run is going on: {holder}"));
    }
    let journal = match Journal::open_read(&home.state().join("journal.db")) {
        Ok(journal) => journal,
        Err(e) => {
            findings.error("journal", &e);
            None
        }
    };
    if let Some(journal) = &journal {
        match journal.all() {
            Ok(records) => sound(&records, findings),
            Err(e) => findings.error("journal", &e),
        }
        tell(runs(home, journal, busy.is_some(), findings), "unfinished", findings);
    }
    let stand_in = config.cloned().or_else(|| stand_in(home));
    // Why it cannot be opened was said with the host.
    let world = stand_in.as_ref().filter(|_| reached).map(World::open).transpose().unwrap_or_default();
    if let (None, Some(world)) = (&busy, &world) {
        tell(staging(home, world, findings), "staging", findings);
    }
    let pointer = match home.pointer() {
        Ok(pointer) => pointer,
        Err(e) => return findings.error("generations", &e),
    };
    let Some(pointer) = pointer else {
        findings.ok("started", "not started by Switchback yet; `switchback up` does it");
        return;
    };
    if let Some(config) = config {
        super::backups::look(home, config, findings);
    }
    let stopped = journal.as_ref().is_some_and(|j| stopped(j).unwrap_or(false));
    match (&stand_in, &world) {
        (Some(config), Some(world)) => {
            let view = View { home, config, world };
            tell(current(&view, &pointer, stopped, busy.is_some(), findings), "current", findings);
            tell(rollback(&view, &pointer, findings), "rollback", findings);
        }
        _ => findings.warning(
            "current",
            "what runs, and whether a rollback would find everything, could not be looked at",
            "see what is said about the host above",
        ),
    }
    tell(kept(home, config, &pointer, findings), "generations", findings);
}

/// A configuration for looking at generations where the present one is broken: that of the run that made the last.
fn stand_in(home: &Home) -> Option<Config> {
    let generation = home.generation(home.pointer().ok()??.current).ok()?;
    home.run_config(&generation.created_by).ok()
}

fn tell(result: Result<(), EngineError>, id: &'static str, findings: &mut Findings) {
    if let Err(e) = result {
        findings.error(id, &e);
    }
}

fn sound(records: &[Record], findings: &mut Findings) {
    findings.ok("journal", format!("the journal is sound: {} events, chained", records.len()));
    let Some(last) = records.last() else { return };
    let behind = last.at_ms - now_ms();
    if behind > CLOCK_SLACK_MS {
        findings.problem(
            "clock",
            format!("the clock is {} behind the last event", human_ms(behind.unsigned_abs())),
            "set the clock: trials and certificates end by it",
        );
    }
}

fn runs(home: &Home, journal: &Journal, busy: bool, findings: &mut Findings) -> Result<(), EngineError> {
    if !busy && let Some(run) = journal.unfinished()?.pop() {
        let (plan, state, _) = journal.load(&run)?;
        let down = if production_down(&plan, &state) { "; production is DOWN" } else { "" };
        findings.problem(
            "unfinished",
            format!("the {} {run} was interrupted and is not finished{down}", plan.procedure.as_str()),
            "`switchback resume` goes on with it, `switchback resume --abort` undoes it",
        );
    }
    let Some(trial) = watch::current(journal)? else { return Ok(()) };
    let generation = trial.state.trial.map_or(GenerationId(0), |t| t.generation);
    match watch::holder(home) {
        Some(holder) => {
            findings.ok("trial", format!("generation {generation} is on trial, watched ({holder})"));
        }
        None => findings.problem(
            "trial",
            format!("generation {generation} is on trial and nobody watches it"),
            "`switchback resume` starts the watchdog again",
        ),
    }
    Ok(())
}

fn staging(home: &Home, world: &World, findings: &mut Findings) -> Result<(), EngineError> {
    let kept = switchback_engine::environments::dirs(home)?;
    let left = world.runtime.left_below(home, "staging/", &kept)?;
    let folders = fs::read_dir(home.state().join("staging")).map_or(0, |d| {
        let known = |name: &std::ffi::OsStr| kept.contains(&format!("staging/{}", name.to_string_lossy()));
        d.flatten().filter(|e| !known(&e.file_name())).count()
    });
    if !left.is_empty() {
        let shown: Vec<&str> = left.iter().take(5).map(String::as_str).collect();
        let more = if left.len() > shown.len() { ", ..." } else { "" };
        findings.warning(
            "staging",
            format!(
                "{} is left of a staging environment although no run is going on{more}",
                shown.join(", ")
            ),
            "`switchback gc` stops and removes it",
        );
    } else if folders > 0 {
        findings.warning(
            "staging",
            format!("{folders} staging environment(s) were left behind"),
            "`switchback gc` removes them",
        );
    }
    Ok(())
}

/// Whether the last thing that was done to production was stopping it.
fn stopped(journal: &Journal) -> Result<bool, EngineError> {
    for run in journal.runs(20)? {
        let (plan, state, _) = journal.load(&run)?;
        match plan.procedure {
            procedure if procedure.is_aside() => {}
            procedure => return Ok(procedure == Procedure::Down && state.ended.is_some()),
        }
    }
    Ok(false)
}

fn current(
    view: &View<'_>,
    pointer: &Pointer,
    stopped: bool,
    busy: bool,
    findings: &mut Findings,
) -> Result<(), EngineError> {
    let home = view.home;
    let generation = home.generation(pointer.current)?;
    let release = home.release(&generation.instance.release)?;
    let id = pointer.current;
    complete(view, &generation, &release, "artefact", findings)?;
    let at = view.at(&generation.instance, &release);
    if view.config.runtime == RuntimeKind::Compose && !busy {
        lock(&at, findings)?;
    }
    if view.world.runtime.running(home, &generation.instance)?.is_empty() {
        if stopped {
            findings.ok("current", format!("generation {id} is stopped, as asked for"));
        } else if !busy {
            findings.problem(
                "current",
                format!("generation {id} is production's and does not run"),
                "`switchback up` starts it",
            );
        }
        return Ok(());
    }
    match view.world.runtime.read_back(&at)? {
        Ok(_) => findings.ok("current", format!("generation {id} runs, and only it")),
        // A promotion or rollback that is going on may be anywhere in between.
        Err(_) if busy => {}
        Err(differences) => {
            for difference in differences {
                findings.problem("current", difference, "`switchback status`; the service's log tells why");
            }
        }
    }
    let unwell = view.world.runtime.observe(&at)?.into_iter().filter(|(_, seen)| seen.running && !seen.well);
    for (name, seen) in unwell.filter(|_| !busy) {
        findings.problem("health", format!("{name}: {}", seen.state), "the service's log tells why");
    }
    Ok(())
}

/// Whether plain `docker compose up` would start the current generation.
fn lock(at: &Placement<'_>, findings: &mut Findings) -> Result<(), EngineError> {
    let drift = lock_drift(at)?;
    for difference in &drift {
        findings.problem(
            "lock",
            difference.clone(),
            "`switchback up` writes it again; until then do not use `docker compose up`: it could start other images, or the data of another generation",
        );
    }
    if drift.is_empty() {
        findings.ok("lock", "lock file and .env are those of the current generation");
    }
    Ok(())
}

/// Reports what of a generation is missing or not as recorded; whether all of it is there.
fn complete(
    view: &View<'_>,
    generation: &Generation,
    release: &Release,
    id: &'static str,
    findings: &mut Findings,
) -> Result<bool, EngineError> {
    let number = generation.instance.generation;
    let at = view.at(&generation.instance, release);
    let mut whole = true;
    let mut bad = |message: String, advice: &str| {
        whole = false;
        findings.problem(id, message, advice);
    };
    for (name, place) in &generation.instance.stores {
        if !view.world.data.exists(&at, name)? {
            let lies = match place.mount.as_ref().map(|m| &m.at) {
                None => place.path.clone(),
                Some(MountPlace::Volume(volume)) => format!("the volume {volume}"),
                Some(MountPlace::Dir(path)) => path.clone(),
            };
            bad(
                format!("generation {number}: the data of {name} is gone: {lies}"),
                "restore it from a backup",
            );
        }
    }
    for gone in view.world.runtime.missing(&at)? {
        bad(
            format!("generation {number}: the {gone} is gone"),
            "install, pull or build the same version again",
        );
    }
    for (name, service) in &release.services {
        let Some(artefact) = &service.artefact else { continue };
        let path = Path::new(&artefact.path);
        if path.exists() && artefact_digest(path)? != artefact.digest {
            bad(
                format!("generation {number}: the release of {name} is not what it was: {}", artefact.path),
                "something changed it since; install exactly that version again",
            );
        }
    }
    let work = view.home.instance_dir(&generation.instance).join("work");
    if view.config.runtime == RuntimeKind::Process && !work.is_dir() {
        bad(format!("generation {number}: its working folder is gone"), "restore .switchback from a backup");
    }
    Ok(whole)
}

fn rollback(view: &View<'_>, pointer: &Pointer, findings: &mut Findings) -> Result<(), EngineError> {
    let Some(previous) = pointer.previous else {
        findings.ok("rollback", "there is no previous generation to roll back to; a promotion makes one");
        return Ok(());
    };
    let generation = view.home.generation(previous)?;
    let release = view.home.release(&generation.instance.release)?;
    if complete(view, &generation, &release, "rollback", findings)? {
        findings
            .ok("rollback", format!("generation {previous} is complete: a rollback would find everything"));
    }
    Ok(())
}

fn kept(
    home: &Home,
    config: Option<&Config>,
    pointer: &Pointer,
    findings: &mut Findings,
) -> Result<(), EngineError> {
    let mut readable = 0;
    let ids = home.generation_ids()?;
    for id in &ids {
        match home.generation(*id) {
            Ok(_) => readable += 1,
            Err(e) => findings.error("generations", &e),
        }
    }
    if readable == ids.len() {
        findings.ok("generations", format!("{readable} generation(s) are kept, all readable"));
    }
    // A fault here is one of a generation, which was reported above.
    for id in unexported(home).unwrap_or_default() {
        findings.warning(
            "unexported",
            format!("what was written to generation {id} before the rollback is not exported; it is kept until then"),
            format!("`switchback export {id}` does it; `switchback gc --lose-writes-of {id}` gives it up"),
        );
    }
    if let Some(config) = config {
        let spare = ids.iter().filter(|id| **id != pointer.current && Some(**id) != pointer.previous).count();
        if spare > config.retention.generations as usize + 1 {
            findings.warning(
                "retention",
                format!("{spare} generations are kept besides the current and the previous one"),
                "`switchback gc --dry-run` shows what can go",
            );
        }
    }
    Ok(())
}
