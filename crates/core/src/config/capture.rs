//! `rollback.writes` and `rollback.capture`: what becomes of later writes, and how they are found.

use super::check::Checker;
use super::{Config, ConfigError, RuntimeKind};
use crate::data::StoreKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to the writes made between a promotion and its rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// They are exported exactly, after service is back; until then the abandoned generation is kept.
    Export,
    /// And then carried into the version before, as its next generation, as far as they fit.
    Carry,
}

/// How the writes made since a promotion are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// By comparing the data of before with that of after.
    #[default]
    Compare,
    /// While a trial lasts, the watchdog keeps which rows are written to; only those are compared.
    Continuous,
}

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let rollback = &config.rollback;
    let refuse = |key: &str, message: &str, hint: &str| {
        Err(checker.error(key, format!("{key}: {message}"), Some(hint.to_owned())))
    };
    if rollback.capture_wal_mib < 64 {
        return refuse(
            "rollback.capture_wal_mib",
            "must be at least 64",
            "a server keeps its log in files of 16 MiB",
        );
    }
    let postgres = config.stores.values().any(|s| s.kind == StoreKind::Postgres);
    if rollback.capture == Capture::Continuous && (config.runtime != RuntimeKind::Compose || !postgres) {
        return refuse(
            "rollback.capture",
            "there is no Postgres store of a Compose stack",
            "all other stores are compared; leave it out",
        );
    }
    Ok(())
}
