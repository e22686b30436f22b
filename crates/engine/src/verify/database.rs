//! What the rehearsal proves about the migration of the data.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use super::staging::status;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::data::{PartChange, StoreDiff};
use switchback_core::duration::human_ms;
use switchback_core::plan::{Op, Step};
use switchback_core::report::StepStatus;

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let ran = lab.rehearsed()?.clone();
    let locks = super::locks::prove(lab, &ran)?;
    for proof in
        [migrated(&ran), integrity(lab, &ran)?, rolled_back(&ran), code_only(&ran), time(lab, &ran)?, locks]
    {
        lab.add(proof);
    }
    let proof = super::versions::prove(lab)?;
    lab.add(proof);
    Ok(())
}

/// The steps that migrate.
pub fn migrations(ran: &Ran) -> Vec<&Step> {
    ran.plan.steps.iter().filter(|s| matches!(s.op, Op::Migrate { .. })).collect()
}

/// What the upgrade did to the shape of the data.
fn changes(ran: &Ran) -> Vec<String> {
    let mut found = Vec::new();
    for (store, diff) in &ran.report.diffs {
        found.extend(changes_of(diff).into_iter().map(|c| format!("{store}: {c}")));
    }
    found
}

/// What an upgrade did to the shape of one store.
pub fn changes_of(diff: &StoreDiff) -> Vec<String> {
    let mut found = diff.schema_changes.clone();
    for part in &diff.parts {
        if matches!(part.change, PartChange::Added | PartChange::Dropped) {
            found.push(format!("{}: {:?}", part.name, part.change).to_lowercase());
        }
        if !part.columns_added.is_empty() {
            found.push(format!("{}: columns added: {}", part.name, part.columns_added.join(", ")));
        }
    }
    found
}

fn migrated(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "migration.ran",
        "the migration commands of the upgrade ended well on a clone of production's data and the new version started on it",
    )
    .of_run(&ran.plan.run);
    let changes = changes(ran);
    for (service, ms) in &ran.report.times.migrations_ms {
        proof.measure(format!("{service}, time"), human_ms(*ms));
    }
    proof.measure(
        "changes of the schema",
        if changes.is_empty() { "none".to_owned() } else { changes.join("; ") },
    );
    let steps = migrations(ran);
    for step in &steps {
        let error = ran.report.steps.iter().find(|s| s.id == step.id.as_str()).and_then(|s| s.error.as_ref());
        let why = error.map_or_else(|| "it did not run".to_owned(), |e| e.message.clone());
        proof.demand(ran.state.succeeded(&step.id), &step.title, why);
    }
    if steps.is_empty() && changes.is_empty() {
        proof.not_run("this upgrade migrates nothing: no migration command runs and no schema changed");
    } else {
        let started = matches!(status(ran, "start-new"), Some(StepStatus::Done | StepStatus::Undone));
        proof.demand(started, "the new version", "it did not start on the migrated data");
    }
    proof
}

fn integrity(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "migration.integrity",
        "compared row by row and file by file: nothing lost or altered but declared changes and migration books; the new database is sound",
    )
    .of_run(&ran.plan.run);
    let checks: Vec<_> = ran.report.checks.iter().filter(|c| c.kind == CheckKind::Integrity).collect();
    for (store, diff) in &ran.report.diffs {
        proof.measure(
            store.as_str(),
            format!(
                "{} parts unchanged, {} rows or files lost or altered",
                diff.unchanged,
                diff.lost_or_altered()
            ),
        );
    }
    for check in &checks {
        match &check.verdict {
            Verdict::Fail { reasons } => {
                for reason in reasons {
                    proof.demand(false, &reason.at, &reason.what);
                }
            }
            Verdict::Pass => {
                proof.demand(true, &check.id, "");
            }
            other => {
                proof.doubt(format!("{}: {}", check.id, other.word()));
            }
        }
    }
    // A comparison that was left out must not look like one that found nothing.
    let existed = ran.state.output(&"fingerprint-snapshot".into()).map(|o| &o.fingerprints);
    for name in existed.into_iter().flat_map(|f| f.keys()) {
        let compared = checks.iter().any(|c| c.id == format!("integrity/{name}"));
        if !checks.is_empty() {
            proof.demand(compared, name.as_str(), "it was not compared");
            proof.demand(ran.report.diffs.contains_key(name), name.as_str(), "no comparison of it is kept");
        }
    }
    if lab.sandbox()?.places.is_empty() {
        proof.not_applicable("the stack has no data");
    } else if checks.is_empty() {
        proof.not_run("the data was not compared; the new version did not start, or there is no data");
    }
    Ok(proof)
}

