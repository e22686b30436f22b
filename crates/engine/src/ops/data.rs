//! Cloning, fingerprinting and exporting the stores of instances.

use super::{Context, Failed};
use crate::data::Work;
use crate::engine::Notice;
use crate::error::{EngineError, io};
use crate::fault::{Gap, gap};
use crate::home::create_dir;
use crate::left::COMPLETE;
use crate::scratch::Scratch;
use crate::store::Progress;
use std::collections::BTreeMap;
use std::path::PathBuf;
use switchback_core::ids::{GenerationId, StepId, StoreName};
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::{CloneMode, Op};
use switchback_core::release::Instance;

/// A folder for private copies while reading cold stores; emptied with the run.
pub fn temp_dir(context: &Context<'_>) -> Result<PathBuf, EngineError> {
    let dir = context.run_dir().join("tmp");
    create_dir(&dir)?;
    Ok(dir)
}

/// Calls with a progress that tells the observer and honours a cancellation.
pub fn with_progress<T>(context: &Context<'_>, what: &str, work: impl FnOnce(&Progress<'_>) -> T) -> T {
    let cancelled = || context.cancel.requested();
    let report = |done, total| (context.observe)(&Notice::Doing { text: what, done, total });
    work(&Progress { cancel: &cancelled, report: &report })
}

pub(super) fn must_be_cold(context: &Context<'_>, instance: &Instance) -> Result<(), EngineError> {
    match context.world.runtime.running(context.home, instance)?.first() {
        None => Ok(()),
        Some(found) => Err(EngineError::Internal {
            detail: format!("{found} still runs on {}, whose data must not change now", instance.key()),
        }),
    }
}

pub(super) fn scratch_of(context: &Context<'_>, instance: &Instance) -> Result<Scratch, EngineError> {
    Scratch::open(context.home, &instance.dir)?
        .ok_or_else(|| EngineError::Internal { detail: format!("{} was not prepared", instance.key()) })
}

/// Calls with everything that work on data needs.
pub fn working<T>(
    context: &Context<'_>,
    what: &str,
    work: impl FnOnce(&Work<'_>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let temp = temp_dir(context)?;
    with_progress(context, what, |progress| {
        context.staged(|stage| work(&Work { stage: *stage, progress, temp: &temp }))
    })
}

/// Copies ahead what a later clone can take over.
pub fn precopy(context: &Context<'_>, from: &str, to: &str) -> Result<Output, Failed> {
    let (source, target) = (context.instance(from)?, context.instance(to)?);
    let (old, new) = (context.release(source)?, context.release(target)?);
    let (from, to) = (context.placement(source, &old), context.placement(target, &new));
    let scratch = scratch_of(context, target)?;
    Ok(working(context, "copying ahead", |w| context.world.data.precopy(&from, &to, &scratch, w))?)
}

/// Where the next step stops what the one after it clones: gets that ready. Its time is this step's, not of the outage, and a
/// failure costs no more than time.
pub fn foresee(context: &Context<'_>) {
    let steps = &context.plan.steps;
    let next = steps.iter().position(|s| s.id == context.step.id).and_then(|at| steps.get(at + 1..));
    let Some([stop, clone, rest @ ..]) = next else { return };
    let (Op::Stop { instance }, Op::Clone { from, to, mode: CloneMode::Cold }) = (&stop.op, &clone.op) else {
        return;
    };
    let ready = || -> Result<(), EngineError> {
        let (source, target) = (context.instance(from)?, context.instance(to)?);
        if instance != from || !source.is_production() {
            return Ok(());
        }
        let (old, new) = (context.release(source)?, context.release(target)?);
        let (from, at) = (context.placement(source, &old), context.placement(target, &new));
        let down = rest.iter().take_while(|s| !matches!(s.op, Op::Start { .. }));
        let base = down.map(|s| &s.op).any(|op| matches!(op, Op::Base { source, .. } if source == to));
        context.world.data.get_ready(&from, &at, base)
    };
    let _ = ready();
}

/// Ends what goes on after [`precopy`]; what was copied is removed with the instance.
pub fn forget_precopy(context: &Context<'_>, from: &str, to: &str) -> Result<Output, Failed> {
    let (source, target) = (context.instance(from)?, context.instance(to)?);
    let (old, new) = (context.release(source)?, context.release(target)?);
    let (from, to) = (context.placement(source, &old), context.placement(target, &new));
    Ok(context.staged(|stage| context.world.data.forget_precopy(&from, &to, stage))?)
}

/// Clones all stores of one instance into another.
pub fn clone(context: &Context<'_>, from: &str, to: &str, mode: CloneMode) -> Result<Output, Failed> {
    let (source, target) = (context.instance(from)?, &context.instance(to)?.own());
    if mode == CloneMode::Cold {
        must_be_cold(context, source)?;
    }
    let source = &source.with_stores_of(target);
    let (old, new) = (context.release(source)?, context.release(target)?);
    let (from, to) = (context.placement(source, &old), context.placement(target, &new));
    let scratch = scratch_of(context, target)?;
    Ok(working(context, "cloning", |w| context.world.data.clone(&from, &to, mode, &scratch, w))?)
}

/// Keeps a clone of an instance's stores beside it.
pub fn base(context: &Context<'_>, instance: &str, source: &str) -> Result<Output, Failed> {
    let (instance, source) = (&context.instance(instance)?.own(), context.instance(source)?);
    must_be_cold(context, source)?;
    let source = &source.with_stores_of(instance);
    let (own, old) = (context.release(instance)?, context.release(source)?);
    let (beside, from) = (context.placement(instance, &own), context.placement(source, &old));
    let scratch = scratch_of(context, instance)?;
    let what = "keeping a clone";
    Ok(working(context, what, |w| context.world.data.keep_base(&from, &beside, &scratch, w))?)
}

/// Takes fingerprints, and compares them with earlier ones where asked.
pub fn fingerprint(
    context: &Context<'_>,
    instance: &str,
    mode: CloneMode,
    equal_to: Option<&StepId>,
) -> Result<Output, Failed> {
    let instance = context.instance(instance)?;
    if mode == CloneMode::Cold {
        must_be_cold(context, instance)?;
    }
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let mut output = Output::default();
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        let found = working(context, "reading", |w| context.world.data.fingerprint(&at, name, mode, w))?;
        output.notes.push(format!("{name}: {} items, fingerprint {}", found.items, found.digest.short()));
        output.fingerprints.insert(name.clone(), found);
    }
    context.midway();
    if let Some(step) = equal_to {
        let before = context.state.output(step).map(|o| o.fingerprints.clone()).unwrap_or_default();
        let differing = differing(&before, &output.fingerprints);
        if !differing.is_empty() {
            let error = StepError {
                kind: ErrorKind::Refused,
                message: format!(
                    "the data of {} differs from what {step} saw: {}",
                    instance.key(),
                    differing.join(", ")
                ),
                hint: Some("something wrote to data that must not change".to_owned()),
                details: Vec::new(),
            };
            return Err(Failed { error, output: Box::new(output) });
        }
        output.notes.push(format!("equal to {step}"));
    }
    Ok(output)
}

