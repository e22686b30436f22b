//! The plan of a rollback that is tried on clones.

use super::backup::{ArchiveFacts, Ports, prepare};
use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps};
use crate::release::Instance;

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct RollbackDrillFacts {
    /// What is common with a backup: production as it is.
    pub common: ArchiveFacts,
    /// The generation that a rollback returns to.
    pub previous: Instance,
    /// Ports for it; those of the present generation where names agree.
    pub ports: Ports,
    /// How long the certificate is valid.
    pub valid_ms: u64,
}

/// Switches a clone of the present generation back to one of the generation before, measures it, runs the checks, and certifies the
/// way back.
pub fn rollback_drill(facts: &RollbackDrillFacts) -> Plan {
    let common = &facts.common;
    let new = common.beside(&common.production, "drill", 2, &common.ports);
    let old = common.beside(&facts.previous, "drill", 1, &facts.ports);
    let (new_key, old_key) = (new.key(), old.key());
    let mut steps = Steps::new();
    prepare(&mut steps, &old, common.need_bytes);
    let op = Op::Prepare { instance: new_key.clone() };
    steps.add("prepare-present", format!("Prepare {new_key}"), Group::Prepare, op).reversible();
    let (mode, title) = if common.production_runs {
        (CloneMode::Live, "Clone production's data while it runs")
    } else {
        (CloneMode::Cold, "Clone production's data")
    };
    let op = Op::Clone { from: common.production.key(), to: new_key.clone(), mode };
    steps.add("snapshot", title, Group::Prepare, op);
    let op = Op::Clone { from: facts.previous.key(), to: old_key.clone(), mode: CloneMode::Cold };
    let title = format!("Clone the data of generation {}", facts.previous.generation);
    steps.add("clone-previous", title, Group::Prepare, op);
    let op = Op::Start { instance: new_key.clone() };
    steps.add("start-present", "Start the present version", Group::Baseline, op).reversible();
    let op = Op::Stop { instance: new_key.clone() };
    steps.add("rollback-stop", "Roll back: stop the present version", Group::Rollback, op);
    let op = Op::Start { instance: old_key.clone() };
    steps.add("rollback-start", "Start the version before", Group::Rollback, op).reversible();
    let op = Op::ReadBack { instance: old_key.clone() };
    steps.add("rollback-read-back", "Read back what runs", Group::Rollback, op);
    let op = Op::Check { instances: vec![old_key.clone()], phase: CheckPhase::AfterRollback };
    steps.add("checks-after-rollback", "Run the checks after the rollback", Group::After, op);
    let op = Op::Dispose { instances: vec![new_key.clone(), old_key.clone()] };
    steps
        .add("dispose", "Remove the copies", Group::After, op)
        .on_failure(OnFailure::Persist { attempts: 2 });
    let op = Op::Certify { from: old_key, to: new_key, valid_ms: facts.valid_ms };
    steps.add("certify", "Judge, and certify the way back if everything passed", Group::After, op);
    common.plan(Procedure::RollbackDrill, &[&common.production, &facts.previous, &new, &old], steps)
}
