//! The isolation check: an attacker in a service's place tries to reach production, the host and the world.

use super::{labels, networks};
use crate::docker::helper::{self, this_program};
use crate::docker::{Container, Docker, HELPER_LABEL, Joined, RunSpec};
use crate::error::EngineError;
use crate::gateway::attack::{self, ATTACK_VERB, Attempt, Ended, How, Orders, variables};
use crate::gateway::records::ATTACKER;
use crate::runtime::Placement;
use crate::runtime::compose::containers::{self, of_project};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use switchback_core::release::Instance;

/// Ports of a host that are worth having: SSH, mail, the engine without and with TLS, HTTP, HTTPS, databases.
const HOST_PORTS: [u16; 9] = [22, 25, 80, 443, 2375, 2376, 3306, 5432, 6379];
/// Addresses of the host, and ports, that are tried against each other.
const HOST_ADDRESSES: usize = 24;
const PORTS: usize = 24;
/// Where the engine's socket lies.
const SOCKETS: [&str; 3] = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"];
/// Names by which hosts and clouds are known.
const NAMES: [(&str, u16); 5] = [
    ("host.docker.internal", 80),
    ("gateway.docker.internal", 80),
    ("host.containers.internal", 80),
    ("metadata.google.internal", 80),
    ("example.com", 443),
];
/// The answer of an attacker.
const ANSWER_BYTES: usize = 4 << 20;

/// Attacks from within an environment. Every attempt is told; none may have reached anything. What was tried already is what
/// [`ahead`] found.
pub fn attack(
    docker: &Docker,
    at: &Placement<'_>,
    tried: Option<Vec<Ended>>,
) -> Result<Vec<Ended>, EngineError> {
    let mut ended = looked_at(docker, at)?;
    ended.extend(match tried {
        Some(tried) => tried,
        None => ahead(docker, at)?,
    });
    Ok(ended)
}

/// The part of an attack that needs no service: what an attacker on the environment's networks reaches, as soon as they are there.
pub fn ahead(docker: &Docker, at: &Placement<'_>) -> Result<Vec<Ended>, EngineError> {
    let nets = networks::known(at)?;
    let Some(first) = nets.values().next() else { return Ok(Vec::new()) };
    let own = nets.values().map(|n| (n.subnet.first, n.subnet.prefix)).collect();
    let production = production(at)?;
    let orders = Orders {
        resolver: SocketAddr::from(([127, 0, 0, 11], 53)),
        own,
        attempts: attempts(docker, production.as_ref())?,
    };
    let joined = nets.values().map(|n| Joined { network: n.name.clone(), address: None }).collect();
    send(docker, at, joined, vec![first.gateway.to_string()], &orders)
}

fn production(at: &Placement<'_>) -> Result<Option<Instance>, EngineError> {
    let Some(pointer) = at.home.pointer()? else { return Ok(None) };
    Ok(Some(at.home.generation(pointer.current)?.instance))
}

/// Runs an attacker on networks.
fn send(
    docker: &Docker,
    at: &Placement<'_>,
    joined: Vec<Joined>,
    dns: Vec<String>,
    orders: &Orders,
) -> Result<Vec<Ended>, EngineError> {
    let mut labels = labels(at)?;
    labels.insert(HELPER_LABEL.to_owned(), "attack".to_owned());
    // Its name tells the gateway that what it asks for is no wish of a service.
    let name = format!("{}-{ATTACKER}", containers::project(at.instance)?);
    if let Some(left) = docker.inspect(&name)? {
        docker.remove_with_scratch(&left.id)?;
    }
    let spec = RunSpec {
        name: Some(name),
        image: helper::ensure(docker, &this_program())?,
        argv: vec![ATTACK_VERB.to_owned()],
        env: variables(orders),
        joined,
        dns,
        cap_drop_all: true,
        read_only_root: true,
        labels,
        ..RunSpec::default()
    };
    let mut answer = Vec::new();
    let ran = docker.run(&spec, None, &mut Bounded(&mut answer), &|| false)?;
    let why = |e: String| EngineError::Internal { detail: format!("the attacker gave no answer: {e}") };
    if ran.code != 0 {
        return Err(why(ran.stderr_tail));
    }
    serde_json::from_slice(&answer).map_err(|e| why(e.to_string()))
}

