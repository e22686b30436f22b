//! The crash matrix of a Compose stack, generated from the plan: SIGKILL before, during and after steps of a promotion,
//! a rollback and a rehearsal, forward and backward; then `resume`. Production must end healthy on exactly the old or
//! the new generation, with equal data, and nothing left over (see `common::bank`). Needs the feature `faults`.
//!
//! Cases share a stack: each ends in a known state. By default each step is killed at one of its three points, which
//! differs from step to step; with SWITCHBACK_TEST_FULL at all of them.
#![cfg(feature = "faults")]

mod common;

use common::bank::{Bank, PROMOTE, ROLLBACK};
use common::docker::{docker, full, labelled};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// The steps of a procedure, as planned now; with `undo` those that can be reversed.
fn steps(bank: &Bank, args: &[&str], undo: bool) -> Vec<String> {
    let plan = bank.stack.run(&[&["plan"], args, &["--json"]].concat()).expect(0).json();
    let steps = plan["steps"].as_array().expect("steps").clone();
    let wanted = steps.iter().filter(|s| !undo || s["undo"] == "reverse");
    wanted.map(|s| s["id"].as_str().expect("an id").to_owned()).collect()
}

/// The points at which steps are killed: `do:STEP:before` and so on.
fn points(way: &str, steps: &[String]) -> Vec<String> {
    let all = ["during", "after", "before"];
    let of = |(index, step): (usize, &String)| -> Vec<String> {
        let chosen: Vec<&str> = if full() { all.to_vec() } else { vec![all[index % 3]] };
        chosen.into_iter().map(|at| format!("{way}:{step}:{at}")).collect()
    };
    steps.iter().enumerate().flat_map(of).collect()
}

/// Goes on after a crash; the watchdog may have begun to, or be done.
#[track_caller]
fn resume(bank: &Bank, case: &str) {
    let resumed = bank.stack.run(&["resume", "--wait", "120s"]);
    assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{case}: {:?} {}", resumed.code, resumed.all());
}

#[track_caller]
fn crash_and_resume(bank: &Bank, release: u64, env: &[(&str, &str)], case: &str) -> u64 {
    let began = Instant::now();
    bank.settle_on(release);
    let crashed = if release == 1 { bank.promote(env) } else { bank.stack.run_with(&ROLLBACK, env) };
    assert_eq!(crashed.code, None, "{case}: the fault did not fire: {}", crashed.all());
    resume(bank, case);
    let end = bank.assert_sound(case);
    eprintln!("{case}: on release {end} after {:.1} s", began.elapsed().as_secs_f64());
    end
}

#[test]
fn a_promotion_or_a_rollback_of_compose_killed_at_any_point_ends_on_one_generation() {
    let bank = Bank::new();
    let promote = points("do", &steps(&bank, &["promote", "bank=2"], false));
    assert!(promote.len() >= 10, "{promote:?}");
    bank.settle_on(2);
    bank.assert_sound("no fault");
    let rollback = points("do", &steps(&bank, &["rollback"], false));
    // Alternately: each brings the stack to where the other begins.
    let mut back = rollback.iter();
    for point in &promote {
        let case = format!("promote {point}");
        assert_eq!(crash_and_resume(&bank, 1, &[("SWITCHBACK_FAULT", point)], &case), 2, "{case}");
        if let Some(point) = back.next() {
            let case = format!("rollback {point}");
            assert_eq!(crash_and_resume(&bank, 2, &[("SWITCHBACK_FAULT", point)], &case), 1, "{case}");
        }
    }
    assert_eq!(back.next(), None, "points of the rollback are left");
    bank.settle_on(1);
    bank.stack.run(&["gc", "--yes"]).expect(0);
    bank.assert_sound("gc");
}

