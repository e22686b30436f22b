//! What only staging environments need: refreshing, comparing and counting copies, and their records.

use super::data::{must_be_cold, scratch_of, temp_dir, with_progress, working};
use super::{Context, Failed};
use crate::data::{Work, contents};
use crate::engine::now_ms;
use crate::environments;
use crate::error::joined;
use crate::runtime::{Placement, Stage};
use switchback_core::environment::{Environment, Synced};
use switchback_core::ids::{StepId, StoreName};
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::CloneMode;

/// Brings the stores of an instance to the state of another's.
pub fn refresh(context: &Context<'_>, from: &str, to: &str, mode: CloneMode) -> Result<Output, Failed> {
    let (source, target) = (context.instance(from)?, context.instance(to)?);
    if mode == CloneMode::Cold {
        must_be_cold(context, source)?;
    }
    must_be_cold(context, target)?;
    let (old, new) = (context.release(source)?, context.release(target)?);
    let (from, to) = (context.placement(source, &old), context.placement(target, &new));
    let scratch = scratch_of(context, target)?;
    Ok(working(context, "copying what changed", |w| {
        context.world.data.refresh(&from, &to, mode, &scratch, w)
    })?)
}

/// Confirms that a copy equals what it was made from.
pub fn compare(context: &Context<'_>, source: &str, copy: &str) -> Result<Output, Failed> {
    let (source, copy) = (context.instance(source)?, context.instance(copy)?);
    must_be_cold(context, source)?;
    must_be_cold(context, copy)?;
    let (old, new) = (context.release(source)?, context.release(copy)?);
    let (from, to) = (context.placement(source, &old), context.placement(copy, &new));
    let data = &context.world.data;
    let temp = temp_dir(context)?;
    let mut output = Output::default();
    let mut differing = Vec::new();
    let names = || source.stores.keys();
    let (was, is) = with_progress(context, "reading the snapshot and the copy", |progress| {
        let read = |at: &Placement<'_>| contents(data.as_ref(), at, names(), progress, &temp);
        std::thread::scope(|scope| {
            let was = scope.spawn(|| read(&from));
            let is = read(&to);
            (joined(was), is)
        })
    });
    let (was, mut is) = (was?, is?);
    for (name, was) in was {
        let Some(is) = is.remove(&name) else {
            differing.push(name.to_string());
            continue;
        };
        if was.digest != is.digest {
            differing.push(name.to_string());
        }
        output
            .notes
            .push(format!("{name}: fingerprint {} in the snapshot and in the copy", is.digest.short()));
        output.fingerprints.insert(name, is);
    }
    context.midway();
    if differing.is_empty() {
        return Ok(output);
    }
    let error = StepError {
        kind: ErrorKind::Refused,
        message: format!("the copy differs from its snapshot: {}", differing.join(", ")),
        hint: Some("something wrote to one of them; try again, and look for what does".to_owned()),
        details: Vec::new(),
    };
    Err(Failed { error, output: Box::new(output) })
}

/// Counts rows and files.
pub fn count(context: &Context<'_>, key: &str, mode: CloneMode) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let data = &context.world.data;
    let temp = temp_dir(context)?;
    let mut output = Output::default();
    let counted = with_progress(context, "counting", |progress| {
        let one = |name: &StoreName| {
            let work = Work { stage: Stage::quiet(), progress, temp: &temp };
            let there = data.exists(&at, name)?;
            there.then(|| data.counts(&at, name, mode, &work)).transpose()
        };
        // All at once: where helpers read, starting them is most of it.
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                instance.stores.keys().map(|name| (name, scope.spawn(move || one(name)))).collect();
            let joined = threads.into_iter().map(|(name, t)| (name, joined(t)));
            joined.collect::<Vec<_>>()
        })
    });
    for (name, found) in counted {
        let Some(found) = found? else { continue };
        let rows: u64 = found.values().sum();
        output.notes.push(format!("{name}: {rows} rows or files in {} parts", found.len()));
        output.counts.insert(name.clone(), found);
    }
    context.midway();
    Ok(output)
}

/// Records an environment, with what the steps that brought its data measured.
pub fn register(context: &Context<'_>, wanted: &Environment, copies: &[StepId]) -> Result<Output, Failed> {
    let mut environment = wanted.clone();
    if copies.is_empty() {
        if let Some(known) = environments::find(context.home, &wanted.name)? {
            environment.data = known.data;
        }
    } else {
        environment.data = synced(context, copies);
    }
    context.midway();
    environments::save(context.home, &environment)?;
    Ok(Output::default())
}

/// What brought the data, from the steps that did.
fn synced(context: &Context<'_>, copies: &[StepId]) -> Synced {
    let mut synced = Synced { at_ms: now_ms(), ..Synced::default() };
    // From the beginning: production is cut by the first of them.
    let cut = context.records.iter().find_map(|r| match &r.event {
        switchback_core::journal::Event::Finished { step, .. } if copies.contains(step) => Some(r.at_ms),
        _ => None,
    });
    synced.at_ms = cut.unwrap_or(synced.at_ms);
    for (index, step) in copies.iter().enumerate() {
        let Some(output) = context.state.output(step) else { continue };
        if let Some(back) = &output.backup {
            synced.at_ms = back.snapshot.at_ms;
            synced.snapshot = Some(back.snapshot.id.clone());
            synced.bytes = back.snapshot.bytes;
            synced.written += back.snapshot.bytes;
            synced.took_ms += back.took_ms;
        }
        synced.compared |= context.plan.step(step).is_some_and(|s| {
            matches!(s.op, switchback_core::plan::Op::Compare { .. }) && !output.fingerprints.is_empty()
        });
        for copy in output.copies.values() {
            if index == 0 {
                synced.bytes += copy.bytes;
            }
            synced.written += copy.bytes_written;
            synced.took_ms += copy.took_ms;
            synced.waited_ms = synced.waited_ms.max(copy.writers_waited_ms);
        }
    }
    if let Some(counted) = context.state.output(&StepId::from("count")) {
        synced.counts.clone_from(&counted.counts);
    }
    if let Some(masked) = context.state.output(&StepId::from("mask")) {
        synced.masked.clone_from(&masked.masked);
        synced.rules.clone_from(&context.config.staging.anonymise);
    }
    synced
}

/// Forgets an environment.
pub fn unregister(context: &Context<'_>, name: &str) -> Result<Output, Failed> {
    context.midway();
    environments::forget(context.home, name)?;
    Ok(Output::default())
}
