//! A real stack in a temporary folder: the assistant service, run by the real program.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod applications;
pub mod bank;
pub mod docker;
pub mod engine;
pub mod heard;
pub mod image;
pub mod pa;
pub mod runbook;
pub mod ssh;
pub mod upgrade;

use assistant::{PlaceProgram, ReleaseKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_switchback");
/// The token of the service.
pub const TOKEN: &str = "token-of-the-tests-5f2c";

/// Copies a folder, without the settings of somebody who tried an example in place.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.file_name() != ".env" && entry.file_name() != "pa.env" {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// What a command did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}\n{}", self.stdout, self.stderr))
    }
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
    /// Both streams, for messages.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A stack.
pub struct Stack {
    _dir: tempfile::TempDir,
    pub root: PathBuf,
    pub port: u16,
}

/// A port below the ephemeral range, so that no staging port of a parallel test takes it.
fn port() -> u16 {
    let mut candidate = 20_000 + (std::process::id().wrapping_mul(7) % 10_000) as u16;
    loop {
        if std::net::TcpListener::bind(("127.0.0.1", candidate)).is_ok() {
            return candidate;
        }
        candidate = 20_000 + (candidate - 20_000 + 1) % 10_000;
    }
}

impl Stack {
    /// A stack of version 1 with some data; nothing runs yet. `releases` are installed.
    pub fn new(releases: &[ReleaseKind]) -> Self {
        Self::with(releases, 40)
    }

    pub fn with(releases: &[ReleaseKind], notes: usize) -> Self {
        Self::within(&std::env::temp_dir(), releases, notes)
    }

    /// A stack in a folder of the given one.
    pub fn within(place: &Path, releases: &[ReleaseKind], notes: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("switchback-test-").tempdir_in(place).expect("tempdir");
        let root = dir.path().canonicalize().expect("exists");
        let port = port();
        fs::create_dir(root.join("data")).expect("creates");
        let mut all = vec![ReleaseKind::V1];
        all.extend(releases);
        for kind in all {
            let to = root.join("releases").join(kind.version());
            assistant::write_release(&to, kind, Path::new(PROGRAM), PlaceProgram::Symlink)
                .expect("writes the release");
        }
        assistant::seed(&root.join("data/assistant.db"), &root.join("data/uploads"), notes, 3, 7)
            .expect("seeds");
        fs::write(root.join("assistant.env"), format!("ASSISTANT_TOKEN={TOKEN}\n")).expect("writes");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assistant/stack");
        fs::create_dir(root.join("checks")).expect("creates");
        for file in ["notes.yaml", "reading.yaml"] {
            fs::copy(example.join("checks").join(file), root.join("checks").join(file)).expect("copies");
        }
        let config = fs::read_to_string(example.join("switchback.yaml"))
            .expect("reads")
            .replace("http: 8765", &format!("http: {port}"))
            .replace("stable: 500ms", "stable: 100ms")
            .replace("start: 20s", "start: 10s")
            .replace("watch: 6s, every: 250ms", "watch: 2s, every: 100ms");
        fs::write(root.join("switchback.yaml"), config).expect("writes");
        Self { _dir: dir, root, port }
    }

