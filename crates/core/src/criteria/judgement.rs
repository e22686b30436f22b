//! What is concluded of a piece of evidence, and of a criterion.

use crate::check::{Failure, Verdict};
use serde::{Deserialize, Serialize};

/// A conclusion. Other than a check, it can find that the stack has nothing to try it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Judgement {
    /// Everything asked for was observed.
    Pass,
    /// Something was observed that must not be.
    Fail {
        /// What and where, one per failure.
        reasons: Vec<Failure>,
    },
    /// Nothing reliable was observed.
    Inconclusive {
        /// Why.
        why: String,
    },
    /// It was not tried.
    NotRun {
        /// Why.
        why: String,
    },
    /// The stack has nothing that it could be tried on: a fact that was observed, never a setting.
    NotApplicable {
        /// Which fact.
        why: String,
    },
}

impl Judgement {
    /// The word that people read.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "fail",
            Self::Inconclusive { .. } => "inconclusive",
            Self::NotRun { .. } => "not run",
            Self::NotApplicable { .. } => "not applicable",
        }
    }
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail { reasons } => Self::Fail { reasons },
            Verdict::Inconclusive { why } => Self::Inconclusive { why },
            Verdict::NotRun { why } => Self::NotRun { why },
            // A waiver is a decision, not a proof.
            Verdict::Waived { who, why } => {
                Self::NotRun { why: format!("waived by {who}, not proved: {why}") }
            }
        }
    }
}
