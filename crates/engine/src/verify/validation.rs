//! What the rehearsal proves about checks, and whether known-bad upgrades are refused.

use super::lab::{Lab, Ran};
use super::mutants;
use super::proof::{Proof, Stop};
use crate::check::junit;
use crate::checks::workflow_files;
use crate::error::{EngineError, io};
use crate::prove;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::duration::human_ms;
use switchback_core::journal::Outcome as Ended;
use switchback_core::prove::{Injection, Outcome, Row, TABLE};
use switchback_core::report::Report;
use switchback_core::workflow::{ReferenceKind, Workflow};

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let ran = lab.rehearsed()?.clone();
    lab.add(workflows(&ran));
    let crossing = crossing(lab)?;
    lab.add(cross_service(&ran, &crossing, lab.config.services.len()));
    for proof in own_checks(&ran) {
        lab.add(proof);
    }
    for proof in compared(&ran) {
        lab.add(proof);
    }
    let proof = mutants::prove(lab)?;
    lab.add(proof);
    let proof = table(lab)?;
    lab.add(proof);
    let proof = reports(lab)?;
    lab.add(proof);
    Ok(())
}

fn of_kind(ran: &Ran, kind: CheckKind) -> impl Iterator<Item = &CheckResult> {
    let compared = |c: &&CheckResult| c.environment == "baseline" || c.environment == "candidate";
    ran.report.checks.iter().filter(move |c| c.kind == kind).filter(compared)
}

/// Demands that a check passed; what it says instead is the reason.
fn demand_pass(proof: &mut Proof, check: &CheckResult) {
    let at = format!("{} in {}", check.id, check.environment);
    proof.measure(at.clone(), format!("{}, {}", check.verdict.word(), human_ms(check.took_ms)));
    match &check.verdict {
        Verdict::Pass => proof.demand(true, at, ""),
        Verdict::Fail { reasons } => {
            let why: Vec<String> = reasons.iter().map(|r| format!("{}: {}", r.at, r.what)).collect();
            proof.demand(false, at, why.join("; "))
        }
        Verdict::Inconclusive { why } | Verdict::NotRun { why } | Verdict::Waived { why, .. } => {
            proof.doubt(format!("{at}: {why}"))
        }
    };
}

fn workflows(ran: &Ran) -> Proof {
    let mut proof =
        Proof::new("workflows.passed", "every workflow passed with the old and with the new version")
            .of_run(&ran.plan.run);
    let names: BTreeSet<&str> = of_kind(ran, CheckKind::Workflow).map(|c| c.id.as_str()).collect();
    let steps: usize = of_kind(ran, CheckKind::Workflow).map(|c| c.steps.len()).sum();
    proof.measure("workflows", names.len()).measure("steps observed", steps);
    for check in of_kind(ran, CheckKind::Workflow) {
        demand_pass(&mut proof, check);
    }
    if names.is_empty() {
        proof.not_run("no workflow ran; `checks.workflows` names them");
    }
    proof
}

/// Workflows that refer to two services or more.
fn crossing(lab: &Lab<'_>) -> Result<BTreeSet<String>, EngineError> {
    let mut found = BTreeSet::new();
    for file in workflow_files(lab.production, lab.config)? {
        let text = fs::read_to_string(&file).map_err(io("read", &file))?;
        let Ok(workflow) = Workflow::parse(&file.to_string_lossy(), &text) else { continue };
        let services: BTreeSet<&str> = workflow
            .references
            .iter()
            .filter(|r| r.kind == ReferenceKind::Service)
            .map(|r| r.name.as_str())
            .collect();
        if services.len() >= 2 {
            let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            found.insert(format!("workflow/{stem}"));
        }
    }
    Ok(found)
}

