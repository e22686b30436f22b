//! How the numbers went over a time: the same numbers for each of its days or weeks.

use super::{Analytics, Past, Period, Spread, Width, analyse};
use crate::ids::StackName;
use serde::{Deserialize, Serialize};

/// The name of the format.
const SCHEMA: &str = "switchback.trends/1";

/// The numbers of the runs that began in one day or week. What was not measured is absent, and never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins, and when it is over.
    #[serde(flatten)]
    pub period: Period,
    /// Upgrades that were rehearsed.
    pub rehearsed: usize,
    /// Of these: refused.
    pub refused: usize,
    /// Of these: could not be judged.
    pub inconclusive: usize,
    /// Promotions that reached production.
    pub promoted: usize,
    /// Of these: rolled back since, by themselves or by command.
    pub failed: usize,
    /// Rollbacks that were made, of whatever promotion.
    pub rollbacks: usize,
    /// Promotions that were rolled back since, per promotion.
    pub change_failure_rate: Option<f64>,
    /// Production's outage in promotions.
    pub downtime: Option<Spread>,
    /// The rollbacks, from the first stop until everything was read back.
    pub rollback: Option<Spread>,
    /// From a failure until production answered again.
    pub restore: Option<Spread>,
}

/// Numbers over a time, and how they went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trends {
    /// The name of the format.
    pub schema: String,
    /// The stack; unknown before its first run.
    pub stack: Option<StackName>,
    /// The time.
    #[serde(flatten)]
    pub period: Period,
    /// How long a bucket is.
    pub width: Width,
    /// The whole time.
    pub total: Analytics,
    /// Its days or weeks, oldest first; those without runs too.
    pub buckets: Vec<Bucket>,
}

impl Trends {
    /// The numbers of a time. `runs` are all runs there are, in any order.
    pub fn build(runs: &[Past], period: Period) -> Self {
        let width = period.width();
        let total = analyse(runs, period);
        // Without a run there is no trend, however long the time was.
        let parts = if total.runs == 0 { Vec::new() } else { period.parts(width) };
        Self {
            schema: SCHEMA.to_owned(),
            stack: runs.first().map(|r| r.report.stack.clone()),
            period,
            width,
            total,
            buckets: parts.into_iter().map(|part| bucket(runs, part)).collect(),
        }
    }
}

fn bucket(runs: &[Past], period: Period) -> Bucket {
    let numbers = analyse(runs, period);
    let measured = |spread: Spread| (spread.count > 0).then_some(spread);
    let made = runs.iter().filter(|r| r.rolled_back() && period.holds(r.report.started_at_ms)).count();
    Bucket {
        period,
        rehearsed: numbers.rehearsed,
        refused: numbers.refused,
        inconclusive: numbers.inconclusive,
        promoted: numbers.promoted,
        failed: numbers.failed,
        rollbacks: made,
        change_failure_rate: numbers.change_failure_rate,
        downtime: measured(numbers.downtime),
        rollback: measured(numbers.rollback),
        restore: measured(numbers.restore),
    }
}
