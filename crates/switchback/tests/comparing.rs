//! Checks that compare the old and the new version side by side, in real rehearsals.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;

const CHECKS: &str = "  performance:
    - { name: notes, service: app, path: \"/api/notes?limit=20\", headers: { Authorization: \"Bearer {{env.ASSISTANT_TOKEN}}\" }, p50: 100, p95: 300, cpu: 300, floor: 20ms, limit: 30s }
";

fn stack(releases: &[ReleaseKind]) -> Stack {
    let stack = Stack::new(releases);
    stack.configure("checks:\n", &format!("checks:\n{CHECKS}"));
    stack.run(&["up"]).expect(0);
    stack
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["checks"].as_array().expect("checks");
    all.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("{id} in {all:?}"))
}

#[test]
fn a_good_upgrade_passes_both_and_keeps_its_values() {
    let stack = stack(&[ReleaseKind::V2]);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let report = stack.report();
    let api = check(&report, "api/app");
    assert_eq!((&api["verdict"], &api["kind"]), (&"pass".into(), &"api".into()), "{api}");
    assert_eq!(api["measured"]["requests compared"], "2");
    let performance = check(&report, "performance/notes");
    assert_eq!(performance["verdict"], "pass", "{performance}");
    let run = report["run"].as_str().expect("a run");
    for artefact in performance["artefacts"].as_array().expect("artefacts") {
        let path = stack.state().join("runs").join(run).join(artefact["path"].as_str().expect("a path"));
        assert!(fs::metadata(&path).is_ok_and(|m| m.len() > 1000), "{}", path.display());
    }
    assert!(!report.to_string().contains(common::TOKEN), "the token is in the report");
}

#[test]
fn lost_rows_are_seen_in_answers_and_a_leaking_pool_while_times_are_measured() {
    let stack = stack(&[ReleaseKind::LossyMigration, ReleaseKind::LeakyPool]);
    stack.run(&["rehearse", "app=2.1.0"]).expect(3);
    let api = check(&stack.report(), "api/app").clone();
    assert_eq!(api["verdict"], "fail", "{api}");
    assert!(api.to_string().contains("answer-value"), "{api}");
    stack.run(&["rehearse", "app=2.2.0"]).expect(3);
    let performance = check(&stack.report(), "performance/notes").clone();
    assert_eq!(performance["verdict"], "fail", "{performance}");
}
