//! The rules of the triggers: what samples have to look like.

use super::growth::Series;
use super::kept::Samples;
use super::{Before, Sample, Signal, Trigger, logs};
use crate::config::Triggers;
use crate::duration::{human_bytes, human_ms};
use crate::ids::ServiceName;
use std::collections::BTreeSet;

/// Results of checks that are needed, and failures among them.
const EVENTS: usize = 20;
const FAILURES: usize = 3;
/// Looks in a window, windows, and how many of them have to be slow; with two it is suspect.
const WINDOW: usize = 5;
const WINDOWS: usize = 6;
const SLOW: usize = 5;
const SUSPECT: usize = 2;
/// Times that have to be known from before the promotion.
const TIMES_BEFORE: usize = 3;
/// What a service has to have grown by, and a disk to have filled by, to be looked at.
const GROWN: u64 = 32 << 20;
const FILLED: u64 = 256 << 20;
const MINUTE_MS: u64 = 60_000;
/// Growth has to show over a tenth of a trial, and is looked for in a fifth of it: what began late is not outvoted by the time before.
const GROWS_FOR: i64 = 10;
pub(super) const GROWTH_PARTS: u64 = 5;

pub(super) fn signal(
    trigger: Trigger,
    samples: &Samples,
    before: &Before,
    triggers: &Triggers,
    watch_ms: i64,
) -> Signal {
    let Some(now) = samples.last() else { return Signal::Unknown };
    match trigger {
        Trigger::Restarts => restarts(samples, now, triggers),
        Trigger::Errors => errors(samples, now, triggers),
        Trigger::Latency => latency(samples, before, triggers),
        Trigger::Logs => log_errors(samples, now, before, triggers),
        Trigger::Memory => memory(samples, now, triggers, watch_ms),
        Trigger::Disk => disk(samples, now, triggers, watch_ms),
        Trigger::Database => database(now, triggers),
    }
}

/// The worst of several; the first of equals.
fn worst(signals: impl IntoIterator<Item = Signal>) -> Signal {
    let rank = |s: &Signal| match s {
        Signal::Unknown => 0,
        Signal::Good => 1,
        Signal::Doubt(_) => 2,
        Signal::Bad(_) => 3,
    };
    let mut found = Signal::Unknown;
    for signal in signals {
        if rank(&signal) > rank(&found) {
            found = signal;
        }
    }
    found
}

