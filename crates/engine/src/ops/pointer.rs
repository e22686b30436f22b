//! Pointing production at a generation, beginning a trial, issuing a certificate.

use super::{Context, Failed};
use crate::certificate;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::scratch::Scratch;
use crate::watch;
use switchback_core::check::Verdict;
use switchback_core::ids::GenerationId;
use switchback_core::journal::Output;
use switchback_core::next::findings;
use switchback_core::plan::Procedure;
use switchback_core::release::{Certificate, FORMAT, Pointer};
use switchback_core::report::coverage;
use switchback_core::times;

/// Points production at a generation.
pub fn flip(
    context: &Context<'_>,
    from: Option<GenerationId>,
    to: GenerationId,
    to_previous: Option<GenerationId>,
) -> Result<Output, Failed> {
    let found = context.home.pointer()?.map(|p| p.current);
    if found != from && found != Some(to) {
        return Err(EngineError::refused(
            format!("production points at {found:?}, not at what the plan was made from ({from:?})"),
            "look at `switchback history`; another program or person changed it",
        )
        .into());
    }
    // From now on the generation is live: it can no longer be removed as scratch.
    if let Some(instance) = context.plan.instances.values().find(|i| i.is_production() && i.generation == to)
        && let Ok(Some(scratch)) = Scratch::open(context.home, &instance.dir)
    {
        context.world.data.keep(context.home, instance)?;
        scratch.keep()?;
    }
    if let Some(from) = from {
        crate::left::mark(context.home, context.plan, from, to)?;
    }
    context.midway();
    context.home.set_pointer(Some(&Pointer { format: FORMAT, current: to, previous: to_previous }))?;
    activated(context, to)?;
    Ok(Output::default())
}

/// Tells the runtime which generation is production's now.
fn activated(context: &Context<'_>, current: GenerationId) -> Result<(), EngineError> {
    let instance = context.plan.instances.values().find(|i| i.is_production() && i.generation == current);
    let Some(instance) = instance else { return Ok(()) };
    let release = context.release(instance)?;
    context.world.runtime.activated(&context.placement(instance, &release))
}

/// Points production back.
pub fn unflip(
    context: &Context<'_>,
    from: Option<GenerationId>,
    from_previous: Option<GenerationId>,
    to: GenerationId,
) -> Result<Output, Failed> {
    let pointer = from.map(|current| Pointer { format: FORMAT, current, previous: from_previous });
    context.home.set_pointer(pointer.as_ref())?;
    if let Some(from) = from {
        activated(context, from)?;
    }
    crate::left::unmark(context.home, &context.plan.run)?;
    context.midway();
    // The generation was made by this run and is left again: `prepare` may remove it.
    if let Some(instance) = context.plan.instances.values().find(|i| i.is_production() && i.generation == to)
        && context.home.generation(to).is_ok_and(|g| g.created_by == context.plan.run)
    {
        crate::scratch::retire(context.home, &instance.dir)?;
        context.world.data.retire(context.home, instance)?;
    }
    Ok(Output::default())
}

/// Makes sure that a watchdog watches. The engine has recorded the trial itself.
pub fn begin_trial(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    watch::mark_logs(&context.placement(instance, &release), context.world, &context.plan.run)?;
    context.midway();
    let pid = watch::ensure(context.home)?;
    Ok(Output { notes: vec![format!("watchdog: process {pid}")], ..Output::default() })
}

/// Why a rollback that takes this long is not good enough, if it is not.
pub fn over_budget(rollback_ms: u64, budget_ms: u64) -> Option<EngineError> {
    (rollback_ms > budget_ms && !gap(Gap::Budget)).then(|| {
        EngineError::refused(
            format!("the rollback took {rollback_ms} ms, the budget is {budget_ms} ms"),
            "raise `rollback.budget`, or find out why stopping and starting takes so long",
        )
    })
}

/// Issues a certificate if nothing speaks against the upgrade.
pub fn certify(context: &Context<'_>, from: &str, to: &str, valid_ms: u64) -> Result<Output, Failed> {
    let (from, to) = (context.instance(from)?, context.instance(to)?);
    let (refusals, doubts) = findings(context.plan, context.state);
    context.midway();
    let rollback_ms = times::between(context.records, "rollback-stop", "rollback-read-back");
    let (Some(rollback_ms), true, true) = (rollback_ms, refusals.is_empty(), doubts.is_empty()) else {
        return Ok(Output { notes: vec!["no certificate is issued".to_owned()], ..Output::default() });
    };
    if times::resumed_between(context.records, "rollback-stop", "rollback-read-back")
        || times::resumed_between(context.records, "stop-old", "start-new")
    {
        return Err(EngineError::refused(
            format!(
                "the {} was interrupted while it measured, so its times say nothing",
                context.plan.procedure.noun()
            ),
            "do it again",
        )
        .into());
    }
    if let Some(e) = over_budget(rollback_ms, context.plan.budget_ms) {
        return Err(e.into());
    }
    let now = now_ms();
    // A drill switches back only; what else the certificate says was measured by the rehearsal before.
    let before = match context.plan.procedure {
        Procedure::RollbackDrill => certificate::last(context.home, &from.release, &to.release)?,
        _ => None,
    };
    let copied = ["snapshot", "clone"].into_iter().find_map(|step| context.state.output(&step.into()));
    let data_bytes = copied.map_or(0, |o| o.copies.values().map(|c| c.bytes).sum());
    let passed = context
        .plan
        .steps
        .iter()
        .filter_map(|s| context.state.output(&s.id))
        .flat_map(|o| &o.checks)
        .filter(|c| c.verdict == Verdict::Pass)
        .count();
    let mut certificate = Certificate {
        run: context.plan.run.clone(),
        from: from.release.clone(),
        to: to.release.clone(),
        issued_at_ms: now,
        expires_at_ms: now.saturating_add_unsigned(valid_ms),
        host: crate::host_name(),
        data_bytes,
        rollback_ms,
        rollback_range_ms: Some(certificate::rollback_range(context.home, rollback_ms)?),
        coverage: coverage(context.plan, context.state).or(before.as_ref().and_then(|c| c.coverage.clone())),
        signature: None,
        drilled: matches!(context.plan.procedure, Procedure::RollbackDrill | Procedure::ProductionDrill),
        downtime_ms: times::predicted_downtime(context.records)
            .or(before.map(|c| c.downtime_ms))
            .unwrap_or(0),
        checks_passed: u32::try_from(passed).unwrap_or(u32::MAX),
    };
    certificate::sign(context.home, &mut certificate)?;
    Ok(Output { certificate: Some(certificate), ..Output::default() })
}
