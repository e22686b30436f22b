//! What one look at production sees, and what was seen before the promotion.

use crate::ids::{ServiceName, StoreName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One look at production on trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// Checks that came to a result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, CheckSample>,
    /// Services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceSample>,
    /// Free bytes where the data of production lies, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Memory that the host could still give, if the services run on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_free_bytes: Option<u64>,
    /// Databases that were asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<StoreName, DatabaseSample>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSample {
    /// Whether it passed.
    pub ok: bool,
    /// Wall time.
    pub took_ms: u64,
}

/// What a service is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSample {
    /// How often it was started.
    pub starts: u32,
    /// Whether it ended last for want of memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// Memory in use.
    pub memory_bytes: u64,
    /// The most that it may use, where it has a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Error messages in its log since the look before, numbers taken out, and how often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u32>,
}

/// What a database says of its sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSample {
    /// The longest wait for a lock that is going on.
    pub lock_wait_ms: u64,
    /// Connections of clients.
    pub connections: u64,
    /// The most there can be.
    pub most: u64,
}

/// What was true before the promotion, and therefore does not count against it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Wall times of passed checks, in milliseconds.
    #[serde(default)]
    pub checks: BTreeMap<String, Vec<u64>>,
    /// Error messages in the logs, numbers taken out.
    #[serde(default)]
    pub errors: BTreeMap<ServiceName, BTreeSet<String>>,
}
