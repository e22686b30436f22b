//! One look at production on trial, and at production before it.

use crate::checks::{Suite, Target};
use crate::error::EngineError;
use crate::home::{Home, read_json, write_atomic, write_json, write_json_volatile};
use crate::runtime::Placement;
use crate::world::World;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::config::{Action, RuntimeKind};
use switchback_core::data::StoreKind;
use switchback_core::ids::{RunId, ServiceName};
use switchback_core::plan::CheckPhase;
use switchback_core::trigger::{Before, CheckSample, DatabaseSample, Line, Sample, ServiceSample};

/// New lines of a log that are read at a look, at most.
const LOG_BYTES: u64 = 256 << 10;
/// The end of a log in which error messages of before are looked for.
const LOG_BEFORE_BYTES: u64 = 4 << 20;
/// Different messages that are kept of a service.
const MESSAGES_BEFORE: usize = 500;
const MESSAGES: usize = 20;
/// Looks before a promotion, and the time after which no other one begins.
const ROUNDS: usize = 5;
const ROUNDS_TIME: Duration = Duration::from_secs(10);
/// Databases are asked at every so many looks: it takes a session of theirs.
const DATABASE_EVERY: u32 = 3;

/// What one look at production found.
pub(super) struct Look {
    pub ok: bool,
    pub seen: Vec<String>,
    /// What is known nevertheless where something could not be seen.
    pub sample: Sample,
    /// What could not be seen: the look is neither good nor bad.
    pub doubt: Option<String>,
}

/// Looks at one instance again and again.
pub(super) struct Eye<'a> {
    pub home: &'a Home,
    pub world: &'a World,
    pub placement: Placement<'a>,
    pub suite: &'a Suite,
    pub run: &'a RunId,
    /// How far the log of each service was read.
    pub marks: Marks,
    pub looks: u32,
}

