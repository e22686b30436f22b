//! Carrying later writes back on a Compose stack with PostgreSQL, SQLite and files: in volumes, and in folders on a file system
//! that shares blocks. About two minutes each.

mod common;

use common::docker::{Example, Stack};
use common::upgrade::{Bystander, containers, staging_left};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn rows(stack: &Stack) -> String {
    stack.psql("select count(*), sum(id), sum(length(note)) from entries")
}

fn part<'a>(report: &'a Value, store: &str, part: &str) -> &'a Value {
    &report["carried"][store]["parts"][part]
}

fn later_writes_come_back(place: Option<&Path>, rehearsed: bool) {
    let stack = Stack::compose(if place.is_some() { Example::Exchange } else { Example::Ledger });
    let _data = place.map(|place| {
        let data = tempfile::Builder::new().prefix("carry-").tempdir_in(place).expect("tempdir");
        for folder in ["db", "books", "receipts"] {
            std::fs::create_dir(data.path().join(folder)).expect("creates");
        }
        stack.set("DATA_DIR", &data.path().to_string_lossy());
        data
    });
    // Nobody but this test moves money.
    stack.set("BANK_RATE", "0");
    stack.up();
    let bystander = Bystander::start(&stack);
    stack.psql("create table entries (id bigserial primary key, note varchar(40)); insert into entries (note) select 'note ' || g from generate_series(1, 5000) g");
    stack.transfer();
    stack.run(&["up", "--yes"]).expect(0);
    if rehearsed {
        stack.run(&["rehearse", "bank=2"]).expect(0);
        stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);
    } else {
        let waived = ["--without-certificate", "--reason", "a test"];
        stack.run(&[&["promote", "bank=2", "--yes", "--detach"][..], &waived].concat()).expect(0);
    }
    stack.psql("insert into entries (note) select 'later ' || g from generate_series(1, 500) g; update entries set note = 'changed' where id = 7; delete from entries where id = 8");
    for _ in 0..3 {
        stack.transfer();
    }
    let (later, books) = (rows(&stack), stack.bank());
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_ne!(rows(&stack), later);
    let before = rows(&stack);
    let done = stack.run(&["carry", "--yes", "--detach", "--json"]).expect(0).json();
    let tables = done["carried"]["db"]["parts"].as_object().expect("tables");
    let entries =
        tables.iter().find(|(name, _)| name.ends_with(".public.entries")).map_or(&Value::Null, |(_, v)| v);
    let counts =
        |v: &Value| ["inserted", "updated", "deleted", "quarantined"].map(|k| v[k].as_u64().unwrap_or(99));
    assert_eq!(counts(entries), [500, 1, 1, 0], "{done}");
    assert_eq!(counts(part(&done, "books", "transfers")), [3, 0, 0, 0], "{done}");
    assert_eq!(counts(part(&done, "books", "accounts")), [0, 2, 0, 0], "{done}");
    assert_eq!(part(&done, "receipts", "files")["inserted"], 3, "{done}");
    assert_eq!(rows(&stack), later, "the database has exactly the later state");
    let back = stack.bank();
    assert_eq!(
        (&back["ok"], &back["transfers"], &back["release"]),
        (&Value::from(true), &books["transfers"], &Value::from(1))
    );
    // The server goes on behind what was carried, and so does the bank.
    stack.psql("insert into entries (note) values ('next')");
    stack.transfer();
    assert_eq!(stack.bank()["ok"], true);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(rows(&stack), before, "exactly as before can be had, too");
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    assert!(!containers(&stack).is_empty());
    bystander.assert_untouched();
}

#[test]
fn later_writes_come_back_in_volumes_that_are_copied() {
    later_writes_come_back(None, true);
}

#[test]
fn later_writes_come_back_in_folders_that_share_blocks_also_without_a_rehearsal() {
    let place = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR").map(PathBuf::from);
    let place = place.expect("SWITCHBACK_TEST_REFLINK_DIR names a folder on XFS; scripts/test makes one");
    later_writes_come_back(Some(&place), false);
}
