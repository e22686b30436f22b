//! The sentences of a report: headline, what became of production, what to do next.

use super::{Advice, Conclusion, Report, StepStatus};
use crate::carry::CarriedPart;
use crate::check::{CheckKind, CheckResult, Verdict};
use crate::duration::{human_bytes, human_ms};
use crate::plan::{Plan, Procedure};
use crate::scaling::Growth;

pub(super) fn headline(report: &Report) -> String {
    let change = &report.change;
    let (passed, all) = report.check_counts();
    let rollback = report.times.rollback_ms.map(human_ms);
    match (report.procedure, report.conclusion) {
        (Procedure::Rehearse, Conclusion::Pass) => format!(
            "{change} is safe to promote: {passed} of {all} checks passed, and the rollback took {}",
            rollback.unwrap_or_else(|| "an unknown time".to_owned())
        ),
        (Procedure::Rehearse, Conclusion::Refused) => format!("{change} is not safe to promote"),
        (Procedure::Rehearse, Conclusion::Inconclusive) => format!("{change} could not be judged"),
        (Procedure::Path, Conclusion::Pass) => {
            format!("every step of {change} works: {passed} of {all} checks passed on the way")
        }
        (Procedure::Path, Conclusion::Refused) => match broken_at(report) {
            Some(at) => format!("the way of {change} breaks at {at}"),
            None => format!("the way of {change} breaks"),
        },
        (Procedure::Path, Conclusion::Inconclusive) => format!("the way of {change} could not be judged"),
        (Procedure::Scaling, Conclusion::Pass) => scaling(report),
        (Procedure::Scaling, Conclusion::Refused) => format!("the migration of {change} fails"),
        (Procedure::Scaling, Conclusion::Inconclusive) => {
            format!("the migration of {change} could not be timed")
        }
        (Procedure::Promote, Conclusion::OnTrial) => format!("{change} is in production, on trial"),
        (Procedure::Promote, Conclusion::Pass) => format!("{change} is in production and passed its trial"),
        (Procedure::Promote, Conclusion::RolledBack) => {
            format!("{change} failed in production and was rolled back")
        }
        (Procedure::Rollback, Conclusion::Pass) => format!(
            "production is back on generation {} after {}{}",
            report.to_generation.unwrap_or(0),
            rollback.unwrap_or_else(|| "an unknown time".to_owned()),
            not_judged(report)
        ),
        (Procedure::ServiceRollback, Conclusion::Pass | Conclusion::OnTrial) => format!(
            "{change}, with its data, after {}; all other services went on{}",
            rollback.unwrap_or_else(|| "an unknown time".to_owned()),
            not_judged(report)
        ),
        (Procedure::ServiceRollback, Conclusion::RolledBack) => {
            format!(
                "the services that were not rolled back ({change}) failed in production, which was rolled back"
            )
        }
        (procedure, conclusion) if procedure.is_staging() => staging(report, conclusion),
        (Procedure::Backup, Conclusion::Pass) => match &report.backup {
            Some(done) => format!(
                "a backup of {}: {}, of which {} were new",
                report.stack,
                human_bytes(done.snapshot.bytes),
                human_bytes(done.snapshot.added)
            ),
            None => "the backup was made".to_owned(),
        },
        (Procedure::Drill, Conclusion::Pass) => format!(
            "the backup can be restored: {passed} of {all} checks passed on it, after {}",
            human_ms(report.times.total_ms)
        ),
        (Procedure::Drill, Conclusion::Inconclusive) => {
            "it is not proved that the backup can be used".to_owned()
        }
        (Procedure::RollbackDrill, Conclusion::Pass) => format!(
            "production can be returned ({change}): {passed} of {all} checks passed after it, and it took {}",
            rollback.unwrap_or_else(|| "an unknown time".to_owned())
        ),
        (Procedure::RollbackDrill, Conclusion::Inconclusive) => {
            "it is not proved that production can be returned".to_owned()
        }
        (Procedure::ProductionDrill, Conclusion::Pass) => format!(
            "production returned after {}, and is as before; it was away for {}",
            rollback.unwrap_or_else(|| "an unknown time".to_owned()),
            report.times.downtime_ms.map_or_else(|| "an unknown time".to_owned(), human_ms)
        ),
        (Procedure::ProductionDrill, Conclusion::Inconclusive) => {
            "production is as before, but it is not proved that it returns whole".to_owned()
        }
        (Procedure::ProductionDrill, Conclusion::Refused) => {
            "production is as before, but its return does not count".to_owned()
        }
        (Procedure::Restore, Conclusion::Pass) if report.from_generation.is_none() => {
            "the stack was brought back from a backup".to_owned()
        }
        (Procedure::Restore, Conclusion::OnTrial) => "a backup is in production, on trial".to_owned(),
        (Procedure::Restore, Conclusion::Pass) => "a backup is in production and passed its trial".to_owned(),
        (Procedure::Restore, Conclusion::RolledBack) => {
            "a backup failed in production, which was rolled back".to_owned()
        }
        (Procedure::Carry, Conclusion::OnTrial) => format!("{} in production, on trial", carried(report)),
        (Procedure::Carry, Conclusion::Pass) => {
            format!("{} in production, and passed the trial", carried(report))
        }
        (Procedure::Carry, Conclusion::RolledBack) => {
            "what was carried failed in production, which was rolled back".to_owned()
        }
        (Procedure::Up, Conclusion::Pass) => "production is up".to_owned(),
        (Procedure::Down, Conclusion::Pass) => "production is stopped".to_owned(),
        (
            procedure @ (Procedure::Backup
            | Procedure::Drill
            | Procedure::ProductionDrill
            | Procedure::Restore
            | Procedure::Carry),
            Conclusion::Undone,
        ) => {
            format!("the {} failed and was undone", procedure.noun())
        }
        (procedure, Conclusion::Undone) if by_request(report) => {
            format!("the {} of {change} was undone, as asked for", procedure.noun())
        }
        (procedure, Conclusion::Undone) => {
            format!("the {} of {change} failed and was undone", procedure.noun())
        }
        (procedure, Conclusion::NeedsOperator) => format!("the {} needs a person", procedure.noun()),
        (procedure, Conclusion::Unfinished) => format!("the {} has not ended", procedure.noun()),
        (procedure, other) => format!("{}: {other:?}", procedure.as_str()),
    }
}

