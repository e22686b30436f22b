//! Faults in what runs: a hog or a leak beside a service, a service that stands still, a migration that hangs, a way to production.

use super::fault::Kind;
use super::{Ground, State, judge, run};
use crate::checks::{Target, attacked};
use crate::error::EngineError;
use crate::runtime::{Placement, Stage};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckResult, Verdict};
use switchback_core::config::Config;
use switchback_core::duration::Span;
use switchback_core::ids::ServiceName;
use switchback_core::prove::{Beside, Mutant, Outcome, Row};
use switchback_core::release::Release;

/// Keeps a processor busy until its input ends: it must not outlive the proof, also where only the engine could end it.
const BUSY: &str = "while :; do :; done & p=$!; cat > /dev/null; kill $p; wait $p";
/// Takes 2 MiB each twentieth of a second, half a gigabyte at most, until its input ends: what is to come last has to be kept.
const GROWING: &str = "(n=0; while kill -0 $$ 2> /dev/null; do n=$((n + 1)); [ $n -gt 256 ] || head -c 2097152 /dev/zero; \
    sleep 0.05; done | tail -c 600000000 > /dev/null) & cat > /dev/null";
/// How long a program is looked at before it counts as running.
const SETTLES: Duration = Duration::from_millis(400);
/// The deadline of a migration that hangs: nobody waits for the configured one.
const DEADLINE: Duration = Duration::from_secs(3);

pub(super) fn not_applicable(mutant: &Mutant, why: &str) -> Outcome {
    Outcome::NotApplicable { why: why.to_owned(), advice: mutant.advice.to_owned() }
}

/// A program beside the service whose performance is compared; ended when this goes away.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // The end of its input ends what it started, in whatever container that is.
        drop(self.0.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the checks of performance with a program beside the service that they ask.
pub fn beside(ground: &Ground<'_>, mutant: &Mutant, what: Beside, row: &mut Row) -> Result<(), EngineError> {
    let Some(check) = ground.config.checks.performance.first() else {
        row.outcome = not_applicable(mutant, "there is no check of performance");
        return Ok(());
    };
    let release = ground.home.release(&ground.new.release)?;
    let at = placement(ground, ground.config, &release);
    // It must be seen for what it is: a leak that was only slow would not be known as one.
    let (script, word) = match what {
        Beside::Busy => (BUSY, "processor time"),
        Beside::Growing => (GROWING, "memory"),
    };
    let words = ["sh", "-c", script].map(str::to_owned);
    let unviable = |why: String| Outcome::Unviable { why };
    let mut command = match ground.world.runtime.beside(&at, &check.service, &words) {
        Ok(command) => command,
        Err(e) => {
            row.outcome = unviable(e.to_string());
            return Ok(());
        }
    };
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut program = match child {
        Ok(child) => Program(child),
        Err(e) => {
            row.outcome = unviable(format!("nothing can be run beside {}: {e}", check.service));
            return Ok(());
        }
    };
    std::thread::sleep(SETTLES);
    if !matches!(program.0.try_wait(), Ok(None)) {
        row.outcome = unviable(format!("nothing can be run beside {}: it has no shell", check.service));
        return Ok(());
    }
    row.landed = 1;
    let tried = run(ground, Kind::Nothing, Some(true), mutant.expects);
    drop(program);
    let mut results = tried?.results;
    results.iter_mut().for_each(|result| only(result, word));
    judge(mutant, &results, &ground.new.environment, row);
    Ok(())
}

/// Keeps the reasons that have a word in them.
fn only(result: &mut CheckResult, word: &str) {
    if let Verdict::Fail { reasons } = &mut result.verdict {
        reasons.retain(|r| r.what.contains(word));
        if reasons.is_empty() {
            result.verdict = Verdict::Pass;
        }
    }
}

pub(super) fn placement<'a>(
    ground: &'a Ground<'_>,
    config: &'a Config,
    release: &'a Release,
) -> Placement<'a> {
    Placement { home: ground.home, config, instance: ground.new, release }
}

/// A service on which others depend and that nobody asks from outside; else one on which others depend.
fn worker(release: &Release) -> Option<&ServiceName> {
    let services = || release.services.iter().map(|(name, s)| (name, &s.definition));
    let needed = |name: &ServiceName| services().any(|(_, s)| s.needs.contains(name));
    let asked = |name: &ServiceName| services().any(|(n, s)| n == name && s.health.http.is_some());
    if release.services.len() < 2 {
        return None;
    }
    let names = || services().map(|(name, _)| name);
    names().find(|n| !asked(n)).or_else(|| names().find(|n| needed(n)))
}

/// Runs the checks while a service stands still. What is left of the new side.
pub fn still(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<State, EngineError> {
    let release = ground.home.release(&ground.new.release)?;
    let Some(name) = worker(&release) else {
        row.outcome = not_applicable(mutant, "no service works for another one");
        return Ok(State::Clean);
    };
    let at = placement(ground, ground.config, &release);
    row.landed = ground.world.runtime.still(&at, name, true)?;
    let tried = run(ground, Kind::Nothing, Some(false), mutant.expects);
    ground.world.runtime.still(&at, name, false)?;
    if row.landed == 0 {
        row.outcome = Outcome::Unviable { why: format!("{name} does not run") };
    } else {
        judge(mutant, &tried?.results, &ground.new.environment, row);
    }
    Ok(State::Used)
}

/// Runs a migration that never ends, with a short deadline. What is left of the new side.
pub fn hanging(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<State, EngineError> {
    let mut release = ground.home.release(&ground.new.release)?;
    let migrates = release.services.iter_mut().find(|(_, s)| !s.definition.migrate.is_empty());
    let Some((name, service)) = migrates else {
        row.outcome = not_applicable(mutant, "no service has a migration command");
        return Ok(State::Clean);
    };
    let name = name.clone();
    service.definition.migrate = ["sleep", "3600"].map(str::to_owned).to_vec();
    service.definition.migrate_deadline = Span(DEADLINE);
    let at = placement(ground, ground.config, &release);
    let began = Instant::now();
    let ended =
        ground.world.runtime.migrate(&at, &name, &Stage { cancelled: ground.cancelled, ..Stage::quiet() })?;
    row.landed = usize::from(began.elapsed() >= DEADLINE);
    row.outcome = if ended.timed_out {
        Outcome::Caught { by: format!("migrate_deadline of {name}"), why: ended.how }
    } else {
        Outcome::Unviable { why: format!("it could not be made to hang: {}", ended.how) }
    };
    Ok(State::Stopped)
}

/// Attacks the new side while there is a way from it to production.
pub fn exposed(ground: &Ground<'_>, mutant: &Mutant, row: &mut Row) -> Result<(), EngineError> {
    let release = ground.home.release(&ground.new.release)?;
    let run_dir = ground.home.run_dir(ground.run);
    let target = Target {
        world: ground.world,
        placement: placement(ground, ground.config, &release),
        environment: ground.new.environment.clone(),
        run: ground.run.as_str(),
        run_dir: &run_dir,
        scratch: &run_dir,
        through: None,
    };
    let began = Instant::now();
    let ended = ground.world.runtime.attack_exposed(&target.placement)?;
    match attacked(&target, Ok(ended), began) {
        None => row.outcome = not_applicable(mutant, "production has nothing that it could be connected to"),
        Some(result) => {
            row.landed = 1;
            judge(mutant, &[result], &ground.new.environment, row);
        }
    }
    Ok(())
}
