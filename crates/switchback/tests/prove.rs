//! Known-bad upgrades on purpose, with the real program: which checks catch them.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;

fn rows(proved: &Value) -> Vec<(String, String)> {
    let all = proved["rows"].as_array().expect("rows");
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    all.iter().map(|r| (text(&r["id"]), text(&r["outcome"]))).collect()
}

fn row<'a>(proved: &'a Value, id: &str) -> &'a Value {
    let all = proved["rows"].as_array().expect("rows");
    all.iter().find(|r| r["id"] == id).unwrap_or_else(|| panic!("{id} in {proved}"))
}

const TRIED: [&str; 14] =
    ["M01", "M02", "M06", "M07", "M08", "M09", "M10", "M11", "M14", "M18", "M19", "M20", "M21", "M22"];

#[test]
fn every_mutant_is_caught_by_its_check_and_the_controls_pass() {
    let stack = Stack::new(&[ReleaseKind::V1]);
    stack.run(&["up"]).expect(0);
    let before = stack.processes();
    let data = stack.rows(1);
    let out = stack.root.join("out");
    let out = out.to_str().expect("text");
    let ran = stack.run(&["prove", "--json", "--controls", "3", "--output", out]).expect(0);
    // What it found is told as it goes, also where nobody sees it move.
    assert!(ran.stderr.contains("✓ M01  caught by workflow/"), "{}", ran.stderr);
    let proved = ran.json();
    let page = fs::read_to_string(stack.root.join("out/prove.md")).expect("written");
    assert!(page.contains("| ✓ M01 |"), "{page}");
    for id in TRIED.iter().chain(&["M23", "M29"]) {
        assert_eq!(row(&proved, id)["outcome"], "caught", "{}", row(&proved, id));
        assert!(row(&proved, id)["landed"].as_u64().is_some_and(|n| n > 0 || *id == "M14"), "{id}");
    }
    for id in ["C0", "C1"] {
        assert_eq!(row(&proved, id)["outcome"], "passed", "{}", row(&proved, id));
    }
    assert_eq!(row(&proved, "M03")["outcome"], "not_applicable");
    assert_eq!(row(&proved, "M25")["outcome"], "not_applicable");
    // There is no check of performance, and one service only.
    for id in ["M05", "M13", "M24"] {
        assert_eq!(row(&proved, id)["outcome"], "not_applicable", "{}", row(&proved, id));
    }
    // What no check of the stack is asked about.
    for (id, by) in [
        ("M12", "watchdog: restarts"),
        ("M15", "settings"),
        ("M16", "migrate_deadline of app"),
        ("M17", "integrity/db"),
        ("M28", "rollback.budget"),
        ("M30", "isolation/attack"),
    ] {
        assert_eq!(row(&proved, id)["by"], by, "{}", row(&proved, id));
    }
    assert_eq!(row(&proved, "M27")["outcome"], "caught", "{}", row(&proved, "M27"));
    assert_eq!(proved["rows"].as_array().expect("rows").len(), 32);
    // The expected check, for the expected reason.
    for (id, by) in
        [("M10", "api/app"), ("M07", "integrity/db"), ("M20", "workflow/reading"), ("M18", "workflow/notes")]
    {
        assert_eq!(row(&proved, id)["by"], by, "{}", row(&proved, id));
    }
    assert_eq!(stack.processes(), before, "something is left");
    assert_eq!(stack.rows(1), data, "production was touched");
    assert!(
        stack.run(&["staging", "list", "--json"]).expect(0).json().as_array().expect("a list").is_empty()
    );
    let kept: Value =
        serde_json::from_slice(&fs::read(stack.state().join("prove.json")).expect("kept")).expect("JSON");
    assert_eq!(kept, proved);
}

#[test]
fn a_check_that_is_taken_away_lets_its_mutants_survive_and_they_are_named() {
    let stack = Stack::new(&[ReleaseKind::V1]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let api = text.find("  api:\n").expect("the example has one");
    let end = text.find("  invariants:\n").expect("and what follows it");
    fs::write(&path, format!("{}{}", &text[..api], &text[end..])).expect("writes");
    stack.run(&["up"]).expect(0);
    let proved = stack
        .run(&["prove", "--json", "--mutant", "m10", "--mutant", "M21", "--mutant", "M01"])
        .expect(3)
        .json();
    assert_eq!(
        rows(&proved),
        [("C0", "passed"), ("M01", "caught"), ("M10", "survived"), ("M21", "survived")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    assert!(row(&proved, "M10")["advice"].as_str().expect("advice").contains("checks.api"));
    let shown = stack.run(&["prove", "--mutant", "M10"]).expect(3).stdout;
    assert!(shown.contains("SURVIVED") && shown.contains("0 of 1"), "{shown}");
}

#[test]
fn times_are_told_apart_where_a_check_measures_them() {
    let stack = Stack::new(&[ReleaseKind::V1]);
    stack.configure(
        "  invariants:\n",
        "  performance:\n    - { name: notes, service: app, path: \"/api/notes?limit=20\", headers: { Authorization: \"Bearer {{env.ASSISTANT_TOKEN}}\" }, p50: 10, p95: 60, cpu: 200, limit: 60s }\n  invariants:\n",
    );
    stack.run(&["up"]).expect(0);
    let words = ["M03", "M04", "M05", "M13"].map(|id| ["--mutant", id]);
    let args: Vec<&str> = ["prove", "--json"].into_iter().chain(words.into_iter().flatten()).collect();
    let proved = stack.run(&args).json();
    for id in ["M03", "M04", "M05", "M13"] {
        assert_eq!(row(&proved, id)["by"], "performance/notes", "{}", row(&proved, id));
    }
}

#[test]
fn unknown_mutants_and_stacks_without_checks_are_told() {
    let stack = Stack::new(&[ReleaseKind::V1]);
    assert!(stack.run(&["prove", "--mutant", "M99"]).expect(2).stderr.contains("no mutant M99"));
    let listed = stack.run(&["prove", "--list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().expect("a list").len(), 32);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let (checks, rollback) =
        (text.find("checks:\n").expect("checks"), text.find("rollback:").expect("rollback"));
    fs::write(&path, format!("{}{}", &text[..checks], &text[rollback..])).expect("writes");
    stack.run(&["up"]).expect(0);
    let ran = stack.run(&["prove", "--json", "--mutant", "M01"]).expect(6);
    assert_eq!(row(&ran.json(), "M01")["outcome"], "not_applicable");
}
