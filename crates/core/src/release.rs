//! Releases (what runs) and generations (a release with its data).

mod shared;

pub use shared::Shared;

use crate::carry::Coverage;
use crate::config::Service;
use crate::data::StoreKind;
use crate::ids::{Digest, GenerationId, RunId, ServiceName, StoreName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The on-disk format of releases, generations and the pointer that this program writes.
pub const FORMAT: u32 = 1;

/// What runs: versions, artefact hashes, service definitions and configuration files.
///
/// Content-addressed: equal releases have equal ids, on any host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// On-disk format.
    pub format: u32,
    /// Per service.
    pub services: BTreeMap<ServiceName, ServiceRelease>,
    /// Configuration files (path relative to the stack) and their content digests.
    pub config: BTreeMap<String, Digest>,
    /// Digest of the normalised Compose model without images; Compose only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Digest>,
}

/// One service of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRelease {
    /// The artefact, if the service has one.
    pub artefact: Option<ArtefactRef>,
    /// The container image; Compose only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// The service as configured when the release was made.
    pub definition: Service,
}

/// The files that are a version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtefactRef {
    /// Absolute path.
    pub path: String,
    /// Digest of the tree: names, modes, contents, link targets; without `__pycache__`.
    pub digest: Digest,
}

/// A container image, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// As the Compose file names it: `n8nio/n8n:2.8.4`.
    pub reference: String,
    /// The engine's id of the image: `sha256:...` of its configuration.
    pub id: String,
    /// Where it can be pulled again: `n8nio/n8n@sha256:...`; none for an image that was built or loaded here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Release {
    /// This release with some services as another one has them.
    #[must_use]
    pub fn with_services_of(&self, other: &Self, names: &[ServiceName]) -> Self {
        let mut mixed = self.clone();
        for name in names {
            if let Some(service) = other.services.get(name) {
                mixed.services.insert(name.clone(), service.clone());
            }
        }
        mixed
    }

    /// The content address.
    ///
    /// BLAKE3 over the JSON form without the artefacts' paths (the same release may lie elsewhere).
    pub fn id(&self) -> Digest {
        let mut canonical = self.clone();
        for service in canonical.services.values_mut() {
            if let Some(artefact) = &mut service.artefact {
                artefact.path.clear();
            }
        }
        Digest::of(serde_json::to_string(&canonical).unwrap_or_default().as_bytes())
    }

    /// The release with only some of its services.
    #[must_use]
    pub fn only(&self, names: &[ServiceName]) -> Self {
        let mut some = self.clone();
        some.services.retain(|name, _| names.contains(name));
        some
    }

    /// Version per service.
    pub fn versions(&self) -> BTreeMap<ServiceName, String> {
        self.services.iter().map(|(n, s)| (n.clone(), s.definition.version.clone())).collect()
    }
}

/// A release for people: `hub 3.1.1, proxy 4.6`.
pub fn describe(versions: &BTreeMap<ServiceName, String>) -> String {
    versions.iter().map(|(n, v)| format!("{n} {v}")).collect::<Vec<_>>().join(", ")
}

/// What is different between two sets of versions: `hub 3.1.1 -> 5.4.6`.
pub fn describe_change(from: &BTreeMap<ServiceName, String>, to: &BTreeMap<ServiceName, String>) -> String {
    let mut parts = Vec::new();
    for (name, new) in to {
        match from.get(name) {
            Some(old) if old == new => {}
            Some(old) => parts.push(format!("{name} {old} -> {new}")),
            None => parts.push(format!("{name} {new} (new)")),
        }
    }
    parts.extend(from.keys().filter(|n| !to.contains_key(*n)).map(|n| format!("{n} removed")));
    if parts.is_empty() { "configuration only".to_owned() } else { parts.join(", ") }
}

/// A generation placed in an environment: where its processes run and its data lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `production`, or the name of a staging environment.
    pub environment: String,
    /// Its number in that environment.
    pub generation: GenerationId,
    /// What runs.
    pub release: Digest,
    /// Versions, for people.
    pub versions: BTreeMap<ServiceName, String>,
    /// Folder of the instance, relative to the state folder.
    pub dir: String,
    /// Where the data lies.
    pub stores: BTreeMap<StoreName, StorePlace>,
    /// Ports per service and port name.
    pub ports: BTreeMap<ServiceName, BTreeMap<String, u16>>,
    /// Name of the Compose project; Compose only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What goes on from other generations, after single services were rolled back.
    #[serde(default, skip_serializing_if = "Shared::is_empty")]
    pub shared: Shared,
    /// Whether no client can reach it: its ports are others than production's (a drill).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// Where the data of a store lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePlace {
    /// The kind of data.
    pub kind: StoreKind,
    /// Process runtime: the absolute path. Compose: the path below the mount, empty for all of it.
    pub path: String,
    /// The volume or directory that holds it; Compose only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
    /// How its database server is reached; Postgres only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
}

/// What services mount and what is cloned as a whole: several stores may lie on one mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// What the Compose model calls it.
    pub source: MountSource,
    /// Where this generation's data lies.
    pub at: MountPlace,
    /// The directory on the engine's host below which clones are made, so that they share a file system with
    /// the original; without it clones are Docker volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
}

