//! Controls: the checks without a fault, again and again.

use super::fault::Kind;
use super::proxy::Seen;
use super::{Ground, failed, run};
use crate::error::EngineError;
use std::collections::BTreeSet;
use std::time::Duration;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::prove::{Mutant, Outcome, Row};

/// A control: nothing may fail, and nothing may be inconclusive.
pub(super) fn control(
    ground: &Ground<'_>,
    mutant: &Mutant,
    row: &mut Row,
    traffic: &mut BTreeSet<Seen>,
) -> Result<(), EngineError> {
    // Whether a journey leaves something that the next repetition takes for a difference. It does, if what fails on what others left
    // passes on untouched data, and fails again on what that left.
    let mut leaves = if ground.config.checks.journeys.is_empty() { Some(false) } else { None };
    for repetition in 0..ground.controls.max(1) {
        if (ground.cancelled)() {
            return Ok(());
        }
        if repetition > 0 {
            (ground.say)(&format!(
                "{} {}: {} of {}",
                mutant.id,
                mutant.name,
                repetition + 1,
                ground.controls
            ));
        }
        if repetition > 0 && leaves == Some(true) {
            (ground.reset)()?;
        }
        let mut wrong = once(ground, mutant, row, traffic)?;
        if repetition > 0 && leaves.is_none() {
            let first = std::mem::take(&mut wrong);
            if first.is_empty() {
                leaves = Some(false);
            } else {
                (ground.reset)()?;
                wrong = once(ground, mutant, row, traffic)?;
                let again = if wrong.is_empty() { once(ground, mutant, row, traffic)? } else { Vec::new() };
                let same = first.iter().all(|(what, _)| again.iter().any(|(w, _)| w == what));
                leaves = Some(same);
                if !same {
                    wrong.extend(first);
                }
            }
        }
        for (what, why) in wrong {
            row.also.push(what);
            row.outcome = Outcome::Alarmed { why };
        }
    }
    Ok(())
}

/// Runs the checks without a fault, once: what did not pass, and why.
fn once(
    ground: &Ground<'_>,
    mutant: &Mutant,
    row: &mut Row,
    traffic: &mut BTreeSet<Seen>,
) -> Result<Vec<(String, String)>, EngineError> {
    let kind = if mutant.id == "C0" { Kind::Nothing } else { Kind::Harmless };
    let tried = run(ground, kind, None, &[])?;
    row.landed += tried.landed;
    traffic.extend(tried.seen);
    let workflows = tried.results.iter().filter(|r| r.kind == CheckKind::Workflow);
    let longest = Duration::from_millis(workflows.map(|r| r.took_ms).max().unwrap_or_default());
    ground.limit.set(ground.limit.get().max(longest * 3));
    let mut wrong = Vec::new();
    for result in &tried.results {
        let why = match &result.verdict {
            Verdict::Pass | Verdict::Waived { .. } => continue,
            Verdict::Fail { .. } => failed(result).unwrap_or_default(),
            Verdict::Inconclusive { why } | Verdict::NotRun { why } => why.clone(),
        };
        wrong.push((format!("{} in {}", result.id, result.environment), format!("{}: {why}", result.id)));
    }
    Ok(wrong)
}
