//! Events, and the fold that turns them into the state of a run.
//!
//! The journal is the truth. Whatever the engine must know after a crash is in these events.

use crate::config::Action;
use crate::ids::{GenerationId, RunId, StepId};
use crate::plan::{OnFailure, Plan, Undo};
use crate::trigger::{Standing, Trigger};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod output;

pub use output::{Output, ServiceTimes};

/// How the reason of a rollback begins that nobody asked for.
pub const TRIAL_FAILED: &str = "trial failed";

/// Something that happened, in the order it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run was planned; nothing was touched yet.
    Planned {
        /// The plan.
        plan: Box<Plan>,
    },
    /// A step is about to touch the world.
    Started {
        /// The step.
        step: StepId,
        /// From 1.
        attempt: u32,
    },
    /// A step is done.
    Finished {
        /// The step.
        step: StepId,
        /// What it found.
        output: Output,
        /// Wall time.
        took_ms: u64,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: StepId,
        /// Why.
        error: StepError,
        /// What it found nevertheless.
        output: Output,
        /// Wall time.
        took_ms: u64,
    },
    /// A step was left out because one it requires did not succeed.
    Skipped {
        /// The step.
        step: StepId,
        /// The step it requires.
        because: StepId,
    },
    /// A step is about to be reversed.
    UndoStarted {
        /// The step.
        step: StepId,
        /// From 1.
        attempt: u32,
    },
    /// A step is reversed.
    Undone {
        /// The step.
        step: StepId,
        /// What it found.
        output: Output,
        /// Wall time.
        took_ms: u64,
    },
    /// Reversing a step failed.
    UndoFailed {
        /// The step.
        step: StepId,
        /// Why.
        error: StepError,
        /// Wall time.
        took_ms: u64,
    },
    /// A person, a signal, or somebody who wanted to roll back stopped the run between two steps; it can be resumed.
    Interrupted {
        /// Who wanted to roll back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gave_way_to: Option<String>,
    },
    /// Another process took the run over.
    Resumed {
        /// Its process id.
        pid: u32,
    },
    /// A person asked for the run to be undone.
    AbortRequested {
        /// Why.
        reason: String,
    },
    /// The run is over.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// A trial began; again, where what had cancelled it was undone.
    TrialBegan {
        /// The generation on trial.
        generation: GenerationId,
        /// UTC, milliseconds since 1970.
        deadline_ms: i64,
    },
    /// A probe of a trial, recorded when its result differs from the one before.
    TrialProbe {
        /// Whether everything was as it must be.
        ok: bool,
        /// What was seen.
        seen: String,
        /// Failed probes in a row, this one included.
        failures_in_a_row: u32,
    },
    /// A trigger of a trial stands differently than before.
    TriggerChanged {
        /// Which.
        trigger: Trigger,
        /// Where it stands now.
        standing: Standing,
        /// What is to be done when it fires.
        action: Action,
        /// What was seen.
        why: String,
    },
    /// The trial passed.
    TrialConfirmed {
        /// Probes made.
        probes: u32,
        /// The person who said so before it had, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The trial failed; a rollback follows.
    TrialFailed {
        /// What triggered it.
        trigger: String,
        /// What was seen.
        reasons: Vec<String>,
    },
    /// The trial ended without a verdict because something else happened to the generation.
    TrialCancelled {
        /// What happened.
        why: String,
    },
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// What happened, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The end of a log, or other details.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// What sort of failure: decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A bug or an unexpected state of the host.
    Internal,
    /// The user's input or configuration.
    Usage,
    /// A check said no.
    Refused,
    /// The host ran out of something.
    Host,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// Something that was observed forbids the upgrade.
    Refused {
        /// What.
        reasons: Vec<String>,
    },
    /// Nothing failed, but something could not be judged.
    Inconclusive {
        /// What.
        reasons: Vec<String>,
    },
    /// A step failed (or a person said so) and everything was undone.
    Undone {
        /// The failed step, if one failed.
        step: Option<StepId>,
        /// Why.
        error: StepError,
    },
    /// The run could not be finished nor undone by itself.
    NeedsOperator {
        /// Where it stands.
        reasons: Vec<String>,
    },
}

/// Where a run stands: a fold of its events.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunState {
    /// Steps that anything happened to.
    pub steps: BTreeMap<StepId, StepState>,
    /// Set when the run is being undone.
    pub backward: Option<Backward>,
    /// Set when the run is over.
    pub ended: Option<Outcome>,
    /// Whether the last thing was an interruption by a person, or by somebody who wanted to roll back.
    pub interrupted: bool,
    /// Whether that was a rollback: it undoes the run when it is done.
    pub gave_way: bool,
    /// The trial, if one began.
    pub trial: Option<TrialState>,
}

/// Why a run goes backward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backward {
    /// The failed step, if it was one.
    pub step: Option<StepId>,
    /// Why.
    pub error: StepError,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepState {
    /// Attempts begun.
    pub attempts: u32,
    /// How the last attempt ended; `None` while it runs (or after a crash).
    pub result: Option<StepResult>,
    /// Attempts to undo.
    pub undo_attempts: u32,
    /// Whether it is undone.
    pub undone: bool,
    /// The last failure to undo.
    pub undo_error: Option<StepError>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// It is done.
    Done(Output),
    /// It failed.
    Failed(StepError, Output),
    /// It was left out.
    Skipped(StepId),
}

