//! A cluster of a test's own: made, started, copied and removed here.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use switchback_engine::store::postgres::{PgError, Psql, Result};
use tempfile::TempDir;

/// The programs of the newest server that is installed.
pub fn bin(program: &str) -> PathBuf {
    let dir = match std::env::var_os("SWITCHBACK_TEST_PG_BIN") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
                .expect("the tests need Postgres: apt-get install postgresql, or set SWITCHBACK_TEST_PG_BIN")
                .map(|e| e.unwrap().path().join("bin"))
                .filter(|d| d.join("initdb").exists())
                .collect();
            found.sort();
            found.pop().expect("a server below /usr/lib/postgresql")
        }
    };
    dir.join(program)
}

/// A program run as the server's user: as root that is `postgres`, because the server refuses root.
pub fn as_server(program: &Path) -> Command {
    let mut command = if rustix::process::getuid().is_root() {
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
        c
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C").current_dir("/tmp");
    command
}

/// Lets the server write to a folder.
pub fn give_to_server(folder: &Path) {
    if rustix::process::getuid().is_root() {
        run(Command::new("chown").arg("postgres:postgres").arg(folder));
    }
}

/// Runs a command to its end; its output if it succeeded.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let out = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{shown}\n{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// A cluster with a server, stopped and removed when dropped.
pub struct Cluster {
    pub folder: TempDir,
    pub options: String,
    pub user: String,
    pub starts: AtomicUsize,
    running: bool,
}

impl Cluster {
    fn folder() -> TempDir {
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in("/tmp").unwrap();
        give_to_server(folder.path());
        folder
    }

    /// A folder without a cluster yet.
    pub fn empty() -> Self {
        Self {
            folder: Self::folder(),
            options: String::new(),
            user: "postgres".into(),
            starts: AtomicUsize::new(0),
            running: false,
        }
    }

    /// A new cluster, running, with a database `app`.
    pub fn new() -> Self {
        let mut cluster = Self::empty();
        run(as_server(&bin("initdb"))
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions", "-k", "-E", "UTF8"])
            .args(["--locale", "C.UTF-8", "-D"])
            .arg(cluster.data()));
        cluster.start();
        cluster.sql("postgres", "CREATE DATABASE app");
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn socket(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    pub fn start(&mut self) {
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c shared_buffers=32MB \
             -c autovacuum=off {}",
            self.socket(),
            self.options
        );
        let log = self.folder.path().join("log");
        let started = as_server(&bin("pg_ctl"))
            .args(["-w", "-t", "60", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(&log)
            .args(["-o", &options, "start"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(started.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
        self.running = true;
    }

    pub fn stop(&mut self, mode: &str) {
        self.running = false;
        run(as_server(&bin("pg_ctl")).args(["-w", "-m", mode, "-D"]).arg(self.data()).arg("stop"));
    }

    /// A copy of this cluster, running beside it.
    pub fn copy(&mut self) -> Self {
        self.stop("fast");
        let mut copy = Self::empty();
        copy.options.clone_from(&self.options);
        run(Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()));
        self.start();
        copy.start();
        copy
    }

    /// Runs SQL that must succeed.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut out = Vec::new();
        self.script(database, sql, &mut out, &|| false).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// A cluster as `self`, asked as another role.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(bin("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", &self.socket()]);
        command.args(["-U", &self.user, "-d", database]).env("LC_ALL", "C.UTF-8");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let _ = as_server(&bin("pg_ctl"))
                .args(["-w", "-m", "immediate", "-D"])
                .arg(self.data())
                .arg("stop")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Psql for Cluster {
    fn script(
        &self,
        database: &str,
        sql: &str,
        out: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let mut child = self
            .psql(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| PgError::Start(e.to_string()))?;
        let (mut stdin, mut stdout, mut stderr) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (send, chunks) = sync_channel::<Vec<u8>>(4);
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(sql.as_bytes()));
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                    if send.send(buffer[..n].to_vec()).is_err() {
                        break;
                    }
                }
            });
            let errors = scope.spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                text
            });
            let stopped = loop {
                match chunks.recv_timeout(Duration::from_millis(20)) {
                    Ok(chunk) => {
                        if let Err(e) = out.write_all(&chunk) {
                            break Some(PgError::Output(e));
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => break None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if cancel() {
                    break Some(PgError::Cancelled);
                }
            };
            drop(chunks);
            if let Some(error) = stopped {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
            let status = child.wait().unwrap();
            let text = errors.join().unwrap();
            if status.success() { Ok(()) } else { Err(PgError::from_stderr(database, &text)) }
        })
    }
}
