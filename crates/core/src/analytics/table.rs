//! The history and its trends as tables for spreadsheets.

use super::{Past, Period, Spread, Trends, time_to_restore};
use crate::check::Verdict;
use crate::csv::{Cell, table};
use crate::ids::ServiceName;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One row per run that began in a time, newest first, at most so many. `runs` are all runs there are, newest first.
pub fn of_runs(runs: &[Past], period: Period, limit: usize) -> String {
    let header = [
        "run",
        "started_utc",
        "procedure",
        "change",
        "from",
        "to",
        "from_generation",
        "to_generation",
        "outcome",
        "duration_ms",
        "downtime_ms",
        "rollback_ms",
        "rollback_downtime_ms",
        "restore_ms",
        "checks_failed",
        "reason",
    ];
    let within = runs.iter().filter(|r| period.holds(r.report.started_at_ms)).take(limit);
    let rows = within.map(|run| {
        let report = &run.report;
        let failed = report.checks.iter().filter(|c| matches!(c.verdict, Verdict::Fail { .. }));
        let failed: BTreeSet<&str> = failed.map(|c| c.id.as_str()).collect();
        let generation = |number: Option<u32>| Cell::from(number.map(u64::from));
        [
            report.run.as_str().into(),
            moment(report.started_at_ms).into(),
            word(&report.procedure).into(),
            report.change.as_str().into(),
            versions(&report.from).into(),
            versions(&report.to).into(),
            generation(report.from_generation),
            generation(report.to_generation),
            word(&report.conclusion).into(),
            report.times.total_ms.into(),
            report.times.downtime_ms.into(),
            report.times.rollback_ms.into(),
            report.times.rollback_downtime_ms.into(),
            time_to_restore(runs, run).into(),
            failed.into_iter().collect::<Vec<_>>().join("; ").into(),
            report.reason.clone().into(),
        ]
    });
    table(header, rows)
}

/// One row per day or week; empty fields where there is nothing to say.
pub fn of_trends(trends: &Trends) -> String {
    let header = [
        "from_utc",
        "until_utc",
        "rehearsed",
        "refused",
        "inconclusive",
        "promoted",
        "failed",
        "rollbacks",
        "change_failure_rate",
        "downtime_median_ms",
        "downtime_longest_ms",
        "rollback_median_ms",
        "rollback_longest_ms",
        "restore_median_ms",
        "restore_longest_ms",
    ];
    let rows = trends.buckets.iter().map(|b| {
        let median = |spread: Option<Spread>| Cell::from(spread.map(|s| s.median_ms));
        let longest = |spread: Option<Spread>| Cell::from(spread.map(|s| s.longest_ms));
        [
            moment(b.period.from_ms).into(),
            moment(b.period.until_ms).into(),
            b.rehearsed.into(),
            b.refused.into(),
            b.inconclusive.into(),
            b.promoted.into(),
            b.failed.into(),
            b.rollbacks.into(),
            b.change_failure_rate.map_or(Cell::Nothing, Cell::Share),
            median(b.downtime),
            longest(b.downtime),
            median(b.rollback),
            longest(b.rollback),
            median(b.restore),
            longest(b.restore),
        ]
    });
    table(header, rows)
}

/// As spreadsheets read it: `2026-11-27T18:50:29Z`.
fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The word that the JSON has for it.
fn word<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn versions(of: &BTreeMap<ServiceName, String>) -> String {
    of.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join("; ")
}
