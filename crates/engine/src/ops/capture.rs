//! Beginning and ending to keep which rows are written to.
//!
//! That it cannot be done stops nothing: later writes are then found by comparing everything.

use super::data::{must_be_cold, working};
use super::{Context, Failed};
use crate::capture::{open_spools, progress};
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::Placement;
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::release::{Instance, Release};

/// Prepares the databases of an instance on which nothing runs.
pub fn begin(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let mut output = Output::default();
    let Some(capturing) = context.world.data.capturing() else { return Ok(output) };
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        let begun = working(context, "preparing to keep which rows are written to", |work| {
            capturing.begin(&at, name, work)
        })?;
        match begun {
            None => output.notes.push(format!("{name}: its later writes are found by comparing")),
            Some(Ok(())) => output.notes.push(format!("{name}: which rows are written to is kept")),
            Some(Err(why)) => {
                output.notes.push(format!("{name}: its later writes are found by comparing: {why}"));
            }
        }
        context.midway();
    }
    Ok(output)
}

/// Has the databases of production keep nothing any more, where that was left undone: their copies must start without it.
pub fn end(context: &Context<'_>, production: &Instance, release: &Release) -> Result<(), EngineError> {
    let at = context.placement(production, release);
    let Some(capturing) = context.world.data.capturing() else { return Ok(()) };
    open_spools(context.home, production).iter().try_for_each(|name| capturing.end(&at, name))
}

/// Has the copy of a production that is on trial keep nothing: it is brought back without what that needs.
pub fn forget(context: &Context<'_>, production: &Instance, copy: &Placement<'_>) -> Result<(), EngineError> {
    let Some(capturing) = context.world.data.capturing() else { return Ok(()) };
    open_spools(context.home, production).iter().try_for_each(|name| capturing.forget(copy, name))
}

/// What was known of a store when its writes were exported.
pub fn notes(home: &Home, instance: &Instance, store: &StoreName) -> Vec<String> {
    let Some(known) = progress(home, instance).remove(store) else { return Vec::new() };
    let mut notes = Vec::new();
    match known.trouble {
        Some(why) => notes.push(format!(
            "{store}: which rows were written to is not known ({why}); everything was compared"
        )),
        None => notes.push(format!(
            "{store}: only the rows that were written to were compared, up to {} of the server's log",
            known.position
        )),
    }
    notes.extend(known.whole.iter().map(|t| format!("{store}: compared as a whole: {t}")));
    notes
}
