//! An engine that `ssh` leads to: a socket of this process, each connection of which ends at the engine over there.
//!
//! Owns the `ssh` processes: one that logs in, stays, and forwards the engine's socket; and, where that host forwards none, one per
//! connection that shares its login and runs `docker system dial-stdio`, as the `docker` command does. They live no longer than this
//! process, however it ends: a shell waits for the end of an input that this process holds, and ends the first one, through which the
//! others go. (The end of its own input would not do: an engine keeps a connection for which it still waits, as for the output of a
//! container that nobody starts any more.) Nothing here may ask the user for anything or pass on more of this host (agent, X11, ports) than was asked for.

use super::DockerError;
use super::endpoint::SshTarget;
use super::private::PrivateDir;
use crate::exec::guarded::{NOT_INSTALLED, end, guarded};
use crate::exec::{self, Exec};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long logging in may take.
const LOGIN: Duration = Duration::from_secs(20);
/// Asking the process that logged in to forward something, or for the engine's socket.
const FORWARD: Duration = Duration::from_secs(15);
/// Where engines listen that do not say otherwise.
const USUAL: &str = "/var/run/docker.sock";
/// A path longer than this, and `ssh` could not add what it adds to the path of its own socket.
const LONGEST: usize = 48;
/// The port of a service that takes everything and answers nothing (RFC 863).
const DISCARD: u16 = 9;
/// What is repeated of the words of `ssh`.
const SAID: u64 = 2048;
/// How its words on a single connection begin.
const ONE_CONNECTION: &str = "channel ";
/// What it says of a connection that the other host's settings forbid, and not only that nothing listens there.
const FORBIDDEN: [&str; 2] = ["administratively prohibited", "forwarding is disabled"];

/// Settings of every `ssh`. With less than this it could ask, wait for ever, or share more than a connection.
const SETTINGS: [&str; 12] = [
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ExitOnForwardFailure=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ControlPersist=no",
    // Less, and it would not say what that host does not forward.
    "LogLevel=INFO",
];

/// Connections of this process to engines, by host: several callers share one login.
static OPEN: Mutex<BTreeMap<SshTarget, Weak<Tunnel>>> = Mutex::new(BTreeMap::new());

/// A socket that leads to the engine on another host, as long as this lives.
pub(super) struct Tunnel {
    way: Arc<Way>,
    accepting: Option<JoinHandle<()>>,
}

/// What the thread that accepts shares with its owner.
struct Way {
    target: SshTarget,
    dir: PrivateDir,
    closing: AtomicBool,
    login: Mutex<Login>,
    /// Where the engine listens over there, once that was asked.
    engine: OnceLock<String>,
}

/// The process that logged in.
#[derive(Default)]
struct Login {
    /// Its input is open as long as this is kept.
    child: Option<Child>,
    /// The socket here that leads to the engine's, if that host forwards sockets.
    direct: Option<PathBuf>,
    /// Ports here that lead to `host:port` there.
    forwarded: HashMap<(String, u16), u16>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tunnel {
    /// The socket that leads to this host; a new one if there is none yet.
    pub(super) fn open(target: &SshTarget) -> Result<Arc<Self>, DockerError> {
        let mut all = locked(&OPEN);
        if let Some(tunnel) = all.get(target).and_then(Weak::upgrade) {
            return Ok(tunnel);
        }
        let stream = |source| DockerError::Stream { doing: "make a socket for ssh", source };
        let temp = std::env::temp_dir();
        let short = temp.as_os_str().len() <= LONGEST;
        let dir = PrivateDir::create_in(if short { &temp } else { Path::new("/tmp") }).map_err(stream)?;
        let listener = UnixListener::bind(dir.path.join("docker.sock")).map_err(stream)?;
        let way = Arc::new(Way {
            target: target.clone(),
            dir,
            closing: AtomicBool::new(false),
            login: Mutex::default(),
            engine: OnceLock::new(),
        });
        way.log_in()?;
        let served = Arc::clone(&way);
        let accepting = std::thread::Builder::new()
            .name("ssh".to_owned())
            .spawn(move || served.serve(&listener))
            .map_err(stream)?;
        let tunnel = Arc::new(Self { way, accepting: Some(accepting) });
        all.insert(target.clone(), Arc::downgrade(&tunnel));
        Ok(tunnel)
    }

    /// The socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.way.socket()
    }

