//! Upgrades without a hand.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A stack at generation 1 with a policy, and what becomes of news.
fn stack(releases: &[ReleaseKind], promotion: &str) -> Stack {
    let stack = Stack::new(releases);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}promotion: {promotion}\n")).expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

/// Another version is desired.
fn desire(stack: &Stack, version: &str) {
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let now = text.lines().find(|l| l.trim_start().starts_with("version:")).expect("a version").to_owned();
    let indent = &now[..now.len() - now.trim_start().len()];
    fs::write(&path, text.replacen(&now, &format!("{indent}version: \"{version}\""), 1)).expect("writes");
}

fn procedures(stack: &Stack) -> Vec<String> {
    let history = stack.run(&["history", "--json"]).expect(0).json();
    let runs = history.as_array().expect("runs").iter();
    runs.map(|r| r["procedure"].as_str().expect("a procedure").to_owned()).collect()
}

fn auto(stack: &Stack, code: i32) -> Value {
    stack.run(&["auto", "--json"]).expect(code).json()
}

#[test]
fn what_changed_is_rehearsed_once_and_left_to_a_person() {
    let stack = stack(&[ReleaseKind::V2], "{ auto: patch }");
    assert!(auto(&stack, 0)["why"].as_str().expect("why").contains("exactly what switchback.yaml says"));
    desire(&stack, "2.0.0");
    let plan = stack.run(&["auto", "--dry-run"]).expect(0).all();
    assert!(plan.contains("Nothing was done"), "{plan}");
    for _ in 0..2 {
        let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
        assert!(why.contains("passed its rehearsal and can be promoted"), "{why}");
    }
    // The certificate serves a person.
    assert_eq!(procedures(&stack).iter().filter(|p| *p == "rehearse").count(), 1);
    assert_eq!(stack.status()["generation"], 1);
    stack.run(&["promote", "--yes"]).expect(0);
    assert_eq!(stack.status()["generation"], 2);
}

#[test]
fn what_the_policy_allows_is_promoted_in_its_window_and_what_fails_its_trial_is_not_tried_again() {
    let stack = stack(&[ReleaseKind::V2, ReleaseKind::LeakyPool], "{ auto: always, min_age: 1d }");
    desire(&stack, "2.0.0");
    let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
    assert!(why.contains("waits") && why.contains("promotion.min_age"), "{why}");
    stack.configure("auto: always, min_age: 1d", "auto: always");
    assert_eq!(auto(&stack, 0)["procedure"], "promote");
    stack.wait_until("the trial is over", std::time::Duration::from_secs(30), || {
        stack.status()["trial"].is_null()
    });
    assert_eq!(stack.status()["generation"], 2);
    assert_eq!(procedures(&stack).iter().filter(|p| *p == "rehearse").count(), 1, "the certificate was used");

    desire(&stack, "2.2.0");
    stack.configure("watch: 2s", "watch: 1h");
    auto(&stack, 0);
    let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
    assert!(why.contains("generation 3 is on trial"), "{why}");
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    let back = || stack.status()["generation"] == 2 && stack.status()["trial"].is_null();
    stack.wait_until("the watchdog rolls back", std::time::Duration::from_secs(30), back);
    let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
    assert!(why.contains("was rolled back on"), "{why}");
}

/// The configuration still says it, and its certificate is valid: a clock must not undo what a person decided.
#[test]
fn what_a_person_rolled_back_is_not_promoted_again_by_a_clock() {
    let stack = stack(&[ReleaseKind::V2], "{ auto: always }");
    stack.configure("watch: 2s", "watch: 1h");
    desire(&stack, "2.0.0");
    assert_eq!(auto(&stack, 0)["procedure"], "promote");
    assert!(!stack.status()["trial"].is_null());
    stack.run(&["rollback", "--yes", "--reason", "people complain"]).expect(0);
    let promoted = || procedures(&stack).iter().filter(|p| *p == "promote").count();
    for _ in 0..2 {
        let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
        assert!(why.contains("was rolled back on") && why.contains("people complain"), "{why}");
        assert!(why.contains("--again"), "{why}");
    }
    assert_eq!((promoted(), stack.status()["generation"].as_u64()), (1, Some(1)));

    // A person may, at once; and after a trial that passed a rollback counts as well.
    stack.run(&["promote", "--yes", "--detach"]).expect(0);
    stack.run(&["confirm", "--yes", "--reason", "it was something else"]).expect(0);
    stack.run(&["rollback", "--yes"]).expect(0);
    let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
    assert!(why.contains("was rolled back on"), "{why}");
    assert_eq!((promoted(), stack.status()["generation"].as_u64()), (2, Some(1)));
}

