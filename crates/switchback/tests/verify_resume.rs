//! An acceptance run that is killed goes on after the phases that ended, and leaves nothing behind.

mod common;

use assistant::ReleaseKind;
use common::{PROGRAM, Ran, Stack};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PHASES: [&str; 6] = ["--phase", "database", "--phase", "certificate", "--phase", "rollback"];

fn arguments() -> Vec<&'static str> {
    [&["verify", "app=2.0.0", "--docs", "/nowhere"][..], &PHASES[..]].concat()
}

/// Starts an acceptance run and kills it as soon as it has kept a phase and is at work on the next.
fn killed(stack: &Stack) {
    let mut command = Command::new(PROGRAM);
    command.arg("-C").arg(&stack.root).args(arguments());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let kept = stack.state().join("verify-progress.json");
    let deadline = Instant::now() + Duration::from_secs(180);
    while !fs::read_to_string(&kept).is_ok_and(|t| t.contains("certificate.enforced")) {
        assert!(Instant::now() < deadline, "nothing was kept");
        assert!(child.try_wait().expect("asks").is_none(), "verify ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
}

fn again(stack: &Stack) -> Ran {
    stack.run(&[&arguments()[..], &["--resume"]].concat())
}

fn matrix(stack: &Stack) -> Value {
    let path = stack.root.join("reports/upgrade-infrastructure/evidence.json");
    serde_json::from_str(&fs::read_to_string(path).expect("reads")).expect("parses")
}

fn rows(matrix: &Value) -> BTreeMap<String, String> {
    let word = |v: &Value, key: &str| v[key].as_str().expect("text").to_owned();
    matrix["rows"].as_array().expect("rows").iter().map(|r| (word(r, "id"), word(r, "verdict"))).collect()
}

fn nothing_left(stack: &Stack) {
    let left: Vec<_> = fs::read_dir(stack.state().join("verify")).expect("lists").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!stack.state().join("verify-progress.json").exists(), "the progress of a run that ended is kept");
    let wanted = format!("{}/.switchback/verify/", stack.root.display());
    let processes = fs::read_dir("/proc").expect("lists").flatten();
    let lines = processes.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    let found: Vec<String> = lines
        .map(|l| String::from_utf8_lossy(&l).replace('\0', " "))
        .filter(|l| l.contains(&wanted))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_killed_run_goes_on_after_the_phases_that_ended() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up", "--quiet"]).expect(0);
    killed(&stack);
    assert!(
        fs::read_dir(stack.state().join("verify")).expect("lists").count() > 0,
        "there is something to remove"
    );

    let done = again(&stack);
    let said = done.all();
    assert_eq!(done.code, Some(6), "{said}");
    assert!(said.contains("going on after database, certificate"), "{said}");
    for phase in ["database", "certificate"] {
        assert!(said.contains(&format!("{phase}: ended before the interruption")), "{said}");
        assert!(!said.contains(&format!("{phase}: running")), "{said}");
    }
    assert!(said.contains("rollback: running"), "{said}");
    let found = matrix(&stack);
    let verdicts = rows(&found);
    for id in ["database.migration", "database.performance", "integration.validated", "rollback.budget"] {
        assert_eq!(verdicts[id], "pass", "{id}: {said}");
    }
    assert!(found["notes"].to_string().contains("interrupted and gone on with"), "{}", found["notes"]);
    // The files of the first sandbox's runs are there, with those of the second.
    let out = stack.root.join("reports/upgrade-infrastructure");
    for evidence in found["evidence"].as_array().expect("list") {
        for file in evidence["artefacts"].as_array().expect("list") {
            let bytes = fs::read(out.join(file["path"].as_str().expect("path"))).expect("the artefact");
            assert_eq!(file["bytes"].as_u64(), Some(bytes.len() as u64), "{file}");
        }
    }
    nothing_left(&stack);

    // What ended is not gone on with.
    let more = stack.run(&["verify", "--resume", "--phase", "documentation", "--docs", "/nowhere"]);
    assert!(more.all().contains("nothing to go on with"), "{}", more.all());
    stack.run(&["down", "--quiet", "--yes"]).expect(0);
}

#[test]
fn after_a_change_of_the_stack_a_killed_run_begins_anew() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up", "--quiet"]).expect(0);
    killed(&stack);
    // Another workflow: what was proved was proved with other checks.
    let notes = stack.root.join("checks/notes.yaml");
    let text = fs::read_to_string(&notes).expect("reads");
    fs::write(&notes, format!("# changed\n{text}")).expect("writes");
    let done = again(&stack);
    let said = done.all();
    assert!(said.contains("nothing to go on with, so it begins anew"), "{said}");
    assert!(said.contains("database: running"), "{said}");
    assert_eq!(done.code, Some(6), "{said}");
    nothing_left(&stack);
    stack.run(&["down", "--quiet", "--yes"]).expect(0);
}
