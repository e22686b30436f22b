//! The Compose runtime: services as the containers of a Docker Compose project.
//!
//! Compose itself starts them, from a model that Switchback wrote for the instance; looking, stopping and waiting go
//! through the engine's API. It must never touch a container of another project, and never remove a volume.

pub(crate) mod adopt;
mod apart;
pub(crate) mod containers;
mod harmless;
mod health;
pub(crate) mod instance;
mod isolation;
pub mod kept;
mod lock;
mod logs;
mod migrate;
mod observe;
mod preflight;
pub mod project;
pub(crate) mod release;
mod staging;
mod start;
mod trial;

pub use containers::{PROJECT, container_of, describe_container, is_one_off, of_project, shown, users_of};
pub use instance::{
    DIR_LABEL, command_of, config_mounts_of, differences as staging_differences, environment_of,
};
pub use lock::drift as lock_drift;
pub use preflight::{CLOSED_HINT, closed};

use crate::check::workflow::Endpoint;
use crate::docker::compose::{ComposeCli, ModelFile};
use crate::docker::{Docker, DockerError, Whom};
use crate::error::EngineError;
use crate::gateway::attack::Ended;
use crate::gather;
use crate::home::Home;
use crate::ops::Failed;
use crate::runtime::{
    Adopted, LogPart, Migrated, Observed, Placement, PreflightFor, ProbeResult, Runtime, Stage, Usage,
};
use crate::scratch::Scratch;
use crate::store::Progress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use switchback_core::compose::Model;
use switchback_core::config::Config;
use switchback_core::egress::Egress;
use switchback_core::environment::check_name;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::journal::Output;
use switchback_core::release::{Instance, Release, ServiceRelease, StorePlace};
use switchback_core::workflow::Redactor;

/// Making containers takes a moment each; a hung engine must not hang us.
const UP: Duration = Duration::from_secs(600);
/// Building an image may take long: n8n from npm takes ten minutes here.
const BUILD: Duration = Duration::from_secs(3600);

/// Services as containers.
pub struct ComposeRuntime {
    docker: Arc<Docker>,
    cli: ComposeCli,
    /// What an attack found while services started: the instance's key, and the attempts.
    tried: Mutex<Option<(String, Vec<Ended>)>>,
}

impl ComposeRuntime {
    /// The runtime on an engine.
    pub fn new(docker: Arc<Docker>) -> Result<Self, EngineError> {
        let cli = ComposeCli::find()?.at(&docker);
        Ok(Self { docker, cli, tried: Mutex::default() })
    }

    fn model_file(at: &Placement<'_>) -> Result<ModelFile, EngineError> {
        Ok(ModelFile {
            path: instance::model_file(at),
            project: containers::project(at.instance)?.to_owned(),
            project_dir: at.home.root().to_owned(),
        })
    }

    fn build(
        &self,
        home: &Home,
        model: &Model,
        name: &ServiceName,
        stage: &Stage<'_>,
    ) -> Result<(), EngineError> {
        let path = home.state().join("build.json");
        crate::home::write_json(&path, model)?;
        let file = ModelFile {
            path: path.clone(),
            project: model.project().to_owned(),
            project_dir: home.root().to_owned(),
        };
        let result = self.cli.build(&file, &[name.to_string()], BUILD, stage.cancelled);
        // It holds the environment; what is left of it is worth nothing.
        let _ = std::fs::remove_file(&path);
        Ok(result?)
    }

    fn pull(&self, reference: &str, stage: &Stage<'_>) -> Result<(), EngineError> {
        if (stage.cancelled)() {
            return Err(EngineError::refused("interrupted", "start again"));
        }
        Ok(self.docker.pull(reference, &Progress::none())?)
    }
}

/// Whether it is an environment for people, and no part of a rehearsal.
fn is_environment(instance: &Instance) -> bool {
    !instance.is_production() && check_name(&instance.environment).is_ok()
}

/// What is gone already need not be removed.
fn gone(error: DockerError) -> Result<(), DockerError> {
    if matches!(error, DockerError::NoSuch { .. }) { Ok(()) } else { Err(error) }
}

