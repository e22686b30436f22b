//! What is no longer needed, removed by the clock (`retention.gc`).
//!
//! Owns when; what may go is decided by the command `gc`, which this starts, and which refuses while anything else is done.

use crate::error::{EngineError, io};
use crate::home::{Home, write_atomic};
use crate::runtime::process::start::own_program;
use crate::runtime::process::table;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use switchback_core::config::Config;

/// The program's exit code where another run holds the lock.
const BUSY: i32 = 8;

/// Where it is recorded when it was last done: by its own time of change.
fn mark(home: &Home) -> std::path::PathBuf {
    home.state().join("gc.done")
}

/// Whether it is time; the first time is one period after this was first asked.
fn is_due(home: &Home, every: Duration) -> Result<bool, EngineError> {
    let mark = mark(home);
    match std::fs::metadata(&mark).and_then(|m| m.modified()) {
        Ok(at) => Ok(SystemTime::now().duration_since(at).is_ok_and(|since| since >= every)),
        Err(_) => write_atomic(&mark, b"").map(|()| false),
    }
}

/// Does it if it is due. What is busy or unfinished is left alone until the next time that is asked.
pub fn run_due(home: &Home, config: &Config, say: &dyn Fn(&str)) -> Result<(), EngineError> {
    let Some(every) = config.retention.gc else { return Ok(()) };
    if !is_due(home, every.0)? {
        return Ok(());
    }
    let program = own_program();
    let done = Command::new(&program)
        // Who has just started the keeper may still hold the lock.
        .args(["gc", "--yes", "--quiet", "--wait", "30s", "--directory"])
        .arg(home.root())
        .env_remove(table::MARKER)
        .stdin(Stdio::null())
        .output()
        .map_err(io("start", &program))?;
    if done.status.success() {
        say("gc is done");
        return write_atomic(&mark(home), b"");
    }
    // Something else is being done to the stack: then at the next look.
    if done.status.code() != Some(BUSY) {
        let said = String::from_utf8_lossy(&done.stderr);
        say(&format!("gc: {}", said.lines().next_back().unwrap_or_default()));
        write_atomic(&mark(home), b"")?;
    }
    Ok(())
}
