//! What a step found: the values that the journal keeps of it.

use crate::anonymise::MaskedStore;
use crate::backup::Archived;
use crate::carry::Carried;
use crate::check::{Artefact, CheckResult};
use crate::data::{CopyStats, ExportStats, Fingerprint, StoreDiff};
use crate::egress::Egress;
use crate::ids::{ServiceName, StoreName};
use crate::release::Certificate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a step found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Things worth telling, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Copies made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copies: BTreeMap<StoreName, CopyStats>,
    /// Services that became healthy or were stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceTimes>,
    /// Fingerprints taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fingerprints: BTreeMap<StoreName, Fingerprint>,
    /// Rows per table, or files, per store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<StoreName, BTreeMap<String, u64>>,
    /// What a migration did while it ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traces: BTreeMap<StoreName, crate::trace::Trace>,
    /// What databases were asked while the checks ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<StoreName, crate::queries::Queries>,
    /// What a linter says of the migration files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<crate::lint::Lint>,
    /// What is left of stores whose rows were removed, or what they have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shrunk: BTreeMap<StoreName, crate::scaling::Shrunk>,
    /// Columns masked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<StoreName, MaskedStore>,
    /// Differences found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub diffs: BTreeMap<StoreName, StoreDiff>,
    /// Check results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// What the new release's settings differ in, without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// What was compared with what after a switch, and found equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_back: Vec<String>,
    /// A certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Writes exported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<StoreName, ExportStats>,
    /// Writes carried back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<StoreName, Carried>,
    /// What was written into the repository of backups, or brought back from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Archived>,
    /// Files kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artefacts: Vec<Artefact>,
    /// What environments tried to send out while they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
}

/// How long a service took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTimes {
    /// From the start command to the first healthy answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_after_ms: Option<u64>,
    /// From the start command to the end of the stability time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_after_ms: Option<u64>,
    /// From the stop signal to the end of the last process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after_ms: Option<u64>,
    /// Whether processes had to be killed after the grace time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
}
