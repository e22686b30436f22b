//! Work on a repository in a process of its own, on this host: a library that cannot be interrupted runs in one that can.

use super::vault::{Task, Vault};
use crate::docker::hands::{Lines, STORE_VERB, vault_request};
use crate::error::{EngineError, io};
use crate::runtime::process::start::own_program;
use crate::runtime::process::table;
use crate::store::{Progress, StoreError};
use serde_json::Value;
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often it is asked whether to stop.
const ASK: Duration = Duration::from_millis(50);

/// Ends the process with whoever waits for it.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Carries out a task.
pub fn perform(vault: &Vault, task: &Task, progress: &Progress<'_>) -> Result<Value, EngineError> {
    let program = own_program();
    let mut child = Command::new(&program)
        .arg(STORE_VERB)
        // It belongs to no service, and outlives nobody: its input ends with this process.
        .env_remove(table::MARKER)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Guard)
        .map_err(io("start", &program))?;
    let mut request = vault_request(vault, task)?;
    request.push(b'\n');
    // Kept open: its end would tell the other side that nobody listens any more.
    let mut stdin = child.0.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(&request).map_err(io("write to", &program))?;
    }
    let (send, receive) = channel();
    if let Some(stdout) = child.0.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    let mut lines = Lines::new(None, progress);
    loop {
        match receive.recv_timeout(ASK) {
            Ok(bytes) => lines.write_all(&bytes).map_err(io("read the answer of", &program))?,
            Err(RecvTimeoutError::Timeout) if (progress.cancel)() => return Err(StoreError::Cancelled.into()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match lines.answer.take() {
        Some(answer) => Ok(answer?),
        None => Err(EngineError::Internal { detail: "the work on the repository broke off".to_owned() }),
    }
}
