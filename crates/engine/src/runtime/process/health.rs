//! Health: one probe, and waiting until healthy stays healthy.

use super::cell;
use super::elapsed_ms;
use super::shim::{STATE_FILE, State};
use super::start::{placed, resolve};
use super::table;
use crate::check::http::{probe_http, probe_tcp};
use crate::error::EngineError;
use crate::exec::{self, Exec, Inherit, Leftovers};
use crate::home::read_json;
use crate::runtime::{Placement, ProbeResult};
use std::path::Path;
use std::time::{Duration, Instant};
use switchback_core::config::Service;
use switchback_core::ids::ServiceName;
use switchback_core::journal::{ErrorKind, ServiceTimes, StepError};

/// Probes a service once, within its probe time-out.
pub fn probe(placement: &Placement<'_>, name: &ServiceName, service: &Service) -> ProbeResult {
    let health = &service.health;
    let timeout = health.timeout.0;
    let port = service.main_port().and_then(|p| placement.instance.ports.get(name)?.get(p)).copied();
    if let (Some(path), Some(port)) = (&health.http, port) {
        let url = format!("http://127.0.0.1:{port}{path}");
        return match probe_http(&url, &(200..=399), timeout) {
            Ok(status) => ProbeResult { ok: true, seen: format!("GET {path} answered {status}") },
            Err(e) => ProbeResult { ok: false, seen: format!("GET {path}: {e}") },
        };
    }
    if let (Some(_), Some(port)) = (&health.tcp, port) {
        if let Some(result) = listened_inside(placement, name, port) {
            return result;
        }
        return match probe_tcp(&format!("127.0.0.1:{port}"), timeout) {
            Ok(()) => ProbeResult { ok: true, seen: format!("port {port} accepts connections") },
            Err(e) => ProbeResult { ok: false, seen: format!("port {port}: {e}") },
        };
    }
    let Some(command) = &health.command else {
        return ProbeResult { ok: false, seen: "no health check is configured".to_owned() };
    };
    match run_command(placement, name, service, command, timeout) {
        Ok(result) => result,
        Err(e) => ProbeResult { ok: false, seen: format!("the health command could not be run: {e}") },
    }
}

/// Whether a service in a cell listens. Connecting would only say that the gateway does.
fn listened_inside(placement: &Placement<'_>, name: &ServiceName, port: u16) -> Option<ProbeResult> {
    cell::running(placement.home, placement.instance)?;
    let members = super::service_members(placement.home, placement.instance, name).unwrap_or_default();
    let ok = !table::listeners(port, &members).is_empty();
    let seen = if ok { "is listened on" } else { "is not listened on" };
    Some(ProbeResult { ok, seen: format!("port {port} {seen} by the service") })
}

fn run_command(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    command: &[String],
    timeout: Duration,
) -> Result<ProbeResult, EngineError> {
    let environment = super::service_environment(placement, name, service)?;
    let argv = resolve(placement, name, service, command)?;
    let argv = placed(placement, argv, environment.get("PATH").map(String::as_str))?;
    let exec = Exec {
        env: environment.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        inherit: Inherit::Nothing,
        cwd: Some(placement.work_dir_of(name)),
        leftovers: Leftovers::Kill,
        ..Exec::new(argv, timeout)
    };
    let output = exec::run(&exec).map_err(|e| EngineError::Internal { detail: e.to_string() })?;
    let seen = format!("the health command: {}", output.how());
    Ok(ProbeResult { ok: output.success(), seen })
}

/// Starts in a row that end within two seconds before a start is given up.
const QUICK_EXITS: u32 = 5;

/// Waits until the service is healthy and has stayed so for its stability time.
///
/// `began` is when its start was asked for. `cancelled` is asked between probes.
pub fn wait_healthy(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    began: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<ServiceTimes, StepError> {
    let deadline = began + service.health.start.0;
    let folder = placement.service_dir(name);
    let mut healthy_since: Option<(Instant, u32)> = None;
    let mut first_healthy = None;
    // A fast service is seen at once; a slow one is not hammered.
    let mut pause = Duration::from_millis(5);
    loop {
        let state: State = read_json(&folder.join(STATE_FILE)).unwrap_or_default();
        if let Some(error) = &state.spawn_error {
            return Err(failure(placement, name, error.clone(), "check `command` in switchback.yaml"));
        }
        let seen = probe(placement, name, service);
        let now = Instant::now();
        if seen.ok {
            first_healthy.get_or_insert_with(|| elapsed_ms(began));
            let (since, starts) = *healthy_since.get_or_insert((now, state.starts));
            if starts != state.starts {
                // It was restarted in between: whatever answered before is gone.
                healthy_since = Some((now, state.starts));
            } else if now.duration_since(since) >= service.health.stable.0 {
                return Ok(ServiceTimes {
                    healthy_after_ms: first_healthy,
                    stable_after_ms: Some(elapsed_ms(began)),
                    ..ServiceTimes::default()
                });
            }
        } else {
            healthy_since = None;
        }
        let restarts = service.restart == switchback_core::config::Restart::Always;
        let gone = state.child.is_none() && state.starts > 0 && state.last_exit.is_some();
        // After a stop the kernel may keep the port busy for a minute; a service that cannot bind it is
        // not broken, so quick exits only count when the port is not the reason.
        let exits = if restarts {
            state.quick_exits >= QUICK_EXITS && !port_busy(placement, name)
        } else {
            gone && !seen.ok
        };
        if exits {
            let how = state.last_exit.unwrap_or_else(|| "ended".to_owned());
            let message = format!("{name} does not stay up: it {how} after {} starts", state.starts);
            return Err(failure(placement, name, message, "its log tells why"));
        }
        if now >= deadline {
            let message =
                format!("{name} did not become healthy within {}: {}", service.health.start, seen.seen);
            return Err(failure(placement, name, message, "raise `health.start` if it only needs longer"));
        }
        if cancelled() {
            return Err(failure(
                placement,
                name,
                format!("interrupted while waiting for {name}"),
                "`switchback resume` goes on",
            ));
        }
        let steady =
            if healthy_since.is_some() { Duration::from_millis(50) } else { Duration::from_millis(100) };
        let until_stable =
            healthy_since.map(|(since, _)| service.health.stable.0.saturating_sub(now.duration_since(since)));
        std::thread::sleep(
            pause.min(steady).min(until_stable.unwrap_or(steady)).max(Duration::from_millis(1)),
        );
        pause = pause.saturating_mul(2).min(Duration::from_secs(1));
    }
}

fn port_busy(placement: &Placement<'_>, name: &ServiceName) -> bool {
    // In a cell, the network is that of the gateway's process.
    let inside = cell::running(placement.home, placement.instance).map(|c| c.pid);
    let ports = placement.instance.ports.get(name);
    ports.into_iter().flatten().any(|(_, p)| table::port_in_time_wait(*p, inside))
}

fn failure(placement: &Placement<'_>, name: &ServiceName, message: String, hint: &str) -> StepError {
    let log = placement.log_file(name);
    StepError {
        kind: ErrorKind::Refused,
        message,
        hint: Some(format!("{hint}: {}", log.display())),
        details: placement.redact(tail(&log, 12)),
    }
}

/// The last lines of a text file (of its last 16 KiB).
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.take(16 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.iter().skip(all.len().saturating_sub(lines)).map(|l| (*l).to_owned()).collect()
}
