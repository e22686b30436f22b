//! `rollback.triggers`: what a trial is watched for besides the checks, and what happens then.

use super::check::Checker;
use super::{Config, ConfigError};
use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens when a trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing; it is not looked for.
    Off,
    /// The receivers of notifications are told.
    Notify,
    /// And the trial does not end well before it has passed, or a person says `switchback confirm`.
    Hold,
    /// Production is rolled back.
    Rollback,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Notify => "notify",
            Self::Hold => "hold",
            Self::Rollback => "rollback",
        }
    }
}

/// What a trial is watched for besides the checks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Triggers {
    /// Services that end and are started again.
    pub restarts: Restarts,
    /// Checks that fail now and then, and never often enough in a row.
    pub errors: Errors,
    /// Checks that take longer than before the promotion.
    pub latency: Latency,
    /// Error messages that were not in the logs before the promotion.
    pub logs: LogErrors,
    /// Memory that runs out.
    pub memory: Memory,
    /// Disk space that runs out.
    pub disk: Disk,
    /// Sessions of Postgres that wait for locks, and connections that run out.
    pub database: Database,
}

/// Services that end and are started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Restarts {
    /// What happens.
    pub action: Action,
    /// So many restarts of one service,
    pub times: u32,
    /// within this time. Once is enough where it ended for want of memory.
    pub within: Span,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { action: Action::Rollback, times: 2, within: Span::secs(300) }
    }
}

/// Checks that fail now and then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// What happens.
    pub action: Action,
    /// One of them fails so many percent of the times that it runs
    pub percent: u32,
    /// within this time. At least three of at least twenty.
    pub within: Span,
}

impl Default for Errors {
    fn default() -> Self {
        Self { action: Action::Rollback, percent: 10, within: Span::secs(600) }
    }
}

/// Checks that take longer than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// What happens.
    pub action: Action,
    /// By so many percent, in five of six windows of five looks.
    pub percent: u32,
    /// What is faster than this is fast enough.
    pub above: Span,
}

impl Default for Latency {
    fn default() -> Self {
        Self { action: Action::Rollback, percent: 100, above: Span(std::time::Duration::from_millis(500)) }
    }
}

/// Error messages that are new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogErrors {
    /// What happens.
    pub action: Action,
    /// So many lines a minute. One is enough where it tells of a panic or calls itself fatal.
    pub per_minute: u32,
    /// Lines with one of these texts do not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

impl Default for LogErrors {
    fn default() -> Self {
        Self { action: Action::Hold, per_minute: 5, ignore: Vec::new() }
    }
}

/// Memory that runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// What happens.
    pub action: Action,
    /// A service uses so many percent of its limit, or grows so that it gets there within `rollback.watch`.
    pub percent: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { action: Action::Rollback, percent: 95 }
    }
}

/// Disk space that runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// What happens when less than this is free, or will be within `rollback.watch`.
    pub action: Action,
    /// MiB.
    pub free_mib: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { action: Action::Hold, free_mib: 256 }
    }
}

/// What Postgres says of its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// What happens.
    pub action: Action,
    /// A session has waited for a lock for so long.
    pub lock_wait: Span,
    /// So many percent of the connections are in use.
    pub connections_percent: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self { action: Action::Rollback, lock_wait: Span::secs(30), connections_percent: 90 }
    }
}

/// Refuses numbers with which a trigger could never fire, or always would.
pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let of = &config.rollback.triggers;
    let numbers = [
        ("restarts.times", u64::from(of.restarts.times), 1, u64::from(u32::MAX)),
        ("errors.percent", u64::from(of.errors.percent), 1, 100),
        ("latency.percent", u64::from(of.latency.percent), 10, 100_000),
        ("logs.per_minute", u64::from(of.logs.per_minute), 1, u64::from(u32::MAX)),
        ("memory.percent", u64::from(of.memory.percent), 10, 100),
        ("database.connections_percent", u64::from(of.database.connections_percent), 10, 100),
    ];
    for (key, value, least, most) in numbers {
        if !(least..=most).contains(&value) {
            let key = format!("rollback.triggers.{key}");
            let what = format!("{key} is {value}");
            let hint = if most > 100_000 {
                format!("write at least {least}")
            } else {
                format!("write a number from {least} to {most}; `action: off` switches it off")
            };
            return Err(checker.error(&key, what, Some(hint)));
        }
    }
    if of.logs.ignore.iter().any(|text| text.trim().is_empty()) {
        let key = "rollback.triggers.logs.ignore";
        return Err(checker.error(key, format!("{key} has an empty text, which is in every line"), None));
    }
    Ok(())
}
