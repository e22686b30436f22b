//! The containers of a project: which there are, whether they are what an instance asks for, and stopping them.

use super::ComposeRuntime;
use super::instance::mounts;
use crate::docker::{Container, Docker, DockerError, HELPER_LABEL};
use crate::error::EngineError;
use crate::runtime::process::elapsed_ms;
use crate::runtime::{Placement, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::journal::{Output, ServiceTimes};
use switchback_core::release::{Instance, MountPlace};

/// Compose's own labels.
pub const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const ONE_OFF: &str = "com.docker.compose.oneoff";
/// The engine sends KILL at the end of the grace time; a container is gone soon after.
const ENGINE_MARGIN: Duration = Duration::from_secs(10);

/// Every container of a project, with the name of its service.
pub fn of_project(docker: &Docker, project: &str) -> Result<Vec<(String, Container)>, EngineError> {
    let mut found = Vec::new();
    for summary in docker.containers(&[(PROJECT, project)])? {
        // It may vanish between the list and the look.
        if let Some(container) = docker.inspect(&summary.id)? {
            let service = container.labels.get(SERVICE).cloned().unwrap_or_default();
            found.push((service, container));
        }
    }
    found.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    Ok(found)
}

/// The container of a service of an instance; the first, where it has several.
pub fn container_of(
    docker: &Docker,
    instance: &Instance,
    service: &ServiceName,
) -> Result<Option<Container>, EngineError> {
    let all = of_project(docker, project(instance)?)?;
    Ok(all.into_iter().find(|(s, c)| s == service.as_str() && !is_one_off(c)).map(|(_, c)| c))
}

/// Whether a container was made by `docker compose run`.
pub fn is_one_off(container: &Container) -> bool {
    container.labels.get(ONE_OFF).is_some_and(|v| v.eq_ignore_ascii_case("true"))
}

/// The project of an instance.
pub fn project(instance: &Instance) -> Result<&str, EngineError> {
    instance.project.as_deref().ok_or_else(|| EngineError::Internal {
        detail: format!("{} is no instance of a Compose project", instance.key()),
    })
}

/// Containers that run (paused ones too) and have a mount of the instance, of whatever project.
pub fn users_of(docker: &Docker, instance: &Instance) -> Result<Vec<Container>, EngineError> {
    let places: BTreeSet<&MountPlace> =
        instance.stores.values().filter_map(|s| s.mount.as_ref()).map(|m| &m.at).collect();
    let mut found = Vec::new();
    for summary in docker.containers(&[])? {
        if !matches!(summary.state.as_str(), "running" | "paused" | "restarting") {
            continue;
        }
        if summary.labels.contains_key(HELPER_LABEL) {
            continue; // one of ours that a killed program left; it holds no service's data open
        }
        let Some(container) = docker.inspect(&summary.id)? else { continue };
        if places.iter().any(|place| holds(&container, place)) {
            found.push(container);
        }
    }
    Ok(found)
}

/// A container in words.
pub fn describe_container(container: &Container) -> String {
    format!("container {}", container.name)
}

/// Unfreezes what a crashed clone left frozen.
pub fn unpause(runtime: &ComposeRuntime, at: &Placement<'_>) -> Result<(), EngineError> {
    for (_, container) in of_project(&runtime.docker, project(at.instance)?)? {
        if container.state.paused {
            runtime.docker.unpause(&container.id)?;
        }
    }
    Ok(())
}

/// Whether a container mounts a place.
pub fn holds(container: &Container, place: &MountPlace) -> bool {
    container.mounts.iter().any(|m| match place {
        MountPlace::Volume(name) => m.name == *name,
        MountPlace::Dir(path) => m.kind == "bind" && m.source == *path,
    })
}

/// How what runs differs from an instance; empty if exactly this instance runs.
pub fn differences(docker: &Docker, at: &Placement<'_>) -> Result<(Vec<String>, Vec<String>), EngineError> {
    let (mut equal, mut differences) = (Vec::new(), Vec::new());
    let all = of_project(docker, project(at.instance)?)?;
    let (targets, jobs) = (targets(at)?, jobs(at)?);
    for (name, service) in &at.release.services {
        let own: Vec<&Container> =
            all.iter().filter(|(s, c)| s == name.as_str() && !is_one_off(c)).map(|(_, c)| c).collect();
        let up: Vec<&Container> = own.iter().copied().filter(|c| c.state.running).collect();
        let Some(container) = up.first() else {
            match own.first() {
                // One that has done its work and ended well is as it should be.
                Some(done) if jobs.contains(name) && has_done(done) => {
                    equal.push(format!("{name}: {} has done its work", done.name));
                }
                Some(ended) => differences.push(format!(
                    "{name}: {} has ended with exit code {}{}",
                    ended.name,
                    ended.state.exit_code,
                    if ended.state.exit_code == 0 { JOB_HINT } else { "" }
                )),
                None => differences.push(format!("{name}: it has no container")),
            }
            continue;
        };
        if container.state.paused {
            differences.push(format!("{name}: {} is paused", container.name));
        }
        let image = service.image.as_ref().map_or("", |i| i.id.as_str());
        if container.image_id == image {
            let short = image.trim_start_matches("sha256:");
            equal.push(format!(
                "{name} {}: {} runs image {}",
                service.definition.version,
                container.name,
                short.get(..12).unwrap_or(short)
            ));
        } else {
            differences.push(format!(
                "{name}: {} runs image {}, not {image} ({})",
                container.name, container.image_id, service.definition.version
            ));
        }
        for (target, place) in targets.get(name).into_iter().flatten() {
            let mounted = container.mounts.iter().find(|m| m.destination == *target);
            let right = mounted.is_some_and(|m| match place {
                MountPlace::Volume(volume) => m.name == *volume,
                MountPlace::Dir(path) => m.kind == "bind" && m.source == *path,
            });
            let shown = shown(place);
            if right {
                equal.push(format!("{name}: {target} is {shown}"));
            } else {
                let found = mounted.map_or("nothing".to_owned(), |m| {
                    if m.name.is_empty() { m.source.clone() } else { m.name.clone() }
                });
                differences.push(format!("{name}: {target} is {found}, not {shown}"));
            }
        }
    }
    Ok((equal, differences))
}

/// A failed start can exit with 0, so only a service that is known to end may.
const JOB_HINT: &str = " (if it is a job that ends, let a service depend on it with `condition: service_completed_successfully`)";

/// Services that do their work and end: others wait for their completion.
pub fn jobs(at: &Placement<'_>) -> Result<BTreeSet<ServiceName>, EngineError> {
    let model = super::release::kept_model(at.home, &at.instance.release)?;
    let needed = model.services().flat_map(switchback_core::compose::Service::depends_on);
    Ok(needed
        .filter(|d| d.condition == "service_completed_successfully")
        .filter_map(|d| ServiceName::new(&d.service).ok())
        .collect())
}

/// Whether a job has ended well.
pub fn has_done(container: &Container) -> bool {
    let state = &container.state;
    !state.running && !state.restarting && state.exit_code == 0 && !state.finished_at.starts_with("0001")
}

/// A place in words.
pub fn shown(place: &MountPlace) -> String {
    match place {
        MountPlace::Volume(name) => format!("the volume {name}"),
        MountPlace::Dir(path) => path.clone(),
    }
}

/// Where each service mounts the places of an instance: service, then path in the container.
fn targets(at: &Placement<'_>) -> Result<BTreeMap<ServiceName, BTreeMap<String, MountPlace>>, EngineError> {
    let base = super::release::kept_model(at.home, &at.instance.release)?;
    let pinned = mounts(at);
    let mut found: BTreeMap<ServiceName, BTreeMap<String, MountPlace>> = BTreeMap::new();
    for used in base.mounts() {
        if let Some(mount) = pinned.iter().find(|m| m.source == used.source) {
            found.entry(used.service).or_default().insert(used.target, mount.at.clone());
        }
    }
    for mount in &pinned {
        if let switchback_core::release::MountSource::Anonymous { service, target } = &mount.source {
            found.entry(service.clone()).or_default().insert(target.clone(), mount.at.clone());
        }
    }
    Ok(found)
}

/// Stops the containers of an instance's project, dependants first.
pub fn stop(runtime: &ComposeRuntime, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, EngineError> {
    stop_some(runtime, at, None, stage)
}

/// Stops the containers of all services of an instance's project, or of some.
pub fn stop_some(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    only: Option<&[ServiceName]>,
    stage: &Stage<'_>,
) -> Result<Output, EngineError> {
    let services = at.services();
    let mut output = Output::default();
    let mut left = of_project(&runtime.docker, project(at.instance)?)?;
    left.retain(|(_, c)| c.state.running || c.state.restarting);
    if let Some(only) = only {
        left.retain(|(s, _)| only.iter().any(|o| o.as_str() == s));
    }
    let mut groups: Vec<Vec<String>> = Config::start_order(&services)
        .iter()
        .rev()
        .map(|g| g.iter().map(|n| n.as_str().to_owned()).collect())
        .collect();
    // What belongs to no service of this release (an older one's, a migration's) goes first.
    let known: BTreeSet<String> = groups.iter().flatten().cloned().collect();
    let strangers: BTreeSet<String> =
        left.iter().filter(|(s, c)| !known.contains(s) || is_one_off(c)).map(|(s, _)| s.clone()).collect();
    groups.insert(0, strangers.into_iter().collect());
    for group in groups {
        let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(s, _)| group.contains(s));
        left = later;
        if now.is_empty() {
            continue;
        }
        let names: BTreeSet<&str> = now.iter().map(|(s, _)| s.as_str()).collect();
        (stage.say)(&format!("stopping {}", names.into_iter().collect::<Vec<_>>().join(", ")));
        let stopped: Vec<Result<ServiceTimes, DockerError>> = std::thread::scope(|scope| {
            let handles: Vec<_> = now
                .iter()
                .map(|(service, container)| {
                    let grace = services.get(service.as_str()).map(|s| s.stop.grace.0);
                    scope.spawn(move || stop_one(&runtime.docker, container, grace))
                })
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or(Err(DockerError::Cancelled))).collect()
        });
        for ((service, container), times) in now.iter().zip(stopped) {
            let times = times?;
            if times.killed {
                let grace = services
                    .get(service.as_str())
                    .map_or_else(String::new, |s| format!(" of {}", s.stop.grace));
                let server = at.instance.stores.values().filter_map(|p| p.server.as_ref());
                let recovers = if server.into_iter().any(|r| r.service.as_str() == service) {
                    "; its data recovers when it starts again"
                } else {
                    ""
                };
                output.notes.push(format!(
                    "{} did not end within its grace time{grace} and was killed{recovers}; if it needs longer, raise `stop_grace_period`",
                    container.name
                ));
            }
            if let Ok(name) = ServiceName::new(service) {
                output.services.insert(name, times);
            }
        }
        (stage.midway)();
    }
    if output.services.is_empty() {
        (stage.midway)();
    }
    Ok(output)
}

