//! What a sandbox has in the engine: finding and removing it, by the sandbox's own identity as a label.

use super::Count;
use crate::docker::{ContainerSummary, Docker, HELPER_LABEL, STACK_LABEL};
use crate::error::EngineError;
use crate::home::Home;

/// The identity of a stack without a state: nothing carries it as a label.
const UNBORN: &str = "unborn";

/// The containers of a sandbox, helpers included.
pub fn containers(docker: &Docker, home: &Home) -> Result<Vec<ContainerSummary>, EngineError> {
    let id = home.id()?;
    if id == UNBORN {
        return Ok(Vec::new());
    }
    Ok(docker.containers(&[(STACK_LABEL, &id)])?)
}

/// Removes all of it. Every volume is the sandbox's: none holds live data.
pub fn clear(docker: &Docker, home: &Home) -> Result<(), EngineError> {
    let id = home.id()?;
    if id == UNBORN {
        return Ok(());
    }
    let own = [(STACK_LABEL, id.as_str())];
    for container in containers(docker, home)? {
        docker.remove_with_scratch(&container.id)?;
    }
    for network in docker.networks(&own)? {
        docker.network_remove(&network.name, &id)?;
    }
    for volume in docker.volumes(&own)? {
        // A helper of production's that a killed run left may hold it; nobody else does.
        for user in docker.volume_users(&volume.name)? {
            let helper = docker.inspect(&user)?;
            if helper.is_some_and(|c| c.labels.contains_key(HELPER_LABEL)) {
                docker.remove_with_scratch(&user)?;
            }
        }
        // All its generations' data is the sandbox's: none of it is live.
        if let Some(scratch) = docker.scratch_volume(&volume.name, &id, &[])? {
            docker.volume_remove(&scratch)?;
        }
    }
    Ok(())
}

/// What is left, in words.
pub fn left(docker: &Docker, home: &Home, data: Count) -> Result<Vec<String>, EngineError> {
    let id = home.id()?;
    if id == UNBORN {
        return Ok(Vec::new());
    }
    let all = data == Count::Everything;
    let own = [(STACK_LABEL, id.as_str())];
    let containers = containers(docker, home)?.into_iter().filter(|c| all || c.state == "running");
    let mut found: Vec<String> = containers.map(|c| format!("container {} is left", c.name)).collect();
    if all {
        let networks = docker.networks(&own)?.into_iter().map(|n| n.name);
        found.extend(networks.map(|n| format!("network {n} is left")));
        let volumes = docker.volumes(&own)?.into_iter().map(|v| v.name);
        found.extend(volumes.map(|v| format!("volume {v} is left")));
    }
    Ok(found)
}