/// The configuration with everything that the Compose files say; see [`project::effective`].
pub fn effective(home: &Home, config: &Config) -> Result<Config, EngineError> {
    let cli = ComposeCli::find()?;
    project::effective(config, &project::load(&cli, home, config)?)
}

impl Runtime for ComposeRuntime {
    fn made_ms(&self, service: &ServiceRelease) -> Result<Option<i64>, EngineError> {
        let Some(image) = &service.image else { return Ok(None) };
        let found = self.docker.image(&image.id)?;
        Ok(found.and_then(|i| crate::policy::parse_made(&i.created)))
    }

    fn release(
        &self,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        stage: &Stage<'_>,
    ) -> Result<(Digest, Release), EngineError> {
        release::make(self, home, config, versions, stage)
    }

    fn adopted(&self, home: &Home, config: &Config, stage: &Stage<'_>) -> Result<Adopted, EngineError> {
        let model = project::load(&self.cli, home, config)?;
        let running = self.running_images(&model)?;
        // What runs is the truth; only services that do not run are taken by the name of their image.
        let mut images = running.clone();
        if model.services().any(|s| !images.contains_key(s.name())) {
            for (name, image) in release::images(self, home, &model, stage)? {
                images.entry(name).or_insert(image);
            }
        }
        let mut stores = self.stores_of(home, config, &model)?;
        self.name_anonymous(&model, &mut stores)?;
        if running.is_empty() {
            self.has_run(&stores)?;
        }
        let project = Some(model.project().to_owned());
        let release = release::keep(home, config, &release::Parts { model, images })?;
        Ok(Adopted { release, stores, project, running: !running.is_empty() })
    }

    fn stores(&self, home: &Home, config: &Config) -> Result<BTreeMap<StoreName, StorePlace>, EngineError> {
        let model = project::load(&self.cli, home, config)?;
        self.stores_of(home, config, &model)
    }

    fn ports(
        &self,
        home: &Home,
        release: &(Digest, Release),
    ) -> Result<BTreeMap<ServiceName, BTreeMap<String, u16>>, EngineError> {
        let model = release::kept_model(home, &release.0)?;
        let mut all = BTreeMap::new();
        for (name, service) in &release.1.services {
            let published =
                model.service(name).map(switchback_core::compose::Service::ports).unwrap_or_default();
            let host = |container: u16| {
                let port = published.iter().find(|p| p.container == container && p.protocol == "tcp");
                port.and_then(|p| p.published.as_ref()?.parse().ok()).unwrap_or(0)
            };
            all.insert(
                name.clone(),
                service.definition.ports.iter().map(|(n, c)| (n.clone(), host(*c))).collect(),
            );
        }
        Ok(all)
    }

    fn desired(
        &self,
        home: &Home,
        config: &Config,
    ) -> Result<Option<BTreeMap<ServiceName, String>>, EngineError> {
        let Ok(model) = project::load(&self.cli, home, config) else { return Ok(None) };
        let resolved = project::effective(config, &model)?;
        Ok(Some(resolved.services.into_iter().map(|(n, s)| (n, s.version)).collect()))
    }

    fn edits(
        &self,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        release::edits(home, config, versions)
    }

    fn settings(
        &self,
        home: &Home,
        old: (&Digest, &Release),
        new: (&Digest, &Release),
    ) -> Result<Vec<String>, EngineError> {
        let (was, is) = (release::kept_model(home, old.0)?, release::kept_model(home, new.0)?);
        let mut found = switchback_core::compose::changes(&was, &is);
        found.extend(switchback_core::settings::files(&old.1.config, &new.1.config));
        Ok(found)
    }

    fn preflight(&self, at: &Placement<'_>, wanted: PreflightFor) -> Result<Vec<String>, EngineError> {
        preflight::preflight(self, at, wanted)
    }

    fn prepare(
        &self,
        at: &Placement<'_>,
        _: &Scratch,
        stage: &Stage<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let notes = harmless::write_model(&self.docker, at)?;
        (stage.midway)();
        Ok(notes)
    }

