//! The report of a run, as data: a projection of its plan, its events and nothing else.
//!
//! HTML, Markdown, JUnit and JSON all render this one value.

use crate::check::{Artefact, CheckResult, Verdict};
use crate::data::{CopyStats, ExportStats, Fingerprint, StoreDiff};
use crate::duration::human_ms;
use crate::ids::{RunId, ServiceName, StackName, StoreName};
use crate::journal::{Event, Outcome, Record, RunState, StepError, StepResult, TrialVerdict};
use crate::next::is_code_only;
use crate::plan::{Group, Op, Plan, Procedure, Step};
use crate::release::{Certificate, describe_change};
use crate::times;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Probes of the trial that were recorded, and how it ended.
    pub trial: Option<TrialReport>,
    /// Files kept with the run.
    pub artefacts: Vec<Artefact>,
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
            change: describe_change(&plan.from, &plan.to),
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
            diffs: outputs().flat_map(|(_, o)| o.diffs.clone()).collect(),
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
            trial: trial(records, &state),
            artefacts: artefacts(records),
        };
        report.headline = headline(&report);
        report.production = production(plan, &report);
        report.next = advice(&report);
        report
    }

    /// Checks that passed, and all of them; the old version on migrated data does not count.
    pub fn check_counts(&self) -> (usize, usize) {
        let counted = self.checks.iter().filter(|c| c.environment != "code-only");
        let passed = counted.clone().filter(|c| c.verdict.permits()).count();
        (passed, counted.count())
    }
}

fn conclude(state: &RunState) -> (Conclusion, Vec<String>) {
    if let Some(trial) = &state.trial
        && matches!(state.ended, Some(Outcome::Done))
    {
        return match &trial.verdict {
            None => (Conclusion::OnTrial, Vec::new()),
            Some(TrialVerdict::Confirmed) => (Conclusion::Pass, Vec::new()),
            Some(TrialVerdict::Failed(trigger)) => (Conclusion::RolledBack, vec![trigger.clone()]),
            Some(TrialVerdict::Cancelled(why)) => (Conclusion::RolledBack, vec![why.clone()]),
        };
    }
    match &state.ended {
        None => (Conclusion::Unfinished, Vec::new()),
        Some(Outcome::Done) => (Conclusion::Pass, Vec::new()),
        Some(Outcome::Refused { reasons }) => (Conclusion::Refused, reasons.clone()),
        Some(Outcome::Inconclusive { reasons }) => (Conclusion::Inconclusive, reasons.clone()),
        Some(Outcome::NeedsOperator { reasons }) => (Conclusion::NeedsOperator, reasons.clone()),
        Some(Outcome::Undone { error, .. }) => {
            let mut reasons = vec![error.message.clone()];
            reasons.extend(error.hint.clone());
            (Conclusion::Undone, reasons)
        }
    }
}

fn measure(plan: &Plan, state: &RunState, records: &[Record], started: i64, ended: i64) -> Times {
    let (rollback, rollback_downtime, downtime) = match plan.procedure {
        // A rehearsal predicts; a pause of the rehearsal itself would be a false prediction.
        Procedure::Rehearse => {
            let whole = |from, to| !times::resumed_between(records, from, to);
            let rolled = whole("rollback-stop", "rollback-read-back");
            (
                times::between(records, "rollback-stop", "rollback-read-back").filter(|_| rolled),
                times::downtime(records, "rollback-stop", "rollback-start").filter(|_| rolled),
                times::downtime(records, "stop-old", "start-new").filter(|_| whole("stop-old", "start-new")),
            )
        }
        Procedure::Rollback => (
            times::between(records, "stop-new", "flip"),
            times::downtime(records, "stop-new", "start-old"),
            None,
        ),
        Procedure::Promote => (None, None, times::downtime(records, "stop-old", "start-new")),
        Procedure::Up | Procedure::Down => (None, None, None),
    };
    Times {
        total_ms: u64::try_from(ended - started).unwrap_or(0),
        downtime_ms: downtime
            .filter(|_| plan.steps.iter().any(|s| state.succeeded(&s.id) && s.id.as_str() == "start-new")),
        rollback_ms: rollback,
        rollback_downtime_ms: rollback_downtime,
        budget_ms: plan.budget_ms,
        writers_waited_ms: state
            .output(&"snapshot".into())
            .and_then(|o| o.copies.values().map(|c| c.writers_waited_ms).max()),
        migrations_ms: plan
            .steps
            .iter()
            .filter_map(|s| match &s.op {
                Op::Migrate { service, .. } => Some((service.to_string(), took(records, s)?)),
                _ => None,
            })
            .collect(),
    }
}

fn took(records: &[Record], step: &Step) -> Option<u64> {
    records.iter().rev().find_map(|r| match &r.event {
        Event::Finished { step: s, took_ms, .. } | Event::Failed { step: s, took_ms, .. }
            if s == &step.id =>
        {
            Some(*took_ms)
        }
        _ => None,
    })
}

