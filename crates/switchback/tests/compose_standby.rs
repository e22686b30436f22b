//! Promotions of a stack with Postgres where blocks cannot be shared: a standby is made while accounts are written to,
//! and takes over at the switch. About two minutes in all, with the engine's folder on ext4.

mod common;

use common::docker::{Example, Stack, docker};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PROMOTE: [&str; 7] =
    ["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "test of the standby"];
const SLOTS: &str = "select count(*) from pg_replication_slots";

/// The stack, adopted, with accounts.
fn stack() -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack.open_accounts();
    stack.psql("create table public.confirmed(n integer primary key)");
    stack
}

/// All notes of the last run's step, joined.
fn notes(stack: &Stack, step: &str) -> String {
    let report = stack.report();
    let steps = report["steps"].as_array().expect("steps");
    let found = steps.iter().find(|s| s["id"] == step).unwrap_or_else(|| panic!("no step {step}: {report}"));
    fn texts(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::String(s) => into.push(s.clone()),
            Value::Array(all) => all.iter().for_each(|v| texts(v, into)),
            Value::Object(all) => all.values().for_each(|v| texts(v, into)),
            _ => {}
        }
    }
    let mut all = Vec::new();
    texts(found, &mut all);
    all.join("\n")
}

/// Containers of standbys and backups that write into this stack's next generation.
fn standbys(stack: &Stack) -> Vec<String> {
    let own = format!("volume={}_db.g2", stack.project);
    let args = ["ps", "-aq", "--no-trunc", "--filter", "label=dev.switchback.standby", "--filter", &own];
    docker(&args).expect(0).stdout.lines().map(str::to_owned).collect()
}

fn volumes(stack: &Stack) -> Vec<String> {
    let args = ["volume", "ls", "-q", "--filter", &format!("name={}_", stack.project)];
    let mut all: Vec<String> = docker(&args).expect(0).stdout.lines().map(str::to_owned).collect();
    all.sort();
    all
}

/// Every file of a volume with its checksum.
fn content(volume: &str) -> String {
    let mount = format!("{volume}:/v:ro");
    let script = "cd /v && find . -type f -exec sha256sum {} + | sort -k2";
    docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &mount,
        "--entrypoint",
        "sh",
        "sbt/postgres:15",
        "-c",
        script,
    ])
    .expect(0)
    .stdout
}

/// Tells a thread to stop, also when the test fails: it would wait for the thread for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes numbers one by one, each confirmed before the next, until told to stop; the confirmed ones.
fn write_numbers(stack: &Stack, stop: &AtomicBool) -> Vec<u32> {
    let mut confirmed = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("{}-db-1", stack.project);
        let sql = format!("insert into public.confirmed values ({n})");
        let args = [
            "exec",
            &name,
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "ledger",
            "-d",
            "ledger",
            "-c",
            &sql,
        ];
        if docker(&args).code == Some(0) {
            confirmed.push(n);
        }
    }
    confirmed
}

fn numbers(stack: &Stack) -> Vec<u32> {
    stack
        .psql("select n from public.confirmed order by n")
        .lines()
        .map(|l| l.parse().expect("a number"))
        .collect()
}

#[test]
fn a_standby_takes_over_under_load_and_no_write_is_lost() {
    let stack = stack();
    let old_volume = format!("{}_db", stack.project);
    let load = stack.start_load(100);
    let stop = AtomicBool::new(false);
    let confirmed = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_numbers(&stack, &stop));
        let stops = Stops(&stop);
        stack.wait_until("the load runs", Duration::from_secs(240), || {
            stack.psql("select count(*) from bank.transfers").parse::<u64>().expect("a number") > 50
        });
        let promoted = stack.run(&PROMOTE);
        drop(stops);
        let confirmed = writer.join().expect("joins");
        promoted.expect(0);
        confirmed
    });
    load.stop();
    let (ahead, cloned) = (notes(&stack, "pre-copy"), notes(&stack, "clone"));
    assert!(ahead.contains("db: a standby follows it"), "{ahead}");
    assert!(ahead.contains("passes while it runs"), "the other mounts: {ahead}");
    assert!(cloned.contains("a standby took over"), "{cloned}");
    let missing: Vec<u32> = confirmed.iter().copied().filter(|n| !numbers(&stack).contains(n)).collect();
    assert!(confirmed.len() > 5, "{confirmed:?}");
    assert!(missing.is_empty(), "confirmed writes are lost: {missing:?}");
    let moved = stack.assert_accounts_balance();
    assert_eq!(stack.bank()["ok"], true);
    assert_eq!(standbys(&stack), Vec::<String>::new());
    assert_eq!(stack.psql(SLOTS), "0");
    assert_eq!(stack.psql("select pg_is_in_recovery()"), "f");
    assert_eq!(stack.psql("select current_setting('primary_conninfo')"), "");
    assert_eq!(
        stack.psql("select current_setting('listen_addresses')"),
        "*",
        "of the standby, not of the clone"
    );
    // Nothing but the stop has written to the old generation.
    let before = content(&old_volume);
    stack.psql("insert into public.confirmed values (-1)");
    assert_eq!(content(&old_volume), before);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(stack.assert_accounts_balance() <= moved);
    assert_eq!(stack.psql(SLOTS), "0", "an old generation that is started again keeps no log");
    assert_eq!(stack.psql("select count(*) from public.confirmed where n < 0"), "0");
}

