//! Stacks of containers.
//!
//! A sandbox is a Compose project of its own, made as staging is made of production's model: other names, ports and
//! networks, volumes of its own. Everything of it carries the sandbox's own identity as a label, and only what does is
//! ever killed or removed.

use super::super::mutate::Mutation;
use super::super::proof::Proof;
use super::super::sandbox::{Outline, Sandbox, link, yaml};
use super::{Copied, Count, Ground, Lasting, Order, Seen, Words};
use crate::checks::workflow_files;
use crate::data::{ComposeData, Data as _};
use crate::docker::{Docker, DockerError, STACK_LABEL};
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::gather;
use crate::home::{CONFIG_FILE, Home, write_atomic};
use crate::runtime::compose::containers::{PROJECT, holds, of_project, users_of};
use crate::runtime::compose::release::{self, Parts};
use crate::runtime::compose::{
    ComposeRuntime, DIR_LABEL, config_mounts_of, engine_free_bytes, environment_of, instance, project,
};
use crate::runtime::{Adopted, Placement, Runtime as _};
use crate::session::Session;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use switchback_core::compose::Model;
use switchback_core::config::{Config, Service};
use switchback_core::duration::human_bytes;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::plan::{self, CloneMode, Plan};
use switchback_core::release::{ImageRef, Instance, Mount, MountPlace, MountSource, Release};

mod damage;
mod model;

use model::{Recipe, base_model, with_variable, write_model};

/// What the copy's volumes are called after.
const SUFFIX: &str = "sandbox";

/// Containers of Docker Compose projects.
pub struct ComposeGround {
    runtime: ComposeRuntime,
    docker: Arc<Docker>,
    made: Mutex<Option<Made>>,
}

/// What a copied stack goes to, and what it was made from.
#[derive(Clone)]
struct Made {
    /// The images that production runs, whatever their names mean by now.
    images: BTreeMap<ServiceName, ImageRef>,
    wanted: Model,
    wanted_config: Config,
    wanted_files: Vec<String>,
}

impl ComposeGround {
    /// The ground on the engine that this process is told of.
    pub fn open() -> Result<Self, EngineError> {
        let docker = Arc::new(Docker::connect()?);
        Ok(Self { runtime: ComposeRuntime::new(Arc::clone(&docker))?, docker, made: Mutex::new(None) })
    }

    fn made(&self) -> Result<Made, EngineError> {
        let made = self.made.lock().ok().and_then(|m| m.clone());
        made.ok_or_else(|| EngineError::Internal { detail: "no stack was copied".to_owned() })
    }

    fn keep_made(&self, made: Made) {
        if let Ok(mut slot) = self.made.lock() {
            *slot = Some(made);
        }
    }

    /// The containers of a sandbox, helpers included.
    fn containers(&self, home: &Home) -> Result<Vec<crate::docker::ContainerSummary>, EngineError> {
        let id = home.id()?;
        if id == UNBORN {
            return Ok(Vec::new());
        }
        Ok(self.docker.containers(&[(STACK_LABEL, &id)])?)
    }

