//! Services apart from each other: what ties them, a model with some of them as they were before, and one that no client can reach.

use super::model::{mapping, published_here, section};
use super::{Model, ModelError, MountKind, Service, unescape};
use crate::ids::ServiceName;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

impl MountKind {
    /// Whether there may be data behind it that outlives the container.
    pub fn holds_data(self) -> bool {
        matches!(self, Self::Volume | Self::Bind | Self::Cluster)
    }
}

/// The services that one needs or shares something with, and how that is known. Values of variables are not told.
pub fn needs_of(model: &Model, service: Service<'_>) -> BTreeMap<ServiceName, String> {
    let mut found = BTreeMap::new();
    let mut say = |name: &str, how: &str| {
        if let Ok(other) = ServiceName::new(name)
            && other != *service.name()
            && model.service(&other).is_some()
        {
            found.entry(other).or_insert_with(|| how.to_owned());
        }
    };
    for needed in service.depends_on() {
        say(&needed.service, "`depends_on` names it");
    }
    let modes = [("network_mode", service.network_mode()), ("pid", service.pid()), ("ipc", service.ipc())];
    for (key, mode) in modes {
        if let Some(name) = mode.and_then(|m| m.strip_prefix("service:")) {
            say(name, &format!("`{key}` is its own"));
        }
    }
    for key in ["links", "volumes_from"] {
        let entries = service.body().get(key).and_then(Value::as_array).into_iter().flatten();
        for entry in entries.filter_map(Value::as_str) {
            say(entry.split(':').next().unwrap_or(entry), &format!("`{key}` names it"));
        }
    }
    let names: Vec<(String, &ServiceName)> = model
        .services()
        .flat_map(|s| {
            let own = s.container_name().map(str::to_owned);
            std::iter::once(s.name().as_str().to_owned()).chain(own).map(move |n| (n, s.name()))
        })
        .collect();
    let mut mentions = |text: &str, how: &str| {
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            for (_, other) in names.iter().filter(|(n, _)| n == word) {
                say(other.as_str(), how);
            }
        }
    };
    for (variable, value) in service.environment() {
        mentions(&value, &format!("the variable {variable} names it"));
    }
    for word in service.command() {
        mentions(&word, "its command names it");
    }
    found
}

/// A model with some services as an earlier one has them. Why not, where what they refer to is another thing there.
pub fn mixed_model(now: &Model, before: &Model, names: &[ServiceName]) -> Result<Model, String> {
    let mut root = now.root().clone();
    for name in names {
        let Some(was) = before.service(name) else {
            return Err(format!("the generation before has no service {name}"));
        };
        for (part, kind) in referred(was.body()) {
            let of = |model: &Model| model.root().get(kind).and_then(|s| s.get(&part)).cloned();
            if of(before) != of(now) {
                return Err(format!("the release changed {kind}.{part}, which {name} uses"));
            }
        }
        section(&mut root, "services").insert(name.as_str().to_owned(), Value::Object(was.body().clone()));
    }
    Model::try_from(root).map_err(|e| e.to_string())
}

/// What of the top level a service refers to: name and section.
fn referred(body: &Map<String, Value>) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let networks = body.get("networks").and_then(Value::as_object).into_iter().flatten();
    found.extend(networks.map(|(name, _)| (name.clone(), "networks")));
    for (key, kind) in [("volumes", "volumes"), ("secrets", "secrets"), ("configs", "configs")] {
        for entry in body.get(key).and_then(Value::as_array).into_iter().flatten() {
            let is_volume = kind != "volumes" || entry.get("type").and_then(Value::as_str) == Some("volume");
            let source = entry.get("source").and_then(Value::as_str).or_else(|| entry.as_str());
            if let Some(source) = source.filter(|_| is_volume) {
                found.push((unescape(source), kind));
            }
        }
    }
    found
}

