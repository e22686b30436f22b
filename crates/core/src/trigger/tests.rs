use super::{Before, Change, CheckSample, DatabaseSample, Judge, Sample, ServiceSample, Standing, Trigger};
use crate::config::{Action, Triggers};
use crate::ids::{ServiceName, StoreName};
use std::collections::BTreeMap;

const EVERY_MS: i64 = 10_000;
const WATCH_MS: u64 = 1_800_000;
const MIB: u64 = 1 << 20;

/// A healthy look at a busy, noisy stack.
fn healthy(i: i64) -> Sample {
    let noise: u64 = i.unsigned_abs() * 2_654_435_761 % 97;
    let check = |took_ms| CheckSample { ok: true, took_ms };
    let service = ServiceSample {
        starts: 1,
        memory_bytes: (300 + noise % 40) * MIB,
        memory_limit_bytes: Some(1024 * MIB),
        errors: BTreeMap::from([("error: slow client".to_owned(), u32::try_from(noise % 9).expect("small"))]),
        ..ServiceSample::default()
    };
    Sample {
        at_ms: i * EVERY_MS,
        // One answer in ten takes many times as long as usual.
        checks: [
            ("workflow/order", check(if noise < 10 { 2000 } else { 200 + noise })),
            ("health/app", check(3)),
        ]
        .map(|(id, c)| (id.to_owned(), c))
        .into(),
        services: BTreeMap::from([(ServiceName::new("app").expect("name"), service)]),
        disk_free_bytes: Some((50_000 - (i.unsigned_abs() * 13) % 200) * MIB),
        memory_free_bytes: Some(8000 * MIB),
        databases: BTreeMap::from([(
            StoreName::new("db").expect("name"),
            DatabaseSample { lock_wait_ms: noise * 10, connections: 20 + noise % 30, most: 100 },
        )]),
    }
}

fn before() -> Before {
    Before {
        checks: BTreeMap::from([("workflow/order".to_owned(), vec![210, 250, 230, 290, 240])]),
        errors: BTreeMap::from([(
            ServiceName::new("app").expect("name"),
            ["error: slow client".to_owned()].into(),
        )]),
    }
}

fn judge(triggers: &Triggers) -> Judge {
    Judge::new(triggers, before(), WATCH_MS)
}

/// Looks at a trial whose samples are changed so; everything that changed, with the number of the look.
fn trial(triggers: &Triggers, looks: i64, of: impl Fn(i64, &mut Sample)) -> (Vec<(i64, Change)>, Judge) {
    let mut judge = judge(triggers);
    let mut changes = Vec::new();
    for i in 0..looks {
        let mut sample = healthy(i);
        of(i, &mut sample);
        changes.extend(judge.look(sample).into_iter().map(|c| (i, c)));
        if judge.condemned().is_some() {
            break;
        }
    }
    (changes, judge)
}

/// When a trigger fired, and nothing else did.
fn fires(looks: i64, of: impl Fn(i64, &mut Sample)) -> (Trigger, i64, String) {
    let (changes, _) = trial(&Triggers::default(), looks, of);
    let fired: Vec<_> = changes.iter().filter(|(_, c)| c.standing == Standing::Fired).collect();
    let [(at, change)] = fired[..] else { panic!("one fires: {changes:#?}") };
    (change.trigger, *at, change.why.clone())
}

fn app(sample: &mut Sample) -> &mut ServiceSample {
    sample.services.values_mut().next().expect("a service")
}

#[test]
fn a_good_release_under_noise_is_never_suspected_for_long() {
    for seed in 0..20 {
        let (changes, judge) = trial(&Triggers::default(), 180, |i, s| {
            *s = healthy(i + seed * 1000);
            s.at_ms = i * EVERY_MS;
        });
        assert!(changes.iter().all(|(_, c)| c.standing != Standing::Fired), "{seed}: {changes:#?}");
        assert_eq!((judge.condemned(), judge.open()), (None, Vec::new()), "{seed}");
    }
}

