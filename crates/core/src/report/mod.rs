//! The report of a run, as data: a projection of its plan, its events and nothing else.
//!
//! HTML, Markdown, JUnit and JSON all render this one value.

mod project;
mod returned;
mod words;

use crate::anonymise::MaskedStore;
use crate::carry::{Carried, Coverage};
use crate::check::{Artefact, CheckResult};
use crate::data::{CopyStats, ExportStats, Fingerprint, StoreDiff};
use crate::egress::Egress;
use crate::ids::{RunId, ServiceName, StackName, StoreName};
use crate::journal::{Record, RunState, StepError};
use crate::plan::{Group, Op, Plan, Procedure, Step};
use crate::release::{Certificate, describe, describe_change};
pub use project::coverage;
use project::{artefacts, backup, code_only, conclude, egress, exports, measure, step_report, trial};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use words::{advice, headline, production};

/// The version of the JSON form.
pub const SCHEMA: &str = "switchback.report/1";

/// Everything there is to say about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that wrote it, with its version.
    pub tool: String,
    /// The host's name.
    pub host: String,
    /// The run.
    pub run: RunId,
    /// What it did.
    pub procedure: Procedure,
    /// The stack.
    pub stack: StackName,
    /// `app 1.0 -> 2.0`.
    pub change: String,
    /// Versions before.
    pub from: BTreeMap<ServiceName, String>,
    /// Versions after.
    pub to: BTreeMap<ServiceName, String>,
    /// Production's generation before.
    pub from_generation: Option<u32>,
    /// Production's generation after, if production was touched.
    pub to_generation: Option<u32>,
    /// Why it was started, where somebody said.
    pub reason: Option<String>,
    /// UTC, milliseconds since 1970.
    pub started_at_ms: i64,
    /// UTC, milliseconds since 1970; the last event's time for a run that has not ended.
    pub ended_at_ms: i64,
    /// The conclusion.
    pub conclusion: Conclusion,
    /// One sentence.
    pub headline: String,
    /// Why, one line each; empty when all is well.
    pub reasons: Vec<String>,
    /// Whether production was changed by the run, in a sentence.
    pub production: String,
    /// What to do next.
    pub next: Vec<Advice>,
    /// Measured times.
    pub times: Times,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// The results of all checks, in the order they ran.
    pub checks: Vec<CheckResult>,
    /// What the migration did to each store.
    pub diffs: BTreeMap<StoreName, StoreDiff>,
    /// Fingerprints: step, store, fingerprint.
    pub fingerprints: Vec<FingerprintLine>,
    /// Copies: step, store, statistics.
    pub copies: Vec<CopyLine>,
    /// What was read back after each switch.
    pub read_back: Vec<String>,
    /// Whether the old version alone could be put back on the migrated data.
    pub code_only: Option<CodeOnly>,
    /// The certificate issued.
    pub certificate: Option<Certificate>,
    /// Writes exported from an abandoned generation.
    pub exports: BTreeMap<StoreName, ExportStats>,
    /// What was written into the repository of backups, or brought back from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<crate::backup::Archived>,
    /// Probes of the trial that were recorded, and how it ended.
    pub trial: Option<TrialReport>,
    /// Files kept with the run.
    pub artefacts: Vec<Artefact>,
    /// What staging environments would have sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
    /// Writes carried back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<StoreName, Carried>,
    /// How much could be carried back after a rollback; of a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// What the migration did to each database while it ran; of a rehearsal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traces: BTreeMap<StoreName, crate::trace::Trace>,
    /// What each database was asked while the checks ran; of a rehearsal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<StoreName, crate::queries::Queries>,
    /// How long the migration took at several sizes of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<crate::scaling::Scaling>,
    /// What a linter says of the migration files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<crate::lint::Lint>,
    /// What was masked in copies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<StoreName, MaskedStore>,
    /// What the new release's settings differ in besides versions, without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// It did what was asked for; nothing speaks against it.
    Pass,
    /// A promotion whose trial is still running.
    OnTrial,
    /// The upgrade is not safe.
    Refused,
    /// Something could not be judged.
    Inconclusive,
    /// It failed and was undone; production is as before.
    Undone,
    /// It was promoted, failed its trial and was rolled back.
    RolledBack,
    /// A person is needed.
    NeedsOperator,
    /// It has not ended.
    Unfinished,
}

