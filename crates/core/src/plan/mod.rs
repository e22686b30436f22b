//! Plans: the immutable, printable list of steps that a run will take.
//!
//! A plan names every path, port and generation, so that execution makes no choices and undo never
//! needs what `do` returned.

mod backup;
mod drill;
mod hooks;
mod path;
mod procedure;
mod promote;
mod rehearse;
mod rollback;
mod single;
mod staging;

pub use backup::{ArchiveFacts, FetchFacts, Ports, backup, drill, restore};
pub use drill::{RollbackDrillFacts, rollback_drill};
pub use hooks::HookTime;
pub use path::{Hop, PathFacts, path};
pub use procedure::Procedure;
pub use promote::{PromoteFacts, promote};
pub use rehearse::{RehearseFacts, rehearse};
pub use rollback::{RollbackFacts, rollback};
pub use single::{down, up};
pub use staging::{
    StagingFacts, staging_down, staging_reset, staging_start, staging_stop, staging_sync, staging_up,
};

use crate::environment::Environment;
use crate::ids::{GenerationId, RunId, ServiceName, StackName, StepId, StoreName};
use crate::release::Instance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The list of steps of a run, with everything they need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Format of the journal.
    pub format: u32,
    /// The run.
    pub run: RunId,
    /// What it does.
    pub procedure: Procedure,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub made_at_ms: i64,
    /// Versions before.
    pub from: BTreeMap<ServiceName, String>,
    /// Versions after.
    pub to: BTreeMap<ServiceName, String>,
    /// Production's generation before, if there is one.
    pub from_generation: Option<GenerationId>,
    /// Production's generation after; `None` where production is not touched.
    pub to_generation: Option<GenerationId>,
    /// Why the run was started, where somebody gave a reason.
    pub reason: Option<String>,
    /// A rollback must be done within this time.
    pub budget_ms: u64,
    /// Every instance that a step names, by key.
    pub instances: BTreeMap<String, Instance>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One operation with what undoes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the plan.
    pub id: StepId,
    /// What it does, for people.
    pub title: String,
    /// What it does, for the engine.
    pub op: Op,
    /// Whether undo must reverse it.
    pub undo: Undo,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// Steps that must have succeeded; otherwise this one is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<StepId>,
    /// What its time counts towards.
    pub group: Group,
}

/// Whether a step is reversed when a run is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Nothing to reverse, or another step's undo covers it.
    Nothing,
    /// The operation has a reverse.
    Reverse,
}

/// What happens when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "snake_case")]
pub enum OnFailure {
    /// Everything started is undone, in reverse order.
    Undo,
    /// The failure is recorded and the run goes on; steps that require this one are skipped.
    Continue,
    /// It is tried again, at most so many times in all; then a person is needed.
    Persist {
        /// Attempts in all.
        attempts: u32,
    },
}

/// What a step's time counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Before anything changes.
    Prepare,
    /// Baseline: the old version on a clone.
    Baseline,
    /// The switch to the new generation (on production: the downtime).
    Switch,
    /// Observing and judging.
    Check,
    /// The return to the old generation.
    Rollback,
    /// After service is back.
    After,
}

/// Major versions of database servers before and after, by store.
pub type Majors = BTreeMap<StoreName, (u32, u32)>;

