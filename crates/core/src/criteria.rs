//! Acceptance criteria: the catalogue, the evidence, and the judgement that binds them.
//!
//! Judging is a pure function. It never passes a criterion without evidence: what nothing proves says
//! NOT-RUN and counts against the total. What the stack has nothing for is not applicable, which only facts of the
//! stack can say, and is counted apart.

mod judgement;

pub use judgement::Judgement;

use crate::check::{Artefact, Failure};
use crate::config::{line_of, suggest};
use crate::ids::{Digest, RunId, ServiceName, StackName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the JSON form of a [`Matrix`].
pub const SCHEMA: &str = "switchback.matrix/1";
/// The newest format of a catalogue that this program reads.
const FORMAT: u32 = 1;
/// The catalogue that belongs to this version of the program.
const BUILT_IN: &str = include_str!("../criteria.yaml");
/// Prefixes of evidence that comes from the stack's own checks.
const FROM_CHECKS: [&str; 2] = ["workflow:", "command:"];

/// Criteria and the kinds of evidence that exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// On-disk format.
    pub format: u32,
    /// Kinds of evidence, by id. Only the built-in catalogue names any.
    #[serde(default)]
    pub evidence: BTreeMap<String, EvidenceKind>,
    /// The criteria, in the order in which they are shown.
    pub criteria: Vec<Criterion>,
}

/// A kind of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceKind {
    /// The phase that produces it; without one, nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What it shows.
    pub title: String,
}

/// An acceptance criterion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Stable.
    pub id: String,
    /// What it belongs to.
    pub area: String,
    /// What is asked for.
    pub text: String,
    /// Evidence that proves it; all of it is needed.
    pub needs: Vec<String>,
    /// What a reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The phases of an acceptance run, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A rehearsal on a copy of the stack.
    Staging,
    /// Checks, and known-bad upgrades.
    Validation,
    /// The migration.
    Database,
    /// Whether the certificate is asked for.
    Certificate,
    /// Promotions and rollbacks, by command, by themselves, and failing.
    Rollback,
    /// The documentation against the program.
    Documentation,
    /// All of it together.
    Integration,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 7] = [
        Self::Staging,
        Self::Validation,
        Self::Database,
        Self::Certificate,
        Self::Rollback,
        Self::Documentation,
        Self::Integration,
    ];

    /// The word used on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Validation => "validation",
            Self::Database => "database",
            Self::Certificate => "certificate",
            Self::Rollback => "rollback",
            Self::Documentation => "documentation",
            Self::Integration => "integration",
        }
    }
}

/// Something that was observed, with everything needed to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its kind.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What was concluded.
    #[serde(flatten)]
    pub verdict: Judgement,
    /// Measured values, ready to print: name to value with its unit.
    pub measured: BTreeMap<String, String>,
    /// What the values were held against.
    pub threshold: String,
    /// The runs it was taken from.
    pub runs: Vec<RunId>,
    /// UTC, milliseconds since 1970.
    pub started_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub ended_at_ms: i64,
    /// The program that produced it.
    pub tool: String,
    /// Releases by role: `from`, `to`.
    pub releases: BTreeMap<String, Digest>,
    /// BLAKE3 of the configuration it was taken with.
    pub config: Digest,
    /// Files, relative to the folder of the matrix, with their BLAKE3 (no other hash is kept).
    pub artefacts: Vec<Artefact>,
    /// The command that produces it again.
    pub reproduce: String,
}

/// A needed piece of evidence that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its id.
    pub id: String,
    /// Why it is not there.
    pub why: String,
}

/// A criterion as judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The criterion.
    #[serde(flatten)]
    pub criterion: Criterion,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Judgement,
    /// Evidence that is needed and not there.
    pub missing: Vec<Missing>,
    /// Evidence that this stack has nothing for, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_applicable: Vec<Missing>,
}

/// How many rows came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Proved.
    pub passed: usize,
    /// Refuted.
    pub failed: usize,
    /// Tried without a result.
    pub inconclusive: usize,
    /// Not tried; counts against the total.
    pub not_run: usize,
    /// The stack has nothing that it could be tried on.
    #[serde(default)]
    pub not_applicable: usize,
    /// All rows.
    pub total: usize,
}

