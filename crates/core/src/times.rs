//! How long things took, read from the journal.

use crate::ids::StepId;
use crate::journal::{Event, Record};

/// UTC time of day with its date: `2026-11-27 18:50:29 UTC`.
pub fn utc(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{ms} ms after 1970"),
    }
}

/// When a step began (its last attempt) and ended; UTC, milliseconds since 1970.
pub fn window(records: &[Record], step: &StepId) -> Option<(i64, i64)> {
    let began = records.iter().rev().find_map(|r| match &r.event {
        Event::Started { step: s, .. } if s == step => Some(r.at_ms),
        _ => None,
    })?;
    let ended = records.iter().rev().find_map(|r| match &r.event {
        Event::Finished { step: s, .. } | Event::Failed { step: s, .. } if s == step => Some(r.at_ms),
        _ => None,
    })?;
    (ended >= began).then_some((began, ended))
}

/// From the beginning of one step (its first attempt) to the end of another, in milliseconds.
pub fn between(records: &[Record], from: &str, to: &str) -> Option<u64> {
    let began = records.iter().find_map(|r| match &r.event {
        Event::Started { step, .. } if step.as_str() == from => Some(r.at_ms),
        _ => None,
    })?;
    let (_, ended) = window(records, &to.into())?;
    u64::try_from(ended - began).ok()
}

/// The outage that users of the services saw in a switch: from the stop of the old instance to the first
/// healthy answer of the new one, in milliseconds. The stability time is not part of it.
pub fn downtime(records: &[Record], stop: &str, start: &str) -> Option<u64> {
    let total = between(records, stop, start)?;
    let (began, ended) = window(records, &start.into())?;
    let first_healthy = records.iter().rev().find_map(|r| match &r.event {
        Event::Finished { step, output, .. } if step.as_str() == start => {
            // Services start in order; the last to answer ends the outage.
            output.services.values().map(|s| s.stable_after_ms.zip(s.healthy_after_ms)).try_fold(
                0,
                |tail: u64, s| {
                    let (stable, healthy) = s?;
                    Some(tail.max(stable.saturating_sub(healthy)))
                },
            )
        }
        _ => None,
    });
    let start_took = u64::try_from(ended - began).ok()?;
    Some(total - first_healthy.unwrap_or(0).min(start_took).min(total))
}

/// How long production will be down for the migration, as a rehearsal shows it: without what only a rehearsal prepares.
pub fn predicted_downtime(records: &[Record]) -> Option<u64> {
    let prepared =
        ["trace-begin", "queries-begin"].iter().filter_map(|step| between(records, step, step)).sum();
    Some(downtime(records, "stop-old", "start-new")?.saturating_sub(prepared))
}

/// Whether the run was taken over by another process between two steps: times across that include the pause.
pub fn resumed_between(records: &[Record], from: &str, to: &str) -> bool {
    let position = |wanted: &dyn Fn(&Event) -> bool| records.iter().position(|r| wanted(&r.event));
    let began = position(&|e| matches!(e, Event::Started { step, .. } if step.as_str() == from));
    let ended = position(&|e| matches!(e, Event::Finished { step, .. } if step.as_str() == to));
    let (Some(began), Some(ended)) = (began, ended) else { return false };
    records.iter().take(ended).skip(began).any(|r| matches!(r.event, Event::Resumed { .. }))
}
