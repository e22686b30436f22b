//! `init`, `doctor` and `status` on Compose stacks, with a real engine: what init writes must carry a stack through a
//! rehearsal, and trouble with the engine must be named.

mod common;

use common::docker::{Example, Stack, docker};
use common::{PROGRAM, Ran};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// A stack of the tests without its configuration.
fn bare(example: Example) -> Stack {
    let stack = Stack::compose(example);
    fs::remove_file(stack.root.join("switchback.yaml")).expect("removes");
    fs::remove_dir_all(stack.root.join("checks")).expect("removes");
    stack
}

/// Names of images that are taken away again.
struct Tags(Vec<String>);

impl Drop for Tags {
    fn drop(&mut self) {
        for tag in &self.0 {
            docker(&["rmi", tag]);
        }
    }
}

fn run_with(root: &Path, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.arg("-C").arg(root).args(args).env("NO_COLOR", "1").envs(env.iter().copied());
    let output = command.stdin(Stdio::null()).output().expect("runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn config(stack: &Stack) -> String {
    let text = fs::read_to_string(stack.root.join("switchback.yaml")).expect("was written");
    text.replace(&stack.project, "PROJECT")
}

/// Ids of doctor's findings of a level.
fn ids(answer: &Value, level: &str) -> Vec<String> {
    let all = answer["findings"].as_array().expect("findings");
    let of_level = all.iter().filter(|f| f["level"] == level);
    of_level.map(|f| f["id"].as_str().expect("an id").to_owned()).collect()
}

/// Messages and advice of doctor's findings with an id.
fn said(answer: &Value, id: &str) -> String {
    let all = answer["findings"].as_array().expect("findings");
    all.iter().filter(|f| f["id"] == id).map(|f| format!("{} {}\n", f["message"], f["advice"])).collect()
}

/// A file of the stack, to see whether it was left alone.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(root)
        .expect("lists")
        .flatten()
        .filter(|e| e.path().is_file())
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("reads")))
        .collect();
    found.sort();
    found
}

