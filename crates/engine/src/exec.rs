//! Runs programs: the only place of the engine that spawns any.
//!
//! Every program gets an argument list, its own process group, a time limit and bounded capture.
//! It must never build shell strings; `sh -c` is for commands that the user wrote as such.

pub mod guarded;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use switchback_core::workflow::Redactor;

/// How much of each stream is kept: the end, because that is where the error is.
pub const TAIL_BYTES: usize = 64 * 1024;

/// Time between SIGTERM and SIGKILL: enough to remove temporary files, not enough to stall a run.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long output is awaited after the program ended while something else holds its pipes.
const DRAIN: Duration = Duration::from_millis(300);

/// A program to run.
#[derive(Clone)]
pub struct Exec<'a> {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables added to (or replacing those of) this process.
    pub env: Vec<(OsString, OsString)>,
    /// Whether the variables of this process are passed on.
    pub inherit: Inherit,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Text on standard input; nothing if absent.
    pub stdin: Option<Vec<u8>>,
    /// Limit on wall time.
    pub timeout: Duration,
    /// Where output goes.
    pub sink: Sink,
    /// What happens to processes it left in its group.
    pub leftovers: Leftovers,
    /// Values removed from captured output.
    pub redactor: Redactor,
    /// Asked every few milliseconds; `true` stops the program.
    pub cancel: Option<&'a dyn Fn() -> bool>,
}

/// Whether the variables of this process are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherit {
    /// All of them.
    Environment,
    /// None.
    Nothing,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// The end of both streams is kept and redacted.
    Capture,
    /// Both streams are appended to a file (mode 600), unredacted; the tails stay empty.
    File(PathBuf),
}

/// What happens to processes that a program left in its group when it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They live on.
    Keep,
    /// They are killed.
    Kill,
}

impl Exec<'_> {
    /// A program with defaults: inherited environment, captured output, leftovers kept.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>, timeout: Duration) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            inherit: Inherit::Environment,
            cwd: None,
            stdin: None,
            timeout,
            sink: Sink::Capture,
            leftovers: Leftovers::Keep,
            redactor: Redactor::new(),
            cancel: None,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Stopped by us at the time limit.
    TimedOut,
    /// Stopped by us because the run was cancelled.
    Cancelled,
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// The end of standard output, redacted.
    pub stdout_tail: String,
    /// The end of standard error, redacted.
    pub stderr_tail: String,
    /// Wall time in milliseconds.
    pub took_ms: u64,
}

impl Output {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.end == End::Code(0)
    }
    /// Whether it was stopped at the time limit.
    pub fn timed_out(&self) -> bool {
        self.end == End::TimedOut
    }
    /// How it ended, in words: "exit code 3".
    pub fn how(&self) -> String {
        match self.end {
            End::Code(code) => format!("exit code {code}"),
            End::Signal(signal) => format!("ended by signal {signal}"),
            End::TimedOut => "stopped at the time limit".to_owned(),
            End::Cancelled => "stopped because the run was cancelled".to_owned(),
        }
    }
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The argument list is empty.
    #[error("no program was named")]
    Empty,
    /// It could not be started.
    #[error("cannot start {program:?}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log file could not be opened.
    #[error("cannot write {path}: {source}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for it failed.
    #[error("cannot wait for {program:?}: {source}")]
    Wait {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs a program to its end, or to its time limit.
pub fn run(exec: &Exec<'_>) -> Result<Output, ExecError> {
    let began = Instant::now();
    let (program, arguments) = exec.argv.split_first().ok_or(ExecError::Empty)?;
    let name = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    if exec.inherit == Inherit::Nothing {
        command.env_clear();
    }
    command.envs(exec.env.iter().map(|(k, v)| (k, v)));
    if let Some(cwd) = &exec.cwd {
        command.current_dir(cwd);
    }
    command.stdin(if exec.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    match &exec.sink {
        Sink::Capture => {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Sink::File(path) => {
            let (out, err) = open_log(path)?;
            command.stdout(out).stderr(err);
        }
    }
    let mut child = command.spawn().map_err(|source| ExecError::Start { program: name.clone(), source })?;
    drop(command);
    let keep = TAIL_BYTES + exec.redactor.longest();
    let out = child.stdout.take().map(|pipe| Tail::follow(pipe, keep));
    let err = child.stderr.take().map(|pipe| Tail::follow(pipe, keep));
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), exec.stdin.clone()) {
        // A program may end without reading: the broken pipe that follows is its own business.
        thread::spawn(move || drop(pipe.write_all(&text)));
    }
    let wait_error = |source: io::Error| ExecError::Wait { program: name.clone(), source };
    let group = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| wait_error(io::Error::other("the process has no valid number")))?;
    let stopped = watch(exec, group, began).map_err(|e| wait_error(e.into()))?;
    // The child was not reaped yet, so its number (and its group's) cannot belong to anyone else.
    if stopped.is_some() || exec.leftovers == Leftovers::Kill {
        signal(group, Signal::KILL);
    }
    let status = child.wait().map_err(wait_error)?;
    let end = match (stopped, status.code()) {
        (Some(end), _) => end,
        (None, Some(code)) => End::Code(code),
        (None, None) => End::Signal(status.signal().unwrap_or_default()),
    };
    let drained_by = Instant::now() + DRAIN;
    let finish = |tail: Option<Tail>| tail.map_or_else(String::new, |t| t.finish(drained_by, &exec.redactor));
    let (stdout_tail, stderr_tail) = (finish(out), finish(err));
    Ok(Output { end, stdout_tail, stderr_tail, took_ms: elapsed_ms(began) })
}

