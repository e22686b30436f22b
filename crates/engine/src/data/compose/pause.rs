//! Pausing the writers of production for the moment of a cut, and making sure that they go on.

use crate::docker::hands::HandsError;
use crate::docker::thaw::ThawGuard;
use crate::docker::{Docker, DockerError};
use crate::error::EngineError;
use crate::runtime::compose::users_of;
use std::path::Path;
use std::time::{Duration, Instant};
use switchback_core::release::Instance;

/// A busy kernel does not always freeze all tasks at once (cgroup v1), and the engine gives up then: "unable to freeze".
/// Seen with 40 tasks waiting for 2 processors: 6 tries in 5 s were too few.
const FREEZE_TRIES: u32 = 20;
/// Grows with every try, so that a burst of work can pass.
const FREEZE_AGAIN: Duration = Duration::from_millis(200);
/// But not beyond this.
const FREEZE_LATEST: Duration = Duration::from_secs(2);

fn may_freeze_later(error: &DockerError) -> bool {
    matches!(error, DockerError::Other { .. } | DockerError::Conflict { .. })
}

/// The containers that use an instance's data, and how long they were paused.
pub struct Writers<'a> {
    docker: &'a Docker,
    program: &'a Path,
    ids: Vec<String>,
    guard: Option<ThawGuard>,
    since: Option<Instant>,
    /// The longest pause.
    pub longest: Duration,
}

impl<'a> Writers<'a> {
    /// Everything that runs on the instance's mounts, of whatever project. The program guards the pause.
    pub fn of(docker: &'a Docker, program: &'a Path, instance: &Instance) -> Result<Self, EngineError> {
        let users = users_of(docker, instance)?;
        let ids = users.into_iter().filter(|c| !c.state.paused).map(|c| c.id).collect();
        Ok(Self { docker, program, ids, guard: None, since: None, longest: Duration::ZERO })
    }

    /// Stops (`true`) or lets go on (`false`).
    pub fn pause(&mut self, stop: bool) -> Result<(), HandsError> {
        if !stop {
            return Ok(self.resume()?);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            self.guard = Some(ThawGuard::start(self.program, &self.ids)?);
            self.since = Some(Instant::now());
            let Err(e) = self.each(crate::docker::Docker::pause) else { return Ok(()) };
            self.resume()?;
            if tries == FREEZE_TRIES || !may_freeze_later(&e) {
                return Err(e.into());
            }
            std::thread::sleep((FREEZE_AGAIN * tries).min(FREEZE_LATEST));
        }
    }

    fn resume(&mut self) -> Result<(), DockerError> {
        let Some(since) = self.since.take() else { return Ok(()) };
        let thawed = self.each(|docker, id| match docker.unpause(id) {
            // It was not paused, or it is gone: nobody waits.
            Err(DockerError::Conflict { .. } | DockerError::NoSuch { .. }) => Ok(()),
            other => other,
        });
        self.longest = self.longest.max(since.elapsed());
        match (&thawed, self.guard.take()) {
            (Ok(()), Some(guard)) => guard.dismiss(),
            // Dropping its input makes the guard try as well.
            (_, guard) => drop(guard),
        }
        thawed
    }

    /// Does something to all of them at once.
    fn each(
        &self,
        work: impl Fn(&Docker, &str) -> Result<(), DockerError> + Sync,
    ) -> Result<(), DockerError> {
        std::thread::scope(|scope| {
            let work = &work;
            let all: Vec<_> = self.ids.iter().map(|id| scope.spawn(move || work(self.docker, id))).collect();
            let done: Vec<_> =
                all.into_iter().map(|h| h.join().unwrap_or(Err(DockerError::Cancelled))).collect();
            done.into_iter().collect()
        })
    }
}

impl Drop for Writers<'_> {
    fn drop(&mut self) {
        // An error on the way out must not leave production frozen.
        let _ = self.resume();
    }
}
