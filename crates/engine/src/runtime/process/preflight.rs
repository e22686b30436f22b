//! Before processes are started: artefacts, programs, disk space and ports.

use super::start::resolve;
use super::{cell, resolve_program, service_environment, table};
use crate::error::EngineError;
use crate::gather::{self, artefact_digest};
use crate::home::Home;
use crate::runtime::{Placement, PreflightFor, rules};
use std::path::Path;
use switchback_core::release::Instance;

/// Confirms that the instance could be started.
pub(super) fn preflight(at: &Placement<'_>, wanted: PreflightFor) -> Result<Vec<String>, EngineError> {
    let mut notes = Vec::new();
    for (name, service) in &at.release.services {
        if let Some(artefact) = &service.artefact {
            let found = artefact_digest(Path::new(&artefact.path))?;
            if found != artefact.digest {
                return Err(EngineError::refused(
                    format!("the artefact of {name} changed since the plan was made: {}", artefact.path),
                    "rehearse again: what would run is not what was rehearsed",
                ));
            }
            notes.push(format!("{name}: artefact {} is the planned one", found.short()));
        }
    }
    check_programs(at)?;
    if !at.instance.is_production() {
        rules::check(at)?;
        notes.push(
            match (cell::wanted(&at.config.staging, at.instance)?, cell::open_because(&at.config.staging)) {
                (_, Some(why)) => format!("services of staging are not isolated: {why}"),
                _ => "services of staging are isolated: network and production's data".to_owned(),
            },
        );
    }
    notes.push(gather::enough_space(&at.home.state(), wanted.need_bytes)?);
    ports_are_free(at.home, at.instance)?;
    Ok(notes)
}

/// Confirms that nobody else listens where the instance's services are to.
pub(crate) fn ports_are_free(home: &Home, instance: &Instance) -> Result<(), EngineError> {
    let all = table::read_all();
    let own_prefix = format!("{}:", home.id()?);
    let own = table::members(&all, |m| m.starts_with(&own_prefix));
    for (service, ports) in &instance.ports {
        for (name, port) in ports {
            if table::port_taken(*port) && table::listeners(*port, &own).is_empty() {
                return Err(EngineError::refused(
                    format!("port {port} ({service}.{name}) is in use by a process that is not this stack's"),
                    "stop that process, or change the port in switchback.yaml",
                ));
            }
        }
    }
    Ok(())
}

fn check_programs(at: &Placement<'_>) -> Result<(), EngineError> {
    for (name, service) in &at.release.services {
        let definition = &service.definition;
        let words = [("command", &definition.command), ("migrate", &definition.migrate)];
        for (key, words) in words.into_iter().filter(|(_, w)| !w.is_empty()) {
            let argv = resolve(at, name, definition, words)?;
            let program = argv.first().map_or("", String::as_str);
            // The working folder does not exist yet; relative programs must be configuration files.
            let kept = at.home.release_dir(&at.instance.release).join("config");
            let mut path = std::env::var("PATH").ok();
            if definition.env_file.is_none()
                && let Ok(environment) = service_environment(at, name, definition)
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
