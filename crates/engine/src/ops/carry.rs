//! Carrying the writes made to an abandoned generation into the next one, before it starts.

use super::data::{must_be_cold, working};
use super::{Context, Failed};
use crate::carry::{BEGAN, Began, DONE, Done, folder, rules};
use crate::error::{EngineError, io};
use crate::home::{create_dir, write_atomic, write_json};
use crate::left::left_by;
use std::path::Path;
use switchback_core::carry::{CarriedPart, Quarantined};
use switchback_core::data::StoreKind;
use switchback_core::ids::GenerationId;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;

/// Reasons that are named in the notes; the file has all.
const MOST_REASONS: usize = 8;

/// Carries writes.
pub fn carry(context: &Context<'_>, key: &str, left: GenerationId, source: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    if context.attempt > 1 {
        // What an earlier attempt carried in part.
        super::data::clone(context, source, key, CloneMode::Cold)?;
    }
    must_be_cold(context, instance)?;
    let abandoned = context.home.generation(left)?.instance;
    must_be_cold(context, &abandoned)?;
    let (own, old) = (context.release(instance)?, context.release(&abandoned)?);
    let (to, from) = (context.placement(instance, &own), context.placement(&abandoned, &old));
    let out = folder(context.home, left, instance.generation);
    // What an attempt left that was undone.
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(io("remove", &out))?;
    }
    create_dir(&out)?;
    let rollback = left_by(context.home, left);
    write_json(&out.join(BEGAN), &Began { rollback: rollback.clone() })?;
    let mut output = Output::default();
    let rules = rules(context.home, left, &instance.release)?;
    let exported = crate::left::exported(context.home, left)?;
    // Where single services went back, the others' later writes are in production already.
    let present: Vec<_> = context.instance(source)?.common_places(&abandoned).into_iter().cloned().collect();
    for name in instance.stores.keys() {
        if !abandoned.stores.contains_key(name) || present.contains(name) {
            continue;
        }
        if exported.as_ref().is_some_and(|e| !e.contains_key(name)) {
            output.notes.push(format!("{name}: nothing of it is in the export"));
            continue;
        }
        let mut rules = rules(name);
        if instance.stores.get(name).is_some_and(|s| s.kind == StoreKind::Files) && !rules.before_upgrade {
            // Each file is compared with what was there before in any case, and there may be many.
            rules.touched = None;
        }
        let done = working(context, &format!("carrying the writes of {name}"), |work| {
            context.world.data.carry(&from, &to, name, &rules, work)
        })?;
        let Some(done) = done else {
            output.notes.push(format!("{name}: there is nothing to recognise later writes by"));
            continue;
        };
        let count = |of: fn(&CarriedPart) -> u64| done.carried.sum(of);
        let (all, quarantined) = (count(CarriedPart::total), count(|p| p.quarantined));
        if all > 0 {
            output.notes.push(format!(
                "{name}: {} of {all} later writes carried, {quarantined} in quarantine",
                count(CarriedPart::carried)
            ));
        }
        output.notes.extend(done.carried.notes.iter().map(|n| format!("{name}: {n}")));
        for (part, found) in &done.carried.parts {
            let reasons = found.why.iter().take(MOST_REASONS);
            output
                .notes
                .extend(reasons.map(|(why, rows)| format!("{name}: {part}: {rows} not carried: {why}")));
        }
        if !done.quarantine.is_empty() {
            write_quarantine(&out.join(format!("{name}.jsonl")), &done.quarantine)?;
        }
        output.carried.insert(name.clone(), done.carried);
        context.midway();
    }
    let sum = |of: fn(&CarriedPart) -> u64| output.carried.values().map(|c| c.sum(of)).sum::<u64>();
    if sum(CarriedPart::carried) == 0 {
        let error = EngineError::refused(
            format!(
                "none of the {} later writes could be carried; {} are in quarantine",
                sum(CarriedPart::total),
                sum(|p| p.quarantined)
            ),
            format!("{} says why; they stay exported", out.display()),
        );
        return Err(Failed { error: error.to_step_error(), output: Box::new(output) });
    }
    let done = Done { run: context.plan.run.clone(), rollback, stores: output.carried.clone() };
    write_json(&out.join(DONE), &done)?;
    Ok(output)
}

fn write_quarantine(path: &Path, all: &[Quarantined]) -> Result<(), EngineError> {
    let mut text = Vec::new();
    for entry in all {
        serde_json::to_writer(&mut text, entry).map_err(|e| io("encode", path)(e.into()))?;
        text.push(b'\n');
    }
    write_atomic(path, &text)
}
