//! The plan of an upgrade in several steps, tried one after the other on clones.

use super::backup::{ArchiveFacts, Ports};
use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps};
use crate::ids::{Digest, ServiceName};
use crate::release::{Instance, describe_change};
use std::collections::BTreeMap;

/// One version on the way.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Its release.
    pub release: Digest,
    /// Its versions.
    pub versions: BTreeMap<ServiceName, String>,
    /// Free ports, named as the release's.
    pub ports: Ports,
    /// Services with a migration command whose version changes here, in order.
    pub migrate: Vec<ServiceName>,
}

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct PathFacts {
    /// What is common with a backup: production as it is.
    pub common: ArchiveFacts,
    /// The versions on the way, the last one is where it leads.
    pub hops: Vec<Hop>,
}

/// Brings a clone of production from version to version; each is started, its data compared and its checks run. Nothing after a
/// step that fails is tried.
pub fn path(facts: &PathFacts) -> Plan {
    let common = &facts.common;
    let mut instances = vec![common.beside(&common.production, "hop0", 1, &common.ports)];
    for (number, hop) in facts.hops.iter().enumerate() {
        let like = Instance {
            release: hop.release.clone(),
            versions: hop.versions.clone(),
            ..common.production.clone()
        };
        instances.push(common.beside(&like, &format!("hop{}", number + 1), 1, &hop.ports));
    }
    let keys: Vec<String> = instances.iter().map(Instance::key).collect();
    let mut steps = Steps::new();
    for (number, key) in keys.iter().enumerate() {
        let need_bytes = if number == 0 { common.need_bytes } else { 0 };
        let op = Op::Preflight { target: key.clone(), need_bytes };
        let title = "Check disk space, artefacts and ports";
        steps.add(&format!("preflight-{number}"), title, Group::Prepare, op);
    }
    for (number, key) in keys.iter().enumerate() {
        let op = Op::Prepare { instance: key.clone() };
        steps.add(&format!("prepare-{number}"), format!("Prepare {key}"), Group::Prepare, op).reversible();
    }
    let (mode, title) = if common.production_runs {
        (CloneMode::Live, "Clone production's data while it runs")
    } else {
        (CloneMode::Cold, "Clone production's data")
    };
    let op = Op::Clone { from: common.production.key(), to: keys[0].clone(), mode };
    steps.add("snapshot", title, Group::Prepare, op);
    let op = Op::Start { instance: keys[0].clone() };
    steps.add("start-0", "Start the present version", Group::Baseline, op).reversible();
    let op = Op::Stop { instance: keys[0].clone() };
    steps.add("stop-0", "Stop it", Group::Baseline, op);
    let mut done = "stop-0".to_owned();
    for (number, pair) in instances.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        done = hop(&mut steps, number + 1, (before, after), &facts.hops[number].migrate, &done);
    }
    steps
        .add("dispose", "Remove the clones", Group::After, Op::Dispose { instances: keys })
        .on_failure(OnFailure::Persist { attempts: 2 });
    let all: Vec<&Instance> = [&common.production].into_iter().chain(&instances).collect();
    common.plan(Procedure::Path, &all, steps)
}

/// The steps of one version. Returns the last one.
fn hop(
    steps: &mut Steps,
    number: usize,
    (before, after): (&Instance, &Instance),
    migrate: &[ServiceName],
    done: &str,
) -> String {
    let (old, new) = (before.key(), after.key());
    let change = describe_change(&before.versions, &after.versions);
    let mut last = done.to_owned();
    let mut add = |id: &str, title: String, group: Group, op: Op, undo: bool| {
        let id = format!("{id}-{number}");
        let step =
            steps.add(&id, title, group, op).on_failure(OnFailure::Continue).requires(&[last.as_str()]);
        if undo {
            step.reversible();
        }
        last = id;
    };
    let op = Op::Clone { from: old.clone(), to: new.clone(), mode: CloneMode::Cold };
    add("clone", format!("{change}: clone the data"), Group::Switch, op, false);
    for service in migrate {
        let op = Op::Migrate { instance: new.clone(), service: service.clone(), source: old.clone() };
        add(&format!("migrate-{service}"), format!("{change}: migrate"), Group::Switch, op, false);
    }
    let op = Op::Start { instance: new.clone() };
    add("start", format!("{change}: start"), Group::Switch, op, true);
    let op = Op::ReadBack { instance: new.clone() };
    add("read-back", format!("{change}: read back what runs"), Group::Check, op, false);
    let op = Op::Diff { before: old, after: new.clone() };
    add("diff", format!("{change}: compare the data"), Group::Check, op, false);
    let op = Op::Check { instances: vec![new.clone()], phase: CheckPhase::AfterRollback };
    add("checks", format!("{change}: run the checks"), Group::Check, op, false);
    add("stop", format!("{change}: stop"), Group::Check, Op::Stop { instance: new }, false);
    last
}
