//! Running the configured checks on one or several instances.

use super::data::temp_dir;
use super::{Context, Failed};
use crate::checks;
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::watch;
use switchback_core::check::{Overall, Verdict, overall};
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::{CheckPhase, Procedure};

/// Looks at production as it is before a promotion. Nothing that goes wrong with that speaks against the promotion.
pub fn observe(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let look = || {
        if context.world.runtime.running(context.home, instance)?.is_empty() {
            return Ok("it does not run; the trial has nothing to compare with".to_owned());
        }
        let suite = checks::Suite::load(context.home, &context.plan.run, context.config)?;
        let cancelled = || context.cancel.requested();
        watch::observe_before(context.home, context.world, at, &suite, &context.plan.run, &cancelled)
    };
    let note = look().unwrap_or_else(|e: EngineError| format!("could not be looked at: {e}"));
    context.midway();
    Ok(Output { notes: vec![note], ..Output::default() })
}

/// Runs the checks, alternating between the instances check by check.
pub fn check(context: &Context<'_>, keys: &[String], phase: CheckPhase) -> Result<Output, Failed> {
    let mut output = Output::default();
    let mut targets = Vec::new();
    for key in keys {
        let instance = context.instance(key)?;
        targets.push((instance, context.release(instance)?));
    }
    let environment = |name: &str| {
        let back = phase == CheckPhase::AfterRollback && context.plan.procedure != Procedure::Path;
        if back { "after rollback".to_owned() } else { name.to_owned() }
    };
    let suite = checks::Suite::load(context.home, &context.plan.run, context.config)?;
    let scratch = temp_dir(context)?;
    let run_dir = context.run_dir();
    let list: Vec<checks::Target<'_>> = targets
        .iter()
        .map(|(instance, release)| checks::Target {
            world: context.world,
            placement: context.placement(instance, release),
            environment: environment(&instance.environment),
            run: context.plan.run.as_str(),
            run_dir: &run_dir,
            scratch: &scratch,
            through: None,
        })
        .collect();
    let cancelled = || context.cancel.requested();
    let back = phase == CheckPhase::AfterRollback || context.plan.procedure == Procedure::Rollback;
    if back && gap(Gap::Validation) {
        return Ok(output);
    }
    output.checks = suite.run(&list, phase, &|text| context.say(text), &cancelled)?;
    context.midway();
    let verdict = overall(&output.checks);
    let passed = output.checks.iter().filter(|c| c.verdict == Verdict::Pass).count();
    output.notes.push(format!("{passed} of {} passed", output.checks.len()));
    if verdict == Overall::Fail && phase != CheckPhase::CodeOnly {
        let failed: Vec<String> = output
            .checks
            .iter()
            .filter_map(|c| match &c.verdict {
                Verdict::Fail { reasons } => {
                    let why = reasons.first().map_or_else(String::new, |r| format!(": {}: {}", r.at, r.what));
                    Some(format!("{} in {}{why}", c.id, c.environment))
                }
                _ => None,
            })
            .collect();
        let error = StepError {
            kind: ErrorKind::Refused,
            message: failed.join("; "),
            hint: None,
            details: Vec::new(),
        };
        return Err(Failed { error, output: Box::new(output) });
    }
    Ok(output)
}
