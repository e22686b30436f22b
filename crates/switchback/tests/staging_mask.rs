//! Masked staging environments of local processes, with the real program.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What every note and person of the example gets, so that a search finds any of them.
const MARK: &str = "pii7f";

fn stack() -> Stack {
    let stack = Stack::new(&[ReleaseKind::V1]);
    stack.run(&["up"]).expect(0);
    let db = rusqlite::Connection::open(stack.root.join("data/assistant.db")).expect("opens");
    db.busy_timeout(std::time::Duration::from_secs(20)).expect("sets");
    db.execute_batch(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT, token TEXT);
         CREATE TABLE letters (id INTEGER PRIMARY KEY, email TEXT REFERENCES people (email), body TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO people SELECT i, 'pii7f' || i || '@mail.test', 'pii7f ' || i, 'sk-pii7f' || hex(randomblob(12)) FROM n;
         INSERT INTO letters SELECT id, email, 'write to pii7f' || id || '@mail.test soon' FROM people;",
    )
    .expect("writes");
    stack
}

fn configure(stack: &Stack, rules: &str) {
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let text = text.split("\nstaging:\n").next().expect("text").to_owned();
    fs::write(&path, format!("{text}\nstaging:\n  anonymise:\n{rules}")).expect("writes");
}

const RULES: &str = "    db.people.email: email\n    db.letters.email: email\n    db.people.name: name\n    db.people.token: token\n    db.letters.body: text\n";

