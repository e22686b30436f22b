//! Cloning, fingerprinting and exporting the stores of instances.

use super::{Context, Failed};
use crate::engine::Notice;
use crate::error::{EngineError, io};
use crate::home::create_dir;
use crate::runtime::process::instance_members;
use crate::scratch::Scratch;
use crate::store::{self, Progress, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::{StepId, StoreName};
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::CloneMode;
use switchback_core::release::{Instance, StorePlace};

/// Where the clone that later writes are recognised by lies.
pub fn base_dir(context: &Context<'_>, instance: &Instance) -> PathBuf {
    context.home.instance_dir(instance).join("base")
}

/// A folder for private copies while reading cold stores; emptied with the run.
pub fn temp_dir(context: &Context<'_>) -> Result<PathBuf, EngineError> {
    let dir = context.run_dir().join("tmp");
    create_dir(&dir)?;
    Ok(dir)
}

/// Calls with a progress that tells the observer and honours a cancellation.
fn with_progress<T>(context: &Context<'_>, what: &str, work: impl FnOnce(&Progress<'_>) -> T) -> T {
    let cancelled = || context.cancel.requested();
    let report = |done, total| (context.observe)(&Notice::Doing { text: what, done, total });
    work(&Progress { cancel: &cancelled, report: &report })
}

fn must_be_cold(context: &Context<'_>, instance: &Instance) -> Result<(), EngineError> {
    let members = instance_members(context.home, instance)?;
    match members.first() {
        None => Ok(()),
        Some(process) => Err(EngineError::Internal {
            detail: format!(
                "process {} still runs on {}, whose data must not change now",
                process.pid,
                instance.key()
            ),
        }),
    }
}

fn places(instance: &Instance) -> impl Iterator<Item = (&StoreName, &StorePlace, &Path)> {
    instance.stores.iter().map(|(name, place)| (name, place, Path::new(&place.path)))
}

/// Clones all stores of one instance into another.
pub fn clone(context: &Context<'_>, from: &str, to: &str, mode: CloneMode) -> Result<Output, Failed> {
    let (source, target) = (context.instance(from)?, context.instance(to)?);
    if mode == CloneMode::Cold {
        must_be_cold(context, source)?;
    }
    let scratch = Scratch::open(context.home, &target.dir)?
        .ok_or_else(|| EngineError::Internal { detail: format!("{} was not prepared", target.key()) })?;
    let mut output = Output::default();
    for (name, place, src) in places(source) {
        let Some(dst) = target.stores.get(name).map(|p| PathBuf::from(&p.path)) else { continue };
        // What an earlier attempt left may be incomplete or from another moment.
        scratch.remove_part(&dst)?;
        if let Some(parent) = dst.parent() {
            create_dir(parent)?;
        }
        if !src.exists() {
            output.notes.push(format!("{name}: {} does not exist yet; nothing to clone", src.display()));
            continue;
        }
        let what = format!("cloning {name}");
        let stats = with_progress(context, &what, |progress| match mode {
            CloneMode::Live => store::clone_live(place.kind, src, &dst, progress),
            CloneMode::Cold => store::clone_cold(place.kind, src, &dst, progress),
        })?;
        output.notes.push(format!(
            "{name}: {} in {}{}",
            human_bytes(stats.bytes),
            human_ms(stats.took_ms),
            if stats.reflinked > 0 && stats.bytes_written == 0 { ", blocks shared (reflink)" } else { "" }
        ));
        output.copies.insert(name.clone(), stats);
        context.midway();
    }
    if source.stores.is_empty() {
        context.midway();
    }
    Ok(output)
}

/// Keeps a clone of an instance's stores beside it.
pub fn base(context: &Context<'_>, instance: &str, source: &str) -> Result<Output, Failed> {
    let (instance, source) = (context.instance(instance)?, context.instance(source)?);
    must_be_cold(context, source)?;
    let scratch = Scratch::open(context.home, &instance.dir)?
        .ok_or_else(|| EngineError::Internal { detail: format!("{} was not prepared", instance.key()) })?;
    let base = base_dir(context, instance);
    let mut output = Output::default();
    scratch.remove_part(&base)?;
    let partial = base.with_file_name("base.partial");
    scratch.remove_part(&partial)?;
    create_dir(&partial)?;
    for (name, place, src) in places(source).filter(|(_, _, src)| src.exists()) {
        let dst = partial.join(name.as_str());
        let stats =
            with_progress(context, "keeping a clone", |p| store::clone_cold(place.kind, src, &dst, p))?;
        output.copies.insert(name.clone(), stats);
    }
    context.midway();
    std::fs::rename(&partial, &base).map_err(io("rename", &partial))?;
    crate::home::sync_dir(scratch.path())?;
    Ok(output)
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
    let scratch = temp_dir(context)?;
    let mut output = Output::default();
    for (name, place, path) in places(instance).filter(|(_, _, p)| p.exists()) {
        let source = match mode {
            CloneMode::Live => Source::live(path),
            CloneMode::Cold => Source::cold(path, &scratch),
        };
        let found = with_progress(context, "reading", |p| store::fingerprint(place.kind, source, p))?;
        output.notes.push(format!("{name}: {} items, fingerprint {}", found.items, found.digest.short()));
        output.fingerprints.insert(name.clone(), found);
    }
    context.midway();
    if let Some(step) = equal_to {
        let before = context.state.output(step).map(|o| &o.fingerprints);
        let differing = differing(before, &output.fingerprints);
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

fn differing(
    before: Option<&BTreeMap<StoreName, switchback_core::data::Fingerprint>>,
    after: &BTreeMap<StoreName, switchback_core::data::Fingerprint>,
) -> Vec<String> {
    let empty = BTreeMap::new();
    let before = before.unwrap_or(&empty);
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
    must_be_cold(context, instance)?;
    Ok(export_writes(context, instance)?)
}

/// Exports the difference between an instance's stores and the clone kept beside it.
pub fn export_writes(context: &Context<'_>, instance: &Instance) -> Result<Output, EngineError> {
    let base = base_dir(context, instance);
    if !base.is_dir() {
        return Err(EngineError::refused(
            format!("generation {} has no clone to recognise later writes by", instance.generation),
            "the generation is kept as it is; `switchback gc` will not remove it",
        ));
    }
    let out = context.home.export_dir(instance.generation);
    create_dir(&out)?;
    let scratch = temp_dir(context)?;
    let mut output = Output::default();
    for (name, place, after) in places(instance).filter(|(_, _, p)| p.exists()) {
        let before = base.join(name.as_str());
        let target = out.join(name.as_str());
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(io("remove", &target))?;
        }
        if !before.exists() {
            output.notes.push(format!(
                "{name}: it did not exist before generation {}; its data stays there",
                instance.generation
            ));
            continue;
        }
        let stats = with_progress(context, "exporting", |p| {
            store::export(
                place.kind,
                Source::cold(&before, &scratch),
                Source::cold(after, &scratch),
                &target,
                p,
            )
        })?;
        output.notes.push(format!("{name}: {} writes exported to {}", stats.total(), target.display()));
        output.exports.insert(name.clone(), stats);
    }
    context.midway();
    // The mark that everything was exported: only now may `gc` take the generation.
    crate::home::write_json(&out.join("complete.json"), &output.exports)?;
    if output.exports.is_empty() {
        output.notes.push("nothing to export".to_owned());
    }
    Ok(output)
}