#[test]
fn a_stack_without_configuration_is_rehearsed_as_init_wrote_it() {
    let mut tags = Tags(Vec::new());
    let stack = bare(Example::Bank);
    // The same release under another tag: an upgrade without a migration.
    let image = format!("sbt-init-{}", stack.project);
    for tag in ["1", "1b"] {
        tags.0.push(format!("{image}:{tag}"));
        docker(&["tag", "sbt/bank:1", &format!("{image}:{tag}")]).expect(0);
    }
    stack.set("BANK_IMAGE", &image);
    stack.up();
    stack.transfer();
    let text = stack.run(&["init", "--yes"]).expect(0).all();
    assert!(text.contains("books  SQLite  volume books: bank.db"), "{text}");
    insta::assert_snapshot!("bank_config", config(&stack));
    insta::assert_snapshot!(
        "bank_check",
        fs::read_to_string(stack.root.join("checks/bank-answers.yaml")).expect("was written")
    );
    // Nothing is replaced without being told, and then the old one is kept.
    let before = files(&stack.root);
    assert!(stack.run(&["init", "--yes"]).expect(2).all().contains("exists already"));
    assert_eq!(files(&stack.root), before);
    stack.run(&["init", "--yes", "--force"]).expect(0);
    assert!(stack.root.join("switchback.yaml.old").is_file());

    let before = stack.inspect("bank", "{{.Id}} {{.State.StartedAt}}");
    let answer = stack.run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(ids(&answer, "problem"), Vec::<String>::new(), "{answer:#}");
    assert!(!stack.root.join(".switchback").exists(), "doctor made a state folder");
    assert_eq!(stack.inspect("bank", "{{.Id}} {{.State.StartedAt}}"), before, "doctor changed production");

    stack.edit("switchback.yaml", "stable: 2s", "stable: 300ms");
    stack.run(&["up", "--yes"]).expect(0);
    stack.run(&["rehearse", "--yes", "bank=1b"]).expect(0);

    // On a busy machine a health check is late now and then.
    let healthy = || stack.run(&["status", "--json"]).expect(0).json()["services"][0]["health"] == "healthy";
    stack.wait_until("status says healthy", std::time::Duration::from_secs(120), healthy);
    let status = stack.run(&["status", "--json"]).expect(0).json();
    let service = &status["services"][0];
    assert_eq!(service["running"], true, "{status:#}");
    assert_eq!(service["endpoints"]["http"], format!("127.0.0.1:{}", stack.port));
    assert_eq!(status["drift"], serde_json::json!([]));
    assert_eq!(status["desired"]["bank"], "1");
    let answer = stack.run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(ids(&answer, "problem"), Vec::<String>::new(), "{answer:#}");
    assert!(said(&answer, "images").contains("a copy is kept as switchback-kept:"), "{answer:#}");

    // What runs is no longer what the generation says, and the lock file was taken away.
    docker(&["pause", &stack.container("bank").expect("runs")]).expect(0);
    fs::remove_file(stack.root.join("switchback.lock.yaml")).expect("removes");
    let text = stack.run(&["status"]).expect(0).all();
    assert!(text.contains("PAUSED") && text.contains("drift"), "{text}");
    let answer = stack.run(&["doctor", "--json"]).expect(3).json();
    assert!(said(&answer, "lock").contains("switchback.lock.yaml is gone"), "{answer:#}");
    assert!(said(&answer, "current").contains("is paused"), "{answer:#}");
    docker(&["unpause", &stack.container("bank").expect("runs")]).expect(0);

    // Without an engine, what is on disk is still told.
    let dead = [("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let text = run_with(&stack.root, &["status"], &dead).expect(0).all();
    assert!(text.contains("generation 1") && text.contains("not known what runs"), "{text}");
    let answer = run_with(&stack.root, &["doctor", "--json"], &dead).expect(3).json();
    assert!(said(&answer, "engine").contains("/nonexistent/docker.sock"), "{answer:#}");
    assert!(said(&answer, "engine").contains("named by DOCKER_HOST"), "{answer:#}");
}

#[test]
fn a_postgres_stack_is_described_and_its_server_is_asked() {
    let stack = bare(Example::JupyterHub);
    stack.up();
    stack.run(&["init", "--yes"]).expect(0);
    insta::assert_snapshot!("jupyterhub_config", config(&stack));
    stack.psql("create unlogged table forgetful (id int)");
    let answer = stack.run(&["doctor", "--json"]).expect(0).json();
    assert_eq!(ids(&answer, "problem"), Vec::<String>::new(), "{answer:#}");
    assert!(said(&answer, "postgres").contains("answers as role hub"), "{answer:#}");
    assert!(said(&answer, "postgres").contains("forgetful of database hub is unlogged"), "{answer:#}");
    assert_eq!(said(&answer, "replication").matches("can be copied by replication").count(), 1, "{answer:#}");

    // A wrong role: the server's own words.
    stack.edit("switchback.yaml", "service: db }", "service: db, user: nobody-of-the-tests }");
    let answer = stack.run(&["doctor", "--json"]).expect(3).json();
    assert!(
        said(&answer, "postgres").contains("role \\\"nobody-of-the-tests\\\" does not exist"),
        "{answer:#}"
    );

    // Data that would not come back with a rollback.
    stack.edit("switchback.yaml", "  srv: { kind: files, volume: srv }\n", "");
    let answer = stack.run(&["doctor", "--json"]).expect(3).json();
    assert!(
        said(&answer, "stores").contains("hub writes to the volume srv, which is no store"),
        "{answer:#}"
    );
}

#[test]
fn an_engine_that_is_away_or_refuses_is_named_and_init_says_what_it_could_not_see() {
    let stack = bare(Example::Bank);
    let dead = [("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let text = run_with(&stack.root, &["init", "--yes"], &dead).expect(0).all();
    assert!(text.contains("/nonexistent/docker.sock") && text.contains("Not seen"), "{text}");
    let written = config(&stack);
    assert!(written.contains("# NOT SEEN:"), "{written}");
    assert!(written.contains("books: { kind: files, volume: books }"), "{written}");

    // A proxy that lets reading through and nothing else.
    let proxy = stack.root.join("proxy.sock");
    let listener = UnixListener::bind(&proxy).expect("binds");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || relay(client));
        }
    });
    let host = format!("unix://{}", proxy.display());
    let answer = run_with(&stack.root, &["doctor", "--json"], &[("DOCKER_HOST", &host)]).expect(3).json();
    let refused = said(&answer, "permissions");
    assert!(refused.contains("refuses POST") && refused.contains("allow POST in the proxy"), "{answer:#}");
    assert!(!refused.contains("CONTAINERS"), "{refused}");

    // Docker Compose is not there, or is the old one.
    let tools = stack.root.join("tools");
    fs::create_dir(&tools).expect("creates");
    let home = stack.root.display().to_string();
    let path = tools.display().to_string();
    let installed = [
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ];
    // A plugin of the system is found without the docker command, too.
    if installed.iter().any(|dir| Path::new(dir).join("docker-compose").is_file()) {
        eprintln!("SKIPPED in part: Docker Compose is installed as a plugin of the system");
        return;
    }
    let without = [("PATH", path.as_str()), ("HOME", &home), ("DOCKER_CONFIG", &home)];
    let answer = run_with(&stack.root, &["doctor", "--json"], &without).expect(3).json();
    assert!(said(&answer, "compose").contains("Docker Compose v2 is not installed"), "{answer:#}");
    let old = tools.join("docker-compose");
    fs::write(&old, "#!/bin/sh\necho 1.29.2\n").expect("writes");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).expect("chmod");
    let answer = run_with(&stack.root, &["doctor", "--json"], &without).expect(3).json();
    assert!(said(&answer, "compose").contains("Docker Compose 1.29.2 is too old"), "{answer:#}");
}

