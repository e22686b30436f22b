//! How long a migration takes by the size of the data: measured on clones of several sizes, and what follows for other sizes.
//!
//! Owns the points, the fit and its interval. It must never promise more than its points show: an interval is of the line that
//! was fitted, and holds only if the data keeps its shape as it grows.

mod fit;
mod plot;

use crate::duration::human_ms;
use crate::ids::{StepId, StoreName};
use crate::journal::{Record, RunState};
use crate::plan::{Op, Plan, Procedure};
use crate::times;
use fit::Line;
pub use plot::picture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is left of a store, of which a share was to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    /// Size of its databases, indexes included, after everything that was removed is given back; of files, their sizes.
    pub bytes: u64,
    /// Rows of all tables of users.
    pub rows: u64,
    /// Tables of which rows were removed, or would be for a smaller share.
    pub tables: u64,
    /// Rows removed from tables that were to be kept whole, as what they refer to is gone.
    #[serde(default)]
    pub followed: u64,
}

/// One migration, timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The share of the large tables' rows that was to be kept, in percent.
    pub percent: u8,
    /// Which time this size was tried, from 1.
    pub round: u32,
    /// Bytes of the databases before the migration.
    pub bytes: u64,
    /// From the beginning of the first migration command (or of the start) to the first healthy answer of every service.
    pub took_ms: u64,
}

/// What is expected at a size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The size, in production's present sizes.
    pub times_production: f64,
    /// Bytes of the databases.
    pub bytes: u64,
    /// What is expected.
    pub took_ms: u64,
    /// The lower end of the 95 % interval for one migration.
    pub low_ms: u64,
    /// The upper end.
    pub high_ms: u64,
}

/// How the time grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// No more than the measured times vary anyway.
    None,
    /// With the data: twice the data, at most twice the time.
    Linear,
    /// Faster than the data.
    Faster,
}

/// Measured times, and what follows from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Bytes of production's databases.
    pub production_bytes: u64,
    /// Rows of production's databases.
    pub production_rows: u64,
    /// What is left at each share, by store.
    pub sizes: BTreeMap<u8, BTreeMap<StoreName, Shrunk>>,
    /// The migrations, in the order they ran.
    pub points: Vec<Point>,
    /// How the time grows; `None` where the points do not tell.
    pub growth: Option<Growth>,
    /// At production's size, and at multiples of it.
    pub predictions: Vec<Prediction>,
    /// Why there is no prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Sizes at which a prediction is given, in production's sizes: today, and where a stack may be until the next such upgrade.
const AT: [f64; 2] = [1.0, 2.0];
/// Sizes whose largest is less than this many times the smallest say nothing about growth.
const SPREAD: f64 = 1.5;
/// A slope that explains less of the time at the largest size than this is no growth: health is asked a few times per second only.
const NEGLIGIBLE: f64 = 0.1;

/// Growth up to the farthest prediction that chance may hide, as a share of the time; more of it is no answer.
const HIDDEN: f64 = 0.5;