/// Checks that say nothing, and why.
fn undecided(report: &Report) -> impl Iterator<Item = (&CheckResult, &String)> {
    report.checks.iter().filter_map(|c| match &c.verdict {
        Verdict::Inconclusive { why } | Verdict::NotRun { why } => Some((c, why)),
        _ => None,
    })
}

/// How many checks could not be judged after a rollback: it is done all the same.
fn not_judged(report: &Report) -> String {
    match (undecided(report).count(), report.checks.len()) {
        (0, _) => String::new(),
        (open, all) => format!(", but {open} of {all} checks could not be judged"),
    }
}

/// The first step of a path that did not work: `app 2.0.0 -> 2.1.0`.
fn broken_at(report: &Report) -> Option<&str> {
    let failed = report
        .steps
        .iter()
        .find(|s| matches!(s.status, StepStatus::Failed | StepStatus::Finding) && s.title.contains(" -> "))?;
    failed.title.split_once(": ").map(|(change, _)| change)
}

fn quarantined(report: &Report) -> u64 {
    report.carried.values().map(|c| c.sum(|p| p.quarantined)).sum()
}

fn carried(report: &Report) -> String {
    let count = |of: fn(&CarriedPart) -> u64| report.carried.values().map(|c| c.sum(of)).sum::<u64>();
    let (done, all) = (count(|p| p.carried() + p.already), count(CarriedPart::total));
    format!("{done} of {all} later writes are")
}

pub(super) fn production(plan: &Plan, report: &Report) -> String {
    let generation =
        |g: Option<u32>| g.map_or_else(|| "its generation".to_owned(), |g| format!("generation {g}"));
    match (plan.procedure, report.conclusion) {
        (procedure, _) if procedure.is_aside() => {
            format!("Production was not touched; it stays on {}.", generation(report.from_generation))
        }
        (_, Conclusion::Undone) => {
            format!("Production is as before, on {}.", generation(report.from_generation))
        }
        (_, Conclusion::RolledBack) => {
            format!("Production is back on {}.", generation(report.from_generation))
        }
        (_, Conclusion::NeedsOperator) => "Production may be down.".to_owned(),
        (_, Conclusion::Unfinished) => "The run has not ended; production is between two states.".to_owned(),
        (Procedure::Down, _) => "Production is stopped.".to_owned(),
        _ => format!("Production runs {}.", generation(report.to_generation)),
    }
}

