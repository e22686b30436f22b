//! Postgres mounts whose blocks cannot be shared: a standby is made while production runs, and takes over at the switch.
//!
//! Owns the containers of base backups and standbys, and the slot on the old server while the backup is made. When the
//! copying ahead has ended there is no lasting slot any more: the standby streams through a temporary one, which the
//! old server forgets with the connection, so that an old generation that is started again keeps no log for nobody.
//! It must never write to the old generation's data, and never let a standby act on the world.

use super::mounts::Job;
use super::server::{Server, engine_error};
use super::{ComposeData, Work};
use crate::docker::hands::Scratch as Removable;
use crate::docker::{BoundMount, NetworkMode, RunSpec, STACK_LABEL};
use crate::error::EngineError;
use crate::runtime::compose::{DIR_LABEL, command_of, config_mounts_of, environment_of};
use crate::runtime::{Placement, Stage};
use crate::store::Progress;
use crate::store::postgres::standby::{self, Connection, Lsn, Progressed};
use crate::store::postgres::{PgError, ServerFacts, server_facts};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use switchback_core::data::{CopyStats, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;
use switchback_core::release::{MountPlace, Server as Reached, StorePlace};

/// On the containers made here; its value is the store.
const STANDBY_LABEL: &str = "dev.switchback.standby";
/// The longest that a standby may make no progress while production runs.
const STALLED: Duration = Duration::from_secs(300);
/// The longest that it may make none while production is down.
const STALLED_DOWN: Duration = Duration::from_secs(30);
/// A clean stop writes a checkpoint.
const STOP: Duration = Duration::from_secs(120);
/// How long a server takes to notice that a client of a slot is gone.
const SLOT_FREE: Duration = Duration::from_secs(20);
/// Variables that would lead `psql` in the standby's container to another server.
const ELSEWHERE: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];
/// The data folder is small on top; this only bounds a report.
const NAMED: usize = 3;

/// What became of the attempt to make a standby for a mount.
pub enum Begun {
    /// It streams, in this container.
    Streams(String),
    /// The mount is copied by passes instead, for this reason.
    Refused(String),
    /// The mount holds something else.
    NotPostgres,
}

/// A mount with one Postgres store and nothing else.
struct Pair<'a> {
    store: &'a StoreName,
    place: &'a StorePlace,
    reached: &'a Reached,
    from: &'a MountPlace,
    to: &'a MountPlace,
}

impl<'a> Pair<'a> {
    fn of(from: &Placement<'a>, job: &'a Job) -> Option<Self> {
        let [store] = job.stores.as_slice() else { return None };
        let place = from.instance.stores.get(store)?;
        let reached = place.server.as_ref().filter(|_| place.kind == StoreKind::Postgres)?;
        Some(Self { store, place, reached, from: &job.from, to: &job.to })
    }

    /// The data folder as the server's container sees it.
    fn data(&self) -> String {
        let target = self.reached.target.trim_end_matches('/');
        if self.place.path.is_empty() { target.to_owned() } else { format!("{target}/{}", self.place.path) }
    }
}

/// Deterministic, so that a crash leaves nothing that cannot be found again.
fn slot_of(to: &Placement<'_>, store: &StoreName) -> Result<String, EngineError> {
    Ok(standby::slot_name(&format!("{} {} {store}", to.home.id()?, to.instance.dir)))
}

fn refused(why: impl Into<String>) -> EngineError {
    EngineError::refused(why, "the data is copied by passes instead")
}

/// What a base backup would leave out, though a stopped server keeps it.
fn would_lose(facts: &ServerFacts) -> Option<String> {
    let unlogged = facts.databases.iter().find_map(|d| Some((&d.name, d.unlogged.first()?)));
    if let Some((database, table)) = unlogged {
        return Some(format!(
            "table {table} of database {database} is unlogged: a standby would have no rows of it"
        ));
    }
    let temporary = |name: &str| name.starts_with("pg_basebackup_") || name.starts_with("pg_walreceiver_");
    let slot = facts.slots.iter().find(|s| !temporary(&s.name))?;
    Some(format!("the server has the replication slot {}, which a standby would not have", slot.name))
}

