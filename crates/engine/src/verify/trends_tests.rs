use super::*;
use serde_json::{Value, json};
use switchback_core::criteria::Judgement;

fn generation(number: u32) -> Option<GenerationId> {
    Some(GenerationId(number))
}

fn promoted(number: u32, took_ms: u64, failed_on_trial: bool) -> Promoted {
    Promoted { generation: generation(number), took_ms: Some(took_ms), failed_on_trial }
}

/// Three promotions on two days: one failed on trial, one was rolled back by command, one holds.
fn done() -> Done {
    Done {
        rehearsed: 2,
        refused: 1,
        promoted: vec![promoted(2, 900, true), promoted(3, 1000, false), promoted(4, 800, false)],
        rolled_back: vec![(generation(2), Some(300)), (generation(3), Some(400))],
    }
}

fn trends() -> Value {
    let spread = |count: u64, ms: u64| json!({ "count": count, "median_ms": ms, "longest_ms": ms });
    json!({
        "schema": "switchback.trends/1", "stack": "s", "from_ms": 0, "until_ms": 172_800_000, "width": "day",
        "total": {
            "schema": "switchback.history/2", "from_ms": 0, "to_ms": 9, "runs": 7, "rehearsed": 2, "refused": 1, "inconclusive": 0,
            "promoted": 3, "rolled_back": 1, "failed": 2, "undone": 0, "rollbacks": 1, "change_failure_rate": 2.0 / 3.0,
            "restore": spread(2, 5000), "rollback": spread(2, 300), "rollback_downtime": spread(2, 200),
            "downtime": spread(3, 700), "prevented_by": [], "flaky": []
        },
        "buckets": [
            { "from_ms": 0, "until_ms": 86_400_000, "rehearsed": 2, "refused": 1, "inconclusive": 0, "promoted": 3, "failed": 2,
              "rollbacks": 1, "change_failure_rate": 2.0 / 3.0, "downtime": spread(3, 900), "rollback": spread(1, 300),
              "restore": spread(1, 4000) },
            { "from_ms": 86_400_000, "until_ms": 172_800_000, "rehearsed": 0, "refused": 0, "inconclusive": 0, "promoted": 0, "failed": 0,
              "rollbacks": 1, "change_failure_rate": null, "downtime": null, "rollback": spread(1, 400), "restore": spread(1, 5000) }
        ]
    })
}

fn verdict(trends: &Value, done: &Done) -> Judgement {
    judged(&serde_json::from_value(trends.clone()).expect("trends"), done).verdict()
}

#[test]
fn trends_that_are_what_was_done_pass() {
    assert_eq!(verdict(&trends(), &done()), Judgement::Pass);
}

#[test]
fn every_number_that_is_not_what_was_done_is_a_failure() {
    for (pointer, wrong) in [
        ("/total/rehearsed", json!(1)),
        ("/total/refused", json!(0)),
        ("/total/promoted", json!(4)),
        ("/total/failed", json!(1)),
        ("/total/rolled_back", json!(2)),
        ("/total/change_failure_rate", json!(1.0)),
        ("/total/rollback/count", json!(1)),
        ("/total/restore/count", json!(0)),
        ("/total/downtime/count", json!(2)),
        ("/buckets/0/rehearsed", json!(3)),
        ("/buckets/0/promoted", json!(2)),
        ("/buckets/0/failed", json!(1)),
        ("/buckets/0/downtime", json!(null)),
        ("/buckets/0/downtime/longest_ms", json!(1001)),
        ("/buckets/1/rollbacks", json!(0)),
        ("/buckets/1/rollback/longest_ms", json!(399)),
        ("/buckets/1/restore", json!(null)),
        ("/total/rollback_downtime/longest_ms", json!(5001)),
        ("/buckets/1/change_failure_rate", json!(0.0)),
    ] {
        let mut tampered = trends();
        *tampered.pointer_mut(pointer).expect("there") = wrong;
        let found = verdict(&tampered, &done());
        assert!(matches!(found, Judgement::Fail { .. }), "{pointer}: {found:?}");
    }
    let found = verdict(&trends(), &Done::default());
    assert!(matches!(found, Judgement::Fail { .. }), "nothing was done: {found:?}");
}
