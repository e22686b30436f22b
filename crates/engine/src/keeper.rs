//! The keeper: looks after staging environments while there are any, makes backups by the clock, and starts a watchdog
//! again that was killed.
//!
//! Owns the health history of environments, their end when their time is over, and what is scheduled. It must never
//! write to production's data, and never wait for the stack's lock: what is due now is due at the next look, too.

use crate::backup::{due, wal};
use crate::engine::{Cancel, RunEnd, now_ms};
use crate::environments;
use crate::error::{EngineError, io};
use crate::fault::{Gap, gap};
use crate::history;
use crate::home::Home;
use crate::lock::Lock;
use crate::notify;
use crate::runtime::Placement;
use crate::runtime::process::start::own_program;
use crate::session::Session;
use crate::tidy;
use crate::watch;
use crate::world::World;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::environment::{Environment, Sample, ServiceSample};
use switchback_core::journal::Outcome;
use switchback_core::notify::Severity;
use switchback_core::plan::{self, Plan};
use switchback_core::trigger::is_error;

/// The hidden command that becomes the keeper.
pub const KEEPER_VERB: &str = "__keeper";

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// Time between two looks whether to end, or whether a watchdog is gone.
const MOMENT: Duration = Duration::from_millis(200);
/// Time between two looks for what is due; the journal is read for it.
const BACKUPS: Duration = Duration::from_secs(60);
/// A history that reaches this size begins anew; the one before is kept.
const HISTORY_BYTES: u64 = 2 << 20;
/// The end of a log in which errors are counted.
const LOG_BYTES: u64 = 64 << 10;

fn lock_path(home: &Home) -> PathBuf {
    home.state().join("keeper.lock")
}

/// Who keeps, if anybody does.
pub fn holder(home: &Home) -> Option<String> {
    Lock::holder(&lock_path(home))
}

/// Starts a detached keeper if there is anything to keep and none keeps it.
pub fn spawn(home: &Home) -> Result<(), EngineError> {
    if holder(home).is_some() || !wanted(home)? {
        return Ok(());
    }
    let path = home.state().join("keeper.log");
    let log = OpenOptions::new().append(true).create(true).open(&path).map_err(io("open", &path))?;
    let second = log.try_clone().map_err(io("open", &path))?;
    let program = own_program();
    let mut child = Command::new(&program)
        .arg0("switchback-keeper")
        .arg(KEEPER_VERB)
        .arg(home.root())
        .env_remove(crate::runtime::process::table::MARKER)
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

/// Whether there is anything to keep: a trial or a run that a watchdog is needed for, an environment, or backups and drills
/// by the clock.
fn wanted(home: &Home) -> Result<bool, EngineError> {
    // A journal that cannot be read now says nothing about a trial.
    if watch::wanted(home).unwrap_or(true) {
        return Ok(true);
    }
    // A file that is being edited is read at the next look.
    let scheduled = |c: Config| {
        c.rollback.drills()
            || c.retention.gc.is_some()
            || wal::wanted(&c).is_some()
            || c.backup.is_some_and(|b| b.every.is_some() || b.drill.is_some())
    };
    // Servers must be told when archiving was switched off.
    let archived = wal::chains(home).is_ok_and(|c| !c.stores.is_empty());
    Ok(!environments::list(home)?.is_empty()
        || archived
        || home.pointer()?.is_some() && home.config().is_ok_and(scheduled))
}

/// Keeps until there is nothing to keep. Returns at once if another keeper keeps.
pub fn keep(home: &Home, cancel: &Cancel, say: &dyn Fn(&str)) -> Result<(), EngineError> {
    let _ = rustix::process::setsid();
    let _own = match Lock::take(&lock_path(home), "keeper", Duration::ZERO) {
        Ok(lock) => lock,
        Err(EngineError::Busy { .. }) => return Ok(()),
        Err(e) => return Err(e),
    };
    let ends = AtomicBool::new(false);
    let stops = || cancel.requested() || ends.load(Ordering::Relaxed);
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        // Beside everything else: a backup or a drill takes its time, and logs are archived and trials guarded nevertheless.
        scope.spawn(|| archive(home, &stops, &tell));
        scope.spawn(|| guard(home, &stops, &tell));
        let kept = look_after(home, cancel, say, &told);
        ends.store(true, Ordering::Relaxed);
        kept
    })
}

