//! Backups whose clone is kept and brought up to date: what is written to the repository is production's data all the same.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use common::bank::Bank;
use common::docker::{docker, full};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The stack's configuration with backups into a folder, and a key.
fn configure(root: &Path, repository: &Path) {
    let path = root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let backup = format!("\nbackup: {{ repository: \"{}\", clone: keep }}\n", repository.display());
    fs::write(&path, text + &backup).expect("writes");
}

fn kept(releases: &[ReleaseKind]) -> (Stack, tempfile::TempDir) {
    let beside = tempfile::tempdir().expect("tempdir");
    let stack = Stack::new(releases);
    configure(&stack.root, &beside.path().join("repository"));
    stack.run(&["up"]).expect(0);
    stack.run(&["backup", "init"]).expect(0);
    (stack, beside)
}

fn copy(stack: &Stack) -> PathBuf {
    stack.state().join("staging/backup-copy")
}

fn backup(stack: &Stack) -> Value {
    stack.run(&["backup", "--json"]).expect(0).json()
}

fn did(report: &Value, id: &str) -> bool {
    report["steps"].as_array().expect("steps").iter().any(|s| s["id"] == id)
}

/// The newest backup, in a folder of its own, has exactly production's rows and files.
fn comes_back(stack: &Stack, beside: &Path, generation: u32, name: &str) {
    let into = beside.join(name);
    let (repository, key) = (beside.join("repository"), stack.state().join("backup.key"));
    let args = ["restore", "--from", repository.to_str().expect("text"), "--key-file"];
    let more = [key.to_str().expect("text"), "--into", into.to_str().expect("text")];
    stack.run(&[&args[..], &more].concat()).expect(0);
    let read = |path: &Path| -> Vec<String> {
        let open = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(path, open).expect("opens");
        let mut statement = connection.prepare("select id, title from notes order by id").expect("prepares");
        let rows =
            statement.query_map([], |r| Ok(format!("{} {}", r.get::<_, i64>(0)?, r.get::<_, String>(1)?)));
        rows.expect("asks").map(|r| r.expect("a row")).collect()
    };
    let (database, uploads) = match generation {
        1 => ("data/assistant.db".to_owned(), "data/uploads".to_owned()),
        n => {
            let stores = format!(".switchback/generations/{n}/stores");
            (format!("{stores}/db/assistant.db"), format!("{stores}/uploads/uploads"))
        }
    };
    assert_eq!(read(&into.join(&database)), read(&stack.root.join(&database)), "{name}");
    let files: std::collections::BTreeMap<String, Vec<u8>> = fs::read_dir(into.join(uploads))
        .expect("lists")
        .map(|e| e.expect("lists"))
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("reads")))
        .collect();
    assert_eq!(files, stack.files(generation), "{name}");
}

#[test]
fn a_kept_clone_is_brought_up_to_date_and_what_is_backed_up_is_what_production_has() {
    let (stack, beside) = kept(&[ReleaseKind::V2]);
    stack.write_note("before the first");
    let first = backup(&stack);
    assert!(did(&first, "prepare") && !did(&first, "dispose"), "{first}");
    assert!(copy(&stack).exists());
    comes_back(&stack, beside.path(), 1, "first");

    // Rows, a file that is new, one that is changed in place, one that is gone.
    stack.write_note("before the second");
    let uploads = stack.root.join("data/uploads");
    let mut there: Vec<PathBuf> =
        fs::read_dir(&uploads).expect("lists").flatten().map(|e| e.path()).collect();
    there.sort();
    fs::write(uploads.join("new"), "new").expect("writes");
    fs::write(&there[0], "other content").expect("writes");
    fs::remove_file(&there[1]).expect("removes");
    let second = backup(&stack);
    assert!(!did(&second, "prepare") && did(&second, "snapshot"), "{second}");
    comes_back(&stack, beside.path(), 1, "second");
    stack.run(&["drill", "restore"]).expect(0);

    // What is known about the clone is gone, a part of the clone is, or all of it.
    for gone in ["passes", "stores/uploads", "stores", ""] {
        let there = copy(&stack).join(gone);
        assert!(gone == "passes" || there.exists(), "{gone}");
        let _ = fs::remove_dir_all(there);
        stack.write_note(&format!("without {gone:?}"));
        backup(&stack);
        comes_back(&stack, beside.path(), 1, &format!("without-{}", gone.replace('/', "-")));
    }

    // Another generation's data, and back.
    let why = ["--without-certificate", "--reason", "a test"];
    stack.run(&[&["promote", "app=2.0.0", "--yes"][..], &why].concat()).expect(0);
    stack.write_note("written to the second generation");
    backup(&stack);
    comes_back(&stack, beside.path(), 2, "third");
    stack.run(&["rollback", "--yes"]).expect(0);
    backup(&stack);
    comes_back(&stack, beside.path(), 1, "fourth");

    // It is no leftover as long as it is wanted.
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(copy(&stack).exists());
    let doctor = stack.run(&["doctor"]).all();
    assert!(!doctor.contains("left behind"), "{doctor}");
    stack.configure(", clone: keep", "");
    assert!(stack.run(&["doctor"]).all().contains("left behind"));
    let passing = backup(&stack);
    assert!(did(&passing, "prepare") && did(&passing, "dispose"), "{passing}");
    stack.run(&["gc", "--yes"]).expect(0);
    assert!(!copy(&stack).exists());
}

