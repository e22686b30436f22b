//! A conversation with a helper that waits for a word in between.

use super::super::{DockerError, Ended, RunSpec};
use super::client::{Hands, HandsError, Mounts, Result};
use super::wire::{Line, Request, Turn};
use crate::store::{Progress, StoreError};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How often the end of the helper is looked for while it is silent.
const LOOK: Duration = Duration::from_millis(200);

/// What the helper reads: words that are sent one by one.
pub(super) struct Words {
    words: Receiver<Vec<u8>>,
    left: Vec<u8>,
}

impl Words {
    pub(super) fn new(words: Receiver<Vec<u8>>, first: Vec<u8>) -> Self {
        Self { words, left: first }
    }
}

impl Read for Words {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            // The end of the conversation is the end of the input.
            match self.words.recv_timeout(LOOK) {
                Ok(word) => self.left = word,
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                // Whoever feeds the helper looks whether it is still there: it may never have started.
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
        let n = self.left.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.left[..n]);
        self.left.drain(..n);
        Ok(n)
    }
}

/// What the helper writes, line by line.
pub(super) struct Spoken {
    line: Vec<u8>,
    lines: Sender<Vec<u8>>,
}

impl Spoken {
    pub(super) fn new(lines: Sender<Vec<u8>>) -> Self {
        Self { line: Vec::new(), lines }
    }
}

impl Write for Spoken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.lines.send(line).map_err(|_| io::Error::other("nobody listens"))?;
            } else {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Hands<'_> {
    /// Runs an operation that takes turns with `talk`, which answers each with a line.
    pub(super) fn converse(
        &self,
        mounts: Mounts,
        request: &Request,
        progress: &Progress<'_>,
        talk: &mut dyn FnMut(Turn) -> Result<&'static str>,
    ) -> Result<Value> {
        let spec = self.spec(mounts, false);
        match self.converse_with(&spec, request, progress, talk) {
            // Nothing was said yet.
            Err(e) => match self.renewed(&e)? {
                Some(renewed) => {
                    let spec = RunSpec { image: renewed.image.clone(), ..spec };
                    renewed.converse_with(&spec, request, progress, talk)
                }
                None => Err(e),
            },
            other => other,
        }
    }

    fn converse_with(
        &self,
        spec: &RunSpec,
        request: &Request,
        progress: &Progress<'_>,
        talk: &mut dyn FnMut(Turn) -> Result<&'static str>,
    ) -> Result<Value> {
        let mut text =
            serde_json::to_vec(request).map_err(|e| HandsError::Broken { code: -1, why: e.to_string() })?;
        text.push(b'\n');
        if (progress.cancel)() {
            return Err(StoreError::Cancelled.into());
        }
        if let Some(ready) = self.ready.and_then(|r| r.take(spec))
            && ready.words.send(text.clone()).is_ok()
        {
            let stop = &|| {
                if (progress.cancel)() {
                    ready.cancelled.store(true, Ordering::Relaxed);
                }
            };
            return follow(ready.words, ready.lines, stop, progress, talk, || ready.running.join());
        }
        let (to_helper, words) = channel();
        let (said, lines) = channel();
        let cancel = progress.cancel;
        std::thread::scope(|scope| {
            let docker = self.docker;
            let helper = scope.spawn(move || {
                let mut input = Words::new(words, text);
                let mut output = Spoken::new(said);
                docker.run(spec, Some(&mut input), &mut output, &|| cancel())
            });
            follow(to_helper, lines, &|| {}, progress, talk, || helper.join())
        })
    }
}

/// Follows a conversation to its end.
fn follow(
    to_helper: Sender<Vec<u8>>,
    lines: Receiver<Vec<u8>>,
    look: &dyn Fn(),
    progress: &Progress<'_>,
    talk: &mut dyn FnMut(Turn) -> Result<&'static str>,
    join: impl FnOnce() -> std::thread::Result<std::result::Result<Ended, DockerError>>,
) -> Result<Value> {
    let mut answer = None;
    let mut trouble = None;
    loop {
        let line = match lines.recv_timeout(LOOK) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                look();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match serde_json::from_slice(&line) {
            Ok(Line::Progress(done, total)) => (progress.report)(done, total),
            Ok(Line::Turn(turn)) => match talk(turn) {
                Ok(word) => {
                    // A helper that is gone is noticed by its end.
                    let _ = to_helper.send(word.as_bytes().to_vec());
                }
                Err(e) => {
                    trouble = Some(e);
                    break;
                }
            },
            Ok(Line::Done(value)) => answer = Some(Ok(value)),
            Ok(Line::Failed(failure)) => answer = Some(Err(failure.into())),
            Err(e) => {
                trouble = Some(HandsError::Broken { code: 0, why: e.to_string() });
                break;
            }
        }
        if answer.is_some() {
            break;
        }
    }
    // Without further words the helper reads the end of its input and stops.
    drop(to_helper);
    drop(lines);
    let ended = join().map_err(|_| HandsError::Broken { code: -1, why: "its thread ended".to_owned() })?;
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let ended = ended?;
    match answer {
        Some(answer) => Ok(answer.map_err(HandsError::Store)?),
        None => Err(HandsError::Broken { code: ended.code, why: ended.stderr_tail.trim().to_owned() }),
    }
}
