//! Archiving the logs of Postgres stores: what was written is brought into the repository by the clock, and nothing is lost on the way.
//!
//! The server keeps its log from where it was archived last, in a replication slot, and bounds that itself. A round marks the log,
//! reads the complete segments where the server wrote them, writes them into the repository, and only then lets the server
//! forget them. Whatever is killed in between, the next round does the same again. It must never take the stack's lock, never write
//! to production's volumes, and never join logs of two histories.

use super::vault::Vault;
mod moments;

pub use moments::{based, bases, begins, find, kept, newest, way_to};

use super::configured;
use crate::data::{Here, Logs, Work};
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::fault;
use crate::home::{Home, read_json, write_json};
use crate::journal::Journal;
use crate::lock::Lock;
use crate::notify;
use crate::runtime::{Placement, Stage};
use crate::store::Progress;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use switchback_core::backup::{Kind, Note, Stamp};
use switchback_core::config::{Backup, Config, Wal};
use switchback_core::ids::{GenerationId, StoreName};
use switchback_core::notify::Severity;
use switchback_core::plan::Procedure;
use switchback_core::release::FORMAT;
use switchback_core::wal::Stretch;

/// A server that writes nothing is marked so often nevertheless: the moments up to then can be returned to.
const IDLE_MS: i64 = 5 * 60 * 1000;
/// A segment begins with a header, and no record is shorter than the rest.
const HEADER: u64 = 64;
/// So many segments are written into the repository at once.
const AT_ONCE: u64 = 256;
/// What is later than this many times `every` is late, ...
const LATE_TIMES: i64 = 10;
/// ... but nothing that is this young.
const LATE_MS: i64 = 5 * 60 * 1000;

/// What is known of the chains, in `.switchback/wal.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chains {
    format: u32,
    /// By store.
    pub stores: BTreeMap<StoreName, Chain>,
}

/// The chain of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name.
    pub chain: String,
    /// The server's cluster.
    pub system: String,
    /// Its time line.
    pub timeline: u32,
    /// Bytes of a segment.
    pub size: u64,
    /// The first segment.
    pub first: u64,
    /// The generation that writes it.
    pub generation: GenerationId,
    /// What is known of each generation.
    pub generations: BTreeMap<GenerationId, Reach>,
    /// The moment of the newest backup that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_ms: Option<i64>,
    /// The stretch that was written last, and its snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<(String, Stretch)>,
    /// Where the server wrote after the last round: what is beyond was not archived.
    #[serde(default)]
    pub idle_at: u64,
    /// Why the last round went wrong, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// That it is late was told.
    #[serde(default)]
    pub told: bool,
}

/// How far a generation is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The generation it was cloned from, if the chain goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<GenerationId>,
    /// When it was made.
    pub born_ms: i64,
    /// The next segment.
    pub next: u64,
    /// Everything up to this moment is archived.
    pub until_ms: i64,
}

impl Chain {
    /// Everything up to this moment is archived.
    pub fn until_ms(&self) -> i64 {
        self.generations.get(&self.generation).map_or(i64::MIN, |r| r.until_ms)
    }
}

/// What a round did for a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shipped {
    /// Segments that were written into the repository.
    pub segments: u64,
    /// Everything up to this moment is archived; UTC, milliseconds since 1970.
    pub until_ms: i64,
    /// Whether a backup is needed before anything can be returned to.
    pub needs_backup: bool,
    /// What a person should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn file(home: &Home) -> PathBuf {
    home.state().join("wal.json")
}

/// What is known of the chains.
pub fn chains(home: &Home) -> Result<Chains, EngineError> {
    let path = file(home);
    if path.exists() { read_json(&path) } else { Ok(Chains { format: FORMAT, ..Chains::default() }) }
}

/// How long moments can be returned to, in milliseconds; `None` without archiving.
pub fn keep_ms(backup: &Backup) -> Option<i64> {
    backup.wal.as_ref().map(|w| i64::try_from(w.keep.as_millis()).unwrap_or(i64::MAX))
}

/// What is configured, if anything is.
pub fn wanted(config: &Config) -> Option<&Wal> {
    config.backup.as_ref()?.wal.as_ref().filter(|_| !config.archived().is_empty())
}

