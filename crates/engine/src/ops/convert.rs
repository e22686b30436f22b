//! Converting a clone for database servers of another major version.

use super::data::{clone, must_be_cold, working};
use super::{Context, Failed};
use switchback_core::journal::Output;
use switchback_core::plan::{CloneMode, Majors, Op};

/// Converts the stores of an instance. What an earlier attempt left is half of one and half of the other: it begins with a fresh
/// clone.
pub fn convert(context: &Context<'_>, key: &str, source: &str, majors: &Majors) -> Result<Output, Failed> {
    must_be_cold(context, context.instance(key)?)?;
    if context.attempt > 1 {
        clone(context, source, key, CloneMode::Cold)?;
    }
    let output = perform(context, key, source, majors)?;
    context.midway();
    Ok(output)
}

/// Converts them again, after they were cloned afresh by a later step.
pub fn again(context: &Context<'_>, key: &str) -> Result<(), Failed> {
    let done = context.plan.steps.iter().find_map(|s| match &s.op {
        Op::Convert { instance, source, majors } if instance == key => Some((source, majors)),
        _ => None,
    });
    if let Some((source, majors)) = done {
        perform(context, key, source, majors)?;
    }
    Ok(())
}

fn perform(context: &Context<'_>, key: &str, source: &str, majors: &Majors) -> Result<Output, Failed> {
    let (instance, source) = (context.instance(key)?, context.instance(source)?);
    let (new, old) = (context.release(instance)?, context.release(source)?);
    let (to, from) = (context.placement(instance, &new), context.placement(source, &old));
    let mut output = Output::default();
    for (store, majors) in majors {
        let what = format!("converting {store} to Postgres {}", majors.1);
        let notes = working(context, &what, |w| context.world.data.convert(&from, &to, store, *majors, w))?;
        output.notes.extend(notes.into_iter().map(|n| format!("{store}: {n}")));
    }
    Ok(output)
}