fn rolled_back(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "migration.data-rollback",
        "after the migration the old generation's fingerprint is what it was before, the old version started on it within the budget, and the checks passed",
    )
    .of_run(&ran.plan.run);
    let before = ran.state.output(&"fingerprint-before".into()).map(|o| &o.fingerprints);
    let after = ran.state.output(&"fingerprint-untouched".into()).map(|o| &o.fingerprints);
    match (before, after) {
        (Some(before), Some(after)) if !before.is_empty() => {
            for (store, one) in before {
                let other = after.get(store);
                proof.measure(
                    store.as_str(),
                    format!(
                        "{} before, {} after",
                        one.digest.short(),
                        other.map_or("nothing", |o| o.digest.short())
                    ),
                );
                proof.demand(
                    other.is_some_and(|o| o.digest == one.digest),
                    store.as_str(),
                    "the old data was changed",
                );
            }
        }
        _ => {
            proof.doubt("the fingerprints were not taken");
        }
    }
    for step in ["rollback-stop", "rollback-start", "rollback-read-back", "checks-after-rollback"] {
        let done = matches!(status(ran, step), Some(StepStatus::Done | StepStatus::Undone));
        proof.demand(done, step, "it did not succeed");
    }
    let times = &ran.report.times;
    if let Some(ms) = times.rollback_ms {
        proof.measure("rollback", format!("{} of {}", human_ms(ms), human_ms(times.budget_ms)));
    }
    proof.demand_known(
        times.rollback_ms,
        |ms| *ms <= times.budget_ms,
        "rollback",
        "it took longer than its budget",
    );
    proof
}

fn code_only(ran: &Ran) -> Proof {
    let mut proof = Proof::new(
        "migration.code-only",
        "observed either way: does the old version pass its checks on the migrated data?",
    )
    .of_run(&ran.plan.run);
    match &ran.report.code_only {
        Some(seen) => {
            let answer = if seen.possible {
                "yes: the code alone could be put back"
            } else {
                "no: the data must go back too"
            };
            proof.measure("the old version on migrated data", answer).measure("seen", &seen.why);
            proof.demand(true, "", "");
        }
        None => {
            proof.not_run(
                "it was not tried: the new version did not start, or `rehearsal.code_only_rollback` is off",
            );
        }
    }
    proof
}

fn time(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let mut proof = Proof::new("migration.time", "each migration ended within its `migrate_deadline`")
        .of_run(&ran.plan.run);
    let services = &lab.sandbox()?.desired.services;
    for step in migrations(ran) {
        let Op::Migrate { service, .. } = &step.op else { continue };
        let deadline = services.get(service).map(|s| s.migrate_deadline.as_millis());
        let took = ran.report.times.migrations_ms.get(service.as_str());
        if let (Some(took), Some(deadline)) = (took, deadline) {
            proof.measure(service.as_str(), format!("{} of {}", human_ms(*took), human_ms(deadline)));
        }
        proof.demand(ran.state.succeeded(&step.id), service.as_str(), "the migration did not end well");
        proof.demand_known(
            took.copied().zip(deadline),
            |(took, deadline)| took <= deadline,
            service.as_str(),
            "the migration took longer than its deadline",
        );
    }
    for (store, trace) in &ran.report.traces {
        let (reads, writes) = trace.blocked_us();
        let ms = |us: u64| human_ms(us.div_ceil(1000));
        proof.measure(
            format!("{store}, traced"),
            format!(
                "{} statements; a table not readable for {}, not writable for {}",
                trace.calls(),
                ms(reads),
                ms(writes)
            ),
        );
    }
    for (store, queries) in &ran.report.queries {
        proof.measure(
            format!("{store}, asked by the checks"),
            format!(
                "{} statements before, {} after; {} changed plans, {} slower",
                queries.old.calls,
                queries.new.calls,
                queries.changed_plans(),
                queries.slower()
            ),
        );
    }
    if migrations(ran).is_empty() {
        proof.not_run("no migration command runs in this upgrade");
    }
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{ran, step};
    use super::*;
    use switchback_core::ids::ServiceName;
    use switchback_core::journal::{Output, StepResult, StepState};
    use switchback_core::plan::{Group, OnFailure, Procedure, Undo};

    #[test]
    fn a_migration_that_did_not_end_well_fails_its_row() {
        let mut good = ran(Procedure::Rehearse);
        let op = Op::Migrate {
            instance: "candidate/2".to_owned(),
            service: ServiceName::new("app").expect("a name"),
            source: "candidate/1".to_owned(),
        };
        good.plan.steps = vec![Step {
            id: "migrate-app".into(),
            title: "Migrate".to_owned(),
            op,
            undo: Undo::Nothing,
            on_failure: OnFailure::Undo,
            requires: Vec::new(),
            group: Group::Switch,
        }];
        let done = StepState { result: Some(StepResult::Done(Output::default())), ..StepState::default() };
        good.state.steps.insert("migrate-app".into(), done);
        good.report.steps = vec![step("start-new", Group::Switch, StepStatus::Done, 1)];
        assert_eq!(migrated(&good).verdict().word(), "pass");
        let mut bad = good.clone();
        bad.state.steps.clear();
        assert_eq!(migrated(&bad).verdict().word(), "fail", "it did not run");
        let mut bad = good.clone();
        bad.report.steps[0].status = StepStatus::Failed;
        assert_eq!(migrated(&bad).verdict().word(), "fail", "the new version did not start on it");
    }
}