    /// What `ssh` last complained about, if it did.
    pub(super) fn said(&self) -> Option<String> {
        self.way.said()
    }

    /// A port here that leads to a port over there; `None` if that host forwards nothing.
    pub(super) fn forward(&self, host: &str, port: u16) -> Option<u16> {
        self.way.forward(host, port)
    }

    /// Whether that host lets this user reach its ports.
    pub(super) fn forwards_ports(&self) -> bool {
        self.way.forwards_ports()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.way.closing.store(true, Ordering::SeqCst);
        // It waits for a connection.
        drop(UnixStream::connect(self.socket()));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        if let Some(child) = locked(&self.way.login).child.take() {
            end(child);
        }
    }
}

/// A word for the shell of the other host.
fn quoted(word: &str) -> OsString {
    if word.contains('{') { format!("'{word}'").into() } else { word.into() }
}

/// Passes on what two sides say to each other, until both have said everything.
fn join(here: UnixStream, there: UnixStream) {
    let (Ok(here_too), Ok(there_too)) = (here.try_clone(), there.try_clone()) else { return };
    for (mut from, mut to) in [(here, there), (there_too, here_too)] {
        // Without a thread both sides are closed here, and the caller hears of it.
        let _ = std::thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

impl Way {
    fn socket(&self) -> PathBuf {
        self.dir.path.join("docker.sock")
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.dir.path.join("said"))
    }

    /// The end of its words.
    fn words(&self) -> Option<String> {
        let mut file = File::open(self.dir.path.join("said")).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SAID))).ok()?;
        let mut bytes = Vec::new();
        file.take(SAID).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn said(&self) -> Option<String> {
        let text = self.words()?;
        let lines = text.lines().map(str::trim);
        let lines: Vec<&str> = lines.filter(|l| !l.is_empty() && !l.starts_with(ONE_CONNECTION)).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        (!last.is_empty()).then_some(last)
    }

    fn forwards_ports(&self) -> bool {
        // Nothing need listen there: what is forbidden is told apart from what is not there.
        let Some(port) = self.forward("127.0.0.1", DISCARD) else { return false };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        // It is closed once that host has answered; where something listens, it stays open until the time limit.
        let _ = stream.read(&mut [0]);
        let words = self.words().unwrap_or_default();
        !FORBIDDEN.iter().any(|f| words.contains(f))
    }

    /// Options that all share, and the host.
    fn arguments(&self, more: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["ssh".into(), "-x".into(), "-a".into(), "-T".into()];
        for setting in SETTINGS {
            all.extend(["-o".into(), setting.into()]);
        }
        // `ssh` takes % for the beginning of a variable.
        let own = self.dir.path.join("login").to_string_lossy().replace('%', "%%");
        all.extend(["-S".into(), own.into()]);
        if let Some(port) = self.target.port {
            all.extend(["-p".into(), port.to_string().into()]);
        }
        all.extend(more.iter().map(OsString::from));
        all.extend(["--".into(), OsString::from(&self.target.login)]);
        all
    }

    fn command(arguments: &[OsString]) -> Command {
        let mut command = Command::new(&arguments[0]);
        // A group of its own: Ctrl-C is for us, who still need the engine to stop in good order.
        command.args(&arguments[1..]).process_group(0);
        command
    }

    /// Logs in, if nobody is logged in.
    fn log_in(&self) -> Result<(), DockerError> {
        let mut login = locked(&self.login);
        if let Some(child) = login.child.as_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                return Ok(());
            }
            *login = Login::default();
        }
        // Of one that was killed.
        let socket = self.dir.path.join("login");
        let _ = std::fs::remove_file(&socket);
        let refused = |why: String| DockerError::EngineUnreachable {
            endpoint: format!("ssh://{}", self.target.login),
            why: format!("{why}; `ssh {} docker version` must work without a question", self.target.login),
        };
        let stream = |source| DockerError::Stream { doing: "write what ssh says", source };
        let mut arguments = self.arguments(&["-M"]);
        // Something that ends with its input; what a host runs instead of it is as good.
        arguments.push("cat".into());
        let mut child = guarded(&arguments)
            .stdout(Stdio::null())
            .stderr(self.log().map_err(stream)?)
            .spawn()
            .map_err(|e| refused(e.to_string()))?;
        let deadline = Instant::now() + LOGIN;
        loop {
            if socket.exists() {
                login.child = Some(child);
                login.direct = self.forward_engine();
                return Ok(());
            }
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    end(child);
                    return Err(refused(format!("it was not logged in after {} s", LOGIN.as_secs())));
                }
                Ok(Some(status)) if status.code() == Some(NOT_INSTALLED) => {
                    return Err(refused("the program ssh is not installed".to_owned()));
                }
                // Logged in, and not allowed to stay: each connection logs in by itself.
                Ok(Some(status)) if status.code() != Some(255) => return Ok(()),
                _ => return Err(refused(self.said().unwrap_or_else(|| "it said nothing".to_owned()))),
            }
        }
    }

    /// Joins every connection to the engine's socket; where that is not forwarded, to the input and output of an `ssh` of its own.
    fn serve(&self, listener: &UnixListener) {
        let mut running: Vec<Child> = Vec::new();
        for stream in listener.incoming() {
            if self.closing.load(Ordering::SeqCst) {
                break;
            }
            running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            let Ok(stream) = stream else {
                // Too many open files, perhaps; it gets better or the caller runs into its time limit.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            // Without a login that can be shared, `ssh` tries by itself, and says what is wrong.
            let _ = self.log_in();
            let direct = locked(&self.login).direct.clone();
            if let Some(there) = direct.and_then(|path| UnixStream::connect(path).ok()) {
                join(stream, there);
                continue;
            }
            let (Ok(output), Ok(said)) = (stream.try_clone(), self.log()) else { continue };
            let mut arguments = self.arguments(&["-o", "ControlMaster=no"]);
            arguments.push("docker".into());
            if let Some(socket) = &self.target.socket {
                arguments.extend(["-H".into(), format!("unix://{socket}").into()]);
            }
            arguments.extend(["system".into(), "dial-stdio".into()]);
            let spawned = Self::command(&arguments)
                .stdin(OwnedFd::from(stream))
                .stdout(OwnedFd::from(output))
                .stderr(said)
                .spawn();
            running.extend(spawned);
        }
        running.into_iter().for_each(end);
    }

    /// Forwards the engine's socket; `None` where that does not work.
    fn forward_engine(&self) -> Option<PathBuf> {
        let engine = self.engine.get_or_init(|| self.engine_socket());
        let path = self.dir.path.join("direct");
        let _ = std::fs::remove_file(&path);
        let spec = format!("{}:{engine}", path.to_str()?);
        let arguments = self.arguments(&["-O", "forward", "-L", &spec]);
        exec::run(&Exec::new(arguments, FORWARD)).ok().filter(exec::Output::success)?;
        // Whether that host permits it turns out with the first connection.
        let mut stream = UnixStream::connect(&path).ok()?;
        stream.set_read_timeout(Some(FORWARD)).ok()?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).ok()?;
        (&answer == b"HTTP/").then_some(path)
    }

    /// Where the engine listens over there: as said, or as the `docker` command of that host has it.
    fn engine_socket(&self) -> String {
        if let Some(said) = &self.target.socket {
            return said.clone();
        }
        let mut arguments = self.arguments(&["-o", "ControlMaster=no"]);
        arguments
            .extend(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"].map(quoted));
        let asked = exec::run(&Exec::new(arguments, FORWARD)).ok().filter(exec::Output::success);
        let said = asked.as_ref().and_then(|o| o.stdout_tail.trim().strip_prefix("unix://"));
        let plain = |path: &&str| path.starts_with('/') && !path.contains([':', '\n', ' ', '%', '"', '\\']);
        said.filter(plain).unwrap_or(USUAL).to_owned()
    }

    fn forward(&self, host: &str, port: u16) -> Option<u16> {
        self.log_in().ok()?;
        let mut login = locked(&self.login);
        login.child.as_ref()?;
        let wanted = (host.to_owned(), port);
        if let Some(known) = login.forwarded.get(&wanted) {
            return Some(*known);
        }
        let there = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // Somebody else may take the port that was free a moment ago.
        for _ in 0..3 {
            let local = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
            let spec = format!("127.0.0.1:{local}:{there}");
            let arguments = self.arguments(&["-O", "forward", "-L", &spec]);
            if exec::run(&Exec::new(arguments, FORWARD)).is_ok_and(|o| o.success()) {
                login.forwarded.insert(wanted, local);
                return Some(local);
            }
        }
        None
    }
}
