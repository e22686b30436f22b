//! Giving way: who wants to roll back announces it, and a run that only works on copies ends, as if a person had
//! pressed Ctrl-C.
//!
//! Owns the announcement, `.switchback/rollback-wanted`. It counts only while the process that made it holds a lock on
//! it, so one that was left behind keeps nobody from anything. It must never end a run that changes production.

use crate::error::EngineError;
use crate::home::Home;
use crate::journal::Journal;
use crate::lock::Lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a run looks whether it is asked to give way; it is asked for every row and every file.
const LOOK_EVERY_MS: u64 = 20;

/// How long a person's rollback waits for a run that was asked to give way: a request of a check, or a step of a copy,
/// ends meanwhile. The watchdog waits as long as it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn path(home: &Home) -> PathBuf {
    home.state().join("rollback-wanted")
}

/// The announcement that somebody wants to roll back; taken back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct Announcement {
    _lock: Lock,
}

impl Announcement {
    /// Announces it. `None` where somebody else has; then nothing more needs to be said.
    pub fn make(home: &Home, who: &str) -> Option<Self> {
        Lock::take(&path(home), who, Duration::ZERO).ok().map(|lock| Self { _lock: lock })
    }
}

/// Who wants to roll back and waits for the stack's lock, if anybody does.
pub fn wanted(home: &Home) -> Option<String> {
    wanted_at(&path(home))
}

fn wanted_at(path: &Path) -> Option<String> {
    // An announcement that was taken back is an empty file.
    let there = path.metadata().is_ok_and(|m| m.len() > 0);
    there.then(|| Lock::holder(path)).flatten()
}

/// Waits until standard input has something to read. A question that nobody answers must not keep a rollback waiting: who
/// asks it holds the stack's lock.
pub fn wait_for_input(home: &Home) -> Result<(), EngineError> {
    let stdin = std::io::stdin();
    let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    loop {
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&moment)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            // What cannot be waited for is read.
            Ok(_) | Err(_) => return Ok(()),
        }
        if let Some(holder) = wanted(home) {
            return Err(EngineError::Busy { holder });
        }
    }
}

/// Whether a run is at work that changes production, and is therefore waited for.
pub fn production_changes(home: &Home) -> bool {
    let changes = || {
        let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(false) };
        for run in journal.unfinished()? {
            let (plan, state, _) = journal.load(&run)?;
            if !plan.procedure.is_aside() && !state.interrupted {
                return Ok(true);
            }
        }
        Ok::<bool, EngineError>(false)
    };
    changes().unwrap_or(true)
}

/// Looks now and then whether a run is to give way. What was seen once holds: a run that began to end ends.
#[derive(Debug)]
pub struct Look {
    path: PathBuf,
    looked_ms: AtomicU64,
    to: OnceLock<String>,
}

impl Look {
    /// For the runs of a stack.
    pub fn new(home: &Home) -> Self {
        Self { path: path(home), looked_ms: AtomicU64::new(0), to: OnceLock::new() }
    }

    /// Whether to give way.
    pub fn asked(&self) -> bool {
        if self.to.get().is_some() {
            return true;
        }
        // From 1: zero is never.
        let now = since_start_ms() + 1;
        let last = self.looked_ms.load(Ordering::Relaxed);
        if last != 0 && now < last + LOOK_EVERY_MS {
            return false;
        }
        self.looked_ms.store(now, Ordering::Relaxed);
        if let Some(who) = wanted_at(&self.path) {
            let _ = self.to.set(who);
        }
        self.to.get().is_some()
    }

    /// Who it was that the run gave way to.
    pub fn to(&self) -> Option<&str> {
        self.to.get().map(String::as_str)
    }
}

fn since_start_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cancel;

    #[test]
    fn only_a_living_announcement_asks_a_run_to_give_way() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("creates");
        let fresh = || Cancel::default().giving_way(&home);
        assert!(!fresh().requested());
        // Left behind by a process that was killed: its lock went with it.
        std::fs::write(path(&home), "rollback (process 4711)").expect("writes");
        assert_eq!((wanted(&home), fresh().requested()), (None, false));

        let made = Announcement::make(&home, "rollback").expect("announces");
        assert!(Announcement::make(&home, "another").is_none(), "one is enough");
        let cancel = fresh();
        assert!(cancel.requested());
        assert!(cancel.gave_way_to().is_some_and(|who| who.starts_with("rollback (process ")));
        assert!(!Cancel::default().requested(), "a run that changes production does not look");

        drop(made);
        assert_eq!((wanted(&home), fresh().requested()), (None, false));
        assert!(cancel.requested(), "a run that began to end ends");
        assert!(Announcement::make(&home, "another").is_some());
    }
}
