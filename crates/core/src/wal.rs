//! Point-in-time recovery: which segments of a write-ahead log lie in a repository, and which of them lead from a backup to a moment.
//!
//! A chain is what one server wrote without a gap, also through promotions: a generation's data is a clone of the one before,
//! and its log goes on where that one's stopped. Two generations may hold different segments of the same name, so a segment
//! is known by its generation, too.

use crate::ids::{GenerationId, StoreName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The tag of snapshots with segments.
pub const TAG: &str = "switchback-wal";
/// Where they lie in a snapshot.
pub const ROOT: &str = "/wal";

/// A stretch of a log in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The store.
    pub store: StoreName,
    /// The chain it belongs to.
    pub chain: String,
    /// The generation that wrote it.
    pub generation: GenerationId,
    /// The generation that this one was cloned from, if the chain goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<GenerationId>,
    /// When this generation was made; UTC, milliseconds since 1970.
    pub born_ms: i64,
    /// The server's time line.
    pub timeline: u32,
    /// Bytes of a segment.
    pub size: u64,
    /// The first segment.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// From this moment on (UTC, milliseconds since 1970) everything that was committed is in it or before it, ...
    pub from_ms: i64,
    /// ... and up to this one, which it has a commit after.
    pub until_ms: i64,
}

impl Stretch {
    /// The folder of its segments in a snapshot.
    pub fn folder(&self) -> String {
        format!("{ROOT}/{}/g{}", self.store, self.generation)
    }

    /// The name of a segment.
    pub fn name(&self, number: u64) -> String {
        segment_name(self.timeline, number, self.size)
    }

    /// Whether another one goes on where this one ends, within the same hour, so that both can be one.
    pub fn goes_on(&self, next: &Self) -> bool {
        const HOUR_MS: i64 = 3_600_000;
        self.store == next.store
            && self.chain == next.chain
            && self.generation == next.generation
            && self.timeline == next.timeline
            && self.until_ms == next.from_ms
            && self.last.saturating_add(1) == next.first
            && self.from_ms.div_euclid(HOUR_MS) == next.until_ms.div_euclid(HOUR_MS)
    }

    /// Both as one.
    pub fn with(&self, next: &Self) -> Self {
        Self { last: next.last, until_ms: next.until_ms, ..self.clone() }
    }
}

/// What the server calls a segment.
pub fn segment_name(timeline: u32, number: u64, size: u64) -> String {
    let each = (1 << 32) / size.max(1);
    format!("{timeline:08X}{:08X}{:08X}", number / each.max(1), number % each.max(1))
}

/// A stretch, and the snapshot that it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The snapshot's whole id.
    pub snapshot: String,
    /// The stack.
    pub stack: String,
    /// What is in it.
    pub stretch: Stretch,
}

/// Where a backup stands in the log of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The chain.
    pub chain: String,
    /// The generation that was backed up.
    pub generation: GenerationId,
    /// The segment that replaying begins with.
    pub redo: u64,
}

/// By store.
pub type Bases = BTreeMap<StoreName, Base>;

/// A backup that replaying can begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin<'a> {
    /// The snapshot's whole id.
    pub snapshot: &'a str,
    /// The moment of its data.
    pub at_ms: i64,
    /// Where it stands.
    pub bases: &'a Bases,
}

/// Segments of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The snapshot's whole id.
    pub snapshot: String,
    /// The folder in it.
    pub folder: String,
    /// Names of the segments.
    pub names: Vec<String>,
}

/// What leads to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The backup to begin with: the snapshot's whole id.
    pub base: String,
    /// The moment of that.
    pub base_ms: i64,
    /// The segments, by store.
    pub pieces: BTreeMap<StoreName, Vec<Piece>>,
}

/// Why nothing leads to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWay {
    /// No store's log is archived, or there is no backup before the moment.
    Nothing,
    /// Nothing was archived of this store that holds the moment.
    NotArchived(StoreName),
    /// No backup of the same chain was made before the moment.
    NoBase(StoreName),
    /// A segment is missing.
    Missing {
        /// The store.
        store: StoreName,
        /// Its name.
        segment: String,
        /// The generation that wrote it.
        generation: GenerationId,
    },
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no log is archived"),
            Self::NotArchived(store) => write!(f, "no archived log of {store} holds that moment"),
            Self::NoBase(store) => {
                write!(f, "there is no backup before that moment from which the log of {store} goes on")
            }
            Self::Missing { store, segment, generation } => {
                write!(
                    f,
                    "segment {segment} of {store} (generation {generation}) is missing in the repository"
                )
            }
        }
    }
}

/// The generations that led to one, each with the first segment that is its own and when it was made; the youngest first.
fn lineage(kept: &[&Kept], chain: &str, generation: GenerationId) -> Vec<(GenerationId, u64, i64)> {
    let mut found = Vec::new();
    let mut next = Some(generation);
    while let Some(id) = next {
        let own = || kept.iter().map(|k| &k.stretch).filter(|s| s.chain == chain && s.generation == id);
        let Some(first) = own().map(|s| s.first).min() else { break };
        let born = own().map(|s| s.born_ms).min().unwrap_or(i64::MIN);
        found.push((id, first, born));
        next = own().find_map(|s| s.parent).filter(|p| !found.iter().any(|(g, ..)| g == p));
    }
    found
}

