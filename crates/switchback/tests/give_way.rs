//! A rollback does not wait for runs that only work on copies: they give way.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Promoted and on trial, for hours.
fn on_trial(kind: ReleaseKind, others: &[ReleaseKind]) -> Stack {
    let stack = Stack::new(&[&[kind], others].concat());
    stack.configure("watch: 2s", "watch: 5h");
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", kind.version());
    let why = ["--without-certificate", "--reason", "a test"];
    stack.run(&[&["promote", &version, "--yes", "--detach"][..], &why].concat()).expect(0);
    stack
}

/// A run that holds the lock until somebody stops it: once it is at work.
fn hangs(stack: &Stack, args: &[&str], at_work: impl Fn(&Stack) -> bool) -> Child {
    let mut child =
        stack.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    stack.wait_until("it is at work", Duration::from_secs(60), || {
        assert_eq!(child.try_wait().expect("looks"), None, "it ended by itself");
        at_work(stack)
    });
    child
}

/// A check that no release passes, and that goes on trying for ten minutes.
fn waits_for_nothing(stack: &Stack) {
    let patient = "name: it answers in the end\nproduction: never\ntimeout: 20m\nsteps:\n  - name: ready\n    request: { url: \"{{app.url}}/health\" }\n    \
                   retry: { times: 600, every: 1s }\n    expect: { status: 418 }\n";
    fs::write(stack.root.join("checks/a-patient.yaml"), patient).expect("writes");
}

/// Whether staging of a rehearsal runs.
fn stages(stack: &Stack) -> bool {
    stack.processes().keys().any(|marker| marker.contains("staging"))
}

/// Whether the release whose migration never ends is at it.
fn migrates(stack: &Stack) -> bool {
    let all = fs::read_dir("/proc").expect("lists").flatten();
    let root = stack.root.to_string_lossy().into_owned();
    all.filter_map(|e| fs::read_to_string(e.path().join("cmdline")).ok())
        .any(|c| c.contains("migrate") && c.contains(&root))
}

fn unfinished(stack: &Stack) -> Value {
    stack.status()["unfinished"].clone()
}

fn wanted(stack: &Stack) -> String {
    fs::read_to_string(stack.state().join("rollback-wanted")).unwrap_or_default()
}

#[test]
fn a_rehearsal_gives_way_to_the_rollback_of_a_trial_that_fails_and_is_undone() {
    let stack = on_trial(ReleaseKind::LeakyPool, &[ReleaseKind::AutoMigrate]);
    waits_for_nothing(&stack);
    let rehearsal = hangs(&stack, &["rehearse", "app=2.4.0"], stages);
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    let ended = rehearsal.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("rehearsal gave way to a rollback: rollback by the watchdog"), "{said}");
    assert_eq!((wanted(&stack).as_str(), unfinished(&stack)), ("", Value::Null));
    let left = fs::read_dir(stack.state().join("staging")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the rehearsal's copies are still there");
    // And the stack can be worked with.
    stack.run(&["down", "--yes"]).expect(0);
}

#[test]
fn a_person_who_rolls_back_is_told_who_gives_way_and_waits_for_nothing_else() {
    let stack = on_trial(ReleaseKind::V2, &[ReleaseKind::AutoMigrate]);
    waits_for_nothing(&stack);
    let rehearsal = hangs(&stack, &["rehearse", "app=2.4.0", "--json"], stages);
    let began = Instant::now();
    let ran = stack.run(&["rollback", "--yes"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    assert!(ran.stderr.contains("Waiting for rehearse (process "), "{}", ran.stderr);
    assert!(ran.stderr.contains("asked to give way"), "{}", ran.stderr);
    assert!(ran.stderr.contains("which had given way to the rollback, is undone"), "{}", ran.stderr);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    let ended = rehearsal.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(130));
    let said: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!((&said["interrupted"], &said["production_down"]), (&true.into(), &false.into()), "{said}");
    assert!(said["gave_way_to"].as_str().is_some_and(|w| w.starts_with("rollback (process ")), "{said}");
    assert_eq!(unfinished(&stack), Value::Null);
}

#[test]
fn what_changes_production_is_not_interrupted_and_ctrl_c_takes_the_wish_back() {
    let stack = Stack::new(&[ReleaseKind::MigrationHangs]);
    stack.run(&["up"]).expect(0);
    let promote = ["promote", "app=2.3.2", "--yes", "--without-certificate", "--reason", "a test"];
    let mut promotion = hangs(&stack, &promote, migrates);
    let busy = stack.run(&["rollback", "--yes"]).expect(8);
    assert!(busy.stderr.contains("another run holds the lock: promote (process"), "{}", busy.stderr);
    assert_eq!(wanted(&stack), "");
    let mut waits =
        stack.command(&["rollback", "--yes", "--wait", "1h"]).stderr(Stdio::null()).spawn().expect("starts");
    stack.wait_until("it waits", Duration::from_secs(10), || wanted(&stack).contains("rollback (process"));
    interrupt(&waits);
    assert_eq!(waits.wait().expect("ends").code(), Some(130));
    assert_eq!(wanted(&stack), "");
    assert!(promotion.try_wait().expect("looks").is_none(), "the promotion was interrupted");
    interrupt(&promotion);
    promotion.wait().expect("ends");
    stack.run(&["resume", "--abort"]);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
}