impl Eye<'_> {
    pub fn look(&mut self) -> Result<Look, EngineError> {
        let mut seen = Vec::new();
        let mut ok = true;
        if let Err(differences) = self.world.runtime.read_back(&self.placement)? {
            ok = false;
            seen.extend(differences);
        }
        let restarting = self.world.runtime.restarting(&self.placement)?;
        if !restarting.is_empty() {
            ok = false;
            seen.extend(restarting);
        }
        let mut doubt = None;
        let (results, went) = match self.checks() {
            Ok(found) => found,
            Err(e) if e.is_away() => return Err(e),
            Err(e) => {
                doubt = Some(e.to_string());
                (Vec::new(), None)
            }
        };
        if let Some(differences) = went.filter(|_| ok) {
            ok = false;
            seen.extend(differences);
        }
        for result in &results {
            match &result.verdict {
                Verdict::Pass | Verdict::Waived { .. } => {}
                Verdict::Fail { reasons } => {
                    ok = false;
                    seen.extend(reasons.iter().map(|r| format!("{}: {}: {}", result.id, r.at, r.what)));
                }
                Verdict::Inconclusive { why } | Verdict::NotRun { why } => {
                    doubt.get_or_insert(format!("{}: {why}", result.id));
                }
            }
        }
        // What was seen to fail has failed, whatever else could not be seen.
        let doubt = doubt.filter(|_| ok);
        ok &= doubt.is_none();
        // Last: lines of logs count as read only where the look counts. A check that cannot be judged hides nothing else.
        let sample = self.sample(&results)?;
        if ok {
            seen.push("everything as it must be".to_owned());
        }
        Ok(Look { ok, seen, sample, doubt })
    }

    /// Runs the checks; and what went away meanwhile. A workflow may try again for minutes: nothing of it is waited for when the services
    /// themselves are down.
    fn checks(&self) -> Result<(Vec<CheckResult>, Option<Vec<String>>), EngineError> {
        let every = self.placement.config.rollback.every.0;
        let (asked, went) = (Cell::new(Instant::now()), RefCell::new(None));
        let down = || {
            if went.borrow().is_none() && asked.get().elapsed() >= every {
                let back = self.world.runtime.read_back(&self.placement);
                *went.borrow_mut() = back.ok().and_then(Result::err);
                asked.set(Instant::now());
            }
            went.borrow().is_some()
        };
        let unhealthy = |results: &[CheckResult]| {
            results.iter().any(|r| r.kind == CheckKind::Health && matches!(r.verdict, Verdict::Fail { .. }))
        };
        let run_dir = self.home.run_dir(self.run);
        let target = Target {
            world: self.world,
            placement: self.placement,
            environment: "production".to_owned(),
            run: self.run.as_str(),
            run_dir: &run_dir,
            scratch: &run_dir,
            through: None,
        };
        let results = self.suite.run_until(&[target], CheckPhase::Production, &|_| {}, &down, &unhealthy)?;
        Ok((results, went.into_inner()))
    }

    fn sample(&mut self, results: &[CheckResult]) -> Result<Sample, EngineError> {
        let (at, runtime) = (&self.placement, &self.world.runtime);
        let triggers = &at.config.rollback.triggers;
        let mut sample = Sample {
            at_ms: crate::engine::now_ms(),
            checks: checked(results),
            disk_free_bytes: runtime.free_bytes(self.home),
            memory_free_bytes: runtime.is_here().then(crate::available_memory).flatten(),
            ..Sample::default()
        };
        let mut marks = self.marks.clone();
        let used = runtime.usage(at)?;
        for (name, seen) in runtime.observe(at)? {
            let usage = used.get(&name).copied().unwrap_or_default();
            let mut service = ServiceSample {
                starts: seen.starts,
                out_of_memory: seen.out_of_memory,
                memory_bytes: usage.memory_bytes,
                memory_limit_bytes: usage.memory_limit_bytes,
                errors: BTreeMap::new(),
            };
            if triggers.logs.action != Action::Off {
                let mark = marks.get(&name).map(String::as_str);
                let part = runtime.log_after(at, &name, mark, LOG_BYTES)?;
                marks.insert(name.clone(), part.mark);
                for line in part.lines.iter().filter(|l| !triggers.logs.ignore.iter().any(|i| l.contains(i)))
                {
                    let Some(line) = Line::read(line) else { continue };
                    if service.errors.len() < MESSAGES || service.errors.contains_key(&line.template) {
                        *service.errors.entry(line.template).or_default() += 1;
                    }
                }
            }
            sample.services.insert(name, service);
        }
        if self.looks.is_multiple_of(DATABASE_EVERY) && triggers.database.action != Action::Off {
            sample.databases = self.databases();
        }
        self.looks = self.looks.wrapping_add(1);
        self.marks = marks;
        Ok(sample)
    }

    /// Databases that answered; what does not is left to the checks.
    fn databases(&self) -> BTreeMap<switchback_core::ids::StoreName, DatabaseSample> {
        let at = &self.placement;
        if at.config.runtime != RuntimeKind::Compose {
            return BTreeMap::new();
        }
        let stores = at.instance.stores.iter().filter(|(_, place)| place.kind == StoreKind::Postgres);
        let asked = stores.filter_map(|(name, _)| {
            let value = self.world.data.sql(at, name, crate::store::postgres::SESSIONS, &[]).ok()?;
            let mut numbers = value.as_str()?.split(' ').map(|n| n.parse::<u64>().ok());
            let mut next = || numbers.next().flatten();
            let seen = DatabaseSample { lock_wait_ms: next()?, connections: next()?, most: next()? };
            Some((name.clone(), seen))
        });
        asked.collect()
    }
}

fn checked(results: &[CheckResult]) -> BTreeMap<String, CheckSample> {
    let judged = results.iter().filter_map(|r| match r.verdict {
        Verdict::Pass => Some((r, true)),
        Verdict::Fail { .. } => Some((r, false)),
        _ => None,
    });
    judged.map(|(r, ok)| (r.id.clone(), CheckSample { ok, took_ms: r.took_ms })).collect()
}

/// How far the log of each service was read in a trial.
pub(super) type Marks = BTreeMap<ServiceName, String>;

fn marks_file(home: &Home, run: &RunId) -> PathBuf {
    home.run_dir(run).join("log-marks.json")
}

/// Notes where the logs end when a trial begins: what comes from now on belongs to it.
pub fn mark_logs(placement: &Placement<'_>, world: &World, run: &RunId) -> Result<(), EngineError> {
    let mut marks = Marks::new();
    for name in placement.release.services.keys() {
        marks.insert(name.clone(), world.runtime.log_after(placement, name, None, 0)?.mark);
    }
    write_json_volatile(&marks_file(placement.home, run), &marks)
}

/// What was seen before the promotion, and how far the logs were read, by this watchdog or another one. What cannot be read counts as
/// nothing (logs are read from now on) and is put aside; `unread` says what.
pub(super) fn known(home: &Home, run: &RunId, unread: &mut Vec<String>) -> (Before, Marks) {
    (read_or_aside(&before_file(home, run), unread), read_or_aside(&marks_file(home, run), unread))
}

