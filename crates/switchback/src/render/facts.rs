//! The key numbers of a run, the same in every format.

use super::words::{self, Tone};
use switchback_core::carry::CarriedPart;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::plan::Procedure;
use switchback_core::report::Report;
use switchback_core::scaling::Growth;

/// How much a number matters to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The verdict rests on it.
    Main,
    /// Good to know.
    Side,
}

/// One number that matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// What it is.
    pub name: &'static str,
    /// The number with its unit.
    pub value: String,
    /// What it means.
    pub note: String,
    /// How much of the whole or of a limit it is, from 0 to 1; more is over the limit.
    pub share: Option<f64>,
    /// How it is to be taken.
    pub tone: Tone,
    /// How much it matters.
    pub rank: Rank,
}

/// The key numbers, most important first.
pub fn key(report: &Report) -> Vec<Fact> {
    [
        scaling(report),
        rollback(report),
        downtime(report),
        checks(report),
        data(report),
        exported(report),
        writers(report),
        migration(report),
        blocked(report),
        carried(report).or_else(|| coverage(report)),
        masked(report),
        settings(report),
        Some(Fact {
            rank: Rank::Side,
            name: "Whole run",
            value: human_ms(report.times.total_ms),
            note: whole(report),
            share: None,
            tone: Tone::Quiet,
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn scaling(report: &Report) -> Option<Fact> {
    let found = report.scaling.as_ref()?;
    let now = found.predictions.first()?;
    let later = found.predictions.last()?;
    Some(Fact {
        rank: Rank::Main,
        name: "Migration",
        value: human_ms(now.took_ms),
        note: format!(
            "{} to {} at production's {}; {} to {} at {} times that",
            human_ms(now.low_ms),
            human_ms(now.high_ms),
            human_bytes(now.bytes),
            human_ms(later.low_ms),
            human_ms(later.high_ms),
            later.times_production
        ),
        share: None,
        tone: match found.growth {
            Some(Growth::Faster) => Tone::Warn,
            _ => Tone::Quiet,
        },
    })
}

fn carried(report: &Report) -> Option<Fact> {
    let count = |of: fn(&CarriedPart) -> u64| report.carried.values().map(|c| c.sum(of)).sum::<u64>();
    let (all, quarantined) = (count(CarriedPart::total), count(|p| p.quarantined));
    (all > 0).then(|| Fact {
        rank: Rank::Main,
        name: "Later writes",
        value: words::count(count(CarriedPart::carried), "write"),
        note: match quarantined {
            0 => "carried, all of them".to_owned(),
            n => format!("carried; {} in quarantine", words::number(n)),
        },
        share: None,
        tone: if quarantined == 0 { Tone::Good } else { Tone::Warn },
    })
}

fn coverage(report: &Report) -> Option<Fact> {
    let found = report.coverage.as_ref()?;
    let list: Vec<String> = found.exported.iter().take(3).map(|(t, why)| format!("{t} ({why})")).collect();
    let more = found.exported.len().saturating_sub(list.len());
    let note = match list.as_slice() {
        [] => "could be carried back after a rollback".to_owned(),
        list => {
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("could be carried back; exported only: {}{rest}", list.join(", "))
        }
    };
    Some(Fact {
        rank: Rank::Side,
        name: "Later writes",
        value: format!("{} of {}", found.carried(), words::count(found.tables, "table")),
        note,
        share: None,
        tone: Tone::Quiet,
    })
}

fn masked(report: &Report) -> Option<Fact> {
    let all: Vec<_> = report.masked.values().flat_map(|m| &m.columns).collect();
    (!all.is_empty()).then(|| Fact {
        rank: Rank::Side,
        name: "Masked",
        value: words::count(all.iter().map(|c| c.values).sum(), "value"),
        note: format!("in {}", words::count(all.len() as u64, "column")),
        share: None,
        tone: Tone::Quiet,
    })
}

fn settings(report: &Report) -> Option<Fact> {
    let all = &report.settings;
    let gone = all.iter().any(|text| text.ends_with(" is gone"));
    (!all.is_empty()).then(|| Fact {
        rank: Rank::Side,
        name: "Settings",
        value: words::count(all.len() as u64, "difference"),
        note: all.join("; "),
        share: None,
        tone: if gone { Tone::Warn } else { Tone::Quiet },
    })
}

fn blocked(report: &Report) -> Option<Fact> {
    let note = words::blocked(report)?;
    let longest = report.traces.values().map(|t| t.blocked_us().1).max().unwrap_or(0);
    Some(Fact {
        rank: Rank::Side,
        name: "Migration locks",
        value: if longest == 0 { "none".to_owned() } else { words::micros(longest) },
        note,
        share: None,
        tone: Tone::Quiet,
    })
}

fn whole(report: &Report) -> String {
    let steps = words::count(report.steps.len() as u64, "step");
    if report.trial.is_some() { format!("{steps} and the trial") } else { steps }
}

fn rollback(report: &Report) -> Option<Fact> {
    let took = report.times.rollback_ms?;
    let budget = report.times.budget_ms;
    let over = took > budget;
    let mut note = format!("{} {} budget", if over { "over the" } else { "of the" }, human_ms(budget));
    let drilled = matches!(
        report.procedure,
        Procedure::Rehearse | Procedure::RollbackDrill | Procedure::ProductionDrill
    );
    if let Some(back) = report.times.rollback_downtime_ms.filter(|_| drilled) {
        note.push_str(&format!("; answering again after {}", human_ms(back)));
    }
    Some(Fact {
        rank: Rank::Main,
        name: "Rollback",
        value: human_ms(took),
        note,
        share: (budget > 0).then(|| took as f64 / budget as f64),
        tone: if over { Tone::Bad } else { Tone::Good },
    })
}

fn downtime(report: &Report) -> Option<Fact> {
    let (ms, note) = match report.procedure {
        Procedure::Rehearse => (report.times.downtime_ms?, "predicted for the promotion"),
        Procedure::Promote | Procedure::Restore | Procedure::Carry | Procedure::ProductionDrill => {
            (report.times.downtime_ms?, "measured on production")
        }
        Procedure::ServiceRollback => (report.times.rollback_downtime_ms?, "of the services that went back"),
        Procedure::Rollback => (report.times.rollback_downtime_ms?, "measured on production"),
        _ => return None,
    };
    Some(Fact {
        rank: Rank::Main,
        name: "Downtime",
        value: human_ms(ms),
        note: note.to_owned(),
        share: None,
        tone: Tone::Quiet,
    })
}

fn checks(report: &Report) -> Option<Fact> {
    let (passed, all) = report.check_counts();
    if all == 0 {
        return None;
    }
    let number = |matches: fn(&Verdict) -> bool| {
        report.checks.iter().filter(|c| words::counts(c) && matches(&c.verdict)).count()
    };
    let failed = number(|v| matches!(v, Verdict::Fail { .. }));
    let words: Vec<String> = [
        (failed, "failed"),
        (number(|v| matches!(v, Verdict::Inconclusive { .. })), "inconclusive"),
        (number(|v| matches!(v, Verdict::NotRun { .. })), "not run"),
        (number(|v| matches!(v, Verdict::Waived { .. })), "waived"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    let environments = words::environments(report).iter().filter(|e| **e != words::CODE_ONLY).count();
    Some(Fact {
        rank: Rank::Main,
        name: "Checks passed",
        value: format!("{passed} of {all}"),
        note: if words.is_empty() {
            format!("in {}", words::count(environments as u64, "environment"))
        } else {
            words.join(", ")
        },
        share: Some(passed as f64 / all as f64),
        tone: match (failed, passed == all) {
            (0, true) => Tone::Good,
            (0, false) => Tone::Warn,
            _ => Tone::Bad,
        },
    })
}

fn data(report: &Report) -> Option<Fact> {
    if report.diffs.is_empty() {
        return None;
    }
    let lost: u64 = report.diffs.values().map(switchback_core::data::StoreDiff::lost_or_altered).sum();
    let judged_bad = report.checks.iter().any(|c| {
        words::counts(c) && c.kind == CheckKind::Integrity && matches!(c.verdict, Verdict::Fail { .. })
    });
    let files = report.diffs.values().all(words::holds_files);
    let mixed = !files && report.diffs.values().any(words::holds_files);
    let noun = match (files, mixed) {
        (true, _) => "files",
        (false, true) => "rows and files",
        (false, false) => "rows",
    };
    Some(Fact {
        rank: Rank::Main,
        name: "Lost or altered",
        value: words::number(lost),
        note: match (lost, judged_bad) {
            (0, false) => format!("{noun}; the migration kept everything"),
            (0, true) => format!("{noun}, but the data is not sound"),
            (_, true) => format!("{noun}, by the migration; not expected"),
            (_, false) => format!("{noun}, by the migration; as expected"),
        },
        share: None,
        tone: match (lost, judged_bad) {
            (0, false) => Tone::Good,
            (_, true) => Tone::Bad,
            (_, false) => Tone::Quiet,
        },
    })
}

fn exported(report: &Report) -> Option<Fact> {
    if report.exports.is_empty() {
        return None;
    }
    let total = report.exports.values().map(switchback_core::data::ExportStats::total).sum();
    Some(Fact {
        rank: Rank::Main,
        name: "Writes exported",
        value: words::number(total),
        note: if total == 0 {
            "nothing was written meanwhile".to_owned()
        } else {
            "made since the promotion, kept in files".to_owned()
        },
        share: None,
        tone: Tone::Quiet,
    })
}

fn writers(report: &Report) -> Option<Fact> {
    Some(Fact {
        rank: Rank::Side,
        name: "Writers waited",
        value: human_ms(report.times.writers_waited_ms?),
        note: "at most, for the snapshot of production".to_owned(),
        share: None,
        tone: Tone::Quiet,
    })
}

fn migration(report: &Report) -> Option<Fact> {
    let times = &report.times.migrations_ms;
    if times.is_empty() {
        return None;
    }
    let note = match times.len() {
        1 => format!("of {}", times.keys().next().map_or("", String::as_str)),
        2..=3 => times.iter().map(|(s, ms)| format!("{s} {}", human_ms(*ms))).collect::<Vec<_>>().join(", "),
        n => format!("of {n} services"),
    };
    Some(Fact {
        rank: Rank::Side,
        name: "Migration",
        value: human_ms(times.values().sum()),
        note,
        share: None,
        tone: Tone::Quiet,
    })
}