fn step_report(step: &Step, state: &RunState, records: &[Record], started: i64) -> StepReport {
    let found = state.steps.get(&step.id);
    let result = found.and_then(|s| s.result.as_ref());
    let undone = found.is_some_and(|s| s.undone);
    let status = match (found, result) {
        (None, _) => StepStatus::Pending,
        _ if undone => StepStatus::Undone,
        (_, None) => StepStatus::Running,
        (_, Some(StepResult::Done(_))) => StepStatus::Done,
        (_, Some(StepResult::Failed(..))) => StepStatus::Failed,
        (_, Some(StepResult::Skipped(_))) => StepStatus::Skipped,
    };
    let began = records.iter().rev().find_map(|r| match &r.event {
        Event::Started { step: s, .. } if s == &step.id => Some(r.at_ms),
        _ => None,
    });
    let undo = records.iter().rev().find_map(|r| match &r.event {
        Event::Undone { step: s, took_ms, output } if s == &step.id => Some((*took_ms, output.notes.clone())),
        _ => None,
    });
    let mut notes = state.output(&step.id).map(|o| o.notes.clone()).unwrap_or_default();
    if let Some(StepResult::Skipped(because)) = result {
        notes.push(format!("left out, because {because} did not succeed"));
    }
    StepReport {
        id: step.id.to_string(),
        title: step.title.clone(),
        group: step.group,
        status,
        began_ms: began.and_then(|b| u64::try_from(b - started).ok()),
        took_ms: took(records, step),
        attempts: found.map_or(0, |s| s.attempts),
        notes,
        error: match result {
            Some(StepResult::Failed(error, _)) => Some(error.clone()),
            _ => None,
        },
        undo_ms: undo.as_ref().map(|(ms, _)| *ms),
        undo_notes: undo.map(|(_, notes)| notes).unwrap_or_default(),
        undo_error: found.and_then(|s| s.undo_error.clone()),
    }
}

fn code_only(plan: &Plan, state: &RunState) -> Option<CodeOnly> {
    let steps: Vec<&Step> = plan.steps.iter().filter(|s| is_code_only(s)).collect();
    let last = steps.last()?;
    for step in &steps {
        if let Some(StepResult::Failed(error, _)) = state.steps.get(&step.id).and_then(|s| s.result.as_ref())
        {
            return Some(CodeOnly { possible: false, why: error.message.clone() });
        }
    }
    let output = state.output(&last.id)?;
    let failed: Vec<String> = output
        .checks
        .iter()
        .filter(|c| !c.verdict.permits())
        .map(|c| match &c.verdict {
            Verdict::Fail { reasons } => {
                format!("{}: {}", c.id, reasons.first().map_or("failed", |r| r.what.as_str()))
            }
            other => format!("{}: {}", c.id, other.word()),
        })
        .collect();
    Some(CodeOnly {
        possible: failed.is_empty(),
        why: if failed.is_empty() {
            format!("the old version passed all {} checks on the migrated data", output.checks.len())
        } else {
            failed.join("; ")
        },
    })
}

fn exports(records: &[Record]) -> BTreeMap<StoreName, ExportStats> {
    records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Finished { output, .. } | Event::Undone { output, .. } => Some(&output.exports),
            _ => None,
        })
        .flat_map(|e| e.iter().map(|(k, v)| (k.clone(), v.clone())))
        .collect()
}

fn artefacts(records: &[Record]) -> Vec<Artefact> {
    let mut found: Vec<Artefact> = Vec::new();
    for record in records {
        let output = match &record.event {
            Event::Finished { output, .. } | Event::Failed { output, .. } | Event::Undone { output, .. } => {
                output
            }
            _ => continue,
        };
        for artefact in output.artefacts.iter().chain(output.checks.iter().flat_map(|c| &c.artefacts)) {
            found.retain(|a| a.path != artefact.path);
            found.push(artefact.clone());
        }
    }
    found
}

fn trial(records: &[Record], state: &RunState) -> Option<TrialReport> {
    let trial = state.trial.as_ref()?;
    let began = records.iter().find(|r| matches!(r.event, Event::TrialBegan { .. }))?.at_ms;
    let (name, trigger) = match &trial.verdict {
        None => ("running", None),
        Some(TrialVerdict::Confirmed) => ("confirmed", None),
        Some(TrialVerdict::Failed(t)) => ("failed", Some(t.clone())),
        Some(TrialVerdict::Cancelled(t)) => ("cancelled", Some(t.clone())),
    };
    let probes = records
        .iter()
        .filter_map(|r| match &r.event {
            Event::TrialProbe { ok, seen, .. } => {
                Some((u64::try_from(r.at_ms - began).unwrap_or(0), *ok, seen.clone()))
            }
            _ => None,
        })
        .collect();
    Some(TrialReport {
        began_at_ms: began,
        deadline_ms: trial.deadline_ms,
        state: name.to_owned(),
        probes,
        trigger,
    })
}