impl Model {
    /// Ways by which something outside could reach the services although no port of theirs is published, in words.
    pub fn open_ways(&self) -> Vec<String> {
        let mut found = Vec::new();
        for service in self.services() {
            match service.network_mode() {
                Some("host") => found.push(format!("{} uses the host's own network", service.name())),
                Some(mode) if mode.starts_with("container:") => {
                    found.push(format!("{} uses the network of another container", service.name()));
                }
                _ => {}
            }
            for key in service.networks() {
                let body = self.root().get("networks").and_then(|n| n.get(key));
                let field = |name: &str| body.and_then(|b| b.get(name));
                if field("external").and_then(Value::as_bool).unwrap_or(false) {
                    let name = service.name();
                    found.push(format!(
                        "{name} is in the network {key}, which others outside of the stack are in"
                    ));
                }
                let driver = field("driver").and_then(Value::as_str).unwrap_or("bridge");
                if driver != "bridge" {
                    found.push(format!("{} is in the network {key} of the kind {driver}", service.name()));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// The model with nothing published but these ports, on this machine only: container's port to host's, by service.
    pub fn closed(&self, ports: &BTreeMap<ServiceName, BTreeMap<u16, u16>>) -> Result<Self, ModelError> {
        let mut root = self.root().clone();
        for name in self.services().map(|s| s.name().clone()).collect::<Vec<_>>() {
            let body = mapping(section(&mut root, "services").entry(name.as_str()).or_insert(Value::Null));
            body.shift_remove("ports");
            if let Some(own) = ports.get(&name).filter(|own| !own.is_empty()) {
                body.insert("ports".to_owned(), published_here(own));
            }
        }
        Self::try_from(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> Model {
        Model::parse(text).expect("a model")
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).expect("valid")
    }

    const NOW: &str = r#"{"name": "s", "networks": {"default": {"name": "s_default"}, "edge": {"name": "edge", "external": true}},
        "volumes": {"a": {"name": "s_a"}}, "services": {
        "a": {"image": "a:2", "environment": {"X": "2"}, "ports": [{"target": 80, "published": "8080", "protocol": "tcp"}],
              "networks": {"default": null}, "volumes": [{"type": "volume", "source": "a", "target": "/a"}]},
        "b": {"image": "b:2", "environment": {"URL": "postgres://u:geheim@db:5432/x", "MODE": "abc"}, "network_mode": "service:a"},
        "db": {"image": "db:2", "networks": {"edge": null}}}}"#;

    #[test]
    fn what_ties_services_is_found_and_no_value_is_told() {
        let now = model(NOW);
        let found = needs_of(&now, now.service(&service("b")).expect("there"));
        let words: Vec<String> = found.iter().map(|(n, how)| format!("{n}: {how}")).collect();
        assert_eq!(words, ["a: `network_mode` is its own", "db: the variable URL names it"]);
        assert!(needs_of(&now, now.service(&service("a")).expect("there")).is_empty());
    }

    #[test]
    fn one_service_is_as_before_and_the_others_are_untouched() {
        let now = model(NOW);
        let before = model(&NOW.replace(":2\"", ":1\"").replace("\"X\": \"2\"", "\"X\": \"1\""));
        let mixed = mixed_model(&now, &before, &[service("a")]).expect("mixes");
        let image = |model: &Model, name: &str| {
            model.service(&service(name)).and_then(|s| s.image().map(str::to_owned)).expect("an image")
        };
        assert_eq!((image(&mixed, "a"), image(&mixed, "db")), ("a:1".to_owned(), "db:2".to_owned()));
        let other = model(&NOW.replace("s_a", "s_other"));
        let why = mixed_model(&now, &other, &[service("a")]).expect_err("another volume");
        assert_eq!(why, "the release changed volumes.a, which a uses");
        assert!(mixed_model(&now, &before, &[service("x")]).is_err());
    }

    #[test]
    fn a_closed_model_publishes_only_what_is_given_and_open_ways_are_told() {
        let now = model(NOW);
        let ports = BTreeMap::from([(service("a"), BTreeMap::from([(80, 21000)]))]);
        let closed = now.closed(&ports).expect("closes");
        let published = closed.service(&service("a")).expect("there").ports();
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(published[0].published.as_deref(), Some("21000"));
        assert!(now.closed(&BTreeMap::new()).expect("closes").services().all(|s| s.ports().is_empty()));
        assert_eq!(now.open_ways(), ["db is in the network edge, which others outside of the stack are in"]);
    }
}
