//! The triggers of a trial on a Compose stack: what only containers and Postgres have. About two minutes.

mod common;

use common::docker::{Example, Stack, docker};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program in the container of a service, for as long as this lives.
struct Inside(Child);

impl Inside {
    fn start(stack: &Stack, service: &str, program: &[&str]) -> Self {
        let container = stack.container(service).expect("it runs");
        let mut command = Command::new("docker");
        command.args(["exec", &container]).args(program);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn promote(stack: &Stack, again: bool) {
    let mut args =
        vec!["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "test"];
    args.extend(again.then_some("--again"));
    stack.run(&args).expect(0);
}

/// Waits until the watchdog has rolled back, and holds its reason against the one that is expected.
fn rolled_back_by(stack: &Stack, trigger: &str, says: &str) {
    let status = || stack.run(&["status", "--json"]).expect(0).json();
    let back = || {
        let status = status();
        status["generation"] == 1 && status["unfinished"].is_null() && status["busy"].is_null()
    };
    stack.wait_until("production is back", Duration::from_secs(90), back);
    let why = stack.run(&["status", "--why", "--json"]).expect(0).json();
    let fired: Vec<&Value> = why["decisions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|d| d["standing"] == "fired" && d["action"] == "rollback")
        .collect();
    assert_eq!((fired.len(), &fired[0]["trigger"]), (1, &Value::from(trigger)), "{fired:#?}");
    assert!(fired[0]["what"].as_str().expect("text").contains(says), "{fired:#?}");
    assert_eq!(why["same_again"], true, "{why:#}");
    assert_eq!(stack.bank()["release"], 1);
}

#[test]
fn each_bad_release_is_rolled_back_by_its_trigger() {
    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    stack.edit("compose.yaml", "  bank:\n", "  bank:\n    mem_limit: 96m\n");
    let triggers =
        "triggers: { database: { lock_wait: 2s }, logs: { action: rollback }, memory: { percent: 70 } }";
    stack.edit("switchback.yaml", "rollback: {", &format!("rollback: {{ {triggers},"));
    stack.up();
    stack.psql("create table entries (id int primary key)");
    stack.run(&["up", "--yes"]).expect(0);

    promote(&stack, false);
    let hold = "begin; lock table entries; select pg_sleep(600)";
    let psql = |sql| Inside::start(&stack, "db", &["psql", "-U", "ledger", "-d", "ledger", "-c", sql]);
    let (holds, waits) = (psql(hold), psql("select count(*) from entries"));
    rolled_back_by(&stack, "database", "a session of db has waited for a lock for ");
    drop((holds, waits));
    assert_eq!(stack.psql("select count(*) from entries"), "0", "nobody waits any more");

    let again = ["promote", "bank=2", "--yes", "--without-certificate", "--reason", "test"];
    let ran = stack.run(&again).expect(3);
    assert!(ran.stderr.contains("was rolled back on "), "{}", ran.stderr);
    assert!(ran.stderr.contains("database: a session of db has waited"), "{}", ran.stderr);

    promote(&stack, true);
    let container = stack.container("bank").expect("it runs");
    docker(&["exec", &container, "sh", "-c", "echo 'panic: ledger out of balance' > /proc/1/fd/1"]).expect(0);
    rolled_back_by(&stack, "logs", "bank logs for the first time: panic: ledger out of balance");

    promote(&stack, true);
    let leak = "import time; lost = b'x' * (62 << 20); time.sleep(600)";
    let leaks = Inside::start(&stack, "bank", &["python3", "-c", leak]);
    rolled_back_by(&stack, "memory", "that it may use");
    drop(leaks);
}