fn cross_service(ran: &Ran, crossing: &BTreeSet<String>, services: usize) -> Proof {
    let mut proof = Proof::new(
        "workflows.cross-service",
        "at least one workflow touches two or more services, and all such passed",
    )
    .of_run(&ran.plan.run);
    proof.measure("services", services).measure("workflows across services", crossing.len());
    for check in of_kind(ran, CheckKind::Workflow).filter(|c| crossing.contains(&c.id)) {
        demand_pass(&mut proof, check);
    }
    if services < 2 {
        proof.not_applicable("the stack has one service; there is nothing to integrate with");
    } else if crossing.is_empty() {
        proof.not_run("no workflow touches two services; write one that does");
    }
    proof
}

/// Evidence for criteria of the user's own: each check of the stack, on the candidate.
fn own_checks(ran: &Ran) -> Vec<Proof> {
    let mut proofs = Vec::new();
    for kind in [CheckKind::Workflow, CheckKind::Command] {
        for check in of_kind(ran, kind).filter(|c| c.environment == "candidate") {
            let name = check.id.split_once('/').map_or(check.id.as_str(), |(_, n)| n);
            let mut proof = Proof::new(format!("{}:{name}", kind.as_str()), "it passes with the new version")
                .of_run(&ran.plan.run);
            demand_pass(&mut proof, check);
            proofs.push(proof);
        }
    }
    proofs
}

/// The checks that look at both versions at once.
fn compared(ran: &Ran) -> Vec<Proof> {
    let of = |kind| of_kind(ran, kind).filter(|c| c.environment == "candidate");
    let mut api = Proof::new(
        "api.compatibility",
        "what the new version answers, and what its document says, breaks no client of the old one",
    )
    .of_run(&ran.plan.run);
    let mut surface =
        Proof::new("coverage.surface", "every operation that a service declares is exercised by a check")
            .of_run(&ran.plan.run);
    let mut declared = false;
    for check in of(CheckKind::Api) {
        demand_pass(&mut api, check);
        for (name, value) in &check.measured {
            api.measure(format!("{}, {name}", check.id), value);
        }
        let number = |name: &str| check.measured.get(name).and_then(|v| v.parse::<usize>().ok());
        if let (Some(all), Some(reached)) = (number("operations declared"), number("of these exercised")) {
            declared = true;
            surface.measure(check.id.clone(), format!("{reached} of {all} operations exercised"));
            surface.demand(
                reached >= all,
                &check.id,
                format!("{} are not exercised", all.saturating_sub(reached)),
            );
        }
    }
    if of(CheckKind::Api).next().is_none() {
        api.not_run("no API is compared; `checks.api` names them");
    }
    if !declared {
        surface.not_run("no service has an OpenAPI document that `checks.api` names");
    }
    let mut times = Proof::new(
        "performance.paired",
        "no request that is measured got slower than tolerated, measured in alternating pairs",
    )
    .of_run(&ran.plan.run);
    for check in of(CheckKind::Performance) {
        demand_pass(&mut times, check);
        for (name, value) in &check.measured {
            times.measure(format!("{}, {name}", check.id), value);
        }
    }
    if of(CheckKind::Performance).next().is_none() {
        times.not_run("nothing is measured; `checks.performance` names requests");
    }
    let mut journeys = Proof::new(
        "browser.journeys",
        "a person can do the same in a real browser with the old and the new version, and the new one's pages have no new errors",
    )
    .of_run(&ran.plan.run);
    for check in of_kind(ran, CheckKind::Journey) {
        demand_pass(&mut journeys, check);
    }
    if of_kind(ran, CheckKind::Journey).next().is_none() {
        journeys.not_run("no journey was walked; `checks.journeys` names them");
    }
    vec![api, surface, times, journeys]
}

/// The whole table of mutants, on the sandbox's own checks.
fn table(lab: &Lab<'_>) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "mutants.table",
        "every mutant of the table is caught by the expected check, and the controls pass",
    );
    let mut session = lab.session()?;
    let mut config = lab.sandbox()?.desired.clone();
    // Damage is done to a copy of it.
    config.staging.pristine = true;
    let request = prove::Request {
        only: BTreeSet::new(),
        controls: 1,
        cancel: lab.request.cancel,
        observe: lab.request.observe,
        say: &|text| lab.say(text),
        told: &|_| {},
    };
    let home = lab.sandbox()?.home.clone();
    let Some(proved) = prove::on_stack(&home, &config, &mut session, &request)? else {
        return Err(Stop::Interrupted);
    };
    judge_table(&mut proof, &proved.rows);
    Ok(proof)
}

