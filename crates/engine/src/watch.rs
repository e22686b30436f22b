//! The watchdog: owns every trial, outlives the command line, rolls back by itself.
//!
//! Success is earned: only a trial whose last probe was good passes at its deadline. What the watchdog
//! cannot see (its own errors) never counts as health.

mod back;
mod capture;
mod guard;
mod kept;
mod look;
mod tried;
mod trouble;

pub use guard::{ensure_of_trial, guard};
pub use kept::samples;
pub use look::{before, keep_before, mark_logs, observe_before};
pub use tried::{Tried, tried};
pub use trouble::{WatchdogTrouble, trouble};

use crate::carry;
use crate::checks::Suite;
use crate::engine::{Cancel, Observer, now_ms};
use crate::error::{EngineError, io};
use crate::fault::{self, Gap, gap};
use crate::home::Home;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::notify;
use crate::runtime::Placement;
use crate::runtime::process::start::own_program;
use crate::world::World;
use back::{guarded, roll_back, take_over};
use look::Eye;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use switchback_core::config::{Action, Config};
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, RunState};
use switchback_core::notify::Severity;
use switchback_core::plan::Plan;
use switchback_core::release::describe_change;
use switchback_core::trigger::{Change, Judge, Standing};
use trouble::Troubles;

/// The hidden command that becomes the watchdog.
pub const WATCH_VERB: &str = "__watchdog";

/// Looks in a row that came to nothing (not failures: the watchdog could not see, or not everything) before it says that it is blind.
const BLIND_AFTER: u32 = 4;

/// A trial that is running.
pub struct Trial {
    /// The promotion.
    pub plan: Plan,
    /// Where it stands.
    pub state: RunState,
}

/// The trial that is running, if one is.
pub fn current(journal: &Journal) -> Result<Option<Trial>, EngineError> {
    let Some(last) = journal.of_kind("trial_began")?.pop() else { return Ok(None) };
    let (plan, state, _) = journal.load(&last.run)?;
    Ok(state.on_trial().then_some(Trial { plan, state }))
}

fn lock_path(home: &Home) -> std::path::PathBuf {
    home.state().join("watchdog.lock")
}

/// Who watches, if anybody does.
pub fn holder(home: &Home) -> Option<String> {
    Lock::holder(&lock_path(home))
}

/// Starts a detached watchdog unless one runs; returns what is known of it.
pub fn ensure(home: &Home) -> Result<String, EngineError> {
    if let Some(holder) = holder(home) {
        return Ok(holder);
    }
    spawn(home)?;
    // It is a watchdog only once it holds its lock.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(holder) = holder(home) {
            return Ok(holder);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(EngineError::Internal {
        detail: "the watchdog did not come up; see .switchback/watchdog.log".to_owned(),
    })
}