/// Something to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What and why.
    pub text: String,
    /// The command, if there is one.
    pub command: Option<String>,
}

/// Measured times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// From the plan to the end.
    pub total_ms: u64,
    /// The outage of the switch: measured on production for a promotion, predicted for a rehearsal.
    pub downtime_ms: Option<u64>,
    /// The rollback, from the decision to stable and read back.
    pub rollback_ms: Option<u64>,
    /// The outage of the rollback: until the first healthy answer.
    pub rollback_downtime_ms: Option<u64>,
    /// A rollback must be done within this.
    pub budget_ms: u64,
    /// The longest time that writers of production waited because of the snapshot.
    pub writers_waited_ms: Option<u64>,
    /// Each service's migration.
    pub migrations_ms: BTreeMap<String, u64>,
}

/// One step, as it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its id.
    pub id: String,
    /// What it does.
    pub title: String,
    /// What its time counts towards.
    pub group: Group,
    /// How it went.
    pub status: StepStatus,
    /// When its last attempt began, in milliseconds after the run began.
    pub began_ms: Option<u64>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// Attempts.
    pub attempts: u32,
    /// Things worth telling.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<StepError>,
    /// How long undoing it took, if it was undone.
    pub undo_ms: Option<u64>,
    /// Things worth telling about the undo.
    pub undo_notes: Vec<String>,
    /// Why undoing it failed.
    pub undo_error: Option<StepError>,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Begun, and not (known to be) ended.
    Running,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// It did not work, and whether it would was the question: a finding, not a failure.
    Finding,
    /// Left out.
    Skipped,
    /// Reversed.
    Undone,
}

/// A fingerprint and where it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintLine {
    /// The step's title.
    pub step: String,
    /// The store.
    pub store: StoreName,
    /// The fingerprint; without the parts.
    pub fingerprint: Fingerprint,
    /// The step whose fingerprint it equals, where that was demanded and holds.
    pub equal_to: Option<String>,
}

/// A copy and where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyLine {
    /// The step's title.
    pub step: String,
    /// The store.
    pub store: StoreName,
    /// What it cost.
    pub stats: CopyStats,
}

/// Whether the old version runs on the migrated data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeOnly {
    /// Whether every check passed there.
    pub possible: bool,
    /// What was seen.
    pub why: String,
}

/// A trial, as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// UTC, milliseconds since 1970.
    pub began_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub deadline_ms: i64,
    /// `running`, `confirmed`, `failed` or `cancelled`.
    pub state: String,
    /// Recorded probes: milliseconds after the beginning, ok, what was seen.
    pub probes: Vec<(u64, bool, String)>,
    /// The trigger of the rollback.
    pub trigger: Option<String>,
}

/// A path compares a store once for each of its steps: `db` becomes `db-2` in the second one.
fn of_step(plan: &Plan, step: &Step, store: StoreName) -> StoreName {
    let number = step.id.as_str().rsplit('-').next().filter(|_| plan.procedure == Procedure::Path);
    number.and_then(|n| StoreName::new(format!("{store}-{n}")).ok()).unwrap_or(store)
}

