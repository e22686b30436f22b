//! What an instance's containers are doing, for `status`, and whether its images are there.
//!
//! Only looks. It must never probe a service: what its own health check says is enough here.

use super::ComposeRuntime;
use super::containers::{has_done, is_one_off, jobs, of_project, project};
use super::health::reached;
use super::isolation;
use crate::docker::{Container, Docker, Stats, Whom};
use crate::error::{EngineError, joined};
use crate::runtime::{Observed, Placement, Usage};
use std::collections::BTreeMap;
use switchback_core::config::Service;
use switchback_core::ids::ServiceName;

/// What each service is doing.
pub fn observe(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
) -> Result<BTreeMap<ServiceName, Observed>, EngineError> {
    let all = of_project(&runtime.docker, project(at.instance)?)?;
    let jobs = jobs(at)?;
    let leads = isolation::leads(&runtime.docker, at)?;
    let mut found = BTreeMap::new();
    for (name, service) in &at.release.services {
        let own: Vec<&Container> =
            all.iter().filter(|(s, c)| s == name.as_str() && !is_one_off(c)).map(|(_, c)| c).collect();
        let mut seen = describe(runtime, at, (name, &service.definition), &own, jobs.contains(name));
        // Its own health check asks inside the container, and does not see that nobody else gets there.
        if !leads && seen.running && !seen.endpoints.is_empty() {
            seen.well = false;
            seen.state.push_str(", NOT REACHED (its gateway is down)");
        }
        found.insert(name.clone(), seen);
    }
    Ok(found)
}

fn describe(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    (name, service): (&ServiceName, &Service),
    own: &[&Container],
    job: bool,
) -> Observed {
    // One that runs says more than one that ended.
    let Some(container) = own.iter().find(|c| c.state.running).or(own.first()) else {
        return Observed { state: "DOWN (it has no container)".to_owned(), ..Observed::default() };
    };
    let state = &container.state;
    let health = state.health.as_ref().map(|h| h.status.clone()).filter(|_| state.running);
    let ended = (!state.running && !state.finished_at.starts_with("0001")).then(|| {
        let memory = if state.out_of_memory { ", out of memory" } else { "" };
        format!("exit code {}{memory}", state.exit_code)
    });
    let (well, text) = if state.restarting {
        (false, format!("RESTARTING again and again (exit code {})", state.exit_code))
    } else if state.paused {
        (false, "PAUSED".to_owned())
    } else if state.running {
        match health.as_deref() {
            Some("healthy") => (true, "running, healthy".to_owned()),
            Some("starting") => (true, "running, health starting".to_owned()),
            Some(other) => (false, format!("running, {}", other.to_uppercase())),
            None => (true, "running".to_owned()),
        }
    } else if job && has_done(container) {
        (true, "done (a job)".to_owned())
    } else {
        (false, format!("DOWN ({})", ended.as_deref().unwrap_or("not started")))
    };
    let endpoints = service.ports.iter().filter_map(|(port, number)| {
        let (host, listen) = reached(runtime, at, (name, container), *number, Whom::Person)?;
        Some((port.clone(), format!("{host}:{listen}")))
    });
    Observed {
        running: state.running,
        well,
        state: text,
        health,
        processes: own.iter().filter(|c| c.state.running).count(),
        out_of_memory: state.out_of_memory,
        starts: u32::try_from(container.restart_count).unwrap_or(u32::MAX).saturating_add(1),
        endpoints: if state.running { endpoints.collect() } else { BTreeMap::new() },
        last_exit: ended,
    }
}

/// What the running containers of each service use together. All are asked at once: an engine may take a second to look.
pub fn usage(docker: &Docker, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Usage>, EngineError> {
    let all: Vec<(&ServiceName, Container)> = of_project(docker, project(at.instance)?)?
        .into_iter()
        .filter(|(_, c)| c.state.running)
        .filter_map(|(service, c)| Some((at.release.services.get_key_value(service.as_str())?.0, c)))
        .collect();
    let asked: Vec<Result<Stats, EngineError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|(_, c)| scope.spawn(|| Ok(docker.stats(&c.id)?))).collect();
        threads.into_iter().map(joined).collect()
    });
    let mut found: BTreeMap<ServiceName, Usage> = BTreeMap::new();
    for ((name, container), stats) in all.into_iter().zip(asked) {
        let stats = stats?;
        let sum = found.entry(name.clone()).or_default();
        sum.cpu_ms += stats.cpu_ms;
        sum.memory_bytes += stats.memory_bytes;
        sum.memory_limit_bytes = match (sum.memory_limit_bytes, container.memory_limit) {
            (Some(sum), Some(more)) => Some(sum + more),
            (one, other) => one.or(other),
        };
    }
    Ok(found)
}

/// Memory that the services use, in bytes: rather too much than too little, if even that is no more than `enough`.
pub fn memory(docker: &Docker, at: &Placement<'_>, enough: u64) -> Result<u64, EngineError> {
    if docker.is_local() {
        let all = of_project(docker, project(at.instance)?)?;
        let running = all.iter().map(|(_, c)| c).filter(|c| c.state.running);
        // One whose processes cannot be looked at must not count for nothing.
        let known = |c: &Container| {
            docker.stats_of_processes(&c.id).ok().map(|s| s.memory_bytes).filter(|bytes| *bytes > 0)
        };
        let sum: Option<u64> = running.map(known).sum();
        if let Some(sum) = sum.filter(|sum| *sum <= enough) {
            return Ok(sum);
        }
    }
    Ok(usage(docker, at)?.values().map(|u| u.memory_bytes).sum())
}

/// Images of a release that the engine does not have.
pub fn missing(docker: &Docker, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
    let mut gone = Vec::new();
    for (name, service) in &at.release.services {
        let Some(image) = &service.image else { continue };
        if docker.image(&image.id)?.is_none() {
            gone.push(format!("image of {name} ({})", image.reference));
        }
    }
    Ok(gone)
}