/// Since when a store's chain has no backup that anything could be replayed from, if there is such a store.
pub fn needs_backup(home: &Home, config: &Config) -> Result<Option<i64>, EngineError> {
    if wanted(config).is_none() {
        return Ok(None);
    }
    let known = chains(home)?;
    let without = |c: &&Chain| c.based_ms.is_none();
    let began = |c: &Chain| c.generations.values().map(|r| r.born_ms).min().unwrap_or(i64::MIN);
    Ok(config.archived().iter().filter_map(|s| known.stores.get(s)).filter(without).map(began).max())
}

/// One round: what was written since the last is archived. By store.
pub fn round(
    home: &Home,
    config: &Config,
    progress: &Progress<'_>,
) -> Result<BTreeMap<StoreName, Shipped>, EngineError> {
    let wal = wanted(config).ok_or_else(|| {
        EngineError::refused(
            "no log is archived",
            "write into switchback.yaml:  backup: { repository: ..., wal: {} }  (Postgres stores of a Compose stack)",
        )
    })?;
    // A command of a person and the keeper may come together: one after the other.
    let _own = Lock::take(&home.state().join("wal.lock"), "archiving", Duration::from_secs(60))?;
    let world = World::open(config)?;
    let vault = Vault::of_stack(home, configured(config)?)?;
    let (_, production) = crate::gather::production(home, config, &world)?;
    let release = home.release(&production.release)?;
    let at = Placement { home, config, instance: &production, release: &release };
    let Some(logs) = world.data.logs() else { return Ok(BTreeMap::new()) };
    let mut known = chains(home)?;
    let mut done = BTreeMap::new();
    let mut failed = None;
    for store in config.archived() {
        let mut chain = known.stores.get(&store).cloned();
        let round = Round { at: &at, logs, vault: &vault, wal, store: &store, progress };
        match round.carry_out(&mut chain) {
            Ok(shipped) => {
                if let Some(chain) = &mut chain {
                    chain.problem = None;
                }
                done.extend(shipped.map(|s| (store.clone(), s)));
            }
            Err(e) => {
                if let Some(chain) = &mut chain {
                    chain.problem = Some(e.to_string());
                }
                failed = Some(e);
            }
        }
        if let Some(chain) = chain {
            known.stores.insert(store.clone(), chain);
        }
        known.format = FORMAT;
        write_json(&file(home), &known)?;
        fault::point(fault::Way::Do, "wal-recorded", fault::At::During);
        // Last: what is released can never be archived again.
        if let Some(chain) = known.stores.get(&store)
            && let Err(e) = round.release(chain)
        {
            failed = Some(e);
        }
    }
    failed.map_or(Ok(done), Err)
}

/// A round of one store.
struct Round<'a> {
    at: &'a Placement<'a>,
    logs: &'a dyn Logs,
    vault: &'a Vault,
    wal: &'a Wal,
    store: &'a StoreName,
    progress: &'a Progress<'a>,
}

