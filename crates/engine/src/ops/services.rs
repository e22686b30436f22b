//! Preparing, migrating, starting, stopping and disposing of instances.

use super::{Context, Failed, grace};
use crate::error::{EngineError, io};
use crate::fault::{Gap, Way, gap};
use crate::home::create_dir;
use crate::runtime::migration_log;
use crate::scratch::Scratch;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use switchback_core::check::Artefact;
use switchback_core::duration::{Span, human_ms};
use switchback_core::egress::Egress;
use switchback_core::ids::{Digest, GenerationId, ServiceName};
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::{CloneMode, Op, Plan, Procedure};
use switchback_core::release::{FORMAT, Generation, Instance, Release};

/// Makes an instance's folder with its configuration files; records a production generation.
pub fn prepare(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let scratch = Scratch::create(context.home, &instance.dir)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let notes = context.staged(|stage| context.world.runtime.prepare(&at, &scratch, stage))?;
    if instance.is_production() {
        let generation = Generation {
            format: FORMAT,
            instance: instance.clone(),
            created_by: context.plan.run.clone(),
            created_at_ms: context.plan.made_at_ms,
            previous: before(context.plan, instance),
            adopted: context.plan.from_generation == Some(instance.generation),
        };
        context.home.save_generation(&generation)?;
    }
    if context.plan.procedure.switches() && instance.is_production() {
        context.world.data.prepare(&at)?;
    }
    Ok(Output { notes, ..Output::default() })
}

/// The generation that a new one would be rolled back to.
fn before(plan: &Plan, instance: &Instance) -> Option<GenerationId> {
    if plan.procedure == Procedure::ServiceRollback {
        return plan.steps.iter().find_map(|s| match s.op {
            Op::Flip { to, to_previous, .. } if to == instance.generation => to_previous,
            _ => None,
        });
    }
    plan.from_generation.filter(|g| *g != instance.generation)
}

/// Removes what `prepare` made. A production generation that was started may have been written to by users:
/// its writes are exported first, and it is kept if there are any, or if that cannot be told.
pub fn unprepare(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let mut output = Output::default();
    let Some(scratch) = Scratch::open(context.home, &instance.dir)? else {
        context.midway();
        return Ok(output);
    };
    // An adopted generation's data lies where the user put it: nothing of it is in this folder.
    let adopted = context.plan.procedure == Procedure::Up;
    if instance.is_production() && !adopted && scratch.path().join(STARTED).exists() {
        match super::data::export_writes(context, &instance.own()) {
            Ok(exported) => {
                let writes: u64 =
                    exported.exports.values().map(switchback_core::data::ExportStats::total).sum();
                output = exported;
                // A copy that no client reached is not a generation to go on with; its export has all there is.
                if writes > 0 && !instance.closed {
                    output.notes.push(format!("generation {} is kept", instance.generation));
                    return Ok(output);
                }
                let exports = context.home.export_dir(instance.generation);
                if exports.exists() && writes == 0 {
                    fs::remove_dir_all(&exports).map_err(io("remove", &exports))?;
                }
            }
            Err(e) => {
                output.notes.push(format!("generation {} is kept: {e}", instance.generation));
                return Ok(output);
            }
        }
    }
    keep_logs(context, instance, &mut output)?;
    context.midway();
    remove(context, instance, scratch)?;
    Ok(output)
}

/// Marks an instance whose services were started.
pub(super) const STARTED: &str = "started";

/// Starts all services in order and waits until each is healthy and stable.
pub fn start(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    if context.way == Way::Do {
        refuse_two_at_once(context, instance)?;
    }
    fs::write(context.home.instance_dir(instance).join(STARTED), b"")
        .map_err(io("write in", &context.home.instance_dir(instance)))?;
    let output = context.staged(|stage| context.world.runtime.start(&at, stage))?;
    let current = context.home.pointer()?.map(|p| p.current);
    if instance.is_production() && current == Some(instance.generation) {
        // What tells others which generation is production's may have been lost or edited.
        context.world.runtime.activated(&at)?;
    }
    Ok(output)
}

/// Refuses to start a production generation while another one is in use: after a reboot the engine or a person may have
/// started the old one again, and what was written to it since it was cloned would be lost.
fn refuse_two_at_once(context: &Context<'_>, instance: &Instance) -> Result<(), EngineError> {
    if !instance.is_production() {
        return Ok(());
    }
    let others = context.plan.instances.values();
    for other in others.filter(|i| i.is_production() && i.generation != instance.generation) {
        if let Some(found) = context.world.runtime.running(context.home, other)?.first() {
            return Err(EngineError::refused(
                format!("{found} runs on generation {} again, which was stopped", other.generation),
                "what was written to it since would be lost; find out what started it, and begin anew",
            ));
        }
    }
    Ok(())
}

