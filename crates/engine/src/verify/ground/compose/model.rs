//! The Compose file and the configuration of a sandbox.
//!
//! The model is that of a staging copy, but with its images by name and its volumes by key, so that the copy is a stack
//! like any other, whose Compose file can be read, released and gone on from.

use super::private;
use crate::docker::{SCRATCH_LABEL, STACK_LABEL};
use crate::error::EngineError;
use crate::gather;
use crate::home::{Home, write_atomic};
use crate::runtime::compose::DIR_LABEL;
use crate::verify::sandbox::short_trial;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use switchback_core::compose::{Difference, Limits, Model, Pins, Replacements, StagingFacts, staging};
use switchback_core::config::{Compose, Config};
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;
use switchback_core::release::{ImageRef, Instance, Mount, MountPlace, MountSource, Release};

/// The copy's only Compose file.
const FILE: &str = "compose.yaml";

/// Ports of containers and the ports of 127.0.0.1 that they are reached by.
pub type Ports = BTreeMap<ServiceName, BTreeMap<u16, u16>>;

/// What a copy is made with.
pub struct Recipe {
    /// The name of its project.
    pub project: String,
    /// The sandbox's identity: the label of everything of it.
    pub identity: String,
    /// The stack's folder.
    pub stack: PathBuf,
    /// The sandbox's folder.
    pub root: PathBuf,
    /// The data, in the volumes of the copy.
    pub mounts: BTreeSet<Mount>,
    /// Ports.
    pub ports: Ports,
    /// What staging sets.
    pub env: BTreeMap<String, String>,
}

/// Free ports for everything that the old or the new version can be reached by.
pub fn free_ports(release: &Release, wanted: &Config) -> Result<Ports, EngineError> {
    let old = release.services.iter().map(|(n, s)| (n, &s.definition));
    let all: BTreeSet<(ServiceName, u16)> =
        old.chain(&wanted.services).flat_map(|(n, s)| s.ports.values().map(|p| (n.clone(), *p))).collect();
    let free = gather::free_ports(all.len())?;
    let mut ports = Ports::new();
    for ((service, container), host) in all.into_iter().zip(free) {
        ports.entry(service).or_default().insert(container, host);
    }
    Ok(ports)
}

fn internal(detail: impl Into<String>) -> EngineError {
    EngineError::Internal { detail: detail.into() }
}

fn root_of(model: &Model) -> Result<Map<String, Value>, EngineError> {
    match serde_json::to_value(model) {
        Ok(Value::Object(root)) => Ok(root),
        _ => Err(internal("a Compose model is no mapping")),
    }
}

fn model_of(root: Map<String, Value>) -> Result<Model, EngineError> {
    Model::try_from(root).map_err(|e| internal(e.to_string()))
}

fn service_mut<'r>(
    root: &'r mut Map<String, Value>,
    name: &ServiceName,
) -> Option<&'r mut Map<String, Value>> {
    root.get_mut("services")?.get_mut(name.as_str())?.as_object_mut()
}

/// The copy's model of a model of the stack, and how it differs from that.
pub fn base_model(
    recipe: &Recipe,
    base: &Model,
    images: &BTreeMap<ServiceName, ImageRef>,
) -> Result<(Model, Vec<Difference>), EngineError> {
    let mounted: BTreeSet<MountSource> = base.mounts().into_iter().map(|m| m.source).collect();
    // A version may have dropped a volume that the other one has.
    let there = |m: &&Mount| mounted.contains(&m.source) || matches!(m.source, MountSource::Anonymous { .. });
    let facts = StagingFacts {
        project: recipe.project.clone(),
        pins: Pins {
            images: images.clone(),
            mounts: recipe.mounts.iter().filter(there).cloned().collect(),
            ..Pins::default()
        },
        stack_dir: recipe.stack.to_string_lossy().into_owned(),
        files: mounted
            .iter()
            .filter_map(|s| match s {
                MountSource::Bind(path) if Path::new(path).is_file() => Some(path.clone()),
                _ => None,
            })
            .collect(),
        ports: recipe
            .ports
            .iter()
            .filter(|(n, _)| base.service(n).is_some())
            .map(|(n, p)| (n.clone(), p.clone()))
            .collect(),
        env: recipe.env.clone(),
        labels: BTreeMap::from([
            (STACK_LABEL.to_owned(), recipe.identity.clone()),
            (DIR_LABEL.to_owned(), "sandbox".to_owned()),
            (SCRATCH_LABEL.to_owned(), "1".to_owned()),
        ]),
        // It stands for production: its ports are its own, and there is no gateway.
        gateway: None,
        replace: Replacements::default(),
        limits: Limits::default(),
        authority: None,
    };
    let (staged, differences) =
        staging(base, &facts).map_err(|e| EngineError::refused(e.to_string(), "see the Compose file"))?;
    let mut root = root_of(&staged)?;
    for (name, image) in images {
        if let Some(service) = service_mut(&mut root, name) {
            service.insert("image".to_owned(), Value::from(image.reference.replace('$', "$$")));
            move_binds(service, &recipe.stack, &recipe.root);
        }
    }
    Ok((model_of(root)?, differences))
}

