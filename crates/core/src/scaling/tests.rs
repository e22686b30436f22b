use super::*;

const GB: u64 = 1_000_000_000;

fn points(time: impl Fn(f64) -> f64) -> Vec<Point> {
    let wobble = [3.0, -4.0, 2.0, -1.0, 4.0, -3.0];
    [12_u8, 25, 50, 12, 25, 50]
        .iter()
        .enumerate()
        .map(|(i, percent)| {
            let bytes = GB / 100 * u64::from(*percent);
            let took_ms = (time(bytes as f64 / GB as f64) + wobble[i]) as u64;
            Point { percent: *percent, round: 1 + i as u32 / 3, bytes, took_ms }
        })
        .collect()
}

#[test]
fn time_that_grows_with_the_data_is_extrapolated_with_an_interval() {
    let (growth, at) = judge(&points(|x| 1000.0 + 8000.0 * x), GB).expect("judged");
    assert_eq!(growth, Growth::Linear);
    assert_eq!(at.iter().map(|p| p.times_production).collect::<Vec<_>>(), [1.0, 2.0]);
    assert!((8950..9050).contains(&at[0].took_ms), "{at:?}");
    assert!((16900..17100).contains(&at[1].took_ms), "{at:?}");
    for p in &at {
        assert!(p.low_ms < p.took_ms && p.took_ms < p.high_ms, "{p:?}");
    }
    assert!(at[1].high_ms - at[1].low_ms > at[0].high_ms - at[0].low_ms, "farther away is less certain");
}

#[test]
fn time_that_does_not_depend_on_the_data_is_told_as_that() {
    let (growth, at) = judge(&points(|_| 2000.0), GB).expect("judged");
    assert_eq!(growth, Growth::None);
    assert!((1950..2050).contains(&at[1].took_ms), "{at:?}");
    // Growth, but nothing that matters.
    assert_eq!(judge(&points(|x| 2000.0 + 100.0 * x), GB).expect("judged").0, Growth::None);
}

#[test]
fn time_that_grows_faster_than_the_data_is_not_extrapolated_by_a_straight_line() {
    let (growth, at) = judge(&points(|x| 500.0 + 40_000.0 * x * x), GB).expect("judged");
    assert_eq!(growth, Growth::Faster);
    assert!((39_000..42_000).contains(&at[0].took_ms), "{at:?}");
    assert!((155_000..166_000).contains(&at[1].took_ms), "{at:?}");
}

#[test]
fn what_cannot_be_judged_is_not() {
    let all = points(|x| 1000.0 + 8000.0 * x);
    assert!(judge(&all[..2], GB).expect_err("too few").contains("too few"));
    let same: Vec<Point> = all.iter().map(|p| Point { bytes: GB, ..*p }).collect();
    assert!(judge(&same, GB).expect_err("one size").contains("kept whole"));
    assert!(judge(&all, 0).is_err());
    assert!(judge(&[], GB).is_err());
    // Whatever grew would be hidden by such noise.
    let mut noisy = points(|_| 20_000.0);
    for (point, ms) in noisy.iter_mut().zip([40_000, 15_000, 90_000, 12_000, 70_000, 30_000]) {
        point.took_ms = ms;
    }
    let why = judge(&noisy, GB).expect_err("noise");
    assert!(why.contains("12.0 s to 1 min 30 s"), "{why}");
}
