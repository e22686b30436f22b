//! What a run does next: a pure function of its plan and its state.
//!
//! There is one path for fresh and resumed runs. A step that was started and not finished is done
//! again; a run that goes backward undoes what was started, finished or not, in reverse order.

use crate::check::{Overall, Verdict, overall};
use crate::ids::StepId;
use crate::journal::{ErrorKind, Outcome, RunState, StepError, StepResult};
use crate::plan::{OnFailure, Op, Plan, Procedure, Step, Undo};

/// How often a step is begun before a resumed run gives up on it. A crash of Switchback itself counts
/// as an attempt, so a step that kills the program cannot do so for ever.
pub const MAX_ATTEMPTS: u32 = 5;
/// How often undoing a step is tried before a person is asked.
pub const MAX_UNDO_ATTEMPTS: u32 = 3;

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Next<'a> {
    /// Perform a step.
    Do(&'a Step),
    /// Record that a step is left out.
    Skip(&'a Step, StepId),
    /// A step crashed the program too often: record that it failed.
    GiveUp(&'a Step),
    /// Reverse a step.
    Undo(&'a Step),
    /// Record the end.
    End(Outcome),
    /// Nothing is left to do.
    Finished(Outcome),
}

/// Decides what a run does next.
pub fn next<'a>(plan: &'a Plan, state: &RunState) -> Next<'a> {
    if let Some(outcome) = &state.ended {
        return Next::Finished(outcome.clone());
    }
    if let Some(backward) = &state.backward {
        if let Some(step) = plan.steps.iter().rev().find(|s| state.owes_undo(plan, &s.id)) {
            let tried = state.steps.get(&step.id).map_or(0, |s| s.undo_attempts);
            return if tried >= MAX_UNDO_ATTEMPTS {
                Next::End(stuck(plan, state, &backward.error))
            } else {
                Next::Undo(step)
            };
        }
        return Next::End(Outcome::Undone { step: backward.step.clone(), error: backward.error.clone() });
    }
    for step in &plan.steps {
        let status = state.steps.get(&step.id);
        match status.and_then(|s| s.result.as_ref()) {
            Some(StepResult::Done(_) | StepResult::Skipped(_)) => continue,
            Some(StepResult::Failed(error, _)) => match step.on_failure {
                OnFailure::Continue => continue,
                OnFailure::Persist { attempts } => {
                    if status.map_or(0, |s| s.attempts) < attempts {
                        return Next::Do(step);
                    }
                    return Next::End(Outcome::NeedsOperator {
                        reasons: vec![format!("{} failed {attempts} times: {}", step.title, error.message)],
                    });
                }
                // The fold has set `backward`; an `Undo` failure never comes here.
                OnFailure::Undo => continue,
            },
            None => {
                let missing = step.requires.iter().find(|r| !state.succeeded(r));
                if let (Some(because), 0) = (missing, status.map_or(0, |s| s.attempts)) {
                    return Next::Skip(step, because.clone());
                }
                if status.is_some_and(|s| s.attempts >= MAX_ATTEMPTS) {
                    return Next::GiveUp(step);
                }
                return Next::Do(step);
            }
        }
    }
    Next::End(conclude(plan, state))
}

/// The error recorded for a step that crashed the program too often.
pub fn gave_up(step: &Step) -> StepError {
    StepError {
        kind: ErrorKind::Internal,
        message: format!("{:?} was begun {MAX_ATTEMPTS} times and never ended", step.title),
        hint: Some("Switchback itself was killed each time; look for the out-of-memory killer".to_owned()),
        details: Vec::new(),
    }
}

fn stuck(plan: &Plan, state: &RunState, error: &StepError) -> Outcome {
    let mut reasons = vec![error.message.clone()];
    for step in &plan.steps {
        if let Some(failed) = state.steps.get(&step.id).and_then(|s| s.undo_error.as_ref()) {
            reasons.push(format!("undoing {:?} failed too: {}", step.title, failed.message));
        }
    }
    Outcome::NeedsOperator { reasons }
}

/// Judges a run whose steps have all ended.
pub fn conclude(plan: &Plan, state: &RunState) -> Outcome {
    let (refusals, doubts) = findings(plan, state);
    let failed_steps = plan.steps.iter().filter_map(|s| match state.steps.get(&s.id)?.result.as_ref()? {
        StepResult::Failed(error, _) => Some((s, error)),
        _ => None,
    });
    match plan.procedure {
        Procedure::Rehearse | Procedure::Path | Procedure::Scaling => {
            if !refusals.is_empty() {
                Outcome::Refused { reasons: refusals }
            } else if !doubts.is_empty() {
                Outcome::Inconclusive { reasons: doubts }
            } else {
                Outcome::Done
            }
        }
        // After a switch nothing is refused any more; what failed afterwards is for a person.
        Procedure::Rollback | Procedure::ServiceRollback => {
            let mut reasons: Vec<String> = Vec::new();
            // A step that failed is among the findings, too.
            for reason in failed_steps.map(|(s, e)| format!("{}: {}", s.title, e.message)).chain(refusals) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            if reasons.is_empty() { Outcome::Done } else { Outcome::NeedsOperator { reasons } }
        }
        Procedure::ProductionDrill => {
            let (certifying, others): (Vec<_>, Vec<_>) =
                failed_steps.partition(|(s, _)| matches!(s.op, Op::Certify { .. }));
            let words = |(s, e): (&Step, &StepError)| format!("{}: {}", s.title, e.message);
            let broken: Vec<String> = others.into_iter().map(words).chain(refusals).collect();
            let over: Vec<String> = certifying.into_iter().map(|(_, e)| e.message.clone()).collect();
            if !broken.is_empty() {
                Outcome::NeedsOperator { reasons: broken }
            } else if !over.is_empty() {
                Outcome::Refused { reasons: over }
            } else if !doubts.is_empty() {
                Outcome::Inconclusive { reasons: doubts }
            } else {
                Outcome::Done
            }
        }
        Procedure::Promote
        | Procedure::Restore
        | Procedure::Carry
        | Procedure::Up
        | Procedure::Down
        | Procedure::Export
        | Procedure::Backup => Outcome::Done,
        // A check that could not decide is no proof that the backup can be used, or the generation before.
        Procedure::Drill | Procedure::RollbackDrill => {
            if doubts.is_empty() {
                Outcome::Done
            } else {
                Outcome::Inconclusive { reasons: doubts }
            }
        }
        // What could only not be counted is told in the report.
        Procedure::StagingUp
        | Procedure::StagingSync
        | Procedure::StagingReset
        | Procedure::StagingStop
        | Procedure::StagingDown => Outcome::Done,
    }
}

/// What speaks against the upgrade, and what could not be judged.
///
/// The old version on migrated data is an observation, not a condition; its steps are left out.
pub fn findings(plan: &Plan, state: &RunState) -> (Vec<String>, Vec<String>) {
    let mut refusals = Vec::new();
    let mut doubts = Vec::new();
    for step in &plan.steps {
        if is_code_only(step) || matches!(step.op, Op::Certify { .. }) {
            continue;
        }
        match state.steps.get(&step.id).and_then(|s| s.result.as_ref()) {
            Some(StepResult::Failed(error, output)) if overall(&output.checks) != Overall::Fail => {
                refusals.push(format!("{}: {}", step.title, error.message));
            }
            Some(StepResult::Skipped(because)) if refusals.is_empty() => {
                doubts.push(format!("{}: left out, because {because} did not succeed", step.title));
            }
            _ => {}
        }
        for check in state.output(&step.id).iter().flat_map(|o| &o.checks) {
            match &check.verdict {
                Verdict::Pass | Verdict::Waived { .. } => {}
                Verdict::Fail { reasons } => {
                    // A check that the baseline fails too says nothing about the upgrade, but a
                    // stack whose checks fail before the upgrade cannot be judged by them.
                    refusals.extend(reasons.iter().map(|r| {
                        let at = if r.at.is_empty() { String::new() } else { format!("{}: ", r.at) };
                        format!("{} in {}: {at}{}", check.id, check.environment, r.what)
                    }));
                }
                Verdict::Inconclusive { why } | Verdict::NotRun { why } => {
                    doubts.push(format!("{} in {}: {why}", check.id, check.environment));
                }
            }
        }
    }
    (refusals, doubts)
}

/// Whether a step belongs to trying the old version on migrated data.
pub fn is_code_only(step: &Step) -> bool {
    step.id.as_str().ends_with("code-only") && step.undo == Undo::Nothing
        || step.id.as_str() == "start-code-only"
}
