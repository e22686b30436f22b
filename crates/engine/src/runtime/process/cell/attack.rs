//! The isolation check of a cell: an attacker in a service's place tries to reach production, the host and the world.

use super::{before, network, running};
use crate::error::{EngineError, io};
use crate::gateway::attack::{ATTACK_VERB, Attempt, Ended, How, Orders, host_addresses, variables};
use crate::runtime::Placement;
use crate::runtime::process::start;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

/// Ports of a host that are worth having: SSH, mail, the engine, HTTP, HTTPS, databases.
const HOST_PORTS: [u16; 9] = [22, 25, 80, 443, 2375, 2376, 3306, 5432, 6379];
/// Addresses of the host that are tried.
const HOST_ADDRESSES: usize = 24;
/// Where services of a host keep their sockets.
const SOCKETS: [&str; 4] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/dbus/system_bus_socket",
];

/// Attacks from within a cell; `None` where there is none.
pub fn attack(at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
    if running(at.home, at.instance).is_none() {
        return Ok(None);
    }
    let words = before(at, "switchback-attack")?;
    if words.is_empty() { Ok(None) } else { send(at, &words).map(Some) }
}

/// The same from outside of the cell, as if there were none.
pub fn attack_exposed(at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
    if running(at.home, at.instance).is_none() {
        return Ok(None);
    }
    send(at, &[]).map(Some)
}

/// Runs an attacker after some words of a command line.
fn send(at: &Placement<'_>, words: &[String]) -> Result<Vec<Ended>, EngineError> {
    let orders = Orders {
        resolver: SocketAddr::from((network::GATEWAY, 53)),
        own: vec![(network::GATEWAY, network::PREFIX)],
        attempts: attempts(at)?,
    };
    let attacker = [start::own_program().into_os_string(), ATTACK_VERB.into()];
    let mut line = words.iter().map(Into::into).chain(attacker);
    let program: OsString = line.next().unwrap_or_default();
    let output = Command::new(&program)
        .args(line)
        .envs(variables(&orders))
        .stdin(Stdio::null())
        .output()
        .map_err(io("start", program.as_ref()))?;
    let why = |e: String| EngineError::Internal { detail: format!("the attacker gave no answer: {e}") };
    if !output.status.success() {
        return Err(why(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| why(e.to_string()))
}

fn attempts(at: &Placement<'_>) -> Result<Vec<Attempt>, EngineError> {
    let mut all = BTreeSet::new();
    let mut ports: BTreeSet<u16> = HOST_PORTS.into();
    let own: BTreeSet<u16> = at.instance.ports.values().flat_map(|p| p.values().copied()).collect();
    if let Some(pointer) = at.home.pointer()? {
        let production = at.home.generation(pointer.current)?.instance;
        for (service, given) in &production.ports {
            for (name, port) in given.iter().filter(|(_, p)| !own.contains(p)) {
                let what = format!("production's {service} at 127.0.0.1:{port} ({name})");
                all.insert(Attempt { what, how: How::Accept { port: *port } });
                ports.insert(*port);
            }
        }
        for (store, place) in &production.stores {
            let what = format!("production's data {store} at {}", place.path);
            all.insert(Attempt { what, how: How::Read { path: place.path.clone() } });
        }
    }
    for (store, place) in crate::gather::configured_stores(at.home, at.config) {
        let what = format!("the original data {store} at {}", place.path);
        all.insert(Attempt { what, how: How::Read { path: place.path } });
    }
    let mut hosts: BTreeSet<Ipv4Addr> = host_addresses().into_iter().take(HOST_ADDRESSES).collect();
    hosts.extend(named(&fs::read_to_string("/etc/hosts").unwrap_or_default()));
    for address in hosts.into_iter().filter(|a| !a.is_loopback()) {
        for port in &ports {
            let what = format!("this host at {address}:{port}");
            all.insert(Attempt { what, how: How::Connect { address, port: *port } });
        }
    }
    for (what, address, port) in [
        ("the metadata address of clouds", Ipv4Addr::new(169, 254, 169, 254), 80),
        ("the internet at 1.1.1.1:443", Ipv4Addr::new(1, 1, 1, 1), 443),
        ("the internet at 8.8.8.8:53", Ipv4Addr::new(8, 8, 8, 8), 53),
    ] {
        all.insert(Attempt { what: what.to_owned(), how: How::Connect { address, port } });
    }
    let how = How::Ask { address: Ipv4Addr::new(8, 8, 8, 8) };
    all.insert(Attempt { what: "a name server of the internet over UDP".to_owned(), how });
    let how = How::Names { only: network::GATEWAY };
    all.insert(Attempt { what: "somebody else than the gateway who knows names".to_owned(), how });
    for path in SOCKETS {
        all.insert(Attempt { what: format!("the socket {path}"), how: How::File { path: path.to_owned() } });
    }
    Ok(all.into_iter().collect())
}

/// The addresses that the host's own file of names has.
fn named(text: &str) -> Vec<Ipv4Addr> {
    let first = text.lines().filter_map(|line| line.split_whitespace().next());
    first
        .filter_map(|word| match word.parse() {
            Ok(IpAddr::V4(address)) => Some(address),
            _ => None,
        })
        .collect()
}
