//! What the copy itself looks like between two rounds of passes, while others may write to it.
//!
//! Owns how a file that was written to since is recognised. It must never call an entry of the copy unchanged that
//! somebody may have written to after the seal.
//!
//! # When an entry of the copy is unchanged
//!
//! All its attributes are those of the seal, the change time included, which no program can set. That this is enough
//! rests on four things:
//!
//! - **Nobody writes to the copy while it is sealed or opened again.** The caller sees to it; processes that wrote to
//!   it are gone, and their mappings with them.
//! - **Its pages were written out before it was looked at** (`syncfs`), so that the first store through a mapping made
//!   later moves the change time, as it does for the source.
//! - **The clock has moved on** by more than a tick of file times before the seal is written: a write after the seal
//!   gets a later change time than any that was recorded. An entry for which that cannot be said is unknown.
//! - **The machine was not restarted** (the record's header), and the file system is one whose change times can be
//!   relied on; elsewhere nothing is known and everything is compared.

use super::super::super::{Result, StoreError, place};
use super::super::walk::{Found, Visit, walk};
use super::places;
use super::plan::{Look, is_trusted};
use super::record::{
    Certainty, Entries, LOOK, NUMBERS, OPEN, SEALED, decode, encode, header, look_at, numbers_of,
    open_entries, write,
};
use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Numbers per entry: those of an open record, and the look of the copy.
const SEALED_NUMBERS: usize = NUMBERS + LOOK;
/// File times move in ticks of at most 10 ms (100 Hz).
const TICK_NS: i64 = 20_000_000;
/// A time without a fraction is taken for one of a file system that keeps whole seconds.
const SECOND_NS: i64 = 1_000_000_000;
/// The longest wait for the clock: a second and a tick. Later times belong to a clock that was set back.
const LONGEST_WAIT: Duration = Duration::from_millis(1100);

/// Begins a round of passes on a copy that others may have written to since the last seal.
///
/// `dst` exists and is the caller's to change. Without a seal nothing is known about it: the first pass compares all
/// of it, and removes what the source has not.
pub fn sync_begin(state: &Path) -> Result<()> {
    let mut start = Vec::new();
    let read = File::open(state).and_then(|f| f.take(SEALED.len() as u64).read_to_end(&mut start));
    if read.is_ok() && start == SEALED {
        return Ok(());
    }
    write(state, OPEN)
}

/// Ends a round of passes: makes the copy durable and records what it looks like, so that others may write to it.
///
/// Nobody writes to `dst` until this returns. It may have been moved since the last pass, but not copied.
pub fn sync_seal(src: &Path, dst: &Path, state: &Path) -> Result<()> {
    place::make_durable(dst)?;
    let (src, dst, state) = places(src, dst, state)?;
    let bytes = std::fs::read(&state).map_err(|e| StoreError::read("read", &state, e))?;
    let Some(header) = header(&src, &dst)? else { return Ok(()) };
    let Some((entries, _)) = open_entries(&bytes, &header) else { return Ok(()) };
    let Some(copy) = Looks::of(&dst)? else { return Ok(()) };
    let now = wait_until(copy.found.values().map(due).max().unwrap_or(0));
    let sealed = entries.iter().map(|(rel, (look, certainty))| {
        let own = copy.found.get(rel).filter(|own| copy.trusts(own) && due(own) <= now);
        let mut numbers = [0; SEALED_NUMBERS];
        numbers[0] = own.map_or(Certainty::Unknown, |_| *certainty).number();
        numbers[1..NUMBERS].copy_from_slice(&numbers_of(look));
        numbers[NUMBERS..].copy_from_slice(&numbers_of(&own.copied().unwrap_or_default()));
        (&**rel, numbers)
    });
    write(&state, &encode(SEALED, &header, sealed))
}

/// What is known about a copy by its sealed record: what still looks as it did. Nothing if the record is not whole or
/// about something else.
pub(super) fn reopen(bytes: &[u8], header: &[u8], dst: &Path) -> Result<Option<Entries>> {
    let Some(copy) = Looks::of(dst)? else { return Ok(None) };
    let mut entries = Entries::new();
    let whole = decode::<SEALED_NUMBERS>(SEALED, bytes, header, |rel, numbers| {
        let (source, own) = (look_at(numbers, 1)?, look_at(numbers, NUMBERS)?);
        let same = copy.found.get(rel).is_some_and(|now| *now == own && copy.trusts(now));
        let known = match Certainty::of(numbers[0]) {
            Certainty::Unknown => (Look::default(), Certainty::Unknown),
            certainty if same => (source, certainty),
            _ => (Look::default(), Certainty::Unknown),
        };
        entries.insert(rel.into(), known);
        Some(())
    });
    if whole.is_none() {
        return Ok(None);
    }
    // What was made in the copy since.
    for rel in copy.found.into_keys() {
        entries.entry(rel).or_insert((Look::default(), Certainty::Unknown));
    }
    Ok(Some(entries))
}

/// When a later write to an entry has a change time that differs from this one.
pub(super) fn due(look: &Look) -> i64 {
    let step = if look.ctime_ns % SECOND_NS == 0 { SECOND_NS } else { 0 };
    look.ctime_ns.saturating_add(step).saturating_add(TICK_NS)
}

/// The clock that file times are taken from.
pub(super) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(SECOND_NS).saturating_add(now.tv_nsec)
}

/// Waits until the clock of file times has passed a moment, but not for ever. The time then.
fn wait_until(due: i64) -> i64 {
    let began = Instant::now();
    loop {
        let now = now_ns();
        if now >= due || began.elapsed() >= LONGEST_WAIT {
            return now;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How every entry of a copy looks.
struct Looks {
    found: HashMap<Box<[u8]>, Look>,
    device: u64,
}

impl Looks {
    /// None if the file system's change times cannot be relied on.
    fn of(dst: &Path) -> Result<Option<Self>> {
        if !is_trusted(dst)? {
            return Ok(None);
        }
        let mut looks = Self { found: HashMap::new(), device: 0 };
        walk(dst, &mut looks)?;
        Ok(Some(looks))
    }

    /// Not what is mounted inside the tree.
    fn trusts(&self, look: &Look) -> bool {
        look.dev == self.device
    }
}

impl Visit for Looks {
    fn enter(&mut self, found: &Found<'_>, _: BorrowedFd<'_>) -> Result<()> {
        self.leaf(found)
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        let look = Look::of(found.stat);
        if self.found.is_empty() {
            self.device = look.dev;
        }
        self.found.insert(found.rel.into(), look);
        Ok(())
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        Ok(())
    }
    fn vanished(&mut self, _: &[u8]) -> Result<()> {
        Ok(()) // then it is not as it was
    }
}
