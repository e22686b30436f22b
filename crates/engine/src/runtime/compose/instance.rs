//! The model that an instance runs with, and the places of its data.

use super::apart::release_of_config;
use super::isolation;
use super::release::{config_binds, kept_model};
use crate::capture;
use crate::docker::BoundMount;
use crate::error::{EngineError, io};
use crate::home::{Home, read_json, write_json};
use crate::runtime::Placement;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use switchback_core::compose::{Difference, Limits, Model, Pins, StagingFacts, production, staging};
use switchback_core::ids::ServiceName;
use switchback_core::release::{Instance, Mount, MountPlace, MountSource};

/// The label with the folder of the staging instance that something belongs to.
pub const DIR_LABEL: &str = "dev.switchback.instance";

/// The model file of an instance, in its folder.
pub fn model_file(at: &Placement<'_>) -> PathBuf {
    model_file_of(at.home, at.instance)
}

/// The model file of an instance, in its folder.
pub fn model_file_of(home: &Home, instance: &Instance) -> PathBuf {
    home.instance_dir(instance).join("compose.json")
}

/// The list of what staging changed, in the instance's folder.
pub fn differences_file(at: &Placement<'_>) -> PathBuf {
    at.home.instance_dir(at.instance).join("staging-differences.json")
}

/// The mounts of an instance, each once.
pub fn mounts(at: &Placement<'_>) -> Vec<Mount> {
    let all: BTreeSet<Mount> = at.instance.stores.values().filter_map(|s| s.mount.clone()).collect();
    all.into_iter().collect()
}

/// What the instance's model pins.
pub fn pins(at: &Placement<'_>) -> Result<Pins, EngineError> {
    let model = kept_model(at.home, &at.instance.release)?;
    let images =
        at.release.services.iter().filter_map(|(n, s)| Some((n.clone(), s.image.clone()?))).collect();
    let uses = model.mounts();
    let mut binds = BTreeMap::new();
    for (source, relative) in config_binds(at.home, &model) {
        let mounted = MountSource::Bind(source.clone());
        let users = uses.iter().filter(|u| u.source == mounted).map(|u| u.service.clone()).collect();
        let kept = at.home.release_dir(&release_of_config(at, &users)?).join("config").join(relative);
        if kept.exists() {
            binds.insert(source, kept.to_string_lossy().into_owned());
        }
    }
    let commands = if at.instance.is_production() { capture::commands(at)? } else { BTreeMap::new() };
    Ok(Pins { images, mounts: mounts(at), config_binds: binds, commands })
}

/// Writes the model that the instance runs with, and (staging) what differs from production.
///
/// `commands` replace those of services.
pub fn write_model(
    at: &Placement<'_>,
    commands: &BTreeMap<ServiceName, Vec<String>>,
) -> Result<Vec<Difference>, EngineError> {
    let base = kept_model(at.home, &at.instance.release)?;
    let pins = pins(at)?;
    let (model, differences) = if at.instance.is_production() {
        (production(&base, &pins), Vec::new())
    } else {
        match staging(&base, &staging_facts(at, pins)?) {
            Ok((model, differences)) => (Ok(model), differences),
            Err(e) => (Err(e), Vec::new()),
        }
    };
    let model = model.and_then(|m| if at.instance.closed { m.closed(&container_ports(at)) } else { Ok(m) });
    let mut model = model.map_err(|e| EngineError::refused(e.to_string(), "see the Compose file"))?;
    for (service, command) in commands {
        model.set_command(service, command);
    }
    write_json(&model_file(at), &model)?;
    // It holds the environment, secrets included.
    let path = model_file(at);
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| io("set the mode of", &path)(e.into()))?;
    if !at.instance.is_production() {
        write_json(&differences_file(at), &differences)?;
    }
    Ok(differences)
}

/// The instance's ports by those of the containers.
fn container_ports(at: &Placement<'_>) -> BTreeMap<ServiceName, BTreeMap<u16, u16>> {
    let mut ports = BTreeMap::new();
    for (name, given) in &at.instance.ports {
        let Some(service) = at.release.services.get(name) else { continue };
        let by_container = given
            .iter()
            .filter_map(|(port, host)| Some((*service.definition.ports.get(port)?, *host)))
            .collect();
        ports.insert(name.clone(), by_container);
    }
    ports
}

fn staging_facts(at: &Placement<'_>, pins: Pins) -> Result<StagingFacts, EngineError> {
    let ports = container_ports(at);
    Ok(StagingFacts {
        project: at.instance.project.clone().unwrap_or_default(),
        pins,
        files: files(at),
        ports,
        env: at.config.staging.env.clone(),
        stack_dir: at.home.root().to_string_lossy().into_owned(),
        gateway: Some(isolation::known(at)?.into_iter().map(|(k, n)| (k, n.gateway.to_string())).collect()),
        replace: isolation::replacements(at)?,
        limits: limits(at),
        authority: isolation::authority_file(at)?.map(|p| p.to_string_lossy().into_owned()),
        labels: isolation::labels(at)?,
    })
}

fn limits(at: &Placement<'_>) -> Limits {
    let wanted = &at.config.staging.limits;
    // Checked to be positive; thousandths are what the engine itself counts in.
    let millicpus = wanted.cpus.map(|c| (c * 1000.0).round().max(1.0) as u64);
    Limits { memory_bytes: wanted.memory_mib.map(|m| m.saturating_mul(1 << 20)), millicpus }
}

/// Sources of bind mounts that are files, as far as this host can tell.
fn files(at: &Placement<'_>) -> BTreeSet<String> {
    let Ok(model) = kept_model(at.home, &at.instance.release) else { return BTreeSet::new() };
    let binds = model.mounts().into_iter().filter_map(|m| match m.source {
        MountSource::Bind(path) => Some(path),
        _ => None,
    });
    binds.filter(|path| std::path::Path::new(path).is_file()).collect()
}

/// The model that the instance runs with.
pub fn model(at: &Placement<'_>) -> Result<Model, EngineError> {
    read_json(&model_file(at))
}

/// The environment of a service in the release's model.
pub fn environment_of(at: &Placement<'_>, service: &ServiceName) -> BTreeMap<String, String> {
    let model = kept_model(at.home, &at.instance.release).ok();
    model
        .as_ref()
        .and_then(|m| m.service(service))
        .map(switchback_core::compose::Service::environment)
        .unwrap_or_default()
}

/// The command of a service in the release's model; empty where the image's is meant.
pub fn command_of(at: &Placement<'_>, service: &ServiceName) -> Vec<String> {
    let model = kept_model(at.home, &at.instance.release).ok();
    model
        .as_ref()
        .and_then(|m| m.service(service))
        .map(switchback_core::compose::Service::command)
        .unwrap_or_default()
}

/// The read-only configuration that a service mounts, from the release's own copy.
pub fn config_mounts_of(at: &Placement<'_>, service: &ServiceName) -> Vec<BoundMount> {
    let (Ok(model), Ok(pins)) = (kept_model(at.home, &at.instance.release), pins(at)) else {
        return Vec::new();
    };
    let own = model.mounts().into_iter().filter(|m| m.service == *service && m.read_only);
    own.filter_map(|m| match &m.source {
        MountSource::Bind(source) => Some(BoundMount {
            place: MountPlace::Dir(pins.config_binds.get(source)?.clone()),
            target: m.target,
            read_only: true,
        }),
        _ => None,
    })
    .collect()
}

/// What staging changed, as written when the instance was prepared.
pub fn differences(at: &Placement<'_>) -> Result<Vec<Difference>, EngineError> {
    read_json(&differences_file(at))
}
