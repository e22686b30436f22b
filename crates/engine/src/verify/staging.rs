//! What the rehearsal proves about staging environments.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use crate::runtime::process::cell;
use std::collections::BTreeSet;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::config::RuntimeKind;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::journal::StepResult;
use switchback_core::plan::Group;
use switchback_core::release::{Instance, MountPlace, StorePlace};
use switchback_core::report::StepStatus;

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let ran = lab.rehearsed()?.clone();
    for proof in [
        deployed(&ran),
        provisioned(&ran),
        synchronised(lab, &ran)?,
        isolated(lab, &ran)?,
        attacked(lab, &ran),
        health(&ran),
    ] {
        lab.add(proof);
    }
    super::environment::prove(lab)?;
    super::backups::prove(lab)
}

/// How a step of a run went.
pub fn status(ran: &Ran, step: &str) -> Option<StepStatus> {
    ran.report.steps.iter().find(|s| s.id == step).map(|s| s.status)
}

fn deployed(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "staging.deployed",
        "every service of the old and of the new version became healthy and stayed so; what runs was read back",
    )
    .of_run(&ran.plan.run);
    for step in ["start-baseline", "start-old", "start-new", "read-back-new"] {
        let title = ran.report.steps.iter().find(|s| s.id == step).map_or(step, |s| &s.title).to_owned();
        let error = ran.report.steps.iter().find(|s| s.id == step).and_then(|s| s.error.as_ref());
        let why = error.map_or_else(|| "it was not done".to_owned(), |e| e.message.clone());
        // A rollback rehearsal undoes nothing of these, but a disposed environment counts as started.
        let done = matches!(status(ran, step), Some(StepStatus::Done | StepStatus::Undone));
        proof.demand(done, title, why);
        if let Some(output) = ran.state.output(&step.into()) {
            for (service, times) in &output.services {
                if let Some(ms) = times.healthy_after_ms {
                    proof.measure(format!("{service} healthy ({step})"), format!("after {}", human_ms(ms)));
                }
            }
        }
    }
    proof
}

fn provisioned(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "staging.provisioned",
        "every step up to the running baseline was done by the program, at the first attempt",
    )
    .of_run(&ran.plan.run);
    let steps = || ran.report.steps.iter().filter(|s| matches!(s.group, Group::Prepare | Group::Baseline));
    let took: u64 = steps().filter_map(|s| s.took_ms).sum();
    proof.measure("steps", steps().count()).measure("manual steps", 0).measure("time", human_ms(took));
    for step in steps() {
        proof.demand(step.status == StepStatus::Done, &step.title, "it was not done");
        proof.demand(step.attempts <= 1, &step.title, format!("it took {} attempts", step.attempts));
    }
    proof
}

fn synchronised(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "staging.synchronised",
        "store by store, the environments' fingerprints equal the live snapshot's, and the snapshot's that of the running stack it was taken of",
    )
    .of_run(&ran.plan.run);
    let sandbox = lab.sandbox()?;
    let how = if sandbox.live { "while production ran" } else { "production was not running" };
    proof.measure("snapshot of production", how);
    for (name, stats) in &sandbox.copies {
        proof.measure(
            format!("{name}, copied from production"),
            format!(
                "{} in {} files, {}, writers waited {}",
                human_bytes(stats.bytes),
                stats.files.max(1),
                human_ms(stats.took_ms),
                human_ms(stats.writers_waited_ms)
            ),
        );
        for note in stats.notes.iter().filter(|n| n.contains("torn")) {
            proof.doubt(format!("{name}: {note}"));
        }
    }
    let taken = ran.state.output(&"fingerprint-snapshot".into()).map(|o| &o.fingerprints);
    let cloned = ran.state.output(&"verify-clone".into()).map(|o| &o.fingerprints);
    let (Some(taken), Some(cloned)) = (taken, cloned) else {
        proof.doubt("the fingerprints were not taken");
        return Ok(proof);
    };
    for (name, fingerprint) in taken {
        proof.measure(
            format!("{name}, fingerprint"),
            format!(
                "{} ({} items, {})",
                fingerprint.digest.short(),
                fingerprint.items,
                human_bytes(fingerprint.bytes)
            ),
        );
        let equal = cloned.get(name).is_some_and(|c| c.digest == fingerprint.digest);
        proof.demand(equal, name.as_str(), "the clone differs from the snapshot");
        let live = lab.cloned_from.as_ref().map(|[b, a]| (b.get(name), a.get(name)));
        match live {
            Some((Some(before), Some(after))) if before.digest == after.digest => {
                let left_out = lab.config.stores.get(name).map_or(&[][..], |s| &s.leave_out[..]);
                match before.equals_copy_without(fingerprint, left_out) {
                    Some(same) => {
                        let why = "the live snapshot differs from what it was taken of";
                        proof.demand(same, name.as_str(), why);
                    }
                    None => {
                        let why = "it has too many files to tell whether only what is left out is missing";
                        proof.doubt(format!("{name}: {why}"));
                    }
                }
            }
            _ => {
                let what = "written meanwhile; the snapshot is one state in between";
                proof.measure(format!("{name}, source"), what);
            }
        }
    }
    if taken.is_empty() {
        proof.not_run("the stack has no data yet");
    }
    Ok(proof)
}

