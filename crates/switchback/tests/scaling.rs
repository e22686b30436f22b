//! A migration timed on clones of several sizes.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;

fn left_in_staging(stack: &Stack) -> usize {
    std::fs::read_dir(stack.state().join("staging")).map(Iterator::count).unwrap_or(0)
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}"))
}

fn sizes(report: &Value, percent: &str) -> (u64, u64) {
    let at = &report["scaling"]["sizes"][percent]["db"];
    (number(at, "bytes"), number(at, "rows"))
}

#[test]
fn a_migration_is_timed_at_several_sizes_and_extrapolated() {
    let stack = Stack::with(&[ReleaseKind::V2, ReleaseKind::MigrationFails], 20_000);
    stack.run(&["up"]).expect(0);
    let (before, rows) = (stack.processes(), stack.rows(1));
    let good = format!("app={}", ReleaseKind::V2.version());

    let shown = stack.run(&["scaling", &good, "--sizes", "10,40", "--dry-run"]).expect(0).stdout;
    assert!(shown.contains("start-40-2") && shown.contains("Nothing was done"), "{shown}");
    let ran = stack.run(&["scaling", &good, "--sizes", "10, 30%,100", "--rounds", "2"]).expect(0);
    assert!(ran.all().contains("the migration of app"), "{}", ran.all());
    let report = stack.report();
    assert_eq!(
        (&report["procedure"], &report["conclusion"]),
        (&"scaling".into(), &"pass".into()),
        "{report}"
    );
    let found = &report["scaling"];
    let points = found["points"].as_array().expect("points");
    let tried: Vec<(u64, u64)> = points.iter().map(|p| (number(p, "percent"), number(p, "round"))).collect();
    assert_eq!(tried, [(10, 1), (30, 1), (100, 1), (10, 2), (30, 2), (100, 2)]);
    assert!(points.iter().all(|p| number(p, "took_ms") > 0), "{found}");
    let ((small, few), (all, every)) = (sizes(&report, "10"), sizes(&report, "100"));
    assert!(small * 3 < all && few * 5 < every, "{found}");
    let predictions = found["predictions"].as_array().expect("predictions");
    // On a machine that does other things as well it may be that nothing can be said, and then it is not said.
    assert_eq!(predictions.len(), if found["why_not"].is_null() { 2 } else { 0 }, "{found}");
    for p in predictions {
        let of = |key: &str| number(p, key);
        assert!(of("low_ms") <= of("took_ms") && of("took_ms") <= of("high_ms"), "{p}");
    }
    if let Some(now) = predictions.first() {
        assert_eq!(now["bytes"], found["production_bytes"]);
        let text = stack.run(&["report", "--format", "markdown"]).expect(0).stdout;
        assert!(text.contains("95 % interval"), "{text}");
    }
    let page = stack.run(&["report", "--format", "html"]).expect(0).stdout;
    assert!(
        page.contains("Time by size of the data") && page.contains("<svg"),
        "the picture is in the report"
    );

    assert_eq!((stack.processes(), stack.rows(1)), (before.clone(), rows.clone()));
    assert_eq!((stack.status()["generation"].as_u64(), left_in_staging(&stack)), (Some(1), 0));

    // A migration that fails is refused, at the first size.
    let fails = stack.run(&["scaling", &format!("app={}", ReleaseKind::MigrationFails.version())]).expect(3);
    assert!(fails.all().contains("fails"), "{}", fails.all());
    assert_eq!((stack.processes(), stack.rows(1), left_in_staging(&stack)), (before, rows, 0));
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    let good = format!("app={}", ReleaseKind::V2.version());
    let small = stack.run(&["scaling", &good]);
    assert!(small.all().contains("large enough"), "{}", small.all());
    assert_ne!(small.code, Some(0));
    assert_eq!(left_in_staging(&stack), 0);
    let same = stack.run(&["scaling", "app=1.0.0"]).expect(3);
    assert!(same.all().contains("what production runs"), "{}", same.all());
    for wrong in ["0,50", "50", "101,50", "x,1", "10,20,30,40,50,60", "20,20"] {
        stack.run(&["scaling", &good, "--sizes", wrong]).expect(2);
    }
    stack.run(&["scaling", &good, "--rounds", "0"]).expect(2);
    stack.run(&["scaling", &good, "--sizes", "20,40", "--rounds", "1"]).expect(2);
}

/// A killed run goes on where it was, or is undone; nothing of it stays, and a pause is no migration's time.
#[cfg(feature = "faults")]
#[test]
fn a_killed_run_goes_on_or_is_undone() {
    let stack = Stack::with(&[ReleaseKind::V2], 3000);
    stack.run(&["up"]).expect(0);
    let before = (stack.processes(), stack.rows(1));
    let good = format!("app={}", ReleaseKind::V2.version());
    let args = ["scaling", good.as_str(), "--sizes", "20,60"];
    for (fault, resume) in [
        ("do:shrink-20:during", &["resume"][..]),
        ("do:start-60-1:during", &["resume"]),
        ("do:remove-20-1:during", &["resume"]),
        ("do:start-20-2:after", &["resume", "--abort"]),
        ("do:remove-60-2:after", &["resume", "--abort"]),
    ] {
        let crashed = stack.run_with(&args, &[("SWITCHBACK_FAULT", fault)]);
        assert_eq!(crashed.code, None, "{fault}: {}", crashed.all());
        let resumed = stack.run(resume);
        let wanted = if resume.len() == 1 { Some(0) } else { resumed.code.filter(|c| [0, 3].contains(c)) };
        assert_eq!(resumed.code, wanted, "{fault}: {}", resumed.all());
        assert_eq!((stack.processes(), stack.rows(1)), before, "{fault}");
        assert_eq!(left_in_staging(&stack), 0, "{fault}");
    }
}
