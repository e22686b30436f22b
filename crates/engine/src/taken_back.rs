//! Releases that production was taken back from: with the same artefacts and configuration it would happen again.

use crate::certificate::release_of;
use crate::error::EngineError;
use crate::journal::Journal;
use std::collections::BTreeMap;
use switchback_core::ids::{Digest, StepId};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::{Op, Plan, Procedure};
use switchback_core::release::describe_change;

/// Who wants to promote: that decides what speaks against a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A person, who knows what people did to the release before.
    ByPerson,
    /// Nobody: it is `switchback auto`.
    ByClock,
}

/// Releases that production was taken back from, and that no later trial confirmed: when, and why. For a clock that is also what
/// people rolled back, and a promotion that was undone after production was stopped for it.
fn taken_back(journal: &Journal, asked: Asked) -> Result<BTreeMap<Digest, (i64, String)>, EngineError> {
    let mut plans = BTreeMap::new();
    for record in journal.of_kind("planned")? {
        if let Event::Planned { plan } = record.event {
            plans.insert(record.run, plan);
        }
    }
    let mut records = Vec::new();
    for kind in ["trial_failed", "trial_confirmed", "ended"] {
        records.extend(journal.of_kind(kind)?);
    }
    records.sort_by_key(|r| r.seq);
    let mut found = BTreeMap::new();
    for record in records {
        let Some(plan) = plans.get(&record.run) else { continue };
        let (left, made) = (release_of(plan, plan.from_generation), release_of(plan, plan.to_generation));
        let (release, why) = match record.event {
            Event::TrialFailed { trigger, .. } => (made, trigger),
            Event::TrialConfirmed { .. } => {
                if let Some(release) = made {
                    found.remove(&release);
                }
                continue;
            }
            Event::Ended { outcome } if asked == Asked::ByClock => match (plan.procedure, outcome) {
                (Procedure::Rollback | Procedure::ServiceRollback, Outcome::Done) => {
                    (left, plan.reason.clone().unwrap_or_default())
                }
                (Procedure::Promote, Outcome::Undone { error, .. }) if stopped(journal, plan)? => {
                    (made, error.message)
                }
                _ => continue,
            },
            _ => continue,
        };
        if let Some(release) = release {
            found.insert(release, (record.at_ms, why));
        }
    }
    Ok(found)
}

/// Whether a run has begun to stop production.
fn stopped(journal: &Journal, plan: &Plan) -> Result<bool, EngineError> {
    let state = journal.load(&plan.run)?.1;
    let begun = |id: &StepId| state.steps.get(id).is_some_and(|s| s.attempts > 0);
    Ok(plan.steps.iter().any(|s| matches!(s.op, Op::Stop { .. }) && begun(&s.id)))
}

