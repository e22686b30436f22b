//! The runbooks of Compose stacks: each failure brought about, and repaired as its page says.

mod common;

use common::bank::{Bank, PROMOTE};
use common::docker::{docker, labelled};
use common::engine::OwnEngine;
use common::runbook::Runbook;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

const STACK: &str = "dev.switchback.stack";
const LIMIT: Duration = Duration::from_secs(180);

fn answers(bank: &Bank) -> bool {
    matches!(bank.stack.ask("GET", "/health", &[], None), Ok((200, _)))
}

#[test]
fn an_engine_that_was_down_is_started_and_the_run_goes_on() {
    let Some(mut engine) = OwnEngine::start(&["sbt/bank:1", "sbt/bank:2"]) else { return };
    let mut book = Runbook::of("The engine is down");
    let bank = Bank::new();
    let mut rehearsal = bank.stack.command(&["rehearse", "bank=2"]);
    let rehearsal = rehearsal.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let id = bank.id();
    bank.stack.wait_until("staging runs", LIMIT, || {
        labelled(STACK, &id)[0].iter().any(|name| name.starts_with("sb-"))
    });
    engine.stop();
    let ended = rehearsal.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(5), "{said}");
    book.is_seen(&said, &[]);

    engine.boot();
    book.takes("systemctl start docker");
    // As after a reboot: the example's containers are not started by the engine.
    let status = book.types(&bank.stack.root, "switchback status", &[]).expect(0).stdout;
    assert!(status.contains("unfinished"), "{status}");
    let resumed = book.types(&bank.stack.root, "switchback resume", &[]);
    assert!(matches!(resumed.code, Some(0 | 3 | 6)), "{}", resumed.all());
    bank.stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(bank.assert_sound("after the engine was down"), 1);
    book.ends();
}

#[test]
fn containers_that_stay_paused_are_found_and_let_go_on() {
    let mut book = Runbook::of("Containers are paused");
    let bank = Bank::new();
    let name = format!("{}-bank-1", bank.stack.project);
    docker(&["pause", &name]).expect(0);
    let root = &bank.stack.root;
    let listed = book.types(root, "docker ps --filter status=paused", &[]).expect(0).stdout;
    let line = listed.lines().find(|l| l.contains(&name)).unwrap_or_else(|| panic!("{listed}"));
    book.is_seen(line, &[]);
    book.types(root, "docker unpause NAME", &[("NAME", &name)]).expect(0);
    assert_eq!(bank.assert_sound("after it was paused"), 1);
    book.ends();
}

#[test]
fn what_somebody_started_beside_the_lock_file_is_told_and_replaced() {
    let mut book = Runbook::of("Something else runs than the generation");
    let bank = Bank::new();
    bank.settle_on(2);
    // Without the lock file: the first volumes, and the image that `.env` names.
    bank.stack.docker_compose(&["-f", "compose.yaml", "up", "-d", "--no-build"]).expect(0);
    book.is_seen(&bank.stack.run(&["status"]).all(), &[]);
    book.types(&bank.stack.root, "switchback up", &[]).expect(0);
    bank.stack.wait_until("it answers", LIMIT, || answers(&bank));
    assert_eq!(bank.assert_sound("after something else ran"), 2);
    book.ends();
}

#[test]
fn nothing_is_left_of_a_killed_rehearsal() {
    let mut book = Runbook::of("Leftovers of a killed rehearsal");
    let bank = Bank::new();
    let id = bank.id();
    let fault = [("SWITCHBACK_FAULT", "do:start-old:after")];
    let killed = bank.stack.run_with(&["rehearse", "bank=2"], &fault);
    assert_eq!(killed.code, None, "the fault did not fire: {}", killed.all());
    let left = labelled(STACK, &id).concat();
    assert!(left.iter().any(|name| name.starts_with("sb-")), "{left:?}");
    let root = &bank.stack.root;
    book.types(root, "switchback resume --abort", &[]);
    book.types(root, "switchback gc --dry-run", &[]).expect(0);
    book.types(root, "switchback gc", &[]).expect(0);
    let left = labelled(STACK, &id).concat();
    assert!(!left.iter().any(|name| name.starts_with("sb-")), "{left:?}");
    assert_eq!(bank.assert_sound("after a killed rehearsal"), 1);
    book.ends();
}

#[test]
fn a_port_that_another_program_took_is_told_and_production_starts_when_it_is_free() {
    let mut book = Runbook::of("The port of a container is taken");
    let bank = Bank::new();
    bank.stack.run(&["down", "--yes"]).expect(0);
    let stranger = TcpListener::bind(("127.0.0.1", bank.stack.port)).expect("free");
    book.is_seen(&bank.stack.run(&["up", "--yes"]).expect(3).all(), &[]);
    drop(stranger);
    book.types(&bank.stack.root, "switchback up", &[]).expect(0);
    assert_eq!(bank.assert_sound("after its port was taken"), 1);
    book.ends();
}

#[test]
fn an_older_generation_runs_without_switchback() {
    let mut book = Runbook::of("Without Switchback");
    let bank = Bank::new();
    bank.stack.run(&PROMOTE).expect(0);
    let names = [("PROJECT", &*bank.stack.project), ("/N/", "/1/")];
    let root = &bank.stack.root;
    book.types(root, "docker compose down", &[]).expect(0);
    let up = "docker compose -p PROJECT -f .switchback/generations/N/compose.json up -d";
    book.types(root, up, &names).expect(0);
    bank.stack.wait_until("the old release answers", LIMIT, || {
        matches!(bank.stack.ask("GET", "/health", &[], None), Ok((200, body)) if body == "{\"release\": 1}")
    });
    book.ends();
}
