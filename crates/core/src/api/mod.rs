//! API compatibility: what an upgrade changes for the clients of an HTTP API.
//!
//! Two views that complete each other: [`compare`] compares two OpenAPI documents by rules that know the direction
//! (narrowing a request or widening a response breaks clients, the other way round does not), and [`replay`] compares what
//! two versions really answered. Both are pure; requests are sent elsewhere.

mod bounds;
mod conform;
mod document;
#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod keyword_tests;
mod keywords;
mod operations;
#[cfg(test)]
mod random_tests;
pub mod replay;
mod rules;
mod schema;
mod security;
#[cfg(test)]
mod tests;
mod view;

pub use conform::conform;
pub use document::{Document, DocumentError};
pub use operations::compare;
pub use rules::RULES;

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a change matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Clients may break; whether they do depends on them.
    Warning,
    /// A client that kept to the old description breaks.
    Error,
}

impl Level {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that changed for clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// How much it matters.
    pub level: Level,
    /// Which rule found it: `request-property-became-required`.
    pub rule: String,
    /// The operation: `POST /notes`.
    pub operation: String,
    /// What changed, in a sentence.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] {}", self.operation, self.rule, self.what)
    }
}

impl Change {
    /// Whether a person accepted it: `RULE`, or `RULE METHOD /path`.
    pub fn accepted(&self, list: &[String]) -> bool {
        list.iter().any(|entry| match entry.split_once(' ') {
            None => *entry == self.rule,
            Some((rule, operation)) => rule == self.rule && operation == self.operation,
        })
    }
}
