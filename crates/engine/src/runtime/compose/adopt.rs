//! Taking a stack over as it runs: its images, and where its data lies.

use super::{ComposeRuntime, containers, project, release};
use crate::error::EngineError;
use crate::home::Home;
use std::collections::BTreeMap;
use switchback_core::compose::Model;
use switchback_core::config::Config;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::release::{ImageRef, MountPlace, MountSource, StorePlace};

impl ComposeRuntime {
    /// The images that production's containers run now, by service.
    pub(super) fn running_images(
        &self,
        model: &Model,
    ) -> Result<BTreeMap<ServiceName, ImageRef>, EngineError> {
        let mut found = BTreeMap::new();
        for (service, container) in containers::of_project(&self.docker, model.project())? {
            if containers::is_one_off(&container) || !container.state.running {
                continue;
            }
            let Ok(name) = ServiceName::new(&service) else { continue };
            let Some(image) = self.docker.image(&container.image_id)? else {
                return Err(EngineError::refused(
                    format!("the image that {} runs is gone from the engine", container.name),
                    "pull or build it again before Switchback takes the stack over: a rollback needs it",
                ));
            };
            let reference = model
                .service(&name)
                .and_then(switchback_core::compose::Service::image)
                .unwrap_or(&container.image)
                .to_owned();
            found.insert(name, release::image_ref(&reference, &image));
        }
        Ok(found)
    }

    /// Names the volumes that only the engine knows the names of.
    pub(super) fn name_anonymous(
        &self,
        model: &Model,
        stores: &mut BTreeMap<StoreName, StorePlace>,
    ) -> Result<(), EngineError> {
        let all = containers::of_project(&self.docker, model.project())?;
        for (store, place) in stores {
            let Some(mount) = &mut place.mount else { continue };
            let MountSource::Anonymous { service, target } = &mount.source else { continue };
            let mounted = all
                .iter()
                .filter(|(s, _)| s == service.as_str())
                .find_map(|(_, c)| c.mounts.iter().find(|m| m.destination == *target && !m.name.is_empty()));
            let Some(mounted) = mounted else {
                return Err(EngineError::refused(
                    format!("stores.{store}: {service} has no volume at {target}"),
                    "start the stack with `docker compose up -d` first: a volume without a name exists only with its container",
                ));
            };
            mount.at = MountPlace::Volume(mounted.name.clone());
        }
        Ok(())
    }

    /// Refuses data that is still to be made: Compose makes it, with the image's content, when it starts a stack the
    /// first time; Switchback only takes over what is there.
    pub(super) fn has_run(&self, stores: &BTreeMap<StoreName, StorePlace>) -> Result<(), EngineError> {
        for (store, place) in stores {
            let Some(MountPlace::Volume(name)) = place.mount.as_ref().map(|m| &m.at) else { continue };
            if self.docker.volume(name)?.is_none() {
                return Err(EngineError::refused(
                    format!("stores.{store}: the volume {name} does not exist yet: the stack has never run"),
                    "start it with `docker compose up -d` and let it become healthy; then Switchback takes it over",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn stores_of(
        &self,
        home: &Home,
        config: &Config,
        model: &Model,
    ) -> Result<BTreeMap<StoreName, StorePlace>, EngineError> {
        let environment = |name: &ServiceName| -> BTreeMap<String, String> {
            let image = model
                .service(name)
                .and_then(switchback_core::compose::Service::image)
                .and_then(|i| self.docker.image(i).ok().flatten());
            let pairs = image.map(|i| i.env).unwrap_or_default();
            pairs
                .iter()
                .filter_map(|e| e.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        };
        project::stores(home, config, model, &environment)
    }
}