#[test]
fn each_bad_release_is_condemned_by_its_trigger() {
    let found = fires(60, |i, s| app(s).starts = 1 + u32::try_from(i / 12).expect("small"));
    assert_eq!((found.0, found.1), (Trigger::Restarts, 24));
    assert_eq!(found.2, "app was started again 2 times within 5m");

    let found = fires(60, |i, s| app(s).out_of_memory = i >= 7);
    assert_eq!((found.0, found.1), (Trigger::Restarts, 7));

    let found = fires(120, |i, s| {
        if i % 3 == 1 {
            s.checks.get_mut("workflow/order").expect("there").ok = false;
        }
    });
    assert_eq!((found.0, found.1), (Trigger::Errors, 19));
    assert_eq!(found.2, "workflow/order failed 7 of 20 times within 10m");

    let found = fires(60, |_, s| s.checks.get_mut("workflow/order").expect("there").took_ms *= 3);
    assert_eq!((found.0, found.1), (Trigger::Latency, 29));
    assert!(found.2.contains("240 ms before the promotion"), "{}", found.2);

    let found = fires(60, |i, s| {
        app(s).memory_bytes = (300 + 5 * i.unsigned_abs()) * MIB;
    });
    assert_eq!(found.0, Trigger::Memory);
    assert!(found.1 < 30, "{}", found.1);

    let found = fires(60, |i, s| app(s).memory_bytes = if i > 4 { 1000 * MIB } else { 300 * MIB });
    assert_eq!((found.0, found.1), (Trigger::Memory, 7));
    assert_eq!(found.2, "app uses 1000.0 MiB of the 1.0 GiB that it may use");

    let found = fires(60, |i, s| {
        s.databases.values_mut().next().expect("one").lock_wait_ms = if i > 10 { 31_000 } else { 0 };
    });
    assert_eq!((found.0, found.1), (Trigger::Database, 12));

    let found = fires(60, |i, s| {
        s.databases.values_mut().next().expect("one").connections = if i > 10 { 95 } else { 20 };
    });
    assert_eq!((found.0, found.2.as_str()), (Trigger::Database, "95 of 100 connections to db are in use"));
}

#[test]
fn what_is_held_waits_until_it_is_over() {
    let panic = |i: i64, s: &mut Sample| {
        if i == 5 {
            app(s).errors.insert("panic: nil map".to_owned(), 1);
        }
    };
    let (changes, judge) = trial(&Triggers::default(), 6, panic);
    assert_eq!(judge.open(), [Trigger::Logs]);
    assert_eq!(judge.condemned(), None, "logs only hold");
    assert_eq!(changes[0].1.why, "app logs for the first time: panic: nil map");
    // Six looks of the minute that it is remembered, and six in which nothing of it is seen.
    let (_, judge) = trial(&Triggers::default(), 16, panic);
    assert_eq!(judge.open(), [Trigger::Logs]);
    let (changes, judge) = trial(&Triggers::default(), 20, panic);
    assert!(judge.open().is_empty(), "{changes:#?}");
    assert_eq!(changes.last().map(|(_, c)| c.standing), Some(Standing::Quiet));

    // New errors, again and again.
    let often = |_: i64, s: &mut Sample| _ = app(s).errors.insert("error: lost".to_owned(), 2);
    let (_, judge) = trial(&Triggers::default(), 60, often);
    assert_eq!(judge.open(), [Trigger::Logs]);
    // Known ones do not count, nor do many lines at once.
    let known = |_: i64, s: &mut Sample| _ = app(s).errors.insert("error: slow client".to_owned(), 100);
    let (changes, _) = trial(&Triggers::default(), 60, known);
    assert!(changes.is_empty(), "{changes:#?}");
    let once = |i: i64, s: &mut Sample| {
        if i == 5 {
            app(s).errors.insert("error: lost".to_owned(), 200);
        }
    };
    let (changes, _) = trial(&Triggers::default(), 60, once);
    assert!(changes.iter().all(|(_, c)| c.standing != Standing::Fired), "{changes:#?}");

    let disk = |i: i64, s: &mut Sample| s.disk_free_bytes = Some((40_000 - 300 * i.unsigned_abs()) * MIB);
    let (_, judge) = trial(&Triggers::default(), 60, disk);
    assert_eq!((judge.open(), judge.condemned()), (vec![Trigger::Disk], None));
}

#[test]
fn the_action_is_the_users() {
    let mut triggers = Triggers::default();
    triggers.restarts.action = Action::Notify;
    let oom = |_: i64, s: &mut Sample| app(s).out_of_memory = true;
    let (changes, judge) = trial(&triggers, 5, oom);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].1.action, judge.open(), judge.condemned()), (Action::Notify, vec![], None));
    triggers.restarts.action = Action::Off;
    assert!(trial(&triggers, 5, oom).0.is_empty());
    triggers.logs.action = Action::Rollback;
    let panic = |_: i64, s: &mut Sample| _ = app(s).errors.insert("panic: x".to_owned(), 1);
    assert_eq!(trial(&triggers, 5, panic).1.condemned(), Some(Trigger::Logs));
}