/// Where a store's data lies, in a word that differs between places.
fn place_of(place: &StorePlace) -> String {
    match place.mount.as_ref().map(|m| &m.at) {
        None => place.path.clone(),
        Some(MountPlace::Volume(name)) => format!("the volume {name}"),
        Some(MountPlace::Dir(path)) => path.clone(),
    }
}

fn isolated(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let many = lab.ground.words().many;
    let mut proof = Proof::new(
        "staging.isolated",
        format!(
            "no port, folder or store of an environment is production's or another's; {many} of it reach nothing of production's data or state; release artefacts, configuration files and definitions are production's"
        ),
    )
    .of_run(&ran.plan.run);
    let staging: Vec<&Instance> = ran.plan.instances.values().filter(|i| !i.is_production()).collect();
    let ports = |i: &Instance| -> BTreeSet<u16> {
        i.ports.values().flat_map(|p| p.values().copied()).filter(|p| *p != 0).collect()
    };
    // A container's own ports are no ports of this host; what runs says which are.
    let mut others: BTreeSet<u16> = match lab.config.runtime {
        RuntimeKind::Process => {
            lab.config.services.values().flat_map(|s| s.ports.values().copied()).collect()
        }
        RuntimeKind::Compose => lab.sandbox()?.production.iter().flat_map(ports).collect(),
    };
    others.extend(ran.plan.instances.values().filter(|i| i.is_production()).flat_map(ports));
    let mut taken: BTreeSet<String> = lab.sandbox()?.places.values().map(place_of).collect();
    let running = ran.plan.instances.values().filter(|i| i.is_production());
    taken.extend(running.flat_map(|i| i.stores.values()).map(place_of));
    for instance in &staging {
        let key = instance.key();
        proof.demand(ports(instance).is_disjoint(&others), &key, "it shares a port with production");
        let below = format!("/{}/", instance.dir);
        let mut own_places = BTreeSet::new();
        for (name, place) in &instance.stores {
            let lies = place_of(place);
            let own = (place.mount.is_some() || lies.contains(&below)) && !taken.contains(&lies);
            proof.demand(own, format!("{key}, {name}"), format!("its data lies in {lies}"));
            own_places.insert(lies);
        }
        // Two stores of one instance may lie on one volume; two instances never share one.
        taken.extend(own_places);
        let list: Vec<String> = ports(instance).iter().map(ToString::to_string).collect();
        proof.measure(format!("{key}, ports"), list.join(", "));
    }
    let folders: BTreeSet<&str> = staging.iter().map(|i| i.dir.as_str()).collect();
    proof.demand(folders.len() == staging.len(), "folders", "two environments share one");
    match &lab.sight.error {
        Some(e) => {
            proof.doubt(format!("the {many} could not be looked at: {e}"));
        }
        None if lab.sight.looked == 0 => {
            proof.doubt(format!("no {many} of the environments were seen while the checks ran"));
        }
        None => {
            proof.measure(format!("{many} looked at"), lab.sight.looked);
            proof.measure("what of production they could reach", lab.sight.open.len());
            proof.demand(lab.sight.open.is_empty(), many, lab.sight.open.join("; "));
        }
    }
    same_definition(lab, ran, &mut proof)?;
    Ok(proof)
}

/// What the rehearsal's attack from inside an environment came to.
fn attacked(lab: &Lab<'_>, ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "isolation.attacks",
        "no attempt from inside an environment reached production, the host, the metadata address or the internet",
    )
    .of_run(&ran.plan.run);
    let attack = ran.report.checks.iter().find(|c| c.kind == CheckKind::Isolation);
    match (lab.config.runtime, attack) {
        (RuntimeKind::Process, None) => {
            let why = cell::open_because(&lab.config.staging).unwrap_or_else(|| "nobody attacked".to_owned());
            proof.not_run(format!("local processes share the host's network: {why}"));
        }
        (RuntimeKind::Compose, None) => {
            proof.doubt("no attack from inside was made");
        }
        (_, Some(check)) => {
            let reached = check.steps.iter().filter(|s| !s.ok);
            let list: Vec<&str> = reached.map(|s| s.name.as_str()).collect();
            proof.measure(
                "attempts from inside to reach production, the host and the world",
                check.steps.len(),
            );
            proof.measure("of these that reached something", list.len());
            match &check.verdict {
                Verdict::Inconclusive { why } => {
                    proof.doubt(format!("the attack from inside says nothing: {why}"));
                }
                verdict => {
                    let passed = *verdict == Verdict::Pass && !check.steps.is_empty();
                    proof.demand(passed, "attack from inside", format!("reached: {}", list.join(", ")));
                }
            }
        }
    }
    proof
}

