//! A rollback that is tried on clones.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// A stack at generation 2, on trial for so long.
fn upgraded(watch: &str) -> Stack {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s", &format!("watch: {watch}"));
    stack.run(&["up"]).expect(0);
    let target = format!("app={}", ReleaseKind::V2.version());
    stack.run(&["rehearse", &target]).expect(0);
    stack.run(&["promote", &target, "--yes", "--detach"]).expect(0);
    stack
}

#[test]
fn the_way_back_is_tried_and_certified() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    assert!(stack.run(&["drill", "rollback"]).expect(3).all().contains("no generation to return to"));
    drop(stack);

    let stack = upgraded("1h");
    let rehearsed = certificate(&stack, "rehearse");
    stack.write_note("written since");
    let (before, old, new) = (stack.processes(), stack.rows(1), stack.rows(2));
    assert!(stack.run(&["drill", "rollback", "--dry-run"]).expect(0).stdout.contains("rollback-start"));
    let ran = stack.run(&["drill", "rollback"]).expect(0);
    assert!(ran.all().contains("production can be returned"), "{}", ran.all());
    let report = stack.report();
    assert_eq!((&report["procedure"], &report["conclusion"]), (&"rollback_drill".into(), &"pass".into()));
    let took = report["times"]["rollback_ms"].as_u64().expect("measured");
    let renewed = &report["certificate"];
    assert_eq!(renewed["rollback_ms"].as_u64(), Some(took));
    for kept in ["from", "to", "downtime_ms", "coverage"] {
        assert_eq!(renewed[kept], rehearsed[kept], "{kept}");
    }
    assert!(renewed["issued_at_ms"].as_i64() > rehearsed["issued_at_ms"].as_i64());
    assert_eq!((&renewed["drilled"], &rehearsed["drilled"]), (&true.into(), &Value::Null));
    assert!(
        stack.status()["rollback"]["text"].as_str().is_some_and(|t| t.contains("drilled")),
        "{}",
        stack.status()
    );

    // Nothing is touched and nothing is left.
    assert_eq!((stack.processes(), stack.rows(1), stack.rows(2)), (before, old, new));
    assert_eq!(stack.status()["generation"], 2);
    let staging = stack.root.join(".switchback/staging");
    let left: Vec<_> =
        fs::read_dir(&staging).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    assert!(
        left.iter().all(|p: &std::path::PathBuf| fs::read_dir(p).is_ok_and(|mut d| d.next().is_none())),
        "{left:?}"
    );
    // The page of it is one of its own.
    let page = stack.run(&["report", "--format", "html"]).expect(0).stdout;
    assert!(page.contains("Rollback drill") && !page.contains("downtime on production"), "{page}");
}

#[test]
fn a_way_back_that_is_gone_is_found() {
    let stack = upgraded("1h");
    let v1 = stack.root.join("releases").join(ReleaseKind::V1.version());
    let hidden = stack.root.join("hidden");
    fs::rename(&v1, &hidden).expect("moves");
    let ran = stack.run(&["drill", "rollback"]);
    assert_eq!(ran.code, Some(3), "{}", ran.all());
    fs::rename(&hidden, &v1).expect("moves");
    assert_eq!(stack.status()["generation"], 2);
}

#[test]
fn a_drill_is_made_by_the_clock_but_not_beside_a_trial() {
    let stack = upgraded("1h");
    stack.configure("watch: 1h", "watch: 1h, drill: 1h");
    let due = || stack.run(&["backup", "--if-due", "--json"]);
    let drills = || {
        let history = stack.run(&["history", "--json"]).expect(0).json();
        let runs = history.as_array().expect("runs").clone();
        runs.iter().filter(|r| r["procedure"] == "rollback_drill").count()
    };
    due();
    assert_eq!(drills(), 0, "the trial runs");
    stack.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(30), || stack.status()["trial"].is_null());
    due();
    due();
    assert_eq!(drills(), 1);
}

fn certificate(stack: &Stack, procedure: &str) -> Value {
    let history = stack.run(&["history", "--json"]).expect(0).json();
    let runs = history.as_array().expect("runs");
    let run = runs.iter().find(|r| r["procedure"] == procedure).expect("a run")["run"].clone();
    let report = stack.run(&["report", run.as_str().expect("text"), "--format", "json"]).expect(0).json();
    report["certificate"].clone()
}
