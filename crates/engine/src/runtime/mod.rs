//! Runtimes: what starts, stops and looks at the services of an instance.
//!
//! The operations know only [`Runtime`]. A runtime owns services; it must never read or copy stores.

mod apart;
pub mod compose;
pub mod process;
pub mod rules;

pub use apart::Apart;

use crate::check::workflow::Endpoint;
use crate::docker::Docker;
use crate::error::EngineError;
use crate::gateway::attack::Ended;
use crate::home::Home;
use crate::ops::Failed;
use crate::scratch::Scratch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::config::{Config, Service};
use switchback_core::egress::Egress;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::journal::Output;
use switchback_core::plan::Procedure;
use switchback_core::release::{Instance, Release, ServiceRelease, StorePlace};

/// An instance together with what is needed to place its services.
#[derive(Clone, Copy)]
pub struct Placement<'a> {
    /// The stack.
    pub home: &'a Home,
    /// The configuration as of the run (staging overrides, log limits).
    pub config: &'a Config,
    /// The instance.
    pub instance: &'a Instance,
    /// Its release.
    pub release: &'a Release,
}

impl Placement<'_> {
    /// The services' definitions.
    pub fn services(&self) -> BTreeMap<ServiceName, Service> {
        self.release.services.iter().map(|(n, s)| (n.clone(), s.definition.clone())).collect()
    }
}

/// How a long operation talks to the run that it belongs to.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// Told what is being done.
    pub say: &'a dyn Fn(&str),
    /// Asked whether to stop.
    pub cancelled: &'a dyn Fn() -> bool,
    /// The middle of an effect, for the crash matrix.
    pub midway: &'a dyn Fn(),
}

impl Stage<'_> {
    /// Tells nobody and is never cancelled.
    pub fn quiet() -> Self {
        Stage { say: &|_| {}, cancelled: &|| false, midway: &|| {} }
    }
}

/// What one probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether the service is healthy.
    pub ok: bool,
    /// What was seen, in words.
    pub seen: String,
}

/// What a service of an instance is doing now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Observed {
    /// Whether it runs; a job that has done its work does not.
    pub running: bool,
    /// Whether it is as it should be, as far as the runtime knows without probing.
    pub well: bool,
    /// What it is doing, in words.
    pub state: String,
    /// What its own health check says: `healthy`, `unhealthy`, `starting`; none where it has none.
    pub health: Option<String>,
    /// Processes (or containers) of it.
    pub processes: usize,
    /// How often it was started.
    pub starts: u32,
    /// Whether it ended last because it used too much memory, as far as the runtime can tell.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// How it ended last, in words.
    pub last_exit: Option<String>,
    /// Where it is reached: port name and `host:port`.
    pub endpoints: BTreeMap<String, String>,
}

/// What a service of an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Processor time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Memory in use now, in bytes.
    pub memory_bytes: u64,
    /// The most memory that it may use, where it has a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Transactions of the databases so far, where a check asked for them.
    #[serde(skip)]
    pub transactions: Option<u64>,
}

/// New lines of a log, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The lines, without secrets.
    pub lines: Vec<String>,
    /// For the next look.
    pub mark: String,
}

/// How a migration command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Whether it exited with 0.
    pub success: bool,
    /// Whether it was stopped at its deadline.
    pub timed_out: bool,
    /// How it ended, in words.
    pub how: String,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// The end of its output, without secrets.
    pub text: String,
}

/// What a preflight is for.
#[derive(Debug, Clone, Copy)]
pub struct PreflightFor {
    /// What the run does.
    pub procedure: Procedure,
    /// Bytes that its clones need.
    pub need_bytes: u64,
}

/// What runs the services of a stack.
pub trait Runtime: Apart + Send + Sync {
    /// Makes the release that the configuration describes, with some versions replaced, and stores it.
    fn release(
        &self,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        stage: &Stage<'_>,
    ) -> Result<(Digest, Release), EngineError>;