pub(super) fn advice(report: &Report) -> Vec<Advice> {
    let say = |text: &str, command: Option<&str>| Advice {
        text: text.to_owned(),
        command: command.map(str::to_owned),
    };
    match (report.procedure, report.conclusion) {
        (Procedure::Rehearse, Conclusion::Pass) => {
            vec![say("Promote it; the certificate permits it.", Some(&with_versions(report, "promote")))]
        }
        (Procedure::Path, Conclusion::Pass) => {
            vec![say(
                "Upgrade step by step: each one needs a certificate of its own.",
                Some("switchback upgrade"),
            )]
        }
        (Procedure::Rehearse, Conclusion::Refused) => {
            let mut advice = vec![say("Look at what failed. Nothing has to be undone.", None)];
            let data = |c: &&CheckResult| c.kind == CheckKind::Integrity;
            if report.checks.iter().filter(data).any(|c| matches!(c.verdict, Verdict::Fail { .. })) {
                advice.push(say(
                    "If a change of the data is intended, name it in checks.expected_changes (store.table, as above).",
                    None,
                ));
            }
            let otherwise =
                |c: &&CheckResult| !c.verdict.permits() && c.looks.iter().any(|l| l.differs() && !l.approved);
            if report.checks.iter().any(|c| otherwise(&c)) {
                advice.push(say(
                    "If the pages look as they should now (under Pages), approve them.",
                    Some(&format!("switchback check approve {}", report.run)),
                ));
            }
            advice.push(say("After a fix, rehearse again.", Some(&with_versions(report, "rehearse"))));
            advice
        }
        (Procedure::Rehearse, Conclusion::Inconclusive) => {
            vec![say(
                "Make the open points decidable and rehearse again; inconclusive never promotes.",
                Some(&with_versions(report, "rehearse")),
            )]
        }
        (Procedure::Promote | Procedure::Restore | Procedure::Carry, Conclusion::OnTrial) => vec![
            say(
                "The watchdog watches and rolls back by itself; this terminal is not needed.",
                Some("switchback status"),
            ),
            say("To return now:", Some("switchback rollback")),
        ],
        (Procedure::Backup, Conclusion::Pass) => {
            vec![say("See whether it can be restored.", Some("switchback drill restore"))]
        }
        (Procedure::Carry, Conclusion::Pass) if quarantined(report) > 0 => vec![
            say(
                &format!(
                    "Look at what is in quarantine ({} in .switchback/exports/generation-*/carried-into-{}); its values are in the export.",
                    quarantined(report),
                    report.to_generation.unwrap_or(0)
                ),
                None,
            ),
            say("The generation before is kept; to return to it:", Some("switchback rollback")),
        ],
        (Procedure::Promote | Procedure::Restore | Procedure::Carry, Conclusion::Pass) => {
            vec![say(
                "Nothing. The previous generation is kept; a rollback stays possible.",
                Some("switchback rollback"),
            )]
        }
        (_, Conclusion::RolledBack)
        | (Procedure::Rollback | Procedure::ServiceRollback, Conclusion::Pass | Conclusion::OnTrial) => {
            let mut list = Vec::new();
            if report.conclusion != Conclusion::RolledBack && undecided(report).next().is_some() {
                let each = undecided(report).map(|(check, why)| format!("{}: {why}", check.id));
                let each: Vec<String> = each.collect();
                let text = format!("Look yourself at what could not be judged: {}.", each.join("; "));
                list.push(say(&text, Some("switchback status")));
            }
            list.push(say(
                "Find out why before trying again; a rehearsal costs production nothing.",
                Some("switchback rehearse"),
            ));
            if report.procedure == Procedure::ServiceRollback {
                list.push(say("To return the whole stack:", Some("switchback rollback")));
            }
            if report.exports.values().any(|e| e.total() > 0) {
                list.push(say(
                    "Writes made in the meantime were exported; the report lists them. To bring them into production:",
                    Some("switchback carry"),
                ));
            }
            list
        }
        (procedure, Conclusion::Pass) if procedure.is_staging() => match procedure {
            Procedure::StagingDown => Vec::new(),
            _ => vec![say("See it, and its addresses.", Some("switchback staging status"))],
        },
        (procedure, Conclusion::NeedsOperator) if procedure.is_staging() => vec![
            say(
                "Its data may be half replaced; get it again once the cause is gone,",
                Some("switchback staging sync"),
            ),
            say("or remove it.", Some("switchback staging down")),
        ],
        (_, Conclusion::Undone) if by_request(report) => Vec::new(),
        (_, Conclusion::Undone) => {
            vec![say("Nothing has to be repaired. Fix the cause named above, then try again.", None)]
        }
        (_, Conclusion::Unfinished) => vec![
            say("Go on with it:", Some("switchback resume")),
            say("Or undo it:", Some("switchback resume --abort")),
        ],
        (Procedure::Rollback, Conclusion::NeedsOperator) => vec![
            say("See where production stands.", Some("switchback status")),
            say(
                "Once the cause is gone, and if production still is the generation that was to be left, return from it:",
                Some("switchback rollback"),
            ),
            say("If it is the one that was to be returned to, start it:", Some("switchback up")),
        ],
        (_, Conclusion::NeedsOperator) => vec![
            say("See where production stands.", Some("switchback status")),
            say("Once the cause is gone, start what must run.", Some("switchback up")),
        ],
        _ => Vec::new(),
    }
}