/// Archives logs by the clock, until it ends.
fn archive(home: &Home, ends: &dyn Fn() -> bool, tell: &Sender<String>) {
    let say = |text: &str| {
        let _ = tell.send(text.to_owned());
    };
    let mut next = Instant::now();
    while !ends() {
        if Instant::now() < next {
            std::thread::sleep(MOMENT);
            continue;
        }
        // A file that is being edited is read at the next look.
        let Ok(config) = crate::world::config(home) else {
            next = Instant::now() + EVERY;
            continue;
        };
        next = Instant::now() + wal::wanted(&config).map_or(BACKUPS, |w| w.every.0);
        if let Err(e) = wal::keep(home, &config, &say) {
            say(&format!("archiving: {e}"));
        }
    }
}

/// Starts a watchdog again that was killed, until it ends.
fn guard(home: &Home, ends: &dyn Fn() -> bool, tell: &Sender<String>) {
    let (mut next, mut watched) = (Instant::now() + EVERY, false);
    while !ends() {
        let gone = std::mem::replace(&mut watched, watch::holder(home).is_some()) && !watched;
        if Instant::now() < next && !gone {
            std::thread::sleep(MOMENT);
            continue;
        }
        next = Instant::now() + EVERY;
        let text = match watch::guard(home) {
            Ok(false) => continue,
            Ok(true) => "the watchdog was gone; another one was started".to_owned(),
            Err(e) => format!("starting a watchdog: {e}"),
        };
        let _ = tell.send(text);
    }
}

fn look_after(
    home: &Home,
    cancel: &Cancel,
    say: &dyn Fn(&str),
    told: &Receiver<String>,
) -> Result<(), EngineError> {
    let mut backups = Instant::now();
    loop {
        for line in told.try_iter() {
            say(&line);
        }
        if cancel.requested() || !wanted(home)? {
            return Ok(());
        }
        // What cannot be seen now (the engine is away, a file is being edited) is looked at again.
        if let Err(e) = look(home, cancel, say) {
            say(&e.to_string());
        }
        if Instant::now() >= backups {
            backups = Instant::now() + scheduled(home, cancel, say);
        }
        let until = Instant::now() + EVERY;
        // It is there as long as a trial lasts; what it cannot give back it keeps.
        let _ = switchback_memory::give_back_program();
        let mut watched = false;
        while Instant::now() < until {
            let now = watch::holder(home).is_some();
            if watched && !now {
                // A watchdog that went home may have been all that there was to keep.
                break;
            }
            watched |= now;
            if cancel.requested() {
                return Ok(());
            }
            std::thread::sleep(MOMENT);
        }
    }
}

/// Makes the backup or drill that is due. Returns when to look again.
fn scheduled(home: &Home, cancel: &Cancel, say: &dyn Fn(&str)) -> Duration {
    let done = crate::world::config(home).and_then(|config| {
        tidy::run_due(home, &config, say)?;
        due::run_due(home, &config, cancel, &|_| {}, say)
    });
    match done {
        Ok(_) => BACKUPS,
        Err(e) => {
            say(&e.to_string());
            // It was told; and there is no run in the journal to recognise the attempt by.
            Duration::from_millis(due::AGAIN_MS.unsigned_abs())
        }
    }
}

fn look(home: &Home, cancel: &Cancel, say: &dyn Fn(&str)) -> Result<(), EngineError> {
    look_with(home, &crate::world::config(home)?, cancel, say)
}