/// Compares what ran in staging with what production runs: artefacts or images, and configuration files by digest.
fn same_definition(lab: &Lab<'_>, ran: &Ran, proof: &mut Proof) -> Result<(), Stop> {
    let sandbox = lab.sandbox()?;
    let Some(production) = &sandbox.production else {
        proof.measure("definition", "production is not run by Switchback; the stack's files were taken");
        return Ok(());
    };
    let Some(old) = ran.plan.instance("candidate/1") else {
        proof.doubt("the plan names no candidate");
        return Ok(());
    };
    let (real, copy) = (lab.production.release(&production.release)?, sandbox.home.release(&old.release)?);
    lab.ground.same_definition((lab.production, production, &real), (&sandbox.home, old, &copy), proof)?;
    proof.demand(copy.config == real.config, "configuration files", "they differ from production's");
    proof.measure("configuration files equal to production's", real.config.len());
    Ok(())
}

fn health(ran: &Ran) -> Proof {
    let mut proof = Proof::new("staging.health", "every service's health check passed in both environments")
        .of_run(&ran.plan.run);
    let checks = ran.report.checks.iter().filter(|c| c.kind == CheckKind::Health);
    for environment in ["baseline", "candidate"] {
        let seen: Vec<_> = checks.clone().filter(|c| c.environment == environment).collect();
        let passed = seen.iter().filter(|c| c.verdict == Verdict::Pass).count();
        proof.measure(environment, format!("{passed} of {} healthy", seen.len()));
        if seen.is_empty() {
            let started = ran.state.steps.get(&"start-new".into()).and_then(|s| s.result.as_ref());
            match started {
                Some(StepResult::Failed(error, _)) if environment == "candidate" => {
                    proof.demand(false, environment, &error.message)
                }
                _ => proof.doubt(format!("no health check ran in {environment}")),
            };
        } else {
            proof.demand(passed == seen.len(), environment, "a service was not healthy");
        }
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{check, failed, ran, step};
    use super::*;
    use switchback_core::plan::Procedure;

    const STARTS: [&str; 4] = ["start-baseline", "start-old", "start-new", "read-back-new"];

    #[test]
    fn a_service_that_did_not_start_or_a_step_that_did_not_work_at_once_fails_its_row() {
        let mut good = ran(Procedure::Rehearse);
        good.report.steps = STARTS.map(|id| step(id, Group::Baseline, StepStatus::Done, 1)).into();
        assert_eq!(deployed(&good).verdict().word(), "pass");
        assert_eq!(provisioned(&good).verdict().word(), "pass");
        for (number, id) in STARTS.iter().enumerate() {
            let mut bad = good.clone();
            bad.report.steps[number].status = StepStatus::Failed;
            assert_eq!(deployed(&bad).verdict().word(), "fail", "{id}");
            assert_eq!(provisioned(&bad).verdict().word(), "fail", "{id}");
            bad.report.steps.remove(number);
            assert_eq!(deployed(&bad).verdict().word(), "fail", "{id} is not in the report");
        }
        let mut again = good.clone();
        again.report.steps[0].attempts = 2;
        assert_eq!(provisioned(&again).verdict().word(), "fail", "somebody had to help");
    }

    #[test]
    fn a_service_that_is_not_healthy_fails_its_row() {
        let mut seen = ran(Procedure::Rehearse);
        let well = |environment| check(CheckKind::Health, environment, Verdict::Pass);
        seen.report.checks = vec![well("baseline"), well("candidate")];
        assert_eq!(health(&seen).verdict().word(), "pass");
        for environment in ["baseline", "candidate"] {
            let mut bad = seen.clone();
            bad.report.checks.push(failed(CheckKind::Health, environment));
            assert_eq!(health(&bad).verdict().word(), "fail", "{environment}");
        }
        seen.report.checks.pop();
        assert_eq!(health(&seen).verdict().word(), "inconclusive", "nobody looked at the candidate");
    }
}
