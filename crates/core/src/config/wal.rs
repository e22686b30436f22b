//! `backup.wal`: archiving the write-ahead log of Postgres, so that a moment between two backups can be returned to.

use super::check::Checker;
use super::{Config, ConfigError, RuntimeKind};
use crate::data::StoreKind;
use crate::duration::Span;
use crate::ids::StoreName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which logs are archived, how often, and how long they stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Only these stores; empty means all Postgres stores.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stores: BTreeSet<StoreName>,
    /// Segments are written into the repository this often: what is lost with the machine is what was written since.
    pub every: Span,
    /// Moments longer ago need not be returned to, except those of backups.
    pub keep: Span,
    /// The server keeps at most so much of its log (in GiB) for a repository that is away; then the chain breaks, which is told, and
    /// the disk of production does not fill up.
    pub limit_gib: u64,
}

impl Default for Wal {
    fn default() -> Self {
        Self { stores: BTreeSet::new(), every: Span::secs(60), keep: Span::secs(7 * 24 * 3600), limit_gib: 4 }
    }
}

impl Config {
    /// The stores whose log is archived.
    pub fn archived(&self) -> BTreeSet<StoreName> {
        let Some(wal) = self.backup.as_ref().and_then(|b| b.wal.as_ref()) else { return BTreeSet::new() };
        let wanted = |name: &StoreName| wal.stores.is_empty() || wal.stores.contains(name);
        let all =
            self.stores.iter().filter(|(name, store)| store.kind == StoreKind::Postgres && wanted(name));
        all.map(|(name, _)| name.clone()).collect()
    }
}

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let Some(wal) = config.backup.as_ref().and_then(|b| b.wal.as_ref()) else { return Ok(()) };
    let refuse = |key: &str, why: String, hint: &str| {
        let path = if key.is_empty() { "backup.wal".to_owned() } else { format!("backup.wal.{key}") };
        Err(checker.error(&path, format!("{path} {why}"), Some(hint.into())))
    };
    if config.runtime != RuntimeKind::Compose {
        return refuse("", "is for containers".into(), "with `runtime: process` there is no Postgres store");
    }
    for name in &wal.stores {
        if config.stores.get(name).is_none_or(|s| s.kind != StoreKind::Postgres) {
            return refuse("stores", format!("names {name}"), "name stores of kind postgres");
        }
    }
    // Stores may stand nowhere and be found in the Compose file.
    if wal.every < Span::secs(5) || wal.every > Span::secs(24 * 3600) {
        return refuse("every", "is out of range".into(), "write 5s to 24h, for example 60s");
    }
    if wal.keep < Span::secs(3600) {
        return refuse("keep", "is shorter than an hour".into(), "write for example 7d");
    }
    if !(1..=4096).contains(&wal.limit_gib) {
        return refuse("limit_gib", "is out of range".into(), "write 1 to 4096");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn parse(wal: &str) -> Result<Config, super::ConfigError> {
        let text = format!(
            "stack: s\nruntime: compose\nstores:\n  db: {{ kind: postgres, volume: db, service: db, user: app }}\n  files: {{ kind: files, volume: files }}\nbackup: {{ repository: /srv/backup, wal: {wal} }}\n"
        );
        Config::parse(&text, "f")
    }

    #[test]
    fn all_postgres_stores_are_archived_unless_some_are_named() {
        for good in ["{}", "{ stores: [db] }", "{ every: 5s, keep: 30d, limit_gib: 1 }"] {
            let config = parse(good).expect(good);
            assert_eq!(
                config.archived().iter().map(crate::ids::StoreName::as_str).collect::<Vec<_>>(),
                ["db"],
                "{good}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (bad, why) in [
            ("{ stores: [files] }", "names files"),
            ("{ stores: [nothing] }", "names nothing"),
            ("{ every: 1s }", "out of range"),
            ("{ keep: 5m }", "shorter than an hour"),
            ("{ limit_gib: 0 }", "out of range"),
            ("{ evry: 60s }", "evry"),
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let process = "stack: s\nbackup: { repository: /srv/backup, wal: {} }\n";
        assert!(Config::parse(process, "f").is_err());
    }
}
