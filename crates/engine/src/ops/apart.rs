//! Starting and stopping single services of an instance while the others go on.

use super::services::{STARTED, keep_logs, note_what_was_cut};
use super::{Context, Failed, grace};
use crate::error::{EngineError, io};
use crate::fault::Way;
use std::fs;
use switchback_core::ids::ServiceName;
use switchback_core::journal::Output;
use switchback_core::release::Instance;

/// The services of an instance that do not go on as those of another one.
pub(super) fn own_services(instance: &Instance) -> Vec<ServiceName> {
    let shared = &instance.shared.services;
    instance.versions.keys().filter(|n| !shared.contains_key(*n)).cloned().collect()
}

/// Refuses where one of these services runs, or something has one of the instance's stores open.
pub(super) fn must_be_stopped(
    context: &Context<'_>,
    instance: &Instance,
    services: &[ServiceName],
) -> Result<(), EngineError> {
    match context.world.runtime.running_of(context.home, instance, services)?.first() {
        None => Ok(()),
        Some(found) => Err(EngineError::refused(
            format!("{found} still runs on {}", instance.key()),
            "find out what started it, and begin anew",
        )),
    }
}

/// Starts services; not beside those of the instance that had them before.
pub fn start(
    context: &Context<'_>,
    key: &str,
    services: &[ServiceName],
    instead_of: Option<&str>,
) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    if context.way == Way::Do
        && let Some(before) = instead_of
    {
        let left = context.instance(before)?.without_places_of(instance);
        // Containers without data of their own are replaced where they stand.
        if !left.stores.is_empty() || instance.project.is_none() {
            must_be_stopped(context, &left, services)?;
        }
    }
    let mark = context.home.instance_dir(instance).join(STARTED);
    fs::write(&mark, b"").map_err(io("write", &mark))?;
    context.staged(|stage| context.world.runtime.start_services(&at, services, stage))
}

/// Stops services.
pub fn stop(context: &Context<'_>, key: &str, services: &[ServiceName]) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let mut release = context.release(instance)?;
    let cut = grace::within_the_budget(context, instance, &mut release);
    let at = context.placement(instance, &release);
    let mut output = context.staged(|stage| context.world.runtime.stop_services(&at, services, stage))?;
    note_what_was_cut(&release, &cut, &mut output);
    if context.way == Way::Undo {
        keep_logs(context, instance, &mut output)?;
    }
    Ok(output)
}
