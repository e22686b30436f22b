//! Networks: looking at, making and removing them.
//!
//! Owns the facts about a network as values. It must never remove a network that Switchback did not make.

use super::error::Call;
use super::{Docker, DockerError, STACK_LABEL, done_or_gone, name, optional, with_labels};
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptions;
use std::collections::{BTreeMap, HashMap};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `bridge`, `host`, `overlay`, ...
    pub driver: String,
    /// It has no way out.
    pub internal: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Names of the containers in it; only for a network that was looked at by itself.
    pub containers: Vec<String>,
}

fn ordered(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

impl Docker {
    /// Looks at a network; `None` if there is none of this name or id.
    pub fn network(&self, name: &str) -> Result<Option<Network>, DockerError> {
        let name = name::object("network", name)?;
        let call = Call::read("inspect the network", "NETWORKS");
        let found = optional(self.ask(call, name, self.client.inspect_network(name, None)))?;
        Ok(found.map(|n| {
            let mut containers: Vec<String> =
                n.containers.unwrap_or_default().into_values().filter_map(|c| c.name).collect();
            containers.sort();
            Network {
                id: n.id.unwrap_or_default(),
                name: n.name.unwrap_or_default(),
                driver: n.driver.unwrap_or_default(),
                internal: n.internal.unwrap_or_default(),
                options: ordered(n.options),
                labels: ordered(n.labels),
                containers,
            }
        }))
    }

    /// Lists networks that carry all the labels; an empty value means any.
    pub fn networks(&self, labels: &[(&str, &str)]) -> Result<Vec<Network>, DockerError> {
        let options = ListNetworksOptions { filters: Some(with_labels(labels)) };
        let call = Call::read("list networks of", "NETWORKS");
        let found = self.ask(call, "the engine", self.client.list_networks(Some(options)))?;
        let mut all: Vec<Network> = found
            .into_iter()
            .map(|n| Network {
                id: n.id.unwrap_or_default(),
                name: n.name.unwrap_or_default(),
                driver: n.driver.unwrap_or_default(),
                internal: n.internal.unwrap_or_default(),
                options: ordered(n.options),
                labels: ordered(n.labels),
                containers: Vec::new(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes a bridge network for a stack and returns its id. One of this name that the stack made is used as it is.
    pub fn network_create(
        &self,
        name: &str,
        stack: &str,
        labels: &[(&str, &str)],
        internal: bool,
        options: &[(&str, &str)],
    ) -> Result<String, DockerError> {
        let call = Call::change("create the network", "POST and NETWORKS");
        // Engines up to 24 make a second network of the same name.
        if let Some(found) = self.network(name)? {
            return if found.labels.get(STACK_LABEL).map(String::as_str) == Some(stack) {
                Ok(found.id)
            } else {
                Err(DockerError::Conflict {
                    doing: call.doing,
                    what: name.to_owned(),
                    why: "a network of this name exists and was not made by this stack".to_owned(),
                })
            };
        }
        let own = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut labels = own(labels);
        labels.insert(STACK_LABEL.to_owned(), stack.to_owned());
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(internal),
            options: Some(own(options)),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        Ok(self.ask(call, name, self.client.create_network(request))?.id)
    }

    /// Removes a network of a stack; fine if it is gone, refused if the stack did not make it.
    pub fn network_remove(&self, name: &str, stack: &str) -> Result<(), DockerError> {
        let call = Call::remove("remove the network", "POST and NETWORKS");
        let Some(found) = self.network(name)? else { return Ok(()) };
        if found.labels.get(STACK_LABEL).map(String::as_str) != Some(stack) {
            return Err(DockerError::Conflict {
                doing: call.doing,
                what: name.to_owned(),
                why: "it was not made by this stack".to_owned(),
            });
        }
        match done_or_gone(self.ask(call, name, self.client.remove_network(&found.id))) {
            // Engines answer 403 for a network that has containers.
            Err(DockerError::Forbidden { .. }) if !found.containers.is_empty() => {
                Err(DockerError::Conflict {
                    doing: call.doing,
                    what: name.to_owned(),
                    why: format!("it has containers: {}", found.containers.join(", ")),
                })
            }
            other => other,
        }
    }
}
