//! Another major version of Postgres: refused until it is allowed, converted on a clone, there and back, also when killed.

mod common;

use common::docker::{DB_PASSWORD, Example, HUB_TOKEN, Stack, need};
use common::upgrade::{
    assert_no_secret_is_told, assert_same_tree, containers, exported, generation, has_begun, mountpoint,
    report, staging_left, start, status, tree,
};
use serde_json::Value;
use std::time::Duration;

/// What the old cluster has besides the application's tables.
const BESIDES: &str = "
    create extension hstore; create role reader login password 'reader-of-the-tests-5'; grant pg_read_all_data to reader;
    create table kept (id serial primary key, a hstore, n numeric, t timestamptz default now(), j jsonb);
    insert into kept (a, n, j) select 'k=>v', i / 7.0, '{\"x\": 1.50}' from generate_series(1, 3000) i;
    create materialized view sums as select n::int, count(*) from kept group by 1;
    create view seen as select id, n from kept; select lo_from_bytea(4711, 'large object');
    comment on table kept is 'it''s kept'; alter role hub set statement_timeout = '5min';
    alter system set work_mem = '7MB'; alter system set wal_keep_size = '64MB'; alter system set vacuum_defer_cleanup_age = 100";

fn hub() -> Stack {
    need(&["sbt/postgres:17"]);
    let stack = Stack::compose(Example::JupyterHub);
    stack.edit("switchback.yaml", "watch: 20s, every: 2s", "watch: 5s, every: 1s");
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 90s", "start: 4m");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 20s");
    stack.up();
    stack.seed(&["--users", "20", "--groups", "3"]);
    for statement in BESIDES.split(';') {
        stack.psql(statement);
    }
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn major(stack: &Stack) -> String {
    stack.psql("select current_setting('server_version_num')::int / 10000")
}

/// What must be the same on both sides.
fn content(stack: &Stack) -> String {
    stack.psql(
        "select concat_ws('|', (select string_agg(k::text, ',' order by id) from (select id, a, n, j from kept) k),
         (select count(*) from sums), (select convert_from(lo_get(4711), 'UTF8')), obj_description('kept'::regclass),
         (select string_agg(u::text, ',' order by id) from (select id, name, cookie_id, created from users) u))",
    )
}

fn step<'r>(report: &'r Value, id: &str) -> &'r Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("no step {id}: {report}"))
}

#[test]
fn postgres_15_becomes_17_and_15_again() {
    let stack = hub();
    let (people, before, running) = (stack.people(), content(&stack), containers(&stack));
    stack.set("DB_IMAGE", "sbt/postgres:17");

    // Pulled by accident: nothing is touched, and the way to do it right is told.
    for command in ["plan", "rehearse"] {
        let refused = stack.run(&[command]).expect(3);
        for part in ["is Postgres 17, and the data was made by Postgres 15", "major: 17"] {
            assert!(refused.all().contains(part), "{part}: {}", refused.all());
        }
    }
    stack.edit(
        "switchback.yaml",
        "db: { kind: postgres, service: db }",
        "db: { kind: postgres, service: db, major: 17 }",
    );
    let plan = stack.run(&["plan"]).expect(0);
    assert!(plan.all().contains("Convert the data of db from Postgres 15 to 17"), "{}", plan.all());

    stack.run(&["rehearse"]).expect(0);
    let rehearsal = report(&stack);
    assert_eq!(rehearsal["conclusion"], "pass", "{rehearsal}");
    let notes = step(&rehearsal, "convert")["notes"].to_string();
    for part in [
        "converted from Postgres 15 to 17",
        "work_mem",
        "wal_keep_size",
        "left out: vacuum_defer_cleanup_age",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
    // No server of version 15 starts on what is of 17.
    assert!(rehearsal["code_only"].is_null(), "{}", rehearsal["code_only"]);
    let diff = &rehearsal["diffs"]["db"];
    let lost: Vec<&Value> = diff["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .filter(|p| p["rows_removed"] != 0 || p["rows_changed"] != 0 || p["change"] == "dropped")
        .collect();
    assert!(lost.iter().all(|p| p["name"] == "hub.public.roles"), "{lost:?}");
    // Nothing else is told to have changed.
    assert_eq!(
        diff["schema_changes"],
        serde_json::json!([
            "hub: materialized view public.sums redefined, or printed otherwise by Postgres 17",
            "hub: view public.seen redefined, or printed otherwise by Postgres 17"
        ])
    );
    assert_eq!(containers(&stack), running, "a rehearsal restarted production");
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    let folder = mountpoint(&format!("{}_db", stack.project));
    stack.run(&["promote", "--yes"]).expect(0);
    let left = tree(&folder);
    stack.run(&["gc", "--yes"]).expect(0);
    assert_same_tree(&left, &tree(&folder), "the data of generation 1");
    assert_eq!((generation(&stack), major(&stack).as_str()), (2, "17"));
    assert_eq!((stack.people(), content(&stack)), (people.clone(), before.clone()));
    assert_eq!(stack.psql("show work_mem"), "7MB");
    // The next number is not one that was given out, roles and their passwords are there, statistics too.
    assert_eq!(stack.psql("insert into kept (n) values (1) returning id"), "3001");
    assert_eq!(stack.psql("select rolpassword is not null from pg_authid where rolname = 'reader'"), "t");
    assert_eq!(stack.psql("select reltuples > 0 from pg_class where relname = 'kept'"), "t");
    assert_eq!(stack.psql("select count(*) from pg_roles where rolname like 'switchback%'"), "0");
    assert_eq!(stack.hub("POST", "/users/latecomer", None).0, 201);

    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!((generation(&stack), major(&stack).as_str()), (1, "15"));
    assert_eq!((stack.people(), content(&stack)), (people, before));
    let writes = exported(&stack, 2, "db");
    let rows: Vec<&Value> = writes.values().flatten().collect();
    assert!(rows.iter().any(|r| r["op"] == "insert" && r["row"]["name"] == "latecomer"), "{writes:?}");
    assert_no_secret_is_told(&stack, &[DB_PASSWORD, HUB_TOKEN, "reader-of-the-tests-5"]);
}

#[test]
fn a_conversion_that_is_killed_begins_afresh() {
    let stack = hub();
    let (people, before) = (stack.people(), content(&stack));
    stack.set("DB_IMAGE", "sbt/postgres:17");
    stack.edit(
        "switchback.yaml",
        "db: { kind: postgres, service: db }",
        "db: { kind: postgres, service: db, major: 17 }",
    );
    let mut promote = start(&stack, &["promote", "--yes", "--without-certificate", "--reason", "a test"]);
    stack.wait_until("the conversion begins", Duration::from_secs(120), || has_begun(&stack, "convert"));
    std::thread::sleep(Duration::from_secs(3));
    promote.kill().expect("kills");
    promote.wait().expect("ends");
    stack.run(&["resume"]).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(60), || status(&stack)["trial"].is_null());
    assert_eq!((generation(&stack), major(&stack).as_str()), (2, "17"));
    assert_eq!((stack.people(), content(&stack)), (people, before));
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    assert_eq!(step(&report(&stack), "convert")["attempts"], 2);
}
