//! Health of containers: one probe, and waiting until healthy stays healthy.

use super::ComposeRuntime;
use super::containers::container_of;
use crate::check::http::{probe_http, probe_tcp};
use crate::docker::{Container, ExecSpec};
use crate::runtime::process::elapsed_ms;
use crate::runtime::{Placement, ProbeResult, Stage};
use std::time::{Duration, Instant};
use switchback_core::config::Service;
use switchback_core::ids::ServiceName;
use switchback_core::journal::{ErrorKind, ServiceTimes, StepError};

/// Restarts during one start before it is given up.
const RESTARTS: u64 = 3;

/// The address of a container's port: where it is published, else on its network.
pub fn address(runtime: &ComposeRuntime, container: &Container, port: u16) -> Option<(String, u16)> {
    let wanted = format!("{port}/tcp");
    if let Some(published) = container.ports.iter().find(|p| p.container_port == wanted) {
        let host = match published.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => runtime.docker.host_address(),
            "127.0.0.1" | "::1" => runtime.docker.host_address(),
            other => other.to_owned(),
        };
        return Some((host, published.host_port));
    }
    let ip = container.networks.values().find(|ip| !ip.is_empty())?;
    runtime.docker.is_local().then(|| (ip.clone(), port))
}

/// Probes a service once.
pub fn probe(runtime: &ComposeRuntime, at: &Placement<'_>, name: &ServiceName) -> ProbeResult {
    let bad = |seen: String| ProbeResult { ok: false, seen };
    let Some(service) = at.release.services.get(name).map(|s| &s.definition) else {
        return bad(format!("there is no service {name}"));
    };
    match container_of(&runtime.docker, at.instance, name) {
        Ok(Some(container)) => probe_container(runtime, service, &container),
        Ok(None) => bad("it has no container".to_owned()),
        Err(e) => bad(e.to_string()),
    }
}

fn probe_container(runtime: &ComposeRuntime, service: &Service, container: &Container) -> ProbeResult {
    let good = |seen: String| ProbeResult { ok: true, seen };
    let bad = |seen: String| ProbeResult { ok: false, seen };
    let state = &container.state;
    if !state.running {
        let ended = format!("{} has ended with exit code {}", container.name, state.exit_code);
        let done = state.exit_code == 0 && !state.restarting && state.error.is_empty();
        let one_shot = done && !state.finished_at.starts_with("0001") && service.health == Default::default();
        return if one_shot { good(ended) } else { bad(ended) };
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
    let reached = port.and_then(|p| address(runtime, container, p));
    match (&health.http, &health.tcp, &health.command, reached) {
        (Some(path), _, _, Some((host, port))) => {
            match probe_http(&format!("http://{host}:{port}{path}"), &(200..=399), timeout) {
                Ok(status) => good(format!("GET {path} answered {status}")),
                Err(e) => bad(format!("GET {path}: {e}")),
            }
        }
        (_, Some(_), _, Some((host, port))) => match probe_tcp(&format!("{host}:{port}"), timeout) {
            Ok(()) => good(format!("port {port} accepts connections")),
            Err(e) => bad(format!("port {port}: {e}")),
        },
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
        Ok(ended) => ProbeResult {
            ok: ended.code == 0,
            seen: format!("the health command: exit code {}", ended.code),
        },
        Err(e) => ProbeResult { ok: false, seen: format!("the health command: {e}") },
    }
}

fn shorten(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(i, _)| i);
    &text[..end]
}

/// Waits until a service is healthy and has stayed so for its stability time.
pub fn wait(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    began: Instant,
    stage: &Stage<'_>,
) -> Result<ServiceTimes, StepError> {
    let deadline = began + service.health.start.0;
    let failure = |message: String, hint: &str| StepError {
        kind: ErrorKind::Refused,
        message,
        hint: Some(hint.to_owned()),
        details: super::log_lines(runtime, at, name, 12),
    };
    // A healthy one is told by its id and start: a restart in between begins anew.
    let mut healthy_since: Option<(Instant, String)> = None;
    let mut first_healthy = None;
    let mut first_count = None;
    let mut pause = Duration::from_millis(20);
    loop {
        let found = container_of(&runtime.docker, at.instance, name)
            .map_err(|e| failure(e.to_string(), "is the Docker engine running?"))?;
        let now = Instant::now();
        let mut seen = "it has no container".to_owned();
        if let Some(container) = &found {
            let result = probe_container(runtime, service, container);
            let restarts = container.restart_count;
            let before = *first_count.get_or_insert(restarts);
            let identity = format!("{} {} {restarts}", container.id, container.state.started_at);
            seen = result.seen;
            if result.ok {
                first_healthy.get_or_insert_with(|| elapsed_ms(began));
                match &healthy_since {
                    Some((since, same)) if *same == identity => {
                        if now.duration_since(*since) >= service.health.stable.0 {
                            return Ok(ServiceTimes {
                                healthy_after_ms: first_healthy,
                                stable_after_ms: Some(elapsed_ms(began)),
                                ..ServiceTimes::default()
                            });
                        }
                    }
                    _ => healthy_since = Some((now, identity)),
                }
            } else {
                healthy_since = None;
            }
            let gone = !container.state.running && !container.state.restarting && !result.ok;
            if restarts >= before + RESTARTS || (gone && container.state.exit_code != 0) {
                let message = format!(
                    "{name} does not stay up: {} ended with exit code {}",
                    container.name, container.state.exit_code
                );
                return Err(failure(message, &format!("its log tells why: `docker logs {}`", container.name)));
            }
        }
        if now >= deadline {
            let message = format!("{name} did not become healthy within {}: {seen}", service.health.start);
            return Err(failure(message, "raise `health.start` if it only needs longer"));
        }
        if (stage.cancelled)() {
            let message = format!("interrupted while waiting for {name}");
            return Err(failure(message, "`switchback resume` goes on"));
        }
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(100));
    }
}