/// Stores whose fingerprints differ, with some of the parts that do.
pub(crate) fn differing(
    before: &BTreeMap<StoreName, switchback_core::data::Fingerprint>,
    after: &BTreeMap<StoreName, switchback_core::data::Fingerprint>,
) -> Vec<String> {
    let mut names: Vec<&StoreName> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let (Some(a), Some(b)) = (before.get(name), after.get(name)) else {
            found.push(name.to_string());
            continue;
        };
        if a.digest != b.digest {
            let parts: Vec<&str> = b
                .parts
                .iter()
                .filter(|(part, content)| a.parts.get(*part) != Some(content))
                .map(|(part, _)| part.as_str())
                .take(5)
                .collect();
            found.push(if parts.is_empty() {
                name.to_string()
            } else {
                format!("{name} ({})", parts.join(", "))
            });
        }
    }
    found
}

/// Exports what was written to an abandoned generation.
pub fn export(context: &Context<'_>, abandoned: &str) -> Result<Output, Failed> {
    let instance = context.instance(abandoned)?;
    // Where single services went back, the others go on with its other stores.
    let parted =
        |i: &&Instance| i.is_production() && i.generation != instance.generation && !i.shared.is_empty();
    let others = || context.plan.instances.values().filter(parted);
    let next = others()
        .find(|i| i.shared.generations().contains(&instance.generation))
        .or_else(|| others().find(|i| Some(i.generation) == context.plan.to_generation));
    let instance = &match next {
        None => {
            must_be_cold(context, instance)?;
            instance.clone()
        }
        Some(next) => {
            let left = instance.without_places_of(next);
            super::apart::must_be_stopped(context, &left, &super::apart::own_services(next))?;
            left
        }
    };
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    if context.home.generation(instance.generation)?.adopted && !context.world.data.has_base(&at)? {
        // The stack as it was taken over: it was never promoted, and nothing ever removes its data.
        let note = format!(
            "generation {} lies where the stack's own data does, and stays there",
            instance.generation
        );
        return Ok(Output { notes: vec![note], ..Output::default() });
    }
    Ok(export_writes(context, instance).map_err(|e| not_exported(&e, instance.generation))?)
}

/// What to do about an export that failed, besides removing its cause.
fn not_exported(error: &EngineError, left: GenerationId) -> StepError {
    let mut said = error.to_step_error();
    if !matches!(error, EngineError::Refused { .. }) {
        let again = format!(
            "`switchback export {left}` does it again when the cause is gone; generation {left} is kept until then"
        );
        said.hint = Some(said.hint.map_or_else(|| again.clone(), |hint| format!("{hint}; {again}")));
    }
    said
}

/// Exports the difference between an instance's stores and the clone kept beside it.
pub fn export_writes(context: &Context<'_>, instance: &Instance) -> Result<Output, EngineError> {
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let data = &context.world.data;
    if !data.has_base(&at)? {
        return Err(EngineError::refused(
            format!("generation {} has no clone to recognise later writes by", instance.generation),
            "the generation is kept as it is; `switchback gc` will not remove it",
        ));
    }
    let out = context.home.export_dir(instance.generation);
    // Of an export before: until this one is complete, nothing is. Both hold everything since the promotion.
    crate::left::withdraw(context.home, instance.generation, &[COMPLETE])?;
    create_dir(&out)?;
    let mut output = Output::default();
    for name in instance.stores.keys() {
        if gap(Gap::Export) || !data.exists(&at, name)? {
            continue;
        }
        let target = out.join(name.as_str());
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(io("remove", &target))?;
        }
        let Some(stats) = working(context, "exporting", |w| data.export(&at, name, &target, w))? else {
            output.notes.push(format!(
                "{name}: it did not exist before generation {}; its data stays there",
                instance.generation
            ));
            continue;
        };
        output.notes.extend(super::capture::notes(context.home, instance, name));
        output.notes.push(format!("{name}: {} writes exported to {}", stats.total(), target.display()));
        output.exports.insert(name.clone(), stats);
    }
    context.midway();
    // The mark that everything was exported: only now may `gc` take the generation.
    crate::home::write_json(&out.join(COMPLETE), &output.exports)?;
    if output.exports.is_empty() {
        output.notes.push("nothing to export".to_owned());
    }
    Ok(output)
}
