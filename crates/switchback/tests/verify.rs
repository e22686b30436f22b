//! The acceptance run with the real program on the example stack.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_switchback");

/// The example stack, with two healthy releases and one that loses rows.
struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("stack");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assistant/stack");
        fs::create_dir_all(root.join("checks")).expect("creates");
        fs::create_dir_all(root.join("data")).expect("creates");
        for entry in fs::read_dir(example.join("checks")).expect("lists") {
            let path = entry.expect("entry").path();
            fs::copy(&path, root.join("checks").join(path.file_name().expect("named"))).expect("copies");
        }
        let port = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
        let config = fs::read_to_string(example.join("switchback.yaml")).expect("reads");
        fs::write(root.join("switchback.yaml"), config.replace("8765", &port.to_string())).expect("writes");
        fs::write(root.join("assistant.env"), "ASSISTANT_TOKEN=a-token-that-nobody-may-see\n")
            .expect("writes");
        // Under this name the program is the service.
        let assistant = dir.path().join("assistant");
        symlink(BIN, &assistant).expect("links");
        let call = |args: &[&str]| {
            let done = Command::new(&assistant).args(args).output().expect("runs");
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        for (kind, version) in [("v1", "1.0.0"), ("v2", "2.0.0"), ("lossy-migration", "2.1.0")] {
            let to = root.join("releases").join(version).display().to_string();
            call(&["release", kind, &to, "--program", BIN, "--symlink"]);
        }
        let (db, uploads) = (root.join("data/assistant.db"), root.join("data/uploads"));
        call(&[
            "seed",
            "--db",
            &db.display().to_string(),
            "--uploads",
            &uploads.display().to_string(),
            "--notes",
            "120",
            "--uploads-count",
            "4",
        ]);
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("stack")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(args).arg("-C").arg(self.root()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    fn up(&self) {
        let done = self.run(&["up", "--quiet"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn matrix(&self) -> Value {
        let text = fs::read_to_string(self.root().join("reports/upgrade-infrastructure/evidence.json"));
        serde_json::from_str(&text.expect("reads")).expect("parses")
    }

    /// Content of everything that is production's.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.root(), &self.root(), &mut found);
        found.retain(|name, _| {
            !name.starts_with("reports/")
                && !name.starts_with(".switchback/verify")
                && !name.ends_with("-shm")
                && !name.ends_with("-wal")
                && !name.ends_with(".log")
        });
        found
    }

    /// Processes that this stack, or a sandbox of it, left running.
    fn processes(&self) -> Vec<String> {
        let root = self.dir.path().display().to_string();
        let numbers = fs::read_dir("/proc").expect("lists").flatten();
        let mut found: Vec<String> = numbers
            .filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
            .filter_map(|e| {
                let line = fs::read(e.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(&root).then(|| format!("{} {line}", e.file_name().to_string_lossy()))
            })
            .collect();
        found.sort();
        found
    }

    fn nothing_left(&self) {
        let folder = self.root().join(".switchback/verify");
        let left: Vec<_> = fs::read_dir(&folder).expect("lists").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let strange: Vec<String> =
            self.processes().into_iter().filter(|p| p.contains(".switchback/verify/")).collect();
        assert!(strange.is_empty(), "{strange:#?}");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let done = self.run(&["down", "--quiet", "--yes"]);
        let never_started = !self.root().join(".switchback/current.json").exists();
        assert!(
            done.status.success() || never_started || std::thread::panicking(),
            "the stack was left running: {}",
            text(&done)
        );
    }
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below").display().to_string();
        match entry.file_type() {
            Ok(t) if t.is_dir() => collect(root, &path, found),
            Ok(t) if t.is_file() => {
                found.insert(name, fs::read(&path).unwrap_or_default());
            }
            _ => {}
        }
    }
}

fn verdicts(matrix: &Value, list: &str) -> BTreeMap<String, String> {
    let items = matrix[list].as_array().expect("a list");
    let word = |v: &Value, key: &str| v[key].as_str().expect("text").to_owned();
    items.iter().map(|i| (word(i, "id"), word(i, "verdict"))).collect()
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_good_upgrade_proves_what_can_be_proved_and_production_is_not_touched() {
    let stack = Stack::new();
    stack.up();
    let (files, processes) = (stack.files(), stack.processes());
    // The documentation is judged by tests of its own.
    let done = stack.run(&["verify", "app=2.0.0", "--docs", "/nowhere"]);
    let matrix = stack.matrix();
    let (rows, evidence) = (verdicts(&matrix, "rows"), verdicts(&matrix, "evidence"));
    let failed: Vec<_> =
        matrix["evidence"].as_array().expect("list").iter().filter(|e| e["verdict"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for id in [
        "staging.deployed",
        "staging.provisioning",
        "staging.data",
        "staging.lifecycle",
        "staging.health",
        "staging.gaps",
        "staging.isolation",
        "staging.monitoring",
        "validation.workflows",
        "validation.api",
        "validation.alerting",
        "validation.reporting",
        "database.migration",
        "database.integrity",
        "database.rollback",
        "database.performance",
        "database.compatibility",
        "rollback.budget",
        "rollback.triggers",
        "rollback.downtime",
        "rollback.data",
        "rollback.writes",
        "rollback.configuration",
        "rollback.services",
        "rollback.validated",
        "rollback.failure",
        "rollback.drill",
        "integration.automation",
        "integration.reporting",
        "integration.analytics",
        "integration.backup",
        "integration.recovery",
        "integration.validated",
        "integration.no-loss",
    ] {
        assert_eq!(rows[id], "pass", "{id}: {}", text(&done));
    }
    // What this stack has no check for, and what was left out, never passes.
    for id in [
        "validation.performance",
        "validation.experience",
        "validation.effectiveness",
        "integration.full",
        "documentation.accurate",
    ] {
        assert_eq!(rows[id], "not_run", "{id}");
    }
    // One service alone has nothing to integrate with or to leave running, and SQLite no version of its own: facts, counted apart.
    assert_eq!(rows["validation.integration"], "not_applicable");
    assert_eq!(rows["rollback.single"], "not_applicable");
    assert_eq!(evidence["compat.database-versions"], "not_applicable");
    assert_eq!(matrix["counts"]["not_applicable"], 2);
    for id in ["mutants.basic", "workflow:notes", "workflow:reading", "staging.isolated", "staging.masked"] {
        assert_eq!(evidence[id], "pass", "{id}");
    }
    assert_eq!(done.status.code(), Some(6), "{}", text(&done));
    assert_eq!(
        matrix["rows"].as_array().expect("rows").len() as u64,
        matrix["counts"]["total"].as_u64().expect("n")
    );
    artefacts_are_there(&stack, &matrix);
    assert_eq!(stack.processes(), processes);
    let now = stack.files();
    for (name, content) in &files {
        assert!(now.get(name) == Some(content), "{name} changed");
    }
    let new: Vec<&String> = now.keys().filter(|n| !files.contains_key(*n)).collect();
    assert!(new.is_empty(), "{new:?}");
    stack.nothing_left();
}

/// Every file that the evidence names is there with the hash it names, and none holds the secret.
fn artefacts_are_there(stack: &Stack, matrix: &Value) {
    let out = stack.root().join("reports/upgrade-infrastructure");
    let mut seen = 0;
    for evidence in matrix["evidence"].as_array().expect("list") {
        for file in evidence["artefacts"].as_array().expect("list") {
            let bytes = fs::read(out.join(file["path"].as_str().expect("path"))).expect("the artefact");
            assert_eq!(file["bytes"].as_u64(), Some(bytes.len() as u64), "{file}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} artefacts");
    let mut all = BTreeMap::new();
    collect(&out, &out, &mut all);
    for name in ["index.html", "matrix.md", "junit.xml", "evidence.json"] {
        assert!(all.contains_key(name), "{name}");
    }
    for (name, content) in &all {
        assert!(
            !String::from_utf8_lossy(content).contains("a-token-that-nobody-may-see"),
            "{name} holds a secret"
        );
    }
}

#[test]
fn an_upgrade_that_loses_rows_fails_its_rows_and_nothing_is_promoted() {
    let stack = Stack::new();
    stack.up();
    let done = stack.run(&["verify", "app=2.1.0", "--docs", "/nowhere", "--json", "--quiet"]);
    assert_eq!(done.status.code(), Some(3), "{}", text(&done));
    let matrix: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(matrix, stack.matrix());
    let rows = verdicts(&matrix, "rows");
    assert_eq!(rows["database.integrity"], "fail");
    assert_eq!(rows["integration.no-loss"], "fail");
    assert_eq!(rows["staging.deployed"], "pass");
    let why = matrix["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .find(|r| r["id"] == "database.integrity")
        .expect("there");
    assert_eq!(why["reasons"][0]["at"], "db.notes", "{why:#}");
    for id in ["rollback.budget", "rollback.triggers", "validation.effectiveness", "integration.validated"] {
        assert_eq!(rows[id], "not_run", "{id}");
    }
    stack.nothing_left();
}

#[test]
fn without_an_upgrade_one_is_made_up_and_said_so_and_a_users_criteria_are_judged() {
    let stack = Stack::new();
    // The stack was never started: its data is read where it lies.
    let config = stack.root().join("switchback.yaml");
    let mut yaml = fs::read_to_string(&config).expect("reads");
    yaml.push_str("verify: { catalogue: mine.yaml }\n");
    fs::write(&config, yaml).expect("writes");
    let mine = "format: 1\ncriteria:\n  - { id: mine.notes, area: Mine, text: Notes can be written, needs: ['workflow:notes'] }\n  - { id: mine.mail, area: Mine, text: Mail is sent, needs: ['command:mail'] }\n";
    fs::write(stack.root().join("mine.yaml"), mine).expect("writes");
    let done = stack.run(&["verify", "--phase", "staging", "--phase", "validation"]);
    assert_eq!(done.status.code(), Some(6), "{}", text(&done));
    let matrix = stack.matrix();
    assert!(
        matrix["notes"][0].as_str().expect("a note").contains("SWITCHBACK_VERIFY=1"),
        "{}",
        matrix["notes"]
    );
    let rows = verdicts(&matrix, "rows");
    assert_eq!((rows["mine.notes"].as_str(), rows["mine.mail"].as_str()), ("pass", "not_run"));
    assert_eq!((rows["staging.deployed"].as_str(), rows["rollback.budget"].as_str()), ("pass", "not_run"));
    assert_eq!(verdicts(&matrix, "evidence")["mutants.basic"], "pass", "{}", text(&done));
    stack.nothing_left();
    fs::write(stack.root().join("mine.yaml"), mine.replace("workflow:notes", "workflows.pased"))
        .expect("writes");
    let refused = stack.run(&["verify", "--list"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused).contains("mine.yaml:3")
            && text(&refused).contains("did you mean \"workflows.passed\"?")
    );
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let stack = Stack::new();
    stack.up();
    let processes = stack.processes();
    let mut child = stack
        .command(&["verify", "app=2.0.0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    // Interrupted while staging runs: a process of the sandbox is there.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stack.processes().iter().any(|p| p.contains("/staging/")) {
        assert!(Instant::now() < deadline, "staging never ran");
        assert!(child.try_wait().expect("asks").is_none(), "verify ended early");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    stack.nothing_left();
    assert_eq!(stack.processes(), processes);
}

#[test]
fn the_catalogue_is_listed_without_a_stack() {
    let dir = tempfile::tempdir().expect("tempdir");
    let done = Command::new(BIN).args(["verify", "--list", "-C"]).arg(dir.path()).output().expect("runs");
    assert!(done.status.success());
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("documentation.accurate")
            && text.contains("needs docs.examples-executed (phase documentation)")
            && !text.contains("nothing produces it")
    );
}
