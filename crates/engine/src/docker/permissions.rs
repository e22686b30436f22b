//! What a socket proxy in front of the engine refuses.
//!
//! Owns the list of calls that Switchback cannot do without. It must never change anything: what changes the
//! engine is asked for with the id of a container that cannot exist, so that a permitted call answers "no such
//! container".

use super::error::Call;
use super::{Docker, DockerError};
use bollard::errors::Error as Answer;
use bollard::query_parameters::{
    KillContainerOptions, ListImagesOptions, ListVolumesOptions, StopContainerOptions,
};
use std::time::Duration;

/// Something that the engine's endpoint refuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingPermission {
    /// The section, as socket proxies name it: `CONTAINERS`, `POST`, `EXEC`.
    pub section: &'static str,
    /// What it is needed for.
    pub needed_for: &'static str,
}

/// A permitted call answers at once.
const LIMIT: Duration = Duration::from_secs(15);

/// Finds out what is refused; an engine without a proxy refuses nothing.
pub fn missing(docker: &Docker) -> Result<Vec<MissingPermission>, DockerError> {
    let client = &docker.client;
    // No container has this id: ids are random.
    let nobody = format!("{:064x}", u128::from(ulid::Ulid::generate()));
    let stop = Some(StopContainerOptions::default());
    let kill = Some(KillContainerOptions::default());
    let mut missing = Vec::new();
    let mut note = |section, needed_for, answer: Result<(), DockerError>| match answer {
        Err(DockerError::Forbidden { .. }) => {
            missing.push(MissingPermission { section, needed_for });
            Ok(())
        }
        Ok(())
        | Err(DockerError::NoSuch { .. } | DockerError::Conflict { .. } | DockerError::Other { .. }) => {
            Ok(())
        }
        Err(e) => Err(e),
    };
    let call = |section| Call { doing: "ask for permissions", section, limit: LIMIT };
    macro_rules! ask {
        ($section:literal, $needed_for:literal, $answer:expr) => {{
            let answer = async { $answer.await.map(|_| ()) as Result<(), Answer> };
            note($section, $needed_for, docker.ask(call($section), "the engine", answer))?;
        }};
    }
    ask!("PING", "noticing an engine that hangs", client.ping());
    ask!("VERSION", "agreeing on a version of the API", client.version());
    ask!("INFO", "learning where data lies", client.info());
    ask!("CONTAINERS", "seeing what runs", client.list_containers(None));
    ask!("IMAGES", "pinning versions", client.list_images(None::<ListImagesOptions>));
    ask!("VOLUMES", "cloning data", client.list_volumes(None::<ListVolumesOptions>));
    ask!("NETWORKS", "isolating staging", client.list_networks(None));
    ask!("EXEC", "asking database servers", client.inspect_exec(&nobody));
    ask!("POST", "changing anything", client.pause_container(&nobody));
    ask!("ALLOW_START", "starting services", client.start_container(&nobody, None));
    ask!("ALLOW_STOP", "stopping services", client.stop_container(&nobody, stop));
    ask!("ALLOW_STOP", "ending helpers", client.kill_container(&nobody, kill));
    missing.sort();
    missing.dedup_by_key(|m| m.section);
    Ok(missing)
}
