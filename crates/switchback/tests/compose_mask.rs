//! Masked staging copies of a Compose stack with Postgres: nothing of the old values is in any file of the volumes.

mod common;

use common::docker::{DB_PASSWORD, Example, Stack, docker, labelled, psql_in};
use common::upgrade::{assert_no_secret_is_told, staging_left};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Every personal value has this in it.
const MARK: &[u8] = b"pii7f";
const PEOPLE: u64 = 5_000;

const RULES: &str = "
staging:
  anonymise:
    db.people.email: email
    db.letters.email: email
    db.people.name: name
    db.people.profile: text
    db.letters.body: text
";

fn stack() -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 10s");
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    assert!(!text.contains("\nstaging:"), "the example has a section staging");
    fs::write(&path, text + RULES).expect("writes");
    stack.up();
    // 10,000 addresses, as many texts, and rows that are dead already.
    stack.psql(&format!(
        "create table people (id int primary key, email text unique not null, name text, profile jsonb);
         create table letters (id int primary key, email text references people (email), body text);
         alter table letters alter body set storage external;
         insert into people select n, 'pii7f'||n||'@mail.test', 'pii7f '||n, jsonb_build_object('of', 'pii7f'||n) from generate_series(1, {PEOPLE}) n;
         insert into letters select id, email, repeat('pii7f letter '||id||' ', case when id % 100 = 0 then 300 else 1 end) from people;
         update letters set body = body || '.'; analyze"
    ));
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn holding(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let entry = entry.expect("lists");
        if entry.file_type().expect("a type").is_dir() {
            found.extend(holding(&entry.path()));
        } else if fs::read(entry.path()).is_ok_and(|b| b.windows(MARK.len()).any(|w| w == MARK)) {
            found.push(entry.path());
        }
    }
    found
}

/// Where the engine keeps the volumes of the environment.
fn volumes(stack: &Stack) -> Vec<PathBuf> {
    let home = switchback_engine::home::Home::open(&stack.root).expect("opens");
    let [_, _, volumes] = labelled("dev.switchback.stack", &home.id().expect("an id"));
    let staged: Vec<String> = volumes.into_iter().filter(|v| v.contains(".staging.")).collect();
    assert!(staged.len() >= 4, "the copy and the untouched one, of several volumes: {staged:?}");
    staged
        .iter()
        .map(|v| {
            docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", v]).expect(0).stdout.trim().into()
        })
        .collect()
}

#[track_caller]
fn assert_masked(stack: &Stack, when: &str) {
    let found: Vec<PathBuf> = volumes(stack).iter().flat_map(|v| holding(v)).collect();
    assert_eq!(found, Vec::<PathBuf>::new(), "{when}: old values are left");
}

fn environment(stack: &Stack) -> Value {
    stack.run(&["staging", "status", "--json"]).json()
}

/// Runs SQL in the environment's database.
fn staged(stack: &Stack, sql: &str) -> String {
    let status = environment(stack);
    let project = status["instance"]["project"].as_str().expect("a project").to_owned();
    let filter = format!("label=com.docker.compose.project={project}");
    let service = "label=com.docker.compose.service=db";
    let id = docker(&["ps", "-q", "--filter", &filter, "--filter", service]).expect(0).stdout;
    psql_in(id.trim(), "ledger", sql)
}

#[test]
fn no_volume_keeps_any_masked_value_through_up_sync_and_reset() {
    let stack = stack();
    // What is searched for is there.
    let original =
        docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &format!("{}_db", stack.project)]);
    assert!(!holding(Path::new(original.expect(0).stdout.trim())).is_empty());
    let scan = stack.run(&["staging", "scan", "--json"]).expect(0).json();
    for column in ["db.ledger.public.people.email", "db.ledger.public.letters.email"] {
        assert!(scan.to_string().contains(column), "{column}: {scan:#}");
    }
    assert!(!scan.to_string().contains("@mail.test"), "a value is shown: {scan}");

    stack.run(&["staging", "up"]).expect(0);
    assert_masked(&stack, "up");
    let made = environment(&stack);
    assert_eq!((&made["now"]["well"], &made["data"]["compared"]), (&true.into(), &true.into()), "{made}");
    let columns = made["data"]["masked"]["db"]["columns"].as_array().expect("columns").clone();
    let values: u64 = columns.iter().map(|c| c["values"].as_u64().expect("a number")).sum();
    assert_eq!((columns.len(), values), (5, 5 * PEOPLE), "{columns:?}");
    let joined = "select count(*), count(distinct email) from people join letters using (id, email)";
    assert_eq!(staged(&stack, joined), format!("{PEOPLE}|{PEOPLE}"));
    let seventh = staged(&stack, "select email from people where id = 7");
    assert!(seventh.ends_with("@example.invalid"), "{seventh}");

    // What was written meanwhile is masked, too, and what was there is masked in the same way.
    stack.psql("insert into people values (9999, 'pii7f-late@mail.test', 'pii7f', '{}'); checkpoint");
    staged(&stack, "insert into people values (8888, 'made in staging', 'x', '{}')");
    stack.run(&["staging", "sync", "--yes"]).expect(0);
    assert_masked(&stack, "sync");
    assert_eq!(staged(&stack, "select email from people where id = 7"), seventh);
    let late = "select count(*) from people where id in (8888, 9999) and email like 'u%@example.invalid'";
    assert_eq!(staged(&stack, late), "1");
    staged(&stack, "delete from people where id = 9999");
    stack.run(&["staging", "reset", "--yes"]).expect(0);
    assert_masked(&stack, "reset");
    assert_eq!(staged(&stack, late), "1");
    assert_eq!(stack.psql("select count(*) from people where email like 'pii7f%'"), (PEOPLE + 1).to_string());

    let key = fs::read_to_string(stack.root.join(".switchback/mask.key")).expect("a key");
    fs::remove_file(stack.root.join(".switchback/mask.key")).expect("removes");
    assert_no_secret_is_told(&stack, &[DB_PASSWORD, &key]);
    stack.run(&["staging", "down", "--yes"]).expect(0);
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}

#[test]
fn a_start_killed_while_it_masks_a_database_leaves_nothing_unmasked_that_runs() {
    let stack = stack();
    let ran = stack.run_with(&["staging", "up"], &[("SWITCHBACK_FAULT", "do:mask:during")]);
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    assert_eq!(stack.run(&["staging", "list", "--json"]).expect(0).json(), serde_json::json!([]));
    stack.run(&["resume"]).expect(0);
    assert_masked(&stack, "resumed");
    assert_eq!(environment(&stack)["now"]["well"], true);
    stack.run(&["staging", "down", "--yes"]).expect(0);

    // A rule that means nothing is found before anything starts, and the copy goes.
    stack.edit("switchback.yaml", "db.people.name: name", "db.people.nam: name");
    let ran = stack.run(&["staging", "up"]).expect(3);
    assert!(ran.all().contains("the table has id, email, name, profile"), "{}", ran.all());
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}