/// Stops all services in reverse order.
pub fn stop(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let mut output = stop_instance(context, instance)?;
    keep_egress(context, instance, &mut output);
    Ok(output)
}

/// Collects what a staging instance tried to send. That it cannot be collected stops nothing, and is told.
fn keep_egress(context: &Context<'_>, instance: &Instance, output: &mut Output) {
    if instance.is_production() {
        return;
    }
    let collected = context
        .release(instance)
        .and_then(|release| context.world.runtime.egress(&context.placement(instance, &release)));
    output
        .egress
        .push(collected.unwrap_or_else(|e| Egress::not_observed(&instance.environment, e.to_string())));
}

fn stop_instance(context: &Context<'_>, instance: &Instance) -> Result<Output, EngineError> {
    let mut release = context.release(instance)?;
    let cut = grace::within_the_budget(context, instance, &mut release);
    let at = context.placement(instance, &release);
    let mut output = context.staged(|stage| context.world.runtime.stop(&at, stage))?;
    note_what_was_cut(&release, &cut, &mut output);
    Ok(output)
}

/// Tells of services that were killed before their own grace was over.
pub(super) fn note_what_was_cut(release: &Release, cut: &BTreeMap<ServiceName, Span>, output: &mut Output) {
    for (name, own) in cut {
        if let Some(service) = release.services.get(name)
            && output.services.get(name).is_some_and(|times| times.killed)
        {
            output.notes.push(format!(
                "{name} had {} of its grace time of {own}: stopping may take a third of `rollback.budget`",
                service.definition.stop.grace
            ));
        }
    }
}

/// Stops an instance whose data is thrown away next: nothing is gained by waiting for services that do not end.
fn stop_what_goes(context: &Context<'_>, instance: &Instance) -> Result<Output, EngineError> {
    let mut release = context.release(instance)?;
    grace::of_what_goes(&mut release);
    let at = context.placement(instance, &release);
    context.staged(|stage| context.world.runtime.stop(&at, stage))
}

/// Runs a service's migration command.
///
/// An interrupted migration may have left the data half changed, so a second attempt begins with a fresh clone.
pub fn migrate(context: &Context<'_>, key: &str, name: &ServiceName, source: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let placement = context.placement(instance, &release);
    let Some(service) = release.services.get(name).map(|s| &s.definition) else {
        return Err(EngineError::Internal { detail: format!("the release has no service {name}") }.into());
    };
    if context.attempt > 1 {
        // A migration that an earlier attempt left running must not go on beside this one.
        stop_instance(context, instance)?;
        super::data::clone(context, source, key, CloneMode::Cold)?;
        super::convert::again(context, key)?;
        super::trace::again(context, key)?;
    }
    context.say(&format!("migrating {name} to {}", service.version));
    let log = migration_log(&context.run_dir(), instance, name);
    let ran = context.staged(|stage| context.world.runtime.migrate(&placement, name, stage))?;
    let failed = |message: String, hint: &str, details: Vec<String>| {
        Failed::from(StepError { kind: ErrorKind::Refused, message, hint: Some(hint.to_owned()), details })
    };
    let text = ran.text;
    fs::write(&log, &text).map_err(io("write", &log))?;
    let last =
        || text.lines().rev().take(12).map(str::to_owned).collect::<Vec<_>>().into_iter().rev().collect();
    if ran.timed_out {
        return Err(failed(
            format!("the migration of {name} did not end within {}", service.migrate_deadline),
            "raise `migrate_deadline` if it only needs longer; its last output is below",
            last(),
        ));
    }
    if !ran.success {
        return Err(failed(
            format!("the migration of {name} failed: {}", ran.how),
            "its last output is below",
            last(),
        ));
    }
    let mut output = Output::default();
    output.notes.push(format!("{name}: {}", human_ms(ran.took_ms)));
    output.artefacts.extend(artefact(context, &log, format!("Output of the migration of {name}")));
    Ok(output)
}

/// Describes a file of the run's folder as evidence.
pub fn artefact(context: &Context<'_>, path: &Path, title: String) -> Option<Artefact> {
    let bytes = fs::read(path).ok()?;
    let relative = path.strip_prefix(context.run_dir()).ok()?;
    Some(Artefact {
        title,
        path: relative.to_string_lossy().into_owned(),
        blake3: Digest::of(&bytes).0,
        bytes: bytes.len() as u64,
    })
}

