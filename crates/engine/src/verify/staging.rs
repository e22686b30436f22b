//! What the rehearsal proves about staging environments.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use std::collections::BTreeSet;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::journal::StepResult;
use switchback_core::plan::Group;
use switchback_core::release::Instance;
use switchback_core::report::StepStatus;

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let ran = lab.rehearsed()?.clone();
    for proof in
        [deployed(&ran), provisioned(&ran), synchronised(lab, &ran)?, isolated(lab, &ran)?, health(&ran)]
    {
        lab.add(proof);
    }
    Ok(())
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
    for (name, (_, stats)) in &sandbox.copies {
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
                let same = before.digest == fingerprint.digest;
                proof.demand(same, name.as_str(), "the live snapshot differs from what it was taken of");
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

fn isolated(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "staging.isolated",
        "no port, folder or store of an environment is production's or another's; no process of it has a file of production's data or state open; release artefacts, configuration files and definitions are production's",
    )
    .of_run(&ran.plan.run);
    let staging: Vec<&Instance> = ran.plan.instances.values().filter(|i| !i.is_production()).collect();
    let ports = |i: &Instance| i.ports.values().flat_map(|p| p.values().copied()).collect::<BTreeSet<u16>>();
    let mut others: BTreeSet<u16> =
        lab.config.services.values().flat_map(|s| s.ports.values().copied()).collect();
    others.extend(ran.plan.instances.values().filter(|i| i.is_production()).flat_map(ports));
    let real: BTreeSet<String> = lab.sandbox()?.copies.values().map(|(p, _)| p.path.clone()).collect();
    for instance in &staging {
        let key = instance.key();
        proof.demand(ports(instance).is_disjoint(&others), &key, "it shares a port with production");
        let below = format!("/{}/", instance.dir);
        for (name, place) in &instance.stores {
            let own = place.path.contains(&below) && !real.contains(&place.path);
            proof.demand(own, format!("{key}, {name}"), format!("its data lies in {}", place.path));
        }
        let list: Vec<String> = ports(instance).iter().map(ToString::to_string).collect();
        proof.measure(format!("{key}, ports"), list.join(", "));
    }
    let folders: BTreeSet<&str> = staging.iter().map(|i| i.dir.as_str()).collect();
    proof.demand(folders.len() == staging.len(), "folders", "two environments share one");
    match &lab.sight.error {
        Some(e) => {
            proof.doubt(format!("the open files could not be looked at: {e}"));
        }
        None if lab.sight.processes == 0 => {
            proof.doubt("no process of the environments was seen while the checks ran");
        }
        None => {
            proof.measure("processes looked at", lab.sight.processes);
            proof.measure("files of production they had open", lab.sight.open.len());
            proof.demand(lab.sight.open.is_empty(), "open files", lab.sight.open.join("; "));
        }
    }
    same_definition(lab, ran, &mut proof)?;
    Ok(proof)
}

/// Compares what ran in staging with what production runs: artefacts and configuration files by digest.
fn same_definition(lab: &Lab<'_>, ran: &Ran, proof: &mut Proof) -> Result<(), Stop> {
    let sandbox = lab.sandbox()?;
    let Some(real) = &sandbox.production else {
        proof.measure("definition", "production is not run by Switchback; switchback.yaml was taken");
        return Ok(());
    };
    let Some(old) = ran.plan.instance("candidate/1") else {
        proof.doubt("the plan names no candidate");
        return Ok(());
    };
    let (real, copy) = (lab.production.release(&real.release)?, sandbox.home.release(&old.release)?);
    for (name, service) in &real.services {
        let digest = |r: &switchback_core::release::Release| {
            r.services.get(name).and_then(|s| s.artefact.as_ref()).map(|a| a.digest.clone())
        };
        proof.demand(digest(&copy) == digest(&real), name.as_str(), "another artefact runs in staging");
        let definition = copy.services.get(name).map(|s| &s.definition);
        let same = definition.is_some_and(|d| {
            let real = &service.definition;
            d.version == real.version
                && d.command.len() == real.command.len()
                && d.env.keys().eq(real.env.keys())
                && d.ports.keys().eq(real.ports.keys())
                && d.health == real.health
                && d.stop == real.stop
                && d.needs == real.needs
        });
        proof.demand(same, name.as_str(), "its definition differs by more than ports and paths");
    }
    proof.demand(copy.config == real.config, "configuration files", "they differ from production's");
    proof
        .measure("artefacts equal to production's", real.services.len())
        .measure("configuration files equal to production's", real.config.len());
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
