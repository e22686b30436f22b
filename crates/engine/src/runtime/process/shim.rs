//! The shim: the small process that owns one service.
//!
//! It leads the service's session, adopts orphans, restarts the service, rotates its log and records
//! what happened. It outlives the command line. The log is a plain file that the service writes to
//! itself, so the death of the shim can never block or break the service.

use crate::error::{EngineError, io};
use crate::home::{read_json, write_json_volatile};
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use switchback_core::config::Restart;

/// What the shim must do; written by the starter. It holds the command line, which other users can see anyway; the
/// environment is passed on by inheritance and never written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Folder of the log files.
    pub logs: PathBuf,
    /// A log file of this size is rotated.
    pub log_bytes: u64,
    /// Rotated files kept.
    pub log_keep: u32,
    /// Whether it is started again after it ended by itself.
    pub restart: Restart,
}

/// What the shim knows about its service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The shim's process id.
    pub shim: i32,
    /// The service's main process, while it runs.
    pub child: Option<i32>,
    /// How often the service was started.
    pub starts: u32,
    /// Starts in a row that lived less than two seconds.
    pub quick_exits: u32,
    /// How the last process ended, in words.
    pub last_exit: Option<String>,
    /// Why the program could not be started at all.
    pub spawn_error: Option<String>,
}

/// The delay before the first restart; doubled each time up to [`RESTART_DELAY_MAX`], and reset by a
/// process that lived for [`LONG_LIFE`].
const RESTART_DELAY: Duration = Duration::from_millis(200);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
const LONG_LIFE: Duration = Duration::from_secs(30);
/// A process that ends earlier than this did not really start.
const QUICK_EXIT: Duration = Duration::from_secs(2);
/// How often the size of the log is looked at.
const LOG_CHECK: Duration = Duration::from_secs(5);

/// File names in a service's folder.
pub const SPEC_FILE: &str = "spec.json";
/// The state written by the shim.
pub const STATE_FILE: &str = "state.json";
/// The live log file within [`Spec::logs`].
pub const LOG_FILE: &str = "service.log";

/// Runs the shim for the service whose folder is `dir`; returns when the service is over.
pub fn run(dir: &Path) -> Result<(), EngineError> {
    let spec: Spec = read_json(&dir.join(SPEC_FILE))?;
    // Fails only if this process already leads its group, as when it was started by hand.
    let _ = rustix::process::setsid();
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|e| io("become the reaper of", dir)(e.into()))?;
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD]).map_err(io("watch signals for", dir))?;
    let waker = signals.handle();
    std::thread::spawn(move || {
        // Wakes the loop below for its periodic work; SIGCHLD to ourselves is harmless.
        loop {
            std::thread::sleep(LOG_CHECK);
            if waker.is_closed()
                || rustix::process::kill_process(own, rustix::process::Signal::CHILD).is_err()
            {
                break;
            }
        }
    });
    let mut shim = Shim {
        spec,
        dir: dir.to_owned(),
        state: State { shim: own.as_raw_nonzero().get(), ..State::default() },
        began: Instant::now(),
        delay: RESTART_DELAY,
    };
    shim.start()?;
    loop {
        // Several signals may be pending at once; a request to stop outranks everything.
        let pending: Vec<i32> = signals.wait().collect();
        if pending.iter().any(|s| *s == SIGTERM || *s == SIGINT) {
            return shim.finish();
        }
        let Some(ended) = shim.reap() else {
            shim.rotate();
            continue;
        };
        shim.record_exit(ended)?;
        if shim.spec.restart == Restart::Never {
            return shim.finish();
        }
        if shim.wait_before_restart(&mut signals) {
            return shim.finish();
        }
        shim.start()?;
    }
}

struct Shim {
    spec: Spec,
    dir: PathBuf,
    state: State,
    began: Instant,
    delay: Duration,
}