    fn start(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, Failed> {
        self.ready(at, stage)?;
        if !is_environment(at.instance) {
            return self.start_containers(at, stage);
        }
        // Most of an attack is waiting for answers that do not come. Not where start-up times are compared.
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| isolation::ahead(&self.docker, at));
            let started = self.start_containers(at, stage);
            // One that failed is made again, where its error is told.
            let tried = attack.join().ok().and_then(Result::ok).map(|ended| (at.instance.key(), ended));
            *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = tried;
            started
        })
    }

    fn stop(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, EngineError> {
        let output = containers::stop(self, at, stage)?;
        isolation::stop(&self.docker, at)?;
        Ok(output)
    }

    fn migrate(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        stage: &Stage<'_>,
    ) -> Result<Migrated, EngineError> {
        migrate::migrate(self, at, name, stage)
    }

    fn running(&self, _: &Home, instance: &Instance) -> Result<Vec<String>, EngineError> {
        let mut found = containers::users_of(&self.docker, instance)?;
        if instance.stores.values().all(|s| s.mount.is_none()) {
            let all = containers::of_project(&self.docker, containers::project(instance)?)?;
            found.extend(all.into_iter().map(|(_, c)| c).filter(|c| c.state.running));
        }
        Ok(found.iter().map(describe_container).collect())
    }

    fn read_back(&self, at: &Placement<'_>) -> Result<Result<Vec<String>, Vec<String>>, EngineError> {
        let (equal, differences) = containers::differences(&self.docker, at)?;
        Ok(if differences.is_empty() { Ok(equal) } else { Err(differences) })
    }

    fn probe(&self, at: &Placement<'_>, name: &ServiceName) -> ProbeResult {
        health::probe(self, at, name)
    }

    fn observe(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Observed>, EngineError> {
        observe::observe(self, at)
    }

    fn usage(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Usage>, EngineError> {
        observe::usage(&self.docker, at)
    }

    fn memory(&self, at: &Placement<'_>, enough: u64) -> Result<u64, EngineError> {
        observe::memory(&self.docker, at, enough)
    }

    fn inside(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        program: &[String],
        terminal: bool,
    ) -> Result<std::process::Command, EngineError> {
        let found = container_of(&self.docker, at.instance, name)?.filter(|c| c.state.running);
        let Some(container) = found else {
            return Err(EngineError::refused(
                format!("{name} does not run in {}", at.instance.environment),
                "`switchback staging up` starts it",
            ));
        };
        let mut command = std::process::Command::new("docker");
        command.arg("exec").arg("-i");
        if terminal {
            command.arg("-t");
        }
        command.arg(&container.id).args(program);
        Ok(command)
    }

    fn staged(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        let found = instance::differences(at)?;
        let words = |d: switchback_core::compose::Difference| match d.service {
            Some(service) => format!("{service}: {} ({})", d.what, d.why),
            None => format!("{} ({})", d.what, d.why),
        };
        Ok(found.into_iter().map(words).collect())
    }

    fn missing(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        observe::missing(&self.docker, at)
    }

    fn restarting(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        let all = containers::of_project(&self.docker, containers::project(at.instance)?)?;
        let again = all.iter().filter(|(_, c)| c.state.restarting);
        Ok(again
            .map(|(service, c)| {
                format!("{service} restarts again and again: it ended with exit code {}", c.state.exit_code)
            })
            .collect())
    }

    fn endpoints(&self, at: &Placement<'_>) -> BTreeMap<ServiceName, Endpoint> {
        health::endpoints(self, at, Whom::Program)
    }

    fn addresses(&self, at: &Placement<'_>) -> BTreeMap<ServiceName, Endpoint> {
        health::endpoints(self, at, Whom::Person)
    }

    fn login(&self) -> Option<String> {
        self.docker.login()
    }

    fn log(&self, at: &Placement<'_>, name: &ServiceName, bytes: u64) -> Vec<String> {
        logs::tail(self, at, name, bytes)
    }

    fn log_after(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        mark: Option<&str>,
        bytes: u64,
    ) -> Result<LogPart, EngineError> {
        logs::after(self, at, name, mark, bytes)
    }

    fn free_bytes(&self, _: &Home) -> Option<u64> {
        engine_free_bytes(&self.docker)
    }

    fn secrets(&self, at: &Placement<'_>) -> Vec<String> {
        let mut found =
            release::kept_model(at.home, &at.instance.release).map(|m| m.secrets()).unwrap_or_default();
        let staged = at.config.staging.env.iter();
        let secret = staged.filter(|(name, _)| switchback_core::workflow::is_secret_name(name));
        found.extend(secret.map(|(_, value)| value.clone()));
        if let Ok(model) = release::kept_model(at.home, &at.instance.release) {
            let named = &at.config.staging.replace_secrets;
            found.extend(model.services().flat_map(|s| {
                s.environment().into_iter().filter(|(name, _)| named.contains(name)).map(|(_, value)| value)
            }));
        }
        found.retain(|s| s.len() >= 4);
        found
    }

    fn variable(&self, at: &Placement<'_>, name: &str) -> Option<String> {
        let model = instance::model(at).ok()?;
        model.services().find_map(|s| s.environment().remove(name))
    }

    fn egress(&self, at: &Placement<'_>) -> Result<Egress, EngineError> {
        isolation::collect(&self.docker, at, &Redactor::from_values(self.secrets(at)))
    }

    fn attack(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
        let key = at.instance.key();
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tried = tried.filter(|(of, _)| *of == key).map(|(_, ended)| ended);
        isolation::attack(&self.docker, at, tried).map(Some)
    }

    fn attack_exposed(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
        trial::attack_exposed(&self.docker, at)
    }

    fn still(&self, at: &Placement<'_>, name: &ServiceName, on: bool) -> Result<usize, EngineError> {
        trial::still(&self.docker, at, name, on)
    }

    fn engine(&self) -> Option<&Docker> {
        Some(&self.docker)
    }

    fn end(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError> {
        trial::signal(&self.docker, at, name, "KILL")
    }

    fn deaf(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError> {
        trial::signal(&self.docker, at, name, "STOP")
    }

    fn lacking(&self, home: &Home, release: (&Digest, &Release)) -> Result<Option<trial::Told>, EngineError> {
        trial::lacking(home, release.0)
    }

    fn discard(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        if instance.is_production() {
            return Ok(()); // its project is the user's
        }
        staging::remove(&self.docker, home, &instance.dir, &[])
    }

    fn kill_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<(), EngineError> {
        staging::remove(&self.docker, home, dir, except)
    }

    fn left_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<Vec<String>, EngineError> {
        staging::left(&self.docker, home, dir, except)
    }

    fn forget(&self, home: &Home, releases: &[Release]) -> Result<usize, EngineError> {
        let images = releases.iter().flat_map(|r| r.services.values()).filter_map(|s| s.image.as_ref());
        kept::release(self, home, &images.map(|i| i.id.clone()).collect())
    }

    fn reachable(&self) -> Result<(), EngineError> {
        Ok(self.docker.ping()?)
    }

    fn is_here(&self) -> bool {
        self.docker.is_local()
    }

    fn activated(&self, at: &Placement<'_>) -> Result<(), EngineError> {
        lock::write(at)?;
        // What runs now is what the next rollback returns to; a stack that was taken over has had no preflight. It runs, so a
        // name that cannot be given does not fail the switch; the next preflight says why.
        for image in at.release.services.values().filter_map(|s| s.image.as_ref()) {
            if kept::keep(self, at.home, &image.id).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl ComposeRuntime {
    /// Where a port of a container is reached from here, if it is.
    pub fn reached(&self, container: &crate::docker::Container, port: u16) -> Option<(String, u16)> {
        health::address(self, container, port, Whom::Program)
    }

    /// The program that reads Compose files.
    pub fn compose(&self) -> &ComposeCli {
        &self.cli
    }

    /// Where the data of production lies; facts for plans.
    pub fn docker(&self) -> &Arc<Docker> {
        &self.docker
    }

    /// The `docker compose` that is used.
    pub fn cli(&self) -> &ComposeCli {
        &self.cli
    }
}

/// Free bytes where the engine keeps its data, if this host can tell.
pub fn engine_free_bytes(docker: &Docker) -> Option<u64> {
    let root = docker.is_local().then(|| docker.info().ok()).flatten()?.root_dir;
    gather::free_bytes(std::path::Path::new(&root)).ok()
}
