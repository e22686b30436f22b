//! What Compose writes: its output, redacted, into logs, and why it failed.
//!
//! Owns reading raw output, which may hold secrets. None of them may get into a log or a message.

use super::super::DockerError;
use crate::exec::{self, Output};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
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
}
