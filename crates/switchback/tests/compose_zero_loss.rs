//! No acknowledged write is lost: a client writes 10,000 orders after a promotion, while Postgres and the watchdog are killed; after
//! the rollback, which is killed too, every one of them is in production or in the quarantine, and none twice. About four minutes.

mod common;

use common::docker::{Example, Stack, docker, program};
use common::engine::{OwnEngine, in_own_network};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const ORDERS: usize = 10_000;

/// Whether the version before refuses an order, where the one on trial takes more.
fn refused(widened: bool, number: usize) -> bool {
    widened && number % 500 == 7
}

/// Writes orders one by one, each with a number of its own, and keeps those that were acknowledged. Begins anew with the next
/// one where the server was away.
struct Client {
    acknowledged: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<BTreeSet<usize>>,
}

impl Client {
    fn start(container: String, widened: bool, until: usize) -> Self {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&acknowledged);
        let thread = std::thread::spawn(move || {
            let mut done = BTreeSet::new();
            let mut next = 0;
            while done.len() < until {
                // A number whose fate is not known is not used again.
                next = session(&container, widened, next, until, &mut done, &count) + 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            done
        });
        Self { acknowledged, thread }
    }
}

/// Until the server goes away or enough were written; the last number that was sent.
fn session(
    container: &str,
    widened: bool,
    first: usize,
    until: usize,
    done: &mut BTreeSet<usize>,
    count: &AtomicUsize,
) -> usize {
    let args =
        ["exec", "-i", container, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "ledger", "-d", "ledger"];
    let mut child = program("docker")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let (mut input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut answers = BufReader::new(output).lines();
    let mut number = first;
    while done.len() < until {
        let what =
            if refused(widened, number) { "of a new kind".to_owned() } else { format!("order {number}") };
        let sql =
            format!("insert into orders (number, what) values ({number}, '{what}') returning number;\n");
        if input.write_all(sql.as_bytes()).and_then(|()| input.flush()).is_err() {
            break;
        }
        // The server has committed when it answers.
        let Some(Ok(answer)) = answers.next() else { break };
        assert_eq!(answer, number.to_string());
        done.insert(number);
        count.store(done.len(), Ordering::Relaxed);
        number += 1;
    }
    drop(input);
    let _ = child.kill();
    let _ = child.wait();
    number
}

fn kill(pid: &str) {
    let ended = Command::new("kill").args(["-9", pid]).status().expect("kill is there");
    assert!(ended.success(), "process {pid}");
}

/// Numbers in the quarantine of what was carried from generation 2.
fn quarantined(stack: &Stack) -> Vec<usize> {
    let mut found = Vec::new();
    let mut folders = vec![stack.root.join(".switchback/exports/generation-2")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if in_quarantine(&path) {
                let text = fs::read_to_string(&path).expect("reads");
                let rows = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
                found.extend(rows.filter_map(|r| usize::try_from(r["key"]["number"].as_u64()?).ok()));
            }
        }
    }
    found
}

fn in_quarantine(path: &Path) -> bool {
    path.to_string_lossy().contains("carried-into-") && path.extension().is_some_and(|e| e == "jsonl")
}

