//! Health of containers: one probe, and waiting until healthy stays healthy.

use super::ComposeRuntime;
use super::containers::{container_of, has_done, is_one_off, jobs, of_project, project};
use crate::check::http::{probe_http, probe_tcp, probe_tcp_stays};
use crate::check::workflow::Endpoint;
use crate::docker::{Container, ExecSpec, Listens, Whom};
use crate::error::EngineError;
use crate::runtime::process::elapsed_ms;
use crate::runtime::{Placement, ProbeResult, Stage};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use switchback_core::config::Service;
use switchback_core::ids::ServiceName;
use switchback_core::journal::{ErrorKind, ServiceTimes, StepError};

/// Restarts during one start before it is given up.
const RESTARTS: u64 = 3;

/// The address of a container's port: where it is published, else on its network.
pub fn address(
    runtime: &ComposeRuntime,
    container: &Container,
    port: u16,
    whom: Whom,
) -> Option<(String, u16)> {
    let wanted = format!("{port}/tcp");
    if let Some(published) = container.ports.iter().find(|p| p.container_port == wanted) {
        let listens = match published.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => Listens::Everywhere,
            other => Listens::At(other),
        };
        return runtime.docker.reach(listens, published.host_port, whom);
    }
    let ip = container.networks.values().find(|ip| !ip.is_empty())?;
    runtime.docker.reach(Listens::InContainer(ip), port, whom)
}

/// Where a port of an instance's container is reached: in staging through the gateway, else as [`address`] says.
pub fn reached(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    (name, container): (&ServiceName, &Container),
    port: u16,
    whom: Whom,
) -> Option<(String, u16)> {
    if at.instance.is_production() {
        return address(runtime, container, port, whom);
    }
    let service = &at.release.services.get(name)?.definition;
    let given = at.instance.ports.get(name)?;
    let listen =
        given.iter().find(|(n, _)| service.ports.get(*n) == Some(&port)).map(|(_, listen)| *listen)?;
    if listen == 0 {
        return None;
    }
    runtime.docker.reach(Listens::At("127.0.0.1"), listen, whom)
}

/// Where the ports of an instance's services are reached.
pub fn endpoints(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    whom: Whom,
) -> BTreeMap<ServiceName, Endpoint> {
    let mut found = BTreeMap::new();
    for (name, service) in &at.release.services {
        let container = container_of(&runtime.docker, at.instance, name).ok().flatten();
        let mut host = runtime.docker.host_address();
        let mut ports = BTreeMap::new();
        for (port, number) in &service.definition.ports {
            let place = container.as_ref().and_then(|c| reached(runtime, at, (name, c), *number, whom));
            if let Some((address, place)) = place {
                host = address;
                ports.insert(port.clone(), place);
            }
        }
        let main = service.definition.main_port().and_then(|p| ports.get(p)).copied().unwrap_or(0);
        found.insert(name.clone(), Endpoint { host, ports, default_port: main });
    }
    found
}

/// Probes a service once.
pub fn probe(runtime: &ComposeRuntime, at: &Placement<'_>, name: &ServiceName) -> ProbeResult {
    let bad = |seen: String| ProbeResult { ok: false, seen };
    let Some(service) = at.release.services.get(name).map(|s| &s.definition) else {
        return bad(format!("there is no service {name}"));
    };
    match container_of(&runtime.docker, at.instance, name) {
        Ok(Some(container)) => {
            let job = jobs(at).is_ok_and(|jobs| jobs.contains(name));
            probe_container(runtime, at, (name, service), &container, job)
        }
        Ok(None) => bad("it has no container".to_owned()),
        Err(e) => bad(e.to_string()),
    }
}

fn probe_container(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    (name, service): (&ServiceName, &Service),
    container: &Container,
    job: bool,
) -> ProbeResult {
    let good = |seen: String| ProbeResult { ok: true, seen };
    let bad = |seen: String| ProbeResult { ok: false, seen };
    let state = &container.state;
    if !state.running {
        let ended = format!("{} has ended with exit code {}", container.name, state.exit_code);
        return if job && has_done(container) { good(ended) } else { bad(ended) };
    }
    if state.paused {
        return bad(format!("{} is paused", container.name));
    }
    // The container's own check says what its makers know; a configured one is asked as well.
    if let Some(own) = &state.health
        && own.status != "healthy"
    {
        let said = own.last_output.trim();
        let said = if said.is_empty() { String::new() } else { format!(": {}", shorten(said)) };
        return bad(format!("{} is {}{said}", container.name, own.status));
    }
    let health = &service.health;
    let timeout = health.timeout.0;
    let port = service.main_port().and_then(|p| service.ports.get(p)).copied();
    let reached = port.and_then(|p| reached(runtime, at, (name, container), p, Whom::Program));
    match (&health.http, &health.tcp, &health.command, reached) {
        (Some(path), _, _, Some((host, port))) => {
            match probe_http(&format!("http://{host}:{port}{path}"), &(200..=399), timeout) {
                Ok(status) => good(format!("GET {path} answered {status}")),
                Err(e) => bad(format!("GET {path}: {e}")),
            }
        }
        (_, Some(_), _, Some((host, port))) => {
            // The gateway of staging accepts before the service does.
            let ask = if at.instance.is_production() { probe_tcp } else { probe_tcp_stays };
            match ask(&format!("{host}:{port}"), timeout) {
                Ok(()) => good(format!("port {port} accepts connections")),
                Err(e) => bad(format!("port {port}: {e}")),
            }
        }
        (Some(_), ..) | (_, Some(_), ..) => bad(format!("no port of {} can be reached", container.name)),
        (None, None, Some(command), _) => run_command(runtime, container, command, timeout),
        (None, None, None, _) => good(match &state.health {
            Some(_) => format!("{} is healthy", container.name),
            None => format!("{} runs; it has no health check", container.name),
        }),
    }
}

