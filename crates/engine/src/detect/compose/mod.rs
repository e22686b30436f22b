//! Describing a Compose stack for a first configuration: services, data, and how they are looked at.
//!
//! Only looks: it asks the engine, reads mounts through helper containers, and sends GET requests to services that run.
//! It must never start, stop or change a container or a volume. What could not be seen is said, never guessed.

mod data;
mod known;
mod services;

pub use known::Known;

use crate::docker::Docker;
use crate::docker::compose::ComposeCli;
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::compose::project::{self, base_files, load};
use crate::runtime::compose::{ComposeRuntime, of_project};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use switchback_core::compose::{HealthSource, ImageFacts, Model, Software, detect};
use switchback_core::config::Config;
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;

/// The label of Compose with the folder of a project.
const WORKING_DIR: &str = "com.docker.compose.project.working_dir";

/// A Compose stack, as found.
#[derive(Debug, Clone)]
pub struct ComposeStack {
    /// The Compose files, relative to the folder.
    pub files: Vec<String>,
    /// Name of the project.
    pub project: String,
    /// Whether the project runs under another name than Compose would give it.
    pub renamed: bool,
    /// Whether containers of it run.
    pub running: bool,
    /// The services.
    pub services: Vec<FoundService>,
    /// The data.
    pub stores: Vec<FoundData>,
    /// What services may write to and is no store.
    pub shared: Vec<Shared>,
    /// What is dangerous or worth knowing.
    pub warnings: Vec<String>,
    /// What could not be looked at, and so may be missing.
    pub unseen: Vec<String>,
    model: Model,
    facts: BTreeMap<ServiceName, ImageFacts>,
}

impl ComposeStack {
    /// Confirms that a configuration fits the Compose files, as every other command does first.
    pub fn accepts(&self, root: &Path, config: &Config) -> Result<(), EngineError> {
        let home = Home::future(root)?;
        project::effective(config, &self.model)?;
        let environment =
            |name: &ServiceName| self.facts.get(name).map(|f| f.env.clone()).unwrap_or_default();
        project::stores(&home, config, &self.model, &environment).map(drop)
    }

    /// Whether a store exists only with its container, and there is none yet.
    pub fn must_run_first(&self) -> bool {
        !self.running && self.stores.iter().any(|s| matches!(s.at, DataAt::Anonymous { .. }))
    }
}

/// A service, as found.
#[derive(Debug, Clone)]
pub struct FoundService {
    /// Its name.
    pub name: ServiceName,
    /// Its image.
    pub image: Option<String>,
    /// The database that it is.
    pub software: Option<Software>,
    /// The port of the container that people or other services use, by a name for it.
    pub port: Option<(String, u16)>,
    /// Whether the Compose file publishes that port.
    pub published: bool,
    /// Where its health is known from.
    pub health: HealthSource,
    /// The path that answered as a healthy one does.
    pub healthy_path: Option<String>,
    /// What `GET /` answers now; `None` if nothing runs, or it speaks no HTTP.
    pub front_page: Option<u16>,
    /// Whether it was asked at all.
    pub asked: bool,
    /// The application, if it is known.
    pub known: Option<&'static Known>,
}

/// What a store is configured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataAt {
    /// The key of a volume.
    Volume(String),
    /// A bind mount: its path, relative to the stack where it lies in it.
    Bind(String),
    /// A volume without a name.
    Anonymous {
        /// The service that mounts it.
        service: ServiceName,
        /// Where.
        target: String,
    },
    /// The service that runs a Postgres server.
    Server(ServiceName),
}

/// A store, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundData {
    /// A name for it.
    pub name: String,
    /// Its kind.
    pub kind: StoreKind,
    /// What it is configured by.
    pub at: DataAt,
    /// The path below that; empty for all of it.
    pub path: String,
    /// What to know about it.
    pub note: Option<String>,
    /// Whether its software writes its files anew whenever it runs, so that they cannot be compared.
    pub rewritten: bool,
}

/// A mount that is no store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// The volume's key or the path.
    pub what: String,
    /// Why it is none.
    pub why: String,
}

/// The Compose files of a folder; empty if there are none.
pub fn compose_files(root: &Path) -> Vec<String> {
    let (Ok(home), Ok(config)) = (Home::future(root), blank(None)) else { return Vec::new() };
    base_files(&home, &config).unwrap_or_default()
}