#[test]
fn a_server_that_lets_nobody_replicate_is_copied_by_passes_and_the_reason_is_told() {
    let stack = stack();
    let id = stack.container("db").expect("a container");
    docker(&["exec", &id, "sed", "-i", "/replication/d", "/var/lib/postgresql/data/pg_hba.conf"]).expect(0);
    stack.psql("select pg_reload_conf()");
    let load = stack.start_load(50);
    stack.run(&PROMOTE).expect(0);
    load.stop();
    let (ahead, cloned) = (notes(&stack, "pre-copy"), notes(&stack, "clone"));
    assert!(ahead.contains("db: no standby: pg_hba.conf lets nobody replicate as ledger"), "{ahead}");
    assert!(!cloned.contains("standby"), "{cloned}");
    stack.assert_accounts_balance();
    assert_eq!(stack.psql(SLOTS), "0");
}

#[test]
fn what_a_standby_would_not_have_is_copied_by_passes() {
    let stack = stack();
    stack.psql("create unlogged table public.loose as select 7 as n");
    stack.run(&PROMOTE).expect(0);
    let ahead = notes(&stack, "pre-copy");
    assert!(ahead.contains("public.loose") && ahead.contains("is unlogged"), "{ahead}");
    assert_eq!(stack.psql("select n from public.loose"), "7", "a clean stop keeps its rows");
}

#[test]
fn an_undone_promotion_leaves_no_slot_no_container_and_no_volume() {
    let stack = stack();
    let before = volumes(&stack);
    stack.edit("switchback.yaml", "[python3, /app/bank.py, migrate]", "[python3, -c, 'raise SystemExit(3)']");
    let load = stack.start_load(50);
    let failed = stack.run(&PROMOTE);
    assert_ne!(failed.code, Some(0), "{}", failed.all());
    load.stop();
    assert!(notes(&stack, "clone").contains("a standby took over"));
    assert_eq!(standbys(&stack), Vec::<String>::new());
    assert_eq!(volumes(&stack), before);
    assert_eq!(stack.psql(SLOTS), "0");
    stack.assert_accounts_balance();
}

#[test]
fn a_standby_that_is_gone_at_the_switch_is_replaced_by_a_copy_and_that_is_told() {
    let stack = stack();
    let db = stack.container("db").expect("a container");
    let (stop, killed) = (AtomicBool::new(false), AtomicBool::new(false));
    let promoted = std::thread::scope(|scope| {
        scope.spawn(|| {
            let slots = "select count(*) filter (where not temporary), count(*) filter (where temporary) from pg_replication_slots";
            while !stop.load(Ordering::Relaxed) {
                let ran = docker(&["exec", &db, "psql", "-XAtq", "-U", "ledger", "-d", "ledger", "-c", slots]);
                // Only a temporary slot is left: it is ready. Or the old server is stopped: it must have been.
                let stopped = || docker(&["inspect", "--format", "{{.State.Running}}", &db]).stdout.trim() == "false";
                let ready = ran.stdout.trim() == "0|1" || stopped();
                let standby = if ready { standbys(&stack) } else { Vec::new() };
                if !standby.is_empty() {
                    docker(&["kill", &standby[0]]);
                    return killed.store(true, Ordering::Relaxed);
                }
            }
        });
        let _stops = Stops(&stop);
        stack.run(&PROMOTE)
    });
    promoted.expect(0);
    assert!(killed.load(Ordering::Relaxed), "{}", notes(&stack, "pre-copy"));
    let cloned = notes(&stack, "clone");
    assert!(cloned.contains("db: the standby could not take over"), "{cloned}");
    assert!(cloned.contains("copied as a whole while it was down"), "{cloned}");
    assert_eq!(standbys(&stack), Vec::<String>::new());
    assert_eq!(stack.psql(SLOTS), "0");
    stack.assert_accounts_balance();
}

/// The watchdog may go on with a promotion before a person does; whoever does, nothing may be left.
#[cfg(feature = "faults")]
mod killed {
    use super::*;

    fn kill_at(stack: &Stack, point: &str) {
        let ran = stack.run_with(&PROMOTE, &[("SWITCHBACK_FAULT", point)]);
        assert_eq!(ran.code, None, "{point} was not reached: {}", ran.all());
    }

    fn assert_tidy(stack: &Stack) {
        assert!(stack.run(&["status", "--json"]).expect(0).json()["unfinished"].is_null());
        assert_eq!(standbys(stack), Vec::<String>::new());
        assert_eq!(stack.psql(SLOTS), "0");
        stack.assert_accounts_balance();
    }

    #[test]
    fn a_promotion_killed_when_the_backup_is_made_can_be_undone_without_leaving_its_slot() {
        let stack = stack();
        kill_at(&stack, "do:pre-copy:during");
        stack.run(&["resume", "--abort", "--wait", "120s"]);
        assert_tidy(&stack);
    }

    #[test]
    fn a_promotion_killed_while_it_copies_ahead_goes_on() {
        let stack = stack();
        kill_at(&stack, "do:pre-copy:after");
        stack.run(&["resume", "--wait", "120s"]);
        assert!(notes(&stack, "clone").contains("a standby took over"));
        assert_tidy(&stack);
    }
}
