use super::*;
use crate::journal::TRIAL_FAILED;
use crate::report::Report;
use serde_json::{Value, json};

const DAY: i64 = 86_400_000;
/// Monday, 2 November 2026.
const MONDAY: i64 = 20_759 * DAY;

/// A run as it is kept, with what is asked of it.
fn past(at_ms: i64, procedure: &str, conclusion: &str, of: &Value) -> Past {
    let mut all = json!({
        "schema": "switchback.report/1", "tool": "t", "host": "h", "run": format!("R{at_ms}"), "procedure": procedure, "stack": "s",
        "change": "app 1 -> 2", "from": { "app": "1" }, "to": { "app": "2" }, "from_generation": null, "to_generation": null, "reason": null,
        "started_at_ms": at_ms, "ended_at_ms": at_ms + 1000, "conclusion": conclusion, "headline": "", "reasons": [],
        "production": "", "next": [], "times": { "total_ms": 1000, "downtime_ms": null, "rollback_ms": null, "rollback_downtime_ms": null, "budget_ms": 9, "writers_waited_ms": null, "migrations_ms": {} },
        "steps": [], "checks": [], "diffs": {}, "fingerprints": [], "copies": [], "read_back": [],
        "code_only": null, "certificate": null, "exports": {}, "trial": null, "artefacts": []
    });
    for (key, value) in of.as_object().expect("an object") {
        match value {
            Value::Object(inner) if all[key].is_object() => {
                for (key_within, value) in inner {
                    all[key][key_within] = value.clone();
                }
            }
            _ => all[key] = value.clone(),
        }
    }
    let report: Report = serde_json::from_value(all).expect("a report");
    Past { report, failing_since_ms: None, answered_again_ms: None }
}

fn rehearsal(at_ms: i64, conclusion: &str, change: &str, verdicts: &[(&str, &str)]) -> Past {
    let checks: Vec<Value> = verdicts
        .iter()
        .map(|(id, verdict)| {
            json!({ "id": id, "kind": "workflow", "environment": "candidate", "verdict": verdict, "took_ms": 1, "reasons": [] })
        })
        .collect();
    past(at_ms, "rehearse", conclusion, &json!({ "change": change, "checks": checks }))
}

fn promotion(at_ms: i64, brought: u32, downtime_ms: u64, trial: &str) -> Past {
    let conclusion = if matches!(trial, "failed" | "cancelled") { "rolled_back" } else { "pass" };
    past(
        at_ms,
        "promote",
        conclusion,
        &json!({
            "from_generation": 1, "to_generation": brought, "times": { "downtime_ms": downtime_ms },
            "trial": { "began_at_ms": at_ms, "deadline_ms": at_ms + 9, "state": trial, "probes": [], "trigger": null }
        }),
    )
}

/// Production answers again 3 s after it began.
fn rollback(at_ms: i64, left: u32, rollback_ms: u64, reason: &str) -> Past {
    let of = json!({ "from_generation": left, "to_generation": 1, "reason": reason,
        "times": { "rollback_ms": rollback_ms, "rollback_downtime_ms": rollback_ms / 2 } });
    Past { answered_again_ms: Some(at_ms + 3000), ..past(at_ms, "rollback", "pass", &of) }
}

#[test]
fn a_history_is_counted_as_it_was() {
    let failing = [("workflow/a", "fail"), ("workflow/b", "pass")];
    let passing = [("workflow/a", "pass"), ("workflow/b", "pass")];
    let mut of_itself = promotion(6000, 3, 200, "failed");
    of_itself.failing_since_ms = Some(7000);
    let runs = [
        rehearsal(1000, "refused", "app 1 -> 2", &failing),
        rehearsal(2000, "pass", "app 1 -> 2", &passing),
        rehearsal(3000, "refused", "app 1 -> 3", &failing),
        rehearsal(4000, "unfinished", "app 1 -> 4", &[]),
        promotion(5000, 2, 100, "confirmed"),
        of_itself,
        rollback(8000, 3, 700, &format!("{TRIAL_FAILED}: no answer")),
        past(9000, "promote", "undone", &json!({ "to_generation": 4 })),
        promotion(10_000, 5, 300, "confirmed"),
        rollback(20_000, 5, 500, "mails are not sent"),
        // A rollback ended its trial and was undone: it runs.
        promotion(30_000, 6, 300, "cancelled"),
        past(40_000, "rollback", "undone", &json!({ "from_generation": 6, "to_generation": 1 })),
    ];
    let found = analyse(&runs, Period::ALL);
    assert_eq!((found.rehearsed, found.refused, found.inconclusive), (3, 2, 0));
    assert_eq!((found.promoted, found.undone), (4, 1));
    assert_eq!((found.rolled_back, found.rollbacks, found.failed), (1, 1, 2), "each is counted once");
    assert_eq!(found.change_failure_rate, Some(0.5));
    // From the first bad sign; from the command.
    assert_eq!(found.restore, Spread { count: 2, median_ms: 3000, longest_ms: 4000 });
    assert_eq!(found.rollback, Spread { count: 2, median_ms: 500, longest_ms: 700 });
    assert_eq!(found.rollback_downtime, Spread { count: 2, median_ms: 250, longest_ms: 350 });
    assert_eq!(found.downtime, Spread { count: 4, median_ms: 200, longest_ms: 300 });
    assert_eq!(found.prevented_by, [CheckCount { check: "workflow/a".into(), count: 2 }]);
    assert_eq!(found.flaky, [CheckCount { check: "workflow/a".into(), count: 1 }]);
    let nothing = analyse(&[], Period::ALL);
    assert_eq!((nothing.runs, nothing.change_failure_rate), (0, None));
}