/// Milliseconds since an instant.
pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn open_log(path: &Path) -> Result<(Stdio, Stdio), ExecError> {
    let log_error = |source| ExecError::Log { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(log_error)?;
    let second = file.try_clone().map_err(log_error)?;
    Ok((file.into(), second.into()))
}

/// Waits for the end without reaping; `Some` if we had to stop it.
fn watch(exec: &Exec<'_>, group: Pid, began: Instant) -> rustix::io::Result<Option<End>> {
    let mut pause = Duration::from_micros(200);
    let mut stop: Option<(End, Instant)> = None;
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(group), options) {
            Ok(Some(_)) => return Ok(stop.map(|(end, _)| end)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        match stop {
            None => {
                let end = if exec.cancel.is_some_and(|cancel| cancel()) {
                    Some(End::Cancelled)
                } else {
                    (began.elapsed() >= exec.timeout).then_some(End::TimedOut)
                };
                if let Some(end) = end {
                    signal(group, Signal::TERM);
                    stop = Some((end, Instant::now()));
                    pause = Duration::from_millis(1);
                }
            }
            Some((_, since)) if since.elapsed() >= TERM_GRACE => signal(group, Signal::KILL),
            Some(_) => {}
        }
        thread::sleep(pause);
        // Quick for short programs, 10 ms for long ones: 100 wake-ups a second are not noticed.
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Signals a group; that it has gone meanwhile is fine.
fn signal(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// The end of a stream, collected by a thread.
struct Tail {
    kept: Arc<Mutex<Kept>>,
    reader: thread::JoinHandle<()>,
    keep: usize,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Tail {
    fn follow(mut pipe: impl Read + Send + 'static, keep: usize) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let n = match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.bytes.extend(&buffer[..n]);
                let excess = kept.bytes.len().saturating_sub(keep);
                kept.bytes.drain(..excess);
                kept.dropped += excess as u64;
            }
        });
        Self { kept, reader, keep }
    }

    /// Waits for the end of the stream, but not for a stranger that holds it open.
    fn finish(self, until: Instant, redactor: &Redactor) -> String {
        while !self.reader.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes: Vec<u8> = kept.bytes.into();
        let text = redactor.redact(&String::from_utf8_lossy(&bytes));
        if kept.dropped == 0 {
            return text;
        }
        // The first bytes could be the end of a secret that was cut in half: they go too.
        let mut from = self.keep.saturating_sub(TAIL_BYTES).min(text.len());
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let dropped = kept.dropped + from as u64;
        format!("[{dropped} bytes left out]\n{}", &text[from..])
    }
}

/// Processor time in milliseconds and resident memory in bytes of a process of this host; zeros if it is gone.
pub fn used_by(pid: i32) -> (u64, u64) {
    let read = || -> Option<(u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets and may hold anything, brackets included.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
        let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Some((ticks * 1000 / per_second, number(21)? * page))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout_ms: u64) -> Exec<'static> {
        Exec::new(["sh", "-c", script], Duration::from_millis(timeout_ms))
    }

    #[test]
    fn output_and_exit_code_are_reported() {
        let mut exec = sh("cat; echo err >&2; echo $A; exit 3", 5000);
        exec.stdin = Some(b"in ".to_vec());
        exec.env.push(("A".into(), "hunter2".into()));
        exec.redactor.add("hunter2");
        let output = run(&exec).expect("ran");
        assert_eq!((output.end, output.stdout_tail.as_str()), (End::Code(3), "in ***\n"));
        assert_eq!((output.stderr_tail.as_str(), output.how().as_str()), ("err\n", "exit code 3"));
        assert_eq!(run(&sh("kill -9 $$", 5000)).expect("ran").end, End::Signal(9));
    }

    #[test]
    fn the_whole_group_is_stopped_at_the_time_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let mark = folder.path().join("alive");
        let script = format!("(sleep 1; touch {}) & sleep 30", mark.display());
        let began = Instant::now();
        let output = run(&sh(&script, 100)).expect("ran");
        assert!(output.timed_out(), "{output:?}");
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        thread::sleep(Duration::from_millis(1200).saturating_sub(began.elapsed()));
        assert!(!mark.exists(), "a grandchild outlived the time limit");
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_killed() {
        let began = Instant::now();
        let output = run(&sh("trap '' TERM; while :; do sleep 0.05; done", 50)).expect("ran");
        assert!(output.timed_out());
        assert!(began.elapsed() < TERM_GRACE + Duration::from_secs(2));
    }

    #[test]
    fn a_background_process_that_holds_the_pipe_does_not_hold_us() {
        let began = Instant::now();
        let mut exec = sh("sleep 20 & echo done", 10_000);
        exec.leftovers = Leftovers::Kill;
        let output = run(&exec).expect("ran");
        assert_eq!((output.end, output.stdout_tail.as_str()), (End::Code(0), "done\n"));
        assert!(began.elapsed() < Duration::from_secs(2));
        let output = run(&sh("setsid sleep 2 & echo done", 10_000)).expect("ran");
        assert_eq!(output.stdout_tail, "done\n");
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn endless_output_is_bounded_and_a_cut_secret_stays_hidden() {
        let mut exec = sh("yes topsecret-value | head -c 3000000", 20_000);
        exec.redactor.add("topsecret-value");
        let output = run(&exec).expect("ran");
        assert!(output.stdout_tail.len() <= TAIL_BYTES + 64, "{}", output.stdout_tail.len());
        assert!(output.stdout_tail.starts_with('['));
        assert!(!output.stdout_tail.contains("secret") && !output.stdout_tail.contains("-value"));
    }

    #[test]
    fn a_run_can_be_cancelled_and_a_missing_program_is_named() {
        let cancel = || true;
        let mut exec = sh("sleep 10", 10_000);
        exec.cancel = Some(&cancel);
        assert_eq!(run(&exec).expect("ran").end, End::Cancelled);
        let error = run(&Exec::new(["/no/such/program"], Duration::from_secs(1))).expect_err("missing");
        assert!(error.to_string().starts_with("cannot start \"/no/such/program\""), "{error}");
        assert!(matches!(run(&Exec::new([""; 0], Duration::ZERO)), Err(ExecError::Empty)));
    }

    #[test]
    fn output_can_go_to_a_file() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("log");
        let mut exec = sh("echo a; echo b >&2", 5000);
        exec.sink = Sink::File(log.clone());
        assert!(run(&exec).expect("ran").success());
        assert_eq!(std::fs::read_to_string(log).expect("log"), "a\nb\n");
    }
}
