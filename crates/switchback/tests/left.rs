//! Generations that production left: what was written to them is kept, listed and exported, whatever happens later.

mod common;

use assistant::ReleaseKind;
use common::{Ran, Stack};
use serde_json::Value;
use std::fs;

const WHY: [&str; 4] = ["--yes", "--without-certificate", "--reason", "a test"];

/// At generation 1; trials take a second, and nothing is kept that need not be.
fn stack(releases: &[ReleaseKind], rollback: &str) -> Stack {
    let stack = Stack::new(releases);
    stack.configure("watch: 2s", "watch: 1s");
    stack.configure(
        "rollback: {",
        &format!("retention: {{ generations: 0, runs: 1 }}\nrollback: {{{rollback}"),
    );
    stack.run(&["up"]).expect(0);
    stack
}

/// Promotes, and waits until the trial has passed.
#[track_caller]
fn promote(stack: &Stack, kind: ReleaseKind) {
    let version = format!("app={}", kind.version());
    stack.run(&[&["promote", &version][..], &WHY].concat()).expect(0);
}

#[track_caller]
fn unexported(stack: &Stack) -> Vec<u64> {
    let status = stack.status();
    let all = status["unexported"].as_array().expect("a list");
    all.iter().map(|id| id.as_u64().expect("a number")).collect()
}

fn is_kept(stack: &Stack, generation: u32) -> bool {
    stack.state().join(format!("generations/{generation}/generation.json")).exists()
}

fn exported_notes(done: &Ran) -> Value {
    let done = done.json();
    assert_eq!((&done["procedure"], &done["conclusion"]), (&"export".into(), &"pass".into()), "{done}");
    done["exports"]["db"]["parts"]["notes"]["inserted"].clone()
}

#[test]
fn a_generation_whose_export_failed_is_kept_through_later_promotions_and_exported_by_command() {
    let stack = stack(&[ReleaseKind::V2], "");
    promote(&stack, ReleaseKind::V2);
    stack.write_note("later");
    // Where the export belongs lies something else.
    let in_the_way = stack.state().join("exports/generation-2");
    fs::write(&in_the_way, "").expect("writes");
    // Long lines are broken where they are shown.
    let back = stack.run(&["rollback", "--yes"]).expect(5).all();
    let back = back.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        back.contains(
            "production is back on generation 1, but what was written to generation 2 is not exported"
        ) && back.contains("Production is back on generation 1.")
            && back.contains("switchback export 2"),
        "{back}"
    );
    assert_eq!((stack.version().as_deref(), unexported(&stack)), (Some("1.0.0"), vec![2]));
    let resumed = stack.run(&["resume"]).expect(0).stdout;
    assert!(resumed.contains("switchback export 2"), "{resumed}");

    promote(&stack, ReleaseKind::V2);
    assert_eq!(stack.status()["generation"], 3);
    assert_eq!(unexported(&stack), [2], "a later promotion forgets it");
    let metrics = stack.run(&["metrics"]).expect(0).stdout;
    assert!(metrics.contains("switchback_unexported_generations{stack=\"assistant\"} 1"), "{metrics}");
    let gc = stack.run(&["gc", "--yes"]).expect(0).stdout;
    assert!(gc.contains("kept generation 2: its later writes are not exported"), "{gc}");
    assert!(is_kept(&stack, 2));

    stack.run(&["export"]).expect(3);
    assert_eq!(unexported(&stack), [2]);
    fs::remove_file(&in_the_way).expect("removes");
    let plan = stack.run(&["export", "--dry-run"]).expect(0).stdout;
    assert!(plan.contains("Export what was written since generation 2 was made"), "{plan}");
    let done = stack.run(&["export", "--json"]).expect(0);
    assert_eq!(exported_notes(&done), 1);
    assert!(unexported(&stack).is_empty());
    let none = stack.run(&["export"]).expect(3).all();
    assert!(none.contains("there are no later writes that are not exported"), "{none}");
    let own = stack.run(&["export", "3"]).expect(3).all();
    assert!(own.contains("generation 3 was not left"), "{own}");
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(!is_kept(&stack, 2), "its writes are exported");
}

#[test]
fn a_generation_that_a_rollback_skips_is_kept_listed_and_exported_by_command() {
    let stack = stack(&[ReleaseKind::V2, ReleaseKind::BrokenPage], "");
    promote(&stack, ReleaseKind::V2);
    stack.write_note("to the second");
    promote(&stack, ReleaseKind::BrokenPage);
    stack.write_note("to the third");
    assert!(unexported(&stack).is_empty(), "what production was made from was not left");
    stack.run(&["rollback", "--to", "1", "--yes"]).expect(0);
    assert_eq!(unexported(&stack), [2]);
    promote(&stack, ReleaseKind::V2);
    assert_eq!(stack.status()["generation"], 4);
    assert_eq!(unexported(&stack), [2]);
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(is_kept(&stack, 2) && !is_kept(&stack, 3), "the third is exported, the second is not");
    let done = stack.run(&["export", "2", "--json"]).expect(0);
    assert_eq!(exported_notes(&done), 1);
    assert!(unexported(&stack).is_empty());
}

