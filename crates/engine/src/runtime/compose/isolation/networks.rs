//! The networks of an environment, made before its services.

use super::labels;
use crate::docker::{Docker, DockerError, Network, NetworkSpec, STACK_LABEL, Subnet};
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::home::{read_json, write_json};
use crate::runtime::Placement;
use crate::runtime::compose::{containers, release};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use switchback_core::compose::staging_networks;

/// From here networks are taken, 256 addresses each, the last first. Engines give out 172.17.0.0 and above by themselves, so
/// the first block costs no network of theirs; and all of it is what programs know as private.
const POOLS: [(u8, u8); 3] = [(172, 16), (172, 31), (172, 30)];
const PREFIX: u8 = 24;
/// Somebody else may take the same addresses between looking and making.
const TRIES: usize = 32;
/// The gateway's address in each network. The first is the engine's, even though its host does not have it.
const GATEWAY: u32 = 2;
/// Since this version the engine itself can keep its host off a network.
const ISOLATED_MODE: u32 = 28;

/// A network of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// Its name for the engine.
    pub name: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// The gateway's address on it.
    pub gateway: Ipv4Addr,
}

fn file(at: &Placement<'_>) -> PathBuf {
    at.home.instance_dir(at.instance).join("networks.json")
}

/// The networks of an instance, by their key in the model.
pub fn known(at: &Placement<'_>) -> Result<BTreeMap<String, Net>, EngineError> {
    read_json(&file(at))
}

/// Makes the networks that an instance needs, or finds them.
pub fn prepare(docker: &Docker, at: &Placement<'_>) -> Result<BTreeMap<String, Net>, EngineError> {
    let project = containers::project(at.instance)?;
    let model = release::kept_model(at.home, &at.instance.release)?;
    let before: BTreeMap<String, Net> = known(at).unwrap_or_default();
    let mut all = BTreeMap::new();
    for key in staging_networks(&model) {
        let name = format!("{project}_{key}");
        let net = make(docker, at, &name, before.get(&key))?;
        all.insert(key, net);
    }
    write_json(&file(at), &all)?;
    Ok(all)
}

fn own(network: &Network) -> Option<Net> {
    let subnet = *network.subnets.first()?;
    Some(Net { name: network.name.clone(), subnet, gateway: subnet.address(GATEWAY) })
}

fn make(docker: &Docker, at: &Placement<'_>, name: &str, before: Option<&Net>) -> Result<Net, EngineError> {
    let stack = at.home.id()?;
    if let Some(found) = docker.network(name)? {
        let ours = found.labels.get(STACK_LABEL) == Some(&stack) && (found.internal || gap(Gap::Isolation));
        return own(&found).filter(|_| ours).ok_or_else(|| {
            EngineError::refused(
                format!("there is a network {name} already, and Switchback did not make it so"),
                format!("remove it: `docker network rm {name}`"),
            )
        });
    }
    let labels = labels(at)?;
    let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let options = options(&docker.info()?.server_version);
    let spec = |subnet| NetworkSpec {
        name,
        labels: &labels,
        internal: !gap(Gap::Isolation),
        options: &options,
        subnet: Some(subnet),
    };
    if let Some(before) = before {
        // The model names the gateway's address already: somebody removed an unused network.
        docker.network_make(&stack, &spec(before.subnet))?;
        return Ok(before.clone());
    }
    let mut taken: Vec<Subnet> = docker.networks(&[])?.into_iter().flat_map(|n| n.subnets).collect();
    if docker.is_local() {
        taken.extend(routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
    }
    let mut forbidden = None;
    for _ in 0..TRIES {
        let Some(subnet) = free(&taken) else { break };
        match docker.network_make(&stack, &spec(subnet)) {
            Ok(_) => return Ok(Net { name: name.to_owned(), subnet, gateway: subnet.address(GATEWAY) }),
            // Engines answer so when somebody has the addresses, and a proxy before them when it allows no networks.
            Err(e @ DockerError::Forbidden { .. }) => {
                taken.push(subnet);
                forbidden = Some(e);
            }
            Err(e) => return Err(e.into()),
        }
    }
    if let Some(e) = forbidden {
        return Err(e.into());
    }
    Err(EngineError::refused(
        "no addresses are left for a staging network between 172.16.0.0 and 172.31.255.255",
        "remove networks that nobody uses: `docker network prune`",
    ))
}

/// Options that keep the engine's host off a network.
fn options(server_version: &str) -> Vec<(&'static str, &'static str)> {
    let mut options = vec![("com.docker.network.bridge.inhibit_ipv4", "true")];
    let major = server_version.split('.').next().and_then(|m| m.parse::<u32>().ok());
    if major.is_some_and(|m| m >= ISOLATED_MODE) {
        options.push(("com.docker.network.bridge.gateway_mode_ipv4", "isolated"));
    }
    options
}

fn free(taken: &[Subnet]) -> Option<Subnet> {
    let all = POOLS.iter().flat_map(|(a, b)| {
        (0..=255).rev().map(move |c| Subnet { first: Ipv4Addr::new(*a, *b, c, 0), prefix: PREFIX })
    });
    all.into_iter().find(|s| !taken.iter().any(|t| t.overlaps(s)))
}

/// The networks that a host has a way to, but for the default (`/proc/net/route`: hexadecimal, lowest byte first).
fn routes(text: &str) -> Vec<Subnet> {
    let number = |field: Option<&&str>| u32::from_str_radix(field?, 16).ok().map(u32::swap_bytes);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (first, mask) = (number(fields.get(1))?, number(fields.get(7))?);
        let prefix = u8::try_from(mask.leading_ones()).ok().filter(|p| *p > 0)?;
        Some(Subnet { first: Ipv4Addr::from(first), prefix })
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_that_neither_the_engine_nor_the_host_uses() {
        let subnet = |t: &str| Subnet::parse(t).expect("addresses");
        assert_eq!(free(&[]), Some(subnet("172.16.255.0/24")));
        assert_eq!(
            free(&[subnet("172.16.255.0/24"), subnet("172.16.254.128/25")]),
            Some(subnet("172.16.253.0/24"))
        );
        assert_eq!(free(&[subnet("172.16.0.0/16")]), Some(subnet("172.31.255.0/24")));
        assert_eq!(free(&[subnet("172.16.0.0/12")]), None);
        let routes = routes(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\neth0\t00000000\t010200C0\t3\t0\t0\t0\t00000000\t0\ndocker0\t000011AC\t00000000\t1\t0\t0\t0\t0000FFFF\t0\n",
        );
        assert_eq!(routes, [subnet("172.17.0.0/16")]);
    }

    #[test]
    fn newer_engines_are_told_in_their_own_words_as_well() {
        assert_eq!(options("20.10.24+dfsg1").len(), 1);
        assert_eq!(options("28.2.2").len(), 2);
        assert_eq!(options("odd").len(), 1);
    }
}
