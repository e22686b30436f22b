//! The judge of performance: is the new version slower, the same, or can it not be said?
//!
//! It gets pairs: the same request to the old and the new version, moments apart, in random order. What disturbs the host
//! disturbs both of a pair, so the ratio within pairs says what two runs one after the other cannot (Kalibera and Jones,
//! "Rigorous benchmarking in reasonable time", 2013, for why one has to resample; Kunsch 1989 for blocks).

mod plot;
mod statistics;
#[cfg(test)]
mod tests;

pub use plot::distribution;
pub use statistics::{Interval, Random, median, quantile};

use serde::{Deserialize, Serialize};
use statistics::{block_bootstrap, hodges_lehmann, over_windows};

/// Pairs that are measured before the first decision, and then up to the second and the last.
pub const LOOKS: [usize; 3] = [600, 1200, 2400];
/// Fewer say nothing.
pub const FEWEST: usize = 120;
/// Pairs of a window for the 95th percentile: three values above it.
const WINDOW: usize = 60;
/// Pairs of a block: what is near in time is alike.
const BLOCK: usize = 20;
const RESAMPLES: usize = 2000;
/// The chance of a wrong "slower" in all looks and all requests of one rehearsal together.
const ALPHA: f64 = 0.05;
/// How the chance is split over the looks.
const SPLIT: [f64; 3] = [0.25, 0.25, 0.5];

/// Times of one pair, in microseconds from when the request was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The old version.
    pub old_us: u32,
    /// The new version.
    pub new_us: u32,
}

/// What is tolerated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margins {
    /// Growth of the median: 0.1 is 10 percent.
    pub p50: f64,
    /// Growth of the 95th percentile.
    pub p95: f64,
    /// Differences below this (in microseconds) do not count.
    pub floor_us: u32,
    /// Requests that are judged in the same rehearsal.
    pub requests: usize,
}

/// What came of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Surely not slower than tolerated.
    Fine,
    /// Surely slower than tolerated.
    Slower,
    /// It cannot be said yet.
    Open,
}

/// One measure, judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The ratio of new to old, with its interval.
    pub ratio: Interval,
    /// What follows.
    pub finding: Finding,
}

/// The judgement of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Pairs.
    pub pairs: usize,
    /// Medians in milliseconds: old, new.
    pub p50_ms: (f64, f64),
    /// 95th percentiles in milliseconds: old, new.
    pub p95_ms: (f64, f64),
    /// The median.
    pub p50: Judged,
    /// The 95th percentile.
    pub p95: Judged,
    /// The old version against itself: what ought to be 1.
    pub control: Interval,
    /// Whether the host moved so much that nothing can be said.
    pub noisy: bool,
    /// The smallest growth of the median that these pairs could have told from none: 0.08 is 8 percent.
    pub detectable: f64,
}

impl Judgement {
    /// Whether more pairs would say more.
    pub fn open(&self) -> bool {
        self.p50.finding == Finding::Open || self.p95.finding == Finding::Open
    }

    /// Whether something is surely slower.
    pub fn slower(&self) -> bool {
        self.p50.finding == Finding::Slower || self.p95.finding == Finding::Slower
    }
}

/// Judges the pairs of one request. `look` counts from 0; the seed makes it repeatable.
pub fn judge(pairs: &[Pair], margins: &Margins, look: usize, seed: u64) -> Judgement {
    let mut random = Random::new(seed);
    let share = SPLIT[look.min(SPLIT.len() - 1)];
    // Two measures for each request: the chance is split over all of them.
    let alpha = ALPHA * share / (2.0 * margins.requests.max(1) as f64);
    let ratios: Vec<f64> = pairs.iter().map(|p| ratio(p.new_us, p.old_us)).collect();
    let p50 = block_bootstrap(&ratios, BLOCK, RESAMPLES, &mut random, alpha, &|s| median(s));
    let windows: Vec<f64> = over_windows(pairs, WINDOW, &|w| {
        let old: Vec<f64> = w.iter().map(|p| f64::from(p.old_us)).collect();
        let new: Vec<f64> = w.iter().map(|p| f64::from(p.new_us)).collect();
        (quantile(&new, 0.95).max(1.0) / quantile(&old, 0.95).max(1.0)).ln()
    });
    let p95 = block_bootstrap(&windows, 1, RESAMPLES, &mut random, alpha, &|s| hodges_lehmann(s));
    // The old version's every other request against the one before: no version, so no difference.
    let own: Vec<f64> = pairs.chunks_exact(2).map(|two| ratio(two[1].old_us, two[0].old_us)).collect();
    let control = block_bootstrap(&own, BLOCK / 2, RESAMPLES, &mut random, ALPHA, &|s| median(s));
    let column = |new: bool| -> Vec<f64> {
        let values = pairs.iter().map(|p| if new { p.new_us } else { p.old_us });
        values.map(|us| f64::from(us) / 1000.0).collect()
    };
    let (old, new) = (column(false), column(true));
    let p50_ms = (median(&old), median(&new));
    let p95_ms = (quantile(&old, 0.95), quantile(&new, 0.95));
    let noisy = (control.low > 0.0 || control.high < 0.0) && control.middle.abs() > margins.p50 / 2.0;
    // Where the old version differs from itself, a difference has to be larger than twice that to be one.
    let drift = if noisy { 2.0 * control.middle.abs() } else { 0.0 };
    let floor = f64::from(margins.floor_us) / 1000.0;
    let enough = pairs.len() >= FEWEST;
    let finding = |interval: &Interval, margin: f64, (old, new): (f64, f64)| {
        let limit = (1.0 + margin).ln();
        if !enough {
            Finding::Open
        } else if interval.high < limit || (floor > 0.0 && new - old < floor) {
            Finding::Fine
        } else if interval.low > limit + drift && new - old >= floor {
            Finding::Slower
        } else {
            Finding::Open
        }
    };
    Judgement {
        pairs: pairs.len(),
        p50: Judged { ratio: p50.exp(), finding: finding(&p50, margins.p50, p50_ms) },
        p95: Judged { ratio: p95.exp(), finding: finding(&p95, margins.p95, p95_ms) },
        p50_ms,
        p95_ms,
        control: control.exp(),
        noisy,
        // Half the interval above the margin is what has to be passed.
        detectable: ((1.0 + margins.p50).ln() + (p50.high - p50.low) / 2.0).exp() - 1.0,
    }
}

fn ratio(new: u32, old: u32) -> f64 {
    (f64::from(new.max(1)) / f64::from(old.max(1))).ln()
}

/// The same numbers judged as two runs one after the other would be: what pairs avoid. For comparison only.
pub fn sequential(old_us: &[u32], new_us: &[u32], margin: f64, seed: u64) -> Finding {
    let mut random = Random::new(seed);
    let values = |list: &[u32]| -> Vec<f64> { list.iter().map(|v| f64::from((*v).max(1)).ln()).collect() };
    let mut of = |list: &[f64]| block_bootstrap(list, 1, RESAMPLES, &mut random, ALPHA / 2.0, &|s| median(s));
    let (old, new) = (of(&values(old_us)), of(&values(new_us)));
    let limit = (1.0 + margin).ln();
    if new.low - old.high > limit {
        Finding::Slower
    } else if new.high - old.low < limit {
        Finding::Fine
    } else {
        Finding::Open
    }
}