/// Judges what came of the mutants.
fn judge_table(proof: &mut Proof, rows: &[Row]) {
    let mut untried = Vec::new();
    for row in rows {
        let at = format!("{} {}", row.id, row.name);
        match &row.outcome {
            Outcome::Caught { by, .. } => {
                proof.measure(at.clone(), format!("caught by {by}")).demand(true, at, "");
            }
            Outcome::Passed => {
                proof.measure(at.clone(), "passes").demand(true, at, "");
            }
            Outcome::Survived { advice, .. } => {
                proof.measure(at.clone(), "survived").demand(
                    false,
                    at,
                    format!("no expected check failed; {advice}"),
                );
            }
            Outcome::Alarmed { why } => {
                proof.measure(at.clone(), "false alarm").demand(false, at, why);
            }
            Outcome::NotApplicable { why, .. } if of_the_stack(&row.id) => {
                proof.measure(at, format!("not applicable: {why}"));
            }
            Outcome::Unviable { why } | Outcome::NotApplicable { why, .. } => {
                proof.measure(at, why);
                untried.push(row.id.as_str());
            }
        }
    }
    if !untried.is_empty() {
        proof.not_run(format!("{} of the table were not tried: {}", untried.len(), untried.join(", ")));
    }
}

/// Whether it is the stack that leaves nothing to try a mutant on: what goes through the proxy, or slows something down, could
/// be tried if a check asked for it.
fn of_the_stack(id: &str) -> bool {
    let of = TABLE.iter().find(|m| m.id == id).map(|m| m.injection);
    of.is_some_and(|i| !matches!(i, Injection::Proxy | Injection::Beside(_)))
}

/// Demands that a run's folder has its four reports.
fn written(proof: &mut Proof, dir: &Path, ran: &Ran) {
    let run = &ran.plan.run;
    let at = format!("{} {run}", ran.plan.procedure.as_str());
    for file in ["report.html", "report.md"] {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        proof.demand(text.contains(run.as_str()), format!("{at}, {file}"), "it is missing or names no run");
    }
    let json = fs::read(dir.join("report.json")).unwrap_or_default();
    let same = serde_json::from_slice(&json).is_ok_and(|r: Report| r == ran.report);
    proof.demand(same, format!("{at}, report.json"), "it is not the report of the run");
    match junit::parse(&fs::read(dir.join("junit.xml")).unwrap_or_default()) {
        Err(e) => {
            proof.demand(false, format!("{at}, junit.xml"), e.to_string());
        }
        Ok(cases) => {
            let failed = cases.iter().any(|c| matches!(c.outcome, junit::Outcome::Failed(_)));
            let refused = matches!(ran.state.ended, Some(Ended::Refused { .. }));
            proof.demand(!cases.is_empty(), format!("{at}, junit.xml"), "it has no case");
            let what = "it does not say whether the run was refused";
            proof.demand(failed || !refused, format!("{at}, junit.xml"), what);
        }
    }
}

fn reports(lab: &Lab<'_>) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "reports.written",
        "each run has report.json, report.html, report.md and junit.xml; the JSON is the report, the JUnit parses and names a failure exactly if the run was refused",
    );
    let home = &lab.sandbox()?.home;
    let mut seen = 0;
    for run in lab.journal()?.runs(usize::MAX >> 1)? {
        let ran = lab.ran(&run)?;
        written(&mut proof, &home.run_dir(&run), &ran);
        seen += 1;
        proof.runs.push(run);
    }
    proof.measure("runs", seen).measure("files", seen * 4);
    if seen == 0 {
        proof.not_run("nothing ran");
    }
    Ok(proof)
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