impl Shim {
    fn save(&self) -> Result<(), EngineError> {
        write_json_volatile(&self.dir.join(STATE_FILE), &self.state)
    }

    fn log(&self) -> Result<File, EngineError> {
        fs::create_dir_all(&self.spec.logs).map_err(io("create", &self.spec.logs))?;
        let path = self.spec.logs.join(LOG_FILE);
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("open the log", &path))
    }

    fn start(&mut self) -> Result<(), EngineError> {
        let log = self.log()?;
        let second = log.try_clone().map_err(io("share the log of", &self.dir))?;
        let (program, arguments) = self.spec.argv.split_first().ok_or_else(|| EngineError::Internal {
            detail: "a service without a command reached the shim".to_owned(),
        })?;
        self.state.starts += 1;
        self.began = Instant::now();
        let spawned = Command::new(program)
            .args(arguments)
            .current_dir(&self.spec.cwd)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => {
                // The shim reaps by itself, adopted orphans included; the handle is not waited for.
                self.state.child = i32::try_from(child.id()).ok();
                self.state.spawn_error = None;
            }
            Err(e) => {
                self.state.child = None;
                self.state.spawn_error = Some(format!("cannot start {program}: {e}"));
                self.save()?;
                return Err(EngineError::Io { doing: "start", path: PathBuf::from(program), source: e });
            }
        }
        self.save()
    }

    /// Reaps everything that ended; returns how the service's main process ended, if it did.
    fn reap(&mut self) -> Option<String> {
        let mut main = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid.as_raw_nonzero().get()) == self.state.child {
                main = Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("ended with exit code {code}"),
                    (_, Some(signal)) => format!("was ended by signal {signal}"),
                    _ => "ended".to_owned(),
                });
            }
        }
        main
    }

    fn record_exit(&mut self, how: String) -> Result<(), EngineError> {
        let lived = self.began.elapsed();
        // What the main process left behind holds the port and the files: it must go before a restart.
        if let Some(group) = self.state.child.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        self.state.child = None;
        self.state.last_exit = Some(how);
        self.state.quick_exits = if lived < QUICK_EXIT { self.state.quick_exits + 1 } else { 0 };
        if lived >= LONG_LIFE {
            self.delay = RESTART_DELAY;
        }
        self.save()
    }

    /// Waits; true if the shim was told to stop meanwhile.
    fn wait_before_restart(&mut self, signals: &mut Signals) -> bool {
        let until = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(RESTART_DELAY_MAX);
        while Instant::now() < until {
            if signals.pending().any(|s| s == SIGTERM || s == SIGINT) {
                return true;
            }
            // Short enough that a stop is answered at once.
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Stays until no child is left (the stopper signals them), then records the end.
    fn finish(&mut self) -> Result<(), EngineError> {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    if Some(pid.as_raw_nonzero().get()) == self.state.child {
                        self.state.child = None;
                        self.state.last_exit = Some(format!(
                            "was stopped ({})",
                            status.exit_status().map_or("by signal".to_owned(), |c| format!("exit code {c}"))
                        ));
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break, // ECHILD: nobody is left
            }
        }
        self.save()
    }

    /// Rotates the log: the content is copied aside and the file cut to nothing. Lines written between the
    /// two calls are lost; a pipe would not lose them, but would tie the service's life to the shim's.
    fn rotate(&self) {
        let live = self.spec.logs.join(LOG_FILE);
        if fs::metadata(&live).map_or(0, |m| m.len()) < self.spec.log_bytes {
            return;
        }
        let name = |n: u32| self.spec.logs.join(format!("{LOG_FILE}.{n}"));
        for n in (1..self.spec.log_keep).rev() {
            let _ = fs::rename(name(n), name(n + 1));
        }
        if self.spec.log_keep > 0 {
            let _ = fs::copy(&live, name(1));
        }
        if let Ok(file) = OpenOptions::new().write(true).open(&live) {
            let _ = file.set_len(0);
        }
    }
}
