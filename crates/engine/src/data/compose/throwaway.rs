//! A throwaway server of databases on data at rest, so that it can be read.
//!
//! It runs the release's own image without any network and without anything that acts on the world. It must
//! never be started on data that production may return to: a server writes even when it is only asked.

use super::ComposeData;
use super::server::Server;
use crate::docker::{BoundMount, Docker, HELPER_LABEL, NetworkMode, RunSpec, STACK_LABEL};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::{DIR_LABEL, command_of, config_mounts_of, environment_of};
use crate::store::postgres::{Psql as _, harmless_settings, major_version};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use switchback_core::release::{MountPlace, Server as Reached, StorePlace};

/// Recovery after a cut replays what was written since the last checkpoint, at most `max_wal_size` or so.
const READY: Duration = Duration::from_secs(300);
/// A clean stop writes a checkpoint.
const STOP: Duration = Duration::from_secs(120);

/// The server's container; removed when this goes away.
pub struct Throwaway<'a> {
    docker: &'a Docker,
    id: String,
    ended: bool,
}

impl<'a> Throwaway<'a> {
    /// Starts a Postgres server on a mount.
    pub fn start(
        data: &'a ComposeData,
        at: &Placement<'_>,
        place: &StorePlace,
        reached: &Reached,
        mount: &MountPlace,
    ) -> Result<Self, EngineError> {
        let version_file = if place.path.is_empty() {
            "PG_VERSION".to_owned()
        } else {
            format!("{}/PG_VERSION", place.path)
        };
        let version = data.hands(at.home)?.read_file((mount, &version_file), 64)?;
        let major = major_version(&String::from_utf8_lossy(&version)).map_err(super::server::engine_error)?;
        let settings = harmless_settings(major).into_iter();
        // By itself it writes nothing: that nothing was written is told by the number of its next transaction.
        let settings = settings.chain([("autovacuum".to_owned(), "off".to_owned())]);
        let more = settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect();
        Self::run(data, at, reached, mount, more)
    }

    /// Starts the program of the release's service on a mount, with some more arguments.
    pub fn run(
        data: &'a ComposeData,
        at: &Placement<'_>,
        reached: &Reached,
        mount: &MountPlace,
        more: Vec<String>,
    ) -> Result<Self, EngineError> {
        let image = at.release.services.get(&reached.service).and_then(|s| s.image.as_ref());
        let Some(image) = image else {
            return Err(EngineError::Internal { detail: format!("{} has no image", reached.service) });
        };
        let mut argv = command_of(at, &reached.service);
        if argv.is_empty() {
            // Arguments of ours would take the place of the image's own.
            argv = data.docker.image(&image.id)?.map(|i| i.cmd).unwrap_or_default();
        }
        argv.extend(more);
        let mut mounts =
            vec![BoundMount { place: mount.clone(), target: reached.target.clone(), read_only: false }];
        mounts.extend(config_mounts_of(at, &reached.service));
        let mut env = environment_of(at, &reached.service);
        // The image of MariaDB would upgrade the data by itself, and images end where a file with a password is not there: it is
        // for making a database, and secrets are not mounted here.
        let for_new = |name: &str| {
            name.ends_with("_FILE") && ["MARIADB_", "MYSQL_", "POSTGRES_"].iter().any(|p| name.starts_with(p))
        };
        env.retain(|name, _| name != "MARIADB_AUTO_UPGRADE" && !for_new(name));
        let spec = RunSpec {
            image: image.id.clone(),
            argv,
            env: env.into_iter().collect(),
            mounts,
            network: NetworkMode::None,
            labels: BTreeMap::from([
                (STACK_LABEL.to_owned(), at.home.id()?),
                (HELPER_LABEL.to_owned(), "server".to_owned()),
                (DIR_LABEL.to_owned(), at.instance.dir.clone()),
            ]),
            init: false,
            ..RunSpec::default()
        };
        Ok(Self::of(&data.docker, data.docker.run_detached(&spec)?))
    }

    /// A server in a container that was made for it.
    pub fn of(docker: &'a Docker, id: String) -> Self {
        Self { docker, id, ended: false }
    }

    /// Its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until it answers.
    pub fn wait(&self, server: &Server<'_>) -> Result<(), EngineError> {
        self.until(|| {
            let answer = server.script("template1", "SELECT 1;\n", &mut std::io::sink(), &|| false);
            // A role that may not log in will not become able to by waiting.
            answer.map_err(|e| {
                (e.is_denied() || matches!(e.sqlstate(), Some("42501" | "3D000")), e.to_string())
            })
        })
    }

    /// Waits until it answers. An error comes with whether waiting is of no use.
    pub fn until(&self, ask: impl Fn() -> Result<(), (bool, String)>) -> Result<(), EngineError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(30);
        loop {
            let Err((refused, why)) = ask() else { return Ok(()) };
            let running = self.docker.inspect(&self.id)?.is_some_and(|c| c.state.running);
            if !running || refused || began.elapsed() > READY {
                let log = self.docker.logs_tail(&self.id, 15).unwrap_or_default();
                return Err(EngineError::refused(
                    format!("no server starts on the clone: {why}; its log ends: {}", log.trim()),
                    "the data may be from another major version, or damaged",
                ));
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(300));
        }
    }

    /// Stops it cleanly, so that the data is at rest again, and removes it.
    pub fn end(mut self) -> Result<(), EngineError> {
        self.ended = true;
        self.docker.stop(&self.id, Some(STOP))?;
        self.docker.remove_with_scratch(&self.id)?;
        Ok(())
    }
}

impl Drop for Throwaway<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The error that led here is the one to report; the next run removes what is left.
            let _ = self.docker.stop(&self.id, Some(STOP));
            let _ = self.docker.remove_with_scratch(&self.id);
        }
    }
}
