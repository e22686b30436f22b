//! Logs of Postgres servers in containers: from production's volume into the repository, and from there into a copy.
//!
//! Segments are read where the server wrote them, by a helper that has the volume read-only; the server's slot keeps them until they
//! are in the repository, and is the only thing of ours in production.

use super::mounts::{mounts, parts};
use super::server::{Server, engine_error};
use super::throwaway::Throwaway;
use super::{ComposeData, Work, place};
use crate::backup::vault::{SEGMENTS, Task, Vault};
use crate::data::{Here, Logs};
use crate::docker::hands::{Placed, Scratch};
use crate::docker::{BoundMount, Container, ExecSpec, RunSpec, STACK_LABEL};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::container_of;
use crate::store::postgres::standby::controldata;
use crate::store::postgres::wal::{self, Mark};
use crate::store::postgres::{PgError, Psql as _, harmless_settings, major_version};
use crate::store::{Progress, StoreError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use switchback_core::backup::{Archived, Part, Stamp};
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{MountPlace, Server as Reached, StorePlace};
use switchback_core::wal::Piece;

/// Replaying takes at least as long as this until it is given up, ...
const REPLAY: Duration = Duration::from_secs(600);
/// ... and so long for each segment.
const SEGMENT: Duration = Duration::from_secs(10);
/// `recovery.signal` came with this version.
const SINCE: u32 = 12;

/// A Postgres store: its place, its mount, and its server.
fn found<'i>(
    at: &Placement<'i>,
    store: &StoreName,
) -> Result<(&'i StorePlace, &'i MountPlace, &'i Reached), EngineError> {
    let (found, mount) = place(at, store)?;
    match &found.server {
        Some(reached) => Ok((found, mount, reached)),
        None => Err(EngineError::Internal { detail: format!("{store} has no server") }),
    }
}

/// Whether a container has exactly this mount.
fn mounts_it(container: &Container, place: &MountPlace) -> bool {
    container.mounts.iter().any(|m| match place {
        MountPlace::Volume(name) => m.name == *name,
        MountPlace::Dir(path) => m.kind == "bind" && m.source == *path,
    })
}

fn below(path: &str, file: &str) -> String {
    if path.is_empty() { file.to_owned() } else { format!("{path}/{file}") }
}

/// The data folder as the server's container sees it.
fn data_folder(found: &StorePlace, reached: &Reached) -> String {
    below(reached.target.trim_end_matches('/'), &found.path).trim_end_matches('/').to_owned()
}

/// A moment as a setting.
fn moment(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d %H:%M:%S.%3f+00").to_string()
}

impl ComposeData {
    fn live<T>(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        ask: impl FnOnce(&Server<'_>) -> Result<T, PgError>,
    ) -> Result<T, EngineError> {
        let (_, mount, _) = found(at, store)?;
        let server = Server::open(self, at, store, mount, CloneMode::Live)?;
        ask(&server).map_err(engine_error)
    }

    /// Waits until a server that replays has come to the end, and takes part in life.
    fn until_replayed(
        &self,
        server: &Server<'_>,
        segments: usize,
        work: &Work<'_>,
    ) -> Result<(), EngineError> {
        let began = Instant::now();
        let longest = REPLAY + SEGMENT * u32::try_from(segments).unwrap_or(u32::MAX);
        let mut pause = Duration::from_millis(50);
        loop {
            // It answers nobody before that: `hot_standby` is off.
            if server.script("template1", "SELECT 1;\n", &mut std::io::sink(), &|| false).is_ok() {
                return Ok(());
            }
            let id = server.container();
            let running = self.docker.inspect(id)?.is_some_and(|c| c.state.running);
            if !running || began.elapsed() > longest {
                let log = self.docker.logs_tail(id, 12).unwrap_or_default();
                return Err(EngineError::refused(
                    format!("the log could not be replayed; the server's log ends: {}", log.trim()),
                    "try an earlier moment (`switchback backup list` shows what is covered), or another backup",
                ));
            }
            if (work.stage.cancelled)() {
                return Err(StoreError::Cancelled.into());
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(500));
        }
    }
}

impl Logs for ComposeData {
    fn state(&self, at: &Placement<'_>, store: &StoreName) -> Result<Option<Here>, EngineError> {
        let (_, mount, reached) = found(at, store)?;
        // While production is switched its containers may be another generation's already.
        match container_of(&self.docker, at.instance, &reached.service)? {
            Some(c) if c.state.running && !c.state.paused && mounts_it(&c, mount) => {}
            _ => return Ok(None),
        }
        self.live(at, store, |server| wal::state(server)).map(Some)
    }

    fn open(&self, at: &Placement<'_>, store: &StoreName, limit_gib: u64) -> Result<(), EngineError> {
        self.live(at, store, |server| wal::open(server, limit_gib))
    }

    fn mark(&self, at: &Placement<'_>, store: &StoreName, size: u64) -> Result<Mark, EngineError> {
        self.live(at, store, |server| wal::mark(server, size))
    }

