use super::*;

const MARGINS: Margins = Margins { p50: 0.10, p95: 0.20, floor_us: 0, requests: 1 };

/// Times of a server on a host whose speed wanders (a random walk, as a noisy neighbour makes it), in pairs.
fn pairs(count: usize, seed: u64, slower: f64, tail: f64) -> Vec<Pair> {
    let mut random = Random::new(seed);
    let mut unit = move || (random.number() >> 11) as f64 / (1u64 << 53) as f64;
    let mut host = 0.0_f64;
    (0..count)
        .map(|_| {
            host = (host * 0.98 + (unit() - 0.5) * 0.2).clamp(-1.2, 1.2);
            let mut time = |factor: f64, tail: f64| {
                let spread = (unit() + unit() + unit() - 1.5) * 0.4;
                let late = if unit() < tail { 10.0 } else { 1.0 };
                (4000.0 * factor * late * (host + spread).exp()) as u32
            };
            let (a, b) = (time(1.0, 0.0), time(slower, tail));
            Pair { old_us: a, new_us: b }
        })
        .collect()
}

/// As a rehearsal does it: looking at 600, 1200 and 2400 pairs.
fn run(seed: u64, slower: f64, tail: f64) -> Judgement {
    let all = pairs(LOOKS[2], seed, slower, tail);
    for (look, count) in LOOKS.iter().enumerate() {
        let judgement = judge(&all[..*count], &MARGINS, look, seed);
        if !judgement.open() || judgement.slower() {
            return judgement;
        }
    }
    judge(&all, &MARGINS, 2, seed)
}

#[test]
fn two_equal_servers_are_never_called_different_and_a_third_more_always() {
    let (mut wrong, mut found) = (0, 0);
    for seed in 0..40 {
        wrong += usize::from(run(seed, 1.0, 0.0).slower());
        found += usize::from(run(seed, 1.3, 0.0).slower());
    }
    assert_eq!((wrong, found), (0, 40));
}

#[test]
fn a_slow_tail_is_found_by_the_95th_percentile() {
    for seed in 0..10 {
        let judgement = run(seed, 1.0, 0.08);
        assert_eq!(judgement.p95.finding, Finding::Slower, "{judgement:?}");
        assert_ne!(judgement.p50.finding, Finding::Slower, "{judgement:?}");
    }
}

#[test]
fn one_run_after_the_other_is_wrong_where_pairs_are_right() {
    // The host gets slower half way: whoever is measured then seems to be the slower one.
    let all = pairs(600, 3, 1.0, 0.0);
    let old: Vec<u32> = all.iter().map(|p| p.old_us).collect();
    let new: Vec<u32> = all.iter().map(|p| (f64::from(p.new_us) * 1.4) as u32).collect();
    assert_eq!(sequential(&old, &new, 0.1, 1), Finding::Slower);
    let disturbed: Vec<Pair> = all
        .iter()
        .enumerate()
        .map(|(n, p)| {
            let by = if n < 300 { 1.0 } else { 1.4 };
            Pair { old_us: (f64::from(p.old_us) * by) as u32, new_us: (f64::from(p.new_us) * by) as u32 }
        })
        .collect();
    assert!(!judge(&disturbed, &MARGINS, 0, 1).slower());
}

#[test]
fn what_is_below_the_floor_does_not_count_and_few_pairs_say_nothing() {
    let all = pairs(600, 5, 1.3, 0.0);
    assert!(!judge(&all, &Margins { floor_us: 10_000, ..MARGINS }, 0, 1).slower());
    let few = judge(&all[..FEWEST - 1], &MARGINS, 2, 1);
    assert!(few.open() && !few.slower());
    assert!(judge(&[], &MARGINS, 0, 1).open());
}

#[test]
fn a_host_that_changes_between_requests_is_called_noisy() {
    let all: Vec<Pair> = (0..600)
        .map(|n| {
            let us = if n % 2 == 0 { 1000 } else { 2000 };
            Pair { old_us: us, new_us: us }
        })
        .collect();
    let judgement = judge(&all, &MARGINS, 0, 1);
    assert!(judgement.noisy && !judgement.slower());
    // What is ten times as slow is slower on any host.
    let slow: Vec<Pair> = all.iter().map(|p| Pair { new_us: p.new_us * 10, ..*p }).collect();
    assert!(judge(&slow, &MARGINS, 0, 1).slower());
    assert!(!judge(&pairs(600, 1, 1.0, 0.0), &MARGINS, 0, 1).noisy);
}

#[test]
fn quantiles_are_those_of_the_textbook() {
    let values = [4.0, 1.0, 3.0, 2.0];
    assert!((median(&values) - 2.5).abs() < 1e-9);
    assert!((quantile(&values, 0.95) - 3.85).abs() < 1e-9);
    assert!((quantile(&[7.0], 0.95) - 7.0).abs() < 1e-9);
}
