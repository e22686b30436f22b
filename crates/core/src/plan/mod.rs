//! Plans: the immutable, printable list of steps that a run will take.
//!
//! A plan names every path, port and generation, so that execution makes no choices and undo never
//! needs what `do` returned.

mod backup;
mod drill;
mod hooks;
mod op;
mod path;
mod procedure;
mod production_drill;
mod promote;
mod rehearse;
mod rollback;
mod scaling;
mod service_rollback;
mod single;
mod staging;

pub use backup::{ArchiveFacts, BackupCopy, FetchFacts, Ports, backup, drill, restore};
pub use drill::{RollbackDrillFacts, rollback_drill};
pub use hooks::HookTime;
pub use op::{CheckPhase, CloneMode, Majors, Op};
pub use path::{Hop, PathFacts, path};
pub use procedure::Procedure;
pub use production_drill::{ProductionDrillFacts, production_drill};
pub use promote::{PromoteFacts, promote};
pub use rehearse::{RehearseFacts, rehearse};
pub use rollback::{RollbackFacts, rollback};
pub use scaling::{ScalingFacts, scaling};
pub use service_rollback::{ServiceRollbackFacts, Ties, Uses, service_rollback, ties};
pub use single::{down, export, up};
pub use staging::{
    StagingFacts, staging_down, staging_reset, staging_start, staging_stop, staging_sync, staging_up,
};

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
mod backup_tests;
#[cfg(test)]
pub(crate) mod tests;
