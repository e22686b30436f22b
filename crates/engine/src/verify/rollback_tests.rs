//! Tests of what judges a rollback.

use super::super::made_up::{ran, step};
use super::*;
use switchback_core::journal::Outcome;
use switchback_core::plan::{Group, Procedure};
use switchback_core::report::StepStatus;

#[test]
fn an_outage_is_measured_from_the_last_good_to_the_next_good_answer() {
    let zero = Instant::now();
    let seen = |list: &[(u64, bool)]| {
        outage(&list.iter().map(|(ms, ok)| (zero + Duration::from_millis(*ms), *ok)).collect::<Vec<_>>())
    };
    assert_eq!(seen(&[(0, true), (10, false), (20, true), (30, false), (70, true), (80, true)]), Some(70));
    assert_eq!(seen(&[(0, true), (10, true)]), None);
    assert_eq!(seen(&[(0, true), (10, false)]), None, "an outage without an end");
    assert_eq!(
        seen(&[(0, false), (5, true), (10, false), (30, true)]),
        Some(25),
        "bad before anything was good"
    );
    assert_eq!(seen(&[(0, false)]), None);
    assert_eq!(seen(&[]), None);
}

#[test]
fn a_rollback_over_its_limit_or_one_that_nobody_timed_does_not_pass() {
    let mut took = ran(Procedure::Rollback);
    let mut verdict = |budget_ms, rollback_ms| {
        (took.report.times.budget_ms, took.report.times.rollback_ms) = (budget_ms, rollback_ms);
        timed(&took).verdict().word()
    };
    assert_eq!(verdict(1000, Some(1000)), "pass");
    assert_eq!(verdict(1000, Some(1001)), "fail", "over its budget");
    assert_eq!(verdict(10 * LIMIT_MS, Some(LIMIT_MS + 1)), "fail", "over five minutes, whatever the budget");
    assert_eq!(verdict(1000, None), "inconclusive");
    let mut undone = ran(Procedure::Rollback);
    undone.report.times = switchback_core::report::Times { rollback_ms: Some(1), ..took.report.times };
    undone.state.ended = Some(Outcome::NeedsOperator { reasons: Vec::new() });
    assert_eq!(timed(&undone).verdict().word(), "fail", "it was not done");
}

#[test]
fn an_outage_that_is_longer_than_stopping_and_starting_fails_its_row() {
    let mut seen = ran(Procedure::Rollback);
    seen.report.steps = vec![
        step("stop-new", Group::Rollback, StepStatus::Done, 100),
        step("start-old", Group::Rollback, StepStatus::Done, 200),
    ];
    assert_eq!(downtime(&seen, Some(300 + OVERHEAD_MS)).verdict().word(), "pass");
    assert_eq!(
        downtime(&seen, Some(301 + OVERHEAD_MS)).verdict().word(),
        "fail",
        "something was copied in it"
    );
    assert_eq!(downtime(&seen, None).verdict().word(), "inconclusive", "nobody saw it");
    seen.report.steps[1].took_ms = Some(2 * LIMIT_MS);
    assert_eq!(downtime(&seen, Some(LIMIT_MS + 1)).verdict().word(), "fail", "over five minutes");
}

#[test]
fn a_configuration_file_that_is_another_one_fails_its_row() {
    let file = |content: &[u8]| BTreeMap::from([("app.env".to_owned(), Some(Digest::of(content)))]);
    let recorded = BTreeMap::from([("app.env".to_owned(), Digest::of(b"1"))]);
    for (then, now, word) in [
        (file(b"1"), file(b"1"), "pass"),
        (file(b"2"), file(b"1"), "fail"),
        (file(b"1"), file(b"2"), "fail"),
        (file(b"1"), BTreeMap::from([("app.env".to_owned(), None)]), "fail"),
        (file(b"1"), BTreeMap::new(), "fail"),
    ] {
        let mut proof = Proof::new("rollback.configuration", "");
        same_files(&mut proof, &recorded, &then, &now);
        assert_eq!(proof.verdict().word(), word, "{then:?} {now:?}");
    }
}
