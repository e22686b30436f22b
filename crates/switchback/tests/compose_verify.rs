//! The acceptance run on a stack of containers: what it proves, and that production and the engine are left as they
//! were.

mod common;

use common::docker::{Example, Stack, docker, need};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A busy machine starts a container in many seconds.
const LONG: Duration = Duration::from_secs(240);

/// A bank whose health checks are patient: a machine that tests is busy. What a sandbox of it leaves is removed.
struct Bank(Stack);

impl Bank {
    fn up() -> Self {
        let stack = Stack::compose(Example::Bank);
        stack.edit("compose.yaml", "timeout: 3s", "timeout: 30s");
        stack.edit("compose.yaml", "start_period: 20s", "start_period: 180s");
        stack.edit("switchback.yaml", "start: 20s", "start: 200s, timeout: 20s");
        // What the known-bad upgrades show to be missing in the starter checks.
        stack.edit(
            "switchback.yaml",
            "workflows: [\"checks/*.yaml\"]",
            "workflows: [\"checks/*.yaml\"]\n  api: [{ service: bank, requests: [/totals] }]",
        );
        stack.up();
        stack.run(&["up", "--yes"]).expect(0);
        Self(stack)
    }

    /// Containers, volumes and networks of sandboxes: their project's name begins with production's.
    fn sandboxes(&self) -> Vec<String> {
        let wanted = format!("{}-verify-", self.0.project);
        let lists: [&[&str]; 3] = [
            &["ps", "-a", "--format", "{{.Names}}"],
            &["volume", "ls", "-q"],
            &["network", "ls", "--format", "{{.Name}}"],
        ];
        let found = lists.iter().flat_map(|args| {
            let text = docker(args).expect(0).stdout;
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        found.filter(|n| n.starts_with(&wanted)).collect()
    }

    fn nothing_left(&self) {
        assert_eq!(self.sandboxes(), [""; 0]);
        let folder = self.0.root.join(".switchback/verify");
        let left: Vec<_> = fs::read_dir(&folder).expect("lists").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// What must not change: the container, since when it runs, and the data.
    fn production(&self) -> BTreeMap<&'static str, String> {
        let state = "{{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Status}} {{.Image}}";
        let container = self.0.container("bank").expect("runs");
        let list = ["exec", &container, "find", "/data", "/receipts", "-type", "f", "-name", "*[!ml]"];
        BTreeMap::from([
            ("container", self.0.inspect("bank", state)),
            ("files", docker(&list).expect(0).stdout),
            ("books", self.0.bank().to_string()),
            ("compose.yaml", fs::read_to_string(self.0.root.join("compose.yaml")).expect("reads")),
            (".env", fs::read_to_string(self.0.root.join(".env")).expect("reads")),
            ("lock", fs::read_to_string(self.0.root.join("switchback.lock.yaml")).expect("reads")),
        ])
    }

    fn verify(&self) -> Child {
        let mut command = Command::new(common::PROGRAM);
        command.args(["verify", "bank=2", "--docs", "/nowhere", "-C"]).arg(&self.0.root);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    }

    /// Waits until something of a sandbox runs.
    fn sandbox_runs(&self, child: &mut Child) {
        let wanted = format!("name={}-verify-", self.0.project);
        self.0.wait_until("a sandbox runs", LONG, || {
            assert!(child.try_wait().expect("asks").is_none(), "verify ended early");
            !docker(&["ps", "-q", "--filter", &wanted]).stdout.trim().is_empty()
        });
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let names = self.sandboxes();
        for kind in [&["rm", "-f", "-v"][..], &["volume", "rm"], &["network", "rm"]] {
            for name in &names {
                docker(&[kind, &[name.as_str()]].concat());
            }
        }
    }
}

fn verdicts(matrix: &Value, list: &str) -> BTreeMap<String, String> {
    let items = matrix[list].as_array().expect("a list");
    let word = |v: &Value, key: &str| v[key].as_str().expect("text").to_owned();
    items.iter().map(|i| (word(i, "id"), word(i, "verdict"))).collect()
}

#[test]
fn a_good_upgrade_of_containers_proves_what_can_be_proved_and_production_is_not_touched() {
    let bank = Bank::up();
    for _ in 0..3 {
        bank.0.transfer();
    }
    let before = bank.production();
    let done = bank.0.run(&["verify", "bank=2", "--docs", "/nowhere"]);
    let text = fs::read_to_string(bank.0.root.join("reports/upgrade-infrastructure/evidence.json"));
    let matrix: Value = serde_json::from_str(&text.expect("reads")).expect("parses");
    let failed: Vec<_> =
        matrix["evidence"].as_array().expect("list").iter().filter(|e| e["verdict"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let rows = verdicts(&matrix, "rows");
    for id in [
        "staging.deployed",
        "staging.provisioning",
        "staging.data",
        "staging.lifecycle",
        "staging.health",
        "staging.isolation",
        "staging.gaps",
        "staging.monitoring",
        "validation.workflows",
        "validation.alerting",
        "validation.reporting",
        "database.migration",
        "database.integrity",
        "database.rollback",
        "rollback.budget",
        "rollback.triggers",
        "rollback.data",
        "rollback.writes",
        "rollback.configuration",
        "rollback.services",
        "rollback.validated",
        "rollback.failure",
        "rollback.drill",
        "integration.automation",
        "integration.backup",
        "integration.recovery",
        "integration.validated",
        "integration.no-loss",
    ] {
        assert_eq!(rows[id], "pass", "{id}: {}", done.all());
    }
    for id in ["integration.full", "documentation.accurate"] {
        assert_eq!(rows[id], "not_run", "{id}");
    }
    assert_eq!(verdicts(&matrix, "evidence")["staging.isolated"], "pass");
    assert_eq!(done.code, Some(6), "{}", done.all());
    assert_eq!(bank.production(), before);
    bank.nothing_left();
}

#[test]
fn a_killed_and_an_interrupted_run_leave_nothing_that_gc_or_the_run_itself_does_not_remove() {
    let bank = Bank::up();
    let before = bank.production();
    let mut child = bank.verify();
    bank.sandbox_runs(&mut child);
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert!(!bank.sandboxes().is_empty(), "there is something to find");
    let shown = bank.0.run(&["gc", "--dry-run"]).expect(0);
    assert!(shown.all().contains("would remove the sandbox"), "{}", shown.all());
    bank.0.run(&["gc", "--yes"]).expect(0);
    bank.nothing_left();
    assert_eq!(bank.production(), before);

    let mut child = bank.verify();
    bank.sandbox_runs(&mut child);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    bank.nothing_left();
    assert_eq!(bank.production(), before);
}

/// A database server in the stack: its migration is traced, and the upgrade tried with the newer server that this host has.
#[test]
fn the_upgrade_of_a_stack_with_postgres_is_traced_and_tried_on_another_version_of_it() {
    need(&["sbt/postgres:17"]);
    let stack = Stack::compose(Example::JupyterHub);
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 90s", "start: 4m");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 20s");
    stack.up();
    stack.seed(&["--users", "20", "--groups", "3"]);
    stack.run(&["up", "--yes"]).expect(0);
    let done = stack.run(&["verify", "hub=5.4.6", "--phase", "database", "--docs", "/nowhere"]);
    let text = fs::read_to_string(stack.root.join("reports/upgrade-infrastructure/evidence.json"));
    let matrix: Value = serde_json::from_str(&text.expect("reads")).expect("parses");
    let rows = verdicts(&matrix, "rows");
    for id in [
        "database.migration",
        "database.integrity",
        "database.rollback",
        "database.performance",
        "database.compatibility",
    ] {
        assert_eq!(rows[id], "pass", "{id}: {}", done.all());
    }
    assert_eq!(done.code, Some(6), "{}", done.all());
    let evidence = matrix["evidence"].as_array().expect("list");
    let measured = |id: &str| {
        let of = evidence.iter().find(|e| e["id"] == id).expect("there");
        of["measured"].to_string()
    };
    let versions = measured("compat.database-versions");
    assert!(versions.contains("\"db 15\"") && versions.contains("\"db 17\""), "{versions}");
    assert!(versions.contains("converted by dump and restore"), "{versions}");
    let locks = measured("migration.locks");
    assert!(
        locks.contains("statements within") && locks.contains("the lock that was held longest"),
        "{locks}"
    );
}
