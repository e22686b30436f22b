//! Rollbacks when things go wrong: a fault during the trial, and a rollback that itself fails.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use super::rollback::{LIMIT_MS, TRIAL_ENDS, generations, rollback_after, runs};
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::duration::{Span, human_ms};
use switchback_core::journal::{Event, Outcome, TRIAL_FAILED};

/// How long the services are killed again and again.
const FAULT: Duration = Duration::from_secs(3);
/// Long enough that the trial cannot end before the fault is noticed.
const LONG_TRIAL: Span = Span::secs(120);
/// The trials before a failing rollback only have to pass.
pub const SHORT_TRIAL: Span = Span::secs(1);

/// Kills the promoted version during its trial: the watchdog must roll back by itself.
pub fn automatic(lab: &mut Lab<'_>, config: &Config) -> Result<(), Stop> {
    let mut config = config.clone();
    config.rollback.watch = LONG_TRIAL;
    let limit = config.rollback.budget.as_millis().min(LIMIT_MS);
    let mut proof = Proof::new(
        "rollback.automatic",
        format!(
            "all {} of the promoted version are killed during its trial; without any command the old version is healthy again within {}",
            lab.ground.words().many,
            human_ms(limit)
        ),
    );
    let promoted = lab.promote(&config)?;
    proof.runs.push(promoted.plan.run.clone());
    if !promoted.done() {
        proof.doubt(format!("the promotion before the fault did not succeed: {}", promoted.why()));
        lab.add(proof);
        return Ok(());
    }
    let (new, old) = generations(lab)?;
    let home = lab.sandbox()?.home.clone();
    let fault_ms = now_ms();
    let until = Instant::now() + FAULT;
    while Instant::now() < until {
        lab.ground.crash(&home, &new)?;
        if lab.wait_trial(&promoted.plan.run, Duration::ZERO)?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    proof.measure(
        "fault",
        format!("SIGKILL to all {} of the promoted version, repeatedly", lab.ground.words().many),
    );
    let mut budget = Duration::from_millis(limit);
    match lab.wait_trial(&promoted.plan.run, TRIAL_ENDS)? {
        Some(Event::TrialFailed { trigger, reasons }) => {
            proof.measure("trigger", trigger).measure("seen", reasons.join("; "));
        }
        other => {
            proof.demand(false, "trigger", format!("the trial did not fail: {other:?}"));
            // Nobody is about to roll back.
            budget = Duration::ZERO;
        }
    }
    match lab.wait_for(budget, || rollback_after(lab, &promoted))? {
        None => {
            proof.demand(false, "rollback", "nothing rolled back");
        }
        Some(run) => {
            let ran = lab.ran(&run)?;
            proof.runs.push(run);
            let back = ran.records.iter().find_map(|r| match &r.event {
                Event::Finished { step, .. } if step.as_str() == "flip" => Some(r.at_ms),
                _ => None,
            });
            let took = back.and_then(|b| u64::try_from(b - fault_ms).ok());
            if let Some(ms) = took {
                proof.measure("from the fault to the old version, healthy and read back", human_ms(ms));
            }
            proof.demand(ran.done(), "rollback", ran.why());
            let by_itself = ran.plan.reason.as_deref().is_some_and(|r| r.starts_with(TRIAL_FAILED));
            proof.demand(by_itself, "rollback", "it was not the trial that began it");
            proof.demand_known(took, |ms| *ms <= limit, "recovery", "it took longer than its limit");
        }
    }
    match old.map(|o| runs(lab, &o)).transpose()? {
        Some(Ok(_)) => proof.demand(true, "", ""),
        Some(Err(differences)) => proof.demand(false, "read back", differences.join("; ")),
        None => proof.doubt("there was no generation to return to"),
    };
    lab.add(proof);
    Ok(())
}

/// Makes the old version unable to start: the rollback must return to the newer one, and say why.
pub fn failure(lab: &mut Lab<'_>, config: &Config) -> Result<(), Stop> {
    let mut config = config.clone();
    config.rollback.watch = SHORT_TRIAL;
    let mut proof = Proof::new(
        "rollback.failure",
        format!(
            "with the old version's {} gone, the rollback says why it cannot be done and leaves the newer version running; with it back, it succeeds",
            lab.ground.words().vital
        ),
    );
    let promoted = lab.promote(&config)?;
    proof.runs.push(promoted.plan.run.clone());
    if !promoted.done() || lab.wait_trial(&promoted.plan.run, TRIAL_ENDS)?.is_none() {
        proof.doubt(format!("the promotion before it did not succeed: {}", promoted.why()));
        lab.add(proof);
        return Ok(());
    }
    let (new, old) = generations(lab)?;
    let Some(old) = old else {
        return Err(
            EngineError::Internal { detail: "a promotion without a previous generation".to_owned() }.into()
        );
    };
    let home = lab.sandbox()?.home.clone();
    let vital = lab.ground.vital(&home, &old);
    let away = vital.with_extension("away");
    std::fs::rename(&vital, &away).map_err(io("move away", &vital))?;
    let failed = lab.roll_back(&config, "verify: a rollback that cannot be done");
    // Whatever happened, it comes back.
    std::fs::rename(&away, &vital).map_err(io("move back", &away))?;
    let failed = failed?;
    proof.runs.push(failed.plan.run.clone());
    proof.measure("the rollback that cannot be done", &failed.report.headline).measure("why", failed.why());
    let undone = matches!(failed.state.ended, Some(Outcome::Undone { .. }));
    proof.demand(undone, "the failing rollback", format!("it was not undone: {:?}", failed.state.ended));
    proof.demand(!failed.report.reasons.is_empty(), "the failing rollback", "it does not say why");
    let pointer = home.pointer()?.map(|p| p.current);
    proof.demand(pointer == Some(new.generation), "pointer", format!("it names {pointer:?}"));
    if let Err(differences) = runs(lab, &new)? {
        proof.demand(false, "the newer version", differences.join("; "));
    } else {
        proof.measure("the newer version", "runs, read back");
    }
    let healed = lab.roll_back(&config, "verify: the same rollback, healed")?;
    proof.runs.push(healed.plan.run.clone());
    proof.demand(healed.done(), "the healed rollback", healed.why());
    if let Some(ms) = healed.report.times.rollback_ms {
        proof.measure("the healed rollback", human_ms(ms));
    }
    lab.add(proof);
    Ok(())
}