#[test]
fn what_was_refused_is_not_rehearsed_again_until_something_changes() {
    let stack = stack(&[ReleaseKind::V2, ReleaseKind::LossyMigration], "{ auto: always }");
    desire(&stack, "2.1.0");
    stack.run(&["auto"]).expect(3);
    let why = auto(&stack, 0)["why"].as_str().expect("why").to_owned();
    assert!(why.contains("refused exactly this change"), "{why}");
    assert_eq!(procedures(&stack).iter().filter(|p| *p == "rehearse").count(), 1);
    desire(&stack, "2.0.0");
    assert_eq!(auto(&stack, 0)["procedure"], "promote");
}

fn git(at: &Path, args: &[&str]) -> String {
    let said = Command::new("git")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-C"])
        .arg(at)
        .args(args)
        .output()
        .expect("git is installed");
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).expect("text")
}

/// What the documentation has a unit do before `switchback auto`.
fn before_auto(at: &Path) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/upgrade-infrastructure/rollback/automation.md");
    let page = fs::read_to_string(page).expect("reads");
    let line = page.lines().find_map(|l| l.strip_prefix("ExecStartPre=")).expect("a command");
    let words: Vec<String> = line.split(' ').map(|w| w.replace("%f", at.to_str().expect("text"))).collect();
    assert!(Command::new(&words[0]).args(&words[1..]).status().expect("runs").success(), "{line}");
}

#[test]
fn a_commit_that_somebody_pushed_is_followed_as_far_as_the_policy_allows() {
    let stack = stack(&[ReleaseKind::V2, ReleaseKind::LossyMigration], "{ auto: always }");
    git(&stack.root, &["init", "--quiet"]);
    git(&stack.root, &["add", "switchback.yaml"]);
    git(&stack.root, &["commit", "--quiet", "--message", "As it runs"]);
    let beside = tempfile::tempdir().expect("a folder");
    let (origin, desk) = (beside.path().join("origin.git"), beside.path().join("desk"));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    git(&stack.root, &["clone", "--quiet", "--bare", ".", &text(&origin)]);
    git(&stack.root, &["remote", "add", "origin", &text(&origin)]);
    git(&stack.root, &["fetch", "--quiet", "origin"]);
    let branch = git(&stack.root, &["branch", "--show-current"]).trim().to_owned();
    git(&stack.root, &["branch", "--quiet", "--set-upstream-to", &format!("origin/{branch}")]);
    git(beside.path(), &["clone", "--quiet", &text(&origin), "desk"]);
    let push = |from: &str, to: &str| {
        let path = desk.join("switchback.yaml");
        let now = fs::read_to_string(&path).expect("reads");
        let then = now.replacen(&format!("version: {from}"), &format!("version: {to}"), 1);
        assert_ne!(now, then, "{now}");
        fs::write(&path, then).expect("writes");
        git(&desk, &["commit", "--quiet", "--all", "--message", to]);
        git(&desk, &["push", "--quiet"]);
    };
    let changed = || git(&stack.root, &["status", "--porcelain", "--untracked-files=no"]);

    before_auto(&stack.root);
    assert!(auto(&stack, 0)["why"].as_str().is_some_and(|w| w.contains("exactly what switchback.yaml says")));
    push("1.0.0", "2.0.0");
    before_auto(&stack.root);
    assert_eq!(auto(&stack, 0)["procedure"], "promote");
    stack.wait_until("the trial is over", std::time::Duration::from_secs(30), || {
        stack.status()["trial"].is_null()
    });
    assert_eq!(stack.status()["generation"], 2);
    assert_eq!(changed(), "", "the promotion changed what Git has");

    // One that is bad stays in Git as desired, and in production as not done; the next commit goes on from there.
    push("2.0.0", "2.1.0");
    before_auto(&stack.root);
    auto(&stack, 3);
    before_auto(&stack.root);
    auto(&stack, 0);
    assert_eq!(stack.status()["generation"], 2);
    let plan = stack.run(&["plan"]).all();
    assert!(plan.contains("2.1.0"), "{plan}");
    assert_eq!(changed(), "");
}
