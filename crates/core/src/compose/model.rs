//! The model as a whole: reading it, and finding its parts.
//!
//! What accessors rely on is checked once, when a model is made; everything else in it is kept as it is.

use super::service::{self, MountUse, Service};
use super::{ModelError, shape, unescape};
use crate::ids::ServiceName;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// The normalised model of a stack, whole and in its order.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Model {
    root: Map<String, Value>,
    names: Vec<ServiceName>,
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.root.serialize(serializer)
    }
}

impl TryFrom<Map<String, Value>> for Model {
    type Error = ModelError;
    fn try_from(root: Map<String, Value>) -> Result<Self, ModelError> {
        let names = check(&root)?;
        Ok(Self { root, names })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({:?}: ", self.project())?;
        f.debug_list().entries(self.names.iter().map(ServiceName::as_str)).finish()?;
        f.write_str(")")
    }
}

/// A volume that the model defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDef {
    /// Its name for the engine.
    pub name: String,
    /// Whether the stack only uses it and never makes or removes it.
    pub external: bool,
    /// The volume driver, if it is said.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
}

impl Model {
    /// Reads what `docker compose config --format json` printed.
    pub fn parse(json: &str) -> Result<Self, ModelError> {
        let value: Value = serde_json::from_str(json)
            .map_err(|e| ModelError::NotJson { line: e.line(), column: e.column() })?;
        match value {
            Value::Object(root) => Self::try_from(root),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(shape("the top level", "is not a mapping"))
            }
        }
    }

    /// The text for a model file: `docker compose -f FILE` accepts it. It holds secrets.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.root.clone()))
    }

    /// The name of the project.
    pub fn project(&self) -> &str {
        self.root.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The services that are active, in the order of the model.
    pub fn services(&self) -> impl Iterator<Item = Service<'_>> {
        self.names.iter().filter_map(|name| self.service(name))
    }

    /// One service.
    pub fn service<'m>(&'m self, name: &'m ServiceName) -> Option<Service<'m>> {
        let body = self.root.get("services")?.as_object()?.get(name.as_str())?.as_object()?;
        Some(Service::new(name, body))
    }

    /// Takes the first variable of a service away; which one.
    pub fn take_variable(&mut self) -> Option<String> {
        let services = self.root.get_mut("services")?.as_object_mut()?;
        services.values_mut().find_map(|body| {
            let variables = body.get_mut("environment")?.as_object_mut()?;
            let name = variables.keys().next()?.clone();
            variables.shift_remove(&name)?;
            Some(name)
        })
    }

    /// Replaces the command of a service.
    pub fn set_command(&mut self, service: &ServiceName, words: &[String]) {
        let services = self.root.get_mut("services").and_then(Value::as_object_mut);
        if let Some(body) = services.and_then(|s| s.get_mut(service.as_str())?.as_object_mut()) {
            let words = words.iter().map(|w| Value::String(w.replace('$', "$$"))).collect();
            body.insert("command".to_owned(), Value::Array(words));
        }
    }

    /// Everything that services mount with `volumes:`, in the order of the model.
    pub fn mounts(&self) -> Vec<MountUse> {
        self.services().flat_map(Service::mounts).collect()
    }

    /// The keys below `volumes:`.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.root.get("volumes").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.as_str())
    }

    /// The volume with this key.
    pub fn volume(&self, key: &str) -> Option<VolumeDef> {
        let body = self.root.get("volumes")?.as_object()?.get(key)?;
        let text = |k: &str| body.get(k).and_then(Value::as_str).map(unescape);
        Some(VolumeDef {
            name: text("name").unwrap_or_else(|| format!("{}_{key}", self.project())),
            external: body.get("external").and_then(Value::as_bool).unwrap_or(false),
            driver: text("driver"),
            driver_opts: service::text_map(body.get("driver_opts")),
        })
    }

    /// The top level, for making another model of it.
    /// The secrets of the whole stack: key, and the file that holds it where it is one of this host.
    pub fn secret_files(&self) -> Vec<(String, Option<String>)> {
        let all = self.root.get("secrets").and_then(Value::as_object).into_iter().flatten();
        all.map(|(key, body)| (key.clone(), body.get("file").and_then(Value::as_str).map(unescape))).collect()
    }

    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.root
    }
}

/// The mapping below a key of the top level, made if it is missing.
pub(super) fn section<'r>(root: &'r mut Map<String, Value>, key: &str) -> &'r mut Map<String, Value> {
    let slot = root.entry(key).or_insert(Value::Null);
    mapping(slot)
}

/// The value as a mapping; anything else is replaced by an empty one.
pub(super) fn mapping(slot: &mut Value) -> &mut Map<String, Value> {
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("was just made a mapping")
        }
    }
}

/// Checks what accessors rely on, and gives the names of the services.
fn check(root: &Map<String, Value>) -> Result<Vec<ServiceName>, ModelError> {
    let project = root.get("name").and_then(Value::as_str).ok_or_else(|| shape("name", "is missing"))?;
    // Compose's own rule; the name becomes part of the names of containers, networks and volumes.
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if !project.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        || !project.chars().all(allowed)
    {
        return Err(shape("name", "is not a project name: small letters, digits, '_' and '-'"));
    }
    for key in ["networks", "volumes", "secrets", "configs"] {
        let Some(value) = root.get(key).filter(|v| !v.is_null()) else { continue };
        let section = value.as_object().ok_or_else(|| shape(key, "is not a mapping"))?;
        for (name, body) in section {
            if !is_key(name) {
                return Err(shape(format!("{key}.{name:?}"), "is not an allowed name"));
            }
            if !body.is_object() && !body.is_null() {
                return Err(shape(format!("{key}.{name}"), "is not a mapping"));
            }
        }
    }
    let services = root
        .get("services")
        .and_then(Value::as_object)
        .filter(|s| !s.is_empty())
        .ok_or_else(|| shape("services", "is missing or empty; are all services behind profiles?"))?;
    let mut names = Vec::new();
    for (name, body) in services {
        let name = ServiceName::new(name.as_str())?;
        let body = body.as_object().ok_or_else(|| shape(format!("services.{name}"), "is not a mapping"))?;
        service::check(&name, body)?;
        names.push(name);
    }
    for name in &names {
        let Some(body) = services.get(name.as_str()).and_then(Value::as_object) else { continue };
        for used in Service::new(name, body).mounts() {
            if let crate::release::MountSource::Volume(key) = &used.source
                && root.get("volumes").and_then(|v| v.get(key)).is_none()
            {
                return Err(shape(
                    format!("services.{name}.volumes"),
                    "name a volume that volumes: does not define",
                ));
            }
        }
    }
    Ok(names)
}

/// Compose's rule for keys of networks, volumes, secrets and configs.
fn is_key(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// `ports` of a service that publishes these on this machine only: container's port to host's.
pub(super) fn published_here(ports: &BTreeMap<u16, u16>) -> Value {
    let entry = |(container, host): (&u16, &u16)| {
        json!({
            "mode": "ingress",
            "host_ip": "127.0.0.1",
            "target": container,
            "published": host.to_string(),
            "protocol": "tcp",
        })
    };
    Value::Array(ports.iter().map(entry).collect())
}
