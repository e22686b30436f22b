//! Copying a stack of containers into a sandbox: its definition, its configuration and its data.

use super::model::{self, Recipe, base_model, write_model};
use super::{Copied, Made, Order, compose_files};
use crate::checks::workflow_files;
use crate::data::{ComposeData, Data as _};
use crate::docker::Docker;
use crate::error::EngineError;
use crate::gather;
use crate::home::{CONFIG_FILE, Home, write_atomic};
use crate::runtime::compose::{ComposeRuntime, DIR_LABEL, engine_free_bytes, project, release};
use crate::runtime::{Placement, Runtime as _};
use crate::verify::sandbox::{Outline, link, yaml};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use switchback_core::compose::Model;
use switchback_core::config::Service;
use switchback_core::duration::human_bytes;
use switchback_core::ids::ServiceName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{ImageRef, Instance, Mount, MountPlace, MountSource};

/// What the copy's volumes are called after.
const SUFFIX: &str = "sandbox";

/// Refuses where the clones would fill the disk.
fn room_for(docker: &Arc<Docker>, home: &Home, from: &Instance) -> Result<(), EngineError> {
    let cost = ComposeData::new(Arc::clone(docker)).cost(home, from)?;
    // The stack's copy, two environments of a rehearsal and a generation with its base.
    let need = if cost.shared { 0 } else { cost.bytes.saturating_mul(6) };
    match engine_free_bytes(docker) {
        Some(free) if free < need.saturating_add(gather::RESERVE_BYTES) => Err(EngineError::refused(
            format!(
                "not enough disk space where the engine keeps its data: {} are needed for the sandbox, {} are free",
                human_bytes(need),
                human_bytes(free)
            ),
            "free some space; `switchback gc` removes what is no longer needed",
        )),
        _ => Ok(()),
    }
}

/// What may stand in switchback.yaml of a service's definition.
fn configured(definition: &Service) -> Service {
    Service {
        migrate: definition.migrate.clone(),
        migrate_deadline: definition.migrate_deadline,
        ports: definition.ports.clone(),
        health: definition.health.clone(),
        ..Service::default()
    }
}

/// Writable bind mounts inside the stack's folder: data, relative to it.
fn data_below(home: &Home, model: &Model) -> BTreeSet<PathBuf> {
    let writable = model.mounts().into_iter().filter(|m| !m.read_only);
    writable
        .filter_map(|m| match m.source {
            MountSource::Bind(path) => Path::new(&path).strip_prefix(home.root()).map(Path::to_owned).ok(),
            _ => None,
        })
        .filter(|p| !p.as_os_str().is_empty())
        .collect()
}

