//! A real application: JupyterHub 3.1.1 to 5.4.6 from PyPI, as plain processes on SQLite, rehearsed, promoted
//! and rolled back. Needs `SWITCHBACK_TEST_JUPYTERHUB` (see tests/upgrade-infrastructure/README.md).

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_switchback");
const TOKEN: &str = "test-token-0123456789abcdef0123456789";

struct Hub {
    _dir: tempfile::TempDir,
    root: PathBuf,
    port: u16,
}

impl Hub {
    /// `port`: below the ephemeral range and away from the other tests' ports.
    fn new(venvs: &Path, port: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("switchback-hub-").tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("exists");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/jupyterhub");
        fs::create_dir_all(root.join("checks")).expect("creates");
        fs::create_dir_all(root.join("data/secrets")).expect("creates");
        fs::set_permissions(root.join("data/secrets"), fs::Permissions::from_mode(0o700)).expect("sets");
        fs::copy(example.join("jupyterhub_config.py"), root.join("jupyterhub_config.py")).expect("copies");
        for entry in fs::read_dir(example.join("checks")).expect("lists") {
            let entry = entry.expect("lists");
            fs::copy(entry.path(), root.join("checks").join(entry.file_name())).expect("copies");
        }
        let config = fs::read_to_string(example.join("switchback.yaml"))
            .expect("reads")
            .replace("http: 18000", &format!("http: {port}"))
            .replace("watch: 20s, every: 2s", "watch: 5s, every: 1s");
        fs::write(root.join("switchback.yaml"), config).expect("writes");
        fs::write(root.join("hub.env"), format!("HUB_API_TOKEN={TOKEN}\n")).expect("writes");
        std::os::unix::fs::symlink(venvs, root.join("venvs")).expect("links");
        Self { _dir: dir, root, port }
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> Value {
        let output =
            Command::new(PROGRAM).arg("-C").arg(&self.root).args(args).arg("--json").output().expect("runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
    }

    fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}/hub/api{path}", self.port))
            .header("Authorization", format!("token {TOKEN}"))
            .header("Content-Type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .expect("a request");
        let mut response = agent.run(request).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let text = response.body_mut().read_to_string().expect("text");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Users with their groups, and groups with their users, sorted: what must be the same after everything.
    fn people(&self) -> (Vec<String>, Vec<String>) {
        let list = |value: &Value, inner: &str| {
            let mut lines: Vec<String> = value
                .as_array()
                .expect("a list")
                .iter()
                .map(|v| {
                    let mut members: Vec<&str> =
                        v[inner].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
                    members.sort_unstable();
                    format!("{}: {}", v["name"], members.join(","))
                })
                .collect();
            lines.sort();
            lines
        };
        (list(&self.api("GET", "/users", None), "groups"), list(&self.api("GET", "/groups", None), "users"))
    }

    fn version(&self) -> String {
        self.api("GET", "/", None)["version"].as_str().expect("a version").to_owned()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // A trial refuses `down`; whatever is left is found by the folder in its command line or environment.
        let _ = Command::new(PROGRAM).arg("-C").arg(&self.root).args(["down", "--yes"]).output();
        let root = self.root.to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let read = |file| {
                fs::read(entry.path().join(file))
                    .map(|b| String::from_utf8_lossy(&b).into_owned())
                    .unwrap_or_default()
            };
            let pid = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok());
            if let Some(pid) = pid.filter(|p| *p != std::process::id() as i32)
                && (read("cmdline").contains(&root) || read("environ").contains(&root))
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[test]
fn jupyterhub_3_to_5_is_rehearsed_promoted_and_rolled_back_with_users_and_groups_intact() {
    let Some(folder) = std::env::var_os("SWITCHBACK_TEST_JUPYTERHUB") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "SWITCHBACK_TEST_JUPYTERHUB must be set in CI; use scripts/test"
        );
        eprintln!("SKIPPED: SWITCHBACK_TEST_JUPYTERHUB is not set; scripts/test sets it");
        return;
    };
    let hub = Hub::new(&PathBuf::from(folder).join("venvs"), 19_473);
    hub.run(&["up"], 0);
    hub.api("POST", "/users", Some(&json!({ "usernames": ["ann", "bea", "cyd"] })));
    hub.api("POST", "/groups/lab1", None);
    hub.api("POST", "/groups/lab1/users", Some(&json!({ "users": ["bea", "cyd"] })));
    let people = hub.people();
    assert_eq!(people.1, ["\"lab1\": bea,cyd"]);
    assert_eq!(hub.version(), "3.1.1");

    let report = hub.run(&["rehearse", "hub=5.4.6"], 0);
    assert_eq!(report["conclusion"], "pass", "{}", report["reasons"]);
    assert_eq!(
        report["code_only"]["possible"], false,
        "3.1.1 refuses the schema of 5.4.6: {}",
        report["code_only"]
    );
    assert!(report["certificate"]["rollback_ms"].as_u64().is_some_and(|ms| ms < 60_000));
    assert_eq!(hub.version(), "3.1.1", "the rehearsal touched production");

    hub.run(&["promote", "hub=5.4.6", "--yes"], 0);
    assert_eq!(hub.version(), "5.4.6");
    assert_eq!(hub.people(), people, "the migration changed users or groups");
    hub.api("POST", "/users", Some(&json!({ "usernames": ["dan"] })));

    let report = hub.run(&["rollback", "--yes"], 0);
    assert_eq!(hub.version(), "3.1.1");
    assert_eq!(hub.people(), people, "the rollback changed users or groups");
    let exported = fs::read_to_string(hub.root.join(".switchback/exports/generation-2/db/users.jsonl"))
        .expect("an export");
    assert!(exported.lines().any(|l| l.contains("\"dan\"") && l.contains("\"op\":\"insert\"")), "{exported}");
    assert!(report["times"]["rollback_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{}", report["times"]);
}

/// `upgrade-db` without its folder on PATH fails half-way: the rehearsal refuses and shows why.
#[test]
fn a_migration_that_cannot_find_its_tool_is_refused() {
    let Some(folder) = std::env::var_os("SWITCHBACK_TEST_JUPYTERHUB") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "SWITCHBACK_TEST_JUPYTERHUB must be set in CI; use scripts/test"
        );
        eprintln!("SKIPPED: SWITCHBACK_TEST_JUPYTERHUB is not set; scripts/test sets it");
        return;
    };
    let hub = Hub::new(&PathBuf::from(folder).join("venvs"), 19_474);
    hub.run(&["up"], 0);
    let path = hub.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, text.replace("PATH: \"{release}/bin:{env.PATH}\"", "PATH: /usr/bin:/bin"))
        .expect("writes");
    let report = hub.run(&["rehearse", "hub=5.4.6"], 3);
    let reasons = report["reasons"].to_string();
    assert!(reasons.contains("the migration of hub failed"), "{reasons}");
    assert_eq!(hub.version(), "3.1.1");
}
