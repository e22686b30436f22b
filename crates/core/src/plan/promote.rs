//! The plan of a promotion, and of carrying writes back: a promotion of the same release with more data.

use super::{CheckPhase, CloneMode, Group, Majors, OnFailure, Op, Plan, Procedure, Steps, stores_in};
use crate::ids::{Digest, GenerationId, RunId, ServiceName, StackName};
use crate::release::{FORMAT, Instance, PRODUCTION, Shared};
use std::collections::BTreeMap;

/// What the plan of a promotion is made from.
#[derive(Debug, Clone)]
pub struct PromoteFacts {
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
    /// What the current generation would roll back to.
    pub previous: Option<GenerationId>,
    /// The number of the new generation.
    pub next: GenerationId,
    /// The release to promote.
    pub target: Digest,
    /// Its versions.
    pub target_versions: BTreeMap<ServiceName, String>,
    /// Its ports.
    pub target_ports: BTreeMap<ServiceName, BTreeMap<String, u16>>,
    /// Services of the target release that have a migration command, in order.
    pub migrate: Vec<ServiceName>,
    /// Versions to write into `switchback.yaml`, before and after; empty if it already says so.
    pub edit: (BTreeMap<ServiceName, String>, BTreeMap<ServiceName, String>),
    /// Stores whose data is converted for servers of another major version.
    pub convert: Majors,
    /// Whether a clone of the migrated data costs next to no downtime; otherwise the old generation's
    /// data is cloned once the new version serves.
    pub cheap_base: bool,
    /// Whether the data is copied ahead while the old generation runs, because blocks cannot be shared.
    pub precopy: bool,
    /// Bytes that the clone needs.
    pub need_bytes: u64,
    /// Rollback budget.
    pub budget_ms: u64,
    /// Length of the trial.
    pub watch_ms: u64,
    /// Why there is no certificate, when there is none.
    pub waiver: Option<String>,
    /// Whether it is kept which rows are written to while the trial lasts.
    pub capture: bool,
    /// The abandoned generation whose writes are carried, where that is what it is about.
    pub carry: Option<GenerationId>,
}

/// Makes the plan of a promotion.
pub fn promote(facts: &PromoteFacts) -> Plan {
    let dir = format!("generations/{}", facts.next);
    let new = Instance {
        environment: PRODUCTION.to_owned(),
        generation: facts.next,
        release: facts.target.clone(),
        versions: facts.target_versions.clone(),
        stores: stores_in(
            &facts.production.stores,
            &format!("{}/{dir}", facts.state_dir),
            facts.production.project.as_deref().unwrap_or(""),
            &format!("g{}", facts.next),
        ),
        dir,
        project: facts.production.project.clone(),
        shared: Shared::default(),
        closed: false,
        ports: facts.target_ports.clone(),
    };
    let (old_key, new_key) = (facts.production.key(), new.key());
    let old = facts.production.generation;
    let mut steps = Steps::new();
    steps.add(
        "preflight",
        match facts.carry {
            None => "Check certificate, disk space, artefacts and ports",
            Some(_) => "Check disk space, artefacts and ports",
        },
        Group::Prepare,
        Op::Preflight { target: new_key.clone(), need_bytes: facts.need_bytes },
    );
    steps
        .add(
            "prepare",
            format!("Prepare generation {}", facts.next),
            Group::Prepare,
            Op::Prepare { instance: new_key.clone() },
        )
        .reversible();
    steps.add(
        "observe",
        format!("See how generation {old} does, to compare the trial with"),
        Group::Prepare,
        Op::Observe { instance: old_key.clone() },
    );
    if facts.precopy {
        steps
            .add(
                "pre-copy",
                format!("Copy the data of generation {old} ahead while it runs"),
                Group::Prepare,
                Op::Precopy { from: old_key.clone(), to: new_key.clone() },
            )
            .reversible();
    }
    steps
        .add(
            "stop-old",
            format!("Stop generation {old}"),
            Group::Switch,
            Op::Stop { instance: old_key.clone() },
        )
        .reversible();
    steps.add(
        "clone",
        format!("Clone the data of generation {old}"),
        Group::Switch,
        Op::Clone { from: old_key.clone(), to: new_key.clone(), mode: CloneMode::Cold },
    );
    if !facts.convert.is_empty() {
        steps.convert(&new_key, &old_key, &facts.convert);
    }
    for service in &facts.migrate {
        steps.add(
            &format!("migrate-{service}"),
            format!(
                "Migrate the data of {service} to {}",
                facts.target_versions.get(service).map_or("", String::as_str)
            ),
            Group::Switch,
            Op::Migrate { instance: new_key.clone(), service: service.clone(), source: old_key.clone() },
        );
    }
    if let Some(left) = facts.carry {
        let op = Op::Carry { instance: new_key.clone(), left, source: old_key.clone() };
        steps.add("carry", format!("Carry the writes made to generation {left}"), Group::Switch, op);
    }
    let base = "Keep a clone to recognise later writes by";
    // What was converted cannot be told from what the old generation has.
    let early = facts.cheap_base || !facts.convert.is_empty();
    if early {
        let op = Op::Base { instance: new_key.clone(), source: new_key.clone() };
        steps.add("base", base, Group::Switch, op);
    }
    if facts.capture {
        let op = Op::Capture { instance: new_key.clone() };
        steps.add("capture", "Begin to keep which rows are written to", Group::Switch, op);
    }
    steps
        .add(
            "start-new",
            format!("Start generation {} and wait until it is healthy", facts.next),
            Group::Switch,
            Op::Start { instance: new_key.clone() },
        )
        .reversible();
    if !early {
        let op = Op::Base { instance: new_key.clone(), source: old_key.clone() };
        steps.add("base", base, Group::Check, op);
    }
    steps.add("read-back", "Read back what runs", Group::Check, Op::ReadBack { instance: new_key.clone() });
    steps.add(
        "gate",
        "Run the checks that are safe on production",
        Group::Check,
        Op::Check { instances: vec![new_key.clone()], phase: CheckPhase::Production },
    );
    let flip =
        Op::Flip { from: Some(old), from_previous: facts.previous, to: facts.next, to_previous: Some(old) };
    steps
        .add("flip", format!("Point production at generation {}", facts.next), Group::Check, flip)
        .reversible();
    if !facts.edit.1.is_empty() {
        let op = Op::EditVersions { from: facts.edit.0.clone(), to: facts.edit.1.clone() };
        let title = match facts.production.project {
            None => "Write the new versions into switchback.yaml",
            Some(_) => "Write the new versions into the Compose file or .env",
        };
        steps.add("edit-versions", title, Group::Check, op).reversible();
    }
    steps
        .add(
            "begin-trial",
            "Begin the trial",
            Group::After,
            Op::BeginTrial { instance: new_key, watch_ms: facts.watch_ms },
        )
        .on_failure(OnFailure::Undo);
    Plan {
        format: FORMAT,
        run: facts.run.clone(),
        procedure: if facts.carry.is_some() { Procedure::Carry } else { Procedure::Promote },
        stack: facts.stack.clone(),
        made_at_ms: facts.now_ms,
        from: facts.production.versions.clone(),
        to: facts.target_versions.clone(),
        from_generation: Some(old),
        to_generation: Some(facts.next),
        reason: facts.waiver.clone(),
        budget_ms: facts.budget_ms,
        instances: [facts.production.clone(), new].into_iter().map(|i| (i.key(), i)).collect(),
        steps: steps.0,
    }
}
