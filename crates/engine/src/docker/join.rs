//! Containers on several networks, with addresses and published ports of their own.

use super::error::Call;
use super::run::RunSpec;
use super::{Docker, DockerError, name};
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, NetworkConnectRequest, NetworkingConfig, PortBinding,
};
use std::collections::HashMap;

/// A network that a container is on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    /// The network's name.
    pub network: String,
    /// The container's address there; the engine's choice, if none is given.
    pub address: Option<String>,
}

impl Joined {
    fn settings(&self) -> EndpointSettings {
        let address = self.address.clone();
        EndpointSettings {
            ipam_config: address
                .map(|a| EndpointIpamConfig { ipv4_address: Some(a), ..EndpointIpamConfig::default() }),
            ..EndpointSettings::default()
        }
    }
}

impl RunSpec {
    /// Engines before 25 take one network when a container is made.
    pub(super) fn first_network(&self) -> Result<Option<NetworkingConfig>, DockerError> {
        let Some(first) = self.joined.first() else { return Ok(None) };
        let network = name::object("network", &first.network)?.to_owned();
        Ok(Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, first.settings())])) }))
    }

    pub(super) fn exposed_ports(&self) -> Vec<String> {
        self.published.iter().map(|p| format!("{p}/tcp")).collect()
    }

    pub(super) fn port_bindings(&self) -> HashMap<String, Option<Vec<PortBinding>>> {
        let binding = |port: &u16| PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(port.to_string()),
        };
        self.published.iter().map(|p| (format!("{p}/tcp"), Some(vec![binding(p)]))).collect()
    }
}

impl Docker {
    /// Puts a container that was made on the rest of its networks.
    pub(super) fn join_others(&self, id: &str, joined: &[Joined]) -> Result<(), DockerError> {
        for other in joined.iter().skip(1) {
            let network = name::object("network", &other.network)?;
            let request =
                NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(other.settings()) };
            let call = Call::change("connect the container to the network", "POST and NETWORKS");
            self.ask(call, network, self.client.connect_network(network, request))?;
        }
        Ok(())
    }
}
