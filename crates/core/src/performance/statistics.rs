//! Medians, quantiles and intervals by resampling.

use serde::{Deserialize, Serialize};

/// An estimate with an interval that holds it with a chosen chance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// The estimate.
    pub middle: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// From logarithms to ratios.
    pub(super) fn exp(self) -> Self {
        Self { low: self.low.exp(), middle: self.middle.exp(), high: self.high.exp() }
    }
}

/// Repeatable random numbers (SplitMix64; Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begun with a number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below a number.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u128;
        ((u128::from(self.number()) * end) >> 64) as usize
    }
}

/// The value in the middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile, between neighbours in proportion (type 7 of Hyndman and Fan 1996); 0 of nothing.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let mut sorted = values.to_vec();
    let place = (sorted.len() - 1) as f64 * q;
    let below = place.floor() as usize;
    let order = |a: &f64, b: &f64| a.total_cmp(b);
    let (_, low, rest) = sorted.select_nth_unstable_by(below, order);
    let low = *low;
    let high = rest.iter().copied().min_by(order).unwrap_or(low);
    low + (high - low) * (place - place.floor())
}

/// The median of all means of two (Hodges and Lehmann 1963): like a mean, but outliers do not move it.
pub(super) fn hodges_lehmann(values: &[f64]) -> f64 {
    let mut means = Vec::with_capacity(values.len() * (values.len() + 1) / 2);
    for (index, a) in values.iter().enumerate() {
        for b in &values[index..] {
            means.push(f64::midpoint(*a, *b));
        }
    }
    median(&means)
}

/// A value for each full window.
pub(super) fn over_windows<T>(all: &[T], window: usize, of: &dyn Fn(&[T]) -> f64) -> Vec<f64> {
    all.chunks_exact(window).map(of).collect()
}

/// An estimate and its interval by resampling blocks that follow each other.
pub(super) fn block_bootstrap(
    values: &[f64],
    block: usize,
    resamples: usize,
    random: &mut Random,
    alpha: f64,
    estimate: &dyn Fn(&[f64]) -> f64,
) -> Interval {
    let middle = estimate(values);
    let block = block.min(values.len()).max(1);
    if values.len() < 2 * block {
        return Interval { low: f64::NEG_INFINITY, middle, high: f64::INFINITY };
    }
    let starts = values.len() - block + 1;
    let mut sample = Vec::with_capacity(values.len() + block);
    let mut found: Vec<f64> = (0..resamples)
        .map(|_| {
            sample.clear();
            while sample.len() < values.len() {
                let start = random.below(starts);
                sample.extend_from_slice(&values[start..start + block]);
            }
            sample.truncate(values.len());
            estimate(&sample)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    // The ends lie between resamples; the outermost ones where the chance is smaller than they can show.
    Interval { low: quantile(&found, alpha / 2.0), middle, high: quantile(&found, 1.0 - alpha / 2.0) }
}