fn read_or_aside<T: DeserializeOwned + Default>(path: &Path, unread: &mut Vec<String>) -> T {
    if !path.exists() {
        return T::default();
    }
    read_json(path).unwrap_or_else(|e| {
        unread.push(e.to_string());
        // So that it is said once.
        let _ = std::fs::rename(path, path.with_extension("damaged.json"));
        T::default()
    })
}

/// Keeps how far they were read. Lines that are read twice do less harm than lines that are not read.
pub(super) fn keep_marks(home: &Home, run: &RunId, marks: &Marks) -> Result<(), EngineError> {
    write_json_volatile(&marks_file(home, run), marks)
}

fn before_file(home: &Home, run: &RunId) -> PathBuf {
    home.run_dir(run).join("before.json")
}

/// Looks at production as it is and keeps what was seen for the trial of a run; says what it was.
pub fn observe_before(
    home: &Home,
    world: &World,
    placement: Placement<'_>,
    suite: &Suite,
    run: &RunId,
    cancelled: &dyn Fn() -> bool,
) -> Result<String, EngineError> {
    let eye = Eye { home, world, placement, suite, run, marks: Marks::new(), looks: 0 };
    let mut before = Before::default();
    let began = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && began.elapsed() < ROUNDS_TIME && !cancelled() {
        for (id, seen) in checked(&eye.checks()?.0).into_iter().filter(|(_, seen)| seen.ok) {
            before.checks.entry(id).or_default().push(seen.took_ms);
        }
        rounds += 1;
    }
    for name in placement.release.services.keys() {
        let lines = world.runtime.log(&placement, name, LOG_BEFORE_BYTES);
        before.errors.insert(name.clone(), messages(&lines));
    }
    write_json(&before_file(home, run), &before)?;
    let messages: usize = before.errors.values().map(BTreeSet::len).sum();
    Ok(format!(
        "{} checks timed {rounds} times; {messages} different error messages in the logs",
        before.checks.len()
    ))
}

/// The different error messages of a log, the newest of them where there are too many.
fn messages(lines: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines.iter().rev().filter_map(|l| Line::read(l)) {
        if found.len() == MESSAGES_BEFORE {
            break;
        }
        found.insert(line.template);
    }
    found
}

/// What was seen before a promotion is true for the trial that goes on after single services went back, too.
pub fn keep_before(home: &Home, trial: &RunId, next: &RunId) -> Result<(), EngineError> {
    // What cannot be read counts as nothing, as it does for the trial itself.
    let Ok(kept) = std::fs::read(before_file(home, trial)) else { return Ok(()) };
    write_atomic(&before_file(home, next), &kept)
}

/// What was seen before a promotion; nothing where nobody looked.
pub fn before(home: &Home, run: &RunId) -> Result<Before, EngineError> {
    let path = before_file(home, run);
    if path.exists() { read_json(&path) } else { Ok(Before::default()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_logged_again_and_again_hides_no_other_one() {
        let often = |n: usize| format!("2026-11-29T02:03:04Z ERROR slow client {n}");
        let mut lines = vec!["ERROR the cache is cold".to_owned()];
        lines.extend((0..2 * MESSAGES_BEFORE).map(often));
        lines.push("ERROR no such calendar".to_owned());
        let found = messages(&lines);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.contains("ERROR the cache is cold") && found.contains("ERROR no such calendar"));
    }

    #[test]
    fn of_too_many_messages_the_newest_are_kept() {
        // Digits are no part of a message.
        let word = |n: usize| format!("ERROR {}", "x".repeat(n % 25) + &"y".repeat(n / 25));
        let lines: Vec<String> = (0..MESSAGES_BEFORE + 10).map(word).collect();
        let found = messages(&lines);
        assert_eq!(found.len(), MESSAGES_BEFORE);
        assert!(found.contains(&word(MESSAGES_BEFORE + 9)) && !found.contains(&word(3)));
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing_and_is_put_aside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("before.json");
        let mut unread = Vec::new();
        assert_eq!(read_or_aside::<Before>(&path, &mut unread), Before::default());
        assert!(unread.is_empty(), "what is not there is not damaged: {unread:?}");
        std::fs::write(&path, "{").expect("writes");
        assert_eq!(read_or_aside::<Before>(&path, &mut unread), Before::default());
        assert!(unread[0].contains("before.json is damaged"), "{unread:?}");
        assert!(dir.path().join("before.damaged.json").exists() && !path.exists());
        read_or_aside::<Before>(&path, &mut unread);
        assert_eq!(unread.len(), 1, "it is said once");
    }
}
