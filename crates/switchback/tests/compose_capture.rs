//! Keeping which rows are written to while a trial lasts: what it is good for, and that a server is left as it was. About four
//! minutes.

mod common;

use common::docker::{Example, Stack};
use serde_json::Value;
use std::time::Duration;

const SLOTS: &str = "select count(*) from pg_replication_slots where slot_name like 'switchback%' and database = current_database()";
const LIMIT: Duration = Duration::from_secs(60);

fn stack(rollback: &str) -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    stack.edit(
        "switchback.yaml",
        "rollback: { watch: 1h, every: 1s }",
        &format!("rollback: {{ {rollback} }}"),
    );
    stack.up();
    stack.psql(
        "create table entries (id bigserial primary key, note varchar(40)); insert into entries (note) select 'note ' || g from generate_series(1, 5000) g;
         create table heap (v text); insert into heap values ('a'), ('a'), ('b'); create table quiet (v text); insert into quiet values ('q')",
    );
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn capture(stack: &Stack) -> Value {
    stack.run(&["status", "--json"]).expect(0).json()["capture"]["db"].clone()
}

fn notes(report: &Value, step: &str) -> String {
    let steps = report["steps"].as_array().expect("steps");
    let found = steps.iter().find(|s| s["id"] == step).map(|s| s["notes"].clone());
    found.unwrap_or_default().to_string()
}

fn state(stack: &Stack) -> String {
    stack.psql(
        "select (select count(*) || ' ' || sum(id) || ' ' || sum(length(note)) from entries), (select string_agg(v, ',' order by v) from heap)",
    )
}

#[test]
fn only_rows_that_were_written_to_are_compared_and_the_server_keeps_nothing() {
    let stack = stack("watch: 1h, every: 1s, capture: continuous");
    stack.run(&["rehearse", "bank=2"]).expect(0);
    stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);
    assert_eq!(stack.psql("show wal_level"), "logical");
    assert_eq!(stack.psql("show max_slot_wal_keep_size"), "1GB");
    assert_eq!(stack.psql(SLOTS), "1");
    // The lock file says so, too.
    let runs = stack.container("db");
    stack.docker_compose(&["up", "-d", "--no-build"]).expect(0);
    assert_eq!(stack.container("db"), runs, "plain `docker compose up -d` changed something");

    stack.psql("insert into entries (note) select 'later ' || g from generate_series(1, 500) g; update entries set note = 'changed' where id = 7; delete from entries where id = 8");
    stack.wait_until("they are kept", LIMIT, || capture(&stack)["changes"].as_u64() == Some(502));
    let told = stack.run(&["status"]).expect(0).stdout;
    assert!(told.contains("502 changes kept up to"), "{told}");
    // A copy of a production that captures runs like any other.
    stack.run(&["staging", "up", "--quiet"]).expect(0);
    stack.run(&["staging", "down", "--yes", "--quiet"]).expect(0);
    // And a backup of it comes back on a server that is not set to capture, which would not start with the slot.
    let repository = tempfile::tempdir().expect("a folder");
    let path = stack.root.join("switchback.yaml");
    let text = std::fs::read_to_string(&path).expect("reads");
    let backup = format!("backup: {{ repository: \"{}\" }}", repository.path().display());
    std::fs::write(&path, format!("{text}\n{backup}\n")).expect("writes");
    for command in [&["backup", "init"][..], &["backup"], &["drill", "restore"]] {
        stack.run(command).expect(0);
    }
    // The last ones before the rollback are in the server's log only.
    stack.psql("insert into heap values ('c'); update entries set note = 'last' where id = 9");
    let later = state(&stack);
    let report = stack.run(&["rollback", "--yes", "--json"]).expect(0).json();
    let said = notes(&report, "export");
    assert!(said.contains("only the rows that were written to were compared, up to "), "{said}");
    assert!(said.contains("public.heap: it is new, or its rows have no key"), "{said}");
    assert_eq!(stack.psql("show wal_level"), "replica", "the version before runs as it did");
    assert_eq!(stack.psql(SLOTS), "0");
    let done = stack.run(&["carry", "--yes", "--detach", "--json"]).expect(0).json();
    let said = done["carried"]["db"]["notes"].to_string();
    assert!(said.contains("503 rows that were written to are compared"), "{said}");
    let counts = |part: &str| {
        let of = &done["carried"]["db"]["parts"][part];
        ["inserted", "updated", "deleted", "quarantined"].map(|k| of[k].as_u64().unwrap_or(99))
    };
    assert_eq!(counts("ledger.public.entries"), [500, 2, 1, 0], "{done}");
    assert_eq!(counts("ledger.public.heap"), [1, 0, 0, 0], "{done}");
    assert_eq!(state(&stack), later);
    // Back to exactly before, and again: what was kept is still good, since nobody wrote to it.
    stack.run(&["rollback", "--yes"]).expect(0);
    let again = stack.run(&["carry", "--from", "2", "--yes", "--detach", "--json"]).expect(0).json();
    assert_eq!(again["carried"]["db"]["parts"]["ledger.public.entries"]["inserted"], 500, "{again}");
    assert_eq!(state(&stack), later);
}

