//! What a generation has in common with another one, after single services were rolled back: services that went on running, and
//! the data that they went on writing to.

use super::Instance;
use crate::ids::{GenerationId, ServiceName, StoreName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Services and stores of an instance that belong to other instances, whose folders (relative to the state) are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Services that run as those of another instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, String>,
    /// Stores that lie where another instance's do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<StoreName, String>,
}

impl Shared {
    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.stores.is_empty()
    }

    /// The generations that it needs, which must not be removed as long as this one may run.
    pub fn generations(&self) -> BTreeSet<GenerationId> {
        let folders = self.services.values().chain(self.stores.values());
        let number = |dir: &String| dir.strip_prefix("generations/")?.parse().ok();
        folders.filter_map(number).map(GenerationId).collect()
    }
}

impl Instance {
    /// The folder in which a service of this instance runs.
    pub fn dir_of(&self, service: &str) -> &str {
        self.shared.services.get(service).map_or(&self.dir, String::as_str)
    }

    /// The folder of the instance that a store was made for.
    pub fn dir_of_store(&self, store: &StoreName) -> &str {
        self.shared.stores.get(store).map_or(&self.dir, String::as_str)
    }

    /// The instance without the stores of other ones: what may be made, marked and removed with it.
    pub fn own(&self) -> Self {
        let mut own = self.clone();
        own.stores.retain(|name, _| !self.shared.stores.contains_key(name));
        own
    }

    /// The instance with only those stores that another one has, too.
    pub fn with_stores_of(&self, other: &Self) -> Self {
        let mut some = self.clone();
        some.stores.retain(|name, _| other.stores.contains_key(name));
        some
    }

    /// The instance without the stores that lie where those of another one do.
    pub fn without_places_of(&self, other: &Self) -> Self {
        let mut some = self.clone();
        some.stores.retain(|name, place| other.stores.get(name) != Some(place));
        some
    }

    /// Stores that lie where those of another instance do.
    pub fn common_places(&self, other: &Self) -> Vec<&StoreName> {
        let same = |(name, place): &(&StoreName, _)| other.stores.get(*name) == Some(*place);
        self.stores.iter().filter(same).map(|(name, _)| name).collect()
    }
}
