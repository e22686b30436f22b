//! Runs that are made up, for tests of those who judge runs: what a judge looks at is put into them.

use super::lab::Ran;
use crate::taken_back::tests::plan;
use std::collections::BTreeMap;
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::journal::{Event, Outcome, Record, RunState};
use switchback_core::plan::{Group, Plan, Procedure};
use switchback_core::report::{Report, StepReport, StepStatus};

/// A run that is done, and of which nothing else is known.
pub fn ran(procedure: Procedure) -> Ran {
    let plan = Plan { steps: Vec::new(), ..plan("R", procedure, (1, "a"), (2, "b")) };
    let events = [Event::Planned { plan: Box::new(plan.clone()) }, Event::Ended { outcome: Outcome::Done }];
    let record = |(seq, event): (usize, Event)| Record {
        run: plan.run.clone(),
        seq: seq as u64 + 1,
        at_ms: seq as i64,
        event,
    };
    let records: Vec<Record> = events.into_iter().enumerate().map(record).collect();
    let state = RunState::fold(&plan, records.iter().map(|r| &r.event));
    let report = Report::build(&plan, &records, "switchback", "host");
    Ran { plan, state, records, report }
}

/// A step that took so long, at the first attempt.
pub fn step(id: &str, group: Group, status: StepStatus, took_ms: u64) -> StepReport {
    StepReport {
        id: id.to_owned(),
        title: id.to_owned(),
        group,
        status,
        began_ms: Some(0),
        took_ms: Some(took_ms),
        attempts: 1,
        notes: Vec::new(),
        error: None,
        undo_ms: None,
        undo_notes: Vec::new(),
        undo_error: None,
    }
}

/// The result of a check.
pub fn check(kind: CheckKind, environment: &str, verdict: Verdict) -> CheckResult {
    CheckResult {
        id: format!("{}/one", kind.as_str()),
        kind,
        environment: environment.to_owned(),
        verdict,
        took_ms: 1,
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
        looks: Vec::new(),
    }
}

/// A check that failed.
pub fn failed(kind: CheckKind, environment: &str) -> CheckResult {
    check(kind, environment, Verdict::from_failures(vec![Default::default()]))
}