impl Round<'_> {
    fn carry_out(&self, chain: &mut Option<Chain>) -> Result<Option<Shipped>, EngineError> {
        // While production is stopped or switched nothing is written, and nothing is lost.
        let Some(here) = self.logs.state(self.at, self.store)? else { return Ok(None) };
        let note = match self.goes_on(chain.as_mut(), &here)? {
            None => None,
            Some(why) => {
                *chain = Some(self.begin()?);
                why
            }
        };
        let Some(chain) = chain else { return Ok(None) };
        let here = if note.is_some() || here.slot.is_none() {
            self.logs.state(self.at, self.store)?.unwrap_or(here)
        } else {
            here
        };
        // Another generation is somewhere else in its log.
        let idle = here.now.0.checked_sub(chain.idle_at).is_some_and(|more| more < HEADER);
        let mut segments = 0;
        // A backup that is newer than what is archived leads to no moment yet.
        let new = chain.based_ms.is_some_and(|base| base >= chain.until_ms());
        if !idle || new || now_ms().saturating_sub(chain.until_ms()) >= IDLE_MS {
            segments = self.ship(chain, &here)?;
        }
        Ok(Some(Shipped {
            segments,
            until_ms: chain.until_ms(),
            needs_backup: chain.based_ms.is_none(),
            note,
        }))
    }

    /// Whether what the server has goes on from what is archived; if not, a chain begins, for a reason that is told if
    /// another one ends with it.
    fn goes_on(&self, chain: Option<&mut Chain>, here: &Here) -> Result<Option<Option<String>>, EngineError> {
        let Some(chain) = chain else { return Ok(Some(None)) };
        let new = |why: &str| Ok(Some(Some(format!("a new chain begins: {why}"))));
        if chain.system != here.system || chain.timeline != here.timeline {
            return new("the server has another history");
        }
        let Some(slot) = here.slot else {
            return new(if here.has_slot {
                "the repository was away for so long that the server forgot what was not archived (backup.wal.limit_gib)"
            } else {
                "the server does not keep its log for us any more"
            });
        };
        let kept = slot.0 / here.size.max(1);
        let own = self.at.instance.generation;
        let before = chain.generation;
        if own == before {
            let next = chain.generations.get(&own).map_or(0, |r| r.next);
            return if kept <= next { Ok(None) } else { new("segments are missing") };
        }
        if let Some(reach) = chain.generations.get_mut(&own) {
            if kept > reach.next {
                return new("segments are missing");
            }
            // Returned to: what was committed while another one was production is not in it.
            reach.until_ms = now_ms();
            (chain.generation, chain.idle_at) = (own, 0);
            return Ok(None);
        }
        let Some(reach) = chain.generations.get(&before) else { return new("its beginning is not known") };
        let (next, until_ms) = (reach.next, reach.until_ms);
        let made = self.at.home.generation(own)?;
        if made.previous != Some(before) || kept > next || !self.promoted(&made.created_by)? {
            return new("production's data is no clone of what was archived");
        }
        let born_ms = made.created_at_ms;
        chain.generations.insert(own, Reach { parent: Some(before), born_ms, next, until_ms });
        (chain.generation, chain.idle_at) = (own, 0);
        Ok(None)
    }

    /// Whether a run was a promotion: its generation's data is a clone of the one before.
    fn promoted(&self, run: &switchback_core::ids::RunId) -> Result<bool, EngineError> {
        let Some(journal) = Journal::open_read(&self.at.home.state().join("journal.db"))? else {
            return Ok(false);
        };
        Ok(journal.load(run)?.0.procedure == Procedure::Promote)
    }

    /// Begins a chain: from now on the server keeps its log for us.
    fn begin(&self) -> Result<Chain, EngineError> {
        self.logs.open(self.at, self.store, self.wal.limit_gib)?;
        let gone = || EngineError::refused("the server went away", "it is tried again");
        let here = self.logs.state(self.at, self.store)?.ok_or_else(gone)?;
        let slot = here.slot.ok_or_else(gone)?;
        let generation = self.at.instance.generation;
        let now = now_ms();
        let reach = Reach { parent: None, born_ms: now, next: slot.0 / here.size.max(1), until_ms: now };
        Ok(Chain {
            chain: ulid::Ulid::generate().to_string(),
            system: here.system,
            timeline: here.timeline,
            size: here.size,
            first: slot.0 / here.size.max(1),
            generation,
            generations: BTreeMap::from([(generation, reach)]),
            based_ms: None,
            last: None,
            idle_at: 0,
            problem: None,
            told: false,
        })
    }

    /// Lets the server forget what is archived.
    fn release(&self, chain: &Chain) -> Result<(), EngineError> {
        let own = self.at.instance.generation;
        match chain.generations.get(&own).filter(|_| chain.generation == own) {
            Some(reach) if self.logs.state(self.at, self.store)?.is_some() => {
                self.logs.release(self.at, self.store, reach.next, chain.size)
            }
            _ => Ok(()),
        }
    }

    /// Archives the complete segments.
    fn ship(&self, chain: &mut Chain, here: &Here) -> Result<u64, EngineError> {
        let generation = chain.generation;
        let Some(reach) = chain.generations.get(&generation).cloned() else { return Ok(0) };
        let mark = self.logs.mark(self.at, self.store, here.size)?;
        fault::point(fault::Way::Do, "wal-marked", fault::At::During);
        let (mut next, mut from_ms, mut segments) = (reach.next, reach.until_ms, 0);
        while next <= mark.last {
            let last = mark.last.min(next.saturating_add(AT_ONCE - 1));
            // Only what holds the mark is known to hold everything before it.
            let until_ms = if last == mark.last { mark.at_ms.max(from_ms) } else { from_ms };
            let stretch = Stretch {
                store: self.store.clone(),
                chain: chain.chain.clone(),
                generation,
                parent: reach.parent,
                born_ms: reach.born_ms,
                timeline: here.timeline,
                size: here.size,
                first: next,
                last,
                from_ms,
                until_ms,
            };
            let names: Vec<String> = (next..=last).map(|n| stretch.name(n)).collect();
            let before = chain.last.as_ref().filter(|(_, s)| s.goes_on(&stretch));
            let whole = before.map_or_else(|| stretch.clone(), |(_, s)| s.with(&stretch));
            let stamp = Stamp {
                kind: Kind::Wal,
                note: Some(Note::Stretch(whole.clone())),
                with: before.map(|(id, _)| id.clone()),
                ..Stamp::new(self.at.config.stack.to_string(), until_ms)
            };
            let folder = stretch.folder();
            let work = Work { stage: Stage::quiet(), progress: self.progress, temp: &self.at.home.state() };
            let segments_of = (names.as_slice(), folder.as_str());
            let made = match self.logs.ship(self.at, self.store, self.vault, segments_of, &stamp, &work) {
                // What it should be added to may be gone: another program thinned the repository out.
                Err(_) if stamp.with.is_some() => {
                    let note = Some(Note::Stretch(stretch.clone()));
                    let alone = Stamp { note, with: None, ..stamp };
                    let made = self.logs.ship(self.at, self.store, self.vault, segments_of, &alone, &work)?;
                    chain.last = Some((made.snapshot.id.clone(), stretch));
                    made
                }
                made => {
                    let made = made?;
                    chain.last = Some((made.snapshot.id.clone(), whole));
                    made
                }
            };
            drop(made);
            fault::point(fault::Way::Do, "wal-archived", fault::At::During);
            segments += last - next + 1;
            next = last + 1;
            from_ms = until_ms;
        }
        if let Some(reach) = chain.generations.get_mut(&generation) {
            reach.next = next;
            reach.until_ms = from_ms.max(reach.until_ms);
        }
        chain.idle_at = next.saturating_mul(here.size);
        Ok(segments)
    }
}