/// What an acceptance run was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The stack.
    pub stack: StackName,
    /// The upgrade that was tried, for people.
    pub change: String,
    /// Versions before.
    pub from: BTreeMap<ServiceName, String>,
    /// Versions after.
    pub to: BTreeMap<ServiceName, String>,
    /// The program, with its version.
    pub tool: String,
    /// The host's name.
    pub host: String,
    /// UTC, milliseconds since 1970.
    pub started_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub ended_at_ms: i64,
    /// Things a reader should know.
    pub notes: Vec<String>,
}

/// The criteria with their verdicts, and the evidence: the whole truth of an acceptance run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// [`SCHEMA`].
    pub schema: String,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// The summary.
    pub counts: Counts,
    /// One row per criterion.
    pub rows: Vec<Row>,
    /// All evidence, sorted by id.
    pub evidence: Vec<Evidence>,
}

/// A mistake in a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", if *.line > 0 { format!(":{}", .line) } else { String::new() })]
pub struct CatalogueError {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl Catalogue {
    /// The catalogue of this version.
    pub fn built_in() -> Result<Self, CatalogueError> {
        let file = "criteria.yaml";
        let catalogue = Self::read(BUILT_IN, file)?;
        catalogue.check(BUILT_IN, file, &catalogue, &BTreeSet::new())?;
        Ok(catalogue)
    }

    /// Adds the criteria of a user's file.
    pub fn extend(&mut self, text: &str, file: &str) -> Result<(), CatalogueError> {
        let more = Self::read(text, file)?;
        if !more.evidence.is_empty() {
            return Err(CatalogueError {
                file: file.to_owned(),
                line: line_of(text, "evidence").unwrap_or(0),
                message: "only the built-in catalogue can name kinds of evidence".to_owned(),
                hint: Some("bind the criterion to a check: `workflow:NAME` or `command:NAME`".to_owned()),
            });
        }
        let taken = self.criteria.iter().map(|c| c.id.clone()).collect();
        more.check(text, file, self, &taken)?;
        self.criteria.extend(more.criteria);
        Ok(())
    }

    fn read(text: &str, file: &str) -> Result<Self, CatalogueError> {
        let error = |line, message| CatalogueError { file: file.to_owned(), line, message, hint: None };
        let found: Self = serde_yaml_ng::from_str(text)
            .map_err(|e| error(e.location().map_or(0, |l| l.line()), e.to_string()))?;
        if found.format > FORMAT {
            let line = line_of(text, "format").unwrap_or(0);
            return Err(error(line, format!("format {} is newer than this program knows", found.format)));
        }
        Ok(found)
    }

    fn check(
        &self,
        text: &str,
        file: &str,
        known: &Self,
        taken: &BTreeSet<String>,
    ) -> Result<(), CatalogueError> {
        let mut seen = taken.clone();
        for (index, criterion) in self.criteria.iter().enumerate() {
            let error = |message: String, hint: Option<String>| CatalogueError {
                file: file.to_owned(),
                line: line_of(text, &format!("criteria[{index}]")).unwrap_or(0),
                message,
                hint,
            };
            if !seen.insert(criterion.id.clone()) {
                return Err(error(format!("there are two criteria {:?}", criterion.id), None));
            }
            if criterion.needs.is_empty() {
                return Err(error(
                    format!("{}: nothing would prove it", criterion.id),
                    Some("name the evidence under `needs`".to_owned()),
                ));
            }
            for need in criterion.needs.iter().filter(|n| !known.evidence.contains_key(*n)) {
                if FROM_CHECKS.iter().any(|p| need.strip_prefix(p).is_some_and(|name| !name.is_empty())) {
                    continue;
                }
                let meant = suggest(need, known.evidence.keys().map(String::as_str));
                return Err(error(
                    format!("{}: there is no evidence {need:?}", criterion.id),
                    Some(meant.map_or_else(
                        || "`switchback verify --list` names all; checks are `workflow:NAME` and `command:NAME`".to_owned(),
                        |m| format!("did you mean {m:?}?"),
                    )),
                ));
            }
        }
        Ok(())
    }