fn stop_one(
    docker: &Docker,
    container: &Container,
    grace: Option<Duration>,
) -> Result<ServiceTimes, DockerError> {
    let began = Instant::now();
    if container.state.paused {
        // A frozen process cannot end; somebody (a crashed clone) left it so.
        docker.unpause(&container.id)?;
    }
    let killed_before = |c: &Container| c.state.exit_code == 137 && !c.state.out_of_memory;
    match docker.stop(&container.id, grace) {
        Ok(()) | Err(DockerError::NoSuch { .. }) => {}
        Err(DockerError::Timeout { .. }) => docker.kill(&container.id)?,
        Err(e) => return Err(e),
    }
    let deadline = Instant::now() + ENGINE_MARGIN;
    while let Some(now) = docker.inspect(&container.id)? {
        if !now.state.running && !now.state.restarting {
            let killed = killed_before(&now) && grace.is_some_and(|g| began.elapsed() >= g);
            return Ok(ServiceTimes {
                stopped_after_ms: Some(elapsed_ms(began)),
                killed,
                ..ServiceTimes::default()
            });
        }
        if Instant::now() >= deadline {
            return Err(DockerError::Timeout { doing: "stop the container", limit: ENGINE_MARGIN });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(ServiceTimes { stopped_after_ms: Some(elapsed_ms(began)), ..ServiceTimes::default() })
}
