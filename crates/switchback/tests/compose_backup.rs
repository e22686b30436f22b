//! Backups of a Compose stack with PostgreSQL, SQLite and files, on a real engine: made, tried, and brought back after
//! everything is gone.

mod common;
#[path = "common/s3.rs"]
mod object_store;

use common::docker::{DB_PASSWORD, Example, Stack, docker};
use common::upgrade::{Bystander, assert_no_secret_is_told, burn_down, containers, report, staging_left};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn ledger(repository: &str) -> Stack {
    let stack = Stack::compose(Example::Ledger);
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 120s", "start: 300s");
    // The bank moves money by itself, also between its migration and the comparison.
    let checks = "workflows: [\"checks/*.yaml\"]";
    stack.edit("switchback.yaml", checks, &format!("{checks}\n  expected_changes: [\"books.accounts\"]"));
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}\nbackup: {{ repository: \"{repository}\" }}\n")).expect("writes");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn rows(stack: &Stack) -> String {
    stack.psql("select count(*), sum(id) from entries")
}

#[test]
fn everything_comes_back_from_the_repository_and_its_key_alone() {
    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    let stack = ledger(repository.to_str().expect("text"));
    let bystander = Bystander::start(&stack);
    stack.psql("create table entries (id bigint primary key, note text); insert into entries select g, 'note ' || g from generate_series(1, 5000) g");
    for _ in 0..5 {
        stack.transfer();
    }
    stack.run(&["backup", "init"]).expect(0);
    let (before, running, books) = (rows(&stack), containers(&stack), stack.bank());
    let made = stack.run(&["backup", "--json"]).expect(0).json();
    assert_eq!(containers(&stack), running, "production was restarted");
    assert!(made["backup"]["snapshot"]["files"].as_u64().is_some_and(|n| n > 500), "{made}");
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    let drill = stack.run(&["drill", "restore"]).expect(0);
    assert!(drill.all().contains("equal to what was read"), "{}", drill.all());
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    // As the next generation, and back.
    stack.psql("delete from entries where id > 100");
    stack.run(&["restore", "--yes", "--detach"]).expect(0);
    assert_eq!(rows(&stack), before);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_ne!(rows(&stack), before, "what was written since is in the generation before");

    // The host burns down: containers, volumes and the folder are gone.
    let key = beside.path().join("key");
    fs::copy(stack.root.join(".switchback/backup.key"), &key).expect("copies");
    burn_down(&stack);
    restore(&stack, repository.to_str().expect("text"), &key, None);
    stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(rows(&stack), before);
    let back = stack.bank();
    assert_eq!(back["ok"], true, "books and receipts are of one moment: {back}");
    assert!(back["transfers"].as_u64() >= books["transfers"].as_u64(), "{back}");
    // Plain Compose starts the same, and Switchback goes on as if nothing had been.
    let started = containers(&stack);
    stack.docker_compose(&["up", "-d", "--no-build"]).expect(0);
    assert_eq!(containers(&stack), started);
    stack.run(&["rehearse", "bank=2"]).expect(0);
    let trace = &report(&stack)["traces"]["books"];
    assert!(
        trace["file"]["transactions"].as_u64() > Some(0),
        "the migration was watched in a helper: {trace}"
    );
    let altered = trace["statements"].as_array().expect("definitions");
    assert!(!altered.is_empty() && trace["notes"].is_null(), "{trace}");
    stack.run(&["backup"]).expect(0);
    let list = stack.run(&["backup", "list", "--json"]).expect(0).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    bystander.assert_untouched();
    // The one file where the key belongs.
    fs::remove_file(stack.root.join(".switchback/backup.key")).expect("the restored stack has its key");
    assert_no_secret_is_told(&stack, &[DB_PASSWORD, fs::read_to_string(&key).expect("reads").trim()]);
}

/// Brings a stack back into its folder, from the repository and the key alone, and who may ask for it.
fn restore(stack: &Stack, repository: &str, key: &Path, variables: Option<&Path>) {
    let output = Command::new(common::PROGRAM)
        .args(["restore", "--from", repository])
        .args(variables.iter().flat_map(|file| [Path::new("--env-file"), *file]))
        .arg("--key-file")
        .arg(key)
        .arg("--into")
        .arg(&stack.root)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// In a bucket: helper containers write to it and read from it.
#[test]
fn images_that_no_registry_has_come_back_with_the_data() {
    let name = format!("sbt-backup-{}/bank", std::process::id());
    let image = format!("{name}:1");
    let mut build = Command::new("docker")
        .args(["build", "-q", "-t", &image, "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker is installed");
    let recipe = format!("FROM sbt/bank:1\nLABEL only.here={}\n", std::process::id());
    build.stdin.take().expect("an input").write_all(recipe.as_bytes()).expect("writes");
    assert!(build.wait().expect("ends").success());

    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    let stack = Stack::compose(Example::Bank);
    stack.set("BANK_IMAGE", &name);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::create_dir(&repository).expect("creates");
    let store = object_store::ObjectStore::start(&repository);
    let repository = format!("s3:http://127.0.0.1:{}/backups", store.port);
    let variables = beside.path().join("s3.env");
    let (id, secret) = (object_store::ID, object_store::SECRET);
    fs::write(&variables, format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}\n"))
        .expect("writes");
    let backup = format!(
        "backup: {{ repository: \"{repository}\", env_file: {}, images: true }}",
        variables.display()
    );
    fs::write(&path, format!("{text}\n{backup}\n")).expect("writes");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack.transfer();
    let books = stack.bank();
    stack.run(&["backup", "init"]).expect(0);
    stack.run(&["backup"]).expect(0);
    let key = beside.path().join("key");
    fs::copy(stack.root.join(".switchback/backup.key"), &key).expect("copies");
    let image_id = stack.inspect("bank", "{{.Image}}");
    // A drill brings the image of a release that nothing runs any more back by itself.
    stack.run(&["down", "--yes"]).expect(0);
    stack.docker_compose(&["rm", "-sf"]).expect(0);
    docker(&["image", "rm", "-f", &image_id]).expect(0);
    let drill = stack.run(&["drill", "restore"]).expect(0);
    assert!(drill.all().contains("mages"), "{}", drill.all());
    assert_eq!(
        docker(&["image", "inspect", "--format", "{{.Id}}", &image]).expect(0).stdout.trim(),
        image_id
    );
    assert_no_secret_is_told(&stack, &[object_store::SECRET]);
    burn_down(&stack);
    docker(&["image", "rm", "-f", &image_id]).expect(0);
    assert_ne!(docker(&["image", "inspect", &image]).code, Some(0), "the image is gone");

    restore(&stack, &repository, &key, Some(&variables));
    assert_eq!(
        docker(&["image", "inspect", "--format", "{{.Id}}", &image]).expect(0).stdout.trim(),
        image_id
    );
    stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(stack.bank(), books);
    drop(stack);
    docker(&["image", "rm", "-f", &image_id]);
}
