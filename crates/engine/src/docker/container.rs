//! Containers: finding, looking at, starting and stopping them.
//!
//! Owns the facts about a container as values. Making and running containers is [`super::run`]'s.

use super::error::Call;
use super::{Docker, DockerError, done_or_gone, freezer, name, optional, with_labels};
use bollard::models::{ContainerInspectResponse, ContainerState, PortBinding};
use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptions, LogsOptions, RemoveContainerOptions, RenameContainerOptions,
    StopContainerOptions,
};
use futures_util::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// An engine that thaws does it in milliseconds.
const STUCK: Duration = Duration::from_secs(5);
/// Grace of the engine itself, where nothing else is asked for.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// The most of a log that is kept: enough for a stack trace, little enough for a report.
const LOG_BYTES: usize = 256 * 1024;
/// Reading a whole log of some megabytes.
const LONG_LOG: Duration = Duration::from_secs(30);

/// What a list says about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Full id.
    pub id: String,
    /// Name, without a slash.
    pub name: String,
    /// Id of its image: `sha256:...`.
    pub image_id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
}

/// A container as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name, without a slash.
    pub name: String,
    /// Id of its image: `sha256:...`.
    pub image_id: String,
    /// The image as it was asked for when the container was made.
    pub image: String,
    /// What it is doing.
    pub state: State,
    /// How often the engine restarted it.
    pub restart_count: u64,
    /// The most memory that it may use, in bytes, if it has a limit.
    pub memory_limit: Option<u64>,
    /// Its environment, as `NAME=VALUE`; holds secrets.
    pub env: Vec<String>,
    /// Its command, after the entrypoint.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What is mounted, by path in the container.
    pub mounts: Vec<MountPoint>,
    /// Address per network; empty for a network whose address is not assigned (a stopped container).
    pub networks: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<Published>,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// It runs, paused or not.
    pub running: bool,
    /// It is frozen.
    pub paused: bool,
    /// It ended and the engine is about to start it again.
    pub restarting: bool,
    /// Of the last end; 0 before it.
    pub exit_code: i64,
    /// RFC 3339; `0001-01-01T00:00:00Z` if it never started.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// It was killed because it used too much memory.
    pub out_of_memory: bool,
    /// Process id of its first process on the engine's host; 0 while it does not run.
    pub pid: i64,
    /// Why it could not start, if it could not.
    pub error: String,
    /// Its health check, if it has one.
    pub health: Option<Health>,
}

/// What a container's health check says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u64,
    /// Output of the last probe.
    pub last_output: String,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// `volume`, `bind`, `tmpfs`.
    pub kind: String,
    /// Name of the volume; empty otherwise.
    pub name: String,
    /// Path on the engine's host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Whether it can be written to.
    pub writable: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// `80/tcp`.
    pub container_port: String,
    /// Address on the engine's host: `0.0.0.0`.
    pub host_ip: String,
    /// Port on the engine's host.
    pub host_port: u16,
}