/// A generation can be returned to and left again: what failed when it was on trial has nothing to do with that.
#[test]
fn only_the_first_rollback_restores_what_failed_on_trial() {
    let mut promoted = promotion(1000, 2, 100, "cancelled");
    promoted.failing_since_ms = Some(1500);
    let first = rollback(2000, 2, 10, "it is slow");
    let again = rollback(50_000, 2, 10, "still slow");
    let runs = [again.clone(), first.clone(), promoted];
    assert_eq!(time_to_restore(&runs, &first), Some(3500));
    assert_eq!(time_to_restore(&runs, &again), Some(3000));
    let found = analyse(&runs, Period::ALL);
    assert_eq!((found.rolled_back, found.failed, found.rollbacks), (0, 1, 2));
}

#[test]
fn single_services_that_went_back_are_a_failed_change() {
    let mut back = rollback(2000, 2, 10, "mails");
    back.report.procedure = Procedure::ServiceRollback;
    let found = analyse(&[promotion(1000, 2, 100, "confirmed"), back], Period::ALL);
    assert_eq!((found.failed, found.change_failure_rate), (1, Some(1.0)));
}

#[test]
fn a_period_is_divided_at_midnights_or_mondays_without_a_gap() {
    let period = Period { from_ms: MONDAY + DAY / 2, until_ms: MONDAY + 2 * DAY };
    assert_eq!(period.width(), Width::Day);
    let days = period.parts(Width::Day);
    assert_eq!(days[0], Period { from_ms: MONDAY + DAY / 2, until_ms: MONDAY + DAY });
    assert_eq!(days[1..], [Period { from_ms: MONDAY + DAY, until_ms: MONDAY + 2 * DAY }]);
    let long = Period { from_ms: MONDAY - 1, until_ms: MONDAY + 15 * DAY };
    assert_eq!(long.width(), Width::Week);
    let weeks = long.parts(Width::Week);
    let begin: Vec<i64> = weeks.iter().map(|w| w.from_ms).collect();
    assert_eq!(begin, [MONDAY - 1, MONDAY, MONDAY + 7 * DAY, MONDAY + 14 * DAY]);
    assert!(weeks.windows(2).all(|w| w[0].until_ms == w[1].from_ms));
    let before_1970 = Period { from_ms: -10 * DAY, until_ms: 0 }.parts(Width::Week);
    assert_eq!(before_1970.iter().map(|w| w.from_ms).collect::<Vec<_>>(), [-10 * DAY, -3 * DAY]);
}

#[test]
fn a_period_begins_with_the_first_run_and_holds_the_last() {
    let runs = [promotion(MONDAY + 5, 2, 1, "confirmed"), promotion(MONDAY - 90 * DAY, 3, 1, "confirmed")];
    let now = MONDAY + DAY;
    assert_eq!(
        Period::since(MONDAY - 30 * DAY, now, &runs),
        Period { from_ms: MONDAY, until_ms: now },
        "older runs do not count"
    );
    // A clock that was wrong.
    assert!(Period::since(MONDAY - DAY, MONDAY - 5, &runs).holds(MONDAY + 5));
    assert_eq!(Period::since(now, now + 7, &[]), Period { from_ms: now, until_ms: now + 7 });
    assert!(Period::since(i64::MIN, now, &runs).holds(MONDAY - 90 * DAY));
}

fn three_weeks() -> Vec<Past> {
    let mut failed = promotion(MONDAY + DAY, 3, 4000, "failed");
    failed.failing_since_ms = Some(MONDAY + DAY + 1000);
    vec![
        rehearsal(MONDAY, "refused", "app 1 -> 2", &[("workflow/a", "fail")]),
        failed,
        rollback(MONDAY + DAY + 5000, 3, 700, &format!("{TRIAL_FAILED}: x")),
        promotion(MONDAY + 2 * DAY, 4, 2000, "confirmed"),
        // It goes back two weeks later: it is the promotion's week that has the failure.
        promotion(MONDAY + 3 * DAY, 5, 2000, "confirmed"),
        rollback(MONDAY + 15 * DAY, 5, 900, "=HYPERLINK(\"http://x\"), \"now\""),
        promotion(MONDAY + 16 * DAY, 6, 3000, "confirmed"),
    ]
}

