//! The plan of a rollback.

use super::{CheckPhase, Group, OnFailure, Op, Plan, Procedure, Steps};
use crate::ids::{GenerationId, RunId, StackName};
use crate::release::{FORMAT, Instance};

/// What the plan of a rollback is made from.
#[derive(Debug, Clone)]
pub struct RollbackFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Production as it is: the generation to leave.
    pub leave: Instance,
    /// The generation to return to.
    pub target: Instance,
    /// What the generation returned to would itself roll back to.
    pub target_previous: Option<GenerationId>,
    /// The rollback target that the pointer holds now.
    pub pointer_previous: Option<GenerationId>,
    /// Rollback budget.
    pub budget_ms: u64,
    /// Why.
    pub reason: String,
    /// What happens when the old generation does not start.
    pub on_failure: OnFailure,
}

/// Makes the plan of a rollback.
///
/// A rollback that a trigger started persists: the generation it leaves is known to be bad. One that a
/// person asked for returns to the generation it left when the old one does not become healthy.
pub fn rollback(facts: &RollbackFacts) -> Plan {
    let (leave, target) = (facts.leave.key(), facts.target.key());
    let (from, to) = (facts.leave.generation, facts.target.generation);
    let then = facts.on_failure;
    let mut steps = Steps::new();
    steps
        .add(
            "stop-new",
            format!("Stop generation {from}"),
            Group::Rollback,
            Op::Stop { instance: leave.clone() },
        )
        .reversible()
        .on_failure(then);
    steps
        .add(
            "start-old",
            format!("Start generation {to} and wait until it is healthy"),
            Group::Rollback,
            Op::Start { instance: target.clone() },
        )
        .reversible()
        .on_failure(then);
    steps
        .add("read-back", "Read back what runs", Group::Rollback, Op::ReadBack { instance: target.clone() })
        .on_failure(then);
    steps
        .add(
            "flip",
            format!("Point production at generation {to}"),
            Group::Rollback,
            Op::Flip {
                from: Some(from),
                from_previous: facts.pointer_previous,
                to,
                to_previous: facts.target_previous,
            },
        )
        .reversible()
        .on_failure(then);
    steps
        .add(
            "checks",
            "Run the checks that are safe on production",
            Group::After,
            Op::Check { instances: vec![target], phase: CheckPhase::Production },
        )
        .on_failure(OnFailure::Continue);
    steps
        .add(
            "export",
            format!("Export what was written since generation {from} was promoted"),
            Group::After,
            Op::Export { abandoned: leave },
        )
        .on_failure(OnFailure::Continue);
    Plan {
        format: FORMAT,
        run: facts.run.clone(),
        procedure: Procedure::Rollback,
        stack: facts.stack.clone(),
        made_at_ms: facts.now_ms,
        from: facts.leave.versions.clone(),
        to: facts.target.versions.clone(),
        from_generation: Some(from),
        to_generation: Some(to),
        reason: Some(facts.reason.clone()),
        budget_ms: facts.budget_ms,
        instances: [facts.leave.clone(), facts.target.clone()].into_iter().map(|i| (i.key(), i)).collect(),
        steps: steps.0,
    }
}
