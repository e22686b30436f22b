//! Volumes: looking at, making and (scratch only) removing them.
//!
//! Owns [`ScratchVolume`], the only way to write into or remove a volume that has a name. It must never make one of a volume
//! without Switchback's label or of a live one.

use super::error::Call;
use super::{Docker, DockerError, SCRATCH_LABEL, STACK_LABEL, done_or_gone, name, optional, with_labels};
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use std::collections::{BTreeMap, HashMap};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// `local`, or a plugin.
    pub driver: String,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels; they cannot be changed after the volume was made.
    pub labels: BTreeMap<String, String>,
    /// Path on the engine's host.
    pub mountpoint: String,
}

impl Volume {
    /// Whether it lies where the engine keeps its own volumes, as each that nobody gave options to.
    pub fn is_plain(&self) -> bool {
        self.driver == "local" && self.options.is_empty()
    }
}

/// A volume that may be written to and removed: Switchback made it for this stack, and no generation of
/// production uses it.
///
/// The label alone is not enough: it says who made the volume and cannot be taken off when the volume becomes
/// production's. Therefore the caller names the live volumes as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchVolume {
    name: String,
}

impl ScratchVolume {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// As a place that can be mounted.
    pub fn place(&self) -> switchback_core::release::MountPlace {
        switchback_core::release::MountPlace::Volume(self.name.clone())
    }
}

fn volume(found: bollard::models::Volume) -> Volume {
    Volume {
        name: found.name,
        driver: found.driver,
        options: found.options.into_iter().collect(),
        labels: found.labels.into_iter().collect(),
        mountpoint: found.mountpoint,
    }
}

impl Docker {
    /// Looks at a volume; `None` if there is none of this name.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>, DockerError> {
        let name = name::object("volume", name)?;
        let call = Call::read("inspect the volume", "VOLUMES");
        Ok(optional(self.ask(call, name, self.client.inspect_volume(name)))?.map(volume))
    }

    /// Lists volumes that carry all the labels; an empty value means any.
    pub fn volumes(&self, labels: &[(&str, &str)]) -> Result<Vec<Volume>, DockerError> {
        let options = ListVolumesOptions { filters: Some(with_labels(labels)) };
        let call = Call::read("list volumes of", "VOLUMES");
        let found = self.ask(call, "the engine", self.client.list_volumes(Some(options)))?;
        let mut all: Vec<Volume> = found.volumes.unwrap_or_default().into_iter().map(volume).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Names of the containers, in every state, that reference a volume.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>, DockerError> {
        let name = name::object("volume", name)?;
        let filters = HashMap::from([("volume".to_owned(), vec![name.to_owned()])]);
        Ok(self.list(filters)?.into_iter().map(|c| c.name).collect())
    }

    /// Makes a volume of the local driver for a stack, marked as scratch. Refuses a name that is taken by a volume
    /// that this stack did not make, or by a live one (see [`Self::scratch_volume`]); a scratch volume that exists
    /// is returned as it is.
    pub fn volume_create(
        &self,
        name: &str,
        stack: &str,
        labels: &[(&str, &str)],
        live: &[&str],
    ) -> Result<ScratchVolume, DockerError> {
        let name = name::object("volume", name)?;
        let mut all: HashMap<String, String> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        all.insert(STACK_LABEL.to_owned(), stack.to_owned());
        all.insert(SCRATCH_LABEL.to_owned(), "1".to_owned());
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(all),
            ..VolumeCreateRequest::default()
        };
        let call = Call::change("create the volume", "POST and VOLUMES");
        // The engine answers with the volume that exists, if one does: after its restart without the labels.
        self.ask(call, name, self.client.create_volume(request))?;
        let made = self.volume(name)?;
        scratch(
            made.ok_or_else(|| DockerError::NoSuch { doing: call.doing, what: name.to_owned() })?,
            stack,
            live,
        )
    }

    /// Opens a scratch volume of a stack; `None` if it is gone. `live` are the volumes of the generations that
    /// production uses or may return to.
    pub fn scratch_volume(
        &self,
        name: &str,
        stack: &str,
        live: &[&str],
    ) -> Result<Option<ScratchVolume>, DockerError> {
        self.volume(name)?.map(|found| scratch(found, stack, live)).transpose()
    }

    /// Removes a scratch volume with its data; fine if it is gone.
    pub fn volume_remove(&self, volume: &ScratchVolume) -> Result<(), DockerError> {
        let name = volume.name.as_str();
        let options = RemoveVolumeOptions { force: false };
        let call = Call::remove("remove the volume", "POST and VOLUMES");
        match self.ask(call, name, self.client.remove_volume(name, Some(options))) {
            Err(DockerError::Conflict { .. }) => {
                Err(DockerError::VolumeInUse { volume: name.to_owned(), by: self.volume_users(name)? })
            }
            other => done_or_gone(other),
        }
    }
}

