//! Comparing what the databases of the old version and of the new one are asked while the checks run.
//!
//! It explains; it decides nothing. That it cannot be done is told and stops nothing.

use super::data::{must_be_cold, working};
use super::{Context, Failed};
use crate::error::EngineError;
use crate::store::StoreError;
use switchback_core::duration::human_ms;
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::queries::{Form, Queries};
use switchback_core::release::{Instance, Release};

/// Has the databases of an instance count from their next start on; only those whose like, which runs, counts too.
pub fn begin(context: &Context<'_>, key: &str, beside: Option<&str>) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let mut output = Output::default();
    let Some(observing) = context.world.data.observing() else { return Ok(output) };
    for name in instance.stores.keys() {
        if !context.world.data.exists(&at, name)? {
            continue;
        }
        if let Some(like) = beside
            && !counts(context, like, name)?
        {
            continue;
        }
        match observing.queries_begin(&at, name) {
            Ok(None) => {}
            Ok(Some(why)) => output.notes.push(not_counted(name, &why)),
            Err(e @ EngineError::Store(StoreError::Cancelled)) => return Err(e.into()),
            // A server that does not start is told by the step that starts it for good.
            Err(e) => output.notes.push(not_counted(name, &e.to_string())),
        }
    }
    context.midway();
    Ok(output)
}

fn not_counted(name: &StoreName, why: &str) -> String {
    format!("{name}: what it is asked is not compared: {why}")
}

/// Whether the store of an instance that runs counts statements. Not being able to ask is no.
fn counts(context: &Context<'_>, key: &str, store: &StoreName) -> Result<bool, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let Some(observing) = context.world.data.observing() else { return Ok(false) };
    Ok(instance.stores.contains_key(store) && observing.counts_queries(&at, store).unwrap_or(false))
}

/// Forgets what was counted while the services started.
pub fn reset(context: &Context<'_>, keys: &[String]) -> Result<Output, Failed> {
    let mut output = Output::default();
    let Some(observing) = context.world.data.observing() else { return Ok(output) };
    let Some(first) = keys.first() else { return Ok(output) };
    for name in context.instance(first)?.stores.keys() {
        let mut all = true;
        for key in keys {
            all = all && counts(context, key, name)?;
        }
        if !all {
            continue;
        }
        for key in keys {
            let instance = context.instance(key)?;
            let release = context.release(instance)?;
            if let Err(e) = observing.queries_reset(&context.placement(instance, &release), name) {
                output.notes.push(not_counted(name, &e.to_string()));
            }
        }
    }
    context.midway();
    Ok(output)
}

/// Reads what both sides counted, and how they carry the heaviest of it out.
pub fn compare(context: &Context<'_>, before: &str, after: &str) -> Result<Output, Failed> {
    let mut output = Output::default();
    for name in context.instance(before)?.stores.keys() {
        match (counts(context, before, name)?, counts(context, after, name)?) {
            (true, true) => {}
            (false, false) => continue,
            (old, _) => {
                let why = format!("only the {} version's server counts", if old { "old" } else { "new" });
                output.notes.push(not_counted(name, &why));
                continue;
            }
        }
        let mut sides = Vec::new();
        for key in [before, after] {
            let instance = context.instance(key)?;
            sides.push((instance, context.release(instance)?));
        }
        match both(context, name, &sides) {
            Ok(found) if found.old.calls + found.new.calls == 0 => {
                output.notes.push(format!("{name}: it was asked nothing"));
            }
            Ok(found) => {
                output.notes.push(format!("{name}: {}", summary(&found)));
                output.queries.insert(name.clone(), found);
            }
            Err(e @ EngineError::Store(StoreError::Cancelled)) => return Err(e.into()),
            Err(e) => output.notes.push(not_counted(name, &e.to_string())),
        }
    }
    context.midway();
    Ok(output)
}

fn both(
    context: &Context<'_>,
    store: &StoreName,
    sides: &[(&Instance, Release)],
) -> Result<Queries, EngineError> {
    let Some(observing) = context.world.data.observing() else { return Ok(Queries::default()) };
    let mut used = Vec::new();
    for (instance, release) in sides {
        let at = context.placement(instance, release);
        used.push(working(context, "reading what was asked", |w| observing.queries(&at, store, w))?);
    }
    let mut used = used.into_iter();
    let mut found = Queries::compare(used.next().unwrap_or_default(), used.next().unwrap_or_default());
    for (side, (instance, release)) in sides.iter().enumerate() {
        let at = context.placement(instance, release);
        let asked: Vec<Form> = found
            .heaviest
            .iter()
            .filter(|q| if side == 0 { q.old.is_some() } else { q.new.is_some() })
            .map(|q| q.form.clone())
            .collect();
        let plans = working(context, "asking for plans", |w| observing.plans(&at, store, &asked, w));
        match plans {
            Ok(mut plans) => {
                for query in &mut found.heaviest {
                    let plan = plans.remove(&query.form);
                    if side == 0 { query.old_plan = plan } else { query.new_plan = plan }
                }
            }
            Err(e @ EngineError::Store(StoreError::Cancelled)) => return Err(e),
            Err(e) => {
                found.notes.push(format!("no plans of the {} version: {e}", ["old", "new"][side.min(1)]));
            }
        }
    }
    Ok(found)
}

fn summary(found: &Queries) -> String {
    let ms = |us: u64| human_ms(us.div_ceil(1000));
    let mut text = format!(
        "{} statements in {} became {} in {}",
        found.old.calls,
        ms(found.old.total_us),
        found.new.calls,
        ms(found.new.total_us)
    );
    let (changed, slower) = (found.changed_plans(), found.slower());
    if changed > 0 {
        text.push_str(&format!("; {changed} of the heaviest are carried out in another way"));
    }
    if slower > 0 {
        text.push_str(&format!("; {slower} of them are slower"));
    }
    text
}
