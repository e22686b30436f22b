//! When a promotion may begin.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;

/// A stack with a section `promotion`, at generation 1.
fn stack(promotion: &str) -> Stack {
    let stack = Stack::new(&[ReleaseKind::V2]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}promotion: {promotion}\n")).expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

fn target() -> String {
    format!("app={}", ReleaseKind::V2.version())
}

const WAIVED: [&str; 5] = ["--yes", "--detach", "--without-certificate", "--reason", "test"];

fn promote(stack: &Stack, command: &str, more: &[&str]) -> common::Ran {
    let target = target();
    stack.run(&[&[command, target.as_str()][..], &WAIVED, more].concat())
}

#[test]
fn a_promotion_waits_for_its_window_and_a_rollback_does_not() {
    // Open all week but for the hours around now, whatever the zone is.
    let now = jiff::Zoned::now();
    let hour = |ahead: i64| {
        now.checked_add(jiff::Span::new().hours(ahead)).expect("a time").strftime("%H:00").to_string()
    };
    let stack = stack(&format!("{{ windows: [\"{}-{}\"] }}", hour(2), hour(4)));
    for command in ["promote", "upgrade"] {
        let refused = promote(&stack, command, &[]).expect(3).all();
        assert!(
            refused.contains("outside of promotion.windows") && refused.contains("--any-time"),
            "{refused}"
        );
    }
    assert_eq!(stack.status()["generation"], 1);
    stack.run(&["rehearse", &target()]).expect(0);
    promote(&stack, "promote", &["--any-time"]).expect(0);
    assert_eq!(stack.status()["generation"], 2);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.status()["generation"], 1);
}

#[test]
fn within_its_window_a_promotion_begins() {
    let stack = stack("{ windows: [\"00:00-12:00\", \"12:00-24:00\"] }");
    promote(&stack, "promote", &[]).expect(0);
    assert_eq!(stack.status()["generation"], 2);
}

#[test]
fn a_version_that_is_too_young_is_not_promoted_yet() {
    let stack = stack("{ min_age: 3d }");
    let refused = promote(&stack, "promote", &[]).expect(3).all();
    assert!(refused.contains("promotion.min_age is 3days") && refused.contains("ago"), "{refused}");
    promote(&stack, "promote", &["--any-time"]).expect(0);
}

#[test]
fn a_window_that_is_none_is_a_mistake_in_the_configuration() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}promotion: {{ windows: [\"someday 02:00-03:00\"] }}\n")).expect("writes");
    let told = stack.run(&["up"]).expect(2).all();
    assert!(told.contains("\"someday\" is no day"), "{told}");
}

#[test]
fn a_budget_that_cannot_hold_the_way_back_is_refused_with_numbers() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", &target()]).expect(0);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let own = text.lines().find_map(|l| l.split_once("budget: ")).map(|(_, rest)| rest).expect("a budget");
    let own = own.split([',', ' ', '}']).next().expect("a value");
    let with = |more: &str| {
        fs::write(&path, text.replacen(&format!("budget: {own}"), more, 1)).expect("writes");
    };
    with("budget: 10ms");
    let refused = stack.run(&["promote", &target(), "--yes", "--detach"]).expect(3).all();
    assert!(
        refused.contains("a rollback would take about ") && refused.contains("`rollback.budget` is 10 ms"),
        "{refused}"
    );
    assert_eq!(stack.status()["generation"], 1);
    // Enough for the way back, and not for bringing later writes back as well.
    let certificate = stack.run(&["status", "--json"]).expect(0).json();
    let expected = certificate["rollback"]["expected_ms"].as_u64();
    let rollback =
        expected.unwrap_or_else(|| stack.report()["certificate"]["rollback_ms"].as_u64().expect("a time"));
    with(&format!("budget: {}ms, writes: carry", rollback + 1));
    let refused = stack.run(&["promote", &target(), "--yes", "--detach"]).expect(3).all();
    assert!(refused.contains("bringing later writes back another "), "{refused}");
    with("budget: 5m, writes: carry");
    stack.run(&["promote", &target(), "--yes", "--detach"]).expect(0);
    assert_eq!(stack.status()["generation"], 2);
}
