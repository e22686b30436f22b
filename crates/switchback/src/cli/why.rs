//! How a trial came to its end: what was seen, what was decided, and whether the same samples give the same decision.

use super::output::printable;
use super::run::journal;
use super::{Exit, Global, Output, Trouble};
use serde::Serialize;
use std::collections::BTreeMap;
use switchback_core::config::Action;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::{GenerationId, RunId};
use switchback_core::journal::{Event, Record, TrialVerdict};
use switchback_core::release::describe_change;
use switchback_core::trigger::{Change, Judge, Sample, Standing, Trigger};
use switchback_engine::home::Home;
use switchback_engine::watch;

/// Samples that are printed; JSON has all.
const SHOWN: usize = 12;

#[derive(Debug, Serialize)]
struct Why {
    run: RunId,
    generation: GenerationId,
    change: String,
    state: &'static str,
    /// In the order in which they were made.
    decisions: Vec<Decision>,
    /// What the trial is compared with: wall times of checks before the promotion, in milliseconds.
    before_ms: BTreeMap<String, Vec<u64>>,
    samples: Vec<Sample>,
    /// Whether judging the samples again gives the same changes of triggers.
    same_again: bool,
}

#[derive(Debug, Serialize)]
struct Decision {
    at_ms: i64,
    /// Which trigger; none for probes and the end of the trial.
    trigger: Option<Trigger>,
    standing: Option<Standing>,
    action: Option<Action>,
    what: String,
}

/// Explains the trial that is running, else the last one.
pub fn why(global: &Global, home: &Home) -> Result<Exit, Trouble> {
    let last = match journal(home)? {
        Some(journal) => match journal.of_kind("trial_began")?.pop() {
            Some(last) => Some((journal.load(&last.run)?, last.run)),
            None => None,
        },
        None => None,
    };
    let Some(((plan, state, records), run)) = last else {
        return Err(Trouble::refused("there was no trial yet", "promotions have one"));
    };
    let Some(trial) = &state.trial else {
        return Err(Trouble::refused("there was no trial yet", "promotions have one"));
    };
    let samples = watch::samples(home, &run);
    let before = watch::before(home, &run)?;
    let config = home.run_config(&run)?;
    let mut judge = Judge::new(&config.rollback.triggers, before.clone(), config.rollback.watch.as_millis());
    let again: Vec<Change> = samples.iter().flat_map(|s| judge.look(s.clone())).collect();
    let why = Why {
        generation: trial.generation,
        change: describe_change(&plan.from, &plan.to),
        state: match &trial.verdict {
            None => "running",
            Some(TrialVerdict::Confirmed) => "confirmed",
            Some(TrialVerdict::Failed(_)) => "failed",
            Some(TrialVerdict::Cancelled(_)) => "cancelled",
        },
        decisions: records.iter().filter_map(decision).collect(),
        before_ms: before.checks,
        same_again: same(&records, &again),
        samples,
        run,
    };
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&why)?;
    } else {
        print(&out, &why)?;
    }
    Ok(Exit::Done)
}

fn same(records: &[Record], again: &[Change]) -> bool {
    let kept = records.iter().filter_map(|r| match &r.event {
        Event::TriggerChanged { trigger, standing, why, .. } => Some((*trigger, *standing, why.as_str())),
        _ => None,
    });
    kept.eq(again.iter().map(|c| (c.trigger, c.standing, c.why.as_str())))
}

fn decision(record: &Record) -> Option<Decision> {
    let plain =
        |what: String| Decision { at_ms: record.at_ms, trigger: None, standing: None, action: None, what };
    Some(match &record.event {
        Event::TrialBegan { generation, .. } => plain(format!("the trial of generation {generation} began")),
        Event::TrialProbe { ok: true, seen, .. } => plain(format!("✓ {seen}")),
        Event::TrialProbe { ok: false, seen, failures_in_a_row } => {
            plain(format!("✗ {failures_in_a_row} in a row: {seen}"))
        }
        Event::TriggerChanged { trigger, standing, action, why } => Decision {
            at_ms: record.at_ms,
            trigger: Some(*trigger),
            standing: Some(*standing),
            action: Some(*action),
            what: why.clone(),
        },
        Event::TrialConfirmed { by: Some(by), .. } => plain(format!("confirmed by {by}")),
        Event::TrialConfirmed { probes, by: None } => plain(format!("passed after {probes} probes")),
        Event::TrialFailed { trigger, .. } => plain(format!("failed, rolled back: {trigger}")),
        Event::TrialCancelled { why } => plain(format!("ended: {why}")),
        _ => return None,
    })
}

fn print(out: &Output, why: &Why) -> Result<(), Trouble> {
    let Why { run, generation, change, state, .. } = why;
    out.line(&format!("trial of generation {generation}, {change} ({run}): {state}"))?;
    for one in &why.decisions {
        let text = match (one.trigger, one.standing, one.action) {
            (Some(trigger), Some(standing), Some(action)) => {
                let words = match standing {
                    Standing::Quiet => "quiet again".to_owned(),
                    Standing::Suspect => "suspect".to_owned(),
                    Standing::Fired => format!("FIRED, {}", action.as_str()),
                };
                format!("{}: {words}: {}", trigger.as_str(), one.what)
            }
            _ => one.what.clone(),
        };
        out.line(&format!("  {}  {}", time(one.at_ms), printable(&text)))?;
    }
    let shown = why.samples.iter().rev().take(SHOWN).rev();
    if !why.samples.is_empty() {
        out.line(&format!("  the last {} of {} looks:", SHOWN.min(why.samples.len()), why.samples.len()))?;
    }
    for sample in shown {
        out.line(&format!("  {}  {}", time(sample.at_ms), printable(&words(sample))))?;
    }
    if !why.before_ms.is_empty() {
        let times = why.before_ms.iter().map(|(id, all)| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            format!("{id} {}", all.join(" "))
        });
        out.line(&format!(
            "  before the promotion, ms: {}",
            printable(&times.collect::<Vec<_>>().join(", "))
        ))?;
    }
    out.line(if why.same_again {
        "  Judged again, the samples give the same decisions."
    } else {
        "  Judged again, the samples give other decisions: some were not kept, or a watchdog was killed."
    })?;
    Ok(())
}

fn time(at_ms: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| String::new(), |t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn words(sample: &Sample) -> String {
    let mut words: Vec<String> = Vec::new();
    for (id, check) in &sample.checks {
        words.push(format!("{} {id} {}", if check.ok { "✓" } else { "✗" }, human_ms(check.took_ms)));
    }
    for (name, service) in &sample.services {
        let mut text = format!("{name} {}", human_bytes(service.memory_bytes));
        if service.starts > 1 {
            text.push_str(&format!(" started {} times", service.starts));
        }
        let errors: u32 = service.errors.values().sum();
        if errors > 0 {
            text.push_str(&format!(" {errors} error lines"));
        }
        words.push(text);
    }
    for (name, seen) in &sample.databases {
        let wait = human_ms(seen.lock_wait_ms);
        words.push(format!("{name} {} of {} connections, lock wait {wait}", seen.connections, seen.most));
    }
    words.join(", ")
}
