//! Moving bytes into and out of containers.
//!
//! Owns feeding, reading both streams at the same time, cancelling, and noticing an engine that went away in
//! the middle. It must never wait for one stream while another one fills up.

use super::error::Call;
use super::{Docker, DockerError};
use bollard::container::LogOutput;
use bollard::errors::Error as Answer;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Read at once: large enough that system calls do not count, small against memory.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way; with more, a slow container would let memory grow.
const QUEUE: usize = 8;
/// How often cancelling is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// After so long without a byte the engine is asked whether it is still there.
const SILENT: Duration = Duration::from_secs(30);
/// How much of standard error is kept: its end, because that is where the error is.
const TAIL: usize = 64 * 1024;

/// Whether the engine is there; it answers from memory.
const PING: Call = Call { doing: "answer", section: "PING", limit: Duration::from_secs(30) };

/// What a thread reads for us.
pub(super) struct Fed {
    /// The bytes.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Why reading failed, if it did.
    pub broke: Arc<Mutex<Option<io::Error>>>,
}

/// The reading end of [`Fed`].
pub(super) struct Feeder {
    sender: mpsc::Sender<io::Result<Bytes>>,
    broke: Arc<Mutex<Option<io::Error>>>,
}

impl Fed {
    pub(super) fn channel() -> (Feeder, Self) {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let broke = Arc::new(Mutex::new(None));
        (Feeder { sender, broke: Arc::clone(&broke) }, Self { chunks, broke })
    }
}

/// What is fed, for the body of a request.
pub(super) fn fed(chunks: mpsc::Receiver<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::unfold(chunks, |mut chunks| async move {
        chunks.recv().await.map(|chunk| (chunk, chunks))
    })
}

/// Reads to the end, or until nobody wants more.
pub(super) fn feed(reader: &mut (dyn Read + Send), Feeder { sender, broke }: Feeder) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..n]))).is_err() {
                    return;
                }
            }
            // A reader that waits for its words says so now and then; a container that never started wants none.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                if sender.is_closed() {
                    return;
                }
            }
            Err(e) => {
                // The receiver gets a copy, so that it does not take this for the end.
                let copy = io::Error::new(e.kind(), e.to_string());
                if let Ok(mut broke) = broke.lock() {
                    *broke = Some(e);
                }
                let _ = sender.blocking_send(Err(copy));
                return;
            }
        }
    }
}

/// The connection to a container's streams.
pub(super) struct Attached {
    pub output: Pin<Box<dyn Stream<Item = Result<LogOutput, Answer>> + Send>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What to do with the streams.
pub(super) struct Pump<'a> {
    pub attached: Attached,
    pub stdin: Option<mpsc::Receiver<io::Result<Bytes>>>,
    pub stdout: &'a mut dyn Write,
    pub cancel: &'a dyn Fn() -> bool,
    pub call: Call,
    pub what: &'a str,
}

/// Writes what arrives, and closes the container's standard input at the end.
async fn write_all(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    stdin: Option<mpsc::Receiver<io::Result<Bytes>>>,
) -> Result<Pin<Box<dyn AsyncWrite + Send>>, DockerError> {
    let Some(mut stdin) = stdin else { return Ok(input) };
    while let Some(chunk) = stdin.recv().await {
        let chunk =
            chunk.map_err(|source| DockerError::Stream { doing: "read the input of a container", source })?;
        // A program that does not read to the end is free to do so; its exit code tells whether that was right.
        if input.write_all(&chunk).await.is_err() {
            return Ok(input);
        }
    }
    let _ = input.shutdown().await;
    Ok(input)
}

impl Docker {
    /// Moves the streams until the container closed its output. Returns the end of standard error.
    pub(super) async fn pump(&self, pump: Pump<'_>) -> Result<String, DockerError> {
        let Pump { attached: Attached { mut output, input }, stdin, stdout, cancel, call, what } = pump;
        let mut writing = Some(Box::pin(write_all(input, stdin)));
        // The input stays open (but for the half that was shut down): closing it would end the connection.
        let mut written = None;
        let mut tick = tokio::time::interval(LOOK);
        let mut heard = Instant::now();
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let writer = async {
                match writing.as_mut() {
                    Some(writing) => writing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                part = output.next() => {
                    heard = Instant::now();
                    match part {
                        None => break,
                        Some(Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message })) => stdout
                            .write_all(&message)
                            .map_err(|source| DockerError::Stream { doing: "write the output of a container", source })?,
                        Some(Ok(LogOutput::StdErr { message })) => {
                            tail.extend_from_slice(&message);
                            tail.drain(..tail.len().saturating_sub(TAIL));
                        }
                        // Only a frame that was cut in the middle arrives without a header.
                        Some(Ok(LogOutput::Console { .. })) => {
                            return Err(DockerError::EngineUnreachable {
                                endpoint: self.endpoint().to_owned(),
                                why: format!("the output of {what} was cut off"),
                            });
                        }
                        Some(Err(e)) => return Err(self.failed(call, what, &e)),
                    }
                }
                done = writer => {
                    written = Some(done?);
                    writing = None;
                }
                _ = tick.tick() => {
                    if cancel() {
                        return Err(DockerError::Cancelled);
                    }
                    if heard.elapsed() >= SILENT {
                        self.bounded(PING, what, self.client.ping()).await.map_err(|e| self.gone(e))?;
                        heard = Instant::now();
                    }
                }
            }
        }
        drop(written);
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    /// An engine that does not even answer a ping is gone; a proxy that refuses pings is not.
    fn gone(&self, error: DockerError) -> DockerError {
        match error {
            DockerError::Timeout { .. } => DockerError::EngineUnreachable {
                endpoint: self.endpoint().to_owned(),
                why: "it stopped answering".to_owned(),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeding_ends_when_nobody_wants_more_although_the_reader_still_waits() {
        struct Waits;
        impl Read for Waits {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(1));
                Err(io::ErrorKind::Interrupted.into())
            }
        }
        let (feeder, fed) = Fed::channel();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            feed(&mut Waits, feeder);
            done.send(()).expect("somebody waits");
        });
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "somebody may still want words");
        drop(fed);
        ended.recv_timeout(Duration::from_secs(30)).expect("it ends");
    }
}