/// A late step is made to fail, so that everything before it is undone; the crash comes in the undo.
#[test]
fn a_promotion_or_a_rollback_of_compose_killed_while_it_is_undone_ends_on_one_generation() {
    let bank = Bank::new();
    let promote = points("undo", &steps(&bank, &["promote", "bank=2"], true));
    assert!(promote.len() >= 4, "{promote:?}");
    for point in &promote {
        let env = [("SWITCHBACK_FAULT", point.as_str()), ("SWITCHBACK_FAULT_FAIL", "do:begin-trial")];
        let case = format!("promote {point}");
        assert_eq!(crash_and_resume(&bank, 1, &env, &case), 1, "{case}");
    }
    bank.settle_on(2);
    for point in &points("undo", &steps(&bank, &["rollback"], true)) {
        let env = [("SWITCHBACK_FAULT", point.as_str()), ("SWITCHBACK_FAULT_FAIL", "do:flip")];
        let case = format!("rollback {point}");
        assert_eq!(crash_and_resume(&bank, 2, &env, &case), 2, "{case}");
    }
}

/// Every step, forward and backward, performed twice has the effect of once.
#[test]
fn every_step_on_a_compose_stack_can_be_repeated() {
    let bank = Bank::new();
    let twice = ("SWITCHBACK_FAULT_REPEAT", "1");
    bank.stack.run_with(&["rehearse", "bank=2"], &[twice]).expect(0);
    assert_eq!(bank.assert_sound("rehearse twice"), 1);
    bank.promote(&[twice, ("SWITCHBACK_FAULT_FAIL", "do:begin-trial")]).expect(4);
    assert_eq!(bank.assert_sound("undo of a promotion twice"), 1);
    bank.promote(&[twice]).expect(0);
    assert_eq!(bank.assert_sound("promote twice"), 2);
    bank.stack.run_with(&ROLLBACK, &[twice, ("SWITCHBACK_FAULT_FAIL", "do:flip")]).expect(3);
    assert_eq!(bank.assert_sound("undo of a rollback twice"), 2);
    bank.stack.run_with(&ROLLBACK, &[twice]).expect(0);
    assert_eq!(bank.assert_sound("rollback twice"), 1);
}

