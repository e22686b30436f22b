//! What is done to an environment on purpose, for the proof that its checks would notice: services stand still, and networks of
//! production are within reach.
//!
//! It must never be done to production, nor outlast the proof.

use super::release::kept_model;
use super::{containers, isolation};
use crate::docker::Docker;
use crate::error::EngineError;
use crate::gateway::attack::Ended;
use crate::home::Home;
use crate::runtime::Placement;
use switchback_core::ids::{Digest, ServiceName};

fn must_be_staging(at: &Placement<'_>) -> Result<(), EngineError> {
    if at.instance.is_production() {
        return Err(EngineError::Internal { detail: "faults are for staging only".to_owned() });
    }
    Ok(())
}

/// Lets the containers of a service stand still, or go on; how many.
pub fn still(
    docker: &Docker,
    at: &Placement<'_>,
    name: &ServiceName,
    on: bool,
) -> Result<usize, EngineError> {
    must_be_staging(at)?;
    let mut count = 0;
    for (service, container) in containers::of_project(docker, containers::project(at.instance)?)? {
        if service != name.as_str() || !container.state.running || container.state.paused == on {
            continue;
        }
        if on {
            docker.pause(&container.id)?;
        } else {
            docker.unpause(&container.id)?;
        }
        count += 1;
    }
    Ok(count)
}

/// Sends a signal to the first process of each container of a service; how many.
pub fn signal(
    docker: &Docker,
    at: &Placement<'_>,
    name: &ServiceName,
    signal: &str,
) -> Result<usize, EngineError> {
    must_be_staging(at)?;
    let all = containers::of_project(docker, containers::project(at.instance)?)?;
    let own = all.into_iter().filter(|(service, c)| service == name.as_str() && c.state.running);
    let mut count = 0;
    for (_, container) in own {
        docker.signal(&container.id, signal)?;
        count += 1;
    }
    Ok(count)
}

/// A variable, and what is told where it is missing.
pub type Told = (String, Vec<String>);

/// What is told of the settings of a release without one variable.
pub fn lacking(home: &Home, release: &Digest) -> Result<Option<Told>, EngineError> {
    let was = kept_model(home, release)?;
    let mut is = was.clone();
    Ok(is.take_variable().map(|name| (name, switchback_core::compose::changes(&was, &is))))
}

/// Attacks an environment one container of which is on production's networks as well; none where production has none.
pub fn attack_exposed(docker: &Docker, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
    must_be_staging(at)?;
    let Some(pointer) = at.home.pointer()? else { return Ok(None) };
    let production = at.home.generation(pointer.current)?.instance;
    let Some(project) = production.project.as_deref() else { return Ok(None) };
    let theirs = containers::of_project(docker, project)?;
    let network =
        theirs.iter().flat_map(|(_, c)| c.networks.keys()).find(|n| !BUILT_IN.contains(&n.as_str()));
    let own = containers::of_project(docker, containers::project(at.instance)?)?;
    let (Some(network), Some((_, container))) = (network, own.first()) else { return Ok(None) };
    docker.network_connect(network, &container.id)?;
    let ended = isolation::attack(docker, at, None);
    docker.network_disconnect(network, &container.id)?;
    ended.map(Some)
}

/// Networks of the engine itself: no container can be put on them besides.
const BUILT_IN: [&str; 3] = ["bridge", "host", "none"];