/// Answers what changes something with 403, as socket proxies do, and passes on the rest.
fn relay(mut client: UnixStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    if !(head.starts_with(b"GET ") || head.starts_with(b"HEAD ")) {
        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
    }
    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock") else { return };
    // One request per connection: what follows on it could be anything.
    let text = String::from_utf8_lossy(&head).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    if engine.write_all(text.as_bytes()).is_ok() {
        let _ = std::io::copy(&mut engine, &mut client);
    }
}

#[test]
fn hostile_names_stay_names_and_what_belongs_to_the_host_is_shared() {
    let stack = bare(Example::Bank);
    let odd = stack.root.join("we\"ird # : {x} 'q'");
    fs::create_dir_all(odd.join("yes: no")).expect("creates");
    fs::write(odd.join("yes: no/app \"1\".db"), "SQLite format 3\0and more").expect("writes");
    fs::write(odd.join("yes: no/b\n.db"), "SQLite format 3\0and more").expect("writes");
    fs::write(stack.root.join("app.conf"), "x").expect("writes");
    fs::write(
        stack.root.join("compose.yaml"),
        r#"services:
  "on":
    image: sbt/bank:1
    command: ["echo", "$${NOT}: # \u001b[31m"]
    volumes:
      - { type: bind, source: "./we\"ird # : {x} 'q'", target: /data }
      - { type: bind, source: ./app.conf, target: /etc/app.conf }
      - { type: bind, source: ., target: /all }
      - { type: bind, source: /var/run/docker.sock, target: /var/run/docker.sock }
      - { type: bind, source: /etc/hostname, target: /h }
      - "yes:/books"
  cache:
    image: redis:7
    volumes: ["null:/data"]
volumes:
  "yes": {}
  "null": {}
"#,
    )
    .expect("writes");
    let text = stack.run(&["init", "--yes"]).expect(0).all();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("the image redis:7 is not on the engine"), "{text}");
    let written = config(&stack);
    let parsed = switchback_core::config::Config::parse(&written, "switchback.yaml").expect("valid");
    let shared = parsed.compose.expect("is said").shared;
    for path in ["./app.conf", "/var/run/docker.sock", "/etc/hostname"] {
        assert!(shared.iter().any(|s| s == path), "{path} in {shared:?}");
    }
    assert!(shared.contains(&stack.root.display().to_string()), "{shared:?}");
    let paths: Vec<&str> = parsed.stores.values().map(|s| s.path.as_str()).collect();
    assert!(paths.iter().any(|p| p.ends_with("/yes: no/app \"1\".db")), "{paths:?}");
    assert!(paths.iter().any(|p| p.ends_with("/yes: no/b\n.db")), "{paths:?}");
    assert!(parsed.stores.values().any(|s| s.volume.as_deref() == Some("yes")), "{written}");
    // Redis writes its files anew whenever it runs.
    assert_eq!(parsed.checks.expected_changes, ["null.*"]);
    assert!(parsed.services.contains_key("on") && !parsed.services.contains_key("cache"));
    let text = stack.run(&["doctor"]).all();
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
