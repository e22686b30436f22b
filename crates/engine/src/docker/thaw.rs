//! The guard of a pause: whoever freezes production's containers may be killed, and then nobody would thaw them.
//!
//! Owns a small process that waits for the end of its input. If that comes without the word that all is well, it
//! thaws the containers. It must never thaw what it was not given, and it outlives its parent.

use super::{Docker, DockerError};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The hidden command.
pub const THAW_VERB: &str = "__thaw";

/// All is well: the containers run again.
const WELL: &str = "well\n";

/// Stands by while containers are paused.
pub struct ThawGuard {
    child: Child,
}

impl ThawGuard {
    /// Starts the guard of these containers: the program under its hidden command.
    pub fn start(program: &Path, ids: &[String]) -> Result<Self, DockerError> {
        let mut command = Command::new(program);
        command.arg0("switchback-thaw").arg(THAW_VERB).args(ids);
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let failed = |source| DockerError::Stream { doing: "start the guard of a pause", source };
        let mut child = command.spawn().map_err(failed)?;
        // It guards once it has spoken.
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        if line != "ready\n" {
            let _ = child.wait();
            return Err(failed(std::io::Error::other("it ended at once")));
        }
        Ok(Self { child })
    }

    /// The containers run again: the guard has nothing to do.
    pub fn dismiss(mut self) {
        if let Some(stdin) = &mut self.child.stdin {
            let _ = stdin.write_all(WELL.as_bytes());
        }
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The guard itself. Returns the exit code.
pub fn guard(ids: &[String], mut stdin: impl Read, mut stdout: impl std::io::Write) -> u8 {
    // A Ctrl-C at the terminal is meant for the parent.
    let _ = rustix::process::setsid();
    let Ok(docker) = Docker::connect() else { return 1 };
    if stdout.write_all(b"ready\n").and_then(|()| stdout.flush()).is_err() {
        return 1;
    }
    let mut word = String::new();
    let _ = stdin.read_to_string(&mut word);
    if word == WELL {
        return 0;
    }
    let mut code = 0;
    for id in ids {
        let paused = docker.inspect(id).ok().flatten().is_some_and(|c| c.state.paused);
        if paused && docker.unpause(id).is_err() {
            code = 1;
        }
    }
    code
}