impl Mount {
    /// Where a clone of this mount lies: `PREFIX_data.SUFFIX`, or `BESIDE/SUFFIX/data` with a part that keeps
    /// different originals apart.
    pub fn clone_at(&self, prefix: &str, suffix: &str) -> MountPlace {
        let name = match &self.source {
            MountSource::Volume(key) => key.clone(),
            MountSource::Bind(path) => {
                let last = path.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data");
                format!("{last}-{}", Digest::of(path.as_bytes()).short())
            }
            MountSource::Anonymous { service, target } => {
                format!("{service}-{}", Digest::of(target.as_bytes()).short())
            }
        };
        match &self.beside {
            Some(beside) => MountPlace::Dir(format!("{beside}/{suffix}/{name}")),
            None => MountPlace::Volume(format!("{prefix}_{name}.{suffix}")),
        }
    }
}

/// What a Compose model mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A key below `volumes:`.
    Volume(String),
    /// An absolute path on the engine's host.
    Bind(String),
    /// A volume without a name, at a path in a service (`volumes: [/data]`, or `VOLUME` in its image).
    Anonymous {
        /// The service.
        service: ServiceName,
        /// The path in its container.
        target: String,
    },
}

/// Where the data of a mount lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountPlace {
    /// The Docker volume of this name.
    Volume(String),
    /// The directory (or file) at this absolute path on the engine's host.
    Dir(String),
}

/// How a store's database server is reached: inside its service's container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// The service whose image is the server.
    pub service: ServiceName,
    /// The role that asks; it must be able to read everything.
    pub user: String,
    /// Variable of the service's environment that holds that role's password, where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The databases that are compared; empty means every one that accepts connections, without templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Where the mount lies in the service's container.
    pub target: String,
}

impl Instance {
    /// `production/3`: how steps and process markers name it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.environment, self.generation)
    }
    /// Whether this is the production environment.
    pub fn is_production(&self) -> bool {
        self.environment == PRODUCTION
    }
}

/// The name of the production environment.
pub const PRODUCTION: &str = "production";

/// A production generation as recorded on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// On-disk format.
    pub format: u32,
    /// Where and what.
    pub instance: Instance,
    /// The run that made it.
    pub created_by: RunId,
    /// UTC, milliseconds since 1970.
    pub created_at_ms: i64,
    /// The generation it was made from.
    pub previous: Option<GenerationId>,
    /// Whether its data lies where the user put it (the first generation); such data is never deleted.
    pub adopted: bool,
}

/// Which generation is production's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// On-disk format.
    pub format: u32,
    /// The generation that runs.
    pub current: GenerationId,
    /// The generation that a rollback returns to.
    pub previous: Option<GenerationId>,
}

/// Proof that this host rolled back this data from this release within the budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The rehearsal that issued it.
    pub run: RunId,
    /// The release that it leaves.
    pub from: Digest,
    /// The release that it permits.
    pub to: Digest,
    /// UTC, milliseconds since 1970.
    pub issued_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub expires_at_ms: i64,
    /// Name of the host.
    pub host: String,
    /// Data that was cloned, bytes.
    pub data_bytes: u64,
    /// The measured rollback, from the decision to healthy and stable.
    pub rollback_ms: u64,
    /// Predicted downtime of the promotion: stop + clone + migrate + first healthy answer.
    pub downtime_ms: u64,
    /// The least and the most that a rollback took in the last rehearsals on this host, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_range_ms: Option<(u64, u64)>,
    /// Checks passed.
    pub checks_passed: u32,
    /// What of later writes could be carried back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Whether only the way back was tried (`drill rollback`): it permits no promotion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drilled: bool,
    /// Who vouches for all of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A signature by the stack's key (Ed25519, RFC 8032).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The public key, hexadecimal.
    pub key: String,
    /// Hexadecimal.
    pub value: String,
}

impl Certificate {
    /// The bytes that are signed: a name, a line feed, and the certificate without its signature as JSON without spaces, in
    /// the order of its fields.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let bare = Self { signature: None, ..self.clone() };
        let mut bytes = b"switchback.certificate/1\n".to_vec();
        bytes.extend(serde_json::to_vec(&bare).unwrap_or_default());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_release_id_depends_on_content_but_not_on_where_it_lies() {
        let config = Config::parse(
            "stack: s\nservices:\n  a: { version: '1', command: [x, '{port.http}'], ports: {http: 80}, health: {tcp: http} }\n",
            "f",
        )
        .expect("valid");
        let service = |path: &str, digest: &str| ServiceRelease {
            artefact: Some(ArtefactRef { path: path.into(), digest: digest.into() }),
            image: None,
            definition: config.services["a"].clone(),
        };
        let name = ServiceName::new("a").expect("valid");
        let release = |path, digest| Release {
            format: FORMAT,
            services: BTreeMap::from([(name.clone(), service(path, digest))]),
            config: BTreeMap::new(),
            model: None,
        };
        assert_eq!(release("/x", "1").id(), release("/y", "1").id());
        assert_ne!(release("/x", "1").id(), release("/x", "2").id());
    }
}
