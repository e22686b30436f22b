//! Tracing what a migration does to the databases of a copy while it runs.
//!
//! A trace explains; it decides nothing. That a database cannot be traced is told and stops nothing. That a trace cannot be
//! removed again is an error: what is compared afterwards would not be what the migration left.

use super::data::{must_be_cold, working};
use super::{Context, Failed};
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::store::StoreError;
use switchback_core::duration::human_ms;
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::{CloneMode, Op};
use switchback_core::release::Instance;
use switchback_core::trace::Trace;

/// Prepares the databases of an instance.
pub fn begin(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    let mut output = Output::default();
    arm(context, instance, &mut output)?;
    context.midway();
    Ok(output)
}

/// Prepares them again, after they were cloned afresh.
pub fn again(context: &Context<'_>, key: &str) -> Result<(), Failed> {
    let traced =
        context.plan.steps.iter().any(|s| matches!(&s.op, Op::TraceBegin { instance } if instance == key));
    if traced {
        arm(context, context.instance(key)?, &mut Output::default())?;
    }
    Ok(())
}

fn arm(context: &Context<'_>, instance: &Instance, output: &mut Output) -> Result<(), Failed> {
    let Some(observing) = context.world.data.observing() else { return Ok(()) };
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        let armed = working(context, "preparing to trace", |w| observing.trace_begin(&at, name, w));
        match armed {
            Ok(None) => {}
            Ok(Some(why)) => output.notes.push(not_traced(name, &why)),
            Err(e @ EngineError::Store(StoreError::Cancelled)) => return Err(e.into()),
            // A server that does not start is told by the step that starts it for good.
            Err(e) => output.notes.push(not_traced(name, &e.to_string())),
        }
    }
    Ok(())
}

fn not_traced(name: &StoreName, why: &str) -> String {
    format!("{name}: the migration is not traced: {why}")
}

/// Reads what the databases of an instance recorded.
pub fn end(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let running = !context.world.runtime.running(context.home, instance)?.is_empty();
    let mode = if running { CloneMode::Live } else { CloneMode::Cold };
    let mut output = Output::default();
    let Some(observing) = context.world.data.observing() else { return Ok(output) };
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        let read = working(context, "reading the trace", |w| observing.trace_end(&at, name, mode, w))?;
        let trace = if gap(Gap::Trace) { read.map(|_| Trace::default()) } else { read };
        let Some(trace) = trace else { continue };
        output.notes.push(format!("{name}: {}", summary(&trace)));
        output.notes.extend(trace.notes.iter().map(|n| format!("{name}: {n}")));
        output.traces.insert(name.clone(), trace);
    }
    context.midway();
    Ok(output)
}

fn summary(trace: &Trace) -> String {
    let (reads, writes) = trace.blocked_us();
    let ms = |us: u64| human_ms(us.div_ceil(1000));
    if let Some(file) = trace.file {
        return format!(
            "{} transactions, {} changes of definitions; the file could not have been read for {}, not written for {}",
            file.transactions,
            trace.calls(),
            ms(reads),
            ms(writes)
        );
    }
    format!(
        "{} statements within {}; one table could not have been read for {}, one not written for {}",
        trace.calls(),
        ms(trace.span_us),
        ms(reads),
        ms(writes)
    )
}
