//! The gateway's container: started before the services, stopped after them.

use super::{labels, networks};
use crate::docker::helper::{self, this_program};
use crate::docker::{Container, Docker, GATEWAY, HELPER_LABEL, Joined, NetworkSpec, RunSpec};
use crate::error::EngineError;
use crate::gateway::{GATEWAY_VERB, GatewayConfig, Ingress, read_back, variables};
use crate::runtime::compose::containers;
use crate::runtime::{Placement, Stage, rules};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use switchback_core::egress::Egress;
use switchback_core::workflow::Redactor;

/// The engine's resolver inside containers.
const RESOLVER: ([u8; 4], u16) = ([127, 0, 0, 11], 53);
/// Starting a container takes half a second; on a loaded host some more.
const READY: Duration = Duration::from_secs(60);
/// It writes what waits, and ends.
const GRACE: Duration = Duration::from_secs(5);
/// What it may use: buffers of its connections and their threads.
const MEMORY_BYTES: u64 = 256 << 20;
const THREADS: u32 = 2048;
/// All that it can have written.
const OUTPUT_BYTES: usize = 16 << 20;
/// The label that tells whether a running gateway is the wanted one.
const DIGEST_LABEL: &str = "dev.switchback.gateway";

/// Its name, and that of its own network. Compose uses no dots in either.
fn name(at: &Placement<'_>) -> Result<String, EngineError> {
    Ok(format!("{}.gateway", containers::project(at.instance)?))
}