fn headline(report: &Report) -> String {
    let change = &report.change;
    let (passed, all) = report.check_counts();
    let rollback = report.times.rollback_ms.map(human_ms);
    match (report.procedure, report.conclusion) {
        (Procedure::Rehearse, Conclusion::Pass) => format!(
            "{change} is safe to promote: {passed} of {all} checks passed, and the rollback took {}",
            rollback.unwrap_or_else(|| "an unknown time".to_owned())
        ),
        (Procedure::Rehearse, Conclusion::Refused) => format!("{change} is not safe to promote"),
        (Procedure::Rehearse, Conclusion::Inconclusive) => format!("{change} could not be judged"),
        (Procedure::Promote, Conclusion::OnTrial) => format!("{change} is in production, on trial"),
        (Procedure::Promote, Conclusion::Pass) => format!("{change} is in production and passed its trial"),
        (Procedure::Promote, Conclusion::RolledBack) => {
            format!("{change} failed in production and was rolled back")
        }
        (Procedure::Rollback, Conclusion::Pass) => format!(
            "production is back on generation {} after {}",
            report.to_generation.unwrap_or(0),
            rollback.unwrap_or_else(|| "an unknown time".to_owned())
        ),
        (Procedure::Up, Conclusion::Pass) => "production is up".to_owned(),
        (Procedure::Down, Conclusion::Pass) => "production is stopped".to_owned(),
        (procedure, Conclusion::Undone) => {
            format!("the {} of {change} failed and was undone", procedure.noun())
        }
        (procedure, Conclusion::NeedsOperator) => format!("the {} needs a person", procedure.noun()),
        (procedure, Conclusion::Unfinished) => format!("the {} has not ended", procedure.noun()),
        (procedure, other) => format!("{}: {other:?}", procedure.as_str()),
    }
}

fn production(plan: &Plan, report: &Report) -> String {
    let generation =
        |g: Option<u32>| g.map_or_else(|| "its generation".to_owned(), |g| format!("generation {g}"));
    match (plan.procedure, report.conclusion) {
        (Procedure::Rehearse, _) => {
            format!("Production was not touched; it stays on {}.", generation(report.from_generation))
        }
        (_, Conclusion::Undone) => {
            format!("Production is as before, on {}.", generation(report.from_generation))
        }
        (_, Conclusion::RolledBack) => {
            format!("Production is back on {}.", generation(report.from_generation))
        }
        (_, Conclusion::NeedsOperator) => "Production may be down.".to_owned(),
        (_, Conclusion::Unfinished) => "The run has not ended; production is between two states.".to_owned(),
        (Procedure::Down, _) => "Production is stopped.".to_owned(),
        _ => format!("Production runs {}.", generation(report.to_generation)),
    }
}

fn advice(report: &Report) -> Vec<Advice> {
    let say = |text: &str, command: Option<&str>| Advice {
        text: text.to_owned(),
        command: command.map(str::to_owned),
    };
    match (report.procedure, report.conclusion) {
        (Procedure::Rehearse, Conclusion::Pass) => {
            vec![say("Promote it; the certificate permits it.", Some("switchback promote"))]
        }
        (Procedure::Rehearse, Conclusion::Refused) => vec![
            say("Look at what failed. Nothing has to be undone.", None),
            say("After a fix, rehearse again.", Some("switchback rehearse")),
        ],
        (Procedure::Rehearse, Conclusion::Inconclusive) => {
            vec![say(
                "Make the open points decidable and rehearse again; inconclusive never promotes.",
                Some("switchback rehearse"),
            )]
        }
        (Procedure::Promote, Conclusion::OnTrial) => vec![
            say(
                "The watchdog watches and rolls back by itself; this terminal is not needed.",
                Some("switchback status"),
            ),
            say("To return now:", Some("switchback rollback")),
        ],
        (Procedure::Promote, Conclusion::Pass) => {
            vec![say(
                "Nothing. The previous generation is kept; a rollback stays possible.",
                Some("switchback rollback"),
            )]
        }
        (_, Conclusion::RolledBack) | (Procedure::Rollback, Conclusion::Pass) => {
            let mut list = vec![say(
                "Find out why before trying again; a rehearsal costs production nothing.",
                Some("switchback rehearse"),
            )];
            if report.exports.values().any(|e| e.total() > 0) {
                list.push(say("Writes made in the meantime were exported; the report lists them.", None));
            }
            list
        }
        (_, Conclusion::Undone) => {
            vec![say("Nothing has to be repaired. Fix the cause named above, then try again.", None)]
        }
        (_, Conclusion::Unfinished) => vec![
            say("Go on with it:", Some("switchback resume")),
            say("Or undo it:", Some("switchback resume --abort")),
        ],
        (_, Conclusion::NeedsOperator) => vec![
            say("See where production stands.", Some("switchback status")),
            say("Once the cause is gone, start what must run.", Some("switchback up")),
        ],
        _ => Vec::new(),
    }
}
