//! Stacks of containers.
//!
//! A sandbox is a Compose project of its own, made as staging is made of production's model: other names, ports and
//! networks, volumes of its own. Everything of it carries the sandbox's own identity as a label, and only what does is
//! ever killed or removed.

use super::super::mutate::Mutation;
use super::super::proof::Proof;
use super::super::sandbox::{Sandbox, yaml};
use super::{Copied, Count, Ground, Lasting, Order, Seen, Tags, Words};
use crate::docker::{Docker, DockerError, STACK_LABEL};
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::gather;
use crate::home::{Home, write_atomic};
use crate::runtime::compose::containers::{PROJECT, holds, of_project, users_of};
use crate::runtime::compose::release::{self, Parts};
use crate::runtime::compose::{
    ComposeRuntime, DIR_LABEL, config_mounts_of, environment_of, instance, project,
};
use crate::runtime::{Adopted, Placement};
use crate::session::Session;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use switchback_core::compose::{ImageName, Model};
use switchback_core::config::Config;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::plan::{self, Plan};
use switchback_core::release::{ImageRef, Instance, MountPlace, Release};
use switchback_core::tags;

mod copying;
mod damage;
mod model;
mod remains;

use model::{with_variable, write_model};

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
}

fn gone(error: DockerError) -> Result<(), DockerError> {
    match error {
        DockerError::NoSuch { .. } | DockerError::Conflict { .. } => Ok(()),
        other => Err(other),
    }
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
        Words {
            many: "containers",
            configuration: "; images, variables and mounts of configuration of the containers that run are the release's",
            vital: "Compose model",
        }
    }

    fn copy(&self, order: &Order<'_>) -> Result<Copied, EngineError> {
        let (copied, made) = copying::copy(&self.runtime, order)?;
        self.keep_made(made);
        Ok(copied)
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
        for summary in remains::containers(&self.docker, &sandbox.home)? {
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

    fn image_tags(&self, reference: &str) -> Result<Option<Tags>, EngineError> {
        let Ok(ImageName { repository, tag: Some(current), .. }) = ImageName::parse(reference) else {
            return Ok(None);
        };
        let prefix = format!("{repository}:");
        let names = self.docker.image_names(&repository)?;
        let tags = names.iter().filter_map(|n| n.strip_prefix(&prefix));
        let newer = tags::newer(&current, tags).into_values().rev().collect();
        Ok(Some(Tags { repository, current, newer }))
    }

    fn end(&self, home: &Home) -> Result<(), EngineError> {
        for container in remains::containers(&self.docker, home)? {
            if matches!(container.state.as_str(), "running" | "paused" | "restarting") {
                self.docker.kill(&container.id).or_else(gone)?;
            }
        }
        Ok(())
    }

    fn clear(&self, home: &Home) -> Result<(), EngineError> {
        remains::clear(&self.docker, home)
    }

    fn left(&self, home: &Home, data: Count) -> Result<Vec<String>, EngineError> {
        remains::left(&self.docker, home, data)
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
