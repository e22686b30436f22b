//! The triggers of a trial, besides failed probes in a row: what they see, what they do, and that it can be looked into.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// A stack whose production is on trial with a release, for longer than any test takes.
fn on_trial(kind: ReleaseKind, triggers: &str) -> Stack {
    on_trial_for("1h", kind, triggers)
}

fn on_trial_for(watch: &str, kind: ReleaseKind, triggers: &str) -> Stack {
    let stack = Stack::new(&[kind]);
    let rollback = format!("watch: {watch}, triggers: {triggers}");
    stack.configure("watch: 2s", &rollback);
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", kind.version());
    let args = ["promote", &version, "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    stack
}

fn why(stack: &Stack) -> Value {
    stack.run(&["status", "--why", "--json"]).expect(0).json()
}

/// Waits for the rollback, and holds its trigger against the one that is expected.
fn rolled_back_by(stack: &Stack, trigger: &str, says: &str) {
    let back = || stack.status()["generation"] == 1;
    stack.wait_until("production is back", Duration::from_secs(120), back);
    assert!(stack.wait_for_rollback(), "{}\n{}", stack.status(), why(stack));
    let why = why(stack);
    let fired: Vec<&Value> = why["decisions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|d| d["standing"] == "fired" && d["action"] == "rollback")
        .collect();
    assert_eq!(fired.len(), 1, "{fired:#?}");
    assert_eq!(fired[0]["trigger"], trigger, "{fired:#?}");
    assert!(fired[0]["what"].as_str().expect("text").contains(says), "{fired:#?}");
    assert_eq!((&why["state"], &why["same_again"]), (&Value::from("failed"), &Value::from(true)), "{why:#}");
    let history = stack.run(&["history", "--json"]).expect(0).json();
    assert_eq!(history[0]["procedure"], "rollback");
    assert!(history[0]["reason"].as_str().expect("text").contains(says), "{}", history[0]);
    // For a person.
    let text = stack.run(&["status", "--why"]).expect(0).stdout;
    assert!(text.contains(&format!("{trigger}: FIRED, rollback: ")), "{text}");
    assert!(text.contains("Judged again, the samples give the same decisions."), "{text}");
    let run = why["run"].as_str().expect("a run");
    let report = stack.run(&["report", run]).expect(0).stdout;
    assert!(report.contains(&format!("{trigger}: ")) && report.contains(says), "{report}");
}

#[test]
fn a_release_that_is_slower_than_the_one_before_is_rolled_back() {
    let stack = on_trial(ReleaseKind::SlowsDown, "{ latency: { above: 100ms } }");
    rolled_back_by(&stack, "latency", "workflow/reading takes");
}

#[test]
fn a_release_that_fails_now_and_then_is_rolled_back() {
    // Never three probes in a row.
    let stack = on_trial(ReleaseKind::FailsSometimes, "{}");
    rolled_back_by(&stack, "errors", "workflow/reading failed ");
}

#[test]
fn a_service_that_is_started_again_and_again_is_rolled_back() {
    let stack = Stack::new(&[ReleaseKind::CrashLater]);
    // Long enough between two crashes for probes to be good.
    stack.configure("watch: 2s", "watch: 1h, triggers: { restarts: { times: 1 } }");
    stack.configure("failures: 3", "failures: 100");
    stack.run(&["up"]).expect(0);
    let args = ["promote", "app=2.2.1", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    rolled_back_by(&stack, "restarts", "app was started again 1 times within 5m");
}

#[test]
fn disk_space_that_is_gone_is_a_reason_where_the_user_says_so() {
    let stack = on_trial(ReleaseKind::V2, "{ disk: { action: rollback, free_mib: 1000000000 } }");
    rolled_back_by(&stack, "disk", "are free");
}

#[test]
fn new_error_messages_hold_the_trial_until_a_person_has_looked() {
    let stack = on_trial_for("4s", ReleaseKind::Complains, "{}");
    let fired = || stack.status()["trial"]["triggers"][0]["standing"] == "fired";
    stack.wait_until("the log trigger has fired", Duration::from_secs(60), fired);
    std::thread::sleep(Duration::from_secs(5));
    let status = stack.status();
    assert_eq!(
        (&status["trial"]["triggers"][0]["trigger"], &status["generation"]),
        (&"logs".into(), &2.into())
    );
    assert_eq!(status["trial"]["left_ms"], 0, "it would be over: {status}");
    let said = stack.run(&["status"]).expect(0).stdout;
    assert!(said.contains("fired          logs: app logs errors that are new"), "{said}");
    assert!(said.contains("was not sent: no such calendar"), "{said}");
    let ran = stack.run(&["confirm", "--yes", "--reason", " "]).expect(2);
    assert!(ran.stderr.contains("the reason is empty"), "{}", ran.stderr);
    stack.run(&["confirm", "--yes", "--reason", "the calendar comes next week"]).expect(0);
    assert!(stack.status()["trial"].is_null());
    assert_eq!(stack.version().as_deref(), Some(ReleaseKind::Complains.version()));
    stack.wait_until("the watchdog has gone", Duration::from_secs(5), || stack.watchdog().is_none());
    let why = stack.run(&["status", "--why"]).expect(0).stdout;
    assert!(why.contains("confirmed by a person: the calendar comes next week"), "{why}");
    let ran = stack.run(&["confirm", "--yes", "--reason", "again"]).expect(3);
    assert!(ran.stderr.contains("no generation is on trial"), "{}", ran.stderr);
}

#[test]
fn what_the_user_knows_and_what_was_there_before_does_not_hold_a_trial() {
    let ignored = "{ logs: { ignore: [\"no such calendar\"] } }";
    let stack = on_trial_for("3s", ReleaseKind::Complains, ignored);
    stack.wait_until("it has passed", Duration::from_secs(60), || stack.status()["trial"].is_null());
    assert_eq!(why(&stack)["state"], "confirmed");
    // The same messages come from the next release.
    let text = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
    fs::write(stack.root.join("switchback.yaml"), text.replace(ignored, "{}")).expect("writes");
    let to = stack.root.join("releases/9.0.0");
    assistant::write_release(
        &to,
        ReleaseKind::Complains,
        std::path::Path::new(common::PROGRAM),
        assistant::PlaceProgram::Symlink,
    )
    .expect("writes");
    let args = ["promote", "app=9.0.0", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    stack.wait_until("it has passed", Duration::from_secs(60), || stack.status()["trial"].is_null());
    let why = why(&stack);
    assert_eq!(why["state"], "confirmed", "{why:#}");
    let logs = |d: &Value| d["trigger"] == "logs";
    assert!(!why["decisions"].as_array().expect("a list").iter().any(logs), "{why:#}");
}

/// What a watchdog saw counts for the one that takes over.
#[test]
fn a_killed_watchdog_does_not_make_a_trial_begin_anew() {
    let stack = on_trial(ReleaseKind::SlowsDown, "{ latency: { above: 100ms } }");
    let looks = || why(&stack)["samples"].as_array().map_or(0, Vec::len);
    stack.wait_until("it has looked 20 times", Duration::from_secs(120), || looks() >= 20);
    stack.kill_watchdog();
    let seen = looks();
    assert!(seen < 30, "{seen}");
    stack.run(&["resume"]).expect(0);
    rolled_back_by(&stack, "latency", "workflow/reading takes");
    assert!(looks() <= 32, "{} looks", looks());
}

/// What cannot be seen is no health, and hides nothing of what can be.
#[test]
fn a_check_that_cannot_be_judged_switches_no_trigger_off() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    let script = stack.root.join("probe.sh");
    fs::write(&script, "#!/bin/sh\nexit 0\n").expect("writes");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("sets");
    let check = format!("{{ name: probe, run: [\"{}\"], production: true }}", script.display());
    stack.configure("checks:\n", &format!("checks:\n  commands:\n    - {check}\n"));
    stack.configure("watch: 2s", "watch: 1h, triggers: { logs: { action: rollback } }");
    stack.run(&["up"]).expect(0);
    let args = ["promote", "app=2.0.0", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    // What cannot be started says nothing about the release.
    fs::remove_file(&script).expect("removes");
    let blind = || stack.report()["trial"]["probes"].to_string().contains("blind");
    stack.wait_until("the watchdog says that it is blind", Duration::from_secs(20), blind);
    assert!(!stack.status()["trial"].is_null(), "{}", stack.status());
    let log = stack.state().join("generations/2/services/app/log/service.log");
    let mut log = fs::OpenOptions::new().append(true).open(log).expect("opens");
    log.write_all(b"panic: nil map\n").expect("writes");
    let back = || stack.status()["generation"] == 1;
    stack.wait_until("production is back", Duration::from_secs(30), back);
    let why = why(&stack);
    let fired = |d: &&Value| d["standing"] == "fired" && d["action"] == "rollback";
    let fired: Vec<&Value> = why["decisions"].as_array().expect("a list").iter().filter(fired).collect();
    assert_eq!(fired.len(), 1, "{fired:#?}");
    assert_eq!(fired[0]["trigger"], "logs", "{fired:#?}");
    assert_eq!((&why["state"], &why["same_again"]), (&Value::from("failed"), &Value::from(true)), "{why:#}");
}

#[test]
fn triggers_that_could_not_fire_are_mistakes_in_the_configuration() {
    let stack = Stack::new(&[]);
    stack.configure("watch: 2s", "watch: 2s, triggers: { errors: { percent: 0 } }");
    let ran = stack.run(&["status"]).expect(2);
    assert!(ran.stderr.contains("rollback.triggers.errors.percent is 0"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`action: off` switches it off"), "{}", ran.stderr);
    stack.configure("errors: { percent: 0 }", "logs: { action: shout }");
    let ran = stack.run(&["status"]).expect(2);
    assert!(ran.stderr.contains("switchback.yaml:"), "{}", ran.stderr);
    stack.configure("logs: { action: shout }", "logs: { ignore: [\"\"] }");
    stack.run(&["status"]).expect(2);
}
