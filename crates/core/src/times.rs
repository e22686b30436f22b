//! How long things took, read from the journal.

use crate::config::Action;
use crate::ids::StepId;
use crate::journal::{Event, Record};
use crate::trigger::Standing;
use std::collections::BTreeMap;

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

/// When the outage of a switch ended: the first healthy answer of what was started; UTC, milliseconds since 1970.
pub fn answered_again_at(records: &[Record], stop: &str, start: &str) -> Option<i64> {
    let began = records.iter().find_map(|r| match &r.event {
        Event::Started { step, .. } if step.as_str() == stop => Some(r.at_ms),
        _ => None,
    })?;
    began.checked_add(i64::try_from(downtime(records, stop, start)?).ok()?)
}

/// Since when a trial that failed, or that a rollback ended, had shown the failure: its first bad sign that was not followed by a
/// good one; UTC, milliseconds since 1970. `None` for a trial that passed, and where nothing bad was seen before it ended.
pub fn failing_since(records: &[Record]) -> Option<i64> {
    let mut probes = None;
    let mut triggers = BTreeMap::new();
    let mut cancelled = None;
    for record in records {
        match &record.event {
            // What had cancelled it was undone.
            Event::TrialBegan { .. } => cancelled = None,
            Event::TrialProbe { ok: true, .. } => probes = None,
            // Without a failure in a row it is the watchdog that cannot look.
            Event::TrialProbe { failures_in_a_row: 1.., .. } => {
                probes.get_or_insert(record.at_ms);
            }
            Event::TriggerChanged { trigger, standing: Standing::Quiet, .. } => {
                triggers.remove(trigger);
            }
            // What only tells somebody, or waits, is not what the rollback was for.
            Event::TriggerChanged { trigger, action: Action::Rollback, .. } => {
                triggers.entry(*trigger).or_insert(record.at_ms);
            }
            Event::TrialFailed { .. } => {
                return Some(triggers.into_values().chain(probes).fold(record.at_ms, i64::min));
            }
            Event::TrialCancelled { .. } => cancelled = triggers.values().copied().chain(probes).min(),
            Event::TrialConfirmed { .. } => return None,
            _ => {}
        }
    }
    cancelled
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RunId;
    use crate::trigger::Trigger;

    fn records(events: &[(i64, Event)]) -> Vec<Record> {
        let record = |(at_ms, event): &(i64, Event)| Record {
            run: RunId::from("R"),
            seq: 1,
            at_ms: *at_ms,
            event: event.clone(),
        };
        events.iter().map(record).collect()
    }

    fn probe(at_ms: i64, ok: bool, failures_in_a_row: u32) -> (i64, Event) {
        (at_ms, Event::TrialProbe { ok, seen: String::new(), failures_in_a_row })
    }

    fn trigger(at_ms: i64, standing: Standing, action: Action) -> (i64, Event) {
        let why = String::new();
        (at_ms, Event::TriggerChanged { trigger: Trigger::Latency, standing, action, why })
    }

    #[test]
    fn a_failure_lasts_since_its_first_bad_sign() {
        let failed = |at_ms| (at_ms, Event::TrialFailed { trigger: "t".to_owned(), reasons: Vec::new() });
        let cancelled = |at_ms| (at_ms, Event::TrialCancelled { why: String::new() });
        let since = |events: &[(i64, Event)]| failing_since(&records(events));
        let good_again = [probe(1, false, 1), probe(2, true, 0), probe(5, false, 1), probe(6, false, 2)];
        assert_eq!(since(&[&good_again[..], &[failed(7)]].concat()), Some(5));
        assert_eq!(since(&[&good_again[..], &[cancelled(9)]].concat()), Some(5));
        assert_eq!(since(&[probe(5, true, 0), failed(7)]), Some(7), "nothing was seen before");
        assert_eq!(since(&[probe(5, true, 0), cancelled(7)]), None, "nothing speaks for a failure");
        assert_eq!(since(&[probe(5, false, 0), failed(7)]), Some(7), "the watchdog was blind");
        let suspect = trigger(3, Standing::Suspect, Action::Rollback);
        let fired = trigger(6, Standing::Fired, Action::Rollback);
        assert_eq!(since(&[suspect.clone(), fired.clone(), failed(7)]), Some(3));
        let quiet = trigger(4, Standing::Quiet, Action::Rollback);
        assert_eq!(since(&[suspect.clone(), quiet, fired, failed(7)]), Some(6));
        assert_eq!(since(&[trigger(3, Standing::Fired, Action::Notify), failed(7)]), Some(7));
        let confirmed = Event::TrialConfirmed { probes: 1, by: None };
        assert_eq!(since(&[probe(5, false, 1), (8, confirmed)]), None);
        assert_eq!(since(&good_again), None, "it has not ended");
        // What cancelled it was undone: it begins again.
        let began = || (7, Event::TrialBegan { generation: crate::ids::GenerationId(2), deadline_ms: 99 });
        let cancelled_once = [&good_again[..], &[cancelled(6), began()]].concat();
        assert_eq!(since(&cancelled_once), None, "it has not ended");
        assert_eq!(since(&[&cancelled_once[..], &[probe(8, false, 1), failed(9)]].concat()), Some(5));
    }

    #[test]
    fn production_answers_again_with_the_first_healthy_answer() {
        let started = |at_ms, step: &str| (at_ms, Event::Started { step: step.into(), attempt: 1 });
        let finished =
            |at_ms, step: &str, output| (at_ms, Event::Finished { step: step.into(), output, took_ms: 0 });
        let mut output = crate::journal::Output::default();
        let times = crate::journal::ServiceTimes {
            healthy_after_ms: Some(100),
            stable_after_ms: Some(400),
            ..Default::default()
        };
        output.services.insert(crate::ids::ServiceName::new("app").expect("valid"), times);
        let events = [
            started(1000, "stop-new"),
            finished(1200, "stop-new", crate::journal::Output::default()),
            started(1300, "start-old"),
            finished(1800, "start-old", output),
        ];
        assert_eq!(answered_again_at(&records(&events), "stop-new", "start-old"), Some(1500));
        assert_eq!(answered_again_at(&records(&events[..3]), "stop-new", "start-old"), None);
    }
}
