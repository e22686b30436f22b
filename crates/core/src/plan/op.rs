//! What a step does, as a value.

use super::HookTime;
use crate::environment::Environment;
use crate::ids::{GenerationId, ServiceName, StepId, StoreName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Major versions of database servers before and after, by store.
pub type Majors = BTreeMap<StoreName, (u32, u32)>;

/// The operations. Instances are named by their key in [`super::Plan::instances`].
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
    /// Starts some services of an instance and waits until they are healthy and stay so; the others go on.
    StartServices {
        /// The instance.
        instance: String,
        /// Which.
        services: Vec<ServiceName>,
        /// The instance that had them before; nothing of these services may run as part of it.
        instead_of: String,
    },
    /// Stops some services of an instance; the others go on.
    StopServices {
        /// The instance.
        instance: String,
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Takes the content of an instance's stores, on which nothing runs: equal only for the very same files.
    Seal {
        /// The instance.
        instance: String,
        /// An earlier such step whose result must be equal.
        equal_to: Option<StepId>,
    },
    /// Exports what was written to a generation that this run made, and removes it.
    Discard {
        /// The generation's instance.
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
    /// Looks for damage in the stores of an instance whose services run.
    Integrity {
        /// The instance.
        instance: String,
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
    /// Stops and removes one staging instance, while the run goes on with others.
    Remove {
        /// The instance.
        instance: String,
    },
    /// Removes rows of large tables of a copy, on which nothing runs, so that a share of them is left and every reference still leads
    /// somewhere; then measures its databases. At 100 % it only measures.
    Shrink {
        /// The instance.
        instance: String,
        /// Where its stores were cloned from, to begin afresh after an interruption.
        source: String,
        /// The share of the rows that is kept, in percent.
        percent: u8,
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
    /// From its next start on, which rows of an instance's databases are written to is kept; nothing runs on it.
    Capture {
        /// The instance.
        instance: String,
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
    /// Archives what was written to the logs of stores so far, and has their servers keep what they write from now on.
    Ship {
        /// Production.
        instance: String,
    },
    /// Takes the content of a clone as digests, for the backup that is made of it; what its servers keep for a production on trial
    /// alone is taken out of it before. No server is started on a clone that an archived log goes on from: one that only reads already
    /// goes another way.
    Contents {
        /// The clone.
        instance: String,
        /// Production, which it is a clone of.
        source: String,
    },
    /// Replays the archived logs of stores into an instance, on which nothing runs, up to a moment.
    Replay {
        /// The instance.
        instance: String,
        /// The snapshot that its data is from: the whole id.
        snapshot: String,
        /// The moment; UTC, milliseconds since 1970.
        at_ms: i64,
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
        /// Leave alone what is replayed next: a server that reads it would go another way.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replay: bool,
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
