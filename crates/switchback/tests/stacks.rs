//! Several stacks on one host, upgraded one after the other.

mod common;

use assistant::ReleaseKind;
use common::{Ran, Stack};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A running stack below a folder that is to run another version.
fn stack(below: &Path, name: &str, after: &str, release: ReleaseKind) -> Stack {
    let stack = Stack::within(below, &[release], 20);
    stack.configure("stack: assistant\n", &format!("stack: {name}\nafter: [{after}]\n"));
    stack.run(&["up"]).expect(0);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let line = text.lines().find(|l| l.trim_start().starts_with("version:")).expect("a version").to_owned();
    let indent = &line[..line.len() - line.trim_start().len()];
    let now = format!("{indent}version: \"{}\"", release.version());
    fs::write(&path, text.replacen(&line, &now, 1)).expect("writes");
    stack
}

fn all(below: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.arg("-C").arg(below).args(["upgrade", "--all"]).args(args).env("NO_COLOR", "1");
    let output = command.stdin(std::process::Stdio::null()).output().expect("runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn became(answer: &Value) -> Vec<(String, String)> {
    let list = answer["stacks"].as_array().expect("stacks");
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    list.iter().map(|l| (text(&l["stack"]), text(&l["became"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn stacks_are_upgraded_in_their_order_and_once() {
    let place = tempfile::tempdir().expect("a folder");
    let below = place.path().join("srv");
    fs::create_dir(&below).expect("creates");
    let base = stack(&below, "zeta", "", ReleaseKind::V2);
    let user = stack(&below, "alpha", "zeta", ReleaseKind::V2);
    let shown = all(place.path(), &["--dry-run"]).expect(0).stdout;
    let (first, second) = (shown.find("zeta"), shown.find("alpha"));
    assert!(first.is_some() && first < second && shown.contains("would be upgraded"), "{shown}");
    // Nobody is there to be asked.
    assert!(all(place.path(), &[]).expect(2).all().contains("--yes"));

    let done = all(place.path(), &["--yes", "--json", "--quiet"]).expect(0).json();
    assert_eq!(became(&done), pairs(&[("zeta", "upgraded"), ("alpha", "upgraded")]), "{done}");
    assert_eq!(done["stacks"][1]["report"]["procedure"], "promote", "{done}");
    for stack in [&base, &user] {
        assert_eq!(stack.status()["generation"], 2);
        assert!(stack.status()["trial"].is_null(), "its trial goes on");
    }
    let again = all(&below, &["--yes"]).expect(0).stdout;
    assert_eq!(again.matches("runs what its configuration says").count(), 2, "{again}");
}

#[test]
fn what_comes_after_a_stack_that_was_not_upgraded_is_left_out_and_others_go_on() {
    let place = tempfile::tempdir().expect("a folder");
    let base = stack(place.path(), "base", "", ReleaseKind::LossyMigration);
    let user = stack(place.path(), "user", "base", ReleaseKind::V2);
    let other = stack(place.path(), "zone", "", ReleaseKind::V2);
    let done = all(place.path(), &["--yes", "--json"]).expect(3).json();
    assert_eq!(
        became(&done),
        pairs(&[("base", "failed"), ("user", "left_out"), ("zone", "upgraded")]),
        "{done}"
    );
    assert_eq!(done["stacks"][0]["exit"], 3, "{done}");
    for (stack, generation) in [(&base, 1), (&user, 1), (&other, 2)] {
        assert_eq!(stack.status()["generation"], generation);
    }
}

#[test]
fn circles_strangers_and_empty_folders_are_told() {
    let place = tempfile::tempdir().expect("a folder");
    assert!(all(place.path(), &["--dry-run"]).expect(3).all().contains("switchback init"));
    let one = stack(place.path(), "one", "", ReleaseKind::V2);
    let _two = stack(place.path(), "two", "one", ReleaseKind::V2);
    one.configure("after: []", "after: [two]");
    assert!(all(place.path(), &["--dry-run"]).expect(2).all().contains("one, two come after each other"));
    one.configure("after: [two]", "after: [nobody]");
    assert!(all(place.path(), &["--dry-run"]).expect(2).all().contains("there is no such stack"));
    one.configure("after: [nobody]", "after: [one]");
    assert!(one.run(&["status"]).expect(2).all().contains("cannot come after itself"));
    one.configure("stack: one\nafter: [one]", "stack: two");
    assert!(all(place.path(), &["--dry-run"]).expect(3).all().contains("two stacks are called two"));
}
