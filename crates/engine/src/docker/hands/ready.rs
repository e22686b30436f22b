//! Helpers that are started before there is work for them: starting one takes a third of a second, and production may be down when
//! the work comes.
//!
//! Owns waiting helpers. One that is asked for with the same mounts takes its work at once; nobody needs to know whether there is
//! one. None may outlive this, or be in the way of removing what it has mounted.

use super::super::{Docker, DockerError, Ended, RunSpec};
use super::talk::{Spoken, Words};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a helper may take to start. Later ones are used, too: this is only waited for.
const START: Duration = Duration::from_secs(3);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Waiting helpers of one process.
#[derive(Debug)]
pub struct Ready {
    docker: Arc<Docker>,
    waiting: Mutex<Vec<Waiting>>,
}

/// A helper that has no work yet.
#[derive(Debug)]
pub(super) struct Waiting {
    spec: RunSpec,
    pub(super) words: Sender<Vec<u8>>,
    pub(super) lines: Receiver<Vec<u8>>,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) running: JoinHandle<Result<Ended, DockerError>>,
}

impl Ready {
    /// None yet.
    pub fn new(docker: Arc<Docker>) -> Self {
        Self { docker, waiting: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a helper, and waits until it runs.
    pub(super) fn start(&self, spec: RunSpec) -> Result<(), DockerError> {
        let name = format!("switchback-ready-{}", ulid::Ulid::generate().to_string().to_lowercase());
        let named = RunSpec { name: Some(name.clone()), ..spec.clone() };
        let (words, heard) = channel();
        let (said, lines) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let (docker, stop) = (Arc::clone(&self.docker), Arc::clone(&cancelled));
        let running = std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(move || {
                let mut input = Words::new(heard, Vec::new());
                let mut output = Spoken::new(said);
                docker.run(&named, Some(&mut input), &mut output, &|| stop.load(Ordering::Relaxed))
            })
            .map_err(|source| DockerError::Stream { doing: "start a thread", source })?;
        let began = Instant::now();
        while !running.is_finished()
            && began.elapsed() < START
            && !self.docker.inspect(&name)?.is_some_and(|c| c.state.running)
        {
            std::thread::sleep(LOOK);
        }
        self.all().push(Waiting { spec, words, lines, cancelled, running });
        Ok(())
    }

    /// Takes a waiting helper that is made like this.
    pub(super) fn take(&self, spec: &RunSpec) -> Option<Waiting> {
        let mut all = self.all();
        let at = all.iter().position(|w| w.spec == *spec && !w.running.is_finished())?;
        Some(all.swap_remove(at))
    }

    /// Ends those that wait.
    pub fn clear(&self) {
        for waiting in std::mem::take(&mut *self.all()) {
            waiting.end();
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Waiting {
    /// Ends it: without a word it has nothing to do.
    fn end(self) {
        self.cancelled.store(true, Ordering::Relaxed);
        drop(self.words);
        // Its container is removed by then, or the next run removes it.
        let _ = self.running.join();
    }
}
