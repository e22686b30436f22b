//! Pinning a model to a generation: images by id, data by place.
//!
//! [`place`] decides once what a generation's mounts look like. The production model, the lock file and the staging
//! copy all use it, so that plain `docker compose up` sees the very same services as Switchback.

use super::image::is_image_id;
use super::model::{mapping, section};
use super::service::MountKind;
use super::{Model, ModelError, MountUse, below, escape, join};
use crate::ids::{Digest, ServiceName};
use crate::release::{ImageRef, Mount, MountPlace, MountSource};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The label that says where a service's pinned volumes lie (12 hexadecimal digits).
///
/// Compose (2.26, tried) compares services by their keys of volumes, not by the volumes' names: without this label
/// `docker compose up` would keep a container on the data of another generation.
pub(super) const MOUNTS_LABEL: &str = "dev.switchback.mounts";

/// What a generation fixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// The image of every service of the model.
    pub images: BTreeMap<ServiceName, ImageRef>,
    /// Where the data lies, by what the model without the lock file mounts.
    pub mounts: Vec<Mount>,
    /// Bind mounts of configuration: source to the generation's own copy.
    pub config_binds: BTreeMap<String, String>,
    /// Commands that replace those of services.
    pub commands: BTreeMap<ServiceName, Vec<String>>,
}

/// What pins change, before it is put into a model or a file.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// Per service: entries of `volumes:` that replace the one with the same target, or are new.
    pub(super) mounts: BTreeMap<ServiceName, Vec<Value>>,
    /// Per service: labels.
    pub(super) labels: BTreeMap<ServiceName, BTreeMap<String, String>>,
    /// Keys of volumes with their new definition; none: the definition goes, as nothing mounts it any more.
    pub(super) volumes: BTreeMap<String, Option<Value>>,
}

impl Placement {
    /// Whether this decides what a service has at a target.
    pub(super) fn places(&self, service: &ServiceName, target: &str) -> bool {
        self.mounts.get(service).is_some_and(|m| m.iter().any(|e| target_of(e) == Some(&escape(target))))
    }