/// What the keeper does: a round, when it is time, and what must be told. `true` if there was one.
pub fn keep(home: &Home, config: &Config, say: &dyn Fn(&str)) -> Result<bool, EngineError> {
    let Some(wal) = wanted(config) else {
        return forget(home, config).map(|()| false);
    };
    let done = round(home, config, &Progress::none());
    if let Ok(done) = &done {
        for (store, shipped) in done {
            if let Some(note) = &shipped.note {
                say(&format!("{store}: {note}"));
                let lines = [note.clone(), "a backup is made, from which it goes on".to_owned()];
                let title = format!(
                    "moments of {store} before now cannot be returned to from here on without a backup"
                );
                notify::tell(
                    home,
                    config,
                    notify::message(config, Severity::Bad, "wal_broken", title, &lines),
                );
            }
        }
    }
    let mut known = chains(home)?;
    let mut changed = false;
    if let Err(e) = &done {
        for chain in known.stores.values_mut().filter(|c| c.problem.is_none()) {
            (chain.problem, changed) = (Some(e.to_string()), true);
        }
    }
    let late_ms =
        i64::try_from(wal.every.as_millis()).unwrap_or(i64::MAX).saturating_mul(LATE_TIMES).max(LATE_MS);
    for (store, chain) in &mut known.stores {
        let behind = now_ms().saturating_sub(chain.until_ms());
        let late = chain.problem.is_some() && behind > late_ms;
        if late == chain.told {
            continue;
        }
        (chain.told, changed) = (late, true);
        let why = chain.problem.clone().unwrap_or_default();
        let (severity, event, title) = match late {
            true => (
                Severity::Bad,
                "wal_late",
                format!(
                    "the log of {store} was not archived since {}",
                    switchback_core::times::utc(chain.until_ms())
                ),
            ),
            false => (Severity::Good, "wal_well", format!("the log of {store} is archived again")),
        };
        say(&title);
        notify::tell(home, config, notify::message(config, severity, event, title, &[why]));
    }
    if changed {
        write_json(&file(home), &known)?;
    }
    done.map(|_| true)
}

/// Archiving was switched off: the servers need not keep anything any more.
fn forget(home: &Home, config: &Config) -> Result<(), EngineError> {
    let known = chains(home)?;
    if known.stores.is_empty() {
        return Ok(());
    }
    let world = World::open(config)?;
    let (_, production) = crate::gather::production(home, config, &world)?;
    let release = home.release(&production.release)?;
    let at = Placement { home, config, instance: &production, release: &release };
    if let Some(logs) = world.data.logs() {
        for store in known.stores.keys().filter(|s| production.stores.contains_key(*s)) {
            if logs.state(&at, store)?.is_some() {
                logs.close(&at, store)?;
            }
        }
    }
    let path = file(home);
    std::fs::remove_file(&path).map_err(crate::error::io("remove", &path))
}