/// Starts a detached watchdog and does not wait for it; one too many ends by itself.
pub fn spawn(home: &Home) -> Result<(), EngineError> {
    let path = home.state().join("watchdog.log");
    let log = OpenOptions::new().append(true).create(true).open(&path).map_err(io("open", &path))?;
    let second = log.try_clone().map_err(io("open", &path))?;
    let program = own_program();
    let mut child = Command::new(&program)
        .arg0("switchback-watchdog")
        .arg(WATCH_VERB)
        .arg(home.root())
        .env_remove(crate::runtime::process::table::MARKER)
        // A fault meant for the command line is not meant for who takes over from it.
        .env_remove("SWITCHBACK_FAULT")
        .env_remove("SWITCHBACK_FAULT_FAIL")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        .spawn()
        .map_err(io("start", &program))?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Watches until no trial is running. Returns at once if another watchdog watches.
pub fn watch(home: &Home, cancel: &Cancel, observe: Observer<'_>) -> Result<(), EngineError> {
    // Fails only where this process already leads its group, as in the foreground.
    let _ = rustix::process::setsid();
    loop {
        let own = match Lock::take(&lock_path(home), "watchdog", Duration::ZERO) {
            Ok(lock) => lock,
            Err(EngineError::Busy { .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        // Whoever notices if this process is killed. That it cannot be started keeps nobody from watching.
        let _ = crate::keeper::spawn(home);
        watch_while(home, cancel, observe)?;
        drop(own);
        // Whoever saw the lock in the moment before relies on this watchdog.
        if cancel.requested() || matches!(due(home)?, Due::Nothing) {
            return Ok(());
        }
    }
}

/// Whether there is anything for a watchdog to do.
pub fn wanted(home: &Home) -> Result<bool, EngineError> {
    Ok(!matches!(due(home)?, Due::Nothing))
}

/// What there is for a watchdog.
enum Due {
    /// A trial that is running.
    Trial(Box<Trial>),
    /// A run that somebody should be working on, or what should have followed a rollback.
    Run,
    /// Nothing.
    Nothing,
}

/// Looks for runs before trials: a promotion that ends between the two looks has begun its trial before, so that one of
/// them sees it. The other way round both could miss it.
fn due(home: &Home) -> Result<Due, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else {
        return Ok(Due::Nothing);
    };
    let run = guarded(&journal)?;
    fault::slow("watchdog-looks");
    Ok(match (current(&journal)?, run) {
        (Some(trial), _) => Due::Trial(Box::new(trial)),
        (None, Some(_)) => Due::Run,
        (None, None) if carry::pending(home, &journal)?.is_some() => Due::Run,
        (None, None) => Due::Nothing,
    })
}

fn watch_while(home: &Home, cancel: &Cancel, observe: Observer<'_>) -> Result<(), EngineError> {
    let troubles = Troubles::new(home);
    loop {
        let went = due(home).and_then(|due| match due {
            Due::Trial(trial) => {
                let watch = || watch_one(home, &trial, &troubles, cancel, observe);
                capture::meanwhile(home, &trial, cancel, watch).map(|()| Some(true))
            }
            Due::Run => take_over(home, &troubles, cancel, observe).map(Some),
            Due::Nothing => Ok(None),
        });
        match went {
            Ok(None) => {
                troubles.over();
                return Ok(());
            }
            Ok(Some(true)) if !cancel.requested() => troubles.over(),
            Ok(Some(true)) => {}
            Ok(Some(false)) => std::thread::sleep(TAKE_OVER_EVERY),
            Err(EngineError::Busy { .. }) => std::thread::sleep(TAKE_OVER_EVERY),
            // Nobody else waits for the engine to come back.
            Err(e) if e.is_away() => std::thread::sleep(TAKE_OVER_EVERY),
            // Nor for room on the disk. What was kept aside is for this: somebody has to roll back.
            Err(e) if home.is_full() => {
                if !home.release_reserve() {
                    troubles.note(&e, observe);
                }
                std::thread::sleep(TAKE_OVER_EVERY);
            }
            // Whoever wrote this has a watchdog that can read it, and that must find the lock free.
            Err(e @ EngineError::NewerFormat { .. }) => {
                troubles.note(&e, observe);
                return Err(e);
            }
            // A watchdog that is started again would meet the same.
            Err(e) => troubles.wait(&e, cancel, observe),
        }
        if cancel.requested() {
            return Ok(());
        }
    }
}

/// How often the watchdog looks whether a run has lost its command line.
const TAKE_OVER_EVERY: Duration = Duration::from_millis(500);

fn record(home: &Home, run: &RunId, event: &Event) -> Result<(), EngineError> {
    let append = || -> Result<(), EngineError> {
        let mut journal = Journal::open(&home.state().join("journal.db"))?;
        journal.append(run, now_ms(), event)?;
        Ok(())
    };
    // On a full disk, what was kept aside is for this: a rollback follows, or somebody has to know.
    append().or_else(|e| if home.release_reserve() { append() } else { Err(e) })
}

fn still_running(home: &Home, run: &RunId) -> Result<bool, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(false) };
    Ok(journal.load(run)?.1.on_trial())
}

fn watch_one(
    home: &Home,
    trial: &Trial,
    troubles: &Troubles<'_>,
    cancel: &Cancel,
    observe: Observer<'_>,
) -> Result<(), EngineError> {
    let run = &trial.plan.run;
    let config = home.run_config(run)?;
    let (deadline_ms, generation) = match &trial.state.trial {
        Some(t) => (t.deadline_ms, t.generation),
        None => return Ok(()),
    };
    let Some(instance) =
        trial.plan.instances.values().find(|i| i.is_production() && i.generation == generation)
    else {
        return Err(EngineError::Internal {
            detail: format!("the plan of {run} names no generation {generation}"),
        });
    };
    let release = home.release(&instance.release)?;
    let world = World::open(&config)?;
    let placement = Placement { home, config: &config, instance, release: &release };
    let suite = Suite::load(home, run, &config)?;
    let mut failures = trial.state.trial.as_ref().map_or(0, |t| t.failures_in_a_row);
    let mut unread = Vec::new();
    let (before, marks) = look::known(home, run, &mut unread);
    for what in unread {
        let seen = format!("the watchdog goes on without what it knew: {what}");
        record(home, run, &Event::TrialProbe { ok: false, seen, failures_in_a_row: failures })?;
    }
    let mut judge = Judge::new(&config.rollback.triggers, before, config.rollback.watch.as_millis());
    // What another watchdog saw counts. What followed from its last look may not be in the journal.
    for sample in kept::samples(home, run) {
        judge.look(sample);
    }
    note_changes(home, &config, run, &missed(&judge, &trial.state))?;
    let mut eye = Eye { home, world: &world, placement, suite: &suite, run, marks, looks: 0 };
    let (mut errors, mut probes, mut last_ok) = (0u32, 0u32, None::<bool>);
    // A watchdog that takes over late (after a reboot, or after one was killed) must see half of the period
    // itself: time in which nobody looked does not count.
    let half = i64::try_from(config.rollback.watch.as_millis() / 2).unwrap_or(i64::MAX);
    let mut deadline_ms = deadline_ms.max(now_ms().saturating_add(half));
    let mut last_look = now_ms();
    let mut ended = trial.state.ended.is_some();
    loop {
        if cancel.requested() {
            return Ok(());
        }
        if !still_running(home, run)? {
            return Ok(()); // somebody rolled back meanwhile
        }
        if !ended {
            // The command line was killed between the beginning of the trial and its own end.
            ended = take_over(home, troubles, cancel, observe)?;
        }
        if let Some(trigger) = judge.condemned().filter(|_| !gap(Gap::Trigger)) {
            let why = [format!("{}: {}", trigger.as_str(), judge.why(trigger))];
            return roll_back(home, trial, &config, (&why[0], &why), troubles, cancel, observe);
        }
        let blind = match eye.look() {
            Ok(look) => {
                troubles.looked(look.ok);
                let sees = look.doubt.is_none();
                if sees {
                    errors = 0;
                    probes += 1;
                    failures = if look.ok { 0 } else { failures + 1 };
                    if last_ok != Some(look.ok) || !look.ok {
                        let seen = look.seen.join("; ");
                        let probe = Event::TrialProbe { ok: look.ok, seen, failures_in_a_row: failures };
                        record(home, run, &probe)?;
                    }
                    last_ok = Some(look.ok);
                }
                // Kept before it is judged: a watchdog that takes over then comes to the same. One that is not kept, for the
                // disk is full, counts all the same: this is when a watchdog is needed.
                let _ = kept::keep(home, run, &look.sample)
                    .and_then(|()| look::keep_marks(home, run, &eye.marks));
                let changes = judge.look(look.sample);
                note_changes(home, &config, run, &changes)?;
                if sees && failures >= config.rollback.failures && !gap(Gap::Trigger) {
                    let trigger = format!("{failures} probes in a row failed");
                    let why = (trigger.as_str(), look.seen.as_slice());
                    return roll_back(home, trial, &config, why, troubles, cancel, observe);
                }
                if judge.condemned().is_some() && !gap(Gap::Trigger) {
                    continue;
                }
                // Suspicion extends the trial: it ends on a good probe or with a rollback, never in between.
                if look.ok && judge.open().is_empty() && now_ms() >= deadline_ms {
                    record(home, run, &Event::TrialConfirmed { probes, by: None })?;
                    let title = format!("generation {generation} passed its trial");
                    let change = describe_change(&trial.plan.from, &trial.plan.to);
                    tell(home, &config, Severity::Good, "trial_confirmed", title, &[change]);
                    return Ok(());
                }
                look.doubt
            }
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = blind {
            errors += 1;
            deadline_ms = deadline_ms.saturating_add(now_ms() - last_look);
            if errors == BLIND_AFTER {
                let seen = format!("the watchdog is blind: {why}");
                record(home, run, &Event::TrialProbe { ok: false, seen, failures_in_a_row: failures })?;
                let title = format!("the watchdog cannot see generation {generation}, which is on trial");
                tell(home, &config, Severity::Bad, "watchdog_blind", title, &[why]);
            }
        }
        last_look = now_ms();
        sleep(config.rollback.every.0, deadline_ms, failures, cancel);
    }
}

/// What a watchdog that was killed had concluded and not recorded.
fn missed(judge: &Judge, state: &RunState) -> Vec<Change> {
    let known = |trigger| {
        let of = state.trial.as_ref().and_then(|t| t.triggers.get(&trigger));
        of.map_or(Standing::Quiet, |(standing, _)| *standing)
    };
    judge.standings().into_iter().filter(|c| c.standing != known(c.trigger)).collect()
}

/// Records which triggers stand differently, and tells of those that fired and do not roll back: a rollback is told by itself.
fn note_changes(home: &Home, config: &Config, run: &RunId, changes: &[Change]) -> Result<(), EngineError> {
    for Change { trigger, standing, action, why } in changes.iter().cloned() {
        if standing == Standing::Fired && action != Action::Rollback {
            let kept = if action == Action::Hold { "; the trial is held" } else { "" };
            let title = format!("{} of the release that is on trial{kept}", trigger.as_str());
            let lines = [why.clone(), "`switchback status --why`".to_owned()];
            tell(home, config, Severity::Bad, "trigger_fired", title, &lines);
        }
        record(home, run, &Event::TriggerChanged { trigger, standing, action, why })?;
    }
    Ok(())
}

/// From this pause on it pays to unmap the program and to map again what the next probe needs, some hundred page faults.
const IDLE: Duration = Duration::from_secs(1);

/// Waits for the next probe; shorter at the deadline, so that a trial does not last longer than it must.
fn sleep(every: Duration, deadline_ms: i64, failures: u32, cancel: &Cancel) {
    let left = u64::try_from(deadline_ms - now_ms()).unwrap_or(0);
    let mut wait = every;
    if failures == 0 && left > 0 {
        wait = wait.min(Duration::from_millis(left));
    }
    let until = Instant::now() + wait.max(Duration::from_millis(20));
    if wait >= IDLE {
        // What it cannot give back it keeps.
        let _ = switchback_memory::give_back_program();
    }
    while Instant::now() < until && !cancel.requested() {
        std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
    }
}

fn tell(home: &Home, config: &Config, severity: Severity, event: &str, title: String, lines: &[String]) {
    notify::tell(home, config, notify::message(config, severity, event, title, lines));
}