    /// Puts mounts, labels and volumes into a model.
    pub(super) fn apply(&self, root: &mut Map<String, Value>) {
        for (name, entries) in &self.mounts {
            let service = mapping(section(root, "services").entry(name.as_str()).or_insert(Value::Null));
            let slot = service.entry("volumes").or_insert(Value::Null);
            let mut list = slot.as_array().cloned().unwrap_or_default();
            for entry in entries {
                match list.iter_mut().find(|old| target_of(old) == target_of(entry)) {
                    Some(old) => *old = entry.clone(),
                    None => list.push(entry.clone()),
                }
            }
            *slot = Value::Array(list);
        }
        for (name, labels) in &self.labels {
            let service = mapping(section(root, "services").entry(name.as_str()).or_insert(Value::Null));
            let slot = mapping(service.entry("labels").or_insert(Value::Null));
            slot.extend(labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
        }
        for (key, definition) in &self.volumes {
            let volumes = section(root, "volumes");
            match definition {
                Some(definition) => _ = volumes.insert(key.clone(), definition.clone()),
                None => _ = volumes.shift_remove(key),
            }
        }
        if root.get("volumes").and_then(Value::as_object).is_some_and(Map::is_empty) {
            root.shift_remove("volumes");
        }
    }
}

pub(super) fn target_of(entry: &Value) -> Option<&str> {
    entry.get("target").and_then(Value::as_str)
}

/// What an image is pinned by: the engine's id, which exists as long as the image does, with any registry or none.
pub fn pinned_image(image: &ImageRef) -> &str {
    &image.id
}

/// The model that production's generation runs with.
///
/// Images are pinned, nothing is built or pulled, every pinned mount lies in its place and configuration is the
/// generation's own. Everything else is unchanged. The model is the one without the lock file.
pub fn production(model: &Model, pins: &Pins) -> Result<Model, ModelError> {
    let placement = place(model, pins)?;
    let mut root = model.root().clone();
    placement.apply(&mut root);
    pin_images(&mut root, model, pins)?;
    let mut model = Model::try_from(root)?;
    for (service, command) in &pins.commands {
        model.set_command(service, command);
    }
    Ok(model)
}

/// Pins the images; checks that pins and services are the same ones.
pub(super) fn pin_images(
    root: &mut Map<String, Value>,
    model: &Model,
    pins: &Pins,
) -> Result<(), ModelError> {
    check_images(model, pins)?;
    for (name, image) in &pins.images {
        let service = mapping(section(root, "services").entry(name.as_str()).or_insert(Value::Null));
        service.shift_remove("build");
        service.insert("image".to_owned(), Value::from(pinned_image(image)));
        service.insert("pull_policy".to_owned(), Value::from("never"));
    }
    Ok(())
}

/// Refuses pins that leave a service unpinned, or name what is not there.
pub(super) fn check_images(model: &Model, pins: &Pins) -> Result<(), ModelError> {
    let refuse = |text: String| Err(ModelError::Pin(text));
    for service in model.services() {
        if !service.has_provider() && !pins.images.contains_key(service.name()) {
            return refuse(format!("no image is recorded for the service {}", service.name()));
        }
    }
    for (name, image) in &pins.images {
        if model.service(name).is_none() {
            return refuse(format!(
                "the model has no service {name}; is it behind a profile that is not active now?"
            ));
        }
        if !is_image_id(&image.id) {
            return refuse(format!("the id of the image of {name} is not sha256: and 64 hexadecimal digits"));
        }
    }
    Ok(())
}

/// Decides where everything that is pinned goes.
pub(super) fn place(model: &Model, pins: &Pins) -> Result<Placement, ModelError> {
    let uses = model.mounts();
    let mut placement = Placement::default();
    let mut places: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    // What lies deeper is decided last and so wins: a bind of /srv/a/b is no part of a pinned /srv/a if pinned itself.
    let mut mounts: Vec<&Mount> = pins.mounts.iter().collect();
    mounts.sort_by_key(|m| match &m.source {
        MountSource::Bind(path) => path.len(),
        MountSource::Volume(_) | MountSource::Anonymous { .. } => 0,
    });
    for mount in mounts {
        check_place(&mount.at)?;
        if !seen.insert(&mount.source) {
            return Err(ModelError::Pin(format!("{} is pinned twice", words(&mount.source))));
        }
        let entries = entries(model, &uses, mount)?;
        let mut users: BTreeSet<ServiceName> = entries.iter().map(|(s, _)| s.clone()).collect();
        for (service, entry) in entries {
            put(placement.mounts.entry(service).or_default(), entry);
        }
        match (&mount.source, &mount.at) {
            (MountSource::Volume(key), MountPlace::Volume(name)) => {
                placement.volumes.insert(key.clone(), Some(external(name)));
                users = uses.iter().filter(|u| u.source == mount.source).map(|u| u.service.clone()).collect();
            }
            // Left defined, `docker compose down -v` would remove the first generation's data.
            (MountSource::Volume(key), MountPlace::Dir(_)) => _ = placement.volumes.insert(key.clone(), None),
            (MountSource::Bind(_) | MountSource::Anonymous { .. }, MountPlace::Volume(name)) => {
                placement.volumes.insert(key_for(&mount.source), Some(external(name)));
            }
            (MountSource::Bind(_) | MountSource::Anonymous { .. }, MountPlace::Dir(_)) => {}
        }
        if let MountPlace::Volume(name) = &mount.at {
            for user in users {
                places.entry(user).or_default().insert(format!("{}={name}", words(&mount.source)));
            }
        }
    }
    for (service, places) in places {
        let digest = Digest::of(places.into_iter().collect::<Vec<_>>().join("\n").as_bytes());
        let label = (MOUNTS_LABEL.to_owned(), digest.short().to_owned());
        placement.labels.insert(service, BTreeMap::from([label]));
    }
    place_config(model, &uses, pins, &mut placement)?;
    Ok(placement)
}

fn place_config(
    model: &Model,
    uses: &[MountUse],
    pins: &Pins,
    placement: &mut Placement,
) -> Result<(), ModelError> {
    for (source, copy) in &pins.config_binds {
        check_place(&MountPlace::Dir(copy.clone()))?;
        let source_of = MountSource::Bind(source.clone());
        let mut found = false;
        for used in uses.iter().filter(|u| u.source == source_of) {
            put(placement.mounts.entry(used.service.clone()).or_default(), bind(model, used, copy));
            found = true;
        }
        if !found {
            return Err(ModelError::Pin(format!("no service binds {source}, which is to be configuration")));
        }
    }
    Ok(())
}

/// The entries of `volumes:` that a pinned mount changes.
fn entries(model: &Model, uses: &[MountUse], mount: &Mount) -> Result<Vec<(ServiceName, Value)>, ModelError> {
    let mut entries = Vec::new();
    match &mount.source {
        MountSource::Volume(key) => {
            if !model.volumes().any(|v| v == key) {
                return Err(ModelError::Pin(format!("the model has no volume {key}")));
            }
            if let MountPlace::Dir(dir) = &mount.at {
                for used in uses.iter().filter(|u| u.source == mount.source) {
                    let path = join(dir, used.subpath.as_deref().unwrap_or_default());
                    entries.push((used.service.clone(), bind(model, used, &path)));
                }
            }
        }
        MountSource::Bind(path) => {
            for used in uses {
                let MountSource::Bind(source) = &used.source else { continue };
                let Some(rest) = below(source, path) else { continue };
                let entry = match &mount.at {
                    MountPlace::Dir(dir) => bind(model, used, &join(dir, rest)),
                    MountPlace::Volume(_) if rest.is_empty() => {
                        // A bind mount never gets the image's files; a volume would.
                        volume(&key_for(&mount.source), used, json!({ "nocopy": true }))
                    }
                    MountPlace::Volume(name) => {
                        return Err(ModelError::Pin(format!(
                            "the service {} binds {source}, which lies in {path}, and that is now the volume {name}; \
                             clone {path} to a directory instead",
                            used.service
                        )));
                    }
                };
                entries.push((used.service.clone(), entry));
            }
            if entries.is_empty() {
                return Err(ModelError::Pin(format!("no service binds {path}")));
            }
        }
        MountSource::Anonymous { service, target } => {
            if model.service(service).is_none() {
                return Err(ModelError::Pin(format!("the model has no service {service}")));
            }
            // A `VOLUME` of an image is in no model: it becomes an entry of its own.
            let unwritten = MountUse {
                service: service.clone(),
                target: target.clone(),
                source: mount.source.clone(),
                read_only: false,
                kind: MountKind::Volume,
                subpath: None,
                nocopy: false,
            };
            let used =
                uses.iter().find(|u| u.service == *service && u.target == *target).unwrap_or(&unwritten);
            if used.source != mount.source || used.kind != MountKind::Volume {
                return Err(ModelError::Pin(format!(
                    "{service} mounts something else than a volume without a name at {target}"
                )));
            }
            let entry = match &mount.at {
                MountPlace::Volume(_) => volume(&key_for(&mount.source), used, Value::Null),
                MountPlace::Dir(dir) => bind(model, used, dir),
            };
            entries.push((service.clone(), entry));
        }
    }
    Ok(entries)
}

fn put(list: &mut Vec<Value>, entry: Value) {
    match list.iter_mut().find(|old| target_of(old) == target_of(&entry)) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

fn external(name: &str) -> Value {
    json!({ "name": escape(name), "external": true })
}

fn volume(key: &str, used: &MountUse, options: Value) -> Value {
    let mut entry = json!({ "type": "volume", "source": key, "target": escape(&used.target) });
    let map = mapping(&mut entry);
    if used.read_only {
        map.insert("read_only".to_owned(), Value::Bool(true));
    }
    if !options.is_null() {
        map.insert("volume".to_owned(), options);
    }
    entry
}

/// A bind mount in place of a mount; options of a bind mount (propagation, SELinux) stay.
pub(super) fn bind(model: &Model, used: &MountUse, path: &str) -> Value {
    let mut entry = json!({ "type": "bind", "source": escape(path), "target": escape(&used.target) });
    let map = mapping(&mut entry);
    if used.read_only {
        map.insert("read_only".to_owned(), Value::Bool(true));
    }
    let target = escape(&used.target);
    let before = model
        .service(&used.service)
        .and_then(|s| s.body().get("volumes")?.as_array()?.iter().find(|e| target_of(e) == Some(&target)))
        .and_then(|entry| entry.get("bind")?.as_object());
    let mut options = before.cloned().unwrap_or_default();
    // A missing directory is an error, never an empty one in its place.
    options.insert("create_host_path".to_owned(), Value::Bool(false));
    map.insert("bind".to_owned(), Value::Object(options));
    entry
}

/// The key below `volumes:` of a volume that the model has no key for.
pub(super) fn key_for(source: &MountSource) -> String {
    let (name, of) = match source {
        MountSource::Volume(key) => return key.clone(),
        MountSource::Bind(path) => {
            (path.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data"), path.as_str())
        }
        MountSource::Anonymous { service, target } => (service.as_str(), target.as_str()),
    };
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    format!("{name}-{}", Digest::of(of.as_bytes()).short())
}

fn words(source: &MountSource) -> String {
    match source {
        MountSource::Volume(key) => format!("the volume {key}"),
        MountSource::Bind(path) => format!("the bind mount {path}"),
        MountSource::Anonymous { service, target } => format!("the volume at {target} of {service}"),
    }
}

/// Refuses places that are no volume or no path.
fn check_place(place: &MountPlace) -> Result<(), ModelError> {
    let good = match place {
        // The engine's own rule.
        MountPlace::Volume(name) => {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        }
        MountPlace::Dir(path) => {
            path.starts_with('/')
                && !path.chars().any(char::is_control)
                && !path.split('/').any(|part| part == "..")
        }
    };
    if good {
        return Ok(());
    }
    Err(ModelError::Pin(match place {
        MountPlace::Volume(name) => format!("{name:?} is not the name of a volume"),
        MountPlace::Dir(path) => format!("{path:?} is not an absolute path"),
    }))
}
