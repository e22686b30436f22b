//! What the history of a stack says: upgrades tried, prevented, promoted and rolled back, and how long things took.
//!
//! A projection of runs, like everything that is shown. Terms as in DORA's metrics: change failure rate, time to restore. Owns the
//! numbers, their trend over a time, its pictures and its tables; it must never read a clock: the time is passed in.

mod past;
mod period;
pub mod picture;
pub mod table;
mod trends;

use crate::check::Verdict;
use crate::plan::Procedure;
use crate::report::Conclusion;
pub use past::{Past, left_by, time_to_restore};
pub use period::{Period, Width};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
pub use trends::{Bucket, Trends};

/// The name of the format.
pub const SCHEMA: &str = "switchback.history/2";

/// Several durations: middle, worst, how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Median, in milliseconds.
    pub median_ms: u64,
    /// The longest, in milliseconds.
    pub longest_ms: u64,
}

impl Spread {
    fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        Self {
            count: all.len(),
            median_ms: all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(0),
            longest_ms: all.last().copied().unwrap_or(0),
        }
    }
}

/// A check that prevented bad upgrades, or that does not always say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCount {
    /// Its id.
    pub check: String,
    /// How often.
    pub count: usize,
}

/// The numbers of a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analytics {
    /// [`SCHEMA`].
    pub schema: String,
    /// Start of the first run that counts, UTC, milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// End of the last.
    pub to_ms: Option<i64>,
    /// Runs of all kinds.
    pub runs: usize,
    /// Upgrades that were rehearsed.
    pub rehearsed: usize,
    /// Of these: refused.
    pub refused: usize,
    /// Of these: could not be judged.
    pub inconclusive: usize,
    /// Promotions that reached production.
    pub promoted: usize,
    /// Of these: failed on trial, and were rolled back by themselves.
    pub rolled_back: usize,
    /// Of these: rolled back, by themselves or by command, in whole or single services.
    pub failed: usize,
    /// Promotions that were undone before they reached production.
    pub undone: usize,
    /// Rollbacks that a person asked for.
    pub rollbacks: usize,
    /// Promotions that were rolled back per promotion; none without promotions.
    pub change_failure_rate: Option<f64>,
    /// From the failure until production answered again; see [`time_to_restore`].
    pub restore: Spread,
    /// The rollbacks themselves, from the first stop until everything was read back.
    pub rollback: Spread,
    /// Production's outage in a rollback.
    pub rollback_downtime: Spread,
    /// Production's outage in a promotion.
    pub downtime: Spread,
    /// Which checks refused rehearsals, the busiest first.
    pub prevented_by: Vec<CheckCount>,
    /// Checks that said different things of the same change, the busiest first.
    pub flaky: Vec<CheckCount>,
}

fn busiest(counts: BTreeMap<String, usize>) -> Vec<CheckCount> {
    let mut all: Vec<CheckCount> =
        counts.into_iter().map(|(check, count)| CheckCount { check, count }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.check.cmp(&b.check)));
    all
}

/// What the runs that began in a time say together. Runs outside it count only for what they say of those within: a promotion
/// that was rolled back later failed.
pub fn analyse(runs: &[Past], period: Period) -> Analytics {
    let within: Vec<&Past> = runs.iter().filter(|r| period.holds(r.report.started_at_ms)).collect();
    let of = |procedure: Procedure| {
        let all = within.iter().copied().filter(move |r| r.report.procedure == procedure);
        all.filter(|r| r.report.conclusion != Conclusion::Unfinished).collect::<Vec<_>>()
    };
    let with = |list: &[&Past], conclusion: Conclusion| {
        list.iter().filter(|r| r.report.conclusion == conclusion).count()
    };
    let (rehearsed, promotions) = (of(Procedure::Rehearse), of(Procedure::Promote));
    let rollbacks: Vec<&Past> = within.iter().copied().filter(|r| r.rolled_back()).collect();
    let promoted: Vec<&Past> = promotions.iter().copied().filter(|r| r.promoted()).collect();
    let gone = |p: &&&Past| p.failed_on_trial() || left_by(runs, p).is_some();
    let failed = promoted.iter().filter(gone).count();
    Analytics {
        schema: SCHEMA.to_owned(),
        from_ms: within.iter().map(|r| r.report.started_at_ms).min(),
        to_ms: within.iter().map(|r| r.report.ended_at_ms).max(),
        runs: within.len(),
        rehearsed: rehearsed.len(),
        refused: with(&rehearsed, Conclusion::Refused),
        inconclusive: with(&rehearsed, Conclusion::Inconclusive),
        promoted: promoted.len(),
        rolled_back: promoted.iter().filter(|p| p.failed_on_trial()).count(),
        failed,
        undone: with(&promotions, Conclusion::Undone),
        rollbacks: rollbacks.iter().filter(|r| !r.by_itself()).count(),
        change_failure_rate: (!promoted.is_empty()).then(|| failed as f64 / promoted.len() as f64),
        restore: Spread::of(rollbacks.iter().filter_map(|r| time_to_restore(runs, r)).collect()),
        rollback: Spread::of(rollbacks.iter().filter_map(|r| r.report.times.rollback_ms).collect()),
        rollback_downtime: Spread::of(
            rollbacks.iter().filter_map(|r| r.report.times.rollback_downtime_ms).collect(),
        ),
        downtime: Spread::of(promoted.iter().filter_map(|r| r.report.times.downtime_ms).collect()),
        prevented_by: prevented_by(&rehearsed),
        flaky: flaky(&rehearsed),
    }
}

/// Which checks failed in refused rehearsals; one that fails with others counts as well.
fn prevented_by(rehearsed: &[&Past]) -> Vec<CheckCount> {
    let mut prevented = BTreeMap::new();
    for run in rehearsed.iter().filter(|r| r.report.conclusion == Conclusion::Refused) {
        let failed = run.report.checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail { .. }));
        let ids: BTreeSet<&str> = failed.map(|c| c.id.as_str()).collect();
        for id in ids {
            *prevented.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    busiest(prevented)
}

/// The same change, rehearsed more than once: what is said of it ought to be the same.
fn flaky(rehearsed: &[&Past]) -> Vec<CheckCount> {
    let mut said: BTreeMap<(&str, &str, &str), Vec<&'static str>> = BTreeMap::new();
    for Past { report, .. } in rehearsed {
        for check in &report.checks {
            said.entry((&report.change, &check.id, &check.environment))
                .or_default()
                .push(check.verdict.word());
        }
    }
    let mut flaky = BTreeMap::new();
    for ((_, id, _), words) in said {
        let changes = words.windows(2).filter(|w| w[0] != w[1]).count();
        if changes > 0 {
            *flaky.entry(id.to_owned()).or_insert(0) += changes;
        }
    }
    busiest(flaky)
}

#[cfg(test)]
mod tests;