    /// Why a piece of evidence is not there.
    fn absent(&self, id: &str) -> String {
        match self.evidence.get(id).map(|k| k.phase) {
            Some(Some(phase)) => format!("the phase {} did not produce it", phase.as_str()),
            Some(None) => "nothing produces it".to_owned(),
            None => "no check of that name ran".to_owned(),
        }
    }
}

/// Judges every criterion by the evidence.
///
/// A failure outweighs everything; then doubt; then what is missing. Only a criterion whose every need is
/// there and passed passes; a need that this stack has nothing for is left out, unless none is left then. Evidence that
/// appears twice must pass twice. A waiver is a decision, not a proof.
pub fn judge(catalogue: &Catalogue, mut evidence: Vec<Evidence>, subject: Subject) -> Matrix {
    evidence.sort_by(|a, b| a.id.cmp(&b.id));
    let rows: Vec<Row> = catalogue.criteria.iter().map(|c| judge_one(catalogue, c, &evidence)).collect();
    let mut counts = Counts::default();
    for row in &rows {
        counts.add(&row.verdict);
    }
    Matrix { schema: SCHEMA.to_owned(), subject, counts, rows, evidence }
}

fn judge_one(catalogue: &Catalogue, criterion: &Criterion, evidence: &[Evidence]) -> Row {
    let mut failures = Vec::new();
    let mut doubts = Vec::new();
    let (mut missing, mut spared) = (Vec::new(), Vec::new());
    let mut passed = false;
    for need in &criterion.needs {
        let mut found = evidence.iter().filter(|e| &e.id == need).peekable();
        if found.peek().is_none() {
            missing.push(Missing { id: need.clone(), why: catalogue.absent(need) });
        }
        for one in found {
            match &one.verdict {
                Judgement::Pass => passed = true,
                Judgement::Fail { reasons } if reasons.is_empty() => {
                    failures.push(Failure {
                        at: need.clone(),
                        what: "it failed".to_owned(),
                        ..Failure::default()
                    });
                }
                Judgement::Fail { reasons } => failures.extend(reasons.iter().cloned()),
                Judgement::Inconclusive { why } => doubts.push(format!("{need}: {why}")),
                Judgement::NotRun { why } => missing.push(Missing { id: need.clone(), why: why.clone() }),
                Judgement::NotApplicable { why } => {
                    spared.push(Missing { id: need.clone(), why: why.clone() });
                }
            }
        }
    }
    let list =
        |all: &[Missing]| all.iter().map(|m| format!("{}: {}", m.id, m.why)).collect::<Vec<_>>().join("; ");
    let verdict = if !failures.is_empty() {
        Judgement::Fail { reasons: failures }
    } else if !doubts.is_empty() {
        Judgement::Inconclusive { why: doubts.join("; ") }
    } else if !missing.is_empty() {
        Judgement::NotRun { why: list(&missing) }
    } else if passed {
        Judgement::Pass
    } else if !spared.is_empty() {
        Judgement::NotApplicable { why: list(&spared) }
    } else {
        Judgement::NotRun { why: "nothing is named that would prove it".to_owned() }
    };
    Row { criterion: criterion.clone(), verdict, missing, not_applicable: spared }
}

impl Counts {
    /// Counts a row.
    pub fn add(&mut self, verdict: &Judgement) {
        self.total += 1;
        match verdict {
            Judgement::Pass => self.passed += 1,
            Judgement::Fail { .. } => self.failed += 1,
            Judgement::Inconclusive { .. } => self.inconclusive += 1,
            Judgement::NotRun { .. } => self.not_run += 1,
            Judgement::NotApplicable { .. } => self.not_applicable += 1,
        }
    }

    /// Whether everything that applies is proved, and something is.
    pub fn complete(&self) -> bool {
        self.passed > 0 && self.passed + self.not_applicable == self.total
    }
}

impl Matrix {
    /// The evidence that a row rests on.
    pub fn evidence_of<'m>(&'m self, row: &'m Row) -> impl Iterator<Item = &'m Evidence> {
        self.evidence.iter().filter(|e| row.criterion.needs.contains(&e.id))
    }

    /// The areas in the order in which they first appear, with their rows.
    pub fn areas(&self) -> Vec<(&str, Vec<&Row>)> {
        let mut areas: Vec<(&str, Vec<&Row>)> = Vec::new();
        for row in &self.rows {
            match areas.iter_mut().find(|(name, _)| *name == row.criterion.area) {
                Some((_, rows)) => rows.push(row),
                None => areas.push((&row.criterion.area, vec![row])),
            }
        }
        areas
    }
}

#[cfg(test)]
mod tests;