#[test]
fn a_backup_that_is_killed_leaves_a_clone_that_the_next_one_can_be_made_of() {
    for case in ["do:snapshot:before", "do:snapshot:during", "do:snapshot:after", "do:archive:during"] {
        let (stack, beside) = kept(&[]);
        stack.write_note("before the first");
        // The first one, and one that brings it up to date.
        for round in ["first", "second"] {
            let killed = stack.run_with(&["backup"], &[("SWITCHBACK_FAULT", case)]);
            assert_eq!(killed.code, None, "{case}: the fault did not fire: {}", killed.all());
            stack.write_note("written meanwhile");
            stack.run(&["resume", "--abort"]);
            backup(&stack);
            comes_back(&stack, beside.path(), 1, round);
        }
    }
}

/// A clone that somebody wrote to is not taken for what production had.
#[test]
fn what_somebody_did_to_the_clone_is_not_backed_up() {
    let (stack, beside) = kept(&[]);
    backup(&stack);
    let copied = fs::read_dir(copy(&stack).join("g1")).is_ok();
    let root = if copied { copy(&stack).join("g1") } else { copy(&stack) };
    let folder = root.join("stores/uploads/uploads");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).expect("lists").flatten().map(|e| e.path()).collect();
    files.sort();
    fs::write(&files[0], "spoilt").expect("writes");
    fs::write(folder.join("stranger"), "not production's").expect("writes");
    fs::remove_file(&files[1]).expect("removes");
    backup(&stack);
    comes_back(&stack, beside.path(), 1, "after it was spoilt");
}

#[test]
fn volumes_of_containers_are_kept_and_brought_up_to_date_too() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let beside = tempfile::tempdir().expect("tempdir");
    let bank = Bank::new();
    configure(&bank.stack.root, &beside.path().join("repository"));
    bank.stack.run(&["backup", "init"]).expect(0);
    let volumes = || {
        let all = docker(&["volume", "ls", "-q"]).expect(0).stdout;
        let mine = all.lines().filter(|v| v.contains(&bank.stack.project) && v.contains("backup-copy"));
        mine.map(str::to_owned).collect::<Vec<_>>()
    };
    bank.stack.run(&["backup"]).expect(0);
    let made = volumes();
    assert!(made.len() >= 2, "{made:?}");
    bank.stack.transfer();
    bank.stack.run(&["backup"]).expect(0);
    assert_eq!(volumes(), made);
    bank.stack.run(&["drill", "restore"]).expect(0);
    bank.stack.run(&["gc", "--yes"]).expect(0);
    assert_eq!(volumes(), made, "gc took what is wanted");
    // Somebody removed one of them, with what is known about it or without; then all of them.
    for gone in made.iter().map(std::slice::from_ref).chain([&made[..]]) {
        for volume in gone {
            docker(&["volume", "rm", volume]).expect(0);
        }
        bank.stack.transfer();
        bank.stack.run(&["backup"]).expect(0);
        assert_eq!(volumes(), made, "{gone:?}");
        bank.stack.run(&["drill", "restore"]).expect(0);
    }
    bank.stack.edit("switchback.yaml", ", clone: keep", "");
    bank.stack.run(&["gc", "--yes"]).expect(0);
    assert_eq!(volumes(), Vec::<String>::new());
}
