//! Keeping which rows are written to, beside the watching of a trial.
//!
//! It has a thread of its own: reading a long backlog must not hold up a rollback. Its trouble never ends a trial; later writes
//! are then found by comparing.

use super::{Trial, still_running};
use crate::capture::{Progress, Spool, open_spools, progress, spool_file, tell};
use crate::engine::{Cancel, now_ms};
use crate::error::EngineError;
use crate::home::Home;
use crate::journal::Journal;
use crate::runtime::Placement;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::ids::{RunId, StoreName};
use switchback_core::journal::TrialVerdict;
use switchback_core::notify::Severity;
use switchback_core::release::{Instance, Release};

/// Time between two looks: each starts a program in the server's container.
const EVERY: Duration = Duration::from_secs(5);

/// Captures while `watch` watches; ends the capture when the trial is over and its generation is kept.
pub fn meanwhile(
    home: &Home,
    trial: &Trial,
    cancel: &Cancel,
    watch: impl FnOnce() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let generation = trial.state.trial.as_ref().map(|t| t.generation);
    let instance =
        trial.plan.instances.values().find(|i| i.is_production() && Some(i.generation) == generation);
    let Some(instance) = instance.filter(|i| !open_spools(home, i).is_empty()) else { return watch() };
    let config = home.run_config(&trial.plan.run)?;
    let release = home.release(&instance.release)?;
    let world = World::open(&config)?;
    let over = AtomicBool::new(false);
    let stop = || over.load(Ordering::Relaxed) || cancel.requested();
    let own = Own { home, config: &config, instance, release: &release, world: &world };
    let watched = std::thread::scope(|scope| {
        scope
            .spawn(|| own.capture(|| stop() || !still_running(home, &trial.plan.run).unwrap_or(true), &stop));
        let watched = watch();
        over.store(true, Ordering::Relaxed);
        watched
    });
    // One that was left is sealed by its export.
    if confirmed(home, &trial.plan.run).unwrap_or(false) {
        own.end();
    }
    watched
}

/// Whether the trial passed, by time or by a person's word.
fn confirmed(home: &Home, run: &RunId) -> Result<bool, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(false) };
    let verdict = journal.load(run)?.1.trial.and_then(|t| t.verdict);
    Ok(verdict == Some(TrialVerdict::Confirmed))
}

struct Own<'a> {
    home: &'a Home,
    config: &'a Config,
    instance: &'a Instance,
    release: &'a Release,
    world: &'a World,
}

impl Own<'_> {
    fn at(&self) -> Placement<'_> {
        Placement { home: self.home, config: self.config, instance: self.instance, release: self.release }
    }

    fn capture(&self, over: impl Fn() -> bool, cancelled: &dyn Fn() -> bool) {
        let mut spools: BTreeMap<StoreName, Spool> = BTreeMap::new();
        while !over() {
            for name in open_spools(self.home, self.instance) {
                if over() {
                    break;
                }
                let spool = spools.remove(&name);
                match self.drain(&name, spool, cancelled) {
                    Ok((spool, now)) => {
                        if over() {
                            break; // it is told by whoever ended it
                        }
                        let before = progress(self.home, self.instance).remove(&name).unwrap_or_default();
                        let changes = before.changes + now.changes;
                        if let (Some(why), true, false) = (&now.trouble, now.ended, before.ended) {
                            self.say_given_up(&name, why);
                        }
                        tell(self.home, self.instance, &name, &Progress { changes, ..now });
                        spool.rest();
                        spools.insert(name, spool);
                    }
                    // The server is away, or about to be: the next look, or the export, reads on.
                    Err(e) if !over() => {
                        let before = progress(self.home, self.instance).remove(&name).unwrap_or_default();
                        let trouble = Some(e.to_string());
                        let now = Progress { at_ms: now_ms(), trouble, ..before };
                        tell(self.home, self.instance, &name, &now);
                    }
                    Err(_) => {}
                }
            }
            let until = Instant::now() + EVERY;
            while Instant::now() < until && !cancelled() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// A rollback takes as long as before; what follows it, where later writes are carried, takes longer than was promised.
    fn say_given_up(&self, name: &StoreName, why: &str) {
        let title = format!("which rows of {name} are written to is not recorded any more");
        let line = "a rollback is as quick as before; to find the later writes, all of the store is compared afterwards";
        super::tell(
            self.home,
            self.config,
            Severity::Info,
            "capture_ended",
            title,
            &[why.to_owned(), line.to_owned()],
        );
    }

    fn drain(
        &self,
        name: &StoreName,
        known: Option<Spool>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Spool, Progress), EngineError> {
        let capturing = self.world.data.capturing();
        let capturing = capturing
            .ok_or_else(|| EngineError::Internal { detail: "nothing can be captured".to_owned() })?;
        let mut spool = match known.filter(Spool::take_again) {
            Some(spool) => spool,
            None => {
                let path = spool_file(self.home, self.instance, name);
                let opened = Spool::open(&path, Duration::from_secs(1), drop)?;
                opened.ok_or_else(|| EngineError::Internal { detail: "the spool is gone".to_owned() })?
            }
        };
        let now = capturing.drain(&self.at(), name, &mut spool, cancelled)?;
        Ok((spool, now))
    }

    fn end(&self) {
        let Some(capturing) = self.world.data.capturing() else { return };
        for name in open_spools(self.home, self.instance) {
            // What fails is done before the next promotion, or by `gc`; what the server keeps until then has a limit.
            if let Err(e) = capturing.end(&self.at(), &name) {
                let before = progress(self.home, self.instance).remove(&name).unwrap_or_default();
                let now = Progress { at_ms: now_ms(), trouble: Some(e.to_string()), ..before };
                tell(self.home, self.instance, &name, &now);
            }
        }
    }
}
