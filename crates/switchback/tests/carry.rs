//! Carrying back what was written to a generation that was rolled back: no acknowledged write is lost, none is there twice.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Promoted to version 2, written to, and rolled back: the stack, and the titles that were acknowledged.
fn left(notes: usize, rehearsed: bool) -> (Stack, BTreeSet<String>) {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    if rehearsed {
        stack.run(&["rehearse", "app=2.0.0"]).expect(0);
        stack.run(&["promote", "app=2.0.0", "--yes", "--detach"]).expect(0);
    } else {
        let why = ["--without-certificate", "--reason", "a test"];
        stack.run(&[&["promote", "app=2.0.0", "--yes", "--detach"][..], &why].concat()).expect(0);
    }
    let written: BTreeSet<String> = (0..notes).map(|i| format!("later {i}")).collect();
    for title in &written {
        stack.write_note(title);
    }
    fs::write(stack.state().join("generations/2/stores/uploads/uploads/later.txt"), "later").expect("writes");
    stack.run(&["rollback", "--yes"]).expect(0);
    (stack, written)
}

fn generation(stack: &Stack) -> u64 {
    stack.status()["generation"].as_u64().expect("a generation")
}

#[test]
fn later_writes_come_back_into_the_version_before() {
    let (stack, written) = left(30, true);
    let before = stack.rows(1);
    assert!(stack.titles(1, "later").is_empty());
    let status = stack.run(&["status"]).expect(0);
    assert!(status.stdout.contains("`switchback carry`"), "{}", status.stdout);
    let dry = stack.run(&["carry", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("Carry the writes made to generation 2"), "{}", dry.stdout);
    assert_eq!(generation(&stack), 1);
    let done = stack.run(&["carry", "--yes", "--detach", "--json"]).expect(0).json();
    assert_eq!(done["conclusion"], "on_trial", "{done}");
    let notes = &done["carried"]["db"]["parts"]["notes"];
    assert_eq!((&notes["inserted"], &notes["quarantined"]), (&Value::from(30), &Value::from(0)), "{notes}");
    assert_eq!(done["carried"]["uploads"]["parts"]["files"]["inserted"], 1, "{done}");
    assert_eq!((generation(&stack), stack.version().as_deref()), (3, Some("1.0.0")));
    let found = stack.titles(3, "later");
    assert_eq!(found.len(), written.len(), "one is there twice: {found:?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), written);
    assert_eq!(stack.files(3)["later.txt"], b"later");
    let status = stack.status();
    assert_eq!(status["uncarried"].as_array().map(Vec::len), Some(0), "{status}");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.rows(1), before, "exactly as before can be had, too");
    // And then they can be carried again.
    stack.run(&["carry", "--from", "2", "--yes", "--detach"]).expect(0);
    assert_eq!(stack.titles(4, "later").len(), 30);
}

#[test]
fn carrying_is_refused_where_it_makes_no_sense() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    let none = stack.run(&["carry", "--yes"]).expect(3);
    assert!(none.all().contains("no later writes"), "{}", none.all());
    drop(stack);
    let (stack, _) = left(3, true);
    let other = stack.run(&["carry", "--from", "9", "--yes"]).expect(3);
    assert!(other.all().contains("generation 9"), "{}", other.all());
    stack.run(&["carry", "--yes", "--detach"]).expect(0);
    stack.run(&["resume"]).expect(0);
    let trial = stack.run(&["carry", "--from", "2", "--yes"]).expect(3);
    assert!(trial.all().contains("trial"), "{}", trial.all());
}

#[test]
fn without_a_rehearsal_the_data_itself_says_what_the_upgrade_rewrote() {
    let (stack, written) = left(5, false);
    let done = stack.run(&["carry", "--yes", "--detach"]).expect(0);
    assert!(done.all().contains("later writes are in production"), "{}", done.all());
    assert_eq!(stack.titles(3, "later").into_iter().collect::<BTreeSet<_>>(), written);
}

#[test]
fn a_row_whose_number_is_taken_is_put_into_quarantine_and_named() {
    let (stack, _) = left(4, true);
    // The old version gives the same numbers again: these two notes are others.
    stack.write_note("mine a");
    stack.write_note("mine b");
    let done = stack.run(&["carry", "--yes", "--detach"]).expect(0);
    assert!(done.all().contains("another row with this key"), "{}", done.all());
    assert_eq!(stack.titles(3, "mine").len(), 2);
    assert_eq!(stack.titles(3, "later").len(), 2);
    let file = stack.state().join("exports/generation-2/carried-into-3/db.jsonl");
    let text = fs::read_to_string(&file).expect("a quarantine");
    let entries: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(entries.len(), 2, "{text}");
    assert!(entries.iter().all(|e| e["part"] == "notes" && e["op"] == "insert" && e["key"]["id"].is_i64()));
}