#[test]
fn what_cannot_be_exported_is_listed_until_somebody_gives_it_up() {
    let stack = stack(&[ReleaseKind::V2], "");
    promote(&stack, ReleaseKind::V2);
    stack.run(&["rollback", "--yes"]).expect(0);
    stack.write_note("to the first");
    stack.run(&["rollback", "--to", "2", "--yes"]).expect(0);
    assert_eq!(unexported(&stack), [1], "generation 2 does not have it");
    let refused = stack.run(&["export"]).expect(3).all();
    assert!(refused.contains("generation 1 has no clone to recognise later writes by"), "{refused}");
    let gc = stack.run(&["gc", "--yes", "--lose-writes-of", "1"]).expect(0).stdout;
    assert!(gc.contains("gave the later writes of generation 1 up; its data stays"), "{gc}");
    assert!(unexported(&stack).is_empty());
    assert_eq!(stack.titles(1, "to the first").len(), 1);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
}

/// Generation 2 was written to, left and carried into generation 3; then production returned to it, and it was written to again.
fn written_to_again() -> Stack {
    let stack = stack(&[ReleaseKind::V2], " writes: carry,");
    promote(&stack, ReleaseKind::V2);
    stack.write_note("again 1");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!((stack.status()["generation"].as_u64(), stack.titles(3, "again").len()), (Some(3), 1));
    stack.run(&["rollback", "--to", "2", "--yes"]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
    stack.write_note("again 2");
    stack
}

#[test]
fn a_generation_that_is_left_again_is_exported_and_carried_again() {
    let stack = written_to_again();
    let back = stack.run(&["rollback", "--yes"]).expect(0).all();
    assert!(back.contains("later writes are in production"), "{back}");
    assert_eq!(stack.status()["generation"], 4);
    assert_eq!(stack.titles(4, "again"), ["again 1", "again 2"]);
    assert!(unexported(&stack).is_empty());
}

#[test]
fn an_export_that_fails_the_second_time_is_not_taken_for_the_first() {
    let stack = written_to_again();
    // Where the file that ends the export is written, lies something else.
    let exports = stack.state().join("exports/generation-2");
    assert!(exports.join("complete.json").exists());
    fs::remove_dir_all(exports.join("db")).expect("removes");
    fs::write(exports.join("db"), "").expect("writes");
    stack.run(&["rollback", "--yes"]).expect(5);
    assert_eq!((stack.status()["generation"].as_u64(), unexported(&stack)), (Some(1), vec![2]));
    assert!(!exports.join("complete.json").exists());
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(is_kept(&stack, 2));
    fs::remove_file(exports.join("db")).expect("removes");
    let done = stack.run(&["export", "--json"]).expect(0);
    assert_eq!(exported_notes(&done), 2);
    stack.run(&["carry", "--yes", "--detach"]).expect(0);
    assert_eq!(stack.titles(4, "again"), ["again 1", "again 2"]);
}

#[test]
fn writes_of_which_production_has_some_are_not_carried_by_themselves_and_that_is_said() {
    let stack = written_to_again();
    let back = stack.run(&["rollback", "--to", "3", "--yes"]).expect(0).all();
    assert!(
        back.contains(
            "some of the writes of generation 2 were carried into generation 3, and more were made"
        ),
        "{back}"
    );
    assert_eq!(stack.titles(3, "again"), ["again 1"]);
    let status = stack.status();
    assert_eq!(status["uncarried"][0]["generation"], 2, "{status}");
    stack.run(&["carry", "--yes", "--detach"]).expect(3);
    stack.run(&["carry", "--yes", "--detach", "--again"]).expect(0);
    assert_eq!(stack.titles(4, "again"), ["again 1", "again 2"]);
}

#[test]
fn a_damaged_export_counts_as_none_and_keeps_no_other_writes_from_being_carried() {
    let stack = stack(&[ReleaseKind::V2], " writes: carry,");
    promote(&stack, ReleaseKind::V2);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!((stack.status()["generation"].as_u64(), unexported(&stack)), (Some(1), vec![]));
    fs::write(stack.state().join("exports/generation-2/complete.json"), "{").expect("damages");
    assert_eq!(unexported(&stack), [2]);
    promote(&stack, ReleaseKind::V2);
    stack.write_note("again 1");
    let back = stack.run(&["rollback", "--yes"]).expect(0).all();
    assert!(back.contains("1 of 1 later writes are in production"), "{back}");
    assert_eq!(stack.titles(4, "again"), ["again 1"]);
    stack.run(&["export", "2"]).expect(0);
    assert!(unexported(&stack).is_empty());
}