#[test]
fn trends_have_each_event_in_its_week_and_nothing_where_nothing_was() {
    let runs = three_weeks();
    let trends = Trends::build(&runs, Period::since(0, MONDAY + 17 * DAY, &runs));
    assert_eq!(trends.width, Width::Week);
    let counts: Vec<_> =
        trends.buckets.iter().map(|b| (b.rehearsed, b.promoted, b.failed, b.rollbacks)).collect();
    assert_eq!(counts, [(1, 3, 2, 1), (0, 0, 0, 0), (0, 1, 0, 1)]);
    let rates: Vec<_> = trends.buckets.iter().map(|b| b.change_failure_rate).collect();
    assert_eq!(rates, [Some(2.0 / 3.0), None, Some(0.0)]);
    assert_eq!(trends.buckets[1].downtime, None);
    let first = &trends.buckets[0];
    assert_eq!(first.downtime, Some(Spread { count: 3, median_ms: 2000, longest_ms: 4000 }));
    assert_eq!(first.rollback, Some(Spread { count: 1, median_ms: 700, longest_ms: 700 }));
    assert_eq!(first.restore, Some(Spread { count: 1, median_ms: 7000, longest_ms: 7000 }));
    let sum = |of: fn(&Bucket) -> usize| trends.buckets.iter().map(of).sum::<usize>();
    assert_eq!((sum(|b| b.promoted), sum(|b| b.failed)), (trends.total.promoted, trends.total.failed));
    let text = serde_json::to_value(&trends).expect("JSON");
    assert_eq!((&text["schema"], &text["width"]), (&"switchback.trends/1".into(), &"week".into()));
    assert_eq!(text["buckets"][1]["change_failure_rate"], Value::Null);
    assert!(Trends::build(&[], Period { from_ms: 0, until_ms: 900 * DAY }).buckets.is_empty());
}

#[test]
fn pictures_have_gaps_where_nothing_was_measured() {
    let runs = three_weeks();
    let trends = Trends::build(&runs, Period::since(0, MONDAY + 17 * DAY, &runs));
    let of = |picture: Option<String>| picture.expect("a picture");
    let rate = of(picture::failure_rate(&trends));
    assert_eq!(rate.matches("<circle").count(), 3, "two weeks and the legend: {rate}");
    assert_eq!(rate.matches("<polyline").count(), 0, "no line leads over the week without promotions");
    assert!(
        rate.contains("week from 2026-11-02: 67 %") && rate.contains("week from 2026-11-16: 0 %"),
        "{rate}"
    );
    let downtime = of(picture::times(&trends, "Downtime", |b| b.downtime));
    assert!(downtime.contains("<title>Downtime per week</title>"), "{downtime}");
    assert_eq!(downtime.matches("<circle").count(), 2 + 2 + 2);
    let upgrades = of(picture::upgrades(&trends));
    assert!(upgrades.contains("week from 2026-11-02: 3 promoted"), "{upgrades}");
    for svg in [&rate, &downtime, &upgrades] {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    let adjacent = [promotion(MONDAY, 2, 10, "confirmed"), promotion(MONDAY + DAY, 3, 0, "confirmed")];
    let trends = Trends::build(&adjacent, Period::since(0, MONDAY + 2 * DAY, &adjacent));
    assert_eq!(of(picture::failure_rate(&trends)).matches("<polyline").count(), 1, "neighbours are joined");
    let nothing = Trends::build(&[], Period { from_ms: 0, until_ms: DAY });
    assert!(picture::upgrades(&nothing).is_none() && picture::failure_rate(&nothing).is_none());
    assert!(picture::times(&nothing, "x", |b| b.rollback).is_none());
}

#[test]
fn tables_have_a_row_per_run_and_per_week() {
    let mut runs = three_weeks();
    runs.reverse();
    let period = Period::since(0, MONDAY + 17 * DAY, &runs);
    let text = table::of_runs(&runs, period, 3);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 5, "a header, three runs and the end: {text}");
    assert!(lines[0].starts_with("run,started_utc,procedure,change,from,to,"), "{text}");
    assert_eq!(
        lines[2],
        format!(
            "R{},2026-11-17T00:00:00Z,rollback,app 1 -> 2,app 1,app 2,5,1,pass,1000,,900,450,3000,,\"'=HYPERLINK(\"\"http://x\"\"), \"\"now\"\"\"",
            MONDAY + 15 * DAY
        )
    );
    let whole = table::of_runs(&runs, Period::ALL, usize::MAX);
    assert!(whole.contains(",refused,1000,,,,,workflow/a,\r\n"), "{whole}");
    let weeks = table::of_trends(&Trends::build(&runs, period));
    let lines: Vec<&str> = weeks.split("\r\n").collect();
    assert_eq!(
        lines[1],
        "2026-11-02T00:00:00Z,2026-11-09T00:00:00Z,1,1,0,3,2,1,0.6667,2000,4000,700,700,7000,7000"
    );
    assert_eq!(lines[2], "2026-11-09T00:00:00Z,2026-11-16T00:00:00Z,0,0,0,0,0,0,,,,,,,");
}
