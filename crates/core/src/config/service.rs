//! One service: how it is run, when it is healthy, how it is stopped.

use super::defaults;
use crate::duration::Span;
use crate::ids::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One service: a local process, or what a Compose file does not say about a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The version to run; `{version}` in `release` is replaced by it. With Compose: the image's tag.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Path of the release artefact (file or folder), relative to the stack; its hash is part of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Program and arguments. Templates: see `docs/upgrade-infrastructure/reference/configuration.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Program and arguments that migrate the data to this version; runs before the service starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrate: Vec<String>,
    /// A migration that takes longer is stopped and counts as failed.
    #[serde(default = "super::defaults::migrate_deadline")]
    pub migrate_deadline: Span,
    /// Environment variables. Only these, and PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_*, TZ, TMPDIR and XDG_RUNTIME_DIR of the
    /// caller, reach the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A file with `NAME=value` lines, for secrets; it belongs to the generation like `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// Named ports the service listens on in production. Staging gets free ones. With Compose: the container's ports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// When the service counts as healthy. With Compose, by default: when its container's own health check says so, or,
    /// where it has none, when it runs.
    #[serde(default)]
    pub health: Health,
    /// Files, relative to the stack, that belong to the generation; they are copied to the working folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<String>,
    /// How the service is stopped.
    #[serde(default)]
    pub stop: Stop,
    /// Services that must be healthy before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<ServiceName>,
    /// What happens when the process ends by itself.
    #[serde(default)]
    pub restart: Restart,
}

/// When a service counts as healthy. Exactly one of `http`, `tcp`, `command`; with Compose at most one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A path that answers 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Name of a port that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Program and arguments that exit 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Name of the port for `http`; may be left out if the service has one port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Healthy must stay healthy for this long.
    #[serde(default = "super::defaults::stable")]
    pub stable: Span,
    /// Healthy must come within this time after the start.
    #[serde(default = "super::defaults::start")]
    pub start: Span,
    /// One probe may take this long.
    #[serde(default = "super::defaults::probe_timeout")]
    pub timeout: Span,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            command: None,
            port: None,
            stable: defaults::stable(),
            start: defaults::start(),
            timeout: defaults::probe_timeout(),
        }
    }
}

/// How a service is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// The signal sent to the whole process group.
    pub signal: StopSignal,
    /// After this time what is left is killed.
    pub grace: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: StopSignal::Term, grace: Span::secs(10) }
    }
}

/// Signals that ask a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    /// SIGTERM
    Term,
    /// SIGINT
    Int,
    /// SIGQUIT
    Quit,
    /// SIGHUP
    Hup,
}

/// What happens when a process ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is started again, after 0.2 s and then twice as long each time, at most 10 s.
    #[default]
    Always,
    /// It stays down.
    Never,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            version: String::new(),
            release: None,
            command: Vec::new(),
            migrate: Vec::new(),
            migrate_deadline: defaults::migrate_deadline(),
            env: BTreeMap::new(),
            env_file: None,
            ports: BTreeMap::new(),
            health: Health::default(),
            config: Vec::new(),
            stop: Stop::default(),
            needs: Vec::new(),
            restart: Restart::default(),
        }
    }
}

impl Service {
    /// The port that health checks and `{{service.url}}` use.
    pub fn main_port(&self) -> Option<&str> {
        let named = self.health.port.as_deref().or(self.health.tcp.as_deref());
        named.or_else(|| {
            if self.ports.contains_key("http") {
                Some("http")
            } else {
                self.ports.keys().next().map(String::as_str)
            }
        })
    }
}
