//! A Docker engine of a test's own, which may be stopped and started while everybody else's goes on. It touches neither
//! the firewall nor the networks of the host's engine: ports are published by its proxy alone, and its default network is a
//! bridge of its own. (An engine that is told to have none removes `docker0`, which is the other one's.)

use super::docker::{docker, use_engine};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Stopping one waits for its containers, which have 10 s each.
const STOP: Duration = Duration::from_secs(90);
const START: Duration = Duration::from_secs(90);
/// Set in a test that runs in a network of its own.
const INSIDE: &str = "SWITCHBACK_TEST_INSIDE";

/// Runs a test of this program once more, in a network of its own: there, an engine can do with firewall and networks what it always
/// does. `true` in that one. Where this user may not, that is said.
pub fn in_own_network(test: &str) -> bool {
    if inside() {
        ip(&["link", "set", "lo", "up"]);
        return true;
    }
    if !may() {
        return false;
    }
    let program = std::env::current_exe().expect("has a path");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(command.status().expect("util-linux is installed").success(), "{test}, in a network of its own");
    false
}

fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {}", args.join(" "));
}

/// Whether a second engine can be started.
fn may() -> bool {
    let dockerd = Command::new("dockerd").arg("--version").output().is_ok_and(|o| o.status.success());
    let may = dockerd && rustix::process::geteuid().is_root();
    if !may {
        eprintln!("SKIPPED: a second Docker engine needs root and the program dockerd");
    }
    may
}

/// A running engine, or one that was stopped. What manages its containers is a process of its own, as under a service manager: an
/// engine that is killed takes along the containerd that it started itself, and what that one knows of the containers.
pub struct OwnEngine {
    dir: PathBuf,
    containerd: Child,
    child: Option<Child>,
}

impl OwnEngine {
    /// Starts one with some images of the usual engine, and has everything in this process use it. `None` where this
    /// user may not, which is said.
    pub fn start(images: &[&str]) -> Option<Self> {
        if !may() {
            return None;
        }
        // Short: the path of a socket has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("sb-engine-").tempdir().expect("tempdir").keep();
        let containerd = containerd(&dir);
        let mut engine = Self { dir, containerd, child: None };
        engine.boot();
        let mut save =
            Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn().expect("docker");
        let archive = save.stdout.take().expect("a pipe");
        let load =
            Command::new("docker").args(["-H", &engine.host(), "load", "--quiet"]).stdin(archive).output();
        let load = load.expect("docker");
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        assert!(save.wait().expect("waits").success(), "docker save");
        use_engine(&engine.host());
        Some(engine)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The name of its default network's interface: at most 15 characters.
    fn bridge(&self) -> String {
        format!("sbe{}", std::process::id())
    }

    fn make_bridge(&self) {
        let name = self.bridge();
        if Path::new("/sys/class/net").join(&name).exists() {
            return;
        }
        for args in [
            vec!["link", "add", &name, "type", "bridge"],
            vec!["addr", "add", "10.214.0.1/24", "dev", &name],
            vec!["link", "set", &name, "up"],
        ] {
            ip(&args);
        }
    }

    /// Starts it again and waits until it answers.
    pub fn boot(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let at = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let log = fs::OpenOptions::new().create(true).append(true).open(at("log")).expect("opens");
        let mut command = Command::new("dockerd");
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["--containerd", &at("c.sock")]);
        command.args(["-H", &self.host()]);
        if !inside() {
            self.make_bridge();
            // No pools of addresses: with its own, an engine that is started again removes `docker0`, too. It sees what routes there are.
            command.args([
                "--bridge",
                &self.bridge(),
                "--iptables=false",
                "--ip-masq=false",
                "--ip-forward=false",
            ]);
        }
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a file")).stdout(log);
        self.child = Some(command.spawn().expect("dockerd starts"));
        let deadline = Instant::now() + START;
        while !Command::new("docker")
            .args(["-H", &self.host(), "version"])
            .output()
            .expect("docker")
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "the engine does not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills it, as the kernel does for want of memory. Its containers go on, until it is started again and begins them anew.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kills");
        child.wait().expect("waits");
        let _ = fs::remove_file(self.dir.join("pid"));
    }

    /// Stops it as its service manager does; its containers are stopped, too.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        assert!(ends(&mut child), "the engine does not end: {}", self.log());
    }
}

/// What manages containers, in a place of its own, started and answering.
fn containerd(dir: &Path) -> Child {
    let at = |name: &str| dir.join(name);
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
        at("c-data"),
        at("c-state"),
        at("c.sock"),
        at("c.ttrpc")
    );
    fs::write(at("containerd.toml"), config).expect("writes");
    let log = fs::File::create(at("containerd.log")).expect("a file");
    let mut child = Command::new("containerd")
        .arg("--config")
        .arg(at("containerd.toml"))
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a file"))
        .stdout(log)
        .spawn()
        .expect("containerd starts: it comes with the engine");
    let deadline = Instant::now() + START;
    while std::os::unix::net::UnixStream::connect(at("c.sock")).is_err() {
        let said = || fs::read_to_string(at("containerd.log")).unwrap_or_default();
        assert!(child.try_wait().expect("asks").is_none(), "containerd ended: {}", said());
        assert!(Instant::now() < deadline, "containerd does not answer: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

/// Asks a process to end, and waits for it.
fn ends(child: &mut Child) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
    let deadline = Instant::now() + STOP;
    while child.try_wait().expect("waits").is_none() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.boot();
        }
        // Bridges and mounts would outlive it.
        for (list, remove) in [(["ps", "-aq"], ["rm", "-fv"]), (["network", "ls"], ["network", "rm"])] {
            let mut list = list.to_vec();
            if list[0] == "network" {
                list.extend(["-q", "--filter", "type=custom"]);
            }
            let found = docker(&list).stdout;
            let found: Vec<&str> = found.lines().collect();
            if !found.is_empty() {
                docker(&[&remove[..], &found].concat());
            }
        }
        self.stop();
        if !ends(&mut self.containerd) {
            eprintln!("containerd of {} does not end", self.dir.display());
        }
        if !inside() {
            let _ = Command::new("ip").args(["link", "del", &self.bridge()]).status();
        }
        unmount_below(&self.dir);
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("left behind: {}: {e}", self.dir.display());
        }
    }
}

fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| Path::new(m).starts_with(dir));
    for mount in inside.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").arg(mount).status();
    }
}