/// The operations. Instances are named by their key in [`Plan::instances`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Confirms that what the plan was made from still holds: artefacts, disk, certificate.
    Preflight {
        /// The instance that will be started.
        target: String,
        /// Free bytes needed.
        need_bytes: u64,
    },
    /// Makes the folder of an instance and puts its configuration files there.
    Prepare {
        /// The instance.
        instance: String,
    },
    /// Runs a command of the user, if there is one.
    Hook {
        /// Which.
        when: HookTime,
    },
    /// Looks at production as it is, so that a trial can be compared with it.
    Observe {
        /// The instance that runs.
        instance: String,
    },
    /// Copies ahead, while the source is in use, what the clone can then take over.
    Precopy {
        /// Source instance.
        from: String,
        /// Target instance.
        to: String,
    },
    /// Clones every store of one instance into another, cut at one moment.
    Clone {
        /// Source instance.
        from: String,
        /// Target instance; its stores do not exist yet.
        to: String,
        /// Whether the source may be written meanwhile.
        mode: CloneMode,
    },
    /// Brings the stores of one instance, which exist already, to the state of another's, cut at one moment.
    Refresh {
        /// Source instance.
        from: String,
        /// Target instance; nothing runs on it.
        to: String,
        /// Whether the source may be written meanwhile.
        mode: CloneMode,
    },
    /// Confirms that a copy is equal to what it was made from; nothing runs on either.
    Compare {
        /// The instance that was copied.
        source: String,
        /// The copy.
        copy: String,
    },
    /// Masks the columns of the configuration's rules; nothing runs on the instance.
    Mask {
        /// The instance.
        instance: String,
        /// Where its stores were copied from, to begin afresh when masking was interrupted: what is masked twice is no longer
        /// what refers to it.
        source: String,
        /// Whether the source may be written meanwhile.
        mode: CloneMode,
    },
    /// Counts rows and files.
    Count {
        /// The instance.
        instance: String,
        /// Whether services are writing.
        mode: CloneMode,
    },
    /// Records a staging environment.
    Register {
        /// The record; what the steps below measured is added.
        environment: Box<Environment>,
        /// Steps whose copies brought its data; empty if it has the data of before.
        copies: Vec<StepId>,
    },
    /// Forgets a staging environment.
    Unregister {
        /// Its name.
        name: String,
    },
    /// Keeps a clone of stores beside an instance, to recognise later writes by.
    Base {
        /// The instance that gets it.
        instance: String,
        /// Whose stores are cloned; nothing runs on it: the instance itself before it starts, or
        /// (where that would lengthen the downtime) the generation it was made from.
        source: String,
    },
    /// Has a linter look at the migration files of the stack.
    Lint,
    /// Converts the data of an instance, on which nothing runs, for servers of another major version.
    Convert {
        /// The instance.
        instance: String,
        /// Where its stores were cloned from: its release has the servers that can read them, and a conversion that was
        /// interrupted begins afresh.
        source: String,
        /// What is converted.
        majors: Majors,
    },
    /// Prepares the databases of an instance, on which nothing runs, to record what is done to them. Only for a copy.
    TraceBegin {
        /// The instance.
        instance: String,
    },
    /// Reads what the databases of an instance recorded, and removes what [`Op::TraceBegin`] put into them.
    TraceEnd {
        /// The instance.
        instance: String,
    },
    /// Has the databases of an instance, on which nothing runs, count what they are asked from their next start on. Only for a copy.
    QueriesBegin {
        /// The instance.
        instance: String,
        /// Only if those of this one, which runs, count too.
        beside: Option<String>,
    },
    /// Forgets what the databases counted so far.
    QueriesReset {
        /// The instances.
        instances: Vec<String>,
    },
    /// Compares what the databases of two instances were asked, and how they carry it out.
    Queries {
        /// The old version.
        before: String,
        /// The new one.
        after: String,
    },
    /// Runs a service's migration command on an instance.
    Migrate {
        /// The instance.
        instance: String,
        /// The service.
        service: ServiceName,
        /// Where its stores were cloned from, to start afresh when the migration was interrupted.
        source: String,
    },
    /// Starts all services and waits until they are healthy and stay so.
    Start {
        /// The instance.
        instance: String,
    },
    /// Stops all services; what does not stop in its grace time is killed.
    Stop {
        /// The instance.
        instance: String,
    },
    /// Confirms that exactly this instance runs.
    ReadBack {
        /// The instance.
        instance: String,
    },
    /// Takes the fingerprints of all stores.
    Fingerprint {
        /// The instance.
        instance: String,
        /// Whether services are writing.
        mode: CloneMode,
        /// A fingerprint step whose result must be equal.
        equal_to: Option<StepId>,
    },
    /// Compares the data of two instances exactly, and judges what was lost.
    Diff {
        /// The older state; nothing runs on it.
        before: String,
        /// The newer state.
        after: String,
    },
    /// Runs checks on one or several instances, alternating between them.
    Check {
        /// The instances.
        instances: Vec<String>,
        /// Which checks.
        phase: CheckPhase,
    },
    /// Stops and removes staging instances, and confirms that nothing of them is left.
    Dispose {
        /// The instances.
        instances: Vec<String>,
    },
    /// Points production at another generation.
    Flip {
        /// Before.
        from: Option<GenerationId>,
        /// What a rollback returned to before.
        from_previous: Option<GenerationId>,
        /// After.
        to: GenerationId,
        /// What a rollback returns to afterwards.
        to_previous: Option<GenerationId>,
    },
    /// Writes the versions asked for into `switchback.yaml`.
    EditVersions {
        /// Versions before, per service.
        from: BTreeMap<ServiceName, String>,
        /// Versions after, per service.
        to: BTreeMap<ServiceName, String>,
    },
    /// Starts the watched period.
    BeginTrial {
        /// The generation on trial.
        instance: String,
        /// Length in milliseconds.
        watch_ms: u64,
    },
    /// Exports what was written to an abandoned generation since its promotion.
    Export {
        /// The abandoned generation.
        abandoned: String,
    },
    /// Carries what was written to an abandoned generation since its promotion into an instance.
    Carry {
        /// The instance; nothing runs on it.
        instance: String,
        /// The abandoned generation.
        left: GenerationId,
        /// Where the instance's stores were cloned from, to start afresh when carrying was interrupted.
        source: String,
    },
    /// Writes a clone of production's data, its configuration and the record of its release into the repository of backups.
    Archive {
        /// The clone; nothing runs on it.
        instance: String,
        /// Production, which it is a clone of.
        source: String,
    },
    /// Removes backups that no rule keeps.
    Retain,
    /// Brings back those images of a snapshot's release that are gone from the engine.
    Images {
        /// The snapshot's whole id.
        snapshot: String,
    },
    /// Brings the data of a snapshot into an instance, and compares it with what was read when the snapshot was made.
    Fetch {
        /// The instance; its stores do not exist yet.
        instance: String,
        /// The snapshot's whole id.
        snapshot: String,
    },
    /// Issues the certificate if everything passed.
    Certify {
        /// The release that is left.
        from: String,
        /// The release that is permitted.
        to: String,
        /// How long it is valid.
        valid_ms: u64,
    },
}