    /// When what a service of a release runs was made (UTC, milliseconds since 1970), if that is known.
    fn made_ms(&self, service: &ServiceRelease) -> Result<Option<i64>, EngineError>;

    /// The release that runs (or would run) before Switchback has made a generation.
    fn adopted(&self, home: &Home, config: &Config, stage: &Stage<'_>) -> Result<Adopted, EngineError>;

    /// Where the configuration says that production's data lies before the first promotion.
    fn stores(&self, home: &Home, config: &Config) -> Result<BTreeMap<StoreName, StorePlace>, EngineError>;

    /// The ports by which production's services are reached.
    fn ports(
        &self,
        home: &Home,
        release: &(Digest, Release),
    ) -> Result<BTreeMap<ServiceName, BTreeMap<String, u16>>, EngineError>;

    /// The versions that the user's files ask for now; `None` where they have mistakes in them.
    fn desired(
        &self,
        home: &Home,
        config: &Config,
    ) -> Result<Option<BTreeMap<ServiceName, String>>, EngineError>;

    /// The user's files (relative to the stack) with other versions in them.
    fn edits(
        &self,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
    ) -> Result<BTreeMap<String, String>, EngineError>;

    /// What the settings of a release differ in from those of another one, in words and without values.
    fn settings(
        &self,
        home: &Home,
        old: (&Digest, &Release),
        new: (&Digest, &Release),
    ) -> Result<Vec<String>, EngineError>;

    /// Confirms that an instance could be started: artefacts, programs, images, ports.
    fn preflight(&self, at: &Placement<'_>, wanted: PreflightFor) -> Result<Vec<String>, EngineError>;

    /// Puts what the services need besides data into the instance's folder. Says what a person should know.
    fn prepare(
        &self,
        at: &Placement<'_>,
        scratch: &Scratch,
        stage: &Stage<'_>,
    ) -> Result<Vec<String>, EngineError>;

    /// Starts all services and waits until each is healthy and stable.
    fn start(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, Failed>;

    /// Stops all services; what does not stop in its grace time is killed.
    fn stop(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, EngineError>;

    /// Runs a service's migration command; whatever it leaves running is ended.
    fn migrate(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        stage: &Stage<'_>,
    ) -> Result<Migrated, EngineError>;

    /// What runs of an instance, in words; empty if nothing does.
    fn running(&self, home: &Home, instance: &Instance) -> Result<Vec<String>, EngineError>;

    /// Confirms that exactly this instance runs: what was compared, or the differences.
    fn read_back(&self, at: &Placement<'_>) -> Result<Result<Vec<String>, Vec<String>>, EngineError>;

    /// Probes a service once.
    fn probe(&self, at: &Placement<'_>, name: &ServiceName) -> ProbeResult;

    /// What each service of an instance is doing. Only looks, and sends nothing to a service.
    fn observe(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Observed>, EngineError>;

    /// What each running service of an instance uses.
    fn usage(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Usage>, EngineError>;
    /// Memory that the services use now, in bytes; too much may be said, if even that is no more than `enough`.
    fn memory(&self, at: &Placement<'_>, _enough: u64) -> Result<u64, EngineError> {
        Ok(self.usage(at)?.values().map(|u| u.memory_bytes).sum())
    }

    /// A program with its arguments as it would run in a service of an instance. Started by the caller, with the streams
    /// that it gives it.
    fn inside(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        program: &[String],
        terminal: bool,
    ) -> Result<std::process::Command, EngineError>;

    /// In what an instance of staging differs from production, in words.
    fn staged(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError>;

    /// The engine that has the images, where there is one.
    fn engine(&self) -> Option<&Docker> {
        None
    }

    /// What of an instance's release is gone (artefacts, images), in words; empty if it could be started.
    fn missing(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError>;

    /// Services that are restarted again and again, in words.
    fn restarting(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError>;

    /// Where checks reach the services.
    fn endpoints(&self, at: &Placement<'_>) -> BTreeMap<ServiceName, Endpoint>;

    /// Where a person reaches the services: as [`Runtime::endpoints`], but as the host has it that [`Runtime::login`] leads to.
    fn addresses(&self, at: &Placement<'_>) -> BTreeMap<ServiceName, Endpoint> {
        self.endpoints(at)
    }

    /// The host on which the services run, in the words of `ssh`'s command line, if it is another one that is reached by `ssh`.
    fn login(&self) -> Option<String> {
        None
    }

    /// The end of a service's log, at most so many bytes, without secrets.
    fn log(&self, at: &Placement<'_>, name: &ServiceName, bytes: u64) -> Vec<String>;

    /// What a service logged since a mark of an earlier look, at most so many bytes from the end, without secrets. Without a
    /// mark: no lines, and a mark for what comes from now on.
    fn log_after(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        mark: Option<&str>,
        bytes: u64,
    ) -> Result<LogPart, EngineError>;

    /// Free bytes where production's data lies, if that is known.
    fn free_bytes(&self, home: &Home) -> Option<u64>;

    /// Values that must be removed from anything shown.
    fn secrets(&self, at: &Placement<'_>) -> Vec<String>;

    /// The value that a variable has for the services, where a workflow asks for it.
    fn variable(&self, at: &Placement<'_>, name: &str) -> Option<String>;

    /// What the services of a staging instance tried to send out since they were started.
    fn egress(&self, at: &Placement<'_>) -> Result<Egress, EngineError>;

    /// Attacks a staging instance's isolation from inside while it runs; `None` where the runtime has none to attack.
    fn attack(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError>;

    /// The same where there is a way from the environment to production, for the proof that the attack finds it.
    fn attack_exposed(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError>;

    /// Lets a service of a staging instance stand still, or go on; how many of its containers or processes.
    fn still(&self, at: &Placement<'_>, name: &ServiceName, on: bool) -> Result<usize, EngineError>;

    /// Ends a service of a staging instance as a crash does; how many of its containers or processes.
    fn end(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError>;

    /// Lets a service of a staging instance not hear that it is to end; how many of its containers or processes.
    fn deaf(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError>;

    /// A variable (or a file of variables) of a release, and what is told of the settings of the same release without it; `None`
    /// where no service has one.
    fn lacking(
        &self,
        home: &Home,
        release: (&Digest, &Release),
    ) -> Result<Option<(String, Vec<String>)>, EngineError>;

    /// A program that counts as one of a service's own, as [`Runtime::inside`] starts it.
    fn beside(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        program: &[String],
    ) -> Result<std::process::Command, EngineError> {
        self.inside(at, name, program, false)
    }

    /// Removes what the runtime keeps of a scratch instance outside its folder.
    fn discard(&self, home: &Home, instance: &Instance) -> Result<(), EngineError>;

    /// Ends whatever a crashed run left running below a folder of the state (`staging/RUN`; "" for the whole stack),
    /// except below some folders in it.
    fn kill_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<(), EngineError>;

    /// What runs or is left below a folder of the state, except below some folders in it, in words.
    fn left_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<Vec<String>, EngineError>;

    /// Lets go of what it keeps for releases other than these; how many things.
    fn forget(&self, home: &Home, releases: &[Release]) -> Result<usize, EngineError>;

    /// Whether what runs the services can be spoken to; if not, why.
    fn reachable(&self) -> Result<(), EngineError>;

    /// Whether what runs the services is on this host.
    fn is_here(&self) -> bool;

    /// Told after production's pointer was moved to this generation.
    fn activated(&self, at: &Placement<'_>) -> Result<(), EngineError>;
}

/// A stack as Switchback finds it.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// What runs.
    pub release: (Digest, Release),
    /// Where its data lies.
    pub stores: BTreeMap<StoreName, StorePlace>,
    /// Name of the Compose project.
    pub project: Option<String>,
    /// Whether it runs already.
    pub running: bool,
}

/// Where a run keeps the output of a migration.
pub fn migration_log(run_dir: &Path, instance: &Instance, name: &ServiceName) -> std::path::PathBuf {
    run_dir.join(format!("migrate-{}-{name}.log", instance.environment))
}
