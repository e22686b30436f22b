//! PostgreSQL in a Compose stack: what a clone would not show, and whom the server does not let in.

use super::{bank, nothing_left, production};
use crate::common::docker::{Stack, docker, need, psql_in};
use std::fs;
use std::time::Duration;

const SERVICE: &str = "
  db:
    image: ${DB_IMAGE}
    environment: { POSTGRES_USER: app, POSTGRES_DB: app, POSTGRES_PASSWORD: \"${DB_PASSWORD}\", WRONG: not-it }
    volumes: [\"db:/var/lib/postgresql/data\"]
    healthcheck: { test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, timeout: 20s, retries: 60 }
";

/// The bank with a database beside it, in use by Switchback.
fn stack() -> Stack {
    need(&["sbt/postgres:15", "sbt/postgres:17"]);
    let stack = bank();
    stack.edit("compose.yaml", "services:\n", &format!("services:{SERVICE}"));
    stack.edit("compose.yaml", "volumes:\n  books:", "volumes:\n  db:\n  books:");
    stack.edit("switchback.yaml", "stores:\n", "stores:\n  db: { kind: postgres, service: db }\n");
    stack
}

#[track_caller]
fn adopted() -> Stack {
    let stack = stack();
    stack.up();
    sql(&stack, "create table things (id int primary key, name text); insert into things values (1, 'one')");
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

#[track_caller]
fn sql(stack: &Stack, text: &str) -> String {
    psql_in(&stack.container("db").expect("db has a container"), "app", text)
}

/// Runs a script as the superuser of the database's container.
#[track_caller]
fn inside(stack: &Stack, script: &str) {
    docker(&["exec", &stack.container("db").expect("a container"), "sh", "-c", script]).expect(0);
}

/// A rehearsal that must be refused before anything is done.
#[track_caller]
fn refused(stack: &Stack, args: &[&str], parts: &[&str]) {
    let (before, books) = (production(stack), stack.bank());
    stack.run(args).says(3, parts);
    assert_eq!((production(stack), stack.bank()), (before, books), "production was touched");
    nothing_left(stack);
}

/// The HTML report of the last run: what people read.
#[track_caller]
fn html(stack: &Stack) -> String {
    let runs = fs::read_dir(stack.root.join(".switchback/runs")).expect("runs").flatten();
    let newest = runs.map(|e| e.path()).max().expect("a run");
    fs::read_to_string(newest.join("report.html")).expect("a report")
}

#[test]
fn a_server_that_asks_for_a_password_is_read_with_the_right_one_only() {
    let stack = adopted();
    let rehearse = ["rehearse", "bank=2"];
    // Every connection needs a password from now on.
    inside(
        &stack,
        "sed -i 's/\\(^local.*\\)trust$/\\1scram-sha-256/' \"$PGDATA/pg_hba.conf\" && \
         psql -qU app -c 'select pg_reload_conf()' >/dev/null",
    );
    let hint = "check `user` and `password_env` of the store";
    refused(&stack, &rehearse, &["stores.db", "no password supplied", hint]);
    let store = |text: &str, with: &str| stack.edit("switchback.yaml", text, with);
    store("service: db }", "service: db, password_env: WRONG }");
    refused(&stack, &rehearse, &["stores.db", "password authentication failed", hint]);
    store("password_env: WRONG", "password_env: NO_SUCH");
    refused(&stack, &rehearse, &["stores.db.password_env: db has no variable NO_SUCH"]);
    store("password_env: NO_SUCH", "password_env: POSTGRES_PASSWORD, user: nobody");
    refused(&stack, &rehearse, &["stores.db", "user \"nobody\"", hint]);
    store(", user: nobody", "");
    let ran = stack.run(&rehearse).expect(0);
    assert!(!ran.all().contains("of%the-tests"), "the password is shown: {}", ran.all());
    nothing_left(&stack);
}

#[test]
fn data_outside_of_the_mount_is_refused_and_another_major_version_too() {
    let stack = adopted();
    inside(&stack, "mkdir /elsewhere && chown postgres /elsewhere");
    sql(&stack, "create tablespace far location '/elsewhere'");
    let parts = [
        "stores.db: the tablespace far lies outside of the data directory, at /elsewhere",
        "not the whole database",
    ];
    refused(&stack, &["rehearse", "bank=2"], &parts);
    sql(&stack, "drop tablespace far");

    // The image of another major version on the same volume.
    let parts = ["sbt/postgres:17 is Postgres 17, and the data was made by Postgres 15", "major: 17"];
    stack.set("DB_IMAGE", "sbt/postgres:17");
    refused(&stack, &["rehearse"], &parts);
    assert_eq!(sql(&stack, "select name from things"), "one");
}

#[test]
fn unlogged_tables_and_changed_collations_are_told_in_the_report_and_do_not_refuse() {
    let stack = adopted();
    sql(&stack, "create unlogged table quick (id int primary key); insert into quick values (1)");
    sql(&stack, "update pg_database set datcollversion = '1.0' where datname = 'app'");
    let before = production(&stack);
    stack.run(&["rehearse", "bank=2"]).expect(0);
    let report = html(&stack);
    for part in [
        "table public.quick of database app is unlogged",
        "default collation of database app has version",
        "(so it was before)",
    ] {
        assert!(report.contains(part), "{part:?} is not in the report");
    }
    assert_eq!(production(&stack), before);
    assert_eq!(sql(&stack, "select count(*) from quick"), "1");
}

#[test]
fn a_server_that_does_not_stop_in_time_is_killed_and_its_data_recovers() {
    let stack = stack();
    // The first process of the container ignores every signal that ends it.
    stack.edit(
        "compose.yaml",
        "  db:\n    image",
        "  db:\n    entrypoint: [sh, -c, \"trap '' TERM INT QUIT; docker-entrypoint.sh postgres & while :; do wait; sleep 1; done\"]\n    \
         stop_grace_period: 1s\n    image",
    );
    stack.up();
    sql(&stack, "create table things (id int primary key, name text)");
    stack.run(&["up", "--yes"]).expect(0);
    stack.run(&["rehearse", "bank=2"]).expect(0);
    // What was confirmed a moment before must be there, too.
    sql(&stack, "insert into things select n, 'thing ' || n from generate_series(1, 5000) n");
    stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);
    assert_eq!(sql(&stack, "select count(*) from things"), "5000");
    let report = html(&stack);
    assert!(report.contains("did not end within its grace time of 1s and was killed; its data recovers"));
    stack.wait_until("the trial is over", Duration::from_secs(120), || {
        stack.run(&["status", "--json"]).json()["unfinished"].is_null()
    });
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(sql(&stack, "select count(*) from things"), "5000");
}
