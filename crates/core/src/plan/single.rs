//! The short plans: start and stop production; export what was written to a generation that was left.

use super::{Group, Op, Plan, Procedure, Steps};
use crate::ids::{GenerationId, RunId, StackName};
use crate::release::{FORMAT, Instance};
use std::collections::BTreeMap;

fn plan(
    procedure: Procedure,
    run: RunId,
    stack: StackName,
    now_ms: i64,
    budget_ms: u64,
    instance: &Instance,
    steps: Steps,
) -> Plan {
    Plan {
        format: FORMAT,
        run,
        procedure,
        stack,
        made_at_ms: now_ms,
        from: instance.versions.clone(),
        to: instance.versions.clone(),
        from_generation: Some(instance.generation),
        to_generation: Some(instance.generation),
        reason: None,
        budget_ms,
        instances: BTreeMap::from([(instance.key(), instance.clone())]),
        steps: steps.0,
    }
}

/// Starts production's current generation; `adopt` makes it the first one.
pub fn up(
    run: RunId,
    stack: StackName,
    now_ms: i64,
    budget_ms: u64,
    instance: &Instance,
    adopt: bool,
) -> Plan {
    let key = instance.key();
    let mut steps = Steps::new();
    if adopt {
        steps
            .add(
                "prepare",
                "Adopt the stack as generation 1",
                Group::Prepare,
                Op::Prepare { instance: key.clone() },
            )
            .reversible();
    }
    let start = steps.add(
        "start",
        format!("Start generation {} and wait until it is healthy", instance.generation),
        Group::Switch,
        Op::Start { instance: key.clone() },
    );
    // A stack that was running before is never taken down because starting it again found something wrong.
    if adopt {
        start.reversible();
    }
    steps.add("read-back", "Read back what runs", Group::Check, Op::ReadBack { instance: key.clone() });
    if adopt {
        let flip = Op::Flip { from: None, from_previous: None, to: GenerationId(1), to_previous: None };
        steps.add("flip", "Point production at generation 1", Group::Check, flip).reversible();
    }
    plan(Procedure::Up, run, stack, now_ms, budget_ms, instance, steps)
}

/// Exports what was written to a generation that was left. `beside` goes on with some of its stores.
pub fn export(
    (run, stack, now_ms): (RunId, StackName, i64),
    budget_ms: u64,
    production: &Instance,
    left: &Instance,
    beside: &[Instance],
) -> Plan {
    let mut steps = Steps::new();
    let title = format!("Export what was written since generation {} was made", left.generation);
    steps.add("export", title, Group::After, Op::Export { abandoned: left.key() });
    let mut plan = plan(Procedure::Export, run, stack, now_ms, budget_ms, production, steps);
    plan.instances.extend(beside.iter().chain([left]).map(|i| (i.key(), i.clone())));
    plan
}

/// Stops production.
pub fn down(run: RunId, stack: StackName, now_ms: i64, budget_ms: u64, instance: &Instance) -> Plan {
    let mut steps = Steps::new();
    steps
        .add(
            "stop",
            format!("Stop generation {}", instance.generation),
            Group::Switch,
            Op::Stop { instance: instance.key() },
        )
        .reversible();
    plan(Procedure::Down, run, stack, now_ms, budget_ms, instance, steps)
}
