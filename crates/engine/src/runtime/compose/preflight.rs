//! Before containers are started: images, volumes, disk space and ports.

use super::containers::{PROJECT, describe_container, shown, users_of};
use super::{ComposeRuntime, engine_free_bytes, isolation, kept};
use crate::docker::permissions;
use crate::error::EngineError;
use crate::gather;
use crate::runtime::process::table;
use crate::runtime::{Placement, PreflightFor};
use switchback_core::plan::Procedure;
use switchback_core::release::MountPlace;

/// Confirms that the instance could be started.
pub fn preflight(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    wanted: PreflightFor,
) -> Result<Vec<String>, EngineError> {
    let docker = &runtime.docker;
    let mut notes = Vec::new();
    for (name, service) in &at.release.services {
        let Some(image) = &service.image else { continue };
        if docker.image(&image.id)?.is_none() {
            return Err(EngineError::refused(
                format!("the image of {name} ({}) is gone from the engine: {}", image.reference, image.id),
                "pull or build it again, then rehearse again",
            ));
        }
        // The engine removes images that nothing names: a tag of our own keeps a generation's from pruning.
        kept::keep(runtime, at.home, &image.id)?;
        notes.push(format!("{name}: image {} is there", image.reference));
    }
    if matches!(
        wanted.procedure,
        Procedure::Rehearse
            | Procedure::Path
            | Procedure::Scaling
            | Procedure::Promote
            | Procedure::Carry
            | Procedure::StagingUp
            | Procedure::StagingSync
            | Procedure::Backup
            | Procedure::Drill
            | Procedure::RollbackDrill
            | Procedure::ProductionDrill
            | Procedure::Restore
            | Procedure::ServiceRollback
    ) {
        permitted(runtime)?;
        reachable(runtime, at)?;
    }
    // Clones beside the data of bind mounts lie elsewhere; the data's own preflight looks there.
    let here = at.instance.stores.values().filter_map(|s| s.mount.as_ref()).all(|m| m.beside.is_none());
    let need_bytes = if here { wanted.need_bytes } else { 0 };
    // Of an engine that runs elsewhere, helpers on the data are asked, with the data.
    if let Some(free) = engine_free_bytes(docker) {
        notes.push(gather::enough(" where the engine keeps its data", need_bytes, free)?);
    }
    notes.push(gather::enough_space(&at.home.state(), 0)?);
    strangers(runtime, at)?;
    if !at.instance.is_production() {
        isolation::check(at)?;
    }
    // A synchronisation finds the environment's own services on them.
    let own = wanted.procedure == Procedure::StagingSync;
    let elsewhere = !at.instance.is_production() || at.instance.closed;
    if elsewhere && !own && docker.is_local() {
        for (service, ports) in &at.instance.ports {
            for (name, port) in ports {
                if table::port_taken(*port) {
                    return Err(EngineError::refused(
                        format!("port {port} ({service}.{name}) was taken since the plan was made"),
                        "start again; the new plan takes another",
                    ));
                }
            }
        }
    }
    Ok(notes)
}

/// Refuses where a proxy before the engine forbids what a run needs: it would stop in the middle.
fn permitted(runtime: &ComposeRuntime) -> Result<(), EngineError> {
    let missing = permissions::missing(&runtime.docker)?;
    if missing.is_empty() {
        return Ok(());
    }
    let sections: Vec<String> = missing.iter().map(|m| format!("{} ({})", m.section, m.needed_for)).collect();
    Err(EngineError::refused(
        format!(
            "the Docker endpoint {} refuses what a run needs: {}",
            runtime.docker.endpoint(),
            sections.join(", ")
        ),
        "allow these sections in the proxy before the Docker socket, or set DOCKER_HOST to the engine itself",
    ))
}

/// What to do about a host behind `ssh` whose ports cannot be reached.
pub const CLOSED_HINT: &str = "permit it over there: `AllowTcpForwarding yes` in its sshd_config, and no `no-port-forwarding` before the key";

/// Refuses where checks would reach no service, and the services would seem to be ill.
fn reachable(runtime: &ComposeRuntime, at: &Placement<'_>) -> Result<(), EngineError> {
    if at.release.services.values().all(|s| s.definition.ports.is_empty()) {
        return Ok(());
    }
    match runtime.docker.closed_host() {
        Some(host) => Err(EngineError::refused(closed(&host), CLOSED_HINT)),
        None => Ok(()),
    }
}

/// In words: a host behind `ssh` forwards no ports.
pub fn closed(host: &str) -> String {
    format!("`ssh {host}` forwards no ports: checks would reach no service")
}

/// Refuses where another project works on production's data: its writes could not be cloned consistently, and it would
/// stay behind on the old generation.
fn strangers(runtime: &ComposeRuntime, at: &Placement<'_>) -> Result<(), EngineError> {
    let Some(pointer) = at.home.pointer()? else { return Ok(()) };
    let production = at.home.generation(pointer.current)?.instance;
    let own = production.project.as_deref().unwrap_or("");
    for container in users_of(&runtime.docker, &production)? {
        let project = container.labels.get(PROJECT).map_or("", String::as_str);
        if project == own {
            continue;
        }
        let place = production
            .stores
            .values()
            .filter_map(|s| s.mount.as_ref())
            .find(|m| super::containers::holds(&container, &m.at))
            .map_or_else(String::new, |m| shown(&m.at));
        let writes = container.mounts.iter().any(|m| {
            m.writable
                && production.stores.values().filter_map(|s| s.mount.as_ref()).any(|own| match &own.at {
                    MountPlace::Volume(name) => m.name == *name,
                    MountPlace::Dir(path) => m.source == *path,
                })
        });
        if writes {
            return Err(EngineError::refused(
                format!("{} of another project uses {place}", describe_container(&container)),
                "stop it, or make it part of the stack: it would go on with the old generation's data",
            ));
        }
    }
    Ok(())
}
