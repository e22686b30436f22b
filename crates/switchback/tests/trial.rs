//! The trial after a promotion: it passes, or production is rolled back without anybody.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use common::heard::{Heard, http};
use common::runbook::Runbook;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

fn promoted(kind: ReleaseKind, watch: &str, args: &[&str]) -> Stack {
    let stack = Stack::new(&[kind]);
    stack.configure("watch: 2s", &format!("watch: {watch}"));
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", kind.version());
    stack.run(&["rehearse", &version]).expect(0);
    let mut all = vec!["promote", &version, "--yes"];
    all.extend(args);
    stack.run(&all).expect(0);
    stack
}

fn is_back(stack: &Stack) -> bool {
    let status = stack.status();
    status["generation"] == 1 && status["unfinished"].is_null() && stack.version().as_deref() == Some("1.0.0")
}

fn exported(stack: &Stack, generation: u32, table: &str) -> Vec<Value> {
    let path = stack.state().join(format!("exports/generation-{generation}/db/{table}.jsonl"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

#[test]
fn a_good_upgrade_passes_its_trial_and_can_still_be_rolled_back() {
    let stack = promoted(ReleaseKind::V2, "1s", &[]);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
    let status = stack.status();
    assert!(status["trial"].is_null(), "{status}");
    assert_eq!(status["rollback"]["ready"], true);
    assert!(status["rollback"]["text"].as_str().expect("text").contains("drilled"), "{status}");
    assert_eq!(stack.report()["conclusion"], "pass");
    stack.wait_until("the watchdog has gone", Duration::from_secs(5), || stack.watchdog().is_none());
    let config = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
    assert!(config.contains("version: 2.0.0") && config.contains("# The stack of the demo"), "{config}");
    let before = stack.rows(1);
    stack.write_note("written after the promotion");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(is_back(&stack));
    assert_eq!(stack.rows(1), before);
    let notes = exported(&stack, 2, "notes");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0]["op"], "insert");
    assert_eq!(notes[0]["row"]["title"], "written after the promotion");
}

/// The service stays healthy and only its workflow breaks, under the users' own load.
#[test]
fn a_workflow_that_breaks_after_the_promotion_rolls_back_and_no_write_is_lost() {
    let stack = promoted(ReleaseKind::LeakyPool, "1h", &["--detach"]);
    let before = stack.rows(1);
    let written: BTreeSet<i64> = (0..20).map(|i| stack.write_note(&format!("note {i}"))).collect();
    let back = stack.wait_for_rollback();
    assert!(back, "{}", stack.status());
    assert_eq!(stack.rows(1), before, "the old generation's data changed");
    let kept: BTreeSet<i64> =
        exported(&stack, 2, "notes").iter().map(|n| n["key"]["id"].as_i64().expect("an id")).collect();
    assert_eq!(kept, written, "the export does not hold exactly the acknowledged writes");
    let runs = stack.run(&["history", "--json"]).expect(0).json();
    assert_eq!(runs[0]["procedure"], "rollback");
    assert_eq!(runs[1]["conclusion"], "rolled_back");
    assert!(runs[0]["reason"].as_str().expect("a reason").contains("workflow/reading"), "{}", runs[0]);
}

#[test]
fn a_promotion_whose_command_line_is_killed_is_still_rolled_back() {
    let stack = Stack::new(&[ReleaseKind::CrashLater]);
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let args = ["promote", "app=2.2.1", "--yes", "--without-certificate", "--reason", "test"];
    let mut cli = stack.command(&args).stderr(std::process::Stdio::null()).spawn().expect("starts");
    stack.wait_until("the trial has begun", Duration::from_secs(10), || !stack.status()["trial"].is_null());
    cli.kill().expect("kills");
    cli.wait().expect("ends");
    assert!(stack.wait_for_rollback(), "{}", stack.status());
}

#[test]
fn a_followed_trial_that_fails_has_exit_code_4() {
    let stack = Stack::new(&[ReleaseKind::CrashLater]);
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let ran =
        stack.run(&["promote", "app=2.2.1", "--yes", "--json", "--without-certificate", "--reason", "test"]);
    assert_eq!(ran.code, Some(4), "{}", ran.all());
    // One JSON document, although two runs were carried out.
    assert_eq!(ran.json()["conclusion"], "rolled_back");
    assert!(is_back(&stack), "{}", stack.status());
}

/// The watchdog looks for trials and for runs to take over, one after the other. A promotion that ended between the two was
/// seen by neither: the watchdog went home, and the trial had none.
#[test]
fn a_watchdog_that_looks_in_the_moment_in_which_a_promotion_ends_sees_its_trial() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let args = ["promote", "app=2.0.0", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    // Longer than the promotion takes.
    let slow = ("SWITCHBACK_FAULT_SLOW", "watchdog-looks:4000");
    stack.run_with(&args, &[slow]).expect(0);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert!(stack.watchdog().is_some(), "the trial lost its watchdog: {}", stack.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    stack.run(&["rollback", "--yes"]).expect(0);
}

#[test]
fn a_killed_watchdog_is_noticed_and_resume_starts_another() {
    let stack = promoted(ReleaseKind::V2, "1h", &["--detach"]);
    assert!(stack.watchdog().is_some());
    stack.kill_watchdog();
    let shown = stack.run(&["status"]).expect(0);
    assert!(shown.stdout.contains("NO WATCHDOG"), "{}", shown.stdout);
    stack.run(&["resume"]).expect(0);
    assert!(stack.watchdog().is_some());
    // A killed service is down for good (its shim too): the new watchdog rolls back.
    stack.kill_services();
    assert!(stack.wait_for_rollback(), "{}", stack.status());
}

/// Nobody types anything: the keeper notices, tells people, and starts another one.
#[test]
fn a_killed_watchdog_is_replaced_by_the_keeper_and_the_bad_release_is_still_rolled_back() {
    let web = Heard::default();
    let port = web.serve(http);
    let stack = Stack::new(&[ReleaseKind::LeakyPool]);
    stack.configure("stores:", &format!("notify: [\"http://127.0.0.1:{port}/hook\"]\nstores:"));
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    stack
        .run(&["promote", "app=2.2.0", "--yes", "--detach", "--without-certificate", "--reason", "test"])
        .expect(0);
    stack.wait_until("a keeper guards the trial", Duration::from_secs(10), || stack.keeper().is_some());
    stack.kill_only_the_watchdog();
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    stack.wait_until("another watchdog is there", Duration::from_secs(30), || stack.watchdog().is_some());
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    let told = |event: &str| web.all().iter().any(|m| m.contains(&format!("\"event\":\"{event}\"")));
    stack.wait_until("people are told", Duration::from_secs(20), || {
        told("watchdog_restarted") && told("rolled_back")
    });
    stack.wait_until("the keeper has nothing to keep", Duration::from_secs(30), || stack.keeper().is_none());
}

/// A stack that tells the small server what happens.
fn telling(web: &Heard, kind: ReleaseKind) -> Stack {
    let port = web.serve(http);
    let stack = Stack::new(&[kind]);
    stack.configure("stores:", &format!("notify: [\"http://127.0.0.1:{port}/hook\"]\nstores:"));
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", kind.version());
    let args = ["promote", &version, "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    stack
}

fn told(web: &Heard, event: &str) -> usize {
    web.all().iter().filter(|m| m.contains(&format!("\"event\":\"{event}\""))).count()
}

/// Starts a watchdog by hand, which crashes where it is told to.
fn watchdog_with(stack: &Stack, fault: Option<&str>) -> std::process::Child {
    let mut command = std::process::Command::new(common::PROGRAM);
    command.arg("__watchdog").arg(&stack.root).env_remove("SWITCHBACK_FAULT");
    command.stderr(std::process::Stdio::null()).envs(fault.map(|f| ("SWITCHBACK_FAULT", f)));
    command.spawn().expect("starts")
}

/// Before the trial's end and its rollback are recorded the trial goes on; afterwards the rollback does. Nothing is in between.
#[test]
fn a_watchdog_killed_between_the_verdict_and_the_rollback_leaves_nothing_undone() {
    for fault in ["do:begin:before", "do:begin:after"] {
        let stack = promoted(ReleaseKind::LeakyPool, "1h", &["--detach"]);
        let before = stack.rows(1);
        stack.kill_watchdog();
        let mut dog = watchdog_with(&stack, Some(fault));
        for i in 0..20 {
            stack.write_note(&format!("note {i}"));
        }
        dog.wait().expect("ends");
        // Nobody types anything: the keeper starts another one.
        let back = || stack.status()["generation"] == 1;
        stack.wait_until("production is back", Duration::from_secs(60), back);
        assert!(stack.wait_for_rollback(), "{fault}: {}", stack.status());
        assert_eq!(stack.rows(1), before, "{fault}");
        assert_eq!(exported(&stack, 2, "notes").len(), 20, "{fault}");
        let runs = stack.run(&["history", "--json"]).expect(0).json();
        assert_eq!(
            (&runs[0]["procedure"], &runs[1]["conclusion"]),
            (&"rollback".into(), &"rolled_back".into())
        );
    }
}

#[test]
fn a_rollback_of_a_person_that_is_killed_as_it_begins_ends_the_trial_or_leaves_it() {
    let stack = promoted(ReleaseKind::V2, "1h", &["--detach"]);
    let ran = stack.run_with(&["rollback", "--yes"], &[("SWITCHBACK_FAULT", "do:begin:before")]);
    assert_eq!(ran.code, None, "{}", ran.all());
    let status = stack.status();
    assert_eq!((&status["generation"], &status["unfinished"]), (&2.into(), &Value::Null), "{status}");
    assert!(!status["trial"].is_null() && stack.watchdog().is_some(), "{status}");
    let ran = stack.run_with(&["rollback", "--yes"], &[("SWITCHBACK_FAULT", "do:begin:after")]);
    assert_eq!(ran.code, None, "{}", ran.all());
    assert!(stack.wait_for_rollback(), "the watchdog does not go on with it: {}", stack.status());
}

/// What the rollback needs cannot be read: a person is called once, and it is done as soon as it can be.
#[test]
fn a_rollback_that_cannot_begin_is_told_once_and_tried_again() {
    let web = Heard::default();
    let stack = telling(&web, ReleaseKind::LeakyPool);
    let record = stack.state().join("generations/1/generation.json");
    let sound = fs::read(&record).expect("reads");
    fs::write(&record, "{").expect("writes");
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    let trouble = || -> Value {
        let text = fs::read_to_string(stack.state().join("watchdog-trouble.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    stack
        .wait_until("it was tried twice", Duration::from_secs(60), || trouble()["tries"].as_u64() >= Some(2));
    let known = trouble();
    assert_eq!(known["rollback_waits"], true, "{known}");
    assert!(known["why"].as_str().expect("text").contains("generation.json is damaged"), "{known}");
    assert!(stack.watchdog().is_some(), "nobody tries it again");
    assert_eq!((told(&web, "needs_operator"), told(&web, "trial_failed")), (1, 0), "{:?}", web.all());
    fs::write(&record, sound).expect("writes");
    stack.wait_until("production is back", Duration::from_secs(60), || stack.status()["generation"] == 1);
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    stack.wait_until("people are told", Duration::from_secs(20), || told(&web, "rolled_back") == 1);
    assert_eq!((told(&web, "needs_operator"), told(&web, "trial_failed")), (1, 1), "{:?}", web.all());
    stack.wait_until("nothing is left of it", Duration::from_secs(20), || trouble().is_null());
}

/// It stays and says why, once; it was not killed, so nobody says that it was.
#[test]
fn a_watchdog_that_cannot_do_its_work_says_why_once_and_goes_on_when_it_can() {
    let web = Heard::default();
    let stack = telling(&web, ReleaseKind::V2);
    stack.kill_watchdog();
    let run =
        stack.run(&["history", "--json"]).expect(0).json()[0]["run"].as_str().expect("a run").to_owned();
    let config = stack.state().join("runs").join(run).join("switchback.yaml");
    let sound = fs::read(&config).expect("reads");
    fs::write(&config, "stack: [").expect("writes");
    let mut dog = watchdog_with(&stack, None);
    let trouble = || stack.status()["watchdog_trouble"].clone();
    stack
        .wait_until("it was tried twice", Duration::from_secs(60), || trouble()["tries"].as_u64() >= Some(2));
    assert_eq!(trouble()["rollback_waits"], false);
    let mut book = Runbook::of("The watchdog cannot do its work");
    let shown = book.types(&stack.root, "switchback status", &[]).expect(0).stdout;
    book.is_seen(&shown, &[]);
    assert_eq!(dog.try_wait().expect("asks"), None, "it went away");
    fs::write(&config, sound).expect("writes");
    stack.wait_until("it watches", Duration::from_secs(60), || trouble().is_null());
    assert!(!stack.status()["trial"].is_null());
    book.types(&stack.root, "switchback rollback", &[]).expect(0);
    book.ends();
    dog.wait().expect("ends");
    assert_eq!((told(&web, "watchdog_blind"), told(&web, "watchdog_restarted")), (1, 0), "{:?}", web.all());
}

#[test]
fn what_a_watchdog_knew_and_cannot_be_read_is_noted_and_does_not_keep_it_from_watching() {
    let stack = promoted(ReleaseKind::V2, "1h", &["--detach"]);
    stack.kill_watchdog();
    let run =
        stack.run(&["history", "--json"]).expect(0).json()[0]["run"].as_str().expect("a run").to_owned();
    let dir = stack.state().join("runs").join(run);
    for name in ["before.json", "log-marks.json"] {
        assert!(dir.join(name).exists(), "{name}");
        fs::write(dir.join(name), "{").expect("writes");
    }
    let looks = || stack.run(&["status", "--why", "--json"]).json()["samples"].as_array().map_or(0, Vec::len);
    let mut dog = watchdog_with(&stack, None);
    stack.wait_until("both are put aside", Duration::from_secs(20), || {
        dir.join("before.damaged.json").exists() && dir.join("log-marks.damaged.json").exists()
    });
    let seen = looks();
    stack.wait_until("it looks", Duration::from_secs(20), || looks() > seen);
    let probes = stack.report()["trial"]["probes"].to_string();
    for name in ["before.json is damaged", "log-marks.json is damaged"] {
        assert_eq!(probes.matches(name).count(), 1, "{probes}");
    }
    assert!(!stack.status()["trial"].is_null());
    stack.run(&["rollback", "--yes"]).expect(0);
    dog.wait().expect("ends");
}

/// The command of a timer is what comes back after a reboot.
#[test]
fn what_a_timer_starts_gives_a_trial_its_watchdog_again() {
    let stack = promoted(ReleaseKind::V2, "1h", &["--detach"]);
    stack.kill_watchdog();
    stack.run(&["auto", "--dry-run"]).expect(0);
    assert!(stack.watchdog().is_none());
    stack.run(&["auto"]).expect(0);
    assert!(stack.watchdog().is_some());
}

/// The old generation cannot start either: it is tried three times, and the generation known to be bad is not started again.
#[test]
fn an_automatic_rollback_that_fails_three_times_asks_a_person_and_the_runbook_helps() {
    let web = Heard::default();
    let port = web.serve(http);
    let stack = Stack::new(&[ReleaseKind::LeakyPool]);
    stack.configure("stores:", &format!("notify: [\"http://127.0.0.1:{port}/hook\"]\nstores:"));
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let args = ["promote", "app=2.2.0", "--yes", "--json", "--without-certificate", "--reason", "test"];
    let piped = std::process::Stdio::piped;
    let promotion = stack.command(&args).stdout(piped()).stderr(piped()).spawn().expect("starts");
    stack.wait_until("the trial has begun", Duration::from_secs(20), || !stack.status()["trial"].is_null());
    let before = stack.rows(1);
    fs::rename(stack.root.join("releases/1.0.0"), stack.root.join("releases/moved")).expect("renames");
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    let ended = promotion.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(5), "{}", String::from_utf8_lossy(&ended.stderr));
    let report = stack.report();
    assert_eq!((&report["procedure"], &report["conclusion"]), (&"rollback".into(), &"needs_operator".into()));
    assert!(report.to_string().contains("does not exist or is not executable"), "{report}");
    let status = stack.status();
    assert_eq!((&status["unfinished"], &status["trial"]), (&Value::Null, &Value::Null), "{status}");
    assert!(status["services"].to_string().contains("\"running\":false"), "{status}");
    assert_eq!(stack.version(), None, "the generation that is known to be bad was started again");
    let told = || web.all().iter().any(|m| m.contains("\"event\":\"needs_operator\""));
    stack.wait_until("a person is called", Duration::from_secs(20), told);
    stack.wait_until("the watchdog has gone", Duration::from_secs(5), || stack.watchdog().is_none());

    // As the runbook says: remove the cause, and return.
    fs::rename(stack.root.join("releases/moved"), stack.root.join("releases/1.0.0")).expect("renames");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(is_back(&stack), "{}", stack.status());
    assert_eq!(stack.rows(1), before);
    assert_eq!(exported(&stack, 2, "notes").len(), 20, "later writes are lost");
}

#[test]
fn services_that_are_down_are_noticed_before_a_patient_workflow_gives_up() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s", "watch: 1h");
    let patient = "name: it answers in the end\nproduction: always\ntimeout: 20m\nsteps:\n  - name: ready\n    \
                   request: { url: \"{{app.url}}/health\" }\n    retry: { times: 600, every: 1s }\n    expect: { status: 200 }\n";
    fs::write(stack.root.join("checks/a-patient.yaml"), patient).expect("writes");
    stack.run(&["up"]).expect(0);
    let promote = ["promote", "app=2.0.0", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&promote).expect(0);
    stack.kill_services();
    assert!(stack.wait_for_rollback(), "{}", stack.status());
}

#[test]
fn while_on_trial_no_other_promotion_begins_and_a_person_can_roll_back() {
    let stack = promoted(ReleaseKind::V2, "1h", &["--detach"]);
    let ran = stack.run(&["promote", "--yes"]).expect(3);
    assert!(ran.stderr.contains("generation 2 is on trial"), "{}", ran.stderr);
    stack.run(&["rollback", "--yes", "--reason", "I do not like it"]).expect(0);
    assert!(is_back(&stack));
    stack.wait_until("the watchdog has gone", Duration::from_secs(5), || stack.watchdog().is_none());
}

#[test]
fn a_rollback_whose_old_generation_cannot_start_returns_to_the_newer_one() {
    let stack = promoted(ReleaseKind::V2, "1s", &[]);
    fs::rename(stack.root.join("releases/1.0.0"), stack.root.join("releases/moved")).expect("renames");
    let status = stack.status();
    assert_eq!(status["rollback"]["ready"], false, "{status}");
    let ran = stack.run(&["rollback", "--yes"]).expect(3);
    assert!(ran.all().contains("does not exist or is not executable"), "{}", ran.all());
    assert_eq!(stack.version().as_deref(), Some("2.0.0"), "production is not back on what ran before");
    fs::rename(stack.root.join("releases/moved"), stack.root.join("releases/1.0.0")).expect("renames");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(is_back(&stack));
}

#[test]
fn a_service_that_ignores_its_stop_signal_does_not_hold_a_rollback_up() {
    let stack = Stack::new(&[ReleaseKind::IgnoresTerm]);
    stack.configure("stop: { grace: 5s }", "stop: { grace: 1s }");
    stack.run(&["up"]).expect(0);
    stack
        .run(&["promote", "app=2.5.0", "--yes", "--detach", "--without-certificate", "--reason", "test"])
        .expect(0);
    let ran = stack.run(&["rollback", "--yes"]).expect(0);
    assert!(ran.all().contains("was killed"), "{}", ran.all());
    assert!(is_back(&stack));
}

/// A long grace time must not use up the budget that the start of the old version needs, too.
#[test]
fn stopping_takes_at_most_a_third_of_the_budget_of_a_rollback() {
    let stack = Stack::new(&[ReleaseKind::IgnoresTerm]);
    stack.configure("stop: { grace: 5s }", "stop: { grace: 10m }");
    stack.configure("budget: 5m", "budget: 9s");
    stack.run(&["up"]).expect(0);
    stack
        .run(&["promote", "app=2.5.0", "--yes", "--detach", "--without-certificate", "--reason", "test"])
        .expect(0);
    let ran = stack.run(&["rollback", "--yes"]).expect(0);
    assert!(ran.all().contains("had 3s of its grace time of 10m"), "{}", ran.all());
    assert!(is_back(&stack));
}

#[test]
fn gc_keeps_what_a_rollback_needs_and_writes_that_are_not_exported() {
    let stack = promoted(ReleaseKind::V2, "1s", &[]);
    stack.configure("rollback: {", "retention: { generations: 0, runs: 1 }\nrollback: {");
    stack.run(&["gc", "--yes"]).expect(0);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(is_back(&stack), "gc removed what the rollback needed");
    // As if the export had not happened: the generation must stay.
    fs::remove_file(stack.state().join("exports/generation-2/complete.json")).expect("removes");
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(stack.state().join("generations/2").exists());
    stack.run(&["gc", "--yes", "--lose-writes-of", "2"]).expect(0);
    assert!(!stack.state().join("generations/2").exists());
    assert!(stack.root.join("data/assistant.db").exists());
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

#[test]
fn upgrade_rehearses_and_promotes_in_one_command_and_stops_at_a_refusal() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    stack.run(&["up"]).expect(0);
    let refused = stack.run(&["upgrade", "app=2.1.0", "--yes", "--json"]).expect(3).json();
    assert_eq!((&refused["procedure"], &refused["conclusion"]), (&"rehearse".into(), &"refused".into()));
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    let done = stack.run(&["upgrade", "app=2.0.0", "--yes", "--json"]).expect(0).json();
    assert_eq!((&done["procedure"], &done["conclusion"]), (&"promote".into(), &"pass".into()));
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
}

/// What the watchdog cannot see never counts as health: a trial is not confirmed blindly, not even late.
#[test]
fn a_blind_watchdog_never_confirms() {
    let stack = promoted(ReleaseKind::V2, "1s", &["--detach"]);
    let state = stack.state().join("generations/2/services/app/state.json");
    let kept = fs::read(&state).expect("reads");
    fs::remove_file(&state).expect("removes");
    std::thread::sleep(Duration::from_secs(4));
    assert!(!stack.run(&["status", "--json"]).json()["trial"].is_null(), "a trial was confirmed blindly");
    let report = stack.report();
    let probes = report["trial"]["probes"].to_string();
    assert!(probes.contains("blind"), "{probes}");
    // Once it sees again, the time in which it did not counts for nothing, and then the trial passes.
    fs::write(&state, kept).expect("writes");
    stack.wait_until("the trial is confirmed", Duration::from_secs(30), || stack.status()["trial"].is_null());
    assert_eq!(stack.report()["conclusion"], "pass");
}

/// What was rolled back would fail again: a release with the same digests is refused until somebody says so.
#[test]
fn a_release_that_was_rolled_back_is_not_promoted_again_by_accident() {
    let stack = promoted(ReleaseKind::LeakyPool, "1h", &["--detach"]);
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    for command in ["promote", "upgrade"] {
        let ran = stack.run(&[command, "app=2.2.0", "--yes"]).expect(3);
        assert!(ran.stderr.contains("was rolled back on "), "{}", ran.stderr);
        assert!(ran.stderr.contains("3 probes in a row failed"), "{}", ran.stderr);
        assert!(ran.stderr.contains("--again"), "{}", ran.stderr);
    }
    stack.run(&["promote", "app=2.2.0", "--yes", "--detach", "--again"]).expect(0);
    assert_eq!(stack.status()["generation"], 3);
    stack.run(&["rollback", "--yes"]).expect(0);
}
