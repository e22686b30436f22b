//! The project: its files, services, images and mounts.

use super::super::Findings;
use super::Scene;
use std::collections::{BTreeMap, BTreeSet};
use switchback_core::compose::{ImageFacts, Model, NO_HEALTH_CHECK, Software, detect};
use switchback_core::config::Config;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::release::{MountSource, StorePlace};
use switchback_engine::detect::compose::image_facts;
use switchback_engine::docker::Docker;
use switchback_engine::docker::compose::ComposeCli;
use switchback_engine::runtime::compose::{PROJECT, kept, project};

/// What the project's files say.
pub struct Project {
    /// The model.
    pub model: Model,
    /// The configuration with the services of the model in it.
    pub config: Config,
    /// Where production's data lies before the first promotion.
    pub stores: BTreeMap<StoreName, StorePlace>,
    /// The services that workflows should use.
    pub used: BTreeSet<ServiceName>,
    /// Names of all variables that services get.
    pub variables: BTreeSet<String>,
}

/// Looks at the project; what it says, if it can be read.
pub fn look(scene: &Scene<'_>, findings: &mut Findings) -> Option<Project> {
    let (home, config) = (scene.home, scene.config);
    // Without Compose nothing can be read; that was reported with the host.
    let cli = ComposeCli::find().ok()?;
    let model = match project::load(&cli, home, config) {
        Ok(model) => model,
        Err(e) => {
            findings.error("compose_files", &e);
            return None;
        }
    };
    let files = project::base_files(home, config).unwrap_or_default();
    findings.ok(
        "compose_files",
        format!(
            "{} can be read: {} services in the project {}",
            files.join(", "),
            model.services().count(),
            model.project()
        ),
    );
    let resolved = match project::effective(config, &model) {
        Ok(resolved) => resolved,
        Err(e) => {
            findings.error("services", &e);
            return None;
        }
    };
    let mut unseen = Vec::new();
    let facts = match scene.docker.map(|d| image_facts(d, &model, &mut unseen)) {
        Some(Ok(facts)) => facts,
        Some(Err(e)) => {
            findings.error("images", &e);
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    let detected = detect(&model, &facts, &home.root().to_string_lossy());
    if let Some(docker) = scene.docker {
        // Before the first run there is no state, and nothing is kept.
        let stack = home.state().exists().then(|| home.id().ok()).flatten();
        images(docker, &model, stack.as_deref(), findings);
        external(docker, &model, findings);
    }
    for warning in &detected.warnings {
        let asked = warning.service.as_ref().and_then(|s| config.services.get(s)).map(|s| &s.health);
        let configured = asked.is_some_and(|h| h.http.is_some() || h.tcp.is_some() || h.command.is_some());
        if warning.what == NO_HEALTH_CHECK && configured {
            continue;
        }
        let of = warning.service.as_ref().map_or_else(String::new, |s| format!("{s}: "));
        findings.warning("project", format!("{of}{}", warning.what), warning.why.clone());
    }
    for (name, service) in &resolved.services {
        if service.health.stable.0.is_zero() {
            findings.warning(
                "stable",
                format!("services.{name}.health.stable is 0: a service that answers once and then ends counts as healthy"),
                "2s sees most of them",
            );
        }
    }
    let stores = stores(scene, &model, &facts, findings);
    let database = |name: &ServiceName| {
        detected.services.iter().any(|s| s.name == *name && s.software.is_some_and(is_database))
    };
    let used =
        model.services().filter(|s| !s.ports().is_empty() && !database(s.name())).map(|s| s.name().clone());
    Some(Project {
        used: used.collect(),
        variables: model.services().flat_map(|s| s.environment().into_keys()).collect(),
        config: resolved,
        stores,
        model,
    })
}

fn is_database(software: Software) -> bool {
    match software {
        Software::Postgres | Software::Redis | Software::Neo4j | Software::Mysql | Software::Mongo => true,
    }
}

/// Whether every image is there, and can be had again.
fn images(docker: &Docker, model: &Model, stack: Option<&str>, findings: &mut Findings) {
    for service in model.services() {
        let name = service.name();
        let reference = service.image().map_or_else(|| format!("{}-{name}", model.project()), str::to_owned);
        let image = match docker.image(&reference) {
            Ok(image) => image,
            Err(e) => {
                findings.problem("images", e.to_string(), "`docker image ls` shows what is there");
                continue;
            }
        };
        let Some(image) = image else {
            let message = format!("the image {reference} of {name} is not on the engine");
            if service.has_build() {
                findings.warning("images", message, "it is built when it is needed, which takes its time");
            } else {
                findings.warning(
                    "images",
                    message,
                    format!("it is pulled when it is needed; now: docker pull {reference}"),
                );
            }
            continue;
        };
        let kept = stack.map(|id| format!("{}:{}", kept::REPOSITORY, kept::tag(id, &image.id)));
        if !image.repo_digests.is_empty() {
            findings.ok("images", format!("{name}: {reference} is there and can be pulled again"));
        } else if let Some(kept) = kept.filter(|kept| image.repo_tags.contains(kept)) {
            findings.ok(
                "images",
                format!("{name}: {reference} was built or loaded here; a copy is kept as {kept}"),
            );
        } else {
            findings.warning(
                "images",
                format!("{name}: {reference} was built or loaded here: no registry has it"),
                "a run keeps it from `docker image prune` by a tag (switchback-kept); save it elsewhere for the loss of this engine",
            );
        }
    }
}

/// Volumes that other projects use, too.
fn external(docker: &Docker, model: &Model, findings: &mut Findings) {
    for key in model.volumes() {
        let Some(volume) = model.volume(key).filter(|v| v.external) else { continue };
        match docker.volume(&volume.name) {
            Ok(Some(_)) => {}
            Ok(None) => {
                findings.problem(
                    "external",
                    format!("the external volume {} does not exist", volume.name),
                    format!("docker volume create {}", volume.name),
                );
                continue;
            }
            Err(e) => {
                findings.problem("external", e.to_string(), "`docker volume ls` shows what is there");
                continue;
            }
        }
        for user in docker.volume_users(&volume.name).unwrap_or_default() {
            let Ok(Some(container)) = docker.inspect(&user) else { continue };
            let project = container.labels.get(PROJECT).map_or("", String::as_str);
            if project != model.project() {
                let whose = if project.is_empty() {
                    "no project".to_owned()
                } else {
                    format!("the project {project}")
                };
                findings.warning(
                    "external",
                    format!(
                        "the external volume {} is used by {} of {whose}, too",
                        volume.name, container.name
                    ),
                    "after a promotion it would go on with the old generation's data",
                );
            }
        }
    }
}

fn stores(
    scene: &Scene<'_>,
    model: &Model,
    facts: &BTreeMap<ServiceName, ImageFacts>,
    findings: &mut Findings,
) -> BTreeMap<StoreName, StorePlace> {
    if scene.config.stores.is_empty() {
        findings.warning(
            "stores",
            "no store is configured: data would neither be rehearsed on nor come back with a rollback",
            "name volumes, folders and databases under `stores`; `switchback init` finds them",
        );
    }
    let environment = |name: &ServiceName| facts.get(name).map(|f| f.env.clone()).unwrap_or_default();
    match project::stores(scene.home, scene.config, model, &environment) {
        Ok(stores) => {
            findings.ok("stores", "everything that services write to is a store, or said to be shared");
            anonymous(model, facts, &stores, findings);
            stores
        }
        Err(e) => {
            findings.error("stores", &e);
            BTreeMap::new()
        }
    }
}

/// Volumes that an image declares and that the Compose file does not mention.
fn anonymous(
    model: &Model,
    facts: &BTreeMap<ServiceName, ImageFacts>,
    stores: &BTreeMap<StoreName, StorePlace>,
    findings: &mut Findings,
) {
    for (name, facts) in facts {
        let Some(service) = model.service(name) else { continue };
        for target in &facts.volumes {
            let source = MountSource::Anonymous { service: name.clone(), target: target.clone() };
            let mounted = service
                .mounts()
                .iter()
                .any(|m| m.target.trim_end_matches('/') == target.trim_end_matches('/'));
            let stored = stores.values().any(|p| p.mount.as_ref().is_some_and(|m| m.source == source));
            if !mounted && !stored {
                findings.warning(
                    "anonymous",
                    format!("{name} writes to {target}, a volume without a name that its image declares and that is no store"),
                    format!("mount a named volume there, or add a store: {{ kind: files, service: {name}, target: {target} }}"),
                );
            }
        }
    }
}
