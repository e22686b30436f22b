//! Pausing the writers of production for the moment of a cut, and making sure that they go on.

use crate::docker::hands::HandsError;
use crate::docker::thaw::ThawGuard;
use crate::docker::{Docker, DockerError};
use crate::error::EngineError;
use crate::runtime::compose::users_of;
use std::time::{Duration, Instant};
use switchback_core::release::Instance;

/// On a busy host the engine gives up freezing a container ("unable to freeze") that it freezes a moment later.
const FREEZES: u32 = 5;
/// Between two attempts; everybody goes on meanwhile.
const BETWEEN: Duration = Duration::from_millis(300);

/// The containers that use an instance's data, and how long they were paused.
pub struct Writers<'a> {
    docker: &'a Docker,
    ids: Vec<String>,
    guard: Option<ThawGuard>,
    since: Option<Instant>,
    /// The longest pause.
    pub longest: Duration,
}

impl<'a> Writers<'a> {
    /// Everything that runs on the instance's mounts, of whatever project.
    pub fn of(docker: &'a Docker, instance: &Instance) -> Result<Self, EngineError> {
        let users = users_of(docker, instance)?;
        let ids = users.into_iter().filter(|c| !c.state.paused).map(|c| c.id).collect();
        Ok(Self { docker, ids, guard: None, since: None, longest: Duration::ZERO })
    }

    /// Stops (`true`) or lets go on (`false`).
    pub fn pause(&mut self, stop: bool) -> Result<(), HandsError> {
        if !stop {
            return Ok(self.resume()?);
        }
        for attempt in 1.. {
            self.guard = Some(ThawGuard::start(&self.ids)?);
            self.since = Some(Instant::now());
            let Err(e) = self.each(crate::docker::Docker::pause) else { break };
            self.resume()?;
            if attempt == FREEZES || matches!(e, DockerError::NoSuch { .. } | DockerError::Cancelled) {
                return Err(e.into());
            }
            std::thread::sleep(BETWEEN);
        }
        Ok(())
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