    fn ship(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        (names, folder): (&[String], &str),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError> {
        let (found, mount, _) = found(at, store)?;
        let files: Vec<String> =
            names.iter().map(|name| below(&found.path, &format!("pg_wal/{name}"))).collect();
        let placed: Vec<Placed<'_>> = files
            .iter()
            .zip(names)
            .map(|(file, name)| Placed {
                at: (mount, file.as_str()),
                part: Part::new("", format!("{folder}/{name}")),
            })
            .collect();
        let task = Task::Archive { parts: Vec::new(), stamp: Box::new(stamp.clone()) };
        crate::backup::parsed(self.on_repository(at.home, vault, &task, &placed, work.progress)?)
    }

    fn release(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        next: u64,
        size: u64,
    ) -> Result<(), EngineError> {
        self.live(at, store, |server| wal::release(server, next, size))
    }

    fn close(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError> {
        self.live(at, store, |server| wal::drop_slot(server))
    }

    fn begins(&self, at: &Placement<'_>, store: &StoreName) -> Result<(String, u32, u64), EngineError> {
        let (found, mount, reached) = found(at, store)?;
        let image = at.release.services.get(&reached.service).and_then(|s| s.image.as_ref());
        let Some(image) = image else {
            return Err(EngineError::Internal { detail: format!("{} has no image", reached.service) });
        };
        let command = controldata(&data_folder(found, reached));
        let mut argv = command.argv.into_iter();
        let spec = RunSpec {
            image: image.id.clone(),
            entrypoint: argv.next().map(|program| vec![program]),
            argv: argv.collect(),
            env: command.env,
            user: Some("0:0".to_owned()),
            mounts: vec![BoundMount {
                place: mount.clone(),
                target: reached.target.clone(),
                read_only: true,
            }],
            labels: BTreeMap::from([(STACK_LABEL.to_owned(), at.home.id()?)]),
            ..RunSpec::default()
        };
        let mut out = Vec::new();
        let ended = self.docker.run(&spec, None, &mut out, &|| false)?;
        if ended.code != 0 {
            return Err(EngineError::refused(
                format!("pg_controldata: {}", ended.stderr_tail.trim()),
                "the image of the server must have it",
            ));
        }
        wal::begins(&String::from_utf8_lossy(&out)).map_err(engine_error)
    }

    fn again(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        (snapshot, logical): (&str, &str),
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        let (_, mount, _) = found(at, store)?;
        match mount {
            MountPlace::Volume(_) => {
                self.drop_place(at.home, mount)?;
                self.make_place(at.home, at.instance, mount)?;
            }
            MountPlace::Dir(path) => {
                let (beside, suffix) = parts(path)?;
                let hands = self.hands(at.home)?;
                if let Some(dir) = hands.scratch_open(beside, suffix)? {
                    let name = path.rsplit('/').next().unwrap_or_default();
                    hands.remove(Scratch::Dir(&dir), name, &Progress::none())?;
                }
            }
        }
        let placed = [Placed { at: (mount, ""), part: Part::new("", logical) }];
        let task = Task::Restore { snapshot: snapshot.to_owned(), parts: Vec::new() };
        crate::backup::parsed(self.on_repository(at.home, vault, &task, &placed, work.progress)?)
    }

    fn replay(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        vault: &Vault,
        pieces: &[Piece],
        at_ms: i64,
        work: &Work<'_>,
    ) -> Result<(u64, Option<i64>), EngineError> {
        let (found, mount, reached) = found(at, store)?;
        if let Some((_, others)) = mounts(at.instance).iter().find(|(m, _)| m.at == *mount)
            && others.len() > 1
        {
            return Err(EngineError::refused(
                format!("the data of {store} shares its mount with another store"),
                "give the server a volume of its own",
            ));
        }
        let version = self.hands(at.home)?.read_file((mount, &below(&found.path, "PG_VERSION")), 64)?;
        let major = major_version(&String::from_utf8_lossy(&version)).map_err(engine_error)?;
        if major < SINCE {
            return Err(EngineError::refused(
                format!("{store}: Postgres {major} cannot be brought to a moment"),
                "this needs 13 or later",
            ));
        }
        let folder = data_folder(found, reached);
        let placed = [Placed { at: (mount, found.path.as_str()), part: Part::new("", "/") }];
        let task = Task::Segments { pieces: pieces.to_vec(), parts: Vec::new() };
        (work.stage.say)(&format!("bringing the log of {store}"));
        let bytes: u64 =
            crate::backup::parsed(self.on_repository(at.home, vault, &task, &placed, work.progress)?)?;
        (work.stage.midway)();
        (work.stage.say)(&format!("replaying the log of {store}"));
        let mut settings = harmless_settings(major);
        let name = |n: &str| n.to_owned();
        // It runs in the data folder.
        settings.extend([
            (name("restore_command"), format!("cp {SEGMENTS}/%f \"%p\"")),
            (name("recovery_target_time"), moment(at_ms)),
            (name("recovery_target_inclusive"), name("on")),
            (name("recovery_target_action"), name("promote")),
            (name("recovery_target_timeline"), name("current")),
            (name("hot_standby"), name("off")),
        ]);
        let more = settings.into_iter().flat_map(|(n, v)| ["-c".to_owned(), format!("{n}={v}")]).collect();
        let throwaway = Throwaway::run(self, at, reached, mount, more)?;
        let server = Server::inside(self, at, store, throwaway.id().to_owned())?;
        let segments = pieces.iter().map(|p| p.names.len()).sum();
        self.until_replayed(&server, segments, work)?;
        let reached_ms = wal::replayed(&server).map_err(engine_error)?;
        // Its log goes another way from here: the chain does not go on.
        wal::drop_slot(&server).map_err(engine_error)?;
        let spec = ExecSpec {
            argv: ["rm", "-rf", &format!("{folder}/{SEGMENTS}")].map(str::to_owned).to_vec(),
            user: Some("0:0".to_owned()),
            ..ExecSpec::default()
        };
        let ended = self.docker.exec(throwaway.id(), &spec, None, &mut std::io::sink(), &|| false)?;
        if ended.code != 0 {
            return Err(EngineError::refused(
                format!("the segments could not be removed: {}", ended.stderr_tail.trim()),
                "the image must have `rm`",
            ));
        }
        throwaway.end()?;
        Ok((bytes, reached_ms))
    }
}
