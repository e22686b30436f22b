//! Masking personal data in a copy, before anything runs on it.

use super::data::{must_be_cold, scratch_of, working};
use super::{Context, Failed, staging};
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::mask_key;
use switchback_core::anonymise;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;

/// Columns that the report names one by one.
const MOST_NOTES: usize = 60;

/// Masks the columns of the configuration's rules.
pub fn mask(context: &Context<'_>, key: &str, source: &str, mode: CloneMode) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let mut output = Output::default();
    if context.attempt > 1 && key == source {
        return Err(EngineError::refused(
            "masking was interrupted, and what is masked twice is no longer what refers to it",
            "make the environment again",
        )
        .into());
    }
    if context.attempt > 1 {
        // What an earlier attempt masked would be masked twice.
        output.notes = staging::refresh(context, source, key, mode)?.notes;
    }
    must_be_cold(context, instance)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let rules = anonymise::rules(&context.config.staging.anonymise).map_err(|(rule, why)| {
        EngineError::refused(format!("staging.anonymise: {rule}: {why}"), "correct switchback.yaml")
    })?;
    let secret = mask_key::get(context.home)?;
    let scratch = scratch_of(context, instance)?;
    for name in instance.stores.keys() {
        let own: Vec<_> = rules.iter().filter(|r| r.store == *name).cloned().collect();
        if own.is_empty() || gap(Gap::Masking) || !context.world.data.exists(&at, name)? {
            continue;
        }
        let done = working(context, &format!("masking {name}"), |work| {
            context.world.data.mask(&at, name, &own, &secret, &scratch, work)
        })?;
        let values: u64 = done.columns.iter().map(|c| c.values).sum();
        output.notes.push(format!("{name}: {values} values in {} columns", done.columns.len()));
        // The report names each; a long list is in its JSON form.
        output.notes.extend(
            done.columns
                .iter()
                .take(MOST_NOTES)
                .map(|c| format!("{name}: {} of {} by `{}`", c.values, c.column, c.mask.as_str())),
        );
        output.notes.extend(done.notes.iter().map(|n| format!("{name}: {n}")));
        output.masked.insert(name.clone(), done);
        context.midway();
    }
    if output.masked.is_empty() {
        context.midway();
    }
    Ok(output)
}
