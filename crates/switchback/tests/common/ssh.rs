//! A host that `ssh` leads to: a server of a test's own on this machine, with keys of its own. The engine behind it is the usual one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct SshHost {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().expect("openssh is installed; scripts/test installs it");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

impl SshHost {
    /// Starts one that lets this user in by a key, and forwards what it is asked to.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one that forwards no sockets, as hardened hosts do.
    pub fn start_hardened() -> Self {
        Self::start_with("AllowStreamLocalForwarding no\n")
    }

    /// Starts one that forwards neither sockets nor ports.
    pub fn start_closed() -> Self {
        Self::start_with("AllowTcpForwarding no\nAllowStreamLocalForwarding no\n")
    }

    fn start_with(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sb-ssh-").tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        for key in ["host", "key"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::copy(at("key.pub"), at("authorized")).expect("copies");
        let port = super::docker::free_port();
        let public = fs::read_to_string(at("host.pub")).expect("reads");
        let public: Vec<&str> = public.split(' ').take(2).collect();
        fs::write(at("known"), format!("[127.0.0.1]:{port} {}\n", public.join(" "))).expect("writes");
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n{settings}",
            at("host"),
            at("authorized")
        );
        fs::write(at("sshd_config"), server).expect("writes");
        let client = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            at("key"),
            at("known")
        );
        fs::write(at("config"), client).expect("writes");
        // `ssh` takes the folder of its configuration from the list of users, not from HOME.
        let real = which("ssh").expect("ssh is installed");
        fs::create_dir(dir.path().join("bin")).expect("creates");
        let wrapper = dir.path().join("bin/ssh");
        fs::write(&wrapper, format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", real.display(), at("config")))
            .expect("writes");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("mode");
        if rustix::process::geteuid().is_root() {
            // Where the server locks itself in; its package makes it at boot.
            let _ = fs::create_dir_all("/run/sshd");
        }
        // It starts itself anew by its path, so that has to be whole.
        let log = fs::File::create(at("log")).expect("creates");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &at("sshd_config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("openssh-server is installed; scripts/test installs it");
        let host = Self { dir, port, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not answer: {}", host.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        host
    }

    /// The file with the key that lets in.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who logs in where.
    pub fn login(&self) -> String {
        let user = rustix::process::geteuid();
        let name = Command::new("id").args(["-un", &user.as_raw().to_string()]).output().expect("id");
        format!("{}@127.0.0.1", String::from_utf8_lossy(&name.stdout).trim())
    }

    /// As in `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("ssh://{}:{}", self.login(), self.port)
    }

    /// Where programs look for others, so that they find the keys.
    pub fn path(&self) -> String {
        let usual = std::env::var("PATH").expect("a PATH");
        format!("{}:{usual}", self.dir.path().join("bin").display())
    }

    /// What the server said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Locks everybody out.
    pub fn lock_out(&self) {
        fs::write(self.dir.path().join("authorized"), "").expect("writes");
    }

    /// Command lines of clients of this server that still run.
    pub fn clients(&self) -> Vec<String> {
        let config = self.dir.path().join("config").to_string_lossy().into_owned();
        let all = fs::read_dir("/proc").expect("lists").flatten();
        all.filter_map(|e| fs::read(e.path().join("cmdline")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .filter(|line| line.contains(&config))
            .collect()
    }
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| Path::is_file(p))
}

impl Drop for SshHost {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