/// What became of a staging environment.
fn staging(report: &Report, conclusion: Conclusion) -> String {
    let what = match report.procedure {
        Procedure::StagingSync => "synchronisation",
        Procedure::StagingReset => "reset",
        Procedure::StagingStop => "stop",
        Procedure::StagingDown => "removal",
        _ => "start",
    };
    match conclusion {
        Conclusion::Pass => match report.procedure {
            Procedure::StagingSync => "the environment runs on production's present data".to_owned(),
            Procedure::StagingReset => "the environment runs on the data of its last sync".to_owned(),
            Procedure::StagingStop => "the environment is stopped; its data is kept".to_owned(),
            Procedure::StagingDown => "the environment is removed; nothing of it is left".to_owned(),
            _ => "the environment is up".to_owned(),
        },
        Conclusion::Undone if by_request(report) => {
            format!("the {what} of the environment was undone, as asked for")
        }
        Conclusion::Undone => format!("the {what} of the environment failed, and nothing of it is left"),
        Conclusion::Unfinished => format!("the {what} of the environment has not ended"),
        _ => format!("the {what} of the environment failed"),
    }
}

/// How long the migration takes.
fn scaling(report: &Report) -> String {
    let change = &report.change;
    let Some(found) = &report.scaling else { return format!("the migration of {change} was timed") };
    let said = |times: f64| found.predictions.iter().find(|p| p.times_production >= times);
    match (found.growth, said(1.0), said(2.0)) {
        (Some(Growth::None), Some(now), _) => format!(
            "the migration of {change} takes about {} whatever the size of the data",
            human_ms(now.took_ms)
        ),
        (Some(_), Some(now), Some(later)) => format!(
            "the migration of {change} takes about {} at production's size ({} to {}), and {} at twice that ({} to {})",
            human_ms(now.took_ms),
            human_ms(now.low_ms),
            human_ms(now.high_ms),
            human_ms(later.took_ms),
            human_ms(later.low_ms),
            human_ms(later.high_ms)
        ),
        _ => format!(
            "the migration of {change} was timed, but not how it grows: {}",
            found.why_not.as_deref().unwrap_or("there are too few times")
        ),
    }
}

/// A command with the versions that the report is about: they may have stood on its command line only.
fn with_versions(report: &Report, command: &str) -> String {
    let mut command = format!("switchback {command}");
    for (service, version) in report.to.iter().filter(|(s, v)| report.from.get(*s) != Some(*v)) {
        // `latest@0a1b...` names the image that was found; it is no version that can be asked for.
        if report.from.contains_key(service) && !version.contains('@') {
            command.push_str(&format!(" {service}={version}"));
        }
    }
    command
}

/// Whether the run was undone because a person wanted it, not because a step failed.
fn by_request(report: &Report) -> bool {
    report.steps.iter().all(|s| s.error.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GenerationId, StackName};
    use crate::journal::{Event, Outcome, Output, Record};
    use crate::plan::tests::instance;
    use crate::plan::{OnFailure, RollbackFacts, rollback};

    /// The report of a rollback after which the checks said this.
    fn rolled_back(verdicts: &[Verdict]) -> Report {
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
            on_failure: OnFailure::Undo,
        });
        let check = |(number, verdict): (usize, &Verdict)| CheckResult {
            id: format!("workflow/{number}"),
            kind: CheckKind::Workflow,
            environment: "production".to_owned(),
            verdict: verdict.clone(),
            took_ms: 1,
            measured: Default::default(),
            steps: Vec::new(),
            artefacts: Vec::new(),
            looks: Vec::new(),
        };
        let output = Output { checks: verdicts.iter().enumerate().map(check).collect(), ..Output::default() };
        let events = [
            Event::Planned { plan: Box::new(plan.clone()) },
            Event::Started { step: "checks".into(), attempt: 1 },
            Event::Finished { step: "checks".into(), output, took_ms: 1 },
            Event::Ended { outcome: Outcome::Done },
        ];
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
    fn a_rollback_says_which_checks_could_not_be_judged_after_it() {
        let open = || Verdict::Inconclusive { why: "it did not answer".to_owned() };
        let report = rolled_back(&[Verdict::Pass, open(), Verdict::Pass]);
        assert_eq!(report.conclusion, Conclusion::Pass);
        assert!(report.headline.ends_with(", but 1 of 3 checks could not be judged"), "{}", report.headline);
        assert!(report.next[0].text.contains("workflow/1: it did not answer"), "{:?}", report.next);
        let well = rolled_back(&[Verdict::Pass]);
        assert!(!well.headline.contains("judged"), "{}", well.headline);
        assert_eq!(well.next.len(), report.next.len() - 1);
    }
}