/// A configuration that says nothing but that the stack is one of Compose.
fn blank(project: Option<&str>) -> Result<Config, EngineError> {
    let mut config = Config::parse("stack: new\nruntime: compose\n", "")?;
    if let Some(project) = project {
        config.compose.get_or_insert_default().project = Some(project.to_owned());
    }
    Ok(config)
}

/// Describes the stack in a folder.
pub fn describe(root: &Path) -> Result<ComposeStack, EngineError> {
    let home = Home::future(root)?;
    let config = blank(None)?;
    let cli = ComposeCli::find()?;
    let files = base_files(&home, &config)?;
    let mut model = load(&cli, &home, &config)?;
    let mut unseen = Vec::new();
    let docker = match Docker::connect().and_then(|d| d.containers(&[]).map(|_| d)) {
        Ok(docker) => Some(Arc::new(docker)),
        Err(e) => {
            unseen.push(format!(
                "{e}. Not seen: what images declare (volumes, ports, health checks), SQLite databases inside volumes, and what answers"
            ));
            None
        }
    };
    let mut renamed = false;
    if let Some(docker) = &docker
        && let Some(other) = runs_as(docker, home.root(), model.project())?
    {
        model = load(&cli, &home, &blank(Some(&other))?)?;
        renamed = true;
    }
    let facts = match &docker {
        Some(docker) => image_facts(docker, &model, &mut unseen)?,
        None => BTreeMap::new(),
    };
    let mut detected = detect(&model, &facts, &home.root().to_string_lossy());
    let containers = match &docker {
        Some(docker) => of_project(docker, model.project())?,
        None => Vec::new(),
    };
    let mut stack = ComposeStack {
        files,
        project: model.project().to_owned(),
        renamed,
        running: containers.iter().any(|(_, c)| c.state.running),
        services: Vec::new(),
        stores: Vec::new(),
        shared: Vec::new(),
        warnings: Vec::new(),
        unseen,
        model,
        facts,
    };
    for warning in std::mem::take(&mut detected.warnings) {
        let of = warning.service.map_or_else(String::new, |s| format!("{s}: "));
        stack.warnings.push(format!("{of}{}. {}", warning.what, sentence(&warning.why)));
    }
    let runtime = docker.as_ref().map(|d| ComposeRuntime::new(Arc::clone(d))).transpose()?;
    let model = stack.model.clone();
    stack.services = services::look(runtime.as_ref(), &model, detected.services, &containers);
    data::look(&home, docker.as_deref(), &model, &detected.stores, &containers, &mut stack)?;
    Ok(stack)
}

/// With a capital letter at its start.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The other name under which the folder's project runs, if only that one does.
fn runs_as(docker: &Docker, root: &Path, project: &str) -> Result<Option<String>, EngineError> {
    let root = root.to_string_lossy();
    let all = docker.containers(&[(WORKING_DIR, &root)])?;
    // Staging copies are recorded with the stack's folder, too.
    let own = all.iter().filter(|c| !c.labels.contains_key(crate::docker::STACK_LABEL));
    let names: BTreeSet<&String> =
        own.filter_map(|c| c.labels.get(crate::runtime::compose::PROJECT)).collect();
    let mut names = names.into_iter();
    Ok(match (names.next(), names.next()) {
        (Some(only), None) if only != project => Some(only.clone()),
        _ => None,
    })
}

/// What the images of a model say about themselves. What is not there is told.
pub fn image_facts(
    docker: &Docker,
    model: &Model,
    unseen: &mut Vec<String>,
) -> Result<BTreeMap<ServiceName, ImageFacts>, EngineError> {
    let mut facts = BTreeMap::new();
    for service in model.services() {
        let built = || format!("{}-{}", model.project(), service.name());
        let reference = service.image().map_or_else(built, str::to_owned);
        let Some(image) = docker.image(&reference)? else {
            unseen.push(format!(
                "{}: the image {reference} is not on the engine; volumes, ports and health check that it declares are not known",
                service.name()
            ));
            continue;
        };
        let pairs = image.env.iter().filter_map(|e| e.split_once('='));
        let tcp = image.exposed_ports.iter().filter_map(|p| p.strip_suffix("/tcp")?.parse().ok());
        facts.insert(
            service.name().clone(),
            ImageFacts {
                env: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                volumes: image.volumes.clone(),
                exposed: tcp.collect(),
                has_healthcheck: image.healthcheck.first().is_some_and(|t| t != "NONE"),
            },
        );
    }
    Ok(facts)
}
