//! `hooks`: commands of the user around a promotion and a rollback.

use super::check::Checker;
use super::{CommandLine, Config, ConfigError};
use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Commands around what changes production.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Before production is stopped for a promotion. If it fails, nothing is promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_promote: Option<Hook>,
    /// After a promotion, also after one that failed and was undone. If it fails, the report says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_promote: Option<Hook>,
    /// Before production is stopped for a rollback. If it fails, production is rolled back all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_rollback: Option<Hook>,
    /// After a rollback. If it fails, the report says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_rollback: Option<Hook>,
}

/// A command of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments, or one line for `sh -c`; it runs in the stack's folder.
    pub run: CommandLine,
    /// Stopped and failed after this time. A rollback waits at most 10 s for the one before it.
    #[serde(default = "minute")]
    pub timeout: Span,
}

fn minute() -> Span {
    Span::secs(60)
}

/// Refuses commands that are none.
pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let of = &config.hooks;
    let all = [
        ("before_promote", &of.before_promote),
        ("after_promote", &of.after_promote),
        ("before_rollback", &of.before_rollback),
        ("after_rollback", &of.after_rollback),
    ];
    for (name, hook) in all {
        let Some(hook) = hook else { continue };
        let empty = match &hook.run {
            CommandLine::Words(words) => words.first().is_none_or(String::is_empty),
            CommandLine::Shell(line) => line.trim().is_empty(),
        };
        if empty {
            let key = format!("hooks.{name}.run");
            return Err(checker.error(&key, format!("{key} names no program"), None));
        }
    }
    Ok(())
}
