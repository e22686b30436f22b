//! Logs of stores around backups: archived before one, left untouched in it, replayed after it.

use super::backup::short;
use super::data::{must_be_cold, scratch_of, working};
use super::{Context, Failed};
use crate::backup::vault::Vault;
use crate::backup::{ask, configured, manifest, read_manifest, wal};
use crate::data::Logs;
use crate::error::EngineError;
use crate::exec::elapsed_ms;
use std::time::Instant;
use switchback_core::backup::{Archived, Snapshot};
use switchback_core::duration::human_ms;
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::times::utc;

fn logs<'a>(context: &'a Context<'_>) -> Result<&'a dyn Logs, EngineError> {
    context.world.data.logs().ok_or_else(|| EngineError::Internal { detail: "no store has a log".to_owned() })
}

/// Archives what was written so far.
pub fn ship(context: &Context<'_>) -> Result<Output, Failed> {
    let done =
        working(context, "archiving the log", |w| wal::round(context.home, context.config, w.progress))?;
    context.midway();
    let mut output = Output::default();
    for (store, shipped) in done {
        let until = utc(shipped.until_ms);
        output.notes.push(format!("{store}: {} segments; archived up to {until}", shipped.segments));
        output.notes.extend(shipped.note.map(|n| format!("{store}: {n}")));
    }
    Ok(output)
}

/// Replays logs up to a moment.
pub fn replay(context: &Context<'_>, key: &str, snapshot: &str, at_ms: i64) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    scratch_of(context, instance)?;
    let vault = Vault::of_stack(context.home, configured(context.config)?)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let vault = working(context, "opening the repository", |w| context.world.keys.open(&vault, w.progress))?;
    let logs = logs(context)?;
    let way = wal::find(context.home, context.config, context.world, &vault, at_ms)?;
    if way.base != snapshot {
        return Err(EngineError::refused(
            "another backup leads to that moment now than when this was planned",
            "plan it again",
        )
        .into());
    }
    let mut output = Output::default();
    let began = Instant::now();
    let (mut bytes, mut stack) = (0, context.plan.stack.to_string());
    // An attempt that broke off has left the data on another way.
    let again = context.attempt > 1;
    for (store, pieces) in &way.pieces {
        let since = Instant::now();
        let (brought, last) = working(context, "replaying the log", |w| {
            if again {
                let text: String =
                    ask(context.home, context.world, &vault, &read_manifest(snapshot), w.progress)?;
                let said = manifest(&text, snapshot)?;
                stack = said.stack.to_string();
                if let Some(logical) = said.parts.get(store) {
                    logs.again(&at, store, &vault, (snapshot, logical), w)?;
                }
            }
            logs.replay(&at, store, &vault, pieces, at_ms, w)
        })?;
        bytes += brought;
        let segments: usize = pieces.iter().map(|p| p.names.len()).sum();
        output.notes.push(told(store.as_str(), segments, last, at_ms, elapsed_ms(since)));
    }
    let others: Vec<&str> =
        instance.stores.keys().filter(|s| !way.pieces.contains_key(*s)).map(StoreName::as_str).collect();
    if !others.is_empty() {
        output.notes.push(format!("as of the backup ({}): {}", utc(way.base_ms), others.join(", ")));
    }
    output.backup = Some(Archived {
        snapshot: Snapshot {
            id: snapshot.to_owned(),
            stack,
            at_ms: way.base_ms,
            bytes,
            files: 0,
            added: 0,
            bases: Default::default(),
        },
        took_ms: elapsed_ms(began),
        moment_ms: Some(at_ms),
        left_out: Vec::new(),
    });
    Ok(output)
}

/// What was reached, in words.
pub(crate) fn told(store: &str, segments: usize, last: Option<i64>, at_ms: i64, took_ms: u64) -> String {
    let last = last.map_or_else(
        || "nothing was committed between the backup and that".to_owned(),
        |last| format!("its last transaction is of {}", utc(last)),
    );
    format!("{store}: as of {}; {last} ({segments} segments in {})", utc(at_ms), human_ms(took_ms))
}

/// How a backup that a log goes on from is called.
pub(super) fn described(done: &Archived) -> Option<String> {
    let stores: Vec<&str> = done.snapshot.bases.keys().map(StoreName::as_str).collect();
    (!stores.is_empty()).then(|| {
        format!("snapshot {}: the log of {} goes on from it", short(&done.snapshot), stores.join(", "))
    })
}