/// Starts the gateway of an instance, unless it runs, and waits until it listens.
pub fn ensure(docker: &Docker, at: &Placement<'_>, stage: &Stage<'_>) -> Result<(), EngineError> {
    let nets = networks::prepare(docker, at)?;
    if nets.is_empty() {
        return Ok(()); // no service is on a network
    }
    let name = name(at)?;
    let config = GatewayConfig {
        project: containers::project(at.instance)?.to_owned(),
        addresses: nets.values().map(|n| n.gateway).collect(),
        resolver: SocketAddr::from(RESOLVER),
        ingress: ingress(at)?,
        rules: rules::rules(at)?,
    };
    let image = helper::ensure(docker, &this_program())?;
    let env = variables(&config);
    let digest = blake3::hash(format!("{image} {env:?}").as_bytes()).to_hex().to_string();
    if let Some(found) = docker.inspect(&name)? {
        if found.state.running && found.labels.get(DIGEST_LABEL) == Some(&digest) {
            return Ok(());
        }
        docker.remove_with_scratch(&found.id)?;
    }
    (stage.say)("starting the gateway");
    let mut labels = labels(at)?;
    outside(docker, at, &name, !config.rules.allow.is_empty())?;
    labels.insert(DIGEST_LABEL.to_owned(), digest);
    labels.insert(HELPER_LABEL.to_owned(), GATEWAY.to_owned());
    // The first one is where its ports are published.
    let mut joined = vec![Joined { network: name.clone(), address: None }];
    joined.extend(
        nets.values().map(|n| Joined { network: n.name.clone(), address: Some(n.gateway.to_string()) }),
    );
    let spec = RunSpec {
        name: Some(name.clone()),
        image,
        argv: vec![GATEWAY_VERB.to_owned()],
        env,
        joined,
        published: config.ingress.iter().map(|i| i.listen).collect(),
        // It passes on connections, never packets.
        sysctls: vec![("net.ipv4.ip_forward".to_owned(), "0".to_owned())],
        cap_drop_all: true,
        cap_add: vec!["NET_BIND_SERVICE".to_owned(), "NET_RAW".to_owned()],
        read_only_root: true,
        memory_bytes: Some(MEMORY_BYTES),
        pids: Some(THREADS),
        labels,
        ..RunSpec::default()
    };
    let id = docker.run_detached(&spec)?;
    let began = Instant::now();
    loop {
        if read_back(&docker.output(&id, OUTPUT_BYTES)?).0.is_some() {
            return Ok(());
        }
        let running = docker.inspect(&id)?.is_some_and(|c| c.state.running);
        if !running || began.elapsed() > READY {
            let said = docker.logs_tail(&id, 20).unwrap_or_default();
            docker.remove_with_scratch(&id)?;
            return Err(EngineError::refused(
                format!("the gateway of {} did not start: {}", at.instance.key(), said.trim()),
                "start again; if it fails again, this is a bug of Switchback",
            ));
        }
        if (stage.cancelled)() {
            return Err(EngineError::refused(
                "interrupted while starting the gateway",
                "`switchback resume` goes on",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The ordinary network where the gateway alone is; it leads out only where something is let out.
fn outside(docker: &Docker, at: &Placement<'_>, name: &str, open: bool) -> Result<(), EngineError> {
    let labels = labels(at)?;
    let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let closed = [("com.docker.network.bridge.enable_ip_masquerade", "false")];
    let options = if open { &closed[..0] } else { &closed[..] };
    let spec = NetworkSpec { name, labels: &labels, internal: false, options, subnet: None };
    docker.network_make(&at.home.id()?, &spec)?;
    Ok(())
}

/// Which port leads where.
fn ingress(at: &Placement<'_>) -> Result<Vec<Ingress>, EngineError> {
    let model = crate::runtime::compose::release::kept_model(at.home, &at.instance.release)?;
    let mut all = Vec::new();
    for (name, given) in &at.instance.ports {
        let Some(service) = at.release.services.get(name) else { continue };
        // A service may share the network of another one.
        let mode = model.service(name).and_then(|s| s.network_mode().map(str::to_owned));
        let reached = mode.as_deref().and_then(|m| m.strip_prefix("service:")).unwrap_or(name.as_str());
        for (port, listen) in given.iter().filter(|(_, listen)| **listen > 0) {
            if let Some(number) = service.definition.ports.get(port) {
                all.push(Ingress { listen: *listen, service: reached.to_owned(), port: *number });
            }
        }
    }
    Ok(all)
}

fn find(docker: &Docker, at: &Placement<'_>) -> Result<Option<Container>, EngineError> {
    Ok(docker.inspect(&name(at)?)?)
}

/// Whether a service can be reached from outside: its gateway runs, or it needs none.
pub fn leads(docker: &Docker, at: &Placement<'_>) -> Result<bool, EngineError> {
    let needed = at.instance.ports.values().flat_map(|p| p.values()).any(|listen| *listen > 0);
    Ok(at.instance.is_production() || !needed || find(docker, at)?.is_some_and(|c| c.state.running))
}

/// Stops the gateway; what it recorded can still be collected.
pub fn stop(docker: &Docker, at: &Placement<'_>) -> Result<(), EngineError> {
    if !at.instance.is_production()
        && let Some(found) = find(docker, at)?
        && found.state.running
    {
        docker.stop(&found.id, Some(GRACE))?;
    }
    Ok(())
}

/// What the gateway recorded since its last start.
pub fn collect(docker: &Docker, at: &Placement<'_>, redactor: &Redactor) -> Result<Egress, EngineError> {
    let environment = &at.instance.environment;
    let Some(found) = find(docker, at)? else {
        return Ok(Egress::not_observed(environment, "its gateway is gone, or was never started"));
    };
    let (started, records, dropped) = read_back(&docker.output(&found.id, OUTPUT_BYTES)?);
    let Some(started) = started else {
        return Ok(Egress::not_observed(environment, "its gateway wrote nothing"));
    };
    let clean = |text: &str| redactor.redact(text);
    let records = records.into_iter().map(|r| r.cleaned(&clean)).collect();
    let session = format!("{}@{started}", found.id.get(..12).unwrap_or(&found.id));
    Ok(Egress::observed(environment, session, records, dropped))
}
