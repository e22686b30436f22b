//! The samples that a judge keeps: late ones all, earlier ones thinned out evenly, so that they stay few however long a trial lasts.

use super::Sample;
use std::collections::VecDeque;

/// Late samples, which are all kept: two hours with a look every 10 s, and more than the looks that any rule counts.
const LATE: usize = 720;
/// Earlier samples, at most: enough to tell steady growth from steps.
const EARLY: usize = 360;

/// Samples, oldest first.
pub(super) struct Samples {
    /// Each with its number among those that were late once.
    early: VecDeque<(u64, Sample)>,
    late: VecDeque<Sample>,
    passed: u64,
    /// One in so many of those is kept.
    step: u64,
    /// What is older is of no use.
    long_ms: i64,
}

impl Samples {
    pub fn new(long_ms: i64) -> Self {
        Self { early: VecDeque::new(), late: VecDeque::new(), passed: 0, step: 1, long_ms }
    }

    pub fn push(&mut self, sample: Sample) {
        let since = sample.at_ms.saturating_sub(self.long_ms);
        self.late.push_back(sample);
        if self.late.len() > LATE
            && let Some(mut old) = self.late.pop_front()
        {
            if self.passed.is_multiple_of(self.step) {
                // No rule looks so far back for messages, and they are most of a sample.
                old.services.values_mut().for_each(|service| service.errors.clear());
                self.early.push_back((self.passed, old));
            }
            self.passed += 1;
        }
        while self.early.front().is_some_and(|(_, old)| old.at_ms < since) {
            self.early.pop_front();
        }
        if self.early.len() > EARLY {
            self.step = self.step.saturating_mul(2);
            self.early.retain(|(number, _)| number.is_multiple_of(self.step));
        }
    }

    pub fn last(&self) -> Option<&Sample> {
        self.late.back()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.early.iter().map(|(_, sample)| sample).chain(&self.late)
    }

    /// Those since a moment; the last two in any case, where looks are further apart than that.
    pub fn since(&self, at_ms: i64) -> impl DoubleEndedIterator<Item = &Sample> {
        let before_last = self.late.iter().rev().nth(1).map_or(at_ms, |s| s.at_ms);
        self.iter().filter(move |s| s.at_ms >= at_ms.min(before_last))
    }

    /// The late ones, and what is not older than this.
    pub fn late_or_within(&self, ms: i64) -> impl DoubleEndedIterator<Item = &Sample> {
        let since = self.last().map_or(0, |now| now.at_ms.saturating_sub(ms));
        let late = self.late.front().map_or(since, |s| s.at_ms);
        self.iter().filter(move |s| s.at_ms >= since.min(late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: i64 = 1000;
    const DAY_MS: i64 = 86_400_000;

    fn filled(looks: i64, long_ms: i64) -> Samples {
        let mut samples = Samples::new(long_ms);
        for i in 0..looks {
            samples.push(Sample { at_ms: i * EVERY_MS, ..Sample::default() });
        }
        samples
    }

    #[test]
    fn they_stay_few_reach_far_back_and_are_even() {
        for looks in [1, 700, 721, 3000, 50_000, 200_000] {
            let samples = filled(looks, DAY_MS);
            let times: Vec<i64> = samples.iter().map(|s| s.at_ms).collect();
            assert!(times.len() <= LATE + EARLY, "{looks}: {}", times.len());
            assert!(times.is_sorted());
            let now = (looks - 1) * EVERY_MS;
            let first = times.first().copied().expect("one");
            assert!(first <= (now - DAY_MS + DAY_MS / 100).max(0), "{looks}: only back to {first}");
            let early = &times[..times.len().saturating_sub(LATE)];
            let gaps: std::collections::BTreeSet<i64> = early.windows(2).map(|w| w[1] - w[0]).collect();
            assert!(gaps.len() <= 1, "{looks}: {gaps:?}");
            assert!(looks < 3000 || early.len() >= EARLY / 3, "{looks}: {}", early.len());
        }
    }

    #[test]
    fn the_last_two_are_there_however_far_apart_they_are() {
        let samples = filled(10, DAY_MS);
        let since = |ms: i64| samples.since(ms).map(|s| s.at_ms).collect::<Vec<_>>();
        assert_eq!(since(7000), [7000, 8000, 9000]);
        assert_eq!(since(9000), [8000, 9000]);
        assert_eq!(filled(1, DAY_MS).since(0).count(), 1);
    }
}
