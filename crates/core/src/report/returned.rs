//! The sentences about a rollback that brought production back and of which something failed afterwards, and about the export of later
//! writes that makes up for it.

use super::{Advice, Conclusion, Report, StepStatus};
use crate::data::ExportStats;
use crate::plan::Procedure;

/// The step that moves the pointer: from then on production is back.
const FLIP: &str = "flip";
/// The step that exports later writes.
const EXPORT: &str = "export";

fn has(report: &Report, step: &str, status: StepStatus) -> bool {
    report.steps.iter().any(|s| s.id == step && s.status == status)
}

impl Report {
    /// Whether it is of a rollback after which production is back, and a person is needed all the same.
    pub fn is_back(&self) -> bool {
        matches!(self.procedure, Procedure::Rollback | Procedure::ServiceRollback)
            && self.conclusion == Conclusion::NeedsOperator
            && has(self, FLIP, StepStatus::Done)
    }
}

fn is_not_exported(report: &Report) -> bool {
    has(report, EXPORT, StepStatus::Failed)
}

fn number(generation: Option<u32>) -> u32 {
    generation.unwrap_or(0)
}

pub(super) fn headline(report: &Report) -> Option<String> {
    let (from, to) = (number(report.from_generation), number(report.to_generation));
    let failed = report.steps.iter().filter(|s| s.status == StepStatus::Failed).count();
    match (report.procedure, report.conclusion) {
        (Procedure::Export, Conclusion::Pass) => {
            let writes: u64 = report.exports.values().map(ExportStats::total).sum();
            Some(format!("{writes} later writes are exported"))
        }
        (Procedure::Export, Conclusion::Undone) => Some("the later writes are not exported".to_owned()),
        _ if !report.is_back() => None,
        _ if is_not_exported(report) && failed == 1 => Some(format!(
            "production is back on generation {to}, but what was written to generation {from} is not exported"
        )),
        _ => Some(format!("production is back on generation {to}, but something after it failed")),
    }
}

pub(super) fn production(report: &Report) -> Option<String> {
    report.is_back().then(|| format!("Production is back on generation {}.", number(report.to_generation)))
}

pub(super) fn advice(report: &Report) -> Option<Vec<Advice>> {
    let say = |text: String, command: &str| Advice { text, command: Some(command.to_owned()) };
    if report.procedure == Procedure::Export && report.conclusion == Conclusion::Pass {
        let written = report.exports.values().any(|e| e.total() > 0);
        let carry = || say("To bring them into production:".to_owned(), "switchback carry");
        return Some(written.then(carry).into_iter().collect());
    }
    if !report.is_back() {
        return None;
    }
    let (from, to) = (number(report.from_generation), number(report.to_generation));
    let mut list = vec![say(
        format!("See how production is. Another rollback would leave generation {to}, which it is back on."),
        "switchback status",
    )];
    if is_not_exported(report) {
        list.push(say(
            format!(
                "Generation {from} is kept until its later writes are exported. Do it again when the cause is gone:"
            ),
            &format!("switchback export {from}"),
        ));
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GenerationId, StackName};
    use crate::journal::{ErrorKind, Event, Output, Record, RunState, StepError};
    use crate::next::{Next, next};
    use crate::plan::tests::instance;
    use crate::plan::{OnFailure, RollbackFacts, rollback};

    /// The report of a rollback of which these steps failed.
    fn rolled_back(failed: &[&str]) -> Report {
        let plan = rollback(&RollbackFacts {
            run: "R".into(),
            stack: StackName::new("s").expect("valid"),
            now_ms: 0,
            leave: instance(2, "2"),
            target: instance(1, "1"),
            target_previous: None,
            pointer_previous: Some(GenerationId(1)),
            budget_ms: 300_000,
            reason: "test".into(),
            on_failure: OnFailure::Persist { attempts: 1 },
        });
        let mut events = vec![Event::Planned { plan: Box::new(plan.clone()) }];
        let outcome = loop {
            let state = RunState::fold(&plan, &events);
            let step = match next(&plan, &state) {
                Next::Do(step) => step.id.clone(),
                Next::End(outcome) => break outcome,
                other => panic!("{other:?}"),
            };
            events.push(Event::Started { step: step.clone(), attempt: 1 });
            let output = Output::default();
            events.push(if failed.contains(&step.as_str()) {
                let message = format!("{step} does not work");
                let error = StepError { kind: ErrorKind::Host, message, hint: None, details: Vec::new() };
                Event::Failed { step, error, output, took_ms: 1 }
            } else {
                Event::Finished { step, output, took_ms: 1 }
            });
        };
        events.push(Event::Ended { outcome });
        let record = |(seq, event): (usize, Event)| Record {
            run: plan.run.clone(),
            seq: seq as u64 + 1,
            at_ms: seq as i64,
            event,
        };
        let records: Vec<Record> = events.into_iter().enumerate().map(record).collect();
        Report::build(&plan, &records, "switchback", "host")
    }

    #[test]
    fn a_rollback_whose_export_failed_says_that_production_is_back_and_what_is_not_exported() {
        let report = rolled_back(&["export"]);
        assert_eq!(report.conclusion, Conclusion::NeedsOperator);
        assert_eq!(
            report.headline,
            "production is back on generation 1, but what was written to generation 2 is not exported"
        );
        assert_eq!(report.production, "Production is back on generation 1.");
        assert_eq!(report.reasons.len(), 1, "{:?}", report.reasons);
        let commands: Vec<&str> = report.next.iter().filter_map(|a| a.command.as_deref()).collect();
        assert_eq!(commands, ["switchback status", "switchback export 2"]);
    }

    #[test]
    fn a_rollback_whose_checks_failed_says_that_production_is_back_all_the_same() {
        let report = rolled_back(&["checks", "export"]);
        assert_eq!(report.headline, "production is back on generation 1, but something after it failed");
        assert_eq!(report.reasons.len(), 2, "{:?}", report.reasons);
        assert_eq!(report.next.len(), 2);
    }

    #[test]
    fn a_rollback_that_did_not_reach_the_old_generation_does_not_say_so() {
        let report = rolled_back(&["start-old"]);
        assert_eq!(report.headline, "the rollback needs a person");
        assert_eq!(report.production, "Production may be down.");
        assert!(report.next.iter().any(|a| a.command.as_deref() == Some("switchback rollback")));
    }
}