    /// Edits the configuration as text.
    pub fn configure(&self, from: &str, to: &str) {
        let path = self.root.join("switchback.yaml");
        let text = fs::read_to_string(&path).expect("reads");
        assert!(text.contains(from), "{from:?} is not in the configuration");
        fs::write(&path, text.replace(from, to)).expect("writes");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-C").arg(&self.root).args(args).env("NO_COLOR", "1").env_remove("SWITCHBACK_FAULT");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let output: Output = self.command(args).envs(env.iter().copied()).output().expect("runs");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.root.join(".switchback")
    }

    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).expect(0).json()
    }

    /// Asks the service in production.
    pub fn get(&self, path: &str) -> Result<(u16, String), ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let mut response = agent
            .get(format!("http://127.0.0.1:{}{path}", self.port))
            .header("Authorization", format!("Bearer {TOKEN}"))
            .call()?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// The version that answers in production.
    pub fn version(&self) -> Option<String> {
        let (_, body) = self.get("/health").ok()?;
        serde_json::from_str::<Value>(&body).ok()?["version"].as_str().map(str::to_owned)
    }

    /// Writes a note in production; its id.
    pub fn write_note(&self, title: &str) -> i64 {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(true).build().into();
        let body = serde_json::json!({ "title": title }).to_string();
        let mut response = agent
            .post(format!("http://127.0.0.1:{}/api/notes", self.port))
            .header("Authorization", format!("Bearer {TOKEN}"))
            .header("Content-Type", "application/json")
            .send(body)
            .expect("writes a note");
        let text = response.body_mut().read_to_string().expect("answers");
        serde_json::from_str::<Value>(&text).expect("JSON")["id"].as_i64().expect("an id")
    }

    /// The processes of the stack's services: marker -> count, shims included.
    pub fn processes(&self) -> BTreeMap<String, usize> {
        let id = fs::read_to_string(self.state().join("id")).unwrap_or_else(|_| "none".into());
        let needle = format!("SWITCHBACK_INSTANCE={}-", id.trim());
        let mut found = BTreeMap::new();
        for (pid, environ) in proc_files("environ") {
            let alive = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
            if let Some((_, marker)) =
                environ.split('\0').find_map(|e| e.strip_prefix(&needle)?.split_once(':'))
                && alive
            {
                *found.entry(marker.to_owned()).or_default() += 1;
            }
        }
        found
    }

    /// Every row of the store's common tables in a generation, as text: compared exactly.
    pub fn rows(&self, generation: u32) -> Vec<String> {
        let path = if generation == 1 {
            self.root.join("data/assistant.db")
        } else {
            self.state().join(format!("generations/{generation}/stores/db/assistant.db"))
        };
        let connection =
            rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut rows = Vec::new();
        for sql in [
            "select 'note', id, title, body, created_at from notes order by id",
            "select 'upload', id, name, bytes, stored_as from uploads order by id",
            "select 'tag', note_id, tag_id, '', '' from note_tags order by note_id, tag_id",
        ] {
            let mut statement = connection.prepare(sql).expect("prepares");
            let mut found = statement.query([]).expect("asks");
            while let Some(row) = found.next().expect("reads") {
                let values: Vec<String> =
                    (0..5).map(|i| format!("{:?}", row.get_ref(i).expect("a value"))).collect();
                rows.push(values.join("|"));
            }
        }
        rows
    }

    /// The titles of a generation's notes that begin with a word.
    pub fn titles(&self, generation: u64, word: &str) -> Vec<String> {
        let path = match generation {
            1 => self.root.join("data/assistant.db"),
            n => self.state().join(format!("generations/{n}/stores/db/assistant.db")),
        };
        let connection = rusqlite::Connection::open(path).expect("opens");
        let mut statement = connection.prepare("select title from notes order by id").expect("prepares");
        let all = statement.query_map([], |row| row.get::<_, String>(0)).expect("asks");
        all.map(|t| t.expect("text")).filter(|t| t.starts_with(word)).collect()
    }

    /// Uploaded files of a generation: name -> content.
    pub fn files(&self, generation: u32) -> BTreeMap<String, Vec<u8>> {
        let dir = if generation == 1 {
            self.root.join("data/uploads")
        } else {
            self.state().join(format!("generations/{generation}/stores/uploads/uploads"))
        };
        fs::read_dir(dir)
            .expect("lists")
            .map(|e| e.expect("lists"))
            .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("reads")))
            .collect()
    }

    /// The last run's report.
    pub fn report(&self) -> Value {
        self.run(&["report", "--json"]).expect(0).json()
    }

    pub fn wait_until(&self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !done() {
            assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn proc_files(name: &str) -> Vec<(i32, String)> {
    fs::read_dir("/proc")
        .expect("lists")
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            Some((pid, String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).ok()?).into_owned()))
        })
        .collect()
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Stack {
    /// The process id of the stack's watchdog.
    pub fn watchdog(&self) -> Option<i32> {
        watchdog_of(&self.root)
    }

    /// The process id of the stack's keeper.
    pub fn keeper(&self) -> Option<i32> {
        process_of(&self.root, "__keeper")
    }

    /// Kills the watchdog, and the keeper that would start another one.
    pub fn kill_watchdog(&self) {
        while let Some(pid) = self.keeper().or_else(|| self.watchdog()) {
            kill(pid);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the watchdog, as a machine does that has no memory left.
    pub fn kill_only_the_watchdog(&self) {
        kill(self.watchdog().expect("a watchdog"));
    }

    /// Kills every process of the services, shims first so that nothing is restarted.
    pub fn kill_services(&self) {
        let id = fs::read_to_string(self.state().join("id")).unwrap_or_else(|_| "none".into());
        let needle = format!("SWITCHBACK_INSTANCE={}-", id.trim());
        for _ in 0..200 {
            let found: Vec<i32> = proc_files("environ")
                .into_iter()
                .filter(|(_, e)| e.contains(&needle))
                .map(|(p, _)| p)
                .collect();
            if found.is_empty() {
                return;
            }
            found.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.kill_watchdog();
        self.kill_services();
        // The state may be out of reach (a test that failed with it on a disk of its own): whatever still names
        // the stack's folder in its arguments goes too.
        let root = self.root.to_string_lossy().into_owned();
        let own = i32::try_from(std::process::id()).expect("fits");
        for (pid, argv) in proc_files("cmdline") {
            if pid != own && argv.contains(&root) {
                kill(pid);
            }
        }
    }
}

impl Stack {
    /// Waits until production is back on generation 1; false if that does not happen within 20 s.
    pub fn wait_for_rollback(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let status = self.status();
            let exported = self.run(&["history", "--json"]).json()[0]["conclusion"] == "pass";
            if status["generation"] == 1 && status["unfinished"].is_null() && exported {
                return self.version().as_deref() == Some("1.0.0");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

/// The watchdog of the stack in a folder, if one runs.
pub fn watchdog_of(root: &Path) -> Option<i32> {
    process_of(root, "__watchdog")
}

fn process_of(root: &Path, verb: &str) -> Option<i32> {
    let root = root.to_string_lossy().into_owned();
    let all = proc_files("cmdline").into_iter();
    all.filter(|(_, c)| c.contains(verb) && c.contains(&root)).map(|(pid, _)| pid).next()
}