#[test]
fn a_carry_that_is_killed_at_any_point_loses_nothing_and_doubles_nothing() {
    for step in ["clone", "carry", "base", "start-new", "flip", "begin-trial"] {
        for at in ["before", "during", "after"] {
            let case = format!("do:{step}:{at}");
            let (stack, written) = left(6, true);
            let crashed = stack.run_with(&["carry", "--yes", "--detach"], &[("SWITCHBACK_FAULT", &case)]);
            assert_eq!(crashed.code, None, "{case}: the fault did not fire: {}", crashed.all());
            let resumed = stack.run(&["resume", "--wait", "30s"]);
            assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{case}: {:?} {}", resumed.code, resumed.all());
            let now = generation(&stack);
            if now == 1 {
                assert!(stack.titles(1, "later").is_empty(), "{case}: the old generation was written to");
                stack.run(&["carry", "--yes", "--detach"]).expect(0);
            }
            let found = stack.titles(generation(&stack), "later");
            assert_eq!(found.len(), written.len(), "{case}: {found:?}");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), written, "{case}");
        }
    }
}

#[test]
fn a_rollback_carries_by_itself_where_the_configuration_says_so_and_only_once() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LeakyPool]);
    stack.configure("rollback: {", "rollback: { writes: carry,");
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes", "--detach"]).expect(0);
    stack.write_note("later");
    let back = stack.run(&["rollback", "--yes"]).expect(0);
    assert!(back.all().contains("1 of 1 later writes are in production"), "{}", back.all());
    assert_eq!((generation(&stack), stack.version().as_deref()), (3, Some("1.0.0")));
    assert_eq!(stack.titles(3, "later"), ["later"]);
    // What was carried may be bad itself: to return from it is not undone again.
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(generation(&stack), 1);
    // There and back: the generation that was taken over keeps its data where it lies.
    stack.run(&["rollback", "--to", "3", "--yes"]).expect(0);
    stack.run(&["rollback", "--to", "1", "--yes"]).expect(0);

    // And where nobody is there: the watchdog rolls back, and carries.
    stack.run(&["rehearse", "app=2.2.0"]).expect(0);
    stack.run(&["promote", "app=2.2.0", "--yes", "--detach"]).expect(0);
    let left = generation(&stack);
    let written: BTreeSet<String> = (0..20).map(|i| format!("unattended {i}")).collect();
    for title in &written {
        stack.write_note(title);
    }
    stack.wait_until("the writes are in the version before", Duration::from_secs(90), || {
        let status = stack.status();
        let now = status["generation"].as_u64().unwrap_or(0);
        now > left && status["versions"]["app"] == "1.0.0" && status["unfinished"].is_null()
    });
    let found = stack.titles(generation(&stack), "unattended");
    assert_eq!(found.len(), written.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), written);
}

/// On trial with version `version`, one note written since; a rollback carries.
fn carries(kind: ReleaseKind, version: &str) -> Stack {
    let stack = Stack::new(&[kind]);
    stack.configure("rollback: {", "rollback: { writes: carry,");
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let why = ["--without-certificate", "--reason", "a test"];
    stack.run(&[&["promote", version, "--yes", "--detach"][..], &why].concat()).expect(0);
    stack.write_note("later");
    stack
}

fn carried_once(stack: &Stack) {
    stack.wait_until("the writes are carried", Duration::from_secs(30), || generation(stack) == 3);
    stack.wait_until("that has ended", Duration::from_secs(30), || stack.status()["unfinished"].is_null());
    assert_eq!(stack.titles(3, "later"), ["later"]);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

#[test]
fn a_rollback_that_the_watchdog_completes_carries_all_the_same() {
    let stack = carries(ReleaseKind::V2, "app=2.0.0");
    let killed = stack.run_with(&["rollback", "--yes"], &[("SWITCHBACK_FAULT", "do:start-old:before")]);
    assert_eq!(killed.code, None, "the fault did not fire: {}", killed.all());
    carried_once(&stack);
}

#[test]
fn a_rollback_that_is_resumed_carries_all_the_same() {
    let stack = carries(ReleaseKind::IgnoresTerm, "app=2.5.0");
    let args = ["rollback", "--yes"];
    let mut rollback = stack.command(&args).stderr(std::process::Stdio::null()).spawn().expect("starts");
    // The old version ignores its signal for five seconds: time for a person to change their mind.
    stack.wait_until("it stops the new version", Duration::from_secs(10), || {
        !stack.status()["unfinished"].is_null()
    });
    let pid = i32::try_from(rollback.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    assert_eq!(rollback.wait().expect("ends").code(), Some(130));
    stack.run(&["resume"]).expect(0);
    carried_once(&stack);
}

#[test]
fn a_rollback_that_is_killed_before_it_carries_carries_all_the_same() {
    let stack = carries(ReleaseKind::V2, "app=2.0.0");
    let killed =
        stack.run_with(&["rollback", "--yes"], &[("SWITCHBACK_FAULT", "do:carries-by-itself:before")]);
    assert_eq!(killed.code, None, "the fault did not fire: {}", killed.all());
    carried_once(&stack);
}

#[test]
fn a_rollback_that_took_too_long_carries_all_the_same_and_says_so() {
    let stack = carries(ReleaseKind::V2, "app=2.0.0");
    stack.configure("budget: 5m", "budget: 1ms");
    let back = stack.run(&["rollback", "--yes"]).expect(7);
    assert!(back.all().contains("1 of 1 later writes are in production"), "{}", back.all());
    carried_once(&stack);
}
