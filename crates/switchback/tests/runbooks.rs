//! Each failure that has a runbook, brought about and repaired as its page says.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use common::runbook::{Runbook, titles};
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const WHY: [&str; 3] = ["--without-certificate", "--reason", "a test"];

/// On trial with a version, for an hour.
fn on_trial(kind: ReleaseKind) -> Stack {
    let stack = Stack::new(&[kind]);
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    promote(&stack, kind.version(), 0);
    stack
}

#[track_caller]
fn promote(stack: &Stack, version: &str, code: i32) {
    let version = format!("app={version}");
    stack.run(&[&["promote", &version, "--yes", "--detach"][..], &WHY].concat()).expect(code);
}

fn begin(stack: &Stack, args: &[&str]) -> Child {
    stack.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

/// What Ctrl-C does.
fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
}

#[test]
fn every_runbook_with_commands_is_followed_by_a_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let tests: String = fs::read_dir(folder)
        .expect("lists")
        .filter_map(|e| fs::read_to_string(e.expect("lists").path()).ok())
        .collect();
    let titles = titles();
    assert!(titles.len() > 12, "{titles:?}");
    for title in titles {
        assert!(tests.contains(&format!("Runbook::of(\"{title}\")")), "nobody follows {title:?}");
    }
}

/// A promotion that a person interrupted with production stopped.
fn interrupted() -> Stack {
    let stack = Stack::new(&[ReleaseKind::IgnoresTerm, ReleaseKind::V2]);
    stack.configure("watch: 2s", "watch: 1s");
    stack.run(&["up"]).expect(0);
    stack.run(&[&["promote", "app=2.5.0", "--yes"][..], &WHY].concat()).expect(0);
    let mut child = begin(&stack, &[&["promote", "app=2.0.0", "--yes", "--detach"][..], &WHY].concat());
    // Its signal is ignored for seconds: time to change one's mind.
    stack.wait_until("it is being stopped", SOON, || {
        let text = stack.run(&["status"]).stdout;
        text.contains("production is DOWN")
    });
    interrupt(&child);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    stack
}

#[test]
fn a_run_that_was_interrupted_goes_on_or_is_undone() {
    let mut book = Runbook::of("A run was interrupted");
    let stack = interrupted();
    book.is_seen(&stack.run(&["status"]).expect(0).stdout, &[]);
    book.types(&stack.root, "switchback resume", &[]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));

    let stack = interrupted();
    book.types(&stack.root, "switchback resume --abort", &[]);
    assert_eq!(stack.version().as_deref(), Some("2.5.0"));
    assert!(stack.status()["unfinished"].is_null());
    book.ends();
}

#[test]
fn a_trial_without_a_watchdog_gets_another_one() {
    let mut book = Runbook::of("A trial has no watchdog");
    let stack = on_trial(ReleaseKind::V2);
    stack.kill_watchdog();
    book.is_seen(&stack.run(&["status"]).expect(0).stdout, &[]);
    book.types(&stack.root, "switchback resume", &[]).expect(0);
    assert!(stack.watchdog().is_some());
    book.ends();
}