/// Looks once at every environment: what is due is done, and what was seen is recorded and told.
pub fn look_with(
    home: &Home,
    config: &Config,
    cancel: &Cancel,
    say: &dyn Fn(&str),
) -> Result<(), EngineError> {
    let world = World::open(config)?;
    for known in environments::list(home)? {
        if known.expired(now_ms()) {
            let why = format!("{}: its time is over", known.name);
            carry_out_due(home, config, &world, known, cancel, say, &why, plan::staging_down)?;
            continue;
        }
        let every = config.staging.sync.map(|s| i64::try_from(s.as_millis()).unwrap_or(i64::MAX));
        if every.is_some_and(|every| known.whole && known.data.at_ms.saturating_add(every) <= now_ms())
            && !world.runtime.running(home, &known.instance)?.is_empty()
        {
            let why = format!("{}: a sync is due", known.name);
            carry_out_due(home, config, &world, known, cancel, say, &why, plan::staging_sync)?;
            continue;
        }
        let sample = sample(home, config, &world, &known)?;
        let before = last(home, &known.name);
        if before.as_ref().is_some_and(|b| b.well != sample.well) {
            let state = if sample.well { "is well again" } else { "is NOT well" };
            say(&format!("{} {state}: {}", known.name, sample.words()));
            let (severity, event) = match sample.well {
                true => (Severity::Good, "environment_well"),
                false => (Severity::Bad, "environment_not_well"),
            };
            let title = format!("the staging environment {} {state}", known.name);
            notify::tell(home, config, notify::message(config, severity, event, title, &[sample.words()]));
        }
        record(home, &known.name, &sample)?;
    }
    Ok(())
}

/// Carries out a plan that is due, unless something else is being done to the stack.
#[expect(clippy::too_many_arguments, reason = "both callers have them at hand")]
fn carry_out_due(
    home: &Home,
    config: &Config,
    world: &World,
    known: Environment,
    cancel: &Cancel,
    say: &dyn Fn(&str),
    why: &str,
    make: fn(&plan::StagingFacts) -> Plan,
) -> Result<(), EngineError> {
    let mut session = match Session::open(home, why, Duration::ZERO) {
        Err(EngineError::Busy { .. }) => return Ok(()),
        other => other?,
    };
    // An interrupted run is a person's to go on with.
    if session.require_settled().is_err() {
        return Ok(());
    }
    say(why);
    session.end_leftovers(config)?;
    let facts = environments::facts_of(home, config, world, known)?;
    let plan = make(&facts);
    match session.carry_out(&plan, config, cancel, &|_| {})? {
        RunEnd::Ended(Outcome::Done) => say(&format!("{why}: done")),
        RunEnd::Ended(outcome) => {
            say(&format!("{why}: {outcome:?}"));
            let lines = [format!("{outcome:?}"), format!("switchback report {}", plan.run)];
            let title = format!("{why}, and it failed");
            notify::tell(
                home,
                config,
                notify::message(config, Severity::Bad, "environment_failed", title, &lines),
            );
        }
        RunEnd::Interrupted => say(&format!("{why}: interrupted")),
    }
    Ok(())
}

/// What an environment is doing now.
pub fn sample(
    home: &Home,
    config: &Config,
    world: &World,
    known: &Environment,
) -> Result<Sample, EngineError> {
    let release = home.release(&known.instance.release)?;
    let at = Placement { home, config, instance: &known.instance, release: &release };
    let seen = world.runtime.observe(&at)?;
    let used = world.runtime.usage(&at)?;
    let mut sample = Sample { at_ms: now_ms(), ..Sample::default() };
    for (name, one) in seen {
        let usage = used.get(&name).copied().unwrap_or_default();
        let errors = world.runtime.log(&at, &name, LOG_BYTES).iter().filter(|l| is_error(l)).count();
        let service = ServiceSample {
            well: one.well,
            state: one.state,
            starts: one.starts,
            cpu_ms: usage.cpu_ms,
            memory_bytes: usage.memory_bytes,
            log_errors: errors as u64,
        };
        sample.services.insert(name, service);
    }
    sample.well = sample.services.values().all(|s| s.well);
    Ok(sample)
}

fn history_file(home: &Home, name: &str) -> PathBuf {
    environments::folder(home, name).join("health.jsonl")
}

fn record(home: &Home, name: &str, sample: &Sample) -> Result<(), EngineError> {
    // The environment may have been removed meanwhile: its folder is not made again.
    if environments::find(home, name)?.is_none() || gap(Gap::History) {
        return Ok(());
    }
    history::append(&history_file(home, name), sample, HISTORY_BYTES)
}

/// The samples of an environment, oldest first.
pub fn samples(home: &Home, name: &str) -> Vec<Sample> {
    history::read(&history_file(home, name))
}

fn last(home: &Home, name: &str) -> Option<Sample> {
    let text = fs::read_to_string(history_file(home, name)).ok()?;
    text.lines().next_back().and_then(|l| serde_json::from_str(l).ok())
}
