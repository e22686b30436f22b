//! `backup`: where backups of the stack go, when, and how long they stay.

pub use super::wal::Wal;

use super::check::Checker;
use super::{Config, ConfigError, RuntimeKind};
use crate::backup::Keep;
use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Backups of the whole stack: data, configuration and the record of the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Where the repository (restic's format) lies: a folder, relative to the stack; `rest:URL` of a restic REST server;
    /// `s3:https://HOST/BUCKET/FOLDER`; `rclone:REMOTE:PATH`, which is SFTP and everything else that rclone knows; `env:NAME` or `file:PATH`, which hold one of these.
    pub repository: String,
    /// A file of lines `NAME=VALUE`, relative to the stack, with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and perhaps
    /// `AWS_REGION` and `AWS_SESSION_TOKEN` for `s3:`, and with variables of rclone (`RCLONE_CONFIG`) for `rclone:`. What is not in it is taken from the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// The file with the key, relative to the stack; by default `.switchback/backup.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// A backup is made this often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// The newest backup is restored into a sandbox and checked this often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Span>,
    /// Which backups stay.
    #[serde(default)]
    pub keep: Keep,
    /// Archives the write-ahead log of Postgres stores, so that moments between backups can be returned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<Wal>,
    /// Whether the images of the release go into each backup. Needs room for them beside the stack while it is made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub images: bool,
    /// What becomes of the clone that a backup is made of, where blocks are not shared.
    #[serde(default, skip_serializing_if = "CloneKept::is_removed")]
    pub clone: CloneKept,
}

/// What becomes of the clone that a backup is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloneKept {
    /// It is removed when the backup is made.
    #[default]
    Remove,
    /// It stays, and the next backup brings it up to date: quicker, and as much disk space as the data takes.
    Keep,
}

impl CloneKept {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_removed(&self) -> bool {
        *self == Self::Remove
    }
}

/// The shortest time between two scheduled runs.
const SHORTEST: Span = Span::secs(60);

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let Some(backup) = &config.backup else { return Ok(()) };
    let refuse = |key: &str, why: &str, hint: &str| {
        Err(checker.error(&format!("backup.{key}"), format!("backup.{key} {why}"), Some(hint.into())))
    };
    if backup.images && config.runtime != RuntimeKind::Compose {
        return refuse("images", "is for containers", "with `runtime: process` there are none");
    }
    let repository = backup.repository.as_str();
    if repository.is_empty() {
        return refuse("repository", "is empty", "name a folder, or rest:URL");
    }
    if let Some(url) = repository.strip_prefix("rest:") {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return refuse("repository", "is no address of a REST server", "write rest:https://HOST/PATH");
        }
        if url.split('/').nth(2).is_some_and(|host| host.contains('@')) {
            return refuse(
                "repository",
                "holds a password",
                "put the whole address into a file or a variable, and write file:PATH or env:NAME",
            );
        }
    } else if let Some(place) = repository.strip_prefix("s3:") {
        let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
        let mut parts = place.split('/');
        let (host, bucket) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        if host.is_empty() || bucket.is_empty() || host.contains('@') {
            return refuse(
                "repository",
                "names no bucket",
                "write s3:https://HOST/BUCKET/FOLDER, and who asks into `backup.env_file`",
            );
        }
    } else if ["sftp:", "b2:", "azure:", "gs:", "swift:"].iter().any(|p| repository.starts_with(p)) {
        return refuse(
            "repository",
            "is of a kind that this version does not speak",
            "make a remote of it with `rclone config` and write rclone:REMOTE:PATH",
        );
    }
    for (key, every) in [("every", backup.every), ("drill", backup.drill)] {
        if every.is_some_and(|e| e < SHORTEST) {
            return refuse(key, "is shorter than a minute", "write for example 24h");
        }
    }
    super::wal::check(config, checker)?;
    let keep = backup.keep;
    if [keep.last, keep.daily, keep.weekly, keep.monthly].iter().all(|n| *n == 0) {
        return refuse("keep", "keeps nothing", "keep at least the last one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_place_that_cannot_be_used_is_refused_with_a_way_out() {
        let parse =
            |backup: &str| Config::parse(&format!("stack: s\nruntime: compose\nbackup: {backup}\n"), "f");
        for good in [
            "{ repository: /srv/backup }",
            "{ repository: 'rest:https://host/x', every: 24h, drill: 7d, keep: { last: 1, daily: 0 } }",
            "{ repository: 'env:BACKUP', key_file: keys/backup }",
            "{ repository: 's3:https://host:9000/bucket/a/b', env_file: s3.env }",
        ] {
            parse(good).expect(good);
        }
        for (bad, why) in [
            ("{ repository: '' }", "is empty"),
            ("{ repository: 'rest:host' }", "no address"),
            ("{ repository: 'rest:http://me:secret@host/' }", "holds a password"),
            ("{ repository: 's3:bucket' }", "names no bucket"),
            ("{ repository: 's3:https://me:secret@host/bucket' }", "names no bucket"),
            ("{ repository: 'sftp:host:/x' }", "does not speak"),
            ("{ repository: x, every: 5s }", "shorter than a minute"),
            ("{ repository: x, keep: { last: 0, daily: 0, weekly: 0, monthly: 0 } }", "keeps nothing"),
            ("{ repository: x, keeep: {} }", "keeep"),
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}
