//! The staging copy of a model: the same services beside production, without reaching it.
//!
//! What would collide with production, reach the host or draw production's traffic is taken away or replaced, and every
//! such change is told. What is not named here stays as it is, so that the copy behaves like production.

mod limits;
mod mounts;
mod networks;
mod secrets;
mod service;

pub use limits::Limits;
pub use networks::staging_networks;
pub use secrets::{Replaced, Replacements};
pub use service::TRUST;

use super::model::{mapping, section};
use super::pins::{pin_images, place};
use super::{Model, ModelError, Pins};
use crate::ids::ServiceName;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a staging copy is made with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StagingFacts {
    /// The name of its project.
    pub project: String,
    /// Its images, its data, its copies of configuration.
    pub pins: Pins,
    /// The folder of the stack, absolute: read-only mounts below it stay.
    pub stack_dir: String,
    /// Sources of bind mounts that are files: an empty volume cannot replace them.
    pub files: BTreeSet<String>,
    /// Per network (its key): the gateway's address on it, where names of the world are asked for. Without a gateway the copy
    /// publishes its ports itself, on bridges that Compose makes; such a copy can reach the host.
    pub gateway: Option<BTreeMap<String, String>>,
    /// Per service: port of the container, and the port of 127.0.0.1 that it is reached by.
    pub ports: BTreeMap<ServiceName, BTreeMap<u16, u16>>,
    /// Variables that are set or replaced for every service.
    pub env: BTreeMap<String, String>,
    /// Secrets that the copy does not get.
    pub replace: Replacements,
    /// A file of the host with the certificate that canned answers over TLS are signed with.
    pub authority: Option<String>,
    /// The most that each service gets.
    pub limits: Limits,
    /// Labels of everything that the copy consists of.
    pub labels: BTreeMap<String, String>,
}

impl std::fmt::Debug for StagingFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let env: Vec<&String> = self.env.keys().collect();
        f.debug_struct("StagingFacts")
            .field("project", &self.project)
            .field("ports", &self.ports)
            .field("env", &env)
            .finish_non_exhaustive()
    }
}

/// Something in which the copy differs from production.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// The service; none for what belongs to the whole stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// What was done.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The changes so far.
#[derive(Default)]
struct Told(Vec<Difference>);

impl Told {
    fn say(&mut self, service: Option<&ServiceName>, what: impl Into<String>, why: &str) {
        let difference = Difference { service: service.cloned(), what: what.into(), why: why.to_owned() };
        if !self.0.contains(&difference) {
            self.0.push(difference);
        }
    }
}

/// The model of a staging copy, and how it differs from production.
///
/// Pinned images and data are not listed: they are what a copy is made of.
pub fn staging(model: &Model, facts: &StagingFacts) -> Result<(Model, Vec<Difference>), ModelError> {
    let refuse = |text: String| Err(ModelError::Staging(text));
    if facts.project == model.project() {
        return refuse(format!("its project must not be production's, {}", model.project()));
    }
    for service in model.services() {
        if service.has_provider() {
            return refuse(format!(
                "a plugin of Compose provides {}, and what it does cannot be kept apart from production",
                service.name()
            ));
        }
    }
    for (name, ports) in &facts.ports {
        let Some(service) = model.service(name) else {
            return refuse(format!("there is no service {name} to reach"));
        };
        let shared = service.network_mode().filter(|m| *m == "none" || m.starts_with("service:"));
        if let Some(mode) = shared.filter(|_| !ports.is_empty()) {
            return refuse(format!("the ports of {name} cannot be reached: its network_mode is {mode}"));
        }
    }
    let placement = place(model, &facts.pins)?;
    let mut root = model.root().clone();
    placement.apply(&mut root);
    pin_images(&mut root, model, &facts.pins)?;
    root.insert("name".to_owned(), Value::from(facts.project.as_str()));

    let mut told = Told::default();
    let mut added = BTreeSet::new();
    let names: Vec<ServiceName> = model.services().map(|s| s.name().clone()).collect();
    for name in &names {
        mounts::isolate(model, &mut root, facts, &placement, name, &mut added, &mut told);
        let body = mapping(section(&mut root, "services").entry(name.as_str()).or_insert(Value::Null));
        service::isolate(body, name, facts, &mut told);
        limits::apply(body, name, facts.limits, &mut told);
    }
    secrets::replace(&mut root, &facts.replace, &mut told);
    volumes(&mut root, facts, &placement, &added, &mut told);
    networks::isolate(&mut root, facts, &mut told)?;
    if root.get("volumes").and_then(Value::as_object).is_some_and(Map::is_empty) {
        root.shift_remove("volumes");
    }
    told.0.sort();
    Ok((Model::try_from(root)?, told.0))
}

fn labels(facts: &StagingFacts) -> Value {
    let labels = facts.labels.iter().map(|(k, v)| (k.clone(), Value::from(super::escape(v))));
    Value::Object(labels.collect())
}

/// Volumes that are not pinned become the copy's own, and empty.
fn volumes(
    root: &mut Map<String, Value>,
    facts: &StagingFacts,
    placement: &super::pins::Placement,
    added: &BTreeSet<String>,
    told: &mut Told,
) {
    for (key, definition) in section(root, "volumes") {
        if placement.volumes.contains_key(key) || added.contains(key) {
            continue;
        }
        told.say(None, format!("the volume {key} is its own and starts empty"), "its data is not cloned");
        *definition = json!({ "name": format!("{}_{key}", facts.project), "labels": labels(facts) });
    }
}
