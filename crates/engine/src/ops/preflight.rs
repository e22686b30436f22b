//! Before anything is touched: does what the plan was made from still hold?

use super::{Context, Failed};
use crate::error::EngineError;
use crate::gather::{self, artefact_digest};
use crate::runtime::process::start::resolve;
use crate::runtime::process::{resolve_program, service_environment, table};
use std::path::Path;
use switchback_core::duration::human_bytes;
use switchback_core::journal::Output;
use switchback_core::plan::Procedure;
use switchback_core::release::PRODUCTION;

/// Room that is left free besides the clones: journal, logs and what the services write.
const RESERVE_BYTES: u64 = 64 << 20;

/// Checks artefacts, programs, disk space and ports.
pub fn preflight(context: &Context<'_>, target: &str, need_bytes: u64) -> Result<Output, Failed> {
    let instance = context.instance(target)?;
    let release = context.release(instance)?;
    let mut output = Output::default();
    let pointer = context.home.pointer()?;
    if pointer.as_ref().map(|p| p.current) != context.plan.from_generation {
        return Err(EngineError::refused(
            "production's generation changed since the plan was made",
            "start again; the new plan will see it",
        )
        .into());
    }
    for (name, service) in &release.services {
        if let Some(artefact) = &service.artefact {
            let found = artefact_digest(Path::new(&artefact.path))?;
            if found != artefact.digest {
                return Err(EngineError::refused(
                    format!("the artefact of {name} changed since the plan was made: {}", artefact.path),
                    "rehearse again: what would run is not what was rehearsed",
                )
                .into());
            }
            output.notes.push(format!("{name}: artefact {} is the planned one", found.short()));
        }
    }
    context.midway();
    check_programs(context, instance, &release)?;
    let free = gather::free_bytes(&context.home.state())?;
    if free < need_bytes.saturating_add(RESERVE_BYTES) {
        return Err(EngineError::refused(
            format!(
                "not enough disk space: {} are needed for the clones and {} in reserve, {} are free",
                human_bytes(need_bytes),
                human_bytes(RESERVE_BYTES),
                human_bytes(free)
            ),
            "free some space; `switchback gc` removes what is no longer needed",
        )
        .into());
    }
    output.notes.push(format!("disk: {} needed, {} free", human_bytes(need_bytes), human_bytes(free)));
    let all = table::read_all();
    let own_prefix = format!("{}:", context.home.id()?);
    let own = table::members(&all, |m| m.starts_with(&own_prefix));
    for (service, ports) in &instance.ports {
        for (name, port) in ports {
            let stranger = table::port_taken(*port) && table::listeners(*port, &own).is_empty();
            if stranger {
                return Err(EngineError::refused(
                    format!("port {port} ({service}.{name}) is in use by a process that is not this stack's"),
                    "stop that process, or change the port in switchback.yaml",
                )
                .into());
            }
        }
    }
    if context.plan.procedure == Procedure::Promote && instance.environment == PRODUCTION {
        gather::certificate_holds(context.home, context.plan)?;
        output.notes.push(match &context.plan.reason {
            None => "the certificate is valid".to_owned(),
            Some(waiver) => format!("no certificate was asked for ({waiver})"),
        });
    }
    Ok(output)
}

fn check_programs(
    context: &Context<'_>,
    instance: &switchback_core::release::Instance,
    release: &switchback_core::release::Release,
) -> Result<(), EngineError> {
    let placement = context.placement(instance, release);
    for (name, service) in &release.services {
        let definition = &service.definition;
        let words = [("command", &definition.command), ("migrate", &definition.migrate)];
        for (key, words) in words.into_iter().filter(|(_, w)| !w.is_empty()) {
            let argv = resolve(&placement, name, definition, words)?;
            let program = argv.first().map_or("", String::as_str);
            // The working folder does not exist yet; relative programs must be configuration files.
            let kept = context.home.release_dir(&instance.release).join("config");
            let mut path = std::env::var("PATH").ok();
            if definition.env_file.is_none()
                && let Ok(environment) = service_environment(&placement, name, definition)
            {
                path = environment.get("PATH").cloned();
            }
            if resolve_program(program, path.as_deref(), &kept).is_none() {
                return Err(EngineError::refused(
                    format!(
                        "services.{name}.{key}: the program {program:?} does not exist or is not executable"
                    ),
                    "check the path, and that the release is installed",
                ));
            }
        }
    }
    Ok(())
}
