//! Whether something grows so that it reaches a limit in time.

/// Looks that are needed before anything is said.
const LEAST: usize = 20;
/// Parts of the time that longer series are judged by: looks that were thinned out are further apart than late ones.
const PARTS: i64 = 180;
/// Points that the slope is found from; each pair of them is looked at.
const POINTS: usize = 60;

/// A series of values over time, oldest first.
pub(super) struct Series(Vec<(i64, f64)>);

impl Series {
    pub fn new(values: impl IntoIterator<Item = (i64, u64)>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "bytes, far from 2^52")]
        Self(values.into_iter().map(|(at, v)| (at, v as f64)).collect())
    }

    /// In how many milliseconds the last value will be `limit` bytes, if it goes on growing as it does; `None` where it does
    /// not grow steadily, or too few values are known. It has to have grown by `least` over `period_ms` or longer, and to
    /// grow in the second half at least half as fast as in the first: what fills a cache slows down.
    pub fn reaches(&self, limit: u64, least: u64, period_ms: i64) -> Option<u64> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        let enough = self.0.len() >= LEAST && last.0 - first.0 >= period_ms;
        #[allow(clippy::cast_precision_loss, reason = "bytes")]
        let (limit, least) = (limit as f64, least as f64);
        if !enough || last.1 - first.1 < least {
            return None;
        }
        let even = even(&self.0);
        if even.len() < LEAST {
            return None;
        }
        let thirds: Vec<f64> = even.chunks(even.len().div_ceil(3)).map(median).collect();
        if thirds.windows(2).any(|w| w[1] <= w[0]) {
            return None;
        }
        let (front, back) = even.split_at(even.len() / 2);
        let slope = slope(&even)?;
        if slope <= 0.0 || slope_of(back) < slope_of(front) / 2.0 {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let left = ((limit - last.1).max(0.0) / slope) as u64;
        Some(left)
    }
}

/// A long series by equal parts of its time: of each the middle look, with the median.
fn even(points: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return Vec::new() };
    let span = last.saturating_sub(*first);
    if i64::try_from(points.len()).is_ok_and(|n| n <= PARTS) || span <= 0 {
        return points.to_vec();
    }
    let part = |at: i64| (i128::from(at) - i128::from(*first)) * i128::from(PARTS) / (i128::from(span) + 1);
    let parts = points.chunk_by(|a, b| part(a.0) == part(b.0));
    parts.map(|all| (all[all.len() / 2].0, median(all))).collect()
}

fn slope_of(points: &[(i64, f64)]) -> f64 {
    slope(points).unwrap_or_default()
}

/// The median of the slopes between all pairs of points (Theil and Sen), per millisecond: single outliers change nothing.
fn slope(points: &[(i64, f64)]) -> Option<f64> {
    let step = points.len().div_ceil(POINTS).max(1);
    let some: Vec<&(i64, f64)> = points.iter().rev().step_by(step).collect();
    let mut found = Vec::new();
    for (i, later) in some.iter().enumerate() {
        for earlier in &some[i + 1..] {
            if later.0 > earlier.0 {
                #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
                found.push((later.1 - earlier.1) / (later.0 - earlier.0) as f64);
            }
        }
    }
    middle(found)
}

fn median(points: &[(i64, f64)]) -> f64 {
    middle(points.iter().map(|(_, v)| *v).collect()).unwrap_or_default()
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::Series;

    const MIB: u64 = 1 << 20;

    fn series(of: impl Fn(u64) -> u64) -> Series {
        Series::new((0..60).map(|i| (i64::try_from(i).unwrap_or(0) * 10_000, of(i))))
    }

    fn reaches(series: &Series) -> Option<u64> {
        series.reaches(1024 * MIB, 32 * MIB, 180_000)
    }

    #[test]
    fn steady_growth_is_extrapolated() {
        // 4 MiB every 10 s from 200 MiB: 436 MiB after 590 s; 588 MiB are left, which takes 1470 s.
        let left = reaches(&series(|i| (200 + 4 * i) * MIB)).expect("grows");
        assert!((1_440_000..1_500_000).contains(&left), "{left}");
        // With a garbage collector's saw teeth on top.
        let left = reaches(&series(|i| (200 + 4 * i + (i * 7) % 9) * MIB)).expect("grows");
        assert!((1_200_000..1_700_000).contains(&left), "{left}");
    }

    #[test]
    fn what_stays_or_slows_down_or_is_short_says_nothing() {
        assert_eq!(reaches(&series(|_| 200 * MIB)), None);
        assert_eq!(reaches(&series(|i| (200 + (i * 37) % 60) * MIB)), None, "noise");
        assert_eq!(reaches(&series(|i| (200 + 200 * i / (i + 8)) * MIB)), None, "a cache that fills");
        assert_eq!(reaches(&series(|i| (200 + i / 4) * MIB)), None, "too little");
        assert_eq!(reaches(&series(|i| if i < 5 { 200 * MIB } else { 400 * MIB })), None, "one step");
        let few = Series::new((0..10i64).map(|i| (i * 60_000, (200 + 50 * i.unsigned_abs()) * MIB)));
        assert_eq!(reaches(&few), None, "few");
        assert_eq!(reaches(&Series::new([])), None);
    }

    #[test]
    fn looks_that_are_further_apart_than_others_count_by_their_time() {
        // A day with a look every 20 minutes, and two hours with one every 10 s.
        let early = (0..72).map(|i| i * 1_200_000);
        let late = (0..720).map(|i| 86_400_000 + i * 10_000);
        let times: Vec<i64> = early.chain(late).collect();
        let of = |value: &dyn Fn(i64) -> u64| {
            Series::new(times.iter().map(|at| (*at, value(*at) * MIB))).reaches(
                4096 * MIB,
                32 * MIB,
                16 * 3_600_000,
            )
        };
        let hours = |at: i64| at.unsigned_abs() / 3_600_000;
        // 20 MiB an hour, with noise: 1500 MiB after 26 h, 130 h are left.
        let left = of(&|at| 980 + 20 * hours(at) + at.unsigned_abs() / 10_000 * 7 % 15).expect("grows");
        assert!((110..150).contains(&(left / 3_600_000)), "{left}");
        assert_eq!(of(&|at| 980 + at.unsigned_abs() / 10_000 * 7 % 60), None, "noise");
        assert_eq!(of(&|at| if hours(at) < 24 { 980 } else { 1400 }), None, "one step");
    }
}
