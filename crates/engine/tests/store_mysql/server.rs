//! A server of a test's own: made, started, copied and removed here.

use std::io::{Read as _, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use switchback_engine::store::mysql::{Client, MyError, Result};
use tempfile::TempDir;

/// A program of MariaDB, also where the path does not lead to it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let mut found = dirs.map(|d| d.join(name)).filter(|p| p.exists());
    found.next().unwrap_or_else(|| {
        panic!("the tests need {name}: apt-get install mariadb-server-core mariadb-client-core")
    })
}

/// A server, stopped and removed when dropped.
pub struct Server {
    folder: TempDir,
    child: Option<Child>,
    pub user: String,
}

impl Server {
    fn at(folder: TempDir) -> Self {
        let mut server = Self { folder, child: None, user: "root".to_owned() };
        server.start();
        server
    }

    fn folder() -> TempDir {
        tempfile::Builder::new().prefix("mariadb-").tempdir_in("/tmp").unwrap()
    }

    /// A new server, running, with a database `app`.
    pub fn new() -> Self {
        let folder = Self::folder();
        let made = Command::new(program("mariadb-install-db"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            // Temporary tables are named after process numbers, which may be those of another test's server.
            .arg(format!("--tmpdir={}", folder.path().display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .args(Self::as_whom())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = Self::at(folder);
        server.sql("CREATE DATABASE app CHARACTER SET utf8mb4");
        server
    }

    fn as_whom() -> Option<&'static str> {
        rustix::process::getuid().is_root().then_some("--user=root")
    }

    fn socket(&self) -> String {
        self.folder.path().join("s").to_str().unwrap().to_owned()
    }

    fn start(&mut self) {
        let folder = self.folder.path();
        let child = Command::new(program("mariadbd"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", folder.join("data").display()))
            .arg(format!("--socket={}", self.socket()))
            .arg(format!("--tmpdir={}", folder.display()))
            .arg(format!("--log-error={}", folder.join("log").display()))
            .args(["--skip-networking", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--max-allowed-packet=64M"])
            .args(Self::as_whom())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while let Err(e) = self.script("", "SELECT 1;", &mut std::io::sink(), &|| false) {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "{e}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// A copy of this server, running beside it.
    pub fn copy(&mut self) -> Self {
        self.stop();
        let folder = Self::folder();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.folder.path().join("data"))
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(copied.success());
        self.start();
        Self::at(folder)
    }

    /// Runs SQL that must succeed, in the database `app` where it exists.
    pub fn sql(&self, sql: &str) -> String {
        let mut out = Vec::new();
        self.script("", sql, &mut out, &|| false).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The same in the database `app`.
    pub fn app(&self, sql: &str) -> String {
        self.sql(&format!("USE app;\n{sql}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Client for Server {
    fn script(&self, about: &str, sql: &str, out: &mut dyn Write, _: &dyn Fn() -> bool) -> Result<()> {
        let mut child = Command::new(program("mariadb"))
            .args(["--no-defaults", "--batch", "--skip-column-names", "--quick"])
            .args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
            .arg(format!("--socket={}", self.socket()))
            .arg(format!("--user={}", self.user))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| MyError::Start(e.to_string()))?;
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut refused = None;
        let errors = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(sql.as_bytes()));
            let errors = scope.spawn(move || {
                let mut all = Vec::new();
                let _ = stderr.read_to_end(&mut all);
                all
            });
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if refused.is_none()
                    && let Err(e) = out.write_all(&buffer[..n])
                {
                    refused = Some(e);
                    let _ = child.kill();
                }
            }
            errors.join().unwrap()
        });
        let status = child.wait().unwrap();
        match refused {
            Some(e) => Err(MyError::Output(e)),
            None if status.success() => Ok(()),
            None => Err(MyError::from_stderr(about, &errors)),
        }
    }
}