/// Looks of the last while; two at least, as fewer say nothing of what changes.
fn within<'a>(samples: &'a Samples, now: &Sample, ms: u64) -> impl DoubleEndedIterator<Item = &'a Sample> {
    samples.since(now.at_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

fn restarts(samples: &Samples, now: &Sample, triggers: &Triggers) -> Signal {
    let of = &triggers.restarts;
    worst(now.services.iter().map(|(name, service)| {
        if service.out_of_memory {
            return Signal::Bad(format!("{name} ended for want of memory"));
        }
        let starts =
            within(samples, now, of.within.as_millis()).filter_map(|s| Some(s.services.get(name)?.starts));
        // A container that is made anew counts from one again.
        let (mut last, mut again) = (None::<u32>, 0);
        for starts in starts {
            again += last.map_or(0, |l| starts.saturating_sub(l));
            last = Some(starts);
        }
        let words = || format!("{name} was started again {again} times within {}", of.within);
        match again {
            0 => Signal::Good,
            n if n >= of.times => Signal::Bad(words()),
            _ => Signal::Doubt(words()),
        }
    }))
}

fn errors(samples: &Samples, now: &Sample, triggers: &Triggers) -> Signal {
    let of = &triggers.errors;
    let ids: BTreeSet<&String> = samples.iter().flat_map(|s| s.checks.keys()).collect();
    worst(ids.into_iter().map(|id| {
        let ok = |s: &Sample| Some(s.checks.get(id)?.ok);
        let mut results: Vec<bool> = within(samples, now, of.within.as_millis()).filter_map(ok).collect();
        let mut over = format!("times within {}", of.within);
        if results.len() < EVENTS {
            // Where looks are far apart, that many of them are what counts.
            let mut last: Vec<bool> = samples.iter().rev().filter_map(ok).take(EVENTS).collect();
            if last.len() > results.len() {
                last.reverse();
                (results, over) = (last, "times at the last looks".to_owned());
            }
        }
        let failed = results.iter().filter(|ok| !**ok).count();
        if results.is_empty() {
            return Signal::Unknown;
        }
        let words = format!("{id} failed {failed} of {} {over}", results.len());
        let share = failed * 100 >= results.len() * usize::try_from(of.percent).unwrap_or(usize::MAX);
        if results.len() >= EVENTS && failed >= FAILURES && share {
            return Signal::Bad(words);
        }
        // One that is some time ago and alone says nothing any more.
        let lately = results.iter().rev().take(WINDOW).any(|ok| !ok);
        if lately { Signal::Doubt(words) } else { Signal::Good }
    }))
}

fn latency(samples: &Samples, before: &Before, triggers: &Triggers) -> Signal {
    let of = &triggers.latency;
    worst(before.checks.iter().map(|(id, known)| {
        if known.len() < TIMES_BEFORE {
            return Signal::Unknown;
        }
        let usual = middle(known.clone());
        let slowest = known.iter().copied().max().unwrap_or_default();
        let limit = (usual * (100 + u64::from(of.percent)) / 100).max(of.above.as_millis()).max(slowest);
        let times: Vec<u64> = samples
            .iter()
            .rev()
            .filter_map(|s| s.checks.get(id))
            .filter(|c| c.ok)
            .map(|c| c.took_ms)
            .take(WINDOW * WINDOWS)
            .collect();
        let windows: Vec<u64> = times.chunks_exact(WINDOW).map(|w| middle(w.to_vec())).collect();
        if windows.is_empty() {
            return Signal::Unknown;
        }
        let slow = windows.iter().filter(|w| **w > limit).count();
        let words = format!(
            "{id} takes {} (median of the slow windows; {slow} of {} are), {} before the promotion",
            human_ms(middle(windows.iter().copied().filter(|w| *w > limit).collect())),
            windows.len(),
            human_ms(usual)
        );
        if windows.len() == WINDOWS && slow >= SLOW {
            Signal::Bad(words)
        } else if slow >= SUSPECT.min(windows.len()) && windows[0] > limit {
            Signal::Doubt(words)
        } else {
            Signal::Good
        }
    }))
}

fn log_errors(samples: &Samples, now: &Sample, before: &Before, triggers: &Triggers) -> Signal {
    let of = &triggers.logs;
    let spread = spread_ms(samples, now);
    worst(now.services.keys().map(|name| {
        let (mut lines, mut looks, mut example) = (0u32, 0, None);
        for service in within(samples, now, MINUTE_MS).filter_map(|s| s.services.get(name)) {
            let new: Vec<_> = service.errors.iter().filter(|(text, _)| !known(before, name, text)).collect();
            if let Some((text, _)) = new.iter().find(|(text, _)| logs::is_fatal(text)) {
                return Signal::Bad(format!("{name} logs for the first time: {text}"));
            }
            let Some((text, _)) = new.first() else { continue };
            lines = new.iter().fold(lines, |sum, (_, n)| sum.saturating_add(**n));
            looks += 1;
            example = Some(*text);
        }
        let Some(example) = example else { return Signal::Good };
        let lines = u64::from(lines) * MINUTE_MS / spread;
        let words = format!("{name} logs errors that are new, {lines} lines within a minute: {example}");
        let per_minute = u64::from(of.per_minute);
        // One message of many lines is not many messages.
        if lines >= per_minute && looks > 1 {
            Signal::Bad(words)
        } else if lines.saturating_mul(2) >= per_minute {
            Signal::Doubt(words)
        } else {
            Signal::Good
        }
    }))
}

/// The time in which what the looks of the last minute read was logged: a minute, or that of two looks where they are further apart.
fn spread_ms(samples: &Samples, now: &Sample) -> u64 {
    let mut earlier = samples.iter().rev().skip(1);
    let Some(last) = earlier.next() else { return MINUTE_MS };
    let apart = now.at_ms.saturating_sub(last.at_ms);
    if apart < MINUTE_MS.cast_signed() {
        return MINUTE_MS;
    }
    let from = earlier.next().map_or(last.at_ms.saturating_sub(apart), |s| s.at_ms);
    u64::try_from(now.at_ms.saturating_sub(from)).unwrap_or(MINUTE_MS).max(MINUTE_MS)
}

fn known(before: &Before, service: &ServiceName, text: &str) -> bool {
    before.errors.get(service).is_some_and(|known| known.contains(text))
}

fn memory(samples: &Samples, now: &Sample, triggers: &Triggers, watch_ms: i64) -> Signal {
    let percent = u64::from(triggers.memory.percent);
    worst(now.services.iter().map(|(name, service)| {
        let used = service.memory_bytes;
        let free = now.memory_free_bytes.map(|f| used.saturating_add(f));
        let Some(most) = service.memory_limit_bytes.into_iter().chain(free).min() else {
            return Signal::Unknown;
        };
        let limit = most / 100 * percent;
        if service.memory_limit_bytes == Some(most) && used >= limit {
            let (used, most) = (human_bytes(used), human_bytes(most));
            return Signal::Bad(format!("{name} uses {used} of the {most} that it may use"));
        }
        // A restart gives memory back: only what came after it tells of growth.
        let looks = samples.late_or_within(watch_ms / GROWTH_PARTS.cast_signed());
        let same = looks.rev().filter_map(|s| Some((s.at_ms, s.services.get(name)?)));
        let mut series: Vec<(i64, u64)> = same
            .take_while(|(_, s)| s.starts == service.starts)
            .map(|(at, s)| (at, s.memory_bytes))
            .collect();
        series.reverse();
        match Series::new(series).reaches(limit, GROWN, watch_ms / GROWS_FOR) {
            Some(ms) if ms <= u64::try_from(watch_ms).unwrap_or(0) => Signal::Bad(format!(
                "{name} uses {} and grows: it reaches {} in {}",
                human_bytes(used),
                human_bytes(limit),
                human_ms(ms)
            )),
            _ => Signal::Good,
        }
    }))
}

fn disk(samples: &Samples, now: &Sample, triggers: &Triggers, watch_ms: i64) -> Signal {
    let Some(free) = now.disk_free_bytes else { return Signal::Unknown };
    let floor = triggers.disk.free_mib.saturating_mul(1 << 20);
    if free < floor {
        return Signal::Bad(format!("{} are free", human_bytes(free)));
    }
    // What is used, counted from an end that does not matter.
    let looks = || samples.late_or_within(watch_ms / GROWTH_PARTS.cast_signed());
    let most = looks().filter_map(|s| s.disk_free_bytes).max().unwrap_or(free);
    let used = looks().filter_map(|s| Some((s.at_ms, most - s.disk_free_bytes?)));
    match Series::new(used).reaches(most - floor, FILLED, watch_ms / GROWS_FOR) {
        Some(ms) if ms <= u64::try_from(watch_ms).unwrap_or(0) => Signal::Bad(format!(
            "{} are free and get less: it will be {} in {}",
            human_bytes(free),
            human_bytes(floor),
            human_ms(ms)
        )),
        _ => Signal::Good,
    }
}

fn database(now: &Sample, triggers: &Triggers) -> Signal {
    let of = &triggers.database;
    worst(now.databases.iter().map(|(name, seen)| {
        if seen.lock_wait_ms >= of.lock_wait.as_millis() {
            return Signal::Bad(format!(
                "a session of {name} has waited for a lock for {}",
                human_ms(seen.lock_wait_ms)
            ));
        }
        if seen.most > 0 && seen.connections * 100 >= seen.most * u64::from(of.connections_percent) {
            return Signal::Bad(format!(
                "{} of {} connections to {name} are in use",
                seen.connections, seen.most
            ));
        }
        Signal::Good
    }))
}

fn middle(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
