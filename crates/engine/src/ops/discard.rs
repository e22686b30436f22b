//! What a drill on production needs: that production's data is untouched, and that the copy goes again.

use super::data::{differing, export_writes, must_be_cold, temp_dir, with_progress};
use super::services::{keep_logs, remove};
use super::{Context, Failed};
use crate::data::contents;
use crate::error::{EngineError, io};
use crate::home::read_json;
use std::collections::BTreeMap;
use std::fs;
use switchback_core::data::ExportStats;
use switchback_core::ids::{StepId, StoreName};
use switchback_core::journal::{ErrorKind, Output, StepError};

/// Takes the content of an instance's stores, on which nothing runs, and compares it with what was taken before.
pub fn seal(context: &Context<'_>, key: &str, equal_to: Option<&StepId>) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let mut output = Output::default();
    let temp = temp_dir(context)?;
    // Production is away meanwhile.
    output.fingerprints = with_progress(context, "reading production's data", |progress| {
        contents(context.world.data.as_ref(), &at, instance.stores.keys(), progress, &temp)
    })?;
    let told =
        output.fingerprints.iter().map(|(name, is)| format!("{name}: fingerprint {}", is.digest.short()));
    output.notes.extend(told);
    context.midway();
    let Some(step) = equal_to else { return Ok(output) };
    let before = context.state.output(step).map(|o| o.fingerprints.clone()).unwrap_or_default();
    let differing = differing(&before, &output.fingerprints);
    if differing.is_empty() {
        output.notes.push(format!("equal to {step}"));
        return Ok(output);
    }
    let error = StepError {
        kind: ErrorKind::Refused,
        message: format!("production's data changed while nothing ran on it: {}", differing.join(", ")),
        hint: Some("something outside of the stack writes to it".to_owned()),
        details: Vec::new(),
    };
    Err(Failed { error, output: Box::new(output) })
}

/// Exports what was written to a generation that this run made and left, and removes it.
pub fn discard(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let pointer = context.home.pointer()?;
    if pointer.is_some_and(|p| p.current == instance.generation || p.previous == Some(instance.generation)) {
        let detail = format!("{key} is production's, and was about to be removed");
        return Err(EngineError::Internal { detail }.into());
    }
    let exports = context.home.export_dir(instance.generation);
    let complete = exports.join("complete.json");
    let mut output = Output::default();
    if context.home.instance_dir(instance).exists() {
        must_be_cold(context, instance)?;
        if !complete.exists() {
            output = export_writes(context, instance)?;
        }
        // What it was written to is exported: the rest is a copy.
        let scratch = crate::scratch::retire(context.home, &instance.dir)?;
        context.world.data.retire(context.home, instance)?;
        keep_logs(context, instance, &mut output)?;
        context.midway();
        remove(context, instance, scratch)?;
    } else {
        context.midway();
    }
    if complete.exists() {
        let written: BTreeMap<StoreName, ExportStats> = read_json(&complete)?;
        let writes: u64 = written.values().map(ExportStats::total).sum();
        if writes == 0 {
            fs::remove_dir_all(&exports).map_err(io("remove", &exports))?;
            output.notes.push("nothing was written to the copy".to_owned());
        } else {
            output.notes.push(format!(
                "{writes} writes of the copy's own services, which no client could reach, are in {}",
                exports.display()
            ));
        }
    }
    Ok(output)
}