#[test]
fn the_same_samples_give_the_same_decision_after_a_restart_of_the_watchdog() {
    let slow = |s: &mut Sample| s.checks.get_mut("workflow/order").expect("there").took_ms *= 3;
    let (changes, _) = trial(&Triggers::default(), 60, |_, s| slow(s));
    let mut second = judge(&Triggers::default());
    let mut again = Vec::new();
    for i in 0..60 {
        let mut sample = healthy(i);
        slow(&mut sample);
        let kept = serde_json::to_string(&sample).expect("json");
        again.extend(second.look(serde_json::from_str(&kept).expect("reads")).into_iter().map(|c| (i, c)));
        if second.condemned().is_some() {
            break;
        }
    }
    assert_eq!(again, changes);
}

#[test]
fn without_anything_from_before_latency_is_not_judged() {
    let mut judge = Judge::new(&Triggers::default(), Before::default(), WATCH_MS);
    for i in 0..60 {
        let mut sample = healthy(i);
        sample.checks.get_mut("workflow/order").expect("there").took_ms = 60_000;
        assert!(judge.look(sample).iter().all(|c| c.trigger != Trigger::Latency));
    }
}

/// Looks so far apart, at a trial so long, until something fires: at which look, and why.
fn fires_with(
    (every_ms, watch_ms): (i64, u64),
    looks: i64,
    of: impl Fn(i64, &mut Sample),
) -> Option<(Trigger, i64, String)> {
    let mut judge = Judge::new(&Triggers::default(), before(), watch_ms);
    for i in 0..looks {
        let mut sample = Sample { at_ms: i * every_ms, ..healthy(i) };
        of(i, &mut sample);
        let fired = judge.look(sample).into_iter().find(|c| c.standing == Standing::Fired);
        if let Some(change) = fired {
            return Some((change.trigger, i, change.why));
        }
    }
    None
}

const MINUTE_MS: i64 = 60_000;
const WEEK_MS: u64 = 7 * 86_400_000;

#[test]
fn growth_is_seen_in_trials_of_any_length() {
    // A tenth of a week are 1008 minutes.
    let leaks = |i: i64, s: &mut Sample| app(s).memory_bytes = 300 * MIB + i.unsigned_abs() * MIB / 7;
    let (trigger, at, why) = fires_with((MINUTE_MS, WEEK_MS), 1500, leaks).expect("fires");
    assert_eq!(trigger, Trigger::Memory, "{why}");
    assert!((1008..1040).contains(&at), "{at}: {why}");
    // It begins to leak in the middle: the time before does not outvote it.
    let later = |i: i64, s: &mut Sample| {
        app(s).memory_bytes = 300 * MIB + (i - 2500).max(0).unsigned_abs() * MIB / 7;
    };
    let (trigger, at, why) = fires_with((MINUTE_MS, WEEK_MS), 5000, later).expect("fires");
    assert_eq!(trigger, Trigger::Memory, "{why}");
    assert!((3400..4500).contains(&at), "{at}: {why}");
    assert_eq!(fires_with((MINUTE_MS, WEEK_MS), 1500, |_, _| {}), None);
}

#[test]
fn looks_that_are_far_apart_are_counted_all_the_same() {
    for every in [MINUTE_MS, 5 * MINUTE_MS] {
        let (trigger, at, why) = fires_with((every, WEEK_MS), 40, |i, s| {
            if i % 3 == 1 {
                s.checks.get_mut("workflow/order").expect("there").ok = false;
            }
        })
        .expect("fires");
        assert_eq!((trigger, at), (Trigger::Errors, 19), "{why}");
        assert_eq!(why, "workflow/order failed 7 of 20 times at the last looks");

        let new = |lines: u32| {
            move |i: i64, s: &mut Sample| {
                if i > 4 {
                    app(s).errors.insert("error: lost".to_owned(), lines);
                }
            }
        };
        let minutes = u32::try_from(every / MINUTE_MS).expect("small");
        let (trigger, at, why) = fires_with((every, WEEK_MS), 40, new(6 * minutes)).expect("fires");
        assert_eq!((trigger, at), (Trigger::Logs, 6), "{why}");
        assert!(why.contains(", 6 lines within a minute"), "{why}");
        assert_eq!(fires_with((every, WEEK_MS), 40, new(4 * minutes)), None);
    }
    let again = |i: i64, s: &mut Sample| app(s).starts = 1 + 2 * u32::try_from(i / 10).expect("small");
    let (trigger, at, why) = fires_with((10 * MINUTE_MS, WEEK_MS), 40, again).expect("fires");
    assert_eq!((trigger, at), (Trigger::Restarts, 10), "{why}");
}