/// Judges measured times.
pub fn judge(points: &[Point], production_bytes: u64) -> Result<(Growth, Vec<Prediction>), String> {
    let largest = points.iter().map(|p| p.bytes).max().unwrap_or(0);
    let smallest = points.iter().map(|p| p.bytes).min().unwrap_or(0);
    if points.len() < 3 {
        return Err(format!("{} timed migrations are too few for an interval", points.len()));
    }
    if production_bytes == 0 || (largest as f64) < SPREAD * smallest as f64 {
        return Err(
            "the databases have nearly the same size at every share: most of them is in tables that are kept whole"
                .to_owned(),
        );
    }
    let unit = production_bytes as f64;
    let at: Vec<(f64, f64)> = points.iter().map(|p| (p.bytes as f64 / unit, p.took_ms as f64)).collect();
    let straight = Line::fit(&at, 1).ok_or("the sizes do not differ")?;
    let top = largest as f64 / unit;
    let span = top - smallest as f64 / unit;
    let noise = straight.deviation();
    let growth = straight.slope() * span;
    let flat = growth < NEGLIGIBLE * straight.at(top).max(1.0) || !straight.significant();
    // What is not seen may be hidden: growth that the noise leaves room for is no growth only if it would not matter.
    let hidden = straight.steepest() * (AT[AT.len() - 1] - smallest as f64 / unit);
    if !straight.significant() && hidden > HIDDEN * straight.at(top).max(1.0) {
        let took = |by: fn(std::vec::IntoIter<u64>) -> Option<u64>| {
            by(points.iter().map(|p| p.took_ms).collect::<Vec<_>>().into_iter()).unwrap_or(0)
        };
        return Err(format!(
            "the times differ too much among each other ({} to {}) to tell whether they grow; try it while the host is quiet, or with more rounds",
            human_ms(took(Iterator::min)),
            human_ms(took(Iterator::max))
        ));
    }
    // A curve is believed where it is more than noise, and more than a little.
    let curve = Line::fit(&at, 2).filter(|c| {
        c.significant() && c.slope() > 0.0 && c.slope() * span * span > NEGLIGIBLE * c.at(top).max(1.0)
    });
    let (kind, line) = match (&curve, flat) {
        (Some(curve), _) => (Growth::Faster, curve),
        (None, true) => (Growth::None, &straight),
        (None, false) => (Growth::Linear, &straight),
    };
    let predictions = AT
        .iter()
        .map(|&times| {
            let middle = line.at(times).max(0.0);
            let half = line.half_width(times).max(noise);
            Prediction {
                times_production: times,
                bytes: (unit * times) as u64,
                took_ms: middle.round() as u64,
                low_ms: (middle - half).max(0.0).round() as u64,
                high_ms: (middle + half).round() as u64,
            }
        })
        .collect();
    Ok((kind, predictions))
}

/// What a run measured: a projection of its plan and its events. `None` for every other procedure.
pub fn of_run(plan: &Plan, state: &RunState, records: &[Record]) -> Option<Scaling> {
    if plan.procedure != Procedure::Scaling {
        return None;
    }
    let mut sizes: BTreeMap<u8, BTreeMap<StoreName, Shrunk>> = BTreeMap::new();
    for step in &plan.steps {
        if let (Op::Shrink { percent, .. }, Some(output)) = (&step.op, state.output(&step.id)) {
            sizes.insert(*percent, output.shrunk.clone());
        }
    }
    let bytes = |percent: u8| sizes.get(&percent).map(|stores| stores.values().map(|s| s.bytes).sum::<u64>());
    let points: Vec<Point> = plan
        .steps
        .iter()
        .filter_map(|step| {
            let (percent, round) = tried(&step.id)?;
            state.succeeded(&step.id).then_some(())?;
            let first = plan
                .steps
                .iter()
                .find(|s| s.id.as_str().starts_with("migrate-") && ends_with(&s.id, percent, round))
                .map_or(&step.id, |s| &s.id);
            // A pause between two attempts is not the migration's.
            if times::resumed_between(records, first.as_str(), step.id.as_str()) {
                return None;
            }
            let took_ms = times::downtime(records, first.as_str(), step.id.as_str())?;
            Some(Point { percent, round, bytes: bytes(percent)?, took_ms })
        })
        .collect();
    let whole = sizes.get(&100)?;
    let production_bytes = whole.values().map(|s| s.bytes).sum();
    let production_rows = whole.values().map(|s| s.rows).sum();
    let (growth, predictions, why_not) = match judge(&points, production_bytes) {
        Ok((growth, predictions)) => (Some(growth), predictions, None),
        Err(why) => (None, Vec::new(), Some(why)),
    };
    Some(Scaling { production_bytes, production_rows, sizes, points, growth, predictions, why_not })
}

/// `start-25-2`: the second migration with a quarter of the rows.
fn tried(id: &StepId) -> Option<(u8, u32)> {
    let (percent, round) = id.as_str().strip_prefix("start-")?.split_once('-')?;
    Some((percent.parse().ok()?, round.parse().ok()?))
}

fn ends_with(id: &StepId, percent: u8, round: u32) -> bool {
    id.as_str().ends_with(&format!("-{percent}-{round}"))
}

#[cfg(test)]
mod tests;