/// Labels that an engine gives to a volume that it makes by itself for a container (version 23 and newer).
const BY_THE_ENGINE: &str = "com.docker.volume.anonymous";

impl Docker {
    /// Removes a volume that the engine made by itself for a container that was ours, because the image declares it; where that
    /// container was made again, nothing tells the engine any more whose it was. A volume that somebody named, labelled or uses stays.
    pub fn remove_nameless(&self, name: &str) -> Result<(), DockerError> {
        let Some(found) = self.volume(name)? else { return Ok(()) };
        if !is_nameless(&found) {
            return Ok(());
        }
        let options = RemoveVolumeOptions { force: false };
        let call = Call::remove("remove the volume", "POST and VOLUMES");
        match done_or_gone(self.ask(call, name, self.client.remove_volume(name, Some(options)))) {
            Err(DockerError::Conflict { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Whether nobody but the engine named a volume.
fn is_nameless(volume: &Volume) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    volume.is_plain()
        && volume.name.len() == 64
        && volume.name.bytes().all(digit)
        && volume.labels.keys().all(|label| label == BY_THE_ENGINE)
}

fn scratch(found: Volume, stack: &str, live: &[&str]) -> Result<ScratchVolume, DockerError> {
    let why = if !found.labels.contains_key(SCRATCH_LABEL) {
        format!("it does not carry the label {SCRATCH_LABEL}, so Switchback did not make it")
    } else if found.labels.get(STACK_LABEL).map(String::as_str) != Some(stack) {
        "it belongs to another stack".to_owned()
    } else if live.contains(&found.name.as_str()) {
        "it holds production's data".to_owned()
    } else {
        return Ok(ScratchVolume { name: found.name });
    };
    Err(DockerError::NotScratch { volume: found.name, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_somebody_named_labelled_or_set_up_is_not_nameless() {
        let nameless = Volume {
            name: "0123456789abcdef".repeat(4),
            driver: "local".into(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            mountpoint: String::new(),
        };
        assert!(is_nameless(&nameless));
        let label = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
        assert!(is_nameless(&Volume { labels: label("com.docker.volume.anonymous"), ..nameless.clone() }));
        for other in [
            Volume { name: "shop_data".into(), ..nameless.clone() },
            Volume { name: "0123456789ABCDEF".repeat(4), ..nameless.clone() },
            Volume { driver: "nfs".into(), ..nameless.clone() },
            Volume { options: label("device"), ..nameless.clone() },
            Volume { labels: label("com.docker.compose.volume"), ..nameless.clone() },
        ] {
            assert!(!is_nameless(&other), "{other:?}");
        }
    }

    #[test]
    fn only_a_labelled_volume_of_this_stack_that_is_not_live_becomes_scratch() {
        let with = |labels: &[(&str, &str)]| Volume {
            name: "v".into(),
            driver: "local".into(),
            options: BTreeMap::new(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            mountpoint: String::new(),
        };
        let own = [(SCRATCH_LABEL, "1"), (STACK_LABEL, "s")];
        assert!(scratch(with(&own), "s", &["other"]).is_ok());
        assert!(scratch(with(&own), "s", &["v"]).is_err(), "live");
        assert!(scratch(with(&own), "t", &[]).is_err(), "another stack's");
        assert!(scratch(with(&own[1..]), "s", &[]).is_err(), "without the label");
        assert!(scratch(with(&[]), "s", &[]).is_err(), "the user's");
    }
}
