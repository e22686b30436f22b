//! The plan of a rollback that is tried on production itself, in a maintenance window.

use super::backup::Ports;
use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps, stores_in};
use crate::ids::{GenerationId, RunId, StackName};
use crate::release::{FORMAT, Instance, Shared};

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct ProductionDrillFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Absolute path of the state folder.
    pub state_dir: String,
    /// Production as it is.
    pub production: Instance,
    /// What it would roll back to.
    pub previous: Option<GenerationId>,
    /// The number of the generation that is made for the drill and removed again.
    pub next: GenerationId,
    /// Free ports for it, which no client knows.
    pub ports: Ports,
    /// Whether the data is copied ahead while production runs, because blocks cannot be shared.
    pub precopy: bool,
    /// Bytes that the copies need.
    pub need_bytes: u64,
    /// Rollback budget.
    pub budget_ms: u64,
    /// How long the certificate is valid.
    pub valid_ms: u64,
}

/// Stops production, switches it to a copy of itself that no client can reach, and returns: what a promotion and a rollback do, with
/// the pointer, the stores and the services of production.
///
/// Production's own data is closed from the stop to the start after it, so there is no write that could be lost; what the copy's
/// services write by themselves is exported before the copy goes.
pub fn production_drill(facts: &ProductionDrillFacts) -> Plan {
    let now = &facts.production;
    let dir = format!("generations/{}", facts.next);
    let copy = Instance {
        generation: facts.next,
        stores: stores_in(
            &now.stores,
            &format!("{}/{dir}", facts.state_dir),
            now.project.as_deref().unwrap_or(""),
            &format!("g{}", facts.next),
        ),
        dir,
        ports: facts.ports.clone(),
        shared: Shared::default(),
        closed: true,
        ..now.clone()
    };
    let (own, key) = (now.key(), copy.key());
    // Until production has returned there is one way on: to it.
    let persist = OnFailure::Persist { attempts: 3 };
    let mut steps = Steps::new();
    let op = Op::Preflight { target: key.clone(), need_bytes: facts.need_bytes };
    steps.add("preflight", "Check disk space, artefacts and ports", Group::Prepare, op);
    let op = Op::Prepare { instance: key.clone() };
    let title = format!("Prepare generation {}, a copy that no client can reach", facts.next);
    steps.add("prepare", title, Group::Prepare, op).reversible();
    if facts.precopy {
        let op = Op::Precopy { from: own.clone(), to: key.clone() };
        let title = "Copy the data ahead while production runs";
        steps.add("pre-copy", title, Group::Prepare, op).reversible();
    }
    let op = Op::Stop { instance: own.clone() };
    let title = format!("Stop generation {}", now.generation);
    steps.add("stop-old", title, Group::Switch, op).reversible();
    let op = Op::Clone { from: own.clone(), to: key.clone(), mode: CloneMode::Cold };
    steps.add("clone", format!("Clone the data of generation {}", now.generation), Group::Switch, op);
    let op = Op::Base { instance: key.clone(), source: own.clone() };
    steps.add("base", "Keep a clone to recognise writes to the copy by", Group::Switch, op);
    let op = Op::Seal { instance: own.clone(), equal_to: None };
    steps.add("seal", "Take the fingerprint of production's data", Group::Switch, op);
    let op = Op::Start { instance: key.clone() };
    let title = format!("Start generation {} and wait until it is healthy", facts.next);
    steps.add("start-new", title, Group::Switch, op).reversible();
    let op = Op::ReadBack { instance: key.clone() };
    steps.add("read-back", "Read back what runs", Group::Switch, op);
    let op = Op::Flip {
        from: Some(now.generation),
        from_previous: facts.previous,
        to: facts.next,
        to_previous: Some(now.generation),
    };
    steps
        .add("flip", format!("Point production at generation {}", facts.next), Group::Switch, op)
        .reversible();
    let op = Op::Seal { instance: own.clone(), equal_to: Some("seal".into()) };
    steps.add("sealed", "Confirm that production's data is untouched", Group::Switch, op);
    // Nothing below is reversed: what is undone ends with the start of production as well.
    let op = Op::Stop { instance: key.clone() };
    steps.add("rollback-stop", "Roll back: stop the copy", Group::Rollback, op).on_failure(persist);
    // Before the start: if that fails, `up` has to start production and not the copy.
    let op = Op::Flip {
        from: Some(facts.next),
        from_previous: Some(now.generation),
        to: now.generation,
        to_previous: facts.previous,
    };
    let title = format!("Point production at generation {}", now.generation);
    steps.add("flip-back", title, Group::Rollback, op).on_failure(persist);
    let op = Op::Start { instance: own.clone() };
    let title = format!("Start generation {} and wait until it is healthy", now.generation);
    steps.add("rollback-start", title, Group::Rollback, op).on_failure(persist);
    let op = Op::ReadBack { instance: own.clone() };
    steps.add("rollback-read-back", "Read back what runs", Group::Rollback, op).on_failure(persist);
    let op = Op::Check { instances: vec![own.clone()], phase: CheckPhase::Production };
    let title = "Run the checks that are safe on production";
    steps.add("checks", title, Group::After, op).on_failure(OnFailure::Continue);
    let op = Op::Discard { instance: key.clone() };
    let title = "Export what was written to the copy, and remove it";
    steps.add("discard", title, Group::After, op).on_failure(OnFailure::Continue);
    let op = Op::Certify { from: own, to: key, valid_ms: facts.valid_ms };
    let title = "Judge, and certify the way back if everything passed";
    steps.add("certify", title, Group::After, op).on_failure(OnFailure::Continue);
    Plan {
        format: FORMAT,
        run: facts.run.clone(),
        procedure: Procedure::ProductionDrill,
        stack: facts.stack.clone(),
        made_at_ms: facts.now_ms,
        from: now.versions.clone(),
        to: now.versions.clone(),
        from_generation: Some(now.generation),
        to_generation: Some(now.generation),
        reason: None,
        budget_ms: facts.budget_ms,
        instances: [now.clone(), copy].into_iter().map(|i| (i.key(), i)).collect(),
        steps: steps.0,
    }
}
