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

const JOURNEY: &str = "\
name: a person adds a note
headers: { Authorization: 'Bearer {{env.ASSISTANT_TOKEN}}' }
steps:
  - open: '{{app.url}}/'
  - expect: { text: Assistant, role: main }
  - fill: { css: '#title', value: 'seen in a browser {{run.id}}' }
  - click: { text: Add }
  - expect: { text: 'seen in a browser {{run.id}}' }
  - screenshot: added
";

/// The example with a journey in a real Chromium.
fn with_journey(releases: &[ReleaseKind]) -> Stack {
    let stack = Stack::new(releases);
    fs::create_dir(stack.root.join("journeys")).expect("creates");
    fs::write(stack.root.join("journeys/add.yaml"), JOURNEY).expect("writes");
    stack.configure("checks:\n", "checks:\n  journeys: [journeys/*.yaml]\n");
    stack.run(&["up"]).expect(0);
    stack
}

#[test]
fn a_page_that_is_broken_is_refused_by_its_journey_and_by_nothing_else() {
    let stack = with_journey(&[ReleaseKind::V2, ReleaseKind::BrokenPage]);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let report = stack.report();
    let journeys: Vec<&Value> =
        report["checks"].as_array().expect("checks").iter().filter(|c| c["id"] == "journey/add").collect();
    assert_eq!(journeys.len(), 2);
    for journey in journeys {
        assert_eq!(journey["verdict"], "pass", "{journey}");
        let picture = journey["artefacts"][0]["path"].as_str().expect("a picture");
        let run = report["run"].as_str().expect("a run");
        assert!(stack.state().join("runs").join(run).join(picture).exists(), "{picture}");
    }
    assert!(!report.to_string().contains(common::TOKEN), "the token is in the report");
    stack.run(&["rehearse", "app=2.5.2"]).expect(3);
    let report = stack.report();
    let failed: Vec<&str> = report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|c| c["verdict"] == "fail")
        .filter_map(|c| c["id"].as_str())
        .collect();
    assert_eq!(failed, ["journey/add"], "{report}");
}

#[test]
fn a_page_that_looks_otherwise_is_refused_until_a_person_approves_it() {
    let stack = with_journey(&[ReleaseKind::V2]);
    let strict = JOURNEY.replacen("steps:", "look: same\nmask: ['li']\nsteps:", 1);
    fs::write(stack.root.join("journeys/add.yaml"), &strict).expect("writes");
    stack.run(&["rehearse", "app=2.0.0"]).expect(3);
    let report = stack.report();
    let all = report["checks"].as_array().expect("checks");
    let journey = all.iter().find(|c| c["id"] == "journey/add" && c["environment"] == "candidate");
    let journey = journey.unwrap_or_else(|| panic!("{report}"));
    let looks = journey["looks"].as_array().expect("looks");
    assert_eq!(looks.len(), 2, "{journey}");
    assert!(looks.iter().all(|l| l["changed_ppm"].as_u64().is_some_and(|n| n > 0)), "{journey}");
    let page = stack.run(&["report", "--format", "html"]).expect(0).stdout;
    assert!(
        page.contains("data:image/png;base64,") && page.contains("What differs"),
        "no pictures on the page"
    );

    let unknown = stack.run(&["check", "approve", "--only", "journey/add/nowhere"]).expect(3).all();
    assert!(unknown.contains("journey/add/added, journey/add/end"), "{unknown}");
    stack.run(&["check", "approve", "--only", "journey/add/end"]).expect(0);
    stack.run(&["rehearse", "app=2.0.0"]).expect(3);
    let approved = stack.run(&["check", "approve", "--json"]).expect(0).json();
    assert_eq!(approved["approved"], serde_json::json!(["journey/add/added"]), "{approved}");
    assert!(stack.run(&["check", "approve"]).expect(0).all().contains("not approved before"));
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    assert!(stack.report()["certificate"].is_object());
    // A damaged file is told, not taken for none.
    fs::write(stack.root.join("approved-looks.json"), "{").expect("writes");
    stack.run(&["rehearse", "app=2.0.0"]).expect(5);
}

#[test]
fn mutants_of_pages_are_caught_by_a_journey() {
    let stack = with_journey(&[ReleaseKind::V1]);
    let proved = stack.run(&["prove", "--json", "--mutant", "M25", "--mutant", "M26"]).expect(0).json();
    for row in proved["rows"].as_array().expect("rows").iter().filter(|r| r["id"] != "C0") {
        assert_eq!(row["by"], "journey/add", "{row}");
    }
}