/// Copies; nothing of the copy runs yet.
pub fn copy(runtime: &ComposeRuntime, order: &Order<'_>) -> Result<(Copied, Made), EngineError> {
    let (home, config, stage) = (order.home, order.config, &order.work.stage);
    let docker = runtime.docker();
    home.create_state()?;
    let world = World::open(config)?;
    let (production, from, release) = match home.pointer()? {
        Some(_) => {
            let (_, instance) = gather::production(home, config, &world)?;
            let release = home.release(&instance.release)?;
            (Some(instance.clone()), instance, release)
        }
        None => {
            let adopted = runtime.adopted(home, config, stage)?;
            let instance = gather::first_generation(home, &world, &adopted)?;
            (None, instance, adopted.release.1)
        }
    };
    let running = release::kept_model(home, &from.release)?;
    let wanted = release::wanted(runtime, home, config, order.versions, stage)?;
    room_for(docker, home, &from)?;

    let raw = home.config()?;
    write_atomic(&order.root.join(CONFIG_FILE), yaml(&raw)?.as_bytes())?;
    let copy = Home::open(order.root)?;
    copy.create_state()?;
    let tail: String = order.root.to_string_lossy().to_lowercase().chars().rev().take(8).collect();
    let name = format!("{}-verify-{}", running.project(), tail.chars().rev().collect::<String>());

    let mut to = from.clone();
    for mount in to.stores.values_mut().filter_map(|s| s.mount.as_mut()) {
        let plain = Mount { beside: None, ..mount.clone() };
        *mount = Mount { at: plain.clone_at(&name, SUFFIX), ..plain };
    }
    let recipe = Recipe {
        project: name.clone(),
        identity: copy.id()?,
        stack: home.root().to_owned(),
        root: copy.root().to_owned(),
        mounts: to.stores.values().filter_map(|s| s.mount.clone()).collect(),
        ports: model::free_ports(&release, &project::effective(config, &wanted.model)?)?,
        env: config.staging.env.clone(),
    };
    let images: BTreeMap<ServiceName, ImageRef> =
        release.services.iter().filter_map(|(n, s)| Some((n.clone(), s.image.clone()?))).collect();
    let (current_model, differences) = base_model(&recipe, &running, &images)?;
    let (wanted_model, _) = base_model(&recipe, &wanted.model, &wanted.images)?;
    let mut now = raw.clone();
    now.services = release.services.iter().map(|(n, s)| (n.clone(), configured(&s.definition))).collect();
    let current_config = recipe.config(&now, &from, &current_model);
    let wanted_config = recipe.config(&raw, &from, &wanted_model);

    let kept = production.as_ref().map(|p| home.release_dir(&p.release).join("config"));
    let wanted_files: Vec<String> = release::config_files(home, &wanted.model)?.into_keys().collect();
    let checks = workflow_files(home, config)?;
    let outline = Outline {
        own: checks
            .into_iter()
            .filter_map(|p| p.strip_prefix(home.root()).map(Path::to_owned).ok())
            .chain(release.config.keys().chain(&wanted_files).map(PathBuf::from))
            .collect(),
        apart: data_below(home, &running).into_iter().chain(data_below(home, &wanted.model)).collect(),
        hidden: compose_files(home, config)?,
    };
    link(home, &outline, order.root)?;
    let source = kept.as_deref().filter(|k| k.is_dir()).unwrap_or(home.root());
    super::super::copy::files(release.config.keys().map(String::as_str), source, order.root)?;
    write_atomic(&order.root.join(CONFIG_FILE), yaml(&current_config)?.as_bytes())?;
    write_model(&copy, &name, &current_model)?;

    let live = !runtime.running(home, &from)?.is_empty();
    let mode = if live { CloneMode::Live } else { CloneMode::Cold };
    let at = |home, instance| Placement { home, config, instance, release: &release };
    let output = world.data.seed(&at(home, &from), &at(&copy, &to), mode, order.work)?;
    let mut places = BTreeMap::new();
    for (store, place) in &from.stores {
        let Some(Mount { at: MountPlace::Volume(volume), .. }) =
            to.stores.get(store).and_then(|p| p.mount.as_ref())
        else {
            continue;
        };
        if docker.volume(volume)?.is_some() {
            places.insert(store.clone(), place.clone());
        } else {
            // The stack's own was not made yet either; the model names it as one that exists.
            docker.volume_create(volume, &recipe.identity, &[(DIR_LABEL, &to.dir)], &[])?;
        }
    }
    let current = project::effective(&current_config, &current_model)?;
    let desired = project::effective(&wanted_config, &wanted_model)?;
    let made = Made { images, wanted: wanted_model, wanted_config, wanted_files };
    let words: Vec<String> = differences
        .iter()
        .map(|d| d.service.as_ref().map_or_else(|| d.what.clone(), |s| format!("{s}: {}", d.what)))
        .collect();
    let copied = Copied {
        home: copy,
        current,
        desired,
        // The copy's Compose file names the new versions already, as the user's would after an edit.
        versions: BTreeMap::new(),
        production,
        places,
        copies: output.copies,
        live,
        notes: vec![format!(
            "The copy differs from production, so that it cannot reach it or the world: {}.",
            words.join("; ")
        )],
    };
    Ok((copied, made))
}
