//! Networks: looking at, making and removing them.
//!
//! Owns the facts about a network as values. It must never remove a network that Switchback did not make.

use super::error::Call;
use super::{Docker, DockerError, STACK_LABEL, done_or_gone, name, optional, with_labels};
use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::ListNetworksOptions;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

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
    /// Its addresses of version 4.
    pub subnets: Vec<Subnet>,
    /// The addresses of version 4 that the engine's host has on it, unless it has none.
    pub gateways: Vec<Ipv4Addr>,
}

/// Addresses of a network of version 4: the first, and the length of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Subnet {
    /// The first address.
    pub first: Ipv4Addr,
    /// Bits that all its addresses share.
    pub prefix: u8,
}

impl Subnet {
    /// Reads `172.16.3.0/24`.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32)?;
        Some(Self { first: first.parse().ok()?, prefix })
    }

    /// Its address number `n`.
    pub fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first).wrapping_add(n))
    }

    /// Whether two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shared = u32::from(self.prefix.min(other.prefix));
        let mask = u32::MAX.checked_shl(32 - shared).unwrap_or(0);
        u32::from(self.first) & mask == u32::from(other.first) & mask
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// A network to make.
#[derive(Debug, Clone, Default)]
pub struct NetworkSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Labels besides the stack's.
    pub labels: &'a [(&'a str, &'a str)],
    /// It has no way out.
    pub internal: bool,
    /// Options of the driver.
    pub options: &'a [(&'a str, &'a str)],
    /// Its addresses; the engine's choice, if none are given.
    pub subnet: Option<Subnet>,
}

fn subnets(ipam: Option<&Ipam>) -> Vec<Subnet> {
    let all = ipam.and_then(|i| i.config.as_ref()).into_iter().flatten();
    all.filter_map(|c| Subnet::parse(c.subnet.as_deref()?)).collect()
}

fn gateways(ipam: Option<&Ipam>) -> Vec<Ipv4Addr> {
    let all = ipam.and_then(|i| i.config.as_ref()).into_iter().flatten();
    all.filter_map(|c| c.gateway.as_deref()?.split('/').next()?.parse().ok()).collect()
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
                subnets: subnets(n.ipam.as_ref()),
                gateways: gateways(n.ipam.as_ref()),
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
                subnets: subnets(n.ipam.as_ref()),
                gateways: gateways(n.ipam.as_ref()),
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
        self.network_make(stack, &NetworkSpec { name, labels, internal, options, subnet: None })
    }

    /// The same, with addresses.
    pub fn network_make(&self, stack: &str, spec: &NetworkSpec<'_>) -> Result<String, DockerError> {
        let NetworkSpec { name, labels, internal, options, subnet } = *spec;
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
            ipam: subnet.map(|subnet| Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        Ok(self.ask(call, name, self.client.create_network(request))?.id)
    }

    /// Puts a container on a network besides its own.
    pub fn network_connect(&self, network: &str, container: &str) -> Result<(), DockerError> {
        let call = Call::change("connect a container to the network", "POST and NETWORKS");
        let request =
            NetworkConnectRequest { container: container.to_owned(), ..NetworkConnectRequest::default() };
        self.ask(call, network, self.client.connect_network(network, request))
    }

    /// Takes a container off a network; fine if it is not on it.
    pub fn network_disconnect(&self, network: &str, container: &str) -> Result<(), DockerError> {
        let call = Call::remove("disconnect a container from the network", "POST and NETWORKS");
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        done_or_gone(self.ask(call, network, self.client.disconnect_network(network, request)))
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
