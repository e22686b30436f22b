//! What staging leaves with the engine: containers, networks and volumes that carry Switchback's labels.

use super::instance::DIR_LABEL;
use crate::data::live_volumes;
use crate::docker::{Docker, STACK_LABEL};
use crate::error::EngineError;
use crate::home::Home;
use std::collections::{BTreeMap, BTreeSet};

fn below(labels: &BTreeMap<String, String>, dir: &str, except: &[String]) -> bool {
    let inside = |found: &str, dir: &str| {
        let dir = dir.trim_end_matches('/');
        dir.is_empty() || found == dir || found.starts_with(&format!("{dir}/"))
    };
    labels.get(DIR_LABEL).is_some_and(|found| {
        found.starts_with("staging/") && inside(found, dir) && !except.iter().any(|e| inside(found, e))
    })
}

/// Ends and removes everything of the staging instances below a folder of the state.
///
/// Volumes that hold clones are not removed here: their instance's data is.
pub fn remove(docker: &Docker, home: &Home, dir: &str, except: &[String]) -> Result<(), EngineError> {
    let stack = home.id()?;
    let own = [(STACK_LABEL, stack.as_str())];
    let live = live_volumes(home)?;
    let mut nameless = BTreeSet::new();
    for container in docker.containers(&own)? {
        if below(&container.labels, dir, except) {
            // Those of the images, which Compose hands on from container to container, so that they are no longer the container's own.
            let mounts = docker.inspect(&container.id)?.map(|c| c.mounts).unwrap_or_default();
            nameless.extend(
                mounts.into_iter().map(|m| m.name).filter(|name| !name.is_empty() && !live.contains(name)),
            );
            docker.remove_with_scratch(&container.id)?;
        }
    }
    for name in nameless {
        docker.remove_nameless(&name)?;
    }
    for network in docker.networks(&own)? {
        if below(&network.labels, dir, except) {
            docker.network_remove(&network.name, &stack)?;
        }
    }
    for volume in docker.volumes(&own)? {
        if below(&volume.labels, dir, except)
            && let Some(scratch) = docker.scratch_volume(&volume.name, &stack, &[])?
        {
            docker.volume_remove(&scratch)?;
        }
    }
    Ok(())
}

/// What is left, in words.
pub fn left(docker: &Docker, home: &Home, dir: &str, except: &[String]) -> Result<Vec<String>, EngineError> {
    let stack = home.id()?;
    let own = [(STACK_LABEL, stack.as_str())];
    let mut found = Vec::new();
    let containers = docker.containers(&own)?.into_iter().filter(|c| below(&c.labels, dir, except));
    found.extend(containers.map(|c| format!("container {}", c.name)));
    let networks = docker.networks(&own)?.into_iter().filter(|n| below(&n.labels, dir, except));
    found.extend(networks.map(|n| format!("network {}", n.name)));
    let volumes = docker.volumes(&own)?.into_iter().filter(|v| below(&v.labels, dir, except));
    found.extend(volumes.map(|v| format!("volume {}", v.name)));
    Ok(found)
}
