//! The crash matrix, generated from the plan: SIGKILL before, during and after every step of a promotion and
//! a rollback, forward and backward; then `resume`. Production must end healthy on exactly the old or the new
//! generation, with equal data, and nothing left over. Needs the feature `faults`.
#![cfg(feature = "faults")]

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::collections::BTreeMap;

const WITHOUT: [&str; 7] =
    ["promote", "app=2.0.0", "--yes", "--detach", "--without-certificate", "--reason", "crash matrix"];

const DRILL: [&str; 4] = ["drill", "rollback", "--production", "--yes"];

struct Before {
    rows: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

fn stack() -> (Stack, Before) {
    let stack = Stack::new(&[ReleaseKind::V2]);
    // The trial must outlast the case.
    stack.configure("watch: 2s", "watch: 1h");
    stack.run(&["up"]).expect(0);
    let before = Before { rows: stack.rows(1), files: stack.files(1) };
    (stack, before)
}

fn promoted() -> (Stack, Before) {
    let (stack, before) = stack();
    stack.run(&WITHOUT).expect(0);
    (stack, before)
}

fn steps(procedure: &str, reversible_only: bool) -> Vec<String> {
    let (stack, _) = if procedure == "rollback" { promoted() } else { stack() };
    let mut args = vec!["plan", procedure, "--json"];
    match procedure {
        "promote" => args.insert(2, "app=2.0.0"),
        "drill" => args = [&DRILL[..], &["--dry-run", "--json"]].concat(),
        _ => {}
    }
    let plan = stack.run(&args).expect(0).json();
    plan["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter(|s| !reversible_only || s["undo"] == "reverse")
        .map(|s| s["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// Production must be healthy on exactly one generation, with the data of before, and tidy.
fn assert_sound(stack: &Stack, before: &Before, case: &str) {
    let status = stack.status();
    assert!(status["unfinished"].is_null(), "{case}: {status}");
    let generation = status["generation"].as_u64().expect("a generation") as u32;
    let version = match generation {
        1 => "1.0.0",
        2 => "2.0.0",
        other => panic!("{case}: generation {other}"),
    };
    assert_eq!(stack.version().as_deref(), Some(version), "{case}: {status}");
    let running = stack.processes();
    let expected = format!("generations/{generation}:app");
    assert_eq!(running.keys().collect::<Vec<_>>(), [&expected], "{case}: other processes are left");
    assert_eq!(running[&expected], 2, "{case}: exactly the shim and the service run");
    assert_eq!(stack.rows(1), before.rows, "{case}: the old generation's rows changed");
    assert_eq!(stack.files(1), before.files, "{case}: the old generation's files changed");
    if generation == 2 {
        assert_eq!(stack.rows(2), before.rows, "{case}: the new generation's rows are not the old ones");
        assert_eq!(stack.files(2), before.files, "{case}: the new generation's files are not the old ones");
    }
    let listed = |dir: &str| -> Vec<String> {
        std::fs::read_dir(stack.state().join(dir))
            .expect("lists")
            .map(|e| e.expect("lists").file_name().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(listed("staging"), Vec::<String>::new(), "{case}: staging is left");
    for name in listed("").iter().chain(&listed("generations/1")).chain(&listed("runs")) {
        assert!(!name.contains(".tmp-") && !name.contains("partial"), "{case}: {name} is left");
    }
}

fn crash_and_resume(stack: &Stack, before: &Before, args: &[&str], env: &[(&str, &str)], case: &str) {
    let crashed = stack.run_with(args, env);
    assert_eq!(crashed.code, None, "{case}: the fault did not fire: {}", crashed.all());
    // The watchdog may have begun to take over.
    let resumed = stack.run(&["resume", "--wait", "30s"]);
    assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{case}: {:?} {}", resumed.code, resumed.all());
    assert_sound(stack, before, case);
}

fn command(procedure: &str) -> &'static [&'static str] {
    match procedure {
        "rollback" => &["rollback", "--yes"],
        "drill" => &DRILL,
        _ => &WITHOUT,
    }
}

fn forward(procedure: &str) {
    for step in steps(procedure, false) {
        for at in ["before", "during", "after"] {
            let case = format!("{procedure} do:{step}:{at}");
            let (stack, before) = if procedure == "rollback" { promoted() } else { stack() };
            let args = command(procedure);
            crash_and_resume(
                &stack,
                &before,
                args,
                &[("SWITCHBACK_FAULT", &case[procedure.len() + 1..])],
                &case,
            );
            assert_drilled(procedure, &stack, &case);
        }
    }
}

/// `last` is made to fail, so that everything before it is undone; the crash comes in the undo.
fn backward(procedure: &str, last: &str) {
    for step in steps(procedure, true) {
        for at in ["before", "during", "after"] {
            let case = format!("{procedure} undo:{step}:{at}");
            let (stack, before) = if procedure == "rollback" { promoted() } else { stack() };
            let args = command(procedure);
            let fail = format!("do:{last}");
            let env = [
                ("SWITCHBACK_FAULT", &case[procedure.len() + 1..]),
                ("SWITCHBACK_FAULT_FAIL", fail.as_str()),
            ];
            crash_and_resume(&stack, &before, args, &env, &case);
            assert_drilled(procedure, &stack, &case);
        }
    }
}

#[test]
fn a_promotion_killed_at_any_point_ends_on_one_generation() {
    forward("promote");
}

#[test]
fn a_rollback_killed_at_any_point_ends_on_one_generation() {
    forward("rollback");
}

#[test]
fn a_promotion_killed_while_it_is_undone_ends_on_one_generation() {
    backward("promote", "begin-trial");
}

#[test]
fn a_rollback_killed_while_it_is_undone_ends_on_one_generation() {
    backward("rollback", "flip");
}

/// Whatever happens to a drill, production ends on the generation and the data that it had, and the copy is gone.
fn assert_drilled(procedure: &str, stack: &Stack, case: &str) {
    if procedure == "drill" {
        assert_eq!(stack.status()["generation"], 1, "{case}");
        assert!(!stack.state().join("generations/2").exists(), "{case}: the copy is left");
        assert!(
            !stack.state().join("exports/generation-2").exists(),
            "{case}: nothing was written to the copy"
        );
    }
}

#[test]
fn a_drill_on_production_killed_at_any_point_ends_where_it_began() {
    forward("drill");
}

#[test]
fn a_drill_on_production_killed_while_it_is_undone_ends_where_it_began() {
    backward("drill", "sealed");
}

/// Every step, forward and backward, performed twice has the effect of once.
#[test]
fn every_step_can_be_repeated() {
    let (stack, before) = stack();
    let twice = [("SWITCHBACK_FAULT_REPEAT", "1")];
    stack.run_with(&DRILL, &[twice[0], ("SWITCHBACK_FAULT_FAIL", "do:sealed")]).expect(3);
    assert_sound(&stack, &before, "undo of a drill twice");
    stack.run_with(&DRILL, &twice).expect(0);
    assert_sound(&stack, &before, "drill twice");
    assert_drilled("drill", &stack, "drill twice");
    stack.run_with(&["rehearse", "app=2.0.0"], &twice).expect(0);
    assert_sound(&stack, &before, "rehearse twice");
    stack.run_with(&WITHOUT, &[twice[0], ("SWITCHBACK_FAULT_FAIL", "do:begin-trial")]).expect(4);
    assert_sound(&stack, &before, "undo of a promotion twice");
    stack.run_with(&WITHOUT, &twice).expect(0);
    assert_sound(&stack, &before, "promote twice");
    stack.run_with(&["rollback", "--yes"], &[twice[0], ("SWITCHBACK_FAULT_FAIL", "do:flip")]).expect(3);
    assert_sound(&stack, &before, "undo of a rollback twice");
    stack.run_with(&["rollback", "--yes"], &twice).expect(0);
    assert_sound(&stack, &before, "rollback twice");
}

/// Nobody types anything: the watchdog goes on where the killed command line stopped.
#[test]
fn a_killed_command_line_is_taken_over_by_the_watchdog() {
    for case in ["do:stop-old:after", "do:clone:during", "do:start-new:before", "do:flip:after"] {
        let (stack, before) = stack();
        let crashed = stack.run_with(&WITHOUT, &[("SWITCHBACK_FAULT", case)]);
        assert_eq!(crashed.code, None, "{case}: {}", crashed.all());
        stack.wait_until(case, std::time::Duration::from_secs(20), || {
            let status = stack.status();
            status["unfinished"].is_null() && status["generation"] == 2
        });
        assert_sound(&stack, &before, case);
    }
}