#[test]
fn a_trial_that_passed_leaves_nothing_behind_and_later_writes_are_compared_then() {
    let stack = stack("watch: 6s, every: 1s, capture: continuous");
    stack.run(&["promote", "bank=2", "--yes", "--without-certificate", "--reason", "test"]).expect(0);
    stack.wait_until("the slot is gone", LIMIT, || stack.psql(SLOTS) == "0");
    assert!(capture(&stack).is_null());
    stack.psql("insert into entries (note) values ('after the trial')");
    let report = stack.run(&["rollback", "--yes", "--json"]).expect(0).json();
    let said = notes(&report, "export");
    assert!(said.contains("the trial is over") && said.contains("everything was compared"), "{said}");
    let writes = report["exports"]["db"]["parts"]["ledger.public.entries"]["inserted"].clone();
    assert_eq!(writes, 1, "{report}");
}

const WAIVED: [&str; 7] =
    ["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "crash"];

#[test]
fn a_promotion_killed_while_it_begins_or_undone_leaves_one_slot_or_none() {
    let stack = stack("watch: 1h, every: 1s, capture: continuous");
    for (at, abort) in [("before", false), ("during", true), ("after", false)] {
        let fault = format!("do:capture:{at}");
        stack.set_version("1");
        let killed = stack.run_with(&WAIVED, &[("SWITCHBACK_FAULT", &fault)]);
        assert_eq!(killed.code, None, "{at}: {}", killed.all());
        // The watchdog goes on with it, or this does.
        let more: &[&str] = if abort { &["--abort"] } else { &[] };
        stack.run(&[&["resume", "--wait", "120s"][..], more].concat());
        stack.wait_until("it has ended", LIMIT, || {
            let status = stack.run(&["status", "--json"]).expect(0).json();
            status["unfinished"].is_null() && status["busy"].is_null()
        });
        let status = stack.run(&["status", "--json"]).expect(0).json();
        if status["generation"] == 1 {
            assert_eq!(stack.psql(SLOTS), "0", "{at}");
            assert_eq!(stack.psql("show wal_level"), "replica", "{at}");
            continue;
        }
        assert_eq!(stack.psql(SLOTS), "1", "{at}");
        stack.psql("insert into entries (note) values ('since')");
        let report = stack.run(&["rollback", "--yes", "--json"]).expect(0).json();
        assert!(notes(&report, "export").contains("only the rows that were written to"), "{at}: {report}");
        let part = &report["exports"]["db"]["parts"]["ledger.public.entries"];
        assert_eq!((&part["inserted"], &part["updated"]), (&Value::from(1), &Value::from(0)), "{at}");
        assert_eq!(stack.psql(SLOTS), "0", "{at}");
    }
}
