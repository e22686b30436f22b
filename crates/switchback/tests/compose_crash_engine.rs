//! What a switch does when the Docker engine itself goes away in the middle of it: for a moment, as when it is updated,
//! or for longer. Production must end healthy on one generation, with equal data, and nothing left over.

mod common;

use common::bank::{Bank, PROMOTE, ROLLBACK};
use common::docker::docker;
use common::engine::OwnEngine;
use std::process::{Child, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

/// Begins a promotion, and returns in the middle of its migration, which takes seconds.
fn migrating(bank: &Bank) -> Child {
    bank.settle_on(1);
    bank.stack.set_version("1");
    let child =
        bank.stack.command(&PROMOTE).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    bank.stack.wait_until("the migration runs", LIMIT, || {
        let name = format!("name={}-migrate-bank", bank.stack.project);
        !docker(&["ps", "-q", "--filter", &name]).stdout.is_empty()
    });
    child
}

#[track_caller]
fn ends(bank: &Bank, child: Child, case: &str) {
    let output = child.wait_with_output().expect("waits");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{case}: {:?} {said}", output.status.code());
    let end = bank.assert_sound(case);
    eprintln!("{case}: exit {:?}, on release {end}", output.status.code());
}

#[test]
fn an_engine_that_goes_away_in_the_middle_of_a_switch_leaves_one_generation() {
    let Some(mut engine) = OwnEngine::start(&["sbt/bank:1", "sbt/bank:2"]) else { return };
    let bank = Bank::with(|stack| {
        let migrate = "[sh, -c, \"sleep 4; python3 /app/bank.py migrate\"]";
        stack.edit("switchback.yaml", "[python3, /app/bank.py, migrate]", migrate);
    });

    let child = migrating(&bank);
    engine.stop();
    engine.boot();
    ends(&bank, child, "restarted while it migrates");

    bank.settle_on(2);
    let child =
        bank.stack.command(&ROLLBACK).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    bank.stack.wait_until("the new generation is stopped", LIMIT, || {
        docker(&["ps", "-q", "--filter", &format!("name={}-bank-1", bank.stack.project)]).stdout.is_empty()
    });
    engine.stop();
    engine.boot();
    ends(&bank, child, "restarted while it rolls back");

    // The command line is killed as well, as when the host restarts both: nobody types anything.
    let mut child = migrating(&bank);
    child.kill().expect("kills");
    child.wait().expect("waits");
    engine.stop();
    engine.boot();
    bank.stack.wait_until("the watchdog took over", LIMIT, || {
        let status = bank.status();
        status["unfinished"].is_null() && status["busy"].is_null()
    });
    bank.assert_sound("restarted after the command line was killed");

    // For longer than anybody waits.
    let child = migrating(&bank);
    engine.stop();
    let output = child.wait_with_output().expect("waits");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    for word in ["production is DOWN", "the Docker engine at unix:///", "switchback resume"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!bank.status()["unfinished"].is_null(), "the run waits to be resumed");
    engine.boot();
    let resumed = bank.stack.run(&["resume", "--wait", "120s"]);
    assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{:?} {}", resumed.code, resumed.all());
    let end = bank.assert_sound("gone, and back");
    eprintln!("gone, and back: exit {:?}, on release {end}", resumed.code);
}
