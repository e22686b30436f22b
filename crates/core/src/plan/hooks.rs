//! Commands of the user, as steps of plans.

use super::{Group, OnFailure, Op, Plan, Procedure, Step, Undo};
use crate::config::Hooks;
use serde::{Deserialize, Serialize};

/// When a command of the user runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookTime {
    /// Before production is stopped for a promotion.
    BeforePromote,
    /// After a promotion, however it ended.
    AfterPromote,
    /// Before production is stopped for a rollback.
    BeforeRollback,
    /// After a rollback.
    AfterRollback,
}

impl HookTime {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforePromote => "before_promote",
            Self::AfterPromote => "after_promote",
            Self::BeforeRollback => "before_rollback",
            Self::AfterRollback => "after_rollback",
        }
    }
}

impl Plan {
    /// The plan with the user's commands in it. Where there is one after a promotion, there is a step before it too: undoing that
    /// one runs the command, so that it also runs after a promotion that failed.
    #[must_use]
    pub fn with_hooks(mut self, hooks: &Hooks) -> Self {
        match self.procedure {
            Procedure::Promote | Procedure::Carry => {
                if hooks.before_promote.is_some() || hooks.after_promote.is_some() {
                    let stop = self.steps.iter().position(|s| s.id.as_str() == "stop-old").unwrap_or(0);
                    let mut before = step(HookTime::BeforePromote, OnFailure::Undo);
                    before.undo = Undo::Reverse;
                    self.steps.insert(stop, before);
                }
                if hooks.after_promote.is_some() {
                    self.steps.push(step(HookTime::AfterPromote, OnFailure::Continue));
                }
            }
            Procedure::Rollback | Procedure::ServiceRollback => {
                if hooks.before_rollback.is_some() {
                    self.steps.insert(0, step(HookTime::BeforeRollback, OnFailure::Continue));
                }
                if hooks.after_rollback.is_some() {
                    self.steps.push(step(HookTime::AfterRollback, OnFailure::Continue));
                }
            }
            _ => {}
        }
        self
    }
}

fn step(when: HookTime, on_failure: OnFailure) -> Step {
    let (id, title, group) = match when {
        HookTime::BeforePromote => ("hook-before", "Run the command hooks.before_promote", Group::Prepare),
        HookTime::AfterPromote => ("hook-after", "Run the command hooks.after_promote", Group::After),
        HookTime::BeforeRollback => ("hook-before", "Run the command hooks.before_rollback", Group::Prepare),
        HookTime::AfterRollback => ("hook-after", "Run the command hooks.after_rollback", Group::After),
    };
    Step {
        id: id.into(),
        title: title.to_owned(),
        op: Op::Hook { when },
        undo: Undo::Nothing,
        on_failure,
        requires: Vec::new(),
        group,
    }
}
