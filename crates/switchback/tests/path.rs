//! An upgrade in several steps, tried on clones.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;

fn step<'r>(report: &'r Value, id: &str) -> &'r Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("no step {id}: {report}"))
}

#[test]
fn a_path_works_step_by_step_or_says_where_it_breaks() {
    let kinds = [ReleaseKind::V2, ReleaseKind::AutoMigrate, ReleaseKind::LossyMigration];
    let stack = Stack::new(&kinds);
    stack.run(&["up"]).expect(0);
    let [good, next, lossy] = kinds.map(ReleaseKind::version);
    let (before, rows) = (stack.processes(), stack.rows(1));

    let shown = stack.run(&["path", &format!("app={good},{next}"), "--dry-run"]).expect(0).stdout;
    assert!(shown.contains("start-2") && shown.contains("Nothing was done"), "{shown}");
    let ran = stack.run(&["path", &format!("app={good},{next}")]).expect(0);
    assert!(ran.all().contains("every step of"), "{}", ran.all());
    let report = stack.report();
    assert_eq!((&report["procedure"], &report["conclusion"]), (&"path".into(), &"pass".into()));
    for id in ["diff-1", "checks-1", "diff-2", "checks-2"] {
        assert_eq!(step(&report, id)["status"], "done", "{id}: {report}");
    }
    assert!(report["certificate"].is_null());

    // The second version loses rows: the third one is not tried any more.
    let broken = stack.run(&["path", &format!("app={good},{lossy},{next}")]).expect(3);
    let report = stack.report();
    assert_eq!(report["conclusion"], "refused", "{}", broken.all());
    let (headline, reasons) = (report["headline"].to_string(), report["reasons"].to_string());
    assert!(headline.contains(&format!("breaks at app {good} -> {lossy}")), "{headline}");
    assert!(reasons.contains("rows are gone"), "{reasons}");
    assert_eq!(step(&report, "start-3")["status"], "skipped");

    assert_eq!((stack.processes(), stack.rows(1)), (before, rows));
    assert_eq!(stack.status()["generation"], 1);
    let nothing = stack.run(&["path", &format!("app={good},{good}")]).expect(3);
    assert!(nothing.all().contains("changes nothing"), "{}", nothing.all());
    stack.run(&["path", "app="]).expect(2);
    let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert!(stack.run(&["path", &format!("app={}", many.join(","))]).expect(2).all().contains("too many"));
}
