//! Starts the real program on a free port, and talks to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use assistant::{Manifest, PlaceProgram, ReleaseKind, Settings, write_release};
use serde_json::Value;

/// How long anything may take before the test gives up.
const DEADLINE: Duration = Duration::from_secs(10);

/// A folder with releases, a database and uploads.
pub struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { dir }
    }

    /// A stack whose database is already at a release's schema.
    pub fn migrated(kind: ReleaseKind) -> Self {
        let stack = Self::new();
        let output = stack.migrate(kind);
        assert!(output.status.success(), "{output:?}");
        stack
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn release(&self, kind: ReleaseKind) -> PathBuf {
        let dir = self.path(&format!("releases/{}", kind.version()));
        if !dir.exists() {
            let program = Path::new(env!("CARGO_BIN_EXE_assistant"));
            write_release(&dir, kind, program, PlaceProgram::Symlink).expect("a written release");
        }
        dir
    }

    pub fn change_settings(&self, kind: ReleaseKind, change: impl FnOnce(&mut Settings)) {
        let dir = self.release(kind);
        let mut manifest = Manifest::read(&dir).expect("a manifest");
        change(&mut manifest.settings);
        manifest.write(&dir).expect("a changed manifest");
    }

    fn command(&self, kind: ReleaseKind, command: &str) -> Command {
        let release = self.release(kind);
        let mut built = Command::new(release.join("bin/assistant"));
        built.arg(command).arg("--release").arg(release).arg("--db").arg(self.path("assistant.db"));
        built.stdin(Stdio::null());
        built
    }

    pub fn migrate(&self, kind: ReleaseKind) -> Output {
        self.command(kind, "migrate").output().expect("the program runs")
    }

    pub fn spawn_migrate(&self, kind: ReleaseKind) -> Child {
        self.command(kind, "migrate").spawn().expect("the program runs")
    }

    fn serve_command(&self, kind: ReleaseKind) -> Command {
        let mut command = self.command(kind, "serve");
        command.arg("--uploads").arg(self.path("uploads")).args(["--listen", "127.0.0.1:0"]);
        command
    }

    /// Runs `serve` of a release that is expected to give up by itself.
    pub fn serve_fails(&self, kind: ReleaseKind) -> Output {
        let mut child =
            self.serve_command(kind).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
        wait(&mut child);
        child.wait_with_output().expect("its output")
    }

    pub fn serve(&self, kind: ReleaseKind) -> Server {
        self.serve_with(kind, |_| {})
    }

    pub fn serve_with(&self, kind: ReleaseKind, change: impl FnOnce(&mut Command)) -> Server {
        let log = self.path(&format!("{}.log", kind.version()));
        let mut command = self.serve_command(kind);
        change(&mut command);
        let child = command.stdout(File::create(&log).expect("a log")).spawn().expect("the program runs");
        let mut server = Server {
            child,
            log,
            url: String::new(),
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(DEADLINE))
                .build()
                .into(),
            token: None,
        };
        let address = poll("the port", || server.logged("listening on "));
        server.url = format!("http://{address}");
        server
    }
}

/// A running service; killed when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    url: String,
    agent: ureq::Agent,
    pub token: Option<String>,
}

/// An answer's status and JSON body, null when it has none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub text: String,
}

impl Server {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The rest of the first complete log line that starts with `start`.
    pub fn logged(&self, start: &str) -> Option<String> {
        let log = fs::read_to_string(&self.log).expect("a log");
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("content-type", content_type);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.to_vec()).expect("a request");
        let mut response = self.agent.run(request).expect("an answer");
        let text = response.body_mut().read_to_string().expect("a body");
        Answer {
            status: response.status().as_u16(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "text/plain", b"")
    }

    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.request(method, path, "application/json", body.to_string().as_bytes())
    }

    pub fn upload(&self, name: &str, bytes: &str) -> Answer {
        let body = format!(
            "--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{bytes}\r\n--edge--\r\n"
        );
        self.request("POST", "/api/uploads", "multipart/form-data; boundary=edge", body.as_bytes())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Stops the service as an operator does, and tells how long that took.
    pub fn stop(&mut self) -> Duration {
        self.signal("TERM");
        let asked = Instant::now();
        let status = self.wait();
        assert!(status.success(), "{status}");
        asked.elapsed()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a state").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait(child: &mut Child) -> ExitStatus {
    poll("the program's end", || child.try_wait().expect("a state"))
}

/// Asks again and again until there is something.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
