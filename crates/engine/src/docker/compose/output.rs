//! What Compose writes: into folders that only this user can read, and from there, redacted, into logs.
//!
//! Owns temporary files with secrets in them. They must never outlive the call.

use super::super::DockerError;
use crate::exec::{self, Output};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::workflow::Redactor;

/// The most of the output of a one-shot run that is kept: its end.
const LOG_BYTES: u64 = 8 << 20;

/// Writes the end of the raw output to the log, redacted, and returns what of it is short enough for a message.
pub(super) fn keep_log(raw: &Path, log: &Path, redactor: &Redactor) -> io::Result<String> {
    let mut bytes = Vec::new();
    match fs::File::open(raw) {
        Ok(mut file) => {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
            file.take(LOG_BYTES).read_to_end(&mut bytes)?;
            if length > LOG_BYTES {
                // The first line is cut, perhaps in the middle of a secret.
                let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                bytes.drain(..end);
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let text = redactor.redact(&String::from_utf8_lossy(&bytes));
    let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    log.write_all(text.as_bytes())?;
    log.sync_all()?;
    let mut from = text.len().saturating_sub(exec::TAIL_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    Ok(text[from..].to_owned())
}

/// Compose's own words, without its progress: from the last line that does not only tell of a container's state.
pub(super) fn failed(command: &'static str, output: &Output) -> DockerError {
    let text = output.stderr_tail.trim();
    let text = if text.is_empty() { output.stdout_tail.trim() } else { text };
    let progress = |line: &&str| {
        let line = line.trim_start();
        ["Container ", "Network ", "Volume "].iter().any(|word| line.starts_with(word))
    };
    let said: Vec<&str> = text.lines().filter(|line| !progress(line)).collect();
    let why = if said.is_empty() { text.to_owned() } else { said.join("\n").trim().to_owned() };
    if why.contains("port is already allocated") || why.contains("address already in use") {
        return DockerError::PortTaken { what: "a service".to_owned(), why };
    }
    DockerError::ComposeFailed { command, how: output.how(), why }
}

/// A folder that only this user can read, removed afterwards: models and raw output hold secrets.
pub(super) struct PrivateDir {
    pub(super) path: PathBuf,
    /// Locked as long as this process lives: what a killed one left behind is not.
    _lock: fs::File,
}

/// What the names of such folders begin with; a ULID follows.
const PREFIX: &str = "switchback-";
const LOCK: &str = ".lock";
/// A folder without a lock is being made this moment, or is of a version that made none.
const UNLOCKED: Duration = Duration::from_secs(86_400);

impl PrivateDir {
    pub(super) fn create() -> io::Result<Self> {
        Self::create_in(&std::env::temp_dir())
    }

    fn create_in(temp: &Path) -> io::Result<Self> {
        sweep(temp);
        let path = temp.join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }
}

/// Removes the folders of killed processes of this user. What cannot be looked at or removed stays.
fn sweep(temp: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(temp).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let made = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(ulid::Ulid::from_string);
        let (Some(Ok(made)), Ok(meta)) = (made, entry.metadata()) else { continue };
        if !meta.is_dir() || meta.uid() != own {
            continue;
        }
        let left = match fs::File::open(entry.path().join(LOCK)) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => made.datetime().elapsed().is_ok_and(|age| age > UNLOCKED),
        };
        if left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // Nothing else can be done about it; only this user can read what stays.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_log_is_bounded_and_hides_secrets() {
        let dir = tempfile::tempdir().expect("folder");
        let (raw, log) = (dir.path().join("raw"), dir.path().join("log"));
        fs::write(&raw, "the hunter2-secret is here\n".repeat(400_000)).expect("writes");
        let tail = keep_log(&raw, &log, &Redactor::from_values(["hunter2-secret"])).expect("kept");
        let kept = fs::read_to_string(&log).expect("log");
        assert!(!kept.contains("hunter2") && kept.starts_with("the ***"), "{}", &kept[..40]);
        assert!(kept.len() as u64 <= LOG_BYTES && tail.len() <= exec::TAIL_BYTES);
        assert!(keep_log(&dir.path().join("none"), &log, &Redactor::new()).expect("kept").is_empty());
    }

    #[test]
    fn folders_of_killed_processes_are_removed_and_those_in_use_are_not() {
        let temp = tempfile::tempdir().expect("folder");
        let used = PrivateDir::create_in(temp.path()).expect("creates");
        // As a killed process leaves it: nobody holds the lock.
        let left = temp.path().join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        fs::create_dir(&left).expect("creates");
        fs::write(left.join(LOCK), "").expect("writes");
        fs::write(left.join("model.json"), "secret").expect("writes");
        // Being made this moment, and somebody else's.
        let new = temp.path().join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        let other = temp.path().join("switchback-mine");
        for folder in [&new, &other] {
            fs::create_dir(folder).expect("creates");
        }
        let next = PrivateDir::create_in(temp.path()).expect("creates");
        assert!(!left.exists() && used.path.exists() && new.exists() && other.exists());
        let gone = (used.path.clone(), next.path.clone());
        drop((used, next));
        assert!(!gone.0.exists() && !gone.1.exists());
    }
}