    fn room_for(&self, home: &Home, from: &Instance) -> Result<(), EngineError> {
        let cost = ComposeData::new(Arc::clone(&self.docker)).cost(home, from)?;
        // The stack's copy, two environments of a rehearsal and a generation with its base.
        let need = if cost.shared { 0 } else { cost.bytes.saturating_mul(6) };
        match engine_free_bytes(&self.docker) {
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
}

/// The identity of a stack without a state: nothing carries it as a label.
const UNBORN: &str = "unborn";

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

fn gone(error: DockerError) -> Result<(), DockerError> {
    match error {
        DockerError::NoSuch { .. } | DockerError::Conflict { .. } => Ok(()),
        other => Err(other),
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

/// The stack's Compose files and what belongs to them: the copy has its own.
fn compose_files(home: &Home, config: &Config) -> Result<BTreeSet<PathBuf>, EngineError> {
    let mut files: BTreeSet<PathBuf> =
        project::base_files(home, config)?.into_iter().map(PathBuf::from).collect();
    for name in ["compose", "docker-compose", "compose.override", "docker-compose.override"] {
        files.extend(["yaml", "yml"].map(|end| PathBuf::from(format!("{name}.{end}"))));
    }
    files.extend([".env", project::LOCK_FILE].map(PathBuf::from));
    Ok(files)
}

impl Ground for ComposeGround {
    fn words(&self) -> Words {
        Words { many: "containers", vital: "Compose model" }
    }

    fn copy(&self, order: &Order<'_>) -> Result<Copied, EngineError> {
        let (home, config, stage) = (order.home, order.config, &order.work.stage);
        home.create_state()?;
        let world = World::open(config)?;
        let (production, from, release) = match home.pointer()? {
            Some(_) => {
                let (_, instance) = gather::production(home, config, &world)?;
                let release = home.release(&instance.release)?;
                (Some(instance.clone()), instance, release)
            }
            None => {
                let adopted = self.runtime.adopted(home, config, stage)?;
                let instance = gather::first_generation(home, &world, &adopted)?;
                (None, instance, adopted.release.1)
            }
        };
        let running = release::kept_model(home, &from.release)?;
        let wanted = release::wanted(&self.runtime, home, config, order.versions, stage)?;
        self.room_for(home, &from)?;

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
        super::copy::files(release.config.keys().map(String::as_str), source, order.root)?;
        write_atomic(&order.root.join(CONFIG_FILE), yaml(&current_config)?.as_bytes())?;
        write_model(&copy, &name, &current_model)?;

        let live = !self.runtime.running(home, &from)?.is_empty();
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
            if self.docker.volume(volume)?.is_some() {
                places.insert(store.clone(), place.clone());
            } else {
                // The stack's own was not made yet either; the model names it as one that exists.
                self.docker.volume_create(volume, &recipe.identity, &[(DIR_LABEL, &to.dir)], &[])?;
            }
        }
        let current = project::effective(&current_config, &current_model)?;
        let desired = project::effective(&wanted_config, &wanted_model)?;
        self.keep_made(Made { images, wanted: wanted_model, wanted_config, wanted_files });
        let words: Vec<String> = differences
            .iter()
            .map(|d| d.service.as_ref().map_or_else(|| d.what.clone(), |s| format!("{s}: {}", d.what)))
            .collect();
        Ok(Copied {
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
        })
    }

    fn plan_up(&self, sandbox: &Sandbox, _: &Session<'_>) -> Result<Plan, EngineError> {
        let (home, config) = (&sandbox.home, &sandbox.current);
        let world = World::open(config)?;
        let model = project::load(self.runtime.cli(), home, config)?;
        let project = Some(model.project().to_owned());
        // The images that production runs: a name may mean another one by now.
        let release = release::keep(home, config, &Parts { model, images: self.made()?.images })?;
        let stores = world.runtime.stores(home, config)?;
        let adopted = Adopted { release, stores, project, running: false };
        let instance = gather::first_generation(home, &world, &adopted)?;
        let budget_ms = config.rollback.budget.as_millis();
        Ok(plan::up(gather::new_run(), config.stack.clone(), now_ms(), budget_ms, &instance, true))
    }

    fn settle(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let made = self.made()?;
        let names = made.wanted_files.iter().map(String::as_str);
        super::copy::files(names, sandbox.stack(), sandbox.root())?;
        write_model(&sandbox.home, made.wanted.project(), &made.wanted)?;
        write_atomic(&sandbox.home.config_file(), yaml(&made.wanted_config)?.as_bytes())
    }

    fn with_variable(
        &self,
        sandbox: &Sandbox,
        variable: &str,
        lasting: Lasting,
    ) -> Result<Option<(ServiceName, Config)>, EngineError> {
        let mut made = self.made()?;
        let Some((service, changed)) = with_variable(&made.wanted, variable)? else { return Ok(None) };
        write_model(&sandbox.home, changed.project(), &changed)?;
        if lasting == Lasting::Kept {
            made.wanted = changed;
            self.keep_made(made);
        }
        Ok(Some((service, sandbox.desired.clone())))
    }

    fn seen(&self, home: &Home, config: &Config) -> Result<Seen, EngineError> {
        let model = project::load(self.runtime.cli(), home, config)?;
        let mut seen = Seen::default();
        for (_, container) in of_project(&self.docker, model.project())? {
            let state = &container.state;
            let identity = format!(
                "{} of {}, started {}, running {}, paused {}",
                container.id, container.image_id, state.started_at, state.running, state.paused
            );
            seen.running.insert(container.name.clone(), identity);
            seen.starts.insert(container.name.clone(), container.restart_count);
            for mount in container.mounts.iter().filter(|m| !m.name.is_empty()) {
                let volume = self.docker.volume(&mount.name)?;
                let found = volume.map_or_else(|| "gone".to_owned(), |v| format!("{:?}", v.labels));
                seen.holds.insert(format!("volume {}", mount.name), found);
            }
        }
        for network in self.docker.networks(&[(PROJECT, model.project())])? {
            seen.holds.insert(format!("network {}", network.name), network.id);
        }
        seen.files = compose_files(home, config)?
            .into_iter()
            .map(|p| p.to_string_lossy().into_owned())
            .chain(release::config_files(home, &model)?.into_keys())
            .collect();
        Ok(seen)
    }

    fn trespass(&self, sandbox: &Sandbox, production: &Home) -> Result<(usize, Vec<String>), EngineError> {
        let project = release_project(sandbox, production)?;
        let networks: BTreeSet<String> = match &project {
            Some(project) => {
                self.docker.networks(&[(PROJECT, project)])?.into_iter().map(|n| n.name).collect()
            }
            None => BTreeSet::new(),
        };
        let (mut looked, mut found) = (0, Vec::new());
        for summary in self.containers(&sandbox.home)? {
            if !summary.labels.get(DIR_LABEL).is_some_and(|d| d.starts_with("staging/")) {
                continue;
            }
            let Some(container) = self.docker.inspect(&summary.id)? else { continue };
            looked += 1;
            let name = &container.name;
            for (store, place) in &sandbox.places {
                if place.mount.as_ref().is_some_and(|m| holds(&container, &m.at)) {
                    found.push(format!("{name} mounts production's {store}"));
                }
            }
            for mount in container.mounts.iter().filter(|m| m.kind == "bind") {
                if mount.writable && !Path::new(&mount.source).starts_with(sandbox.root()) {
                    found.push(format!("{name} can write to {}", mount.source));
                }
            }
            for network in container.networks.keys() {
                if networks.contains(network) || network == "host" {
                    found.push(format!("{name} is on the network {network}"));
                }
            }
            for port in container.ports.iter().filter(|p| p.host_ip != "127.0.0.1") {
                found.push(format!("{name} listens on {}:{}", port.host_ip, port.host_port));
            }
        }
        Ok((looked, found))
    }

    fn same_definition(
        &self,
        (real_home, real_instance, real): (&Home, &Instance, &Release),
        (copy_home, copy_instance, copy): (&Home, &Instance, &Release),
        proof: &mut Proof,
    ) -> Result<(), EngineError> {
        let replaced = real_home.config()?.staging.env;
        let real_model = release::kept_model(real_home, &real_instance.release)?;
        let copy_model = release::kept_model(copy_home, &copy_instance.release)?;
        let mut variables = 0;
        for (name, service) in &real.services {
            let at = name.as_str();
            let other = copy.services.get(name);
            let image = |s: &switchback_core::release::ServiceRelease| s.image.as_ref().map(|i| i.id.clone());
            proof.demand(other.map(image) == Some(image(service)), at, "another image runs in staging");
            let same = other.is_some_and(|o| {
                let (copy, real) = (&o.definition, &service.definition);
                copy.version == real.version
                    && copy.ports == real.ports
                    && copy.health == real.health
                    && copy.stop == real.stop
                    && copy.needs == real.needs
                    && copy.migrate == real.migrate
            });
            proof.demand(same, at, "its definition differs");
            let environment = |m: &Model| {
                m.service(name).map(switchback_core::compose::Service::environment).unwrap_or_default()
            };
            let other = environment(&copy_model);
            for (variable, value) in environment(&real_model) {
                // What routes traffic to production is left out; that is among the differences.
                if let Some(copied) = other.get(&variable).filter(|_| !replaced.contains_key(&variable)) {
                    variables += 1;
                    proof.demand(*copied == value, at, format!("its variable {variable} has another value"));
                }
            }
        }
        proof
            .measure("images equal to production's, by id", real.services.len())
            .measure("variables equal to production's", variables);
        Ok(())
    }

    fn config_now(
        &self,
        home: &Home,
        instance: &Instance,
    ) -> Result<BTreeMap<String, Option<Digest>>, EngineError> {
        let release = home.release(&instance.release)?;
        let kept = home.release_dir(&instance.release).join("config");
        let read = |f: &String| std::fs::read(kept.join(f)).ok().map(|c| Digest::of(&c));
        Ok(release.config.keys().map(|f| (f.clone(), read(f))).collect())
    }

    fn running_configuration(
        &self,
        home: &Home,
        config: &Config,
        instance: &Instance,
        proof: &mut Proof,
    ) -> Result<(), EngineError> {
        let release = home.release(&instance.release)?;
        let at = Placement { home, config, instance, release: &release };
        let (mut variables, mut mounts) = (0, 0);
        for (name, service) in &release.services {
            let place = format!("{name}, as it runs");
            let Some(container) = crate::runtime::compose::container_of(&self.docker, instance, name)? else {
                proof.demand(false, place, "it has no container");
                continue;
            };
            let image = service.image.as_ref().map(|i| i.id.as_str());
            proof.demand(image == Some(container.image_id.as_str()), &place, "it runs another image");
            for (variable, value) in environment_of(&at, name) {
                let wanted = format!("{variable}={value}");
                variables += 1;
                proof.demand(
                    container.env.contains(&wanted),
                    &place,
                    format!("its variable {variable} is another"),
                );
            }
            for mount in config_mounts_of(&at, name) {
                let MountPlace::Dir(source) = &mount.place else { continue };
                mounts += 1;
                let right = container
                    .mounts
                    .iter()
                    .any(|m| m.destination == mount.target && m.source == *source && !m.writable);
                proof.demand(right, &place, format!("{} is not the release's own copy", mount.target));
            }
        }
        proof
            .measure("images, by id", release.services.len())
            .measure("variables of the running containers", variables)
            .measure("mounts of configuration", mounts);
        Ok(())
    }

    fn crash(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        let id = home.id()?;
        for container in users_of(&self.docker, instance)? {
            if container.labels.get(STACK_LABEL) == Some(&id) {
                self.docker.kill(&container.id).or_else(gone)?;
            }
        }
        Ok(())
    }

    fn lose_rows(
        &self,
        home: &Home,
        instance: &Instance,
        store: &StoreName,
        not: &[String],
    ) -> Result<Option<Mutation>, EngineError> {
        damage::lose_rows(&self.docker, home, instance, (store, not)).map(Some)
    }

    fn vital(&self, home: &Home, instance: &Instance) -> PathBuf {
        instance::model_file_of(home, instance)
    }

    fn end(&self, home: &Home) -> Result<(), EngineError> {
        for container in self.containers(home)? {
            if matches!(container.state.as_str(), "running" | "paused" | "restarting") {
                self.docker.kill(&container.id).or_else(gone)?;
            }
        }
        Ok(())
    }

    fn clear(&self, home: &Home) -> Result<(), EngineError> {
        let id = home.id()?;
        if id == UNBORN {
            return Ok(());
        }
        let own = [(STACK_LABEL, id.as_str())];
        for container in self.containers(home)? {
            self.docker.remove_with_scratch(&container.id)?;
        }
        for network in self.docker.networks(&own)? {
            self.docker.network_remove(&network.name, &id)?;
        }
        for volume in self.docker.volumes(&own)? {
            // A helper of production's that a killed run left may hold it; nobody else does.
            for user in self.docker.volume_users(&volume.name)? {
                let helper = self.docker.inspect(&user)?;
                if helper.is_some_and(|c| c.labels.contains_key(crate::docker::HELPER_LABEL)) {
                    self.docker.remove_with_scratch(&user)?;
                }
            }
            // All its generations' data is the sandbox's: none of it is live.
            if let Some(scratch) = self.docker.scratch_volume(&volume.name, &id, &[])? {
                self.docker.volume_remove(&scratch)?;
            }
        }
        Ok(())
    }

    fn left(&self, home: &Home, data: Count) -> Result<Vec<String>, EngineError> {
        let id = home.id()?;
        if id == UNBORN {
            return Ok(Vec::new());
        }
        let all = data == Count::Everything;
        let own = [(STACK_LABEL, id.as_str())];
        let containers = self.containers(home)?.into_iter().filter(|c| all || c.state == "running");
        let mut found: Vec<String> = containers.map(|c| format!("container {} is left", c.name)).collect();
        if all {
            let networks = self.docker.networks(&own)?.into_iter().map(|n| n.name);
            found.extend(networks.map(|n| format!("network {n} is left")));
            let volumes = self.docker.volumes(&own)?.into_iter().map(|v| v.name);
            found.extend(volumes.map(|v| format!("volume {v} is left")));
        }
        Ok(found)
    }
}

/// The project that production runs as.
fn release_project(sandbox: &Sandbox, production: &Home) -> Result<Option<String>, EngineError> {
    if let Some(instance) = &sandbox.production {
        return Ok(instance.project.clone());
    }
    let config = production.config()?;
    let cli = crate::docker::compose::ComposeCli::find()?;
    Ok(Some(project::load(&cli, production, &config)?.project().to_owned()))
}

/// Restricts a file that holds secrets to its owner.
fn private(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, permissions).map_err(io("set the mode of", path))
}
