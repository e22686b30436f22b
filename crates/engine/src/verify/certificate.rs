//! Whether a promotion asks for a rehearsal of exactly this upgrade.

use super::ground::Lasting;
use super::lab::Lab;
use super::production::promotions;
use super::proof::{Proof, Stop};
use crate::runtime::Stage;
use switchback_core::config::Config;
use switchback_core::duration::Span;

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let mut proof = Proof::new(
        "certificate.enforced",
        "without a certificate, with one for another release, and with an expired one, a promotion is refused before anything is touched; a rollback that takes longer than its budget gets no certificate; no promotion of this stack went without one",
    );
    match &lab.uncertified {
        Some(answer) => {
            let answer = answer.clone();
            refused(&mut proof, "no certificate", answer, "no certificate");
        }
        None => {
            proof.doubt("a promotion before the rehearsal was not tried");
        }
    }
    let pointer = lab.sandbox()?.home.pointer()?;
    if lab.rehearsed()?.done() {
        let tried = wrong_ones(lab, &mut proof);
        // Whatever happened, the stack's files say again what the other phases go to.
        lab.ground.settle(lab.sandbox()?)?;
        tried?;
    } else {
        proof.not_run("the rehearsal issued no certificate that could be wrong or expire");
    }
    proof.demand(
        lab.sandbox()?.home.pointer()? == pointer,
        "production of the sandbox",
        "a refused promotion changed it",
    );
    let (all, waived) = promotions(lab.production)?;
    proof.measure("promotions of this stack so far", all).measure("of these without a certificate", waived);
    proof.demand(
        waived == 0,
        "history",
        format!("{waived} of {all} promotions of this stack were waived through without a rehearsal"),
    );
    lab.add(proof);
    Ok(())
}

/// Tries to promote another release than the rehearsed one, without and with an expired certificate for it.
fn wrong_ones(lab: &Lab<'_>, proof: &mut Proof) -> Result<(), Stop> {
    let variable = "SWITCHBACK_VERIFY_CERTIFICATE";
    let Some((_, other)) = lab.ground.with_variable(lab.sandbox()?, variable, Lasting::Once)? else {
        proof.not_run("the stack has no service");
        return Ok(());
    };
    let answer = attempt(lab, &other)?;
    refused(proof, "a certificate for another release", answer, "not for");
    expired(lab, other.clone(), proof)?;
    over_budget(lab, other, proof)
}

/// Rehearses with a budget that no rollback keeps.
fn over_budget(lab: &Lab<'_>, mut config: Config, proof: &mut Proof) -> Result<(), Stop> {
    const CASE: &str = "a rollback over its budget";
    config.rollback.budget = Span::millis(1);
    config.rehearsal.code_only_rollback = false;
    config.rehearsal.trace = false;
    let target = lab.sandbox()?.target.clone();
    let ran = lab.carry_out(&config, |s| s.plan_rehearsal(&config, &target, &Stage::quiet()))?;
    proof.runs.push(ran.plan.run.clone());
    proof.measure(CASE, ran.why());
    proof.demand(ran.report.certificate.is_none() && !ran.done(), CASE, "it got a certificate");
    let named = ran.why().contains("budget");
    proof.demand(named, CASE, format!("it was refused for another reason: {}", ran.why()));
    Ok(())
}

/// Rehearses with a certificate that is valid for a millisecond, and tries to promote.
fn expired(lab: &Lab<'_>, mut config: Config, proof: &mut Proof) -> Result<(), Stop> {
    config.rehearsal.valid = Span::millis(1);
    config.rehearsal.code_only_rollback = false;
    config.rehearsal.trace = false;
    let target = lab.sandbox()?.target.clone();
    let ran = lab.carry_out(&config, |s| s.plan_rehearsal(&config, &target, &Stage::quiet()))?;
    proof.runs.push(ran.plan.run.clone());
    if ran.report.certificate.is_none() {
        proof.doubt(format!("the rehearsal for the expired certificate issued none: {}", ran.why()));
        return Ok(());
    }
    std::thread::sleep(std::time::Duration::from_millis(2));
    let answer = attempt(lab, &config)?;
    refused(proof, "an expired certificate", answer, "expired");
    Ok(())
}

fn attempt(lab: &Lab<'_>, config: &Config) -> Result<Result<(), String>, Stop> {
    let target = lab.sandbox()?.target.clone();
    let session = lab.session()?;
    Ok(session.plan_promotion(config, &target, None, &Stage::quiet()).map(drop).map_err(|e| e.to_string()))
}

fn refused(proof: &mut Proof, case: &str, answer: Result<(), String>, wanted: &str) {
    match answer {
        Ok(()) => proof.demand(false, case, "the promotion was permitted"),
        Err(message) => {
            proof.measure(case, format!("refused: {message}"));
            let why = message.contains("certificate") && message.contains(wanted);
            proof.demand(why, case, format!("it was refused for another reason: {message}"))
        }
    };
}
