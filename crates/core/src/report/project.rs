//! From events to the parts of a report.

use super::{CodeOnly, Conclusion, StepReport, StepStatus, Times, TrialReport};
use crate::carry::Coverage;
use crate::check::{Artefact, Verdict};
use crate::data::{ExportStats, StoreKind};
use crate::egress::Egress;
use crate::ids::StoreName;
use crate::journal::{Event, Outcome, Record, RunState, StepResult, TrialVerdict};
use crate::next::is_code_only;
use crate::plan::{Op, Plan, Procedure, Step};
use crate::times;
use crate::trigger::Standing;
use std::collections::BTreeMap;

pub(super) fn conclude(state: &RunState) -> (Conclusion, Vec<String>) {
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

pub(super) fn measure(plan: &Plan, state: &RunState, records: &[Record], started: i64, ended: i64) -> Times {
    let (rollback, rollback_downtime, downtime) = match plan.procedure {
        // A rehearsal predicts; a pause of the rehearsal itself would be a false prediction.
        Procedure::Rehearse => {
            let whole = |from, to| !times::resumed_between(records, from, to);
            let rolled = whole("rollback-stop", "rollback-read-back");
            (
                times::between(records, "rollback-stop", "rollback-read-back").filter(|_| rolled),
                times::downtime(records, "rollback-stop", "rollback-start").filter(|_| rolled),
                times::predicted_downtime(records).filter(|_| whole("stop-old", "start-new")),
            )
        }
        Procedure::RollbackDrill => {
            let whole = !times::resumed_between(records, "rollback-stop", "rollback-read-back");
            (
                times::between(records, "rollback-stop", "rollback-read-back").filter(|_| whole),
                times::downtime(records, "rollback-stop", "rollback-start").filter(|_| whole),
                None,
            )
        }
        Procedure::ProductionDrill => {
            let whole = |from, to| !times::resumed_between(records, from, to);
            let rolled = whole("rollback-stop", "rollback-read-back");
            (
                times::between(records, "rollback-stop", "rollback-read-back").filter(|_| rolled),
                times::downtime(records, "rollback-stop", "rollback-start").filter(|_| rolled),
                // No client reaches anything from the first stop to the last start.
                times::downtime(records, "stop-old", "rollback-start"),
            )
        }
        Procedure::Rollback | Procedure::ServiceRollback => (
            times::between(records, "stop-new", "flip"),
            times::downtime(records, "stop-new", "start-old"),
            None,
        ),
        Procedure::Promote | Procedure::Restore | Procedure::Carry => {
            (None, None, times::downtime(records, "stop-old", "start-new"))
        }
        _ => (None, None, None),
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

pub(super) fn step_report(step: &Step, state: &RunState, records: &[Record], started: i64) -> StepReport {
    let found = state.steps.get(&step.id);
    let result = found.and_then(|s| s.result.as_ref());
    let undone = found.is_some_and(|s| s.undone);
    let status = match (found, result) {
        (None, _) => StepStatus::Pending,
        _ if undone => StepStatus::Undone,
        (_, None) => StepStatus::Running,
        (_, Some(StepResult::Done(_))) => StepStatus::Done,
        (_, Some(StepResult::Failed(..))) if is_code_only(step) => StepStatus::Finding,
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

pub(super) fn code_only(plan: &Plan, state: &RunState) -> Option<CodeOnly> {
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

pub(super) fn backup(records: &[Record]) -> Option<crate::backup::Archived> {
    records.iter().rev().find_map(|r| match &r.event {
        Event::Finished { output, .. } => output.backup.clone(),
        _ => None,
    })
}

pub(super) fn exports(records: &[Record]) -> BTreeMap<StoreName, ExportStats> {
    records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Finished { output, .. } | Event::Undone { output, .. } => Some(&output.exports),
            _ => None,
        })
        .flat_map(|e| e.iter().map(|(k, v)| (k.clone(), v.clone())))
        .collect()
}

/// What environments tried to send; each observation once, however often it was looked at.
pub(super) fn egress(records: &[Record]) -> Vec<Egress> {
    let mut found: Vec<Egress> = Vec::new();
    for record in records {
        let output = match &record.event {
            Event::Finished { output, .. } | Event::Failed { output, .. } | Event::Undone { output, .. } => {
                output
            }
            _ => continue,
        };
        for seen in &output.egress {
            if seen.not_observed.is_some() {
                // What was observed of an environment says more.
                if found.iter().all(|f| f.environment != seen.environment) {
                    found.push(seen.clone());
                }
                continue;
            }
            found.retain(|f| {
                f.session != seen.session && (f.not_observed.is_none() || f.environment != seen.environment)
            });
            found.push(seen.clone());
        }
    }
    found
}

pub(super) fn artefacts(records: &[Record]) -> Vec<Artefact> {
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

pub(super) fn trial(records: &[Record], state: &RunState) -> Option<TrialReport> {
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
            Event::TriggerChanged { trigger, standing, action, why } => {
                let what = match standing {
                    Standing::Quiet => "quiet again".to_owned(),
                    Standing::Suspect => "suspect".to_owned(),
                    Standing::Fired => format!("fired, {}", action.as_str()),
                };
                let at = u64::try_from(r.at_ms - began).unwrap_or(0);
                Some((at, *standing == Standing::Quiet, format!("{}: {what}: {why}", trigger.as_str())))
            }
            Event::TrialConfirmed { by: Some(by), .. } => {
                Some((u64::try_from(r.at_ms - began).unwrap_or(0), true, format!("confirmed by {by}")))
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

/// How much could be carried back, where a rehearsal compared databases.
pub fn coverage(plan: &Plan, state: &RunState) -> Option<Coverage> {
    if plan.procedure != Procedure::Rehearse {
        return None;
    }
    let mut found = Coverage::default();
    for step in &plan.steps {
        let Op::Diff { after, .. } = &step.op else { continue };
        let (Some(output), Some(instance)) = (state.output(&step.id), plan.instance(after)) else { continue };
        for (store, diff) in &output.diffs {
            match instance.stores.get(store).map(|s| s.kind) {
                Some(StoreKind::Mysql) => {
                    found.add_exported(store.as_str(), diff, "MySQL and MariaDB: writes are exported only");
                }
                Some(kind) if kind != StoreKind::Files => found.add(store.as_str(), diff),
                _ => {}
            }
        }
    }
    (found.tables > 0).then_some(found)
}
