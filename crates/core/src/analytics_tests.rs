use super::*;
use serde_json::{Value, json};

/// A report as it is kept, with what is asked of it.
fn report(
    procedure: &str,
    conclusion: &str,
    change: &str,
    rollback_ms: Option<u64>,
    checks: &Value,
) -> Report {
    let all = json!({
        "schema": "switchback.report/1", "tool": "t", "host": "h", "run": "R", "procedure": procedure, "stack": "s",
        "change": change, "from": {}, "to": {}, "from_generation": 1, "to_generation": 2, "reason": null,
        "started_at_ms": 1000, "ended_at_ms": 2000, "conclusion": conclusion, "headline": "", "reasons": [],
        "production": "", "next": [], "times": { "total_ms": 5, "downtime_ms": 100, "rollback_ms": rollback_ms, "rollback_downtime_ms": null, "budget_ms": 9, "writers_waited_ms": null, "migrations_ms": {} },
        "steps": [], "checks": checks, "diffs": {}, "fingerprints": [], "copies": [], "read_back": [],
        "code_only": null, "certificate": null, "exports": {}, "trial": null, "artefacts": []
    });
    serde_json::from_value(all).expect("a report")
}

fn check(id: &str, verdict: &str) -> Value {
    let mut check =
        json!({ "id": id, "kind": "workflow", "environment": "candidate", "verdict": verdict, "took_ms": 1 });
    if verdict == "fail" {
        check["reasons"] = json!([]);
    }
    check
}

#[test]
fn a_history_is_counted_as_it_was() {
    let failing = json!([check("workflow/a", "fail"), check("workflow/b", "pass")]);
    let passing = json!([check("workflow/a", "pass"), check("workflow/b", "pass")]);
    let reports = [
        report("rehearse", "refused", "app 1 -> 2", None, &failing),
        report("rehearse", "pass", "app 1 -> 2", None, &passing),
        report("rehearse", "refused", "app 1 -> 3", None, &failing),
        report("rehearse", "unfinished", "app 1 -> 4", None, &json!([])),
        report("promote", "pass", "app 1 -> 2", None, &json!([])),
        report("promote", "rolled_back", "app 2 -> 3", Some(700), &json!([])),
        report("promote", "undone", "app 2 -> 4", None, &json!([])),
        report("rollback", "pass", "app 2 -> 1", Some(500), &json!([])),
    ];
    let found = analyse(&reports);
    assert_eq!((found.rehearsed, found.refused, found.inconclusive), (3, 2, 0));
    assert_eq!((found.promoted, found.rolled_back, found.undone, found.rollbacks), (2, 1, 1, 1));
    assert_eq!(found.change_failure_rate, Some(1.0));
    assert_eq!(found.restore, Spread { count: 2, median_ms: 500, longest_ms: 700 });
    assert_eq!(found.prevented_by, [CheckCount { check: "workflow/a".into(), count: 2 }]);
    assert_eq!(found.flaky, [CheckCount { check: "workflow/a".into(), count: 1 }]);
    let nothing = analyse(&[]);
    assert_eq!((nothing.runs, nothing.change_failure_rate), (0, None));
}
