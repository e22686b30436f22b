//! Single services of a Compose project.

use super::ComposeRuntime;
use super::containers::{self, describe_container, of_project, project, users_of};
use super::release::{config_binds, keep_mixed, kept_model};
use crate::error::EngineError;
use crate::home::{Home, read_json};
use crate::ops::Failed;
use crate::runtime::{Apart, Placement, Stage};
use std::collections::BTreeSet;
use switchback_core::compose::{mixed_model, needs_of};
use switchback_core::ids::{Digest, ServiceName};
use switchback_core::journal::Output;
use switchback_core::plan::Uses;
use switchback_core::release::{Generation, Instance, MountSource, Release};

impl Apart for ComposeRuntime {
    fn start_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, Failed> {
        self.start_some(at, names, stage)
    }

    fn stop_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError> {
        containers::stop_some(self, at, Some(names), stage)
    }

    fn running_of(
        &self,
        _: &Home,
        instance: &Instance,
        names: &[ServiceName],
    ) -> Result<Vec<String>, EngineError> {
        let mut found: Vec<String> =
            users_of(&self.docker, instance)?.iter().map(describe_container).collect();
        if instance.stores.is_empty() {
            // Without data of its own a container is told by its service only.
            let all = of_project(&self.docker, project(instance)?)?;
            let own = all.iter().filter(|(s, c)| c.state.running && names.iter().any(|n| n.as_str() == s));
            found.extend(own.map(|(_, c)| describe_container(c)));
        }
        Ok(found)
    }

    fn mixed(
        &self,
        home: &Home,
        now: (&Digest, &Release),
        before: (&Digest, &Release),
        names: &[ServiceName],
    ) -> Result<(Digest, Release), EngineError> {
        let (is, was) = (kept_model(home, now.0)?, kept_model(home, before.0)?);
        let model = mixed_model(&is, &was, names).map_err(|why| {
            EngineError::refused(
                format!("{} cannot go back alone: {why}", words(names)),
                "`switchback rollback` returns the whole stack",
            )
        })?;
        keep_mixed(home, &model, now, before, names)
    }

    fn uses(&self, home: &Home, instance: &Instance, release: &Release) -> Result<Uses, EngineError> {
        let model = kept_model(home, &instance.release)?;
        let mut found = Uses::default();
        let mounts = model.mounts();
        let configuration = config_binds(home, &model);
        for service in model.services() {
            let name = service.name();
            let own: BTreeSet<&MountSource> =
                mounts.iter().filter(|m| m.service == *name).map(|m| &m.source).collect();
            // A bind below another one's folder is a part of it.
            let has = |source: &MountSource| {
                own.iter().any(|o| match (o, source) {
                    (MountSource::Bind(a), MountSource::Bind(b)) => inside(a, b) || inside(b, a),
                    (a, b) => *a == b,
                }) || matches!(source, MountSource::Anonymous { service, .. } if service == name)
            };
            let stores = instance.stores.iter().filter(|(_, place)| {
                place.mount.as_ref().is_some_and(|m| has(&m.source))
                    || place.server.as_ref().is_some_and(|s| s.service == *name)
            });
            found.stores.insert(name.clone(), stores.map(|(s, _)| s.clone()).collect());
            found.needs.insert(name.clone(), needs_of(&model, service));
            let stored: BTreeSet<&MountSource> =
                instance.stores.values().filter_map(|p| p.mount.as_ref()).map(|m| &m.source).collect();
            let others = mounts.iter().filter(|m| m.service == *name && !m.read_only);
            let others = others.filter(|m| !stored.contains(&m.source) && m.kind.holds_data());
            found.others.insert(name.clone(), others.map(|m| super::project::describe(&m.source)).collect());
            let mut files = BTreeSet::new();
            for (source, relative) in &configuration {
                if own.contains(&MountSource::Bind(source.clone())) {
                    let below = |file: &&String| std::path::Path::new(file).starts_with(relative);
                    files.extend(release.config.keys().filter(below).cloned());
                }
            }
            found.files.insert(name.clone(), files);
        }
        // Who speaks to a database's server uses its data.
        for (store, place) in &instance.stores {
            let Some(server) = &place.server else { continue };
            let clients: Vec<ServiceName> = found
                .needs
                .iter()
                .filter(|(_, needed)| needed.contains_key(&server.service))
                .map(|(n, _)| n.clone())
                .collect();
            for client in clients {
                found.stores.entry(client).or_default().insert(store.clone());
            }
        }
        Ok(found)
    }

    fn open_ways(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        Ok(kept_model(at.home, &at.instance.release)?.open_ways())
    }
}

fn words(names: &[ServiceName]) -> String {
    names.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

fn inside(path: &str, folder: &str) -> bool {
    std::path::Path::new(path).starts_with(folder)
}

/// The release whose copy of a configuration file services mount: that of the generation in which one of them goes on, which must not
/// be made anew for another path.
pub(super) fn release_of_config(
    at: &Placement<'_>,
    users: &BTreeSet<ServiceName>,
) -> Result<Digest, EngineError> {
    let shared = users.iter().find_map(|u| at.instance.shared.services.get(u));
    let Some(dir) = shared else { return Ok(at.instance.release.clone()) };
    let of: Generation = read_json(&at.home.state().join(dir).join("generation.json"))?;
    Ok(of.instance.release)
}