/// Configuration is mounted from the sandbox's folder.
fn move_binds(service: &mut Map<String, Value>, stack: &Path, root: &Path) {
    let text = |p: &Path| p.to_string_lossy().replace('$', "$$");
    let (stack, root) = (text(stack), text(root));
    for entry in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        let bind = entry.get("type").and_then(Value::as_str) == Some("bind");
        let source = entry.get("source").and_then(Value::as_str).filter(|_| bind);
        let below = source.and_then(|s| s.strip_prefix(&stack)).filter(|r| r.starts_with('/'));
        if let Some(moved) = below.map(|rest| format!("{root}{rest}"))
            && let Some(entry) = entry.as_object_mut()
        {
            entry.insert("source".to_owned(), Value::from(moved));
        }
    }
}

/// The model with one more variable for its first service.
pub fn with_variable(model: &Model, variable: &str) -> Result<Option<(ServiceName, Model)>, EngineError> {
    let Some(name) = model.services().next().map(|s| s.name().clone()) else { return Ok(None) };
    let mut root = root_of(model)?;
    if let Some(service) = service_mut(&mut root, &name) {
        let slot = service.entry("environment").or_insert(Value::Null);
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        if let Some(environment) = slot.as_object_mut() {
            environment.insert(variable.to_owned(), Value::from("1"));
        }
    }
    Ok(Some((name, model_of(root)?)))
}

/// Writes the copy's Compose file, and what keeps a plain `docker compose` in its folder away from production.
pub fn write_model(home: &Home, project: &str, model: &Model) -> Result<(), EngineError> {
    let path = home.root().join(FILE);
    // It holds secrets.
    write_atomic(&path, model.to_json().as_bytes())?;
    private(&path)?;
    let env = home.root().join(".env");
    if !env.exists() {
        write_atomic(&env, format!("COMPOSE_PROJECT_NAME={project}\n").as_bytes())?;
    }
    Ok(())
}

impl Recipe {
    /// The copy's configuration: `from` is the instance whose data was copied, `model` what it goes with.
    pub fn config(&self, raw: &Config, from: &Instance, model: &Model) -> Config {
        let mut config = raw.clone();
        config.services.retain(|name, _| model.service(name).is_some());
        let volume_of = |source: &MountSource| {
            let mount = self.mounts.iter().find(|m| m.source == *source)?;
            let MountPlace::Volume(name) = &mount.at else { return None };
            model.volumes().find(|key| model.volume(key).is_some_and(|v| v.name == *name)).map(str::to_owned)
        };
        let mut pinned = BTreeSet::new();
        for (name, store) in &mut config.stores {
            let Some(place) = from.stores.get(name) else { continue };
            let Some(key) = place.mount.as_ref().and_then(|m| volume_of(&m.source)) else { continue };
            pinned.insert(key.clone());
            // A server's data is found by its service.
            if store.kind != StoreKind::Postgres {
                store.volume = Some(key);
                store.path.clone_from(&place.path);
                (store.service, store.target) = (None, None);
            }
        }
        let old = config.compose.take().unwrap_or_default();
        config.compose = Some(Compose {
            files: vec![FILE.to_owned()],
            project: Some(self.project.clone()),
            profiles: old.profiles,
            shared: model.volumes().filter(|k| !pinned.contains(*k)).map(str::to_owned).collect(),
        });
        short_trial(&mut config);
        config
    }
}
