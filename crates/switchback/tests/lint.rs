//! Migration files and the real squawk.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;
use std::process::Command;

fn stack() -> Stack {
    let stack = Stack::new(&[ReleaseKind::V2]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let text = text.replacen("checks:\n", "checks:\n  lint: [\"migrations/*.sql\"]\n", 1);
    assert!(text.contains("lint:"), "{text}");
    fs::write(&path, text).expect("writes");
    let folder = stack.root.join("migrations");
    fs::create_dir(&folder).expect("creates");
    fs::write(folder.join("1.sql"), "select 1;\ncreate index orders_day on orders (day);\n").expect("writes");
    fs::write(folder.join("2.sql"), "alter table orders add column c int;\n").expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

#[test]
fn remarks_on_migration_files_are_in_the_report_and_refuse_nothing() {
    if Command::new("squawk").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "squawk must be there in CI; scripts/test installs it");
        eprintln!("SKIPPED: there is no squawk; scripts/test installs it");
        return;
    }
    let stack = stack();
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let report = stack.report();
    let lint = &report["lint"];
    assert_eq!((&lint["tool"], &lint["files"]), (&"squawk".into(), &2.into()), "{lint}");
    let findings = lint["findings"].as_array().expect("findings");
    let index = findings.iter().find(|f| f["rule"] == "require-concurrent-index-creation");
    let index = index.unwrap_or_else(|| panic!("{lint}"));
    assert_eq!((&index["file"], &index["line"]), (&"migrations/1.sql".into(), &2.into()), "{index}");
    assert!(!report["certificate"].is_null());
    let page = stack.run(&["report", "--format", "html"]).expect(0).all();
    assert!(page.contains("require-concurrent-index-creation"), "not on the page");
}

#[test]
fn without_squawk_the_report_says_that_nobody_looked() {
    let stack = stack();
    let empty = stack.root.join("nothing");
    fs::create_dir(&empty).expect("creates");
    let path = empty.to_str().expect("a path").to_owned();
    stack.run_with(&["rehearse", "app=2.0.0"], &[("PATH", &path)]).expect(0);
    let lint = stack.report()["lint"].clone();
    assert!(lint["note"].as_str().expect("a note").contains("squawk is not installed"), "{lint}");
    // A pattern that matches nothing is a mistake.
    fs::remove_dir_all(stack.root.join("migrations")).expect("removes");
    let told = stack.run(&["rehearse", "app=2.0.0"]);
    assert_ne!(told.code, Some(0));
}
