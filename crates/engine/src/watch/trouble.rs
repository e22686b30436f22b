//! What keeps the watchdog from its work for longer than a moment: told once for each reason, and tried again.
//!
//! It is kept in a file, so that a watchdog that is started again does not tell it once more, and so that `status` shows it.

use super::{back::guarded, current, tell};
use crate::engine::{Cancel, Notice, Observer, now_ms};
use crate::error::EngineError;
use crate::home::{Home, read_json, write_json_volatile};
use crate::journal::Journal;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::notify::Severity;
use switchback_core::release::FORMAT;

/// Time until it is tried again: production may be on a release that is known to be bad, and a try reads a few files. It gets longer
/// by as much with each try, up to a minute.
const AGAIN: Duration = Duration::from_secs(5);
const LONGEST: u32 = 12;
/// Reasons that take turns are not told more often than this.
const TOLD: Duration = Duration::from_secs(60);
/// How often it is looked meanwhile whether to end.
const MOMENT: Duration = Duration::from_millis(200);

/// What keeps the watchdog from its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogTrouble {
    format: u32,
    /// Since when; UTC, milliseconds since 1970.
    pub since_ms: i64,
    /// Tries that failed for this reason.
    pub tries: u32,
    /// Whether a rollback waits for it.
    pub rollback_waits: bool,
    /// Whether people were told.
    pub told: bool,
    /// In words.
    pub why: String,
}

fn file(home: &Home) -> PathBuf {
    home.state().join("watchdog-trouble.json")
}

/// What keeps the watchdog from its work now, if anything does.
pub fn trouble(home: &Home) -> Option<WatchdogTrouble> {
    read_json(&file(home)).ok()
}

/// The troubles of one watchdog.
pub(super) struct Troubles<'a> {
    home: &'a Home,
    /// Whether a rollback is owed that has not come to its end.
    pub owed: Cell<bool>,
    /// The last one. The file may be out of reach: this is when people have to know.
    last: RefCell<Option<WatchdogTrouble>>,
    /// When one was told last, and whether a rollback waited then.
    told: Cell<Option<(Instant, bool)>>,
}

impl<'a> Troubles<'a> {
    pub fn new(home: &'a Home) -> Self {
        Self { home, owed: Cell::new(false), last: RefCell::new(trouble(home)), told: Cell::new(None) }
    }

    /// Notes one, tells it unless it is the one before, and waits until it is worth while to try again.
    pub fn wait(&self, error: &EngineError, cancel: &Cancel, observe: Observer<'_>) {
        let tries = self.note(error, observe);
        let until = Instant::now() + AGAIN * tries.min(LONGEST);
        while Instant::now() < until && !cancel.requested() {
            std::thread::sleep(MOMENT);
        }
    }

    /// Notes one, and tells it unless it is the one before; the tries that failed for it.
    pub fn note(&self, error: &EngineError, observe: Observer<'_>) -> u32 {
        let (why, rollback_waits) = (error.to_string(), self.owed.get());
        let same = |t: &WatchdogTrouble| t.why == why && t.rollback_waits == rollback_waits;
        let before = self.last.borrow_mut().take().filter(same);
        let lately =
            self.told.get().is_some_and(|(at, waited)| at.elapsed() < TOLD && waited >= rollback_waits);
        let mut now = before.unwrap_or_else(|| WatchdogTrouble {
            format: FORMAT,
            since_ms: now_ms(),
            tries: 0,
            rollback_waits,
            told: false,
            why: why.clone(),
        });
        now.tries = now.tries.saturating_add(1);
        let tell = !now.told && !lately;
        now.told |= tell;
        // Where it cannot be written, people are told at least.
        let _ = write_json_volatile(&file(self.home), &now);
        let tries = now.tries;
        self.last.replace(Some(now));
        if tell {
            self.told.set(Some((Instant::now(), rollback_waits)));
            self.say(&why, rollback_waits, observe);
        }
        tries
    }

    fn say(&self, why: &str, rollback_waits: bool, observe: Observer<'_>) {
        observe(&Notice::Doing { text: &format!("the watchdog: {why}"), done: 0, total: 0 });
        let log = self.home.state().join("watchdog.log");
        if let Ok(mut log) = std::fs::OpenOptions::new().append(true).create(true).open(log) {
            let _ = writeln!(log, "{}: {why}", jiff::Timestamp::now());
        }
        let Some(config) = self.config() else { return };
        let (event, title) = match rollback_waits {
            true => ("needs_operator", "the rollback cannot be done; it is tried again"),
            false => ("watchdog_blind", "the watchdog cannot do its work; it tries again"),
        };
        tell(self.home, &config, Severity::Bad, event, title.to_owned(), &[why.to_owned()]);
    }

    /// The configuration of what is watched, or the present one where that is the trouble.
    fn config(&self) -> Option<Config> {
        let of_run = || -> Option<Config> {
            let journal = Journal::open_read(&self.home.state().join("journal.db")).ok()??;
            let trial = current(&journal).ok()?.map(|t| t.plan.run);
            let run = trial.or_else(|| guarded(&journal).ok()?)?;
            self.home.run_config(&run).ok()
        };
        of_run().or_else(|| self.home.config().ok())
    }

    /// A look came about. A rollback that waits is over only with a good one.
    pub fn looked(&self, ok: bool) {
        if self.last.borrow().as_ref().is_some_and(|t| ok || !t.rollback_waits) {
            self.over();
        }
    }

    /// Nothing keeps the watchdog from its work.
    pub fn over(&self) {
        self.owed.set(false);
        if self.last.borrow_mut().take().is_some() {
            let _ = std::fs::remove_file(file(self.home));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_by_the_next_watchdog_and_gone_when_it_is_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::future(dir.path()).expect("a home");
        home.create_state().expect("creates");
        let error = |detail: &str| EngineError::Internal { detail: detail.to_owned() };
        let troubles = Troubles::new(&home);
        troubles.note(&error("one"), &|_| {});
        troubles.note(&error("one"), &|_| {});
        let known = trouble(&home).expect("kept");
        assert_eq!((known.tries, known.rollback_waits), (2, false));
        let next = Troubles::new(&home);
        next.note(&error("one"), &|_| {});
        assert_eq!(trouble(&home).map(|t| (t.tries, t.since_ms)), Some((3, known.since_ms)));
        next.owed.set(true);
        next.note(&error("one"), &|_| {});
        assert_eq!(trouble(&home).map(|t| (t.tries, t.rollback_waits)), Some((1, true)));
        // Reasons that take turns are not all told at once, and none of them never.
        next.note(&error("two"), &|_| {});
        assert_eq!(trouble(&home).map(|t| (t.why, t.told)), Some(("internal error: two".to_owned(), false)));
        next.told.set(None);
        next.note(&error("two"), &|_| {});
        assert_eq!(trouble(&home).map(|t| (t.tries, t.told)), Some((2, true)));
        next.looked(false);
        assert!(trouble(&home).is_some(), "the rollback still waits");
        next.looked(true);
        assert_eq!((trouble(&home), next.owed.get()), (None, false));
        let log = std::fs::read_to_string(home.state().join("watchdog.log")).expect("reads");
        assert_eq!(log.lines().count(), 3, "{log}");
    }
}