/// Whether the source of a copy or comparison is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloneMode {
    /// Services are running on it.
    Live,
    /// Nothing has it open.
    Cold,
}

/// Which checks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckPhase {
    /// In staging: everything.
    Staging,
    /// In staging, the old version on migrated data: recorded, never refused for.
    CodeOnly,
    /// In staging after the rollback.
    AfterRollback,
    /// In a staging environment that a person keeps: health, and whether anything can be reached from inside.
    Environment,
    /// On production: only what is safe there.
    Production,
}

impl Plan {
    /// The step with this id.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|s| &s.id == id)
    }
    /// The instance with this key.
    pub fn instance(&self, key: &str) -> Option<&Instance> {
        self.instances.get(key)
    }
    /// Folders of staging instances, relative to the state folder.
    pub fn scratch_dirs(&self) -> Vec<&str> {
        self.instances.values().filter(|i| !i.is_production()).map(|i| i.dir.as_str()).collect()
    }
}

/// Builds the list of steps.
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    fn new() -> Self {
        Self(Vec::new())
    }
    fn add(&mut self, id: &str, title: impl Into<String>, group: Group, op: Op) -> &mut Step {
        debug_assert!(self.0.iter().all(|s| s.id.as_str() != id), "step {id} twice");
        self.0.push(Step {
            id: id.into(),
            title: title.into(),
            op,
            undo: Undo::Nothing,
            on_failure: OnFailure::Undo,
            requires: Vec::new(),
            group,
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
    /// The conversion of a clone for servers of another major version.
    fn convert(&mut self, instance: &str, source: &str, majors: &Majors) -> &mut Step {
        let each: Vec<String> = majors
            .iter()
            .map(|(store, (from, to))| format!("{store} from Postgres {from} to {to}"))
            .collect();
        let op =
            Op::Convert { instance: instance.to_owned(), source: source.to_owned(), majors: majors.clone() };
        self.add("convert", format!("Convert the data of {}", each.join(", ")), Group::Switch, op)
    }
}

impl Step {
    fn reversible(&mut self) -> &mut Self {
        self.undo = Undo::Reverse;
        self
    }
    fn on_failure(&mut self, then: OnFailure) -> &mut Self {
        self.on_failure = then;
        self
    }
    fn requires(&mut self, steps: &[&str]) -> &mut Self {
        self.requires = steps.iter().map(|s| StepId::from(*s)).collect();
        self
    }
}

/// The stores of an instance moved into a folder of its own, or (Compose) onto mounts of its own.
///
/// `prefix` and `suffix` name the new mounts; see [`crate::release::Mount::clone_at`].
pub fn stores_in(
    stores: &BTreeMap<StoreName, crate::release::StorePlace>,
    dir: &str,
    prefix: &str,
    suffix: &str,
) -> BTreeMap<StoreName, crate::release::StorePlace> {
    let moved = |name: &StoreName, place: &crate::release::StorePlace| {
        let mut place = place.clone();
        if let Some(mount) = &mut place.mount {
            mount.at = mount.clone_at(prefix, suffix);
        } else {
            let file = place.path.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data");
            place.path = format!("{dir}/stores/{name}/{file}");
        }
        place
    };
    stores.iter().map(|(name, place)| (name.clone(), moved(name, place))).collect()
}

#[cfg(test)]
pub(crate) mod tests;
