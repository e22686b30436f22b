//! The key of the backups: what is confirmed of it, what becomes of it when no repository can be made, and what goes on without it.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A stack with backups into this place, as YAML of `backup` has it.
fn stack(releases: &[ReleaseKind], backup: &str) -> Stack {
    let stack = Stack::new(releases);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}\nbackup: {{ {backup} }}\n")).expect("writes");
    stack
}

fn into(repository: &Path) -> String {
    format!("repository: \"{}\"", repository.display())
}

/// What the command says of a key that is typed.
fn confirm(stack: &Stack, key: &str) -> Option<i32> {
    let mut child = stack
        .command(&["backup", "key", "--confirm"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("input").write_all(key.as_bytes()).expect("writes");
    child.wait().expect("ends").code()
}

fn confirmed(stack: &Stack) -> bool {
    let status = stack.run(&["status", "--json"]).expect(0).json();
    status["backup"]["key_confirmed"].as_bool().expect("it is said")
}

#[test]
fn a_confirmation_is_of_the_key_that_the_stack_uses_now() {
    let beside = tempfile::tempdir().expect("tempdir");
    let (first, second) = (beside.path().join("first"), beside.path().join("second"));
    let stack = stack(&[], &into(&first));
    let file = stack.state().join("backup.key");
    stack.run(&["up"]).expect(0);
    stack.run(&["backup", "init"]).expect(0);
    assert!(!confirmed(&stack));
    let key = fs::read_to_string(&file).expect("a key");
    assert_eq!(confirm(&stack, &key), Some(0));
    assert!(confirmed(&stack));
    let kept = stack.state().join("backup.confirmed");
    let says = fs::read_to_string(&kept).expect("reads");
    assert!(!says.trim().is_empty() && !says.contains(key.trim()), "{says}");
    // As an earlier version wrote it.
    fs::write(&kept, "").expect("writes");
    assert!(!confirmed(&stack));
    fs::write(&kept, &says).expect("writes");
    assert!(confirmed(&stack));

    // The key is moved away, and another repository gets another one.
    let moved = beside.path().join("moved.key");
    fs::rename(&file, &moved).expect("moves");
    assert!(!confirmed(&stack), "there is no key");
    stack.configure(&into(&first), &into(&second));
    stack.run(&["backup", "init"]).expect(0);
    assert_ne!(fs::read_to_string(&file).expect("a key"), key);
    assert!(!confirmed(&stack), "it is another key");
    let made = stack.run(&["backup"]).expect(0);
    assert!(made.all().contains("this machine only"), "{}", made.all());
    assert!(stack.run(&["metrics"]).expect(0).stdout.contains("backup_key_confirmed{stack=\"assistant\"} 0"));
    assert!(stack.run(&["doctor"]).all().contains("this machine only"));
    assert_eq!(confirm(&stack, &key), Some(3), "the old key does not open the new repository");
    assert!(!confirmed(&stack));

    // The first again, with its key in another place.
    stack.configure(&into(&second), &format!("{}, key_file: \"{}\"", into(&first), moved.display()));
    assert!(confirmed(&stack));
}

#[test]
fn a_repository_that_cannot_be_made_leaves_no_key_and_a_key_that_cannot_be_kept_no_repository() {
    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    fs::write(beside.path().join("file"), "").expect("writes");
    let stack = stack(&[], &into(&repository));
    let file = stack.state().join("backup.key");
    stack.run(&["up"]).expect(0);
    let init = || stack.run(&["backup", "init"]);
    let keys = |place: &Path| format!("{}, key_file: \"{}\"", into(&repository), place.display());
    // Nothing can be made there; what is there cannot be read; it is a folder.
    let bad = [
        PathBuf::from("/proc/nothing/backup.key"),
        beside.path().join("file/backup.key"),
        beside.path().to_owned(),
    ];
    for place in bad {
        stack.configure(&into(&repository), &keys(&place));
        let ran = init();
        assert_ne!(ran.code, Some(0), "{}: {}", place.display(), ran.all());
        assert!(!repository.exists(), "{}: a repository whose key nobody has", place.display());
        stack.configure(&keys(&place), &into(&repository));
    }
    // No repository can be made there: the key that was made for it goes, too.
    let nowhere = beside.path().join("file/repository");
    stack.configure(&into(&repository), &into(&nowhere));
    assert_ne!(init().code, Some(0));
    assert!(!file.exists());
    stack.configure(&into(&nowhere), &into(&repository));
    init().expect(0);
    // Its key is away: the repository is no reason for another one.
    let (key, moved) = (fs::read_to_string(&file).expect("a key"), beside.path().join("moved.key"));
    fs::rename(&file, &moved).expect("moves");
    assert_ne!(init().code, Some(0));
    assert!(!file.exists());
    // One that was there before stays, whatever fails.
    fs::rename(&moved, &file).expect("moves");
    assert_ne!(init().code, Some(0));
    assert_eq!(fs::read_to_string(&file).expect("a key"), key);
    stack.run(&["backup"]).expect(0);
}

#[test]
fn a_backup_that_cannot_be_planned_keeps_no_drill_from_being_made_and_is_told_once() {
    let beside = tempfile::tempdir().expect("tempdir");
    let place = into(&beside.path().join("repository"));
    let stack = stack(&[ReleaseKind::V2], &place);
    stack.run(&["up"]).expect(0);
    let target = format!("app={}", ReleaseKind::V2.version());
    let why = ["--without-certificate", "--reason", "a test"];
    stack.run(&[&["promote", &target, "--yes"][..], &why].concat()).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(30), || stack.status()["trial"].is_null());
    // Only the command looks for what is due from here on.
    stack.wait_until("the keeper has gone", Duration::from_secs(30), || stack.keeper().is_none());
    // Nobody listens there: the log says what would have been told. There is no key.
    stack.configure("stores:", "notify: [\"slack+http://127.0.0.1:9/hook\"]\nstores:");
    stack.configure("watch: 2s", "watch: 2s, drill: 1h");
    stack.configure(&place, &format!("every: 1h, {place}"));
    let due = || stack.run(&["backup", "--if-due"]);
    let told = || {
        let log = fs::read_to_string(stack.state().join("notify.log")).unwrap_or_default();
        log.lines().filter(|l| l.contains("backup_failed")).count()
    };
    let drills = || {
        let history = stack.run(&["history", "--json"]).expect(0).json();
        let runs = history.as_array().expect("runs").clone();
        runs.iter().filter(|r| r["procedure"] == "rollback_drill" && r["conclusion"] == "pass").count()
    };
    due().expect(0);
    assert_eq!((drills(), told()), (1, 1));
    due().expect(0);
    assert_eq!((drills(), told()), (1, 1));

    // A quarter of an hour later it is tried again, and not told again.
    let marks = stack.state().join("unplanned.json");
    let kept = || -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(&marks).expect("reads")).expect("JSON")
    };
    let later = || {
        let mut all = kept();
        all["backup"]["at_ms"] = (all["backup"]["at_ms"].as_i64().expect("a time") - 16 * 60_000).into();
        fs::write(&marks, all.to_string()).expect("writes");
    };
    later();
    let ran = due();
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    assert!(ran.all().contains("no key for the backups"), "{}", ran.all());
    assert_eq!(told(), 1);
    // Another error is told at once.
    fs::write(stack.state().join("backup.key"), "\n").expect("writes");
    later();
    assert_ne!(due().code, Some(0));
    assert_eq!(told(), 2);
    // And nothing is left of it when there is a key.
    fs::remove_file(stack.state().join("backup.key")).expect("removes");
    stack.run(&["backup", "init"]).expect(0);
    later();
    due().expect(0);
    assert_eq!(kept(), serde_json::json!({}));
}