/// Where a trial stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialState {
    /// The generation on trial.
    pub generation: GenerationId,
    /// UTC, milliseconds since 1970.
    pub deadline_ms: i64,
    /// Failed probes in a row at the last recorded probe.
    pub failures_in_a_row: u32,
    /// Triggers that are not quiet, and why.
    pub triggers: BTreeMap<Trigger, (Standing, String)>,
    /// How it ended.
    pub verdict: Option<TrialVerdict>,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialVerdict {
    /// It passed.
    Confirmed,
    /// It failed.
    Failed(String),
    /// Something else happened.
    Cancelled(String),
}

impl RunState {
    /// Replays the events of one run.
    pub fn fold<'a>(plan: &Plan, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut state = Self::default();
        for event in events {
            state.apply(plan, event);
        }
        state
    }

    /// Applies one more event.
    pub fn apply(&mut self, plan: &Plan, event: &Event) {
        self.interrupted = matches!(event, Event::Interrupted { .. });
        self.gave_way = matches!(event, Event::Interrupted { gave_way_to: Some(_) });
        match event {
            Event::Planned { .. } | Event::Interrupted { .. } | Event::Resumed { .. } => {}
            Event::Started { step, attempt } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.attempts = *attempt;
                s.result = None;
            }
            Event::Finished { step, output, .. } => self.end(step, StepResult::Done(output.clone())),
            Event::Skipped { step, because } => self.end(step, StepResult::Skipped(because.clone())),
            Event::Failed { step, error, output, .. } => {
                self.end(step, StepResult::Failed(error.clone(), output.clone()));
                if plan.step(step).is_some_and(|s| s.on_failure == OnFailure::Undo) {
                    self.backward
                        .get_or_insert_with(|| Backward { step: Some(step.clone()), error: error.clone() });
                }
            }
            Event::UndoStarted { step, attempt } => {
                self.steps.entry(step.clone()).or_default().undo_attempts = *attempt;
            }
            Event::Undone { step, .. } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.undone = true;
                s.undo_error = None;
            }
            Event::UndoFailed { step, error, .. } => {
                self.steps.entry(step.clone()).or_default().undo_error = Some(error.clone());
            }
            Event::AbortRequested { reason } => {
                self.backward.get_or_insert_with(|| Backward {
                    step: None,
                    error: StepError {
                        kind: ErrorKind::Refused,
                        message: reason.clone(),
                        hint: None,
                        details: Vec::new(),
                    },
                });
            }
            Event::Ended { outcome } => self.ended = Some(outcome.clone()),
            Event::TrialBegan { generation, deadline_ms } => {
                let trial = self.trial.get_or_insert(TrialState {
                    generation: *generation,
                    deadline_ms: *deadline_ms,
                    failures_in_a_row: 0,
                    triggers: BTreeMap::new(),
                    verdict: None,
                });
                // What had cancelled it was undone. What was seen until then counts.
                if let Some(TrialVerdict::Cancelled(_)) = trial.verdict {
                    (trial.deadline_ms, trial.verdict) = (*deadline_ms, None);
                }
            }
            Event::TrialProbe { failures_in_a_row, .. } => {
                if let Some(trial) = &mut self.trial {
                    trial.failures_in_a_row = *failures_in_a_row;
                }
            }
            Event::TriggerChanged { trigger, standing, why, .. } => {
                if let Some(trial) = &mut self.trial {
                    match standing {
                        Standing::Quiet => drop(trial.triggers.remove(trigger)),
                        other => drop(trial.triggers.insert(*trigger, (*other, why.clone()))),
                    }
                }
            }
            Event::TrialConfirmed { .. } => self.end_trial(TrialVerdict::Confirmed),
            Event::TrialFailed { trigger, .. } => self.end_trial(TrialVerdict::Failed(trigger.clone())),
            Event::TrialCancelled { why } => self.end_trial(TrialVerdict::Cancelled(why.clone())),
        }
    }

    fn end(&mut self, step: &StepId, result: StepResult) {
        self.steps.entry(step.clone()).or_default().result = Some(result);
    }

    fn end_trial(&mut self, verdict: TrialVerdict) {
        if let Some(trial) = &mut self.trial {
            trial.verdict.get_or_insert(verdict);
        }
    }

    /// Whether the step succeeded.
    pub fn succeeded(&self, step: &StepId) -> bool {
        matches!(self.steps.get(step).and_then(|s| s.result.as_ref()), Some(StepResult::Done(_)))
    }

    /// What a step found, done or failed.
    pub fn output(&self, step: &StepId) -> Option<&Output> {
        match self.steps.get(step)?.result.as_ref()? {
            StepResult::Done(output) | StepResult::Failed(_, output) => Some(output),
            StepResult::Skipped(_) => None,
        }
    }

    /// Whether undoing this step is owed: it was started and not undone.
    pub fn owes_undo(&self, plan: &Plan, step: &StepId) -> bool {
        let reversible = plan.step(step).is_some_and(|s| s.undo == Undo::Reverse);
        reversible && self.steps.get(step).is_some_and(|s| s.attempts > 0 && !s.undone)
    }

    /// Whether a trial is running. A promotion that is being undone is on trial no more.
    pub fn on_trial(&self) -> bool {
        self.backward.is_none() && self.trial.as_ref().is_some_and(|t| t.verdict.is_none())
    }
}

/// An event with where it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The run it belongs to.
    pub run: RunId,
    /// Position in the journal, from 1.
    pub seq: u64,
    /// UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
