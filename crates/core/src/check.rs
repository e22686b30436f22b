//! Checks: what was observed, the verdict on it, and the evidence that supports it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kinds of check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// The services answer their health checks and stay healthy.
    Health,
    /// A user's workflow: requests, captures, assertions.
    Workflow,
    /// The store is sound (`integrity_check`, foreign keys) and lost nothing unexplained.
    Integrity,
    /// A rule of the user on the data, in SQL.
    Invariant,
    /// A command of the user (exit code, JUnit).
    Command,
    /// Nothing in a staging environment can reach production, the host or the world.
    Isolation,
    /// What the new version's API changes for its clients.
    Api,
    /// Times and processor use of the new version against the old one's.
    Performance,
    /// What a person does in a browser.
    Journey,
}

impl CheckKind {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Workflow => "workflow",
            Self::Integrity => "integrity",
            Self::Invariant => "invariant",
            Self::Command => "command",
            Self::Isolation => "isolation",
            Self::Api => "api",
            Self::Performance => "performance",
            Self::Journey => "journey",
        }
    }
}

/// What was concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything asked for was observed.
    Pass,
    /// Something was observed that must not be.
    Fail {
        /// What, where, expected and got; one per failure.
        reasons: Vec<Failure>,
    },
    /// Nothing reliable was observed. Never counts as a pass.
    Inconclusive {
        /// Why nothing could be said.
        why: String,
    },
    /// A person decided to go on without it.
    Waived {
        /// Who decided.
        who: String,
        /// Their reason.
        why: String,
    },
    /// It was not tried.
    NotRun {
        /// Why not.
        why: String,
    },
}

impl Verdict {
    /// The word used in reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "fail",
            Self::Inconclusive { .. } => "inconclusive",
            Self::Waived { .. } => "waived",
            Self::NotRun { .. } => "not run",
        }
    }
    /// Whether this lets an upgrade go on by itself.
    pub fn permits(&self) -> bool {
        matches!(self, Self::Pass | Self::Waived { .. })
    }
    /// A failure with a single reason.
    pub fn fail(failure: Failure) -> Self {
        Self::Fail { reasons: vec![failure] }
    }
    /// Pass when there is no reason against it.
    pub fn from_failures(reasons: Vec<Failure>) -> Self {
        if reasons.is_empty() { Self::Pass } else { Self::Fail { reasons } }
    }
}

/// One thing that was wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where: a step of a workflow, a table, a service.
    pub at: String,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What was expected, if that can be said shortly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<String>,
    /// What was observed instead (shortened, secrets removed).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub got: Option<String>,
    /// A command that reproduces it outside Switchback, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reproduce: Option<String>,
}

/// The result of one check in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Stable name: `workflow/notes`, `health/app`.
    pub id: String,
    /// What kind of check it is.
    pub kind: CheckKind,
    /// Which environment was observed: `production`, `baseline`, `candidate` ...
    pub environment: String,
    /// The conclusion.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// Measured values, ready to print: name to value with its unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, String>,
    /// The parts it was made of (workflow steps, JUnit cases).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<CheckStep>,
    /// Files with details, relative to the run's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artefacts: Vec<Artefact>,
    /// How pages look against those of the old version; of a journey in the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<crate::look::Look>,
}

/// One part of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStep {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// One line on what was seen ("POST /api/notes -> 201").
    pub seen: String,
}

/// A file kept as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artefact {
    /// What it is.
    pub title: String,
    /// Path relative to the run's folder.
    pub path: String,
    /// BLAKE3 of the content.
    pub blake3: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The worst of several verdicts, as one word for a whole environment.
pub fn overall<'a>(results: impl IntoIterator<Item = &'a CheckResult>) -> Overall {
    let mut worst = Overall::Pass;
    for result in results {
        let this = match result.verdict {
            Verdict::Pass | Verdict::Waived { .. } => Overall::Pass,
            Verdict::NotRun { .. } | Verdict::Inconclusive { .. } => Overall::Inconclusive,
            Verdict::Fail { .. } => Overall::Fail,
        };
        worst = worst.max(this);
    }
    worst
}

/// The summary of many verdicts; ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// All passed.
    Pass,
    /// At least one said nothing; none failed.
    Inconclusive,
    /// At least one failed.
    Fail,
}