#[test]
fn what_needs_the_operator_is_repaired_after_an_automatic_rollback_and_after_a_promotion() {
    let mut book = Runbook::of("The old generation did not start");
    let stack = on_trial(ReleaseKind::LeakyPool);
    let (release, moved) = (stack.root.join("releases/1.0.0"), stack.root.join("releases/moved"));
    fs::rename(&release, &moved).expect("renames");
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    stack.wait_until("the automatic rollback has failed", Duration::from_secs(60), || {
        let status = stack.status();
        status["trial"].is_null() && status["unfinished"].is_null() && stack.watchdog().is_none()
    });
    let report = book.types(&stack.root, "switchback report", &[]).expect(0);
    book.is_seen(&report.stdout, &[]);
    assert!(report.stdout.contains("does not exist"), "{}", report.stdout);
    assert_eq!(stack.status()["generation"], 2);
    fs::rename(&moved, &release).expect("renames");
    book.types(&stack.root, "switchback rollback", &[]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    book.ends();

    // Both the promotion and its undoing fail.
    let stack = Stack::new(&[ReleaseKind::V2]);
    let (release, moved) = (stack.root.join("releases/1.0.0"), stack.root.join("releases/moved"));
    let breaks = format!("[sh, -c, \"mv {} {}; exit 1\"]", release.display(), moved.display());
    stack.configure(
        "migrate: [\"{release}/bin/assistant\", \"migrate\", \"--release\", \"{release}\", \"--db\", \"{store.db}\"]",
        &format!("migrate: {breaks}"),
    );
    stack.run(&["up"]).expect(0);
    let before = stack.rows(1);
    let ran = stack.run(&[&["promote", "app=2.0.0", "--yes", "--detach"][..], &WHY].concat());
    assert_eq!(ran.code, Some(5), "{}", ran.all());
    let mut book = Runbook::of("A run needs the operator");
    book.is_seen(&ran.all(), &[]);
    let report = book.types(&stack.root, "switchback report", &[]).expect(0).stdout;
    assert!(report.contains("failed too"), "{report}");
    fs::rename(&moved, &release).expect("renames");
    let status = book.types(&stack.root, "switchback status", &[]).expect(0).stdout;
    assert!(status.contains("generation 1"), "{status}");
    book.types(&stack.root, "switchback up", &[]).expect(0);
    assert_eq!((stack.version().as_deref(), stack.rows(1)), (Some("1.0.0"), before));
    book.ends();
}

#[test]
fn what_a_rollback_could_not_export_is_exported_when_the_cause_is_gone() {
    let mut book = Runbook::of("Production is back, and something after it failed");
    let stack = on_trial(ReleaseKind::V2);
    stack.write_note("later");
    // Where the export belongs lies something else.
    let in_the_way = stack.state().join("exports/generation-2");
    fs::write(&in_the_way, "").expect("writes");
    book.is_seen(&stack.run(&["rollback", "--yes"]).expect(5).all(), &[]);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    let status = book.types(&stack.root, "switchback status", &[]).expect(0).stdout;
    assert!(
        status.contains("generation 2: writes not exported yet; `switchback export` does it"),
        "{status}"
    );
    fs::remove_file(&in_the_way).expect("removes");
    book.types(&stack.root, "switchback export", &[]).expect(0);
    assert!(in_the_way.join("complete.json").exists());
    assert_eq!(stack.status()["unexported"].as_array().map(Vec::len), Some(0));
    book.ends();
}

#[test]
fn a_rollback_that_failed_is_repeated_when_its_cause_is_gone() {
    let mut book = Runbook::of("The rollback itself failed");
    let stack = on_trial(ReleaseKind::V2);
    let (release, moved) = (stack.root.join("releases/1.0.0"), stack.root.join("releases/moved"));
    fs::rename(&release, &moved).expect("renames");
    book.is_seen(&stack.run(&["rollback", "--yes"]).expect(3).all(), &[]);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"), "production is not on what ran before");
    let report = book.types(&stack.root, "switchback report", &[]).expect(0);
    assert!(report.stdout.contains("does not exist"), "{}", report.stdout);
    fs::rename(&moved, &release).expect("renames");
    book.types(&stack.root, "switchback rollback", &[]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    book.ends();
}

#[test]
fn a_drill_on_production_that_was_interrupted_is_undone() {
    let mut book = Runbook::of("A drill on production went wrong");
    let stack = Stack::new(&[ReleaseKind::IgnoresTerm]);
    stack.configure("watch: 2s", "watch: 1s");
    stack.run(&["up"]).expect(0);
    stack.run(&[&["promote", "app=2.5.0", "--yes"][..], &WHY].concat()).expect(0);
    let rows = stack.rows(2);
    let mut drill = begin(&stack, &["drill", "rollback", "--production", "--yes"]);
    stack.wait_until("production is being stopped", SOON, || stack.version().is_none());
    interrupt(&drill);
    assert_eq!(drill.wait().expect("ends").code(), Some(130));
    let status = book.types(&stack.root, "switchback status", &[]).expect(0).stdout;
    assert!(status.contains("unfinished"), "{status}");
    book.types(&stack.root, "switchback resume --abort", &[]);
    assert_eq!((stack.version().as_deref(), stack.rows(2)), (Some("2.5.0"), rows.clone()));
    stack.kill_services();
    book.types(&stack.root, "switchback up", &[]).expect(0);
    assert_eq!((stack.version().as_deref(), stack.rows(2)), (Some("2.5.0"), rows));
    book.ends();
}

#[test]
fn who_holds_a_port_is_found_and_production_starts_when_it_is_free() {
    let mut book = Runbook::of("A port is taken");
    let stack = Stack::new(&[]);
    let bind = || TcpListener::bind(("127.0.0.1", stack.port)).expect("free");
    let stranger = bind();
    book.is_seen(&stack.run(&["up"]).expect(3).all(), &[("hub.http", "app.http")]);
    drop(stranger);
    stack.run(&["up"]).expect(0);
    stack.run(&["down", "--yes"]).expect(0);
    let stranger = bind();
    book.is_seen(&stack.run(&["up"]).expect(3).all(), &[("hub.http", "app.http")]);
    let port = stack.port.to_string();
    let listed = book.types(&stack.root, "ss -ltnp 'sport = :8000'", &[("8000", &port)]).expect(0).stdout;
    assert!(listed.contains(&format!("pid={}", std::process::id())), "{listed}");
    drop(stranger);
    book.types(&stack.root, "switchback up", &[]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    book.ends();
}

#[test]
fn whoever_waits_for_the_lock_gets_it() {
    let mut book = Runbook::of("Busy");
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure(
        "migrate: [\"{release}/bin/assistant\", \"migrate\", \"--release\", \"{release}\", \"--db\", \"{store.db}\"]",
        "migrate: [sleep, \"3\"]",
    );
    stack.run(&["up"]).expect(0);
    let mut first = begin(&stack, &[&["promote", "app=2.0.0", "--yes", "--detach"][..], &WHY].concat());
    stack.wait_until("the first run holds the lock", SOON, || {
        stack.status()["busy"].as_str().is_some_and(|b| b.contains("promote"))
    });
    book.is_seen(&stack.run(&["up"]).expect(8).all(), &[]);
    book.types(&stack.root, "switchback --wait 5m up", &[("up", "up --yes")]).expect(0);
    // Whatever became of the first: it had ended.
    assert!(first.try_wait().expect("asks").is_some() || first.wait().is_ok());
    assert!(stack.status()["unfinished"].is_null());
    book.ends();
}

#[test]
fn processes_of_another_generation_are_found_by_their_marker() {
    let mut book = Runbook::of("Services run that should not");
    let stack = Stack::new(&[]);
    stack.run(&["up"]).expect(0);
    let state =
        fs::read_to_string(stack.state().join("generations/1/services/app/state.json")).expect("reads");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let environ = fs::read_to_string(format!("/proc/{}/environ", state["child"])).expect("reads");
    let marker = environ.split('\0').find_map(|e| e.strip_prefix("SWITCHBACK_INSTANCE=")).expect("a marker");
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .env("SWITCHBACK_INSTANCE", marker.replace("generations/1", "generations/9"))
        .spawn()
        .expect("starts");
    book.is_seen(&stack.run(&["up"]).expect(3).all(), &[]);
    let listing = book.command("for p in");
    let listed = book.types(&stack.root, &listing, &[]).stdout;
    let line = listed.lines().find(|l| l.contains("generations/9")).unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(line.split_whitespace().next(), Some(&*format!("/proc/{}", stranger.id())), "{listed}");
    stranger.kill().expect("kills");
    stranger.wait().expect("ends");
    stack.kill_services();
    book.types(&stack.root, "switchback up", &[]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    book.ends();
}