impl ComposeData {
    fn labels(&self, to: &Placement<'_>, store: &StoreName) -> Result<BTreeMap<String, String>, EngineError> {
        Ok(BTreeMap::from([
            (STACK_LABEL.to_owned(), to.home.id()?),
            (DIR_LABEL.to_owned(), to.instance.dir.clone()),
            (STANDBY_LABEL.to_owned(), store.to_string()),
        ]))
    }

    /// The containers made for an instance: of one store, or (empty) of all.
    fn standbys(&self, to: &Placement<'_>, store: &str) -> Result<Vec<String>, EngineError> {
        let stack = to.home.id()?;
        let labels = [(STACK_LABEL, stack.as_str()), (DIR_LABEL, &to.instance.dir), (STANDBY_LABEL, store)];
        Ok(self.docker.containers(&labels)?.into_iter().map(|c| c.id).collect())
    }

    fn remove_standbys(&self, to: &Placement<'_>, store: &str) -> Result<(), EngineError> {
        for id in self.standbys(to, store)? {
            self.docker.remove_with_scratch(&id)?;
        }
        Ok(())
    }

    /// Makes a standby for a mount, where that is possible. Whatever an earlier attempt left is removed first.
    pub(super) fn begin_standby(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        job: &Job,
        work: &Work<'_>,
    ) -> Result<Begun, EngineError> {
        let Some(pair) = Pair::of(from, job) else { return Ok(Begun::NotPostgres) };
        self.remove_standbys(to, pair.store.as_str())?;
        let error = match self.stream(from, to, &pair, work) {
            Ok(id) => return Ok(Begun::Streams(id)),
            Err(e) => e,
        };
        self.give_up(from, to, &pair)?;
        if (work.stage.cancelled)() { Err(error) } else { Ok(Begun::Refused(error.to_string())) }
    }

    fn stream(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        pair: &Pair<'_>,
        work: &Work<'_>,
    ) -> Result<String, EngineError> {
        let primary = Server::open(self, from, pair.store, pair.from, CloneMode::Live)?;
        let slot = slot_of(to, pair.store)?;
        drop_slot(&primary, &slot)?;
        let facts = server_facts(&primary).map_err(engine_error)?;
        let (_, port) = standby::position(&primary).map_err(engine_error)?;
        let (user, password) = primary.login();
        let connection = Connection { host: "127.0.0.1".to_owned(), port, user, password };
        if let Some(why) = standby::refusals(&facts, &connection, &[]).into_iter().next() {
            return Err(refused(why));
        }
        if !facts.superuser {
            return Err(refused(format!("role {} is no superuser: it cannot promote a standby", facts.role)));
        }
        if let Some(why) = would_lose(&facts) {
            return Err(refused(why));
        }
        let owner = self.make_data_folder(from, to, pair)?;
        (work.stage.say)(&format!("backing up {} while it runs", pair.store));
        let command = standby::base_backup(&connection, &slot, &pair.data(), &[]);
        let mut argv = command.argv.into_iter();
        let spec = RunSpec {
            image: image(from, pair)?,
            entrypoint: argv.next().map(|program| vec![program]),
            argv: argv.collect(),
            env: command.env,
            user: Some(format!("{}:{}", owner.0, owner.1)),
            mounts: vec![written(pair)],
            network: NetworkMode::Of(primary.container().to_owned()),
            labels: self.labels(to, pair.store)?,
            ..RunSpec::default()
        };
        let ended = self.docker.run(&spec, None, &mut std::io::sink(), work.stage.cancelled)?;
        if ended.code != 0 {
            let why = ended.stderr_tail.trim().lines().last().unwrap_or_default().to_owned();
            return Err(refused(format!("pg_basebackup ended with exit code {}: {why}", ended.code)));
        }
        (work.stage.midway)();
        let settings = standby::standby_settings(&primary).map_err(engine_error)?;
        let id = self.docker.run_detached(&self.standby_spec(from, to, pair, &primary, settings)?)?;
        let server = Server::inside(self, from, pair.store, id.clone())?;
        (work.stage.say)(&format!("waiting until the standby of {} streams", pair.store));
        self.follow(&server, STALLED, work.stage.cancelled, |p| p.streaming)?;
        Ok(id)
    }

