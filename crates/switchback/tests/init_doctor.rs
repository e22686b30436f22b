//! `init` and `doctor` with the real program: what init writes must carry a stack through an upgrade.

use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use switchback_core::config::Config;

const PROGRAM: &str = env!("CARGO_BIN_EXE_switchback");
const MIGRATE: &str = "{release}/bin/assistant migrate --release {release} --db {store.db}";

/// A stack in a temporary folder; whatever runs of it is stopped at the end, also after a panic.
struct Stack {
    dir: tempfile::TempDir,
    service: Option<Child>,
    port: u16,
}

impl Stack {
    fn empty() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = socket.local_addr().expect("bound").port();
        Self { dir, service: None, port }
    }

    /// The assistant, installed in two versions, with data.
    fn assistant() -> Self {
        let stack = Self::empty();
        for (kind, version) in [("v1", "1.0.0"), ("v2", "2.0.0")] {
            stack.tool(&["release", kind, &format!("releases/{version}"), "--program", PROGRAM, "--symlink"]);
        }
        fs::create_dir(stack.path("data")).expect("mkdir");
        let seed = ["seed", "--db", "data/assistant.db", "--uploads", "data/uploads", "--notes", "20"];
        stack.tool(&seed);
        fs::create_dir_all(stack.path("data/uploads")).expect("mkdir");
        stack
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn tool(&self, args: &[&str]) {
        let done = Command::new(PROGRAM).arg0("assistant").args(args).current_dir(self.dir.path()).output();
        let done = done.expect("runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Starts the service by hand, as somebody who does not know Switchback does.
    fn start_by_hand(&mut self) {
        let child = Command::new("releases/1.0.0/bin/assistant")
            .args(["serve", "--release", "releases/1.0.0", "--db", "data/assistant.db"])
            .args(["--uploads", "data/uploads", "--listen", &format!("127.0.0.1:{}", self.port)])
            .current_dir(self.dir.path())
            .env_clear()
            .envs(["PATH", "HOME", "LANG"].into_iter().filter_map(|n| Some((n, std::env::var_os(n)?))))
            .env("ASSISTANT_TOKEN", "a-very-secret-token")
            .env("ASSISTANT_NOTE", "{braces} and \"quotes\"")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        self.service = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the assistant does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop_by_hand(&mut self) {
        if let Some(mut child) = self.service.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM)
            .arg("-C")
            .arg(self.dir.path())
            .args(args)
            .env("NO_COLOR", "1")
            .env_remove("SWITCHBACK_YES")
            .stdin(Stdio::null())
            .output()
            .expect("runs")
    }

    #[track_caller]
    fn expect(&self, exit: i32, args: &[&str]) -> String {
        let done = self.run(args);
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(exit), "{args:?}\nstdout: {out}\nstderr: {err}");
        format!("{out}{err}")
    }

    #[track_caller]
    fn json(&self, exit: i32, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        let done = self.run(&all);
        let text = String::from_utf8_lossy(&done.stdout);
        assert_eq!(
            done.status.code(),
            Some(exit),
            "{args:?}: {text}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        serde_json::from_str(&text).expect("JSON")
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.path(file)).expect("exists").permissions().mode() & 0o777
    }

    fn config_text(&self) -> String {
        fs::read_to_string(self.path("switchback.yaml")).expect("switchback.yaml")
    }

    fn config(&self) -> Config {
        Config::parse(&self.config_text(), "switchback.yaml").expect("valid")
    }

    /// Ids of the findings of a level.
    #[track_caller]
    fn doctor(&self, exit: i32, level: &str) -> Vec<String> {
        let answer = self.json(exit, &["doctor"]);
        let findings = answer["findings"].as_array().expect("findings").clone();
        let ids = findings.iter().filter(|f| f["level"] == level);
        ids.map(|f| f["id"].as_str().expect("id").to_owned()).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop_by_hand();
        if !self.path(".switchback").exists() {
            return;
        }
        for args in
            [&["down", "--yes"][..], &["resume", "--abort"], &["rollback", "--yes"], &["down", "--yes"]]
        {
            if self.run(args).status.success() && args[0] == "down" {
                return;
            }
        }
    }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
    fs::write(path, text).expect("write");
}

/// An empty database that SQLite itself made.
fn database(path: &Path) {
    fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
    let db = rusqlite::Connection::open(path).expect("opens");
    db.execute_batch("create table t (id integer primary key); insert into t values (1);").expect("writes");
}

#[test]
fn a_running_service_becomes_a_stack_that_is_upgraded_and_rolled_back() {
    let mut stack = Stack::assistant();
    stack.start_by_hand();
    let port = stack.port.to_string();
    let found = stack.json(0, &["init", "--name", "app", "--port", &port, "--migrate", MIGRATE]);
    assert_eq!(found["warnings"], serde_json::json!([]), "{found}");
    assert_eq!(found["secrets"], serde_json::json!(["ASSISTANT_TOKEN"]));
    let config = stack.config();
    let service = &config.services["app"];
    assert_eq!(service.version, "1.0.0");
    assert_eq!(service.release.as_deref(), Some("releases/{version}"));
    assert_eq!(
        service.command,
        [
            "{release}/bin/assistant",
            "serve",
            "--release",
            "{release}",
            "--db",
            "{store.db}",
            "--uploads",
            "{store.uploads}",
            "--listen",
            "127.0.0.1:{port.http}"
        ]
    );
    assert_eq!(service.health.http.as_deref(), Some("/health"));
    assert_eq!(service.env["ASSISTANT_NOTE"], "{{braces}} and \"quotes\"");
    assert_eq!(config.stores["db"].path, "data/assistant.db");
    assert_eq!(config.stores["uploads"].path, "data/uploads");
    assert!(!stack.config_text().contains("a-very-secret-token"));
    assert_eq!(stack.mode("app.env"), 0o600);
    assert_eq!(stack.mode("switchback.yaml"), 0o644);

    // The service still runs by hand: doctor says so, and that is no fault of the stack.
    assert!(stack.doctor(0, "warning").contains(&"ports".to_owned()));
    stack.stop_by_hand();
    // Only faster, nothing else: two seconds of stability and half an hour of trial are for people.
    let text = stack.config_text().replace("stable: 2s", "stable: 300ms");
    let text = text.replace("watch: 30m", "watch: 2s").replace("every: 10s", "every: 200ms");
    write(&stack.path("switchback.yaml"), text);
    fs::set_permissions(stack.path("switchback.yaml"), fs::Permissions::from_mode(0o644)).expect("chmod");

    stack.expect(0, &["up"]);
    stack.expect(0, &["rehearse", "app=2.0.0"]);
    stack.expect(0, &["promote", "--yes", "app=2.0.0"]);
    assert_eq!(stack.config().services["app"].version, "2.0.0");
    assert_eq!(stack.mode("switchback.yaml"), 0o644, "the edit of the version keeps the mode");
    assert_eq!(stack.doctor(0, "problem"), Vec::<String>::new());
    let answer = ureq::get(format!("http://127.0.0.1:{port}/health")).call().expect("answers");
    let health: Value = serde_json::from_reader(answer.into_body().into_reader()).expect("JSON");
    assert_eq!(health["version"], "2.0.0");
    stack.expect(0, &["rollback", "--yes"]);
    assert_eq!(stack.doctor(0, "problem"), Vec::<String>::new());

    // What a rollback forward, or a restart, would find changed is a problem.
    write(&stack.path("releases/1.0.0/release-notes.txt"), "changed");
    assert_eq!(stack.doctor(3, "problem"), ["artefact"]);
    fs::remove_file(stack.path("releases/1.0.0/release-notes.txt")).expect("removes");
    // A process that Switchback runs is not described a second time.
    let text = stack.expect(2, &["init", "--force", "--port", &port]);
    assert!(text.contains("already runs under Switchback"), "{text}");
    stack.expect(0, &["down", "--yes"]);
    assert_eq!(stack.doctor(0, "problem"), Vec::<String>::new());
}

#[test]
fn an_empty_folder_gets_a_template_and_a_full_command_line_leaves_nothing_to_do() {
    let stack = Stack::empty();
    let text = stack.expect(0, &["init", "--name", "hub"]);
    assert!(text.contains("where it says TODO"), "{text}");
    assert!(stack.config_text().contains("TODO"));
    stack.config();
    assert!(stack.doctor(3, "problem").contains(&"program".to_owned()));

    let stack = Stack::empty();
    database(&stack.path("data/hub.db"));
    for version in ["3.1.1", "5.4.6"] {
        write(&stack.path(&format!("venvs/{version}/bin/hub")), "#!/bin/sh\nexec sleep 60\n");
        fs::set_permissions(
            stack.path(&format!("venvs/{version}/bin/hub")),
            fs::Permissions::from_mode(0o755),
        )
        .expect("chmod");
    }
    let command = "{release}/bin/hub --db {store.db} --port {port.http}";
    let text = stack.expect(2, &["init", "--name", "hub", "--command", command, "--version", "3.1.1"]);
    assert!(text.contains("--port"), "{text}");
    let text = stack.expect(2, &["init", "--name", "hub", "--command", command, "--port", "8000"]);
    assert!(text.contains("3.1.1, 5.4.6") && text.contains("--version"), "{text}");
    let missing = command.replace("{store.db}", "{store.mail} {store.db}");
    let args = ["--version", "3.1.1", "--port", "8000", "--sqlite", "data/hub.db"];
    let text = stack.expect(2, &[&["init", "--command", &missing][..], &args].concat());
    assert!(text.contains("--sqlite mail=PATH") || text.contains("--sqlite db=PATH"), "{text}");
    assert!(!stack.path("switchback.yaml").exists() && !stack.path("checks").exists());

    stack.expect(0, &[&["init", "--name", "hub", "--command", command][..], &args].concat());
    assert!(!stack.config_text().contains("TODO"), "{}", stack.config_text());
    let config = stack.config();
    assert_eq!(config.services["hub"].release.as_deref(), Some("venvs/{version}"));
    assert_eq!(config.stores["db"].path, "data/hub.db");
    assert_eq!(stack.doctor(0, "problem"), Vec::<String>::new());
}

#[test]
fn nothing_is_overwritten_without_being_told() {
    let stack = Stack::empty();
    write(&stack.path("switchback.yaml"), "precious");
    write(&stack.path("checks/first.yaml"), "mine");
    let text = stack.expect(2, &["init"]);
    assert!(text.contains("exists already") && text.contains("--force"), "{text}");
    assert_eq!(stack.config_text(), "precious");
    stack.expect(0, &["init", "--force"]);
    assert_eq!(fs::read_to_string(stack.path("switchback.yaml.old")).expect("kept"), "precious");
    stack.config();
    fs::remove_file(stack.path("switchback.yaml")).expect("removes");
    write(&stack.path("checks/first.yaml"), "mine");
    stack.expect(0, &["init"]);
    assert_eq!(fs::read_to_string(stack.path("checks/first.yaml")).expect("kept"), "mine");
    // A dangling link is something, too.
    fs::remove_file(stack.path("switchback.yaml")).expect("removes");
    std::os::unix::fs::symlink("/nowhere", stack.path("switchback.yaml")).expect("links");
    stack.expect(2, &["init"]);
    stack.expect(2, &["-C", "/does/not/exist", "init"]);
}

#[test]
fn hostile_file_names_stay_names() {
    use std::os::unix::ffi::OsStrExt as _;
    let stack = Stack::empty();
    let name = "we\"ird\n\u{1b}[31m # : {x} \\ 'q'.db";
    database(&stack.path(name));
    database(&stack.path("-rf.db"));
    write(&stack.dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.db")), "SQLite format 3\0");
    write(&stack.path("releases/1.0.0\n/x"), "");
    let text = stack.expect(0, &["init"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("not UTF-8"), "{text}");
    let config = stack.config();
    let paths: Vec<&str> = config.stores.values().map(|s| s.path.as_str()).collect();
    assert_eq!(config.stores.len(), 2);
    assert!(paths.contains(&name) && paths.contains(&"-rf.db"), "{paths:?}");
    let text = stack.expect(3, &["doctor"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn init_says_what_is_wrong_with_what_it_was_told() {
    let stack = Stack::empty();
    let port = stack.port.to_string();
    for (args, expected) in [
        (&["--port", &port][..], "nothing listens on port"),
        (&["--pid", "999999999"], "there is no process"),
        (&["--name", "../x"], "not allowed"),
        (&["--health", "health", "--command", "x", "--port", "80"], "must start with /"),
        (&["--command", "a | b", "--port", "80"], "not run by a shell"),
        (&["--command", "a 'b", "--port", "80"], "unclosed"),
        (&["--command", "{release}/x", "--port", "80"], "no version folder"),
        (&["--command", "x {nope}", "--port", "80"], "unknown placeholder"),
        (&["--command", "x", "--port", "80", "--config", "../secret"], "leaves the stack"),
        (&["--files", "."], "cannot be a store"),
    ] {
        let text = stack.expect(2, &[&["init"][..], args].concat());
        assert!(text.contains(expected), "{args:?}: {text}");
        assert!(!stack.path("switchback.yaml").exists(), "{args:?} wrote something");
    }
}

#[test]
fn doctor_reports_a_broken_configuration_instead_of_dying() {
    let stack = Stack::empty();
    assert_eq!(stack.doctor(3, "problem"), ["parses"]);
    write(&stack.path("switchback.yaml"), "stack: [");
    assert_eq!(stack.doctor(3, "problem"), ["parses"]);
    stack.expect(2, &["-C", "/does/not/exist", "doctor"]);
    assert!(!stack.path(".switchback").exists(), "doctor made a state folder");
}

#[test]
fn doctor_finds_what_would_hurt() {
    let stack = Stack::empty();
    database(&stack.path("data/app.db"));
    database(&stack.path("data/other.db"));
    fs::create_dir_all(stack.path("shared")).expect("mkdir");
    let text = format!(
        r#"stack: s
services:
  app:
    version: 1.0.0
    release: releases/{{version}}
    command: ["/bin/sleep", "60", "--db={dir}/data/app.db", "--dir", "{dir}/shared", "{{store.gone}}"]
    env: {{ API_TOKEN: "abcdef", DB: "{{store.kind}}", CACHE: "redis://h/1" }}
    env_file: app.env
    ports: {{ http: {port} }}
    health: {{ http: /, stable: 0s }}
stores:
  db: {{ kind: sqlite, path: data/app.db }}
  gone: {{ kind: files, path: nowhere/x }}
  kind: {{ kind: sqlite, path: switchback.yaml }}
"#,
        dir = stack.dir.path().display(),
        port = stack.port
    );
    write(&stack.path("switchback.yaml"), &text);
    write(&stack.path("app.env"), "X=1\n");
    fs::set_permissions(stack.path("app.env"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let problems = stack.doctor(3, "problem");
    for id in ["stores", "store_use", "release", "shared_path", "port_use", "external_server"] {
        assert!(problems.contains(&id.to_owned()), "{id} is missing: {problems:?}");
    }
    let warnings = stack.doctor(3, "warning");
    for id in ["secrets", "shared_path", "stable", "untested"] {
        assert!(warnings.contains(&id.to_owned()), "{id} is missing: {warnings:?}");
    }
    let before: Vec<_> = walk(stack.dir.path());
    stack.doctor(3, "problem");
    assert_eq!(walk(stack.dir.path()), before, "doctor left something behind");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("lists").flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

#[test]
fn doctor_reports_a_damaged_and_a_newer_state() {
    let mut stack = Stack::assistant();
    stack.start_by_hand();
    let port = stack.port.to_string();
    stack.expect(0, &["init", "--name", "app", "--port", &port, "--migrate", MIGRATE]);
    stack.stop_by_hand();
    let text = stack.config_text().replace("stable: 2s", "stable: 50ms");
    write(&stack.path("switchback.yaml"), text);
    stack.expect(0, &["up"]);
    stack.expect(0, &["down", "--yes"]);
    assert_eq!(stack.doctor(0, "problem"), Vec::<String>::new());

    let current = stack.path(".switchback/current.json");
    let kept = fs::read_to_string(&current).expect("reads");
    write(&current, kept.replace("\"format\": 1", "\"format\": 99"));
    assert_eq!(stack.doctor(3, "problem"), ["generations"]);
    write(&current, kept);

    fs::create_dir_all(stack.path(".switchback/staging/01ABC")).expect("mkdir");
    assert!(stack.doctor(0, "warning").contains(&"staging".to_owned()));
    fs::remove_dir(stack.path(".switchback/staging/01ABC")).expect("removes");

    let journal = stack.path(".switchback/journal.db");
    let db = rusqlite::Connection::open(&journal).expect("opens");
    db.execute("update events set json = replace(json, 'started', 'Started') where seq = 2", [])
        .expect("edits");
    drop(db);
    assert!(stack.doctor(3, "problem").contains(&"journal".to_owned()));
    fs::remove_file(&journal).expect("removes");
    assert!(stack.doctor(3, "problem").contains(&"journal".to_owned()));
}
