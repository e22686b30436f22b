//! The plan that times a migration at several sizes of the data, on clones.

use super::backup::{ArchiveFacts, Ports};
use super::{CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps};
use crate::ids::{Digest, ServiceName};
use crate::release::Instance;
use std::collections::BTreeMap;

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct ScalingFacts {
    /// What is common with a backup: production as it is.
    pub common: ArchiveFacts,
    /// The release to try.
    pub target: Digest,
    /// Its versions.
    pub versions: BTreeMap<ServiceName, String>,
    /// Free ports, named as the release's; tries run one after the other.
    pub ports: Ports,
    /// Services with a migration command whose version changes, in order.
    pub migrate: Vec<ServiceName>,
    /// Shares of the large tables' rows that are kept, in percent, ascending.
    pub percents: Vec<u8>,
    /// How often each size is tried.
    pub rounds: u32,
}

/// Clones production, makes smaller clones of it, and times the migration on a clone of each, round by round: what disturbs the host
/// for a while then disturbs every size.
pub fn scaling(facts: &ScalingFacts) -> Plan {
    let common = &facts.common;
    let like = Instance {
        release: facts.target.clone(),
        versions: facts.versions.clone(),
        ..common.production.clone()
    };
    let whole = common.beside(&common.production, "whole", 1, &common.ports);
    let mut sources: BTreeMap<u8, Instance> = BTreeMap::from([(100, whole.clone())]);
    for percent in facts.percents.iter().filter(|p| **p < 100) {
        let name = format!("size{percent}");
        sources.insert(*percent, common.beside(&common.production, &name, 1, &common.ports));
    }
    let mut tries = Vec::new();
    for round in 1..=facts.rounds {
        for percent in &facts.percents {
            let name = format!("try{percent}-{round}");
            tries.push((*percent, round, common.beside(&like, &name, 1, &facts.ports)));
        }
    }
    let mut steps = Steps::new();
    let first = tries.first().map_or(&whole, |(_, _, at)| at);
    let title = "Check disk space, artefacts and ports";
    let op = Op::Preflight { target: first.key(), need_bytes: common.need_bytes };
    steps.add("preflight", title, Group::Prepare, op);
    for at in sources.values().rev() {
        let id = format!("prepare-{}", at.environment);
        let op = Op::Prepare { instance: at.key() };
        steps.add(&id, format!("Prepare {}", at.key()), Group::Prepare, op).reversible();
    }
    let (mode, title) = if common.production_runs {
        (CloneMode::Live, "Clone production's data while it runs")
    } else {
        (CloneMode::Cold, "Clone production's data")
    };
    let op = Op::Clone { from: common.production.key(), to: whole.key(), mode };
    steps.add("snapshot", title, Group::Prepare, op);
    for (percent, at) in sources.iter().rev() {
        if *percent < 100 {
            let op = Op::Clone { from: whole.key(), to: at.key(), mode: CloneMode::Cold };
            let title = format!("Clone it for {percent} % of the rows");
            steps.add(&format!("clone-{percent}"), title, Group::Prepare, op);
        }
        let title = match percent {
            100 => "Measure the databases".to_owned(),
            percent => format!("Keep {percent} % of the rows of large tables"),
        };
        let op = Op::Shrink { instance: at.key(), source: whole.key(), percent: *percent };
        steps.add(&format!("shrink-{percent}"), title, Group::Prepare, op);
    }
    let mut last = "shrink-100".to_owned();
    for (percent, round, at) in &tries {
        let Some(source) = sources.get(percent) else { continue };
        last = timed(&mut steps, (source, at), &facts.migrate, &format!("{percent}-{round}"), &last);
    }
    let instances: Vec<&Instance> = sources.values().chain(tries.iter().map(|(_, _, at)| at)).collect();
    steps
        .add(
            "dispose",
            "Remove the clones",
            Group::After,
            Op::Dispose { instances: instances.iter().map(|at| at.key()).collect() },
        )
        .on_failure(OnFailure::Persist { attempts: 2 });
    // The last one is what the plan says it leads to.
    let all: Vec<&Instance> = [&common.production].into_iter().chain(instances).collect();
    let mut plan = common.plan(Procedure::Scaling, &all, steps);
    plan.to = facts.versions.clone();
    plan
}

/// One migration on a clone of a clone, which is removed again. Returns the last step.
fn timed(
    steps: &mut Steps,
    (source, at): (&Instance, &Instance),
    migrate: &[ServiceName],
    which: &str,
    after: &str,
) -> String {
    let mut last = after.to_owned();
    let mut add = |id: &str, title: String, group: Group, op: Op, undo: bool| {
        let id = format!("{id}-{which}");
        let step =
            steps.add(&id, title, group, op).on_failure(OnFailure::Continue).requires(&[last.as_str()]);
        if undo {
            step.reversible();
        }
        last = id;
    };
    let size = which.split('-').next().unwrap_or(which);
    let key = at.key();
    add(
        "prepare",
        format!("{size} %: prepare {key}"),
        Group::Prepare,
        Op::Prepare { instance: key.clone() },
        true,
    );
    let op = Op::Clone { from: source.key(), to: key.clone(), mode: CloneMode::Cold };
    add("clone", format!("{size} %: clone the data"), Group::Prepare, op, false);
    for service in migrate {
        let op = Op::Migrate { instance: key.clone(), service: service.clone(), source: source.key() };
        add(&format!("migrate-{service}"), format!("{size} %: migrate {service}"), Group::Switch, op, false);
    }
    add("start", format!("{size} %: start"), Group::Switch, Op::Start { instance: key.clone() }, true);
    add("stop", format!("{size} %: stop"), Group::After, Op::Stop { instance: key.clone() }, false);
    add("remove", format!("{size} %: remove the clone"), Group::After, Op::Remove { instance: key }, false);
    last
}