/// Confirms that exactly this instance runs. Ports and processes may need a moment to settle.
pub fn read_back(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match context.world.runtime.read_back(&at)? {
            Ok(read_back) => {
                context.midway();
                return Ok(Output { read_back, ..Output::default() });
            }
            Err(differences) if Instant::now() >= deadline => {
                return Err(StepError {
                    kind: ErrorKind::Refused,
                    message: format!("what runs is not {}: {}", instance.key(), differences.join("; ")),
                    hint: None,
                    details: Vec::new(),
                }
                .into());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Copies the services' logs into the run's folder before the instance goes away.
pub(super) fn keep_logs(
    context: &Context<'_>,
    instance: &Instance,
    output: &mut Output,
) -> Result<(), EngineError> {
    let Ok(release) = context.release(instance) else { return Ok(()) };
    let placement = context.placement(instance, &release);
    let dir = context.run_dir().join("logs");
    create_dir(&dir)?;
    for name in release.services.keys() {
        // The end of a log tells why; 256 KiB of it is enough and bounded.
        let lines = context.world.runtime.log(&placement, name, 256 << 10);
        if lines.is_empty() {
            continue;
        }
        let kept = dir.join(format!("{}-g{}-{name}.log", instance.environment, instance.generation));
        fs::write(&kept, lines.join("\n")).map_err(io("write", &kept))?;
        output.artefacts.extend(artefact(
            context,
            &kept,
            format!("Log of {name} in {} (generation {})", instance.environment, instance.generation),
        ));
    }
    Ok(())
}

/// Removes a scratch instance: what the runtime keeps of it, its data, its folder.
pub(super) fn remove(
    context: &Context<'_>,
    instance: &Instance,
    scratch: Scratch,
) -> Result<(), EngineError> {
    context.world.runtime.discard(context.home, instance)?;
    context.world.data.discard(context.home, instance, &scratch)?;
    if gap(Gap::Disposal) && !instance.is_production() {
        return Ok(());
    }
    let parent = scratch.path().parent().map(Path::to_owned);
    scratch.remove()?;
    if let Some(parent) = parent.filter(|_| !instance.is_production()) {
        // The environment's folder, once it is empty.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Stops and removes one staging instance, if it is there.
fn one_less(context: &Context<'_>, instance: &Instance, output: &mut Output) -> Result<(), EngineError> {
    if Scratch::open(context.home, &instance.dir)?.is_none() {
        return Ok(());
    }
    stop_what_goes(context, instance)?;
    keep_logs(context, instance, output)?;
    keep_egress(context, instance, output);
    if let Some(scratch) = Scratch::open(context.home, &instance.dir)? {
        remove(context, instance, scratch)?;
    }
    Ok(())
}

/// Stops and removes one staging instance of several.
pub fn remove_one(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let mut output = Output::default();
    one_less(context, context.instance(key)?, &mut output)?;
    context.midway();
    Ok(output)
}

/// Stops and removes staging instances, and confirms that nothing is left of them.
pub fn dispose(context: &Context<'_>, keys: &[String]) -> Result<Output, Failed> {
    let mut output = Output::default();
    for key in keys {
        one_less(context, context.instance(key)?, &mut output)?;
        context.midway();
    }
    // The folder of the run, or of the environment: `staging/NAME`.
    let mut folders = BTreeSet::from([format!("staging/{}", context.plan.run)]);
    for key in keys {
        folders.extend(context.instance(key)?.dir.split('/').nth(1).map(|name| format!("staging/{name}")));
    }
    let mut left = Vec::new();
    for below in &folders {
        left.extend(context.world.runtime.left_below(context.home, below, &[])?);
        let folder = context.home.state().join(below);
        if folder.exists() && !gap(Gap::Disposal) {
            fs::remove_dir_all(&folder).map_err(io("remove", &folder))?;
        }
    }
    let temp = context.run_dir().join("tmp");
    if temp.exists() {
        fs::remove_dir_all(&temp).map_err(io("remove", &temp))?;
    }
    if !left.is_empty() {
        return Err(EngineError::Internal {
            detail: format!("of the staging environments is left: {}", left.join(", ")),
        }
        .into());
    }
    output
        .read_back
        .push("nothing of the staging environments is left: no service, port, data or folder".to_owned());
    Ok(output)
}
