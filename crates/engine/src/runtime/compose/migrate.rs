//! Migration commands.
//!
//! Owns the project that production's migration runs in: other networks, no ports, so that no client writes to data
//! that is being migrated. Staging is apart anyway.

use super::{ComposeRuntime, UP, containers, gone, health, instance};
use crate::docker::compose::{ModelFile, OneShot, UpOptions};
use crate::docker::{Docker, HELPER_LABEL, STACK_LABEL};
use crate::error::{EngineError, io};
use crate::home::{Home, write_json};
use crate::runtime::{Migrated, Placement, Runtime as _, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use switchback_core::compose::{MigrationFacts, migration};
use switchback_core::config::Service;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::Redactor;

/// What marks containers and networks of a migration.
const KIND: &str = "migration";

/// Runs a service's migration command; whatever it leaves running is ended.
pub fn migrate(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    name: &ServiceName,
    stage: &Stage<'_>,
) -> Result<Migrated, EngineError> {
    if !at.instance.is_production() {
        return run(runtime, at, &ComposeRuntime::model_file(at)?, name, stage);
    }
    let mut apart = at.instance.clone();
    let project = format!("{}-migrate", containers::project(at.instance)?);
    apart.project = Some(project.clone());
    let at = Placement { instance: &apart, ..*at };
    end(&runtime.docker, at.home)?;
    let model = ModelFile {
        path: at.home.instance_dir(at.instance).join("migrate.json"),
        project,
        project_dir: at.home.root().to_owned(),
    };
    write(runtime, &at, &model)?;
    let ran = run(runtime, &at, &model, name, stage);
    let ended = end(&runtime.docker, at.home);
    // It holds the environment, secrets included.
    let removed = std::fs::remove_file(&model.path).map_err(io("remove", &model.path));
    let ran = ran?;
    ended?;
    removed?;
    Ok(ran)
}

fn write(runtime: &ComposeRuntime, at: &Placement<'_>, file: &ModelFile) -> Result<(), EngineError> {
    let volumes: BTreeSet<String> = runtime.docker.volumes(&[])?.into_iter().map(|v| v.name).collect();
    let labels =
        BTreeMap::from([(STACK_LABEL.to_owned(), at.home.id()?), (HELPER_LABEL.to_owned(), KIND.to_owned())]);
    let facts = MigrationFacts { project: file.project.clone(), volumes, labels };
    let model = migration(&instance::model(at)?, &facts)
        .map_err(|e| EngineError::refused(e.to_string(), "see the Compose file"))?;
    write_json(&file.path, &model)
}

/// Removes what a migration of this stack runs in, also one whose program was killed.
pub fn end(docker: &Docker, home: &Home) -> Result<(), EngineError> {
    let stack = home.id()?;
    let own = [(STACK_LABEL, stack.as_str()), (HELPER_LABEL, KIND)];
    for container in docker.containers(&own)? {
        docker.remove_with_scratch(&container.id)?;
    }
    for network in docker.networks(&own)? {
        docker.network_remove(&network.name, &stack)?;
    }
    Ok(())
}

fn run(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    model: &ModelFile,
    name: &ServiceName,
    stage: &Stage<'_>,
) -> Result<Migrated, EngineError> {
    let services = at.services();
    let Some(service) = services.get(name) else {
        return Err(EngineError::Internal { detail: format!("the release has no service {name}") });
    };
    if !at.instance.is_production() {
        runtime.ready(at, stage)?;
    }
    // Services that it needs run for the migration, as they will for the service.
    let began = Instant::now();
    if !service.needs.is_empty() {
        let only = UpOptions {
            services: service.needs.iter().map(ToString::to_string).collect(),
            limit: UP,
            ..UpOptions::default()
        };
        runtime.cli.up(model, &only, stage.cancelled)?;
        let needed: BTreeMap<ServiceName, Service> =
            service.needs.iter().map(|n| (n.clone(), services[n].clone())).collect();
        health::wait(runtime, at, &needed, began, stage)
            .map_err(|e| EngineError::refused(e.message, e.hint.unwrap_or_default()))?;
    }
    let log = at.home.instance_dir(at.instance).join(format!("migrate-{name}.log"));
    let shot = OneShot {
        service: name.to_string(),
        entrypoint: None,
        argv: service.migrate.clone(),
        container: format!("{}-run-{name}", model.project),
        // So that the next run ends it if this one is killed.
        labels: vec![(STACK_LABEL.to_owned(), at.home.id()?), (HELPER_LABEL.to_owned(), KIND.to_owned())],
        log: log.clone(),
        limit: service.migrate_deadline.0,
    };
    // An earlier attempt that was killed left its container.
    runtime.docker.remove_with_scratch(&shot.container).or_else(gone)?;
    let cli = runtime.cli.clone().hiding(Redactor::from_values(runtime.secrets(at)));
    let ran = cli.run(&runtime.docker, model, &shot, stage.cancelled);
    (stage.midway)();
    // Whatever happened, nothing of it may go on: what follows works on data at rest.
    containers::stop(runtime, at, stage)?;
    let ran = ran.map_err(|e| {
        EngineError::refused(
            format!("the migration of {name} could not be run: {e}"),
            "check `migrate` in switchback.yaml",
        )
    })?;
    Ok(Migrated {
        success: ran.success(),
        timed_out: ran.timed_out(),
        how: ran.how(),
        took_ms: ran.took_ms,
        text: std::fs::read_to_string(&log).unwrap_or_default(),
    })
}
