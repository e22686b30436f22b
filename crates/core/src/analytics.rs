//! What the history of a stack says: upgrades tried, prevented, promoted and rolled back, and how long things took.
//!
//! A projection of reports, like everything that is shown. Terms as in DORA's metrics: change failure rate, time to restore.

use crate::check::Verdict;
use crate::plan::Procedure;
use crate::report::{Conclusion, Report};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the format.
pub const SCHEMA: &str = "switchback.history/1";

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
    /// Of these: failed, and were rolled back by themselves.
    pub rolled_back: usize,
    /// Promotions that were undone before they reached production.
    pub undone: usize,
    /// Rollbacks that a person asked for.
    pub rollbacks: usize,
    /// Promotions that were rolled back, by themselves or by a person, per promotion; none without promotions.
    pub change_failure_rate: Option<f64>,
    /// From the beginning of a rollback until production answered again.
    pub restore: Spread,
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

/// What reports say together.
pub fn analyse(reports: &[Report]) -> Analytics {
    let of = |procedure: Procedure| reports.iter().filter(move |r| r.procedure == procedure);
    let ended = |r: &&Report| !matches!(r.conclusion, Conclusion::Unfinished);
    let with =
        |list: &[&Report], conclusion: Conclusion| list.iter().filter(|r| r.conclusion == conclusion).count();
    let rehearsed: Vec<&Report> = of(Procedure::Rehearse).filter(ended).collect();
    let promotions: Vec<&Report> = of(Procedure::Promote).filter(ended).collect();
    let rollbacks: Vec<&Report> =
        of(Procedure::Rollback).filter(|r| matches!(r.conclusion, Conclusion::Pass)).collect();
    let rolled_back = with(&promotions, Conclusion::RolledBack);
    let promoted = promotions
        .iter()
        .filter(|r| matches!(r.conclusion, Conclusion::Pass | Conclusion::OnTrial | Conclusion::RolledBack))
        .count();
    let mut prevented = BTreeMap::new();
    for report in rehearsed.iter().filter(|r| r.conclusion == Conclusion::Refused) {
        let failed = report.checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail { .. }));
        let ids: BTreeSet<&str> = failed.map(|c| c.id.as_str()).collect();
        for id in ids {
            *prevented.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    // The same change, rehearsed more than once: what is said of it ought to be the same.
    let mut said: BTreeMap<(&str, &str, &str), Vec<&'static str>> = BTreeMap::new();
    for report in &rehearsed {
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
    let restored = rollbacks
        .iter()
        .copied()
        .chain(promotions.iter().copied().filter(|r| r.conclusion == Conclusion::RolledBack));
    Analytics {
        schema: SCHEMA.to_owned(),
        from_ms: reports.iter().map(|r| r.started_at_ms).min(),
        to_ms: reports.iter().map(|r| r.ended_at_ms).max(),
        runs: reports.len(),
        rehearsed: rehearsed.len(),
        refused: with(&rehearsed, Conclusion::Refused),
        inconclusive: with(&rehearsed, Conclusion::Inconclusive),
        promoted,
        rolled_back,
        undone: with(&promotions, Conclusion::Undone),
        rollbacks: rollbacks.len(),
        change_failure_rate: (promoted > 0)
            .then(|| ((rolled_back + rollbacks.len()) as f64 / promoted as f64).min(1.0)),
        restore: Spread::of(restored.filter_map(|r| r.times.rollback_ms).collect()),
        downtime: Spread::of(promotions.iter().filter_map(|r| r.times.downtime_ms).collect()),
        prevented_by: busiest(prevented),
        flaky: busiest(flaky),
    }
}

#[cfg(test)]
#[path = "analytics_tests.rs"]
mod tests;
