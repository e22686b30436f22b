//! Combinations of versions, each rehearsed.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;

#[test]
fn every_combination_is_rehearsed_and_production_is_left_alone() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    stack.run(&["up"]).expect(0);
    let (good, bad) = (ReleaseKind::V2.version(), ReleaseKind::LossyMigration.version());
    let words = format!("app={},{good},{bad}", ReleaseKind::V1.version());
    let dry = stack.run(&["compat", &words, "--dry-run"]).expect(0).stdout;
    assert!(dry.contains("· runs now") && dry.contains("– not tried"), "{dry}");
    assert!(!stack.root.join(".switchback/compat.json").exists());

    let out = stack.root.join("out");
    let ran = stack.run(&["compat", &words, "--output", out.to_str().expect("text")]).expect(3);
    for (version, said) in [(good, "✓ fits"), (bad, "✗ does not fit")] {
        let line = ran.stdout.lines().find(|l| l.trim_start().starts_with(&format!("app {version} ")));
        assert!(line.is_some_and(|l| l.contains(said)), "{}", ran.stdout);
    }
    let kept: Value =
        serde_json::from_str(&fs::read_to_string(stack.root.join(".switchback/compat.json")).expect("reads"))
            .expect("JSON");
    let cells = kept["cells"].as_array().expect("cells");
    let fits: Vec<&str> = cells.iter().map(|c| c["fits"].as_str().expect("text")).collect();
    assert_eq!(fits, ["runs_now", "fits", "refused"]);
    assert!(cells[2]["why"][0].is_string() && cells[2]["run"].is_string(), "{kept}");
    let run = cells[2]["run"].as_str().expect("a run");
    assert!(stack.run(&["report", run]).expect(0).stdout.contains(bad));
    assert!(fs::read_to_string(out.join("compat.md")).expect("reads").contains("✗ does not fit"));
    assert_eq!(stack.status()["generation"], 1);
    assert_eq!(stack.version().as_deref(), Some(ReleaseKind::V1.version()));
}

#[test]
fn what_cannot_be_combined_is_told() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    let words = |args: &[&str]| stack.run(&[&["compat"], args].concat());
    assert!(words(&["app=2.0.0"]).expect(3).all().contains("nothing of this stack runs yet"));
    stack.run(&["up"]).expect(0);
    assert!(words(&["ap=1,2"]).expect(2).all().contains("did you mean \"app\""));
    assert!(words(&["app"]).expect(2).all().contains("is not a version"));
    assert!(words(&["app=1", "app=2"]).expect(2).all().contains("named twice"));
    assert!(words(&["app=../x"]).expect(2).all().contains("is not a version"));
    let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert!(words(&[&format!("app={}", many.join(","))]).expect(2).all().contains("too many"));
    words(&[]).expect(2);
}
