//! Commands of the user around promotions and rollbacks.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;
use std::time::{Duration, Instant};

/// Writes down who it was called by, and whether production ran.
const TELL: &str = "echo $SWITCHBACK_HOOK $SWITCHBACK_PROCEDURE $SWITCHBACK_FROM_GENERATION-$SWITCHBACK_TO_GENERATION $SWITCHBACK_FROM to $SWITCHBACK_TO $SWITCHBACK_OUTCOME >> told.txt";

fn stack(kind: ReleaseKind, hooks: &[(&str, &str)]) -> Stack {
    let stack = Stack::new(&[kind]);
    let path = stack.root.join("switchback.yaml");
    let mut text = fs::read_to_string(&path).expect("reads");
    text.push_str("hooks:\n");
    for (name, run) in hooks {
        text.push_str(&format!("  {name}: {run}\n"));
    }
    fs::write(&path, text.replace("watch: 2s", "watch: 1h")).expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

fn told(stack: &Stack) -> Vec<String> {
    let text = fs::read_to_string(stack.root.join("told.txt")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn promote(stack: &Stack, version: &str, code: i32) -> String {
    let args = ["promote", version, "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(code).all()
}

#[test]
fn commands_run_around_a_promotion_and_a_rollback() {
    let tell = format!("{{ run: \"{TELL}\" }}");
    let names = ["before_promote", "after_promote", "before_rollback", "after_rollback"];
    let hooks: Vec<(&str, &str)> = names.iter().map(|n| (*n, tell.as_str())).collect();
    let stack = stack(ReleaseKind::LeakyPool, &hooks);
    let plan = stack.run(&["promote", "app=2.2.0", "--dry-run", "--without-certificate", "--reason", "test"]);
    let shown = plan.expect(0).all();
    assert!(shown.contains("Run the command hooks.before_promote"), "{shown}");
    assert!(told(&stack).is_empty(), "a plan runs nothing");
    promote(&stack, "app=2.2.0", 0);
    assert_eq!(
        told(&stack),
        [
            "before_promote promote 1-2 app 1.0.0 to app 2.2.0",
            "after_promote promote 1-2 app 1.0.0 to app 2.2.0 done"
        ]
    );
    // The watchdog's own rollback, too.
    for i in 0..20 {
        stack.write_note(&format!("note {i}"));
    }
    assert!(stack.wait_for_rollback(), "{}", stack.status());
    assert_eq!(
        told(&stack)[2..],
        [
            "before_rollback rollback 2-1 app 2.2.0 to app 1.0.0",
            "after_rollback rollback 2-1 app 2.2.0 to app 1.0.0 done"
        ]
    );
}

#[test]
fn a_command_that_fails_beforehand_stops_a_promotion_before_anything_is_stopped() {
    let tell = format!("{{ run: \"{TELL}\" }}");
    let fails = "{ run: \"echo the mirror is not in sync; exit 7\" }";
    let stack = stack(ReleaseKind::V2, &[("before_promote", fails), ("after_promote", &tell)]);
    let processes = stack.processes();
    let said = promote(&stack, "app=2.0.0", 4);
    assert!(said.contains("the command hooks.before_promote failed: exit code 7"), "{said}");
    assert!(said.contains("the mirror is not in sync"), "{said}");
    assert_eq!(stack.processes(), processes, "production was not stopped");
    assert_eq!(told(&stack), ["after_promote promote 1-2 app 1.0.0 to app 2.0.0 undone"]);
    assert_eq!(stack.status()["generation"], 1);
}

#[test]
fn what_follows_a_promotion_also_follows_one_that_failed() {
    let tell = format!("{{ run: \"{TELL}\" }}");
    let stack = stack(ReleaseKind::MigrationFails, &[("after_promote", &tell)]);
    promote(&stack, "app=2.3.1", 4);
    assert_eq!(told(&stack), ["after_promote promote 1-2 app 1.0.0 to app 2.3.1 undone"]);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

#[test]
fn a_rollback_waits_for_nobody() {
    let hangs = "{ run: [sleep, \"600\"], timeout: 1s }";
    let fails = "{ run: [\"/no/such/program\"] }";
    let stack = stack(
        ReleaseKind::V2,
        &[("before_rollback", hangs), ("after_rollback", fails), ("after_promote", "{ run: \"exit 1\" }")],
    );
    // What fails afterwards is told, and the release stays.
    let said = promote(&stack, "app=2.0.0", 0);
    assert!(said.contains("FAILED: the command hooks.after_promote failed: exit code 1"), "{said}");
    assert_eq!(stack.status()["generation"], 2);
    let began = Instant::now();
    let said = stack.run(&["rollback", "--yes"]).expect(0).all();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(said.contains("FAILED: the command hooks.before_rollback failed"), "{said}");
    assert!(said.contains("/no/such/program"), "{said}");
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    stack.configure("run: [\"/no/such/program\"]", "run: []");
    let ran = stack.run(&["status"]).expect(2);
    assert!(ran.stderr.contains("hooks.after_rollback.run names no program"), "{}", ran.stderr);
}