impl Report {
    /// Projects a run. `tool` and `host` are named in the report.
    pub fn build(plan: &Plan, records: &[Record], tool: &str, host: &str) -> Self {
        let state = RunState::fold(plan, records.iter().map(|r| &r.event));
        let started = records.first().map_or(plan.made_at_ms, |r| r.at_ms);
        let ended = records.last().map_or(started, |r| r.at_ms);
        let outputs = || plan.steps.iter().filter_map(|s| Some((s, state.output(&s.id)?)));
        let (conclusion, reasons) = conclude(&state);
        let times = measure(plan, &state, records, started, ended);
        let mut report = Self {
            schema: SCHEMA.to_owned(),
            tool: tool.to_owned(),
            host: host.to_owned(),
            run: plan.run.clone(),
            procedure: plan.procedure,
            stack: plan.stack.clone(),
            change: match plan.procedure {
                Procedure::Backup
                | Procedure::Drill
                | Procedure::ProductionDrill
                | Procedure::Carry
                | Procedure::Export => describe(&plan.to),
                _ => describe_change(&plan.from, &plan.to),
            },
            from: plan.from.clone(),
            to: plan.to.clone(),
            from_generation: plan.from_generation.map(|g| g.0),
            to_generation: plan.to_generation.map(|g| g.0),
            reason: plan.reason.clone(),
            started_at_ms: started,
            ended_at_ms: ended,
            conclusion,
            headline: String::new(),
            reasons,
            production: String::new(),
            next: Vec::new(),
            times,
            steps: plan.steps.iter().map(|s| step_report(s, &state, records, started)).collect(),
            checks: outputs().flat_map(|(_, o)| o.checks.clone()).collect(),
            diffs: outputs()
                .flat_map(|(step, o)| {
                    o.diffs.clone().into_iter().map(move |(n, d)| (of_step(plan, step, n), d))
                })
                .collect(),
            fingerprints: outputs()
                .flat_map(|(s, o)| {
                    o.fingerprints.iter().map(|(store, f)| FingerprintLine {
                        step: s.title.clone(),
                        store: store.clone(),
                        fingerprint: Fingerprint { parts: BTreeMap::new(), ..f.clone() },
                        equal_to: match &s.op {
                            Op::Fingerprint { equal_to: Some(other), .. } if state.succeeded(&s.id) => {
                                Some(other.to_string())
                            }
                            _ => None,
                        },
                    })
                })
                .collect(),
            copies: outputs()
                .flat_map(|(s, o)| {
                    o.copies.iter().map(|(store, stats)| CopyLine {
                        step: s.title.clone(),
                        store: store.clone(),
                        stats: stats.clone(),
                    })
                })
                .collect(),
            read_back: outputs().flat_map(|(_, o)| o.read_back.clone()).collect(),
            code_only: code_only(plan, &state),
            certificate: outputs().find_map(|(_, o)| o.certificate.clone()),
            exports: exports(records),
            backup: backup(records),
            trial: trial(records, &state),
            artefacts: artefacts(records),
            egress: egress(records),
            carried: outputs().flat_map(|(_, o)| o.carried.clone()).collect(),
            coverage: coverage(plan, &state),
            traces: outputs().flat_map(|(_, o)| o.traces.clone()).collect(),
            queries: outputs().flat_map(|(_, o)| o.queries.clone()).collect(),
            scaling: crate::scaling::of_run(plan, &state, records),
            lint: outputs().find_map(|(_, o)| o.lint.clone()),
            masked: outputs().flat_map(|(_, o)| o.masked.clone()).collect(),
            settings: outputs().flat_map(|(_, o)| o.settings.clone()).collect(),
        };
        report.headline = returned::headline(&report).unwrap_or_else(|| headline(&report));
        report.production = returned::production(&report).unwrap_or_else(|| production(plan, &report));
        report.next = returned::advice(&report).unwrap_or_else(|| advice(&report));
        report
    }

    /// Checks that passed, and all of them; the old version on migrated data does not count.
    pub fn check_counts(&self) -> (usize, usize) {
        let counted = self.checks.iter().filter(|c| c.environment != "code-only");
        let passed = counted.clone().filter(|c| c.verdict.permits()).count();
        (passed, counted.count())
    }
}
