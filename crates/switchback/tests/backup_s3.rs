//! Backups in a bucket of an object store, with restic beside.

#[path = "common/s3.rs"]
mod object_store;

mod common;

use common::{Ran, Stack};
use object_store::{ID, ObjectStore, SECRET};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

fn stack(repository: &str) -> Stack {
    let stack = Stack::new(&[]);
    let config = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&config).expect("reads");
    let backup = format!(
        "\nbackup: {{ repository: \"{repository}\", env_file: s3.env, keep: {{ last: 2, daily: 0, weekly: 0, monthly: 0 }} }}\n"
    );
    fs::write(&config, text + &backup).expect("writes");
    stack
}

fn credentials(stack: &Stack, secret: &str) -> std::path::PathBuf {
    let file = stack.root.join("s3.env");
    fs::write(&file, format!("AWS_ACCESS_KEY_ID={ID}\nAWS_SECRET_ACCESS_KEY={secret}\n")).expect("writes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    file
}

#[test]
fn a_repository_in_a_bucket_is_made_used_read_by_restic_and_brought_back() {
    let beside = tempfile::tempdir().expect("tempdir");
    let folder = beside.path().join("store");
    fs::create_dir(&folder).expect("creates");
    let store = ObjectStore::start(&folder);
    let address = format!("s3:http://127.0.0.1:{}/backups/home/pa", store.port);
    let stack = stack(&address);
    let told = |ran: Ran| {
        assert!(!ran.all().contains(SECRET) && !ran.all().contains(ID), "{}", ran.all());
        ran
    };
    // Nobody asks; the wrong one asks; somebody who may.
    fs::write(stack.root.join("s3.env"), "").expect("writes");
    let nobody = told(stack.run(&["backup", "init"]).expect(3));
    assert!(nobody.all().contains("AWS_ACCESS_KEY_ID is not set"), "{}", nobody.all());
    credentials(&stack, "another-secret");
    let refused = told(stack.run(&["backup", "init"]).expect(3));
    assert!(
        refused.all().contains("SignatureDoesNotMatch") || refused.all().contains("status 403"),
        "{}",
        refused.all()
    );
    let file = credentials(&stack, SECRET);
    told(stack.run(&["backup", "init"]).expect(0));
    assert!(folder.join("backups/home/pa/config").is_file(), "the bucket was made");

    stack.run(&["up"]).expect(0);
    stack.write_note("before the first backup");
    told(stack.run(&["backup"]).expect(0));
    for text in ["second", "third"] {
        stack.write_note(text);
        told(stack.run(&["backup"]).expect(0));
    }
    let list = stack.run(&["backup", "list", "--json"]).expect(0).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "what no rule keeps was removed: {list}");
    assert!(stack.run(&["backup", "check", "--read-data"]).expect(0).all().contains("sound"));
    told(stack.run(&["drill", "restore"]).expect(0));

    // restic reads it: the bucket by itself, and its objects as files. (This server gives it no list of packs: it takes an empty
    // delimiter for one.)
    let key = fs::read_to_string(stack.root.join(".switchback/backup.key")).expect("a key");
    let objects = folder.join("backups/home/pa");
    let restic = |repository: &str, args: &[&str]| {
        let mut command = Command::new("restic");
        command.args(["-r", repository, "--no-cache"]).args(args).stdin(Stdio::null());
        command
            .env("RESTIC_PASSWORD", key.trim())
            .env("AWS_ACCESS_KEY_ID", ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        let output = command.output().expect("restic is installed (scripts/test installs it)");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    restic(&address, &["snapshots"]);
    let objects = objects.to_str().expect("text");
    restic(objects, &["check", "--read-data"]);
    let out = beside.path().join("by-restic");
    restic(objects, &["restore", "latest", "--target", out.to_str().expect("text")]);
    assert!(out.join("stores/db/assistant.db").is_file());

    // Another machine has the key and who may ask, and nothing else.
    let (copy, env) = (beside.path().join("key"), beside.path().join("env"));
    fs::copy(stack.root.join(".switchback/backup.key"), &copy).expect("copies");
    fs::rename(&file, &env).expect("moves");
    stack.run(&["down", "--yes"]).expect(0);
    let into = beside.path().join("another-machine");
    let [copy, env, into] = [&copy, &env, &into].map(|p| p.to_str().expect("text"));
    let restore = |more: &[&str]| {
        let output = Command::new(common::PROGRAM)
            .args(["restore", "--from", &address, "--key-file", copy, "--into", into])
            .args(more)
            .env_remove("AWS_ACCESS_KEY_ID")
            .output()
            .expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = restore(&[]);
    assert!(code == Some(3) && said.contains("AWS_ACCESS_KEY_ID is not set"), "{said}");
    let (code, said) = restore(&["--env-file", env]);
    assert_eq!(code, Some(0), "{said}");
    let titles = Command::new("sqlite3")
        .arg(format!("{into}/data/assistant.db"))
        .arg("select title from notes")
        .output();
    let titles = String::from_utf8_lossy(&titles.expect("runs").stdout).into_owned();
    assert!(titles.contains("before the first") && titles.contains("third"), "{titles}");
}
