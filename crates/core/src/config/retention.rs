//! `retention`: what is kept, and how often the rest is removed.

use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `gc` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Generations kept besides the current one and the one a rollback needs.
    pub generations: u32,
    /// Runs (reports, logs, artefacts) kept.
    pub runs: u32,
    /// How often the keeper does what `switchback gc` does; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc: Option<Span>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { generations: 1, runs: 50, gc: None }
    }
}
