//! What can be known of an instance's data before anything is cloned, for `doctor`.
//!
//! Owns the questions. It must never write beside production's data: whether blocks can be shared is tried on a volume
//! of its own, and only asked of the file system where a clone would lie beside a folder of the host.

use super::ComposeData;
use super::server::{Server, engine_error};
use crate::docker::DockerError;
use crate::docker::ScratchVolume;
use crate::docker::hands::Hands;
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::Placement;
use crate::store::postgres::standby::{self, Connection};
use crate::store::postgres::{ServerFacts, server_facts};
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{Instance, Mount, MountPlace};

/// `statfs` of btrfs, which always shares blocks.
const BTRFS: i128 = 0x9123_683E;
/// `statfs` of XFS, which shares blocks unless it was made without.
const XFS: i128 = 0x5846_5342;

/// A mount of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFacts {
    /// The stores on it.
    pub stores: Vec<StoreName>,
    /// Where it lies.
    pub at: MountPlace,
    /// Its size in bytes; none if it does not exist (yet).
    pub bytes: Option<u64>,
    /// Whether a clone shares its blocks; none if it is not known.
    pub shared: Option<bool>,
    /// Free bytes there, where this host cannot see it for itself.
    pub free_bytes: Option<u64>,
    /// The folder of the host beside which clones lie; none where they are volumes of the engine.
    pub beside: Option<String>,
}

/// A Postgres server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresFacts {
    /// What it says about itself.
    pub server: ServerFacts,
    /// Why it cannot be cloned by replication; empty if it can.
    pub refusals: Vec<String>,
    /// What replication may cost.
    pub costs: Vec<String>,
}

impl ComposeData {
    /// Looks at the mounts of an instance.
    pub fn mount_facts(&self, home: &Home, instance: &Instance) -> Result<Vec<MountFacts>, EngineError> {
        let mut mounts: BTreeMap<&Mount, Vec<StoreName>> = BTreeMap::new();
        for (name, place) in &instance.stores {
            if let Some(mount) = &place.mount {
                mounts.entry(mount).or_default().push(name.clone());
            }
        }
        let mut found = Vec::new();
        for (mount, stores) in mounts {
            let mut facts = MountFacts {
                stores,
                at: mount.at.clone(),
                bytes: None,
                shared: None,
                free_bytes: None,
                beside: mount.beside.as_deref().and_then(parent).map(str::to_owned),
            };
            if self.mount_exists(home, &mount.at)? {
                facts.bytes = Some(self.hands(home)?.size_bytes(StoreKind::Files, (&mount.at, ""))?);
                facts.shared = self.shares(home, mount)?;
                if !self.docker.is_local() {
                    facts.free_bytes = Some(self.hands(home)?.room((&mount.at, ""))?.free_bytes);
                }
            }
            found.push(facts);
        }
        Ok(found)
    }

    fn shares(&self, home: &Home, mount: &Mount) -> Result<Option<bool>, EngineError> {
        let hands = self.hands(home)?;
        let Some(beside) = &mount.beside else {
            return self.shares_with_a_volume(home, &hands, &mount.at).map(Some);
        };
        let folder = MountPlace::Dir(beside.clone());
        if self.docker.is_local() && Path::new(beside).is_dir() {
            return Ok(Some(hands.can_reflink((&mount.at, ""), (&folder, ""))?));
        }
        let known = parent(beside).filter(|_| self.docker.is_local());
        let Some(kind) = known.and_then(|p| rustix::fs::statfs(p).ok()).map(|s| s.f_type) else {
            return Ok(None);
        };
        // The type of `f_type` differs between processors.
        Ok(match i128::from(kind) {
            BTRFS => Some(true),
            XFS => None,
            _ => Some(false),
        })
    }

    /// A volume of the engine to try out whether blocks can be shared with it.
    pub(super) fn probe(&self, home: &Home) -> Result<ScratchVolume, EngineError> {
        let stack = home.id()?;
        Ok(self.docker.volume_create(&probe_name(&stack), &stack, &[], &[])?)
    }

    /// Whether a mount shares blocks with a volume that the engine makes. A program that is killed meanwhile leaves that volume;
    /// the next one removes it ([`Self::remove_probe`]).
    pub(super) fn shares_with_a_volume(
        &self,
        home: &Home,
        hands: &Hands<'_>,
        at: &MountPlace,
    ) -> Result<bool, EngineError> {
        let probe = self.probe(home)?;
        let shared = hands.can_reflink((at, ""), (&probe.place(), ""));
        self.docker.volume_remove(&probe)?;
        Ok(shared?)
    }

    /// Removes the volume that [`Self::shares_with_a_volume`] tries, if there is one and nobody (a `doctor`) is trying it.
    pub(super) fn remove_probe(&self, home: &Home) -> Result<(), EngineError> {
        let stack = home.id()?;
        let Some(probe) = self.docker.scratch_volume(&probe_name(&stack), &stack, &[])? else {
            return Ok(());
        };
        match self.docker.volume_remove(&probe) {
            Err(DockerError::VolumeInUse { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Asks the server of a store that runs.
    pub fn postgres_facts(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
    ) -> Result<PostgresFacts, EngineError> {
        let (_, mount) = super::place(at, store)?;
        let server = Server::open(self, at, store, mount, CloneMode::Live)?;
        let facts = server_facts(&server).map_err(engine_error)?;
        // As a clone would connect: through the socket, inside the container.
        let connection = Connection {
            host: "/var/run/postgresql".to_owned(),
            port: 5432,
            user: facts.role.clone(),
            password: None,
        };
        Ok(PostgresFacts {
            refusals: standby::refusals(&facts, &connection, &[]),
            costs: standby::warnings(&facts),
            server: facts,
        })
    }
}

fn probe_name(stack: &str) -> String {
    format!("switchback-probe-{}", stack.to_lowercase())
}

fn parent(path: &str) -> Option<&str> {
    Path::new(path).parent()?.to_str()
}