    /// The server of the standby: the release's own image, with its command and configuration.
    fn standby_spec(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        pair: &Pair<'_>,
        primary: &Server<'_>,
        settings: Vec<(String, String)>,
    ) -> Result<RunSpec, EngineError> {
        let service = &pair.reached.service;
        let mut argv = command_of(from, service);
        if argv.is_empty() {
            argv.push("postgres".to_owned());
        }
        for (name, value) in settings {
            argv.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let mut env = environment_of(from, service);
        env.retain(|name, _| !ELSEWHERE.contains(&name.as_str()));
        let mut mounts = vec![written(pair)];
        mounts.extend(config_mounts_of(from, service));
        Ok(RunSpec {
            image: image(from, pair)?,
            argv,
            env: env.into_iter().collect(),
            mounts,
            // Replication is usually allowed on the server's own loopback only; that outlives the server.
            network: NetworkMode::Of(primary.container().to_owned()),
            labels: self.labels(to, pair.store)?,
            ..RunSpec::default()
        })
    }

    /// Waits until a standby has got somewhere. It may take as long as it makes progress.
    fn follow(
        &self,
        server: &Server<'_>,
        stalled: Duration,
        cancelled: &dyn Fn() -> bool,
        there: impl Fn(&Progressed) -> bool,
    ) -> Result<(), EngineError> {
        let (mut furthest, mut since) = (Lsn(0), Instant::now());
        let mut pause = Duration::from_millis(20);
        loop {
            let seen = match standby::progressed(server) {
                Ok(p) if there(&p) => return Ok(()),
                Ok(p) => {
                    if p.replayed > furthest {
                        (furthest, since) = (p.replayed, Instant::now());
                    }
                    format!(
                        "it is at {}, {}",
                        p.replayed,
                        if p.streaming { "streaming" } else { "not streaming" }
                    )
                }
                Err(e) => e.to_string(),
            };
            let id = server.container();
            let running = self.docker.inspect(id)?.is_some_and(|c| c.state.running);
            if !running || since.elapsed() > stalled {
                let log = self.docker.logs_tail(id, 8).unwrap_or_default();
                let state = if running { "makes no progress" } else { "has ended" };
                return Err(refused(format!("the standby {state}: {seen}; its log ends: {}", log.trim())));
            }
            if cancelled() {
                return Err(EngineError::Store(crate::store::StoreError::Cancelled));
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(250));
        }
    }

    /// Brings a standby up to the present and separates it from the lasting slot.
    pub(super) fn settle_standby(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        job: &Job,
        id: &str,
        work: &Work<'_>,
    ) -> Result<Result<(), String>, EngineError> {
        let Some(pair) = Pair::of(from, job) else { return Ok(Ok(())) };
        let settled = self.settle(from, to, &pair, id, work);
        let Err(error) = settled else { return Ok(Ok(())) };
        self.give_up(from, to, &pair)?;
        if (work.stage.cancelled)() { Err(error) } else { Ok(Err(error.to_string())) }
    }

    fn settle(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        pair: &Pair<'_>,
        id: &str,
        work: &Work<'_>,
    ) -> Result<(), EngineError> {
        let primary = Server::open(self, from, pair.store, pair.from, CloneMode::Live)?;
        let server = Server::inside(self, from, pair.store, id.to_owned())?;
        let slot = slot_of(to, pair.store)?;
        let (now, _) = standby::position(&primary).map_err(engine_error)?;
        (work.stage.say)(&format!("waiting until the standby of {} has caught up", pair.store));
        self.follow(&server, STALLED, work.stage.cancelled, |p| p.streaming && p.replayed >= now)?;
        standby::leave_slot(&server).map_err(engine_error)?;
        let elsewhere = |p: &Progressed| p.streaming && p.slot.as_ref().is_some_and(|s| *s != slot);
        self.follow(&server, STALLED, work.stage.cancelled, elsewhere)?;
        drop_slot(&primary, &slot)
    }

    /// Removes what was begun for a mount.
    fn give_up(&self, from: &Placement<'_>, to: &Placement<'_>, pair: &Pair<'_>) -> Result<(), EngineError> {
        self.remove_standbys(to, pair.store.as_str())?;
        let slot = slot_of(to, pair.store)?;
        match Server::open(self, from, pair.store, pair.from, CloneMode::Live) {
            Ok(primary) => drop_slot(&primary, &slot),
            // No server, no slot that could be dropped; undoing says so.
            Err(_) => Ok(()),
        }
    }

    /// The standby that was made for a mount, if there is one.
    pub(super) fn standby_of(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        job: &Job,
    ) -> Result<Option<String>, EngineError> {
        let Some(pair) = Pair::of(from, job) else { return Ok(None) };
        Ok(self.standbys(to, pair.store.as_str())?.pop())
    }

    /// Makes a standby the clone: the old server is stopped, the standby has everything of it, and is stopped too.
    pub(super) fn take_over(
        &self,
        from: &Placement<'_>,
        job: &Job,
        id: &str,
    ) -> Result<CopyStats, EngineError> {
        let began = Instant::now();
        let Some(pair) = Pair::of(from, job) else {
            return Err(EngineError::Internal { detail: "a standby of no Postgres store".to_owned() });
        };
        let last = self.last_checkpoint(from, &pair)?;
        let server = Server::inside(self, from, pair.store, id.to_owned())?;
        // The server tells the end of the last record it replayed, which lies behind that record's beginning.
        self.follow(&server, STALLED_DOWN, &|| false, |p| p.replayed > last)?;
        standby::promote(&server).map_err(engine_error)?;
        let bytes = standby::size_bytes(&server).map_err(engine_error)?;
        self.docker.stop(id, Some(STOP))?;
        let code = self.docker.inspect(id)?.map(|c| c.state.exit_code);
        if code != Some(0) {
            return Err(refused(format!("the promoted standby did not stop cleanly (exit code {code:?})")));
        }
        self.docker.remove_with_scratch(id)?;
        Ok(CopyStats {
            bytes,
            bytes_written: bytes,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..CopyStats::default()
        })
    }

    /// Where the clean stop of the old server is in its log.
    fn last_checkpoint(&self, from: &Placement<'_>, pair: &Pair<'_>) -> Result<Lsn, EngineError> {
        let command = standby::controldata(&pair.data());
        let mut argv = command.argv.into_iter();
        let spec = RunSpec {
            image: image(from, pair)?,
            entrypoint: argv.next().map(|program| vec![program]),
            argv: argv.collect(),
            env: command.env,
            user: Some("0:0".to_owned()),
            mounts: vec![BoundMount { read_only: true, place: pair.from.clone(), ..written(pair) }],
            labels: BTreeMap::from([(STACK_LABEL.to_owned(), from.home.id()?)]),
            ..RunSpec::default()
        };
        let mut out = Vec::new();
        let ended = self.docker.run(&spec, None, &mut out, &|| false)?;
        if ended.code != 0 {
            return Err(refused(format!("pg_controldata: {}", ended.stderr_tail.trim())));
        }
        let control = standby::parse_controldata(&String::from_utf8_lossy(&out)).map_err(engine_error)?;
        control.shutdown_checkpoint().map_err(engine_error)
    }

    /// Removes every standby of an instance, and its slots on the old server.
    pub(super) fn forget_standbys(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError> {
        let mut output = Output::default();
        self.remove_standbys(to, "")?;
        (stage.midway)();
        for (store, place) in &from.instance.stores {
            let Some(mount) = place.mount.as_ref().filter(|_| place.kind == StoreKind::Postgres) else {
                continue;
            };
            let slot = slot_of(to, store)?;
            match Server::open(self, from, store, &mount.at, CloneMode::Live) {
                Ok(primary) => drop_slot(&primary, &slot)?,
                Err(e) => output.notes.push(format!(
                    "{store}: whether the replication slot {slot} is left could not be asked ({e}); `select pg_drop_replication_slot('{slot}')` drops it"
                )),
            }
        }
        Ok(output)
    }

    /// Makes the empty folder that the backup is written to, and says who owns the data.
    fn make_data_folder(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        pair: &Pair<'_>,
    ) -> Result<(u32, u32), EngineError> {
        let hands = self.hands(from.home)?;
        let parts: Vec<&str> = pair.place.path.split('/').filter(|p| !p.is_empty()).collect();
        let mut above = Vec::new();
        for (depth, part) in parts.iter().enumerate() {
            let entries = hands.list((pair.from, &parts[..depth].join("/")))?;
            let others: Vec<&str> =
                entries.iter().map(|e| e.name.as_str()).filter(|n| n != part && *n != "lost+found").collect();
            if !others.is_empty() {
                let shown = others.get(..NAMED).unwrap_or(&others).join(", ");
                return Err(refused(format!("beside its data folder lies something else: {shown}")));
            }
            let own = entries.iter().find(|e| e.name == *part);
            above.push(own.map_or((0o700, (0, 0)), |e| (e.mode, (e.uid, e.gid))));
        }
        let inside = hands.list((pair.from, &pair.place.path))?;
        let Some(version) = inside.iter().find(|e| e.name == "PG_VERSION") else {
            return Err(refused("there is no PG_VERSION in its data folder"));
        };
        if let Some(link) = inside.iter().find(|e| e.kind == "link" && e.name != "pg_wal") {
            return Err(refused(format!(
                "{} in its data folder is a link, which a backup leaves out",
                link.name
            )));
        }
        let owner = (version.uid, version.gid);
        let mode = if version.mode & 0o040 == 0 { 0o700 } else { 0o750 };
        self.clear_place(to, pair)?;
        let root = if parts.is_empty() { (mode, owner) } else { (0o755, (0, 0)) };
        hands.make_dir((pair.to, ""), root.0, root.1)?;
        for (depth, (mode, owner)) in above.iter().enumerate() {
            hands.make_dir((pair.to, &parts[..=depth].join("/")), *mode, *owner)?;
        }
        Ok(owner)
    }

    /// Empties the place of the clone.
    fn clear_place(&self, to: &Placement<'_>, pair: &Pair<'_>) -> Result<(), EngineError> {
        match pair.to {
            MountPlace::Volume(_) => {
                self.drop_place(to.home, pair.to)?;
                self.make_place(to.home, to.instance, pair.to)
            }
            MountPlace::Dir(path) => {
                let (beside, suffix) = super::mounts::parts(path)?;
                let hands = self.hands(to.home)?;
                let Some(dir) = hands.scratch_open(beside, suffix)? else { return Ok(()) };
                let below = path.rsplit('/').next().unwrap_or_default();
                hands.remove(Removable::Dir(&dir), below, &Progress::none())?;
                Ok(())
            }
        }
    }
}

/// The place of the clone, where the server expects its data.
fn written(pair: &Pair<'_>) -> BoundMount {
    BoundMount { place: pair.to.clone(), target: pair.reached.target.clone(), read_only: false }
}

fn image(from: &Placement<'_>, pair: &Pair<'_>) -> Result<String, EngineError> {
    let service = &pair.reached.service;
    let image = from.release.services.get(service).and_then(|s| s.image.as_ref());
    image
        .map(|i| i.id.clone())
        .ok_or_else(|| EngineError::Internal { detail: format!("{service} has no image") })
}

/// Drops a slot whose client is gone; the server may need a moment to notice.
fn drop_slot(primary: &Server<'_>, slot: &str) -> Result<(), EngineError> {
    let deadline = Instant::now() + SLOT_FREE;
    loop {
        match standby::drop_slot(primary, slot) {
            // 55006: object_in_use.
            Err(e @ PgError::Server { .. }) if e.sqlstate() == Some("55006") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other.map_err(engine_error),
        }
    }
}
