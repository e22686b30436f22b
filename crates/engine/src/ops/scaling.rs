//! Smaller copies of production's data, to time a migration on.

use super::data::{clone, must_be_cold, scratch_of, working};
use super::judge::BOOKKEEPING;
use super::{Context, Failed};
use crate::error::EngineError;
use switchback_core::duration::human_bytes;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;

/// Keeps a share of the rows of large tables, and measures what is left.
pub fn shrink(context: &Context<'_>, key: &str, source: &str, percent: u8) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    if context.attempt > 1 && key != source {
        clone(context, source, key, CloneMode::Cold)?;
    }
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let scratch = scratch_of(context, instance)?;
    let mut output = Output::default();
    // A migration that finds no record of the ones before does them all again.
    let whole = BOOKKEEPING.map(str::to_owned);
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        let what =
            if percent < 100 { format!("removing rows of {name}") } else { format!("measuring {name}") };
        let found = working(context, &what, |work| {
            context.world.data.altering().shrink(&at, name, (percent, &whole), &scratch, work)
        })?;
        output.notes.push(format!("{name}: {}, {} rows", human_bytes(found.bytes), found.rows));
        output.shrunk.insert(name.clone(), found);
        context.midway();
    }
    if output.shrunk.values().all(|s| s.tables == 0) {
        return Err(EngineError::refused(
            "no table of the databases is large enough to take rows from: a migration takes the same time at every size",
            "`switchback rehearse` tells how long it takes; files of stores are not made fewer",
        )
        .into());
    }
    Ok(output)
}