fn sorted(map: Option<std::collections::HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

fn bare(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn count(n: Option<i64>) -> u64 {
    n.and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
}

fn state(found: ContainerState) -> State {
    let health = found.health.and_then(|h| {
        let status = h.status.map(|s| s.to_string()).unwrap_or_default();
        let last = h.log.and_then(|mut log| log.pop()).and_then(|last| last.output).unwrap_or_default();
        (!matches!(status.as_str(), "" | "none")).then(|| Health {
            status,
            failing_streak: count(h.failing_streak),
            last_output: last,
        })
    });
    State {
        running: found.running.unwrap_or_default(),
        paused: found.paused.unwrap_or_default(),
        restarting: found.restarting.unwrap_or_default(),
        exit_code: found.exit_code.unwrap_or_default(),
        started_at: found.started_at.unwrap_or_default(),
        finished_at: found.finished_at.unwrap_or_default(),
        out_of_memory: found.oom_killed.unwrap_or_default(),
        pid: found.pid.unwrap_or_default(),
        error: found.error.unwrap_or_default(),
        health,
    }
}

fn published(port: &str, bindings: Option<Vec<PortBinding>>) -> Vec<Published> {
    let all = bindings.unwrap_or_default().into_iter();
    all.filter_map(|b| {
        Some(Published {
            container_port: port.to_owned(),
            host_ip: b.host_ip.unwrap_or_default(),
            host_port: b.host_port?.parse().ok()?,
        })
    })
    .collect()
}

fn container(found: ContainerInspectResponse) -> Container {
    let config = found.config.unwrap_or_default();
    let settings = found.network_settings.unwrap_or_default();
    let mut ports: Vec<Published> =
        settings.ports.unwrap_or_default().into_iter().flat_map(|(port, b)| published(&port, b)).collect();
    ports.sort();
    let mut mounts: Vec<MountPoint> = found
        .mounts
        .unwrap_or_default()
        .into_iter()
        .map(|m| MountPoint {
            kind: m.typ.unwrap_or_default(),
            name: m.name.unwrap_or_default(),
            source: m.source.unwrap_or_default(),
            destination: m.destination.unwrap_or_default(),
            writable: m.rw.unwrap_or_default(),
        })
        .collect();
    mounts.sort_by(|a, b| a.destination.cmp(&b.destination));
    let limit = found.host_config.and_then(|h| h.memory).and_then(|m| u64::try_from(m).ok());
    Container {
        id: found.id.unwrap_or_default(),
        name: bare(&found.name.unwrap_or_default()),
        image_id: found.image.unwrap_or_default(),
        memory_limit: limit.filter(|bytes| *bytes > 0),
        image: config.image.unwrap_or_default(),
        state: found.state.map(state).unwrap_or_default(),
        restart_count: count(found.restart_count),
        env: config.env.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        labels: sorted(config.labels),
        mounts,
        networks: settings
            .networks
            .unwrap_or_default()
            .into_iter()
            .map(|(name, endpoint)| (name, endpoint.ip_address.unwrap_or_default()))
            .collect(),
        ports,
    }
}

impl Docker {
    /// Lists containers in every state that carry all the labels; an empty value means any.
    pub fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, DockerError> {
        self.list(with_labels(labels))
    }

    pub(super) fn list(
        &self,
        filters: std::collections::HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, DockerError> {
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let call = Call::read("list containers of", "CONTAINERS");
        let found = self.ask(call, "the engine", self.client.list_containers(Some(options)))?;
        let mut all: Vec<ContainerSummary> = found
            .into_iter()
            .map(|c| ContainerSummary {
                id: c.id.unwrap_or_default(),
                name: c
                    .names
                    .and_then(|n| n.into_iter().min_by_key(String::len))
                    .map(|n| bare(&n))
                    .unwrap_or_default(),
                image_id: c.image_id.unwrap_or_default(),
                labels: sorted(c.labels),
                state: c.state.map(|s| s.to_string()).unwrap_or_default(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Looks at a container; `None` if there is none of this name or id.
    pub fn inspect(&self, id: &str) -> Result<Option<Container>, DockerError> {
        let id = name::object("container", id)?;
        let call = Call::read("inspect the container", "CONTAINERS");
        Ok(optional(self.ask(call, id, self.client.inspect_container(id, None)))?.map(container))
    }

    /// Starts a container; fine if it runs.
    pub fn start(&self, id: &str) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        self.ask(
            Call::change("start the container", "POST or ALLOW_START"),
            id,
            self.client.start_container(id, None),
        )
    }

    /// Stops a container with its stop signal, and kills it after the grace (of its image, if none is given).
    /// Fine if it does not run or does not exist.
    pub fn stop(&self, id: &str, grace: Option<Duration>) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        // The engine counts in whole seconds; half a second must not become none.
        let t = grace.map(|g| i32::try_from(g.as_millis().div_ceil(1000)).unwrap_or(i32::MAX));
        let wait = match grace {
            Some(grace) => grace,
            // The container's own grace may be longer than the engine's default.
            None => DEFAULT_GRACE.max(self.own_grace(id)?),
        };
        let call = Call::change("stop the container", "POST or ALLOW_STOP").and(wait);
        let options = StopContainerOptions { signal: None, t };
        done_or_gone(self.ask(call, id, self.client.stop_container(id, Some(options))))
    }

    fn own_grace(&self, id: &str) -> Result<Duration, DockerError> {
        let call = Call::read("inspect the container", "CONTAINERS");
        let found = optional(self.ask(call, id, self.client.inspect_container(id, None)))?;
        let seconds = found.and_then(|c| c.config).and_then(|c| c.stop_timeout);
        // A negative one means for ever: a day is as good.
        Ok(seconds.map_or(DEFAULT_GRACE, |s| Duration::from_secs(u64::try_from(s).unwrap_or(24 * 3600))))
    }

    /// Kills a container; fine if it does not run or does not exist.
    pub fn kill(&self, id: &str) -> Result<(), DockerError> {
        self.signal(id, "KILL")
    }

    /// Sends a signal to the first process of a container; fine if it does not run or does not exist.
    pub fn signal(&self, id: &str, signal: &str) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        let options = KillContainerOptions { signal: format!("SIG{signal}") };
        let call = Call::change("send a signal to the container", "POST or ALLOW_STOP");
        match self.ask(call, id, self.client.kill_container(id, Some(options))) {
            // "is not running" is what was wanted.
            Err(DockerError::Conflict { why, .. }) if why.contains("not running") => Ok(()),
            other => done_or_gone(other),
        }
    }

    /// Freezes every process of a container.
    pub fn pause(&self, id: &str) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        self.ask(Call::change("pause the container", "POST"), id, self.client.pause_container(id))
    }

    /// Lets a frozen container go on; fine if it is not frozen or does not exist. An engine that does not do it is helped.
    pub fn unpause(&self, id: &str) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        let answer = self.unpause_in_time(id);
        if matches!(answer, Ok(true)) || !self.is_local() {
            return answer.map(drop);
        }
        // Thawed past the engine, which says "not paused" and calls it paused for ever: it gets something to thaw.
        let paused = self.inspect(id).is_ok_and(|c| c.is_some_and(|c| c.state.paused));
        if !paused || !freezer::set(id, true) {
            return answer.map(drop);
        }
        let again = self.unpause_in_time(id);
        freezer::set(id, false);
        again.map(drop)
    }

    /// Asks the engine, and thaws the container without it when that takes long. Whether it was frozen.
    fn unpause_in_time(&self, id: &str) -> Result<bool, DockerError> {
        let (answered, waits) = channel::<()>();
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || {
                let stuck = waits.recv_timeout(STUCK) == Err(RecvTimeoutError::Timeout);
                stuck && self.is_local() && freezer::set(id, false)
            });
            let call = Call::change("unpause the container", "POST");
            let answer = self.ask(call, id, self.client.unpause_container(id));
            drop(answered);
            answer
        });
        match answer {
            Ok(()) => Ok(true),
            Err(DockerError::Conflict { why, .. } | DockerError::Other { why, .. })
                if why.contains("not paused") =>
            {
                Ok(false)
            }
            other => done_or_gone(other).map(|()| false),
        }
    }

    /// Gives a container another name.
    pub fn rename(&self, id: &str, to: &str) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        let options = RenameContainerOptions { name: name::object("container", to)?.to_owned() };
        self.ask(Call::change("rename the container", "POST"), id, self.client.rename_container(id, options))
    }

    /// Removes a container; fine if it is gone. Its volumes stay, also those without a name: they may hold data.
    pub fn remove(&self, id: &str, force: bool) -> Result<(), DockerError> {
        let id = name::object("container", id)?;
        let options = RemoveContainerOptions { force, v: false, link: false };
        self.remove_as(id, options)
    }

    pub(super) fn remove_as(&self, id: &str, options: RemoveContainerOptions) -> Result<(), DockerError> {
        let call = Call::remove("remove the container", "POST");
        match self.ask(call, id, self.client.remove_container(id, Some(options))) {
            Err(DockerError::Conflict { why, .. }) if why.contains("already in progress") => Ok(()),
            other => done_or_gone(other),
        }
    }

    /// The end of a container's log, both streams as they were written.
    pub fn logs_tail(&self, id: &str, lines: u32) -> Result<String, DockerError> {
        let tail = lines.to_string();
        self.read_log(id, LogsOptions { stdout: true, stderr: true, tail, ..LogsOptions::default() })
    }

    /// What a container logged since a second (UTC, since 1970), at most so many lines from the end; each begins with its
    /// time (RFC 3339 with nanoseconds) and a space.
    pub fn logs_since(&self, id: &str, second: i64, lines: u32) -> Result<String, DockerError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            tail: lines.to_string(),
            since: i32::try_from(second).unwrap_or_default(),
            ..LogsOptions::default()
        };
        self.read_log(id, options)
    }

    fn read_log(&self, id: &str, options: LogsOptions) -> Result<String, DockerError> {
        let id = name::object("container", id)?;
        let call = Call::read("read the log of the container", "CONTAINERS");
        let collect = async {
            let mut text: Vec<u8> = Vec::new();
            let mut stream = self.client.logs(id, Some(options));
            while let Some(part) = stream.next().await {
                text.extend_from_slice(part?.as_ref());
                // Twice the limit, so that the front is not moved with every line.
                if text.len() > 2 * LOG_BYTES {
                    text.drain(..text.len() - LOG_BYTES);
                }
            }
            text.drain(..text.len().saturating_sub(LOG_BYTES));
            Ok(text)
        };
        let bytes = self.ask(call, id, collect)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a container wrote to its standard output since it was made, from the beginning, at most so many bytes.
    pub fn output(&self, id: &str, limit: usize) -> Result<String, DockerError> {
        let id = name::object("container", id)?;
        let call = Call::read("read the log of the container", "CONTAINERS").and(LONG_LOG);
        let options = LogsOptions { stdout: true, tail: "all".to_owned(), ..LogsOptions::default() };
        let collect = async {
            let mut text: Vec<u8> = Vec::new();
            let mut stream = self.client.logs(id, Some(options));
            while let Some(part) = stream.next().await {
                text.extend_from_slice(part?.as_ref());
                if text.len() >= limit {
                    text.truncate(limit);
                    break;
                }
            }
            Ok(text)
        };
        let bytes = self.ask(call, id, collect)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
