//! The numbers over the sandbox's own history, and how they went, held against what this run really did.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use crate::engine::now_ms;
use switchback_core::analytics::{Bucket, Past, Period, Spread, Trends};
use switchback_core::duration::human_ms;
use switchback_core::ids::GenerationId;
use switchback_core::journal::{Event, Outcome, Record};
use switchback_core::plan::Procedure;

/// What the journal holds, counted here and by nothing that the numbers are made with.
#[derive(Debug, Default, PartialEq)]
struct Done {
    rehearsed: usize,
    refused: usize,
    promoted: Vec<Promoted>,
    /// The generations that rollbacks left, and how long each took.
    rolled_back: Vec<(Option<GenerationId>, Option<u64>)>,
}

#[derive(Debug, PartialEq)]
struct Promoted {
    generation: Option<GenerationId>,
    /// How long production was stopped until the new version was stable.
    took_ms: Option<u64>,
    failed_on_trial: bool,
}

impl Done {
    /// Promotions that failed on trial, or whose generation a rollback left.
    fn failed(&self) -> usize {
        let left = |p: &&Promoted| self.rolled_back.iter().any(|(from, _)| *from == p.generation);
        self.promoted.iter().filter(|p| p.failed_on_trial || left(p)).count()
    }
}

/// Proves the criterion.
pub fn prove(lab: &Lab<'_>) -> Result<Proof, Stop> {
    let journal = lab.journal()?;
    let (mut runs, mut done) = (Vec::new(), Done::default());
    for run in journal.runs(10_000)? {
        let (plan, state, records) = journal.load(&run)?;
        runs.push(Past::build(&plan, &records, lab.request.tool, ""));
        let ended_well = matches!(state.ended, Some(Outcome::Done));
        match plan.procedure {
            Procedure::Rehearse if state.ended.is_some() => {
                done.rehearsed += 1;
                done.refused += usize::from(matches!(state.ended, Some(Outcome::Refused { .. })));
            }
            Procedure::Promote if ended_well => {
                let failed = |r: &Record| matches!(r.event, Event::TrialFailed { .. });
                done.promoted.push(Promoted {
                    generation: plan.to_generation,
                    took_ms: span(&records, "stop-old", "start-new"),
                    failed_on_trial: records.iter().any(failed),
                });
            }
            Procedure::Rollback | Procedure::ServiceRollback if ended_well => {
                done.rolled_back.push((plan.from_generation, span(&records, "stop-new", "flip")));
            }
            _ => {}
        }
    }
    let trends = Trends::build(&runs, Period::since(i64::MIN, now_ms(), &runs));
    Ok(judged(&trends, &done))
}

/// From the first beginning of one step to the last end of another.
fn span(records: &[Record], from: &str, to: &str) -> Option<u64> {
    let began =
        records.iter().find(|r| matches!(&r.event, Event::Started { step, .. } if step.as_str() == from))?;
    let ended =
        records.iter().rfind(|r| matches!(&r.event, Event::Finished { step, .. } if step.as_str() == to))?;
    u64::try_from(ended.at_ms - began.at_ms).ok()
}

fn judged(trends: &Trends, done: &Done) -> Proof {
    let mut proof = Proof::new(
        "analytics.trends",
        "the numbers of the history, and those of each day or week of it, are what was really done: every rehearsal, refusal, promotion and rollback, each once and with its times",
    );
    let (total, buckets) = (&trends.total, &trends.buckets);
    let sum = |of: fn(&Bucket) -> usize| buckets.iter().map(of).sum::<usize>();
    let counted =
        |of: fn(&Bucket) -> Option<Spread>| -> usize { buckets.iter().filter_map(of).map(|s| s.count).sum() };
    let longest =
        |of: fn(&Bucket) -> Option<Spread>| buckets.iter().filter_map(of).map(|s| s.longest_ms).max();
    proof
        .measure("buckets", format!("{} ({}s)", buckets.len(), trends.width.as_str()))
        .measure("rehearsed, refused", format!("{}, {}", total.rehearsed, total.refused))
        .measure("promoted, rolled back", format!("{}, {}", total.promoted, total.failed))
        .measure("rollbacks by themselves, by command", format!("{}, {}", total.rolled_back, total.rollbacks))
        .measure("change failure rate", total.change_failure_rate.map_or(0, |r| (r * 100.0) as u64))
        .measure("time to restore, median", human_ms(total.restore.median_ms))
        .measure("rollback, median", human_ms(total.rollback.median_ms))
        .measure("downtime of promotions, median", human_ms(total.downtime.median_ms));
    let (promotions, rollbacks, failed) = (done.promoted.len(), done.rolled_back.len(), done.failed());
    let by_trial = done.promoted.iter().filter(|p| p.failed_on_trial).count();
    proof.demand(promotions > 0 && rollbacks > 0, "promotions and rollbacks", "none was made");
    for (what, made, all, by_bucket) in [
        ("rehearsals", done.rehearsed, total.rehearsed, sum(|b| b.rehearsed)),
        ("refusals", done.refused, total.refused, sum(|b| b.refused)),
        ("promotions", promotions, total.promoted, sum(|b| b.promoted)),
        ("promotions that were rolled back", failed, total.failed, sum(|b| b.failed)),
        ("rollbacks", rollbacks, rollbacks, sum(|b| b.rollbacks)),
        ("failed trials", by_trial, total.rolled_back, by_trial),
        ("times of rollbacks", rollbacks, total.rollback.count, counted(|b| b.rollback)),
        ("times to restore", rollbacks, total.restore.count, counted(|b| b.restore)),
        ("downtimes of promotions", promotions, total.downtime.count, counted(|b| b.downtime)),
    ] {
        proof.demand(
            all == made && by_bucket == made,
            what,
            format!("{made} were made; {all} are counted, {by_bucket} in the trend"),
        );
    }
    let rate = (promotions > 0).then(|| failed as f64 / promotions as f64);
    proof.demand(
        total.change_failure_rate == rate,
        "change failure rate",
        format!("it is {:?}, and {failed} of {promotions} went back", total.change_failure_rate),
    );
    let slowest = done.rolled_back.iter().filter_map(|(_, ms)| *ms).max();
    proof.demand(
        slowest.is_some() && longest(|b| b.rollback) == slowest,
        "the longest rollback",
        format!("the journal has {slowest:?} ms, the trend {:?} ms", longest(|b| b.rollback)),
    );
    // The outage ends with the first healthy answer, the step when that has held for a while.
    let stopped = done.promoted.iter().filter_map(|p| p.took_ms).max();
    proof.demand(
        longest(|b| b.downtime).zip(stopped).is_some_and(|(shown, most)| shown > 0 && shown <= most),
        "the longest downtime",
        format!("the journal has at most {stopped:?} ms, the trend {:?} ms", longest(|b| b.downtime)),
    );
    // A failure begins before its rollback, and lasts until production answers again.
    let outage = total.rollback_downtime.longest_ms;
    proof.demand(
        longest(|b| b.restore).is_some_and(|ms| ms > 0 && ms >= outage),
        "the longest time to restore",
        format!("it is {:?} ms, and an outage lasted {outage} ms", longest(|b| b.restore)),
    );
    let empty = |b: &&Bucket| b.promoted == 0;
    proof.demand(
        buckets
            .iter()
            .filter(empty)
            .all(|b| b.change_failure_rate.is_none() && b.restore.is_none() == (b.rollbacks == 0)),
        "empty buckets",
        "something is said of them",
    );
    proof
}

#[cfg(test)]
#[path = "trends_tests.rs"]
mod tests;