fn run_command(
    runtime: &ComposeRuntime,
    container: &Container,
    command: &[String],
    timeout: Duration,
) -> ProbeResult {
    // The program must not outlive its limit: the shell tool of the image may not have `timeout`.
    let spec = ExecSpec { argv: command.to_vec(), ..ExecSpec::default() };
    let began = Instant::now();
    let cancelled = || began.elapsed() > timeout;
    match runtime.docker.exec(&container.id, &spec, None, &mut std::io::sink(), &cancelled) {
        Ok(ended) => {
            ProbeResult { ok: ended.code == 0, seen: format!("the health command: exit code {}", ended.code) }
        }
        Err(e) => ProbeResult { ok: false, seen: format!("the health command: {e}") },
    }
}

fn shorten(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(i, _)| i);
    &text[..end]
}

/// A service that is waited for.
struct Waiting<'a> {
    name: &'a ServiceName,
    service: &'a Service,
    job: bool,
    /// Since when, and which start of which container.
    healthy_since: Option<(Instant, String)>,
    first_healthy_ms: Option<u64>,
    restarts_at_first: Option<u64>,
}

/// Waits until services are healthy and each has stayed so for its stability time; all at the same time.
///
/// Times are told from `began`. The limit of each counts from now: Compose has started the last of them only when those
/// that it depends on were healthy, which may have taken longer than its own limit.
pub fn wait(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    services: &BTreeMap<ServiceName, Service>,
    began: Instant,
    stage: &Stage<'_>,
) -> Result<BTreeMap<ServiceName, ServiceTimes>, StepError> {
    let trouble = |e: EngineError| e.to_step_error();
    let jobs = jobs(at).map_err(trouble)?;
    let mut left: Vec<Waiting<'_>> = services
        .iter()
        .map(|(name, service)| Waiting {
            name,
            service,
            job: jobs.contains(name),
            healthy_since: None,
            first_healthy_ms: None,
            restarts_at_first: None,
        })
        .collect();
    let started = Instant::now();
    let mut done = BTreeMap::new();
    let mut pause = Duration::from_millis(20);
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|w| w.name.as_str()).collect();
        (stage.say)(&format!("waiting until {} is healthy", names.join(", ")));
        let all = of_project(&runtime.docker, project(at.instance).map_err(trouble)?).map_err(trouble)?;
        let mut waiting = Vec::new();
        for mut one in left {
            let found = all.iter().find(|(s, c)| s == one.name.as_str() && !is_one_off(c)).map(|(_, c)| c);
            match one.look(runtime, at, found, (began, started))? {
                Some(times) => {
                    done.insert(one.name.clone(), times);
                }
                None => waiting.push(one),
            }
        }
        left = waiting;
        if left.is_empty() {
            break;
        }
        if (stage.cancelled)() {
            return Err(StepError {
                kind: ErrorKind::Refused,
                message: format!("interrupted while waiting for {}", left[0].name),
                hint: Some("`switchback resume` goes on".to_owned()),
                details: Vec::new(),
            });
        }
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(100));
    }
    Ok(done)
}

impl Waiting<'_> {
    /// Its times, once it has been healthy for long enough.
    fn look(
        &mut self,
        runtime: &ComposeRuntime,
        at: &Placement<'_>,
        found: Option<&Container>,
        (began, started): (Instant, Instant),
    ) -> Result<Option<ServiceTimes>, StepError> {
        let name = self.name;
        let failure = |message: String, hint: &str| StepError {
            kind: ErrorKind::Refused,
            message,
            hint: Some(hint.to_owned()),
            details: super::logs::last(runtime, at, name, 12),
        };
        let now = Instant::now();
        let mut seen = "it has no container".to_owned();
        if let Some(container) = found {
            let result = probe_container(runtime, at, (name, self.service), container, self.job);
            let restarts = container.restart_count;
            let before = *self.restarts_at_first.get_or_insert(restarts);
            let identity = format!("{} {} {restarts}", container.id, container.state.started_at);
            seen = result.seen;
            if result.ok {
                self.first_healthy_ms.get_or_insert_with(|| elapsed_ms(began));
                // A restart in between begins anew: whatever answered before is gone.
                let since = match &self.healthy_since {
                    Some((since, same)) if *same == identity => *since,
                    _ => now,
                };
                self.healthy_since = Some((since, identity));
                // A job that is done cannot become less so.
                if self.job && !container.state.running
                    || now.duration_since(since) >= self.service.health.stable.0
                {
                    return Ok(Some(ServiceTimes {
                        healthy_after_ms: self.first_healthy_ms,
                        stable_after_ms: Some(elapsed_ms(began)),
                        ..ServiceTimes::default()
                    }));
                }
            } else {
                self.healthy_since = None;
            }
            let gone = !container.state.running && !container.state.restarting && !result.ok;
            if restarts >= before + RESTARTS || gone {
                let message = format!(
                    "{name} does not stay up: {} ended with exit code {}",
                    container.name, container.state.exit_code
                );
                return Err(failure(
                    message,
                    &format!("its log tells why: `docker logs {}`", container.name),
                ));
            }
        }
        // One that is healthy is let become stable: it came in time, or is at least there now.
        if self.healthy_since.is_none() && now >= started + self.service.health.start.0 {
            let message =
                format!("{name} did not become healthy within {}: {seen}", self.service.health.start);
            return Err(failure(message, "raise `health.start` if it only needs longer"));
        }
        Ok(None)
    }
}