/// Refuses a release that production was taken back from before: with the same artefacts and configuration it would happen again.
pub fn refuse_what_failed(journal: &Journal, plan: &Plan, asked: Asked) -> Result<(), EngineError> {
    let failed = taken_back(journal, asked)?;
    let runs = release_of(plan, plan.from_generation);
    let releases = plan.instances.values().map(|i| &i.release).filter(|r| Some(*r) != runs.as_ref());
    let Some((at_ms, why)) = releases.filter_map(|r| failed.get(r)).next() else { return Ok(()) };
    let when = jiff::Timestamp::from_millisecond(*at_ms)
        .map_or_else(|_| String::new(), |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string());
    Err(EngineError::refused(
        format!(
            "{} with exactly these artefacts and configuration was rolled back on {when}: {why}",
            describe_change(&plan.from, &plan.to)
        ),
        "`switchback history` has its report; after a fix the release is another one. To try the same again: `--again`",
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use switchback_core::ids::{GenerationId, StackName};
    use switchback_core::journal::{ErrorKind, StepError};
    use switchback_core::plan::{Group, OnFailure, Step, Undo};
    use switchback_core::release::{FORMAT, Instance, PRODUCTION, Shared};

    /// A run that leaves a generation of one release for one of another; a digest of a letter each.
    pub(crate) fn plan(run: &str, procedure: Procedure, from: (u32, &str), to: (u32, &str)) -> Plan {
        let instance = |(generation, release): (u32, &str)| Instance {
            environment: PRODUCTION.to_owned(),
            generation: GenerationId(generation),
            release: Digest(release.repeat(64)),
            versions: BTreeMap::new(),
            stores: BTreeMap::new(),
            dir: format!("generations/{generation}"),
            project: None,
            shared: Shared::default(),
            closed: false,
            ports: BTreeMap::new(),
        };
        let (from, to) = (instance(from), instance(to));
        let stop = Step {
            id: "stop-old".into(),
            title: String::new(),
            op: Op::Stop { instance: from.key() },
            undo: Undo::Reverse,
            on_failure: OnFailure::Undo,
            requires: Vec::new(),
            group: Group::Switch,
        };
        Plan {
            format: FORMAT,
            run: run.into(),
            procedure,
            stack: StackName::new("s").expect("a name"),
            made_at_ms: 1,
            from: BTreeMap::new(),
            to: BTreeMap::new(),
            from_generation: Some(from.generation),
            to_generation: Some(to.generation),
            reason: (procedure == Procedure::Rollback).then(|| "it is slow".to_owned()),
            budget_ms: 1,
            instances: [from, to].into_iter().map(|i| (i.key(), i)).collect(),
            steps: vec![stop],
        }
    }

    /// Whether a clock and a person may promote release b to where a runs.
    fn refused(journal: &Journal) -> (bool, bool) {
        let wanted = plan("W", Procedure::Promote, (1, "a"), (9, "b"));
        let refused = |asked| refuse_what_failed(journal, &wanted, asked).is_err();
        (refused(Asked::ByClock), refused(Asked::ByPerson))
    }

    #[test]
    fn what_production_was_taken_back_from_is_refused_until_a_later_trial_confirms_it() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(&dir.path().join("journal.db")).expect("opens");
        let begin = |journal: &mut Journal, plan: Plan| {
            let run = plan.run.clone();
            let event = Event::Planned { plan: Box::new(plan) };
            journal.append(&run, 5, &event).expect("appends");
            run
        };
        let ended = |outcome| Event::Ended { outcome };
        let confirmed = Event::TrialConfirmed { probes: 3, by: None };

        let run = begin(&mut journal, plan("P1", Procedure::Promote, (1, "a"), (2, "b")));
        journal.append(&run, 6, &ended(Outcome::Done)).expect("appends");
        journal.append(&run, 7, &confirmed).expect("appends");
        assert_eq!(refused(&journal), (false, false), "a promotion");
        let run = begin(&mut journal, plan("R1", Procedure::Rollback, (2, "b"), (1, "a")));
        assert_eq!(refused(&journal), (false, false), "a rollback that has not ended");
        journal.append(&run, 8, &ended(Outcome::Done)).expect("appends");
        assert_eq!(refused(&journal), (true, false), "a person rolled it back");
        let wanted = plan("W", Procedure::Promote, (1, "a"), (9, "b"));
        let why = refuse_what_failed(&journal, &wanted, Asked::ByClock).expect_err("refuses").to_string();
        assert!(why.contains("was rolled back on 1970-01-01") && why.ends_with("it is slow"), "{why}");
        let other = plan("W", Procedure::Promote, (1, "a"), (9, "c"));
        refuse_what_failed(&journal, &other, Asked::ByClock).expect("another release is not meant");

        let run = begin(&mut journal, plan("P2", Procedure::Promote, (1, "a"), (3, "b")));
        journal.append(&run, 9, &ended(Outcome::Done)).expect("appends");
        assert_eq!(refused(&journal), (true, false), "its trial is not over");
        journal.append(&run, 10, &confirmed).expect("appends");
        assert_eq!(refused(&journal), (false, false), "it is confirmed");

        let run = begin(&mut journal, plan("P3", Procedure::Promote, (1, "a"), (4, "b")));
        let error = StepError {
            kind: ErrorKind::Refused,
            message: "it did not start".to_owned(),
            hint: None,
            details: Vec::new(),
        };
        let undone = ended(Outcome::Undone { step: None, error });
        journal.append(&run, 11, &undone).expect("appends");
        assert_eq!(refused(&journal), (false, false), "it was undone before production was stopped");
        let run = begin(&mut journal, plan("P4", Procedure::Promote, (1, "a"), (5, "b")));
        let started = Event::Started { step: "stop-old".into(), attempt: 1 };
        journal.append(&run, 12, &started).expect("appends");
        journal.append(&run, 13, &undone).expect("appends");
        assert_eq!(refused(&journal), (true, false), "production was stopped for it");

        let run = begin(&mut journal, plan("P5", Procedure::Promote, (1, "a"), (6, "b")));
        let failed = Event::TrialFailed { trigger: "3 probes".to_owned(), reasons: Vec::new() };
        journal.append(&run, 14, &failed).expect("appends");
        assert_eq!(refused(&journal), (true, true), "the watchdog rolled it back");
    }
}