/// Files below a folder that hold the mark.
fn holding(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(holding(&path));
        } else if fs::read(&path).is_ok_and(|b| b.windows(MARK.len()).any(|w| w == MARK.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn environment(stack: &Stack) -> Value {
    stack.run(&["staging", "status", "--json"]).json()
}

fn staged(stack: &Stack) -> std::path::PathBuf {
    stack.state().join("staging/env-staging")
}

#[test]
fn personal_data_is_found_masked_and_stays_masked_through_sync_and_reset() {
    let stack = stack();
    let scan = stack.run(&["staging", "scan", "--json"]).expect(0).json();
    let columns: Vec<&str> = scan["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|f| f["column"].as_str().expect("text"))
        .collect();
    for column in ["db.people.email", "db.letters.email", "db.people.token", "db.letters.body"] {
        assert!(columns.contains(&column), "{column}: {scan:#}");
    }
    assert!(!scan.to_string().contains("@mail.test"), "a value is shown: {scan}");
    stack.run(&["staging", "scan", "--check"]).expect(3);
    let text = stack.run(&["staging", "scan"]).expect(0).stdout;
    assert!(text.contains("NO RULE") && text.contains("    db.people.email: email"), "{text}");

    configure(&stack, RULES);
    let text = stack.run(&["staging", "scan", "--check"]).expect(0).stdout;
    assert!(text.contains("rule: email"), "{text}");
    stack.run(&["staging", "up"]).expect(0);
    assert_eq!(holding(&staged(&stack)), Vec::<String>::new(), "old values are left");
    let made = environment(&stack);
    let masked = made["data"]["masked"]["db"]["columns"].as_array().expect("columns");
    assert_eq!(
        (masked.len(), &masked[0]["values"], &made["data"]["compared"]),
        (5, &3000.into(), &true.into()),
        "{made}"
    );
    for (format, text) in [("text", "15000 values"), ("html", "people.email"), ("markdown", "people.email")] {
        let report = stack.run(&["report", "--format", format]).expect(0).stdout;
        assert!(report.replace([',', '\u{202f}'], "").contains(text), "{format}: {report}");
    }

    // The same value is masked in the same way at every sync; what is new is masked, too.
    let address = |id: u32| -> String {
        let path =
            fs::read_dir(staged(&stack).join("g1/stores/db")).expect("lists").flatten().map(|e| e.path());
        let path = path.into_iter().find(|p| p.extension().is_some_and(|e| e == "db")).expect("a database");
        let db = rusqlite::Connection::open(path).expect("opens");
        db.busy_timeout(std::time::Duration::from_secs(20)).expect("sets");
        let sql = "SELECT p.email FROM people p JOIN letters l USING (id, email) WHERE id = ?1";
        db.query_row(sql, [id], |row| row.get(0)).expect("a person with a letter")
    };
    let seventh = address(7);
    assert!(seventh.ends_with("@example.invalid"), "{seventh}");
    let db = rusqlite::Connection::open(stack.root.join("data/assistant.db")).expect("opens");
    db.busy_timeout(std::time::Duration::from_secs(20)).expect("sets");
    db.execute_batch(
        "INSERT INTO people VALUES (5000, 'pii7f-late@mail.test', 'pii7f late', 'sk-pii7f');
         INSERT INTO letters SELECT id, email, 'pii7f' FROM people WHERE id = 5000",
    )
    .expect("writes");
    stack.run(&["staging", "sync", "--yes"]).expect(0);
    assert_eq!(holding(&staged(&stack)), Vec::<String>::new(), "after a sync");
    assert_eq!(address(7), seventh);
    assert!(address(5000).ends_with("@example.invalid"));
    stack.run(&["staging", "reset", "--yes"]).expect(0);
    assert_eq!(holding(&staged(&stack)), Vec::<String>::new(), "after a reset");

    // Under other rules, the copy that `reset` returns to is not what was asked for.
    configure(&stack, &format!("{RULES}    db.people.id: keep\n"));
    let ran = stack.run(&["staging", "reset", "--yes"]).expect(3);
    assert!(ran.stderr.contains("has changed"), "{}", ran.stderr);
    stack.run(&["staging", "down", "--yes"]).expect(0);

    // The key is its owner's, and nowhere else.
    let path = stack.state().join("mask.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().expect("is there")) & 0o777;
    assert_eq!(mode, 0o600);
    let key = fs::read_to_string(&path).expect("reads");
    fs::remove_file(&path).expect("removes");
    for file in ["journal.db", "journal.db-wal"] {
        let bytes = fs::read(stack.state().join(file)).unwrap_or_default();
        assert!(!bytes.windows(40).any(|w| w == &key.as_bytes()[..40]), "{file} has the key");
    }
}

#[test]
fn a_start_killed_while_it_masks_is_masked_from_the_beginning() {
    let stack = stack();
    configure(&stack, RULES);
    for when in ["before", "during", "after"] {
        let fault = format!("do:mask:{when}");
        let ran = stack.run_with(&["staging", "up"], &[("SWITCHBACK_FAULT", fault.as_str())]);
        assert_ne!(ran.code, Some(0), "{}", ran.all());
        // Nothing runs on it meanwhile, and it cannot be started but by going on.
        assert_eq!(stack.run(&["staging", "list", "--json"]).expect(0).json(), serde_json::json!([]));
        stack.run(&["resume"]).expect(0);
        assert_eq!(holding(&staged(&stack)), Vec::<String>::new(), "{when}");
        let made = environment(&stack);
        assert_eq!(made["now"]["well"], true, "{when}: {made}");
        stack.run(&["staging", "down", "--yes"]).expect(0);
    }
}

#[test]
fn rules_that_cannot_be_carried_out_are_refused_and_leave_no_copy() {
    let stack = stack();
    for (rules, code, why) in [
        ("    db.people.mail: email\n", 3, "the table has id, email"),
        ("    db.people.email: email\n", 3, "both need the same mask"),
        ("    db.people: email\n", 2, "STORE.TABLE.COLUMN"),
        ("    dbx.people.email: email\n", 2, "did you mean \"db\""),
        ("    uploads.a.b: email\n", 2, "holds files"),
        ("    db.people.email: e-mail\n", 2, "email"),
    ] {
        configure(&stack, rules);
        let ran = stack.run(&["staging", "up"]);
        assert_eq!(ran.code, Some(code), "{rules}: {}", ran.all());
        assert!(ran.all().contains(why), "{rules}: {}", ran.all());
        assert_eq!(holding(&stack.state().join("staging")), Vec::<String>::new(), "{rules}");
    }
}