/// What leads to a moment: the newest backup before it from which the logs of all these stores go on to it.
pub fn way(
    stores: &BTreeSet<StoreName>,
    begins: &[Begin<'_>],
    kept: &[Kept],
    at_ms: i64,
) -> Result<Way, NoWay> {
    let mut ends: Vec<(&StoreName, Vec<&Kept>, &Stretch)> = Vec::new();
    for store in stores {
        let own: Vec<&Kept> = kept.iter().filter(|k| k.stretch.store == *store).collect();
        // A generation that was returned to has a stretch over the time of another one, too: the shortest is right.
        let holds = |s: &&Stretch| s.from_ms <= at_ms && at_ms < s.until_ms;
        let end = own.iter().map(|k| &k.stretch).filter(holds).min_by_key(|s| s.until_ms);
        let Some(end) = end else { return Err(NoWay::NotArchived(store.clone())) };
        ends.push((store, own, end));
    }
    let mut fitting: Vec<&Begin<'_>> = begins.iter().filter(|b| b.at_ms <= at_ms).collect();
    fitting.sort_by_key(|b| b.at_ms);
    for (store, own, end) in &ends {
        let line = lineage(own, &end.chain, end.generation);
        fitting.retain(|begin| {
            let Some(base) = begin.bases.get(*store).filter(|b| b.chain == end.chain) else { return false };
            let Some(place) = line.iter().position(|(g, ..)| *g == base.generation) else { return false };
            // One of the generation before the next was cloned from it.
            place
                .checked_sub(1)
                .and_then(|child| line.get(child))
                .is_none_or(|(.., born)| begin.at_ms <= *born)
        });
        if fitting.is_empty() {
            return Err(NoWay::NoBase((*store).clone()));
        }
    }
    let Some(begin) = fitting.last().filter(|_| !stores.is_empty()) else { return Err(NoWay::Nothing) };
    let mut pieces = BTreeMap::new();
    for (store, own, end) in ends {
        let Some(base) = begin.bases.get(store) else { return Err(NoWay::NoBase(store.clone())) };
        pieces.insert(store.clone(), gathered(store, &own, end, base.redo)?);
    }
    Ok(Way { base: begin.snapshot.to_owned(), base_ms: begin.at_ms, pieces })
}

/// The segments from one up to the end of a stretch, each from the generation that it counts of.
fn gathered(store: &StoreName, own: &[&Kept], end: &Stretch, redo: u64) -> Result<Vec<Piece>, NoWay> {
    let line = lineage(own, &end.chain, end.generation);
    let mut pieces: Vec<Piece> = Vec::new();
    for number in redo..=end.last {
        let of = line.iter().find(|(_, first, _)| number >= *first).or(line.last());
        let Some((generation, ..)) = of else { return Err(NoWay::NotArchived(store.clone())) };
        let has = |s: &Stretch| {
            s.chain == end.chain && s.generation == *generation && (s.first..=s.last).contains(&number)
        };
        let Some(found) = own.iter().find(|k| has(&k.stretch)) else {
            let (segment, generation) = (end.name(number), *generation);
            return Err(NoWay::Missing { store: store.clone(), segment, generation });
        };
        let name = found.stretch.name(number);
        match pieces.last_mut() {
            Some(last) if last.snapshot == found.snapshot => last.names.push(name),
            _ => pieces.push(Piece {
                snapshot: found.snapshot.clone(),
                folder: found.stretch.folder(),
                names: vec![name],
            }),
        }
    }
    Ok(pieces)
}

/// The times that can be returned to, each from and until, in their order.
pub fn windows(stores: &BTreeSet<StoreName>, begins: &[Begin<'_>], kept: &[Kept]) -> Vec<(i64, i64)> {
    let Some(first) = stores.first() else { return Vec::new() };
    let mut edges: Vec<(i64, i64)> = Vec::new();
    for stretch in kept.iter().map(|k| &k.stretch).filter(|s| s.store == *first) {
        let can = |at: i64| at < stretch.until_ms && way(stores, begins, kept, at).is_ok();
        let within = |at: &i64| (stretch.from_ms..stretch.until_ms).contains(at);
        let starts = std::iter::once(stretch.from_ms).chain(begins.iter().map(|b| b.at_ms).filter(within));
        // Another store's log may end earlier.
        let others = kept.iter().map(|k| &k.stretch).filter(|s| s.store != *first).map(|s| s.until_ms);
        let until =
            others.filter(|at| within(&(at - 1))).chain([stretch.until_ms]).filter(|at| can(at - 1)).max();
        if let (Some(from), Some(until)) = (starts.filter(|at| can(*at)).min(), until) {
            edges.push((from, until));
        }
    }
    edges.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (from, until) in edges {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => merged.push((from, until)),
        }
    }
    merged
}

/// Snapshots of segments that no kept backup needs, or (with `keep_ms`) that lead only to moments longer ago: those are kept
/// from the newest backup before that on. What has no backup yet is kept: one may be being made.
pub fn useless(begins: &[Begin<'_>], kept: &[Kept], now_ms: i64, keep_ms: Option<i64>) -> Vec<String> {
    let oldest = keep_ms.map(|keep| now_ms.saturating_sub(keep));
    let mut gone = Vec::new();
    for one in kept {
        let stretch = &one.stretch;
        let mut bases: Vec<(i64, &Base)> = begins
            .iter()
            .filter_map(|b| Some((b.at_ms, b.bases.get(&stretch.store)?)))
            .filter(|(_, base)| base.chain == stretch.chain)
            .collect();
        bases.sort_by_key(|(at, _)| *at);
        // Those before the newest one that is old enough are not needed for it.
        if let Some(oldest) = oldest {
            let newest_old = bases.iter().rposition(|(at, _)| *at <= oldest).unwrap_or(0);
            bases.drain(..newest_old);
        }
        let needed = match bases.first() {
            Some((_, base)) => stretch.last >= base.redo,
            None => now_ms.saturating_sub(stretch.until_ms) < DAY_MS,
        };
        if !needed {
            gone.push(one.snapshot.clone());
        }
    }
    gone
}

const DAY_MS: i64 = 86_400_000;

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