#[test]
fn a_rehearsal_of_compose_that_is_killed_disturbs_nobody_and_leaves_nothing() {
    let bank = Bank::new();
    let production = || bank.stack.inspect("bank", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}");
    let before = production();
    let points = if full() {
        // The old release does not run on migrated data, so what would be checked there is skipped: no fault fires in it.
        bank.stack.run(&["rehearse", "bank=2"]).expect(0);
        let report = bank.stack.report();
        let done = report["steps"].as_array().expect("steps").iter().filter(|s| s["status"] != "skipped");
        let done: Vec<String> = done.map(|s| s["id"].as_str().expect("an id").to_owned()).collect();
        assert!(done.len() > 15, "{done:?}");
        points("do", &done)
    } else {
        // While production is frozen, while staging begins, and while it is taken away.
        ["do:snapshot:during", "do:start-new:during", "do:dispose:during"].map(str::to_owned).to_vec()
    };
    for point in &points {
        let began = Instant::now();
        let crashed = bank.stack.run_with(&["rehearse", "bank=2"], &[("SWITCHBACK_FAULT", point)]);
        assert_eq!(crashed.code, None, "{point}: the fault did not fire: {}", crashed.all());
        // Not only after `resume`: nobody may have to type anything for production to go on.
        bank.stack.wait_until("production is thawed", Duration::from_secs(10), || {
            bank.stack.inspect("bank", "{{.State.Status}}") == "running"
        });
        resume(&bank, point);
        assert_eq!(bank.assert_sound(point), 1);
        assert_eq!(production(), before, "{point}: production was restarted");
        eprintln!("rehearse {point}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// Nobody types anything: the watchdog goes on where the killed command line stopped.
#[test]
fn a_killed_command_line_on_compose_is_taken_over_by_the_watchdog() {
    let bank = Bank::new();
    for (release, point) in [(1, "do:migrate-bank:during"), (2, "do:start-old:before"), (1, "do:flip:after")]
    {
        bank.settle_on(release);
        let env = [("SWITCHBACK_FAULT", point)];
        let crashed = if release == 1 { bank.promote(&env) } else { bank.stack.run_with(&ROLLBACK, &env) };
        assert_eq!(crashed.code, None, "{point}: {}", crashed.all());
        bank.stack.wait_until(point, LIMIT, || bank.status()["unfinished"].is_null());
        // It is done when it has let go of the lock.
        bank.stack.wait_until(point, LIMIT, || bank.status()["busy"].is_null());
        assert_eq!(bank.assert_sound(point), 3 - release, "{point}");
    }
}

/// At moments that no step knows of: in the middle of whatever Compose and the helpers do.
#[test]
fn a_command_line_killed_at_any_moment_on_compose_ends_on_one_generation() {
    let bank = Bank::new();
    let took = |release: u64| {
        let began = Instant::now();
        bank.settle_on(release);
        began.elapsed()
    };
    let lengths = [took(2), took(1)];
    let parts = if full() { 24 } else { 6 };
    for part in 0..parts {
        let release = if bank.generation() == 1 { 1 } else { 2 };
        let after = lengths[usize::from(release == 2)] * (part + 1) / (parts + 1);
        let case = format!("from release {release}, killed after {} ms", after.as_millis());
        if release == 1 {
            bank.stack.set_version("1");
        }
        let args: &[&str] = if release == 1 { &PROMOTE } else { &ROLLBACK };
        let mut child = bank.stack.command(args).stdout(std::process::Stdio::null()).spawn().expect("runs");
        std::thread::sleep(after);
        child.kill().expect("kills");
        child.wait().expect("waits");
        resume(&bank, &case);
        let end = bank.assert_sound(&case);
        eprintln!("{case}: on release {end}");
    }
}

/// Somebody, or the kernel for want of memory, kills what a switch is working with.
#[test]
fn a_container_killed_in_the_middle_of_a_switch_of_compose_ends_on_one_generation() {
    let bank = Bank::new();
    // The container of the service, as soon as it runs the other release; and the one that migrates.
    for (release, what) in [(1, "sbt/bank:2"), (2, "sbt/bank:1"), (1, "-migrate-run-bank"), (1, "helper")] {
        bank.settle_on(release);
        if release == 1 {
            bank.stack.set_version("1");
        }
        let args: &[&str] = if release == 1 { &PROMOTE } else { &ROLLBACK };
        let mut child = bank.stack.command(args).stdout(std::process::Stdio::null()).spawn().expect("runs");
        let id = bank.id();
        let image = if what.contains('/') {
            docker(&["image", "inspect", "--format", "{{.Id}}", what]).expect(0).stdout
        } else {
            String::new()
        };
        let find = || -> Option<String> {
            if what == "helper" {
                return labelled("dev.switchback.stack", &id)[0].first().cloned();
            }
            let project = match what {
                "-migrate-run-bank" => format!("{}-migrate", bank.stack.project),
                _ => bank.stack.project.clone(),
            };
            let [containers, ..] = labelled("com.docker.compose.project", &project);
            containers.into_iter().find(|name| {
                let seen = docker(&["inspect", "--format", "{{.Image}} {{.State.Running}}", name]).stdout;
                match what {
                    "-migrate-run-bank" => name.ends_with(what) && seen.contains("true"),
                    _ => !name.contains("-migrate-") && seen.trim() == format!("{} true", image.trim()),
                }
            })
        };
        let mut killed = false;
        while child.try_wait().expect("waits").is_none() {
            if !killed && let Some(id) = find() {
                killed = docker(&["kill", &id]).code == Some(0);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = child.wait().expect("waits").code();
        assert!(killed, "{what}: it was never seen");
        assert!(matches!(code, Some(0 | 3 | 4)), "{what}: {code:?}");
        let end = bank.assert_sound(what);
        eprintln!("{what} killed from release {release}: exit {code:?}, on release {end}");
    }
}