struct Bounded<'a>(&'a mut Vec<u8>);

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > ANSWER_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What can be seen without an attacker: what the environment's containers mount, and which networks they are on.
fn looked_at(docker: &Docker, at: &Placement<'_>) -> Result<Vec<Ended>, EngineError> {
    let allowed: BTreeSet<String> = networks::known(at)?.into_values().map(|n| n.name).collect();
    let mut ended = Vec::new();
    let mut tell = |what: String, bad: Vec<String>, good: &str| {
        let (reached, seen) = if bad.is_empty() { (false, good.to_owned()) } else { (true, bad.join(", ")) };
        let how = How::File { path: String::new() };
        ended.push(Ended { attempt: Attempt { what, how }, reached, seen, took_ms: 0 });
    };
    for name in &allowed {
        // An open one leads somewhere, even if nothing was there when it was tried.
        let open = docker.network(name)?.filter(|n| !n.internal);
        let bad = open.map(|_| "the engine made it with one".to_owned());
        tell(format!("a way out of the network {name}"), bad.into_iter().collect(), "it has none");
    }
    for (service, container) in of_project(docker, containers::project(at.instance)?)? {
        let sockets = container.mounts.iter().filter(|m| {
            m.kind == "bind"
                && (m.source.ends_with(".sock") || matches!(m.source.as_str(), "/" | "/run" | "/var/run"))
        });
        tell(
            format!("sockets of the host in {service}"),
            sockets.map(|m| m.source.clone()).collect(),
            "none is mounted",
        );
        let foreign = container.networks.keys().filter(|n| *n != "none" && !allowed.contains(*n));
        tell(
            format!("networks of {service}"),
            foreign.cloned().collect(),
            "it is on the environment's own only",
        );
    }
    Ok(ended)
}

fn attempts(docker: &Docker, production: Option<&Instance>) -> Result<Vec<Attempt>, EngineError> {
    let mut all: BTreeSet<Attempt> = BTreeSet::new();
    let mut ports: BTreeSet<u16> = HOST_PORTS.into();
    if let Some(project) = production.and_then(|p| p.project.as_deref()) {
        for (service, container) in of_project(docker, project)? {
            of_container(docker, &service, &container, &mut all, &mut ports)?;
        }
    }
    let ports: Vec<u16> = ports.into_iter().take(PORTS).collect();
    for address in host_addresses(docker)? {
        for port in &ports {
            let what = format!("port {port} of the host at {address}");
            all.insert(Attempt { what, how: How::Connect { address, port: *port } });
        }
    }
    for (name, port) in NAMES {
        let how = How::Name { name: name.to_owned(), port };
        all.insert(Attempt { what: format!("{name}:{port}"), how });
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
    for path in SOCKETS {
        all.insert(Attempt { what: format!("the socket {path}"), how: How::File { path: path.to_owned() } });
    }
    Ok(all.into_iter().collect())
}

/// A container of production: by every name and address, on every port that it is known to have.
fn of_container(
    docker: &Docker,
    service: &str,
    container: &Container,
    all: &mut BTreeSet<Attempt>,
    host_ports: &mut BTreeSet<u16>,
) -> Result<(), EngineError> {
    let number = |port: &str| port.split('/').next().and_then(|n| n.parse::<u16>().ok());
    let mut ports: BTreeSet<u16> = container.ports.iter().filter_map(|p| number(&p.container_port)).collect();
    if let Some(image) = docker.image(&container.image_id)? {
        ports.extend(image.exposed_ports.iter().filter_map(|p| number(p)));
    }
    if ports.is_empty() {
        ports.insert(80);
    }
    host_ports.extend(container.ports.iter().map(|p| p.host_port));
    let short = container.id.get(..12).unwrap_or_default();
    let mut names: BTreeSet<String> = [service, container.name.as_str(), short].map(str::to_owned).into();
    names.extend(
        container.networks.keys().flat_map(|n| [format!("{service}.{n}"), format!("{}.{n}", container.name)]),
    );
    for port in ports.into_iter().take(8) {
        for name in &names {
            let what = format!("production's {service} as {name}:{port}");
            all.insert(Attempt { what, how: How::Name { name: name.clone(), port } });
        }
        for (network, address) in &container.networks {
            if let Ok(address) = address.parse() {
                let what = format!("production's {service} at {address}:{port} ({network})");
                all.insert(Attempt { what, how: How::Connect { address, port } });
            }
        }
    }
    Ok(())
}

/// The addresses of the engine's host: those on its bridges, and (where it is this one) all others.
fn host_addresses(docker: &Docker) -> Result<Vec<Ipv4Addr>, EngineError> {
    let mut all: BTreeSet<Ipv4Addr> = docker.networks(&[])?.into_iter().flat_map(|n| n.gateways).collect();
    all.insert(Ipv4Addr::new(172, 17, 0, 1));
    if docker.is_local() {
        all.extend(attack::host_addresses());
    }
    all.retain(|a| !a.is_loopback());
    Ok(all.into_iter().take(HOST_ADDRESSES).collect())
}