/// `settings` of `rollback`; `widened`: the table takes more than before; `harm` is done when half is written.
fn no_order_is_lost(settings: &str, widened: bool, harm: &mut dyn FnMut(&Stack)) -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    // A Docker 20.10 that was killed ends what still runs when it is started again, and begins only that anew.
    stack.edit("compose.yaml", "restart: unless-stopped", "restart: always");
    // A killed server is away for some looks; that is not what this is about.
    stack.edit(
        "switchback.yaml",
        "rollback: {",
        &format!("rollback: {{ {settings} writes: carry, failures: 1000, triggers: {{ restarts: {{ action: \"off\" }}, errors: {{ action: \"off\" }}, latency: {{ action: \"off\" }} }},"),
    );
    stack.up();
    stack.psql("create table orders (number bigint primary key, id bigserial not null unique, what text not null constraint kinds check (what <> 'of a new kind')); insert into orders (number, what) select -g, 'before' from generate_series(1, 1000) g");
    stack.run(&["up", "--yes"]).expect(0);
    // From it is known what the upgrade itself changes.
    stack.run(&["rehearse", "bank=2"]).expect(0);
    stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);

    if widened {
        // The new version knows more than the one before.
        stack.psql("alter table orders drop constraint kinds");
    }
    let db = stack.container("db").expect("it runs");
    let client = Client::start(db.clone(), widened, ORDERS);
    let reached = |n: usize| client.acknowledged.load(Ordering::Relaxed) >= n;
    stack.wait_until("a third is written", Duration::from_secs(120), || reached(ORDERS / 3));
    // Its container ends with it, and the engine starts it again.
    kill(&stack.inspect("db", "{{.State.Pid}}"));
    stack.wait_until("half is written", Duration::from_secs(180), || reached(ORDERS / 2));
    harm(&stack);
    stack.wait_until("two thirds are written", Duration::from_secs(180), || reached(2 * ORDERS / 3));
    let status = stack.run(&["status", "--json"]).expect(0).json();
    let watchdog = status["trial"]["watchdog"].as_str().expect("one watches").to_owned();
    let pid: String = watchdog.chars().filter(char::is_ascii_digit).collect();
    kill(&pid);
    stack.run(&["resume"]).expect(0);
    let acknowledged = client.thread.join().expect("the client ends");
    assert_eq!(acknowledged.len(), ORDERS);

    // The rollback is killed as soon as it has stopped something, and what is started by it goes on with it.
    let mut command = stack.command(&["rollback", "--yes"]);
    let mut rollback = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    stack.wait_until("the old container is gone", Duration::from_secs(60), || {
        stack.container("db").is_none_or(|now| now != db)
    });
    let killed = AtomicBool::new(false);
    if rollback.try_wait().expect("asks").is_none() {
        rollback.kill().expect("kills");
        killed.store(true, Ordering::Relaxed);
    }
    rollback.wait().expect("ends");
    // Whoever takes over carries the writes, too.
    stack.wait_until("production is back, with the writes", Duration::from_secs(240), || {
        let status = stack.run(&["status", "--json"]).expect(0).json();
        status["unfinished"].is_null() && status["busy"].is_null() && status["generation"] == 3
    });
    let kept: Vec<usize> = stack
        .psql("select number from orders where number >= 0 order by number")
        .lines()
        .map(|n| n.parse().expect("a number"))
        .collect();
    let quarantined = quarantined(&stack);
    let all: Vec<usize> = kept.iter().chain(&quarantined).copied().collect();
    let once: BTreeSet<usize> = all.iter().copied().collect();
    assert_eq!(all.len(), once.len(), "twice");
    let wrong: Vec<&usize> = quarantined.iter().filter(|n| !refused(widened, **n)).take(10).collect();
    assert!(wrong.is_empty(), "these fit: {wrong:?}");
    let expected = acknowledged.iter().filter(|n| refused(widened, **n)).count();
    assert!(
        (expected >= 10) == widened && quarantined.len() >= expected,
        "{} of {expected}",
        quarantined.len()
    );
    let lost: Vec<&usize> = acknowledged.difference(&once).take(10).collect();
    assert!(lost.is_empty(), "lost: {lost:?} (killed in the middle: {})", killed.load(Ordering::Relaxed));
    assert_eq!(stack.psql("select count(*) from orders where number < 0"), "1000");
    assert_eq!(stack.bank()["release"], 1, "by the version before");
    // The next one gets an id of its own.
    stack.psql("insert into orders (number, what) values (99999999, 'next')");
    stack
}

#[test]
fn every_acknowledged_order_is_in_production_or_in_the_quarantine() {
    no_order_is_lost("", true, &mut |_| ());
}

/// What was captured of the ledger's database.
fn captured(stack: &Stack) -> serde_json::Value {
    let file = stack.root.join(".switchback/generations/2/capture/db.json");
    serde_json::from_str(&fs::read_to_string(file).expect("it is captured")).expect("JSON")
}

#[test]
fn none_is_lost_either_where_only_the_rows_that_were_written_to_are_looked_at() {
    let stack = no_order_is_lost("capture: continuous,", false, &mut |stack| {
        stack.wait_until("some is captured", Duration::from_secs(60), || {
            let status = stack.run(&["status", "--json"]).expect(0).json();
            status["capture"]["db"]["changes"].as_u64() > Some(500)
        });
    });
    let known = captured(&stack);
    assert!(known["trouble"].is_null() && known["ended"] == true, "{known}");
    let whole = known["whole"].as_array().map_or(0, Vec::len);
    assert_eq!(whole, 0, "no table had to be compared as a whole: {known}");
    // Of the trial that runs now.
    let slots = "select count(*) from pg_replication_slots where slot_name like 'switchback%' and database = current_database()";
    assert_eq!(stack.psql(slots), "1");
}

#[test]
fn none_is_lost_when_the_engine_is_killed_twice_meanwhile() {
    if !in_own_network("none_is_lost_when_the_engine_is_killed_twice_meanwhile") {
        return;
    }
    let Some(mut engine) = OwnEngine::start(&["sbt/bank:1", "sbt/bank:2", "sbt/postgres:15"]) else { return };
    no_order_is_lost("capture: continuous,", true, &mut |stack| {
        for _ in 0..2 {
            engine.kill();
            engine.boot();
            stack.wait_until("the database is back", Duration::from_secs(240), || {
                stack.container("db").is_some_and(|id| {
                    docker(&["exec", &id, "pg_isready", "-q", "-U", "ledger"]).code == Some(0)
                })
            });
        }
    });
}
