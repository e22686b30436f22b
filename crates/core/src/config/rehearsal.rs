//! `rehearsal`: what a rehearsal also looks at, and how long its certificate counts.

use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rehearsals and the certificates they issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rehearsal {
    /// A certificate older than this no longer permits a promotion.
    pub valid: Span,
    /// Also find out whether the old version runs on the migrated data.
    pub code_only_rollback: bool,
    /// Also record what the migration does to databases while it runs: statements, locks, rewritten tables.
    pub trace: bool,
    /// Also record what the application asks its databases while the checks run, and how they carry it out.
    pub queries: bool,
}

impl Default for Rehearsal {
    fn default() -> Self {
        Self { valid: Span::secs(7 * 86_400), code_only_rollback: true, trace: true, queries: true }
    }
}
