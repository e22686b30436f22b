//! Before anything is touched: does what the plan was made from still hold?

use super::{Context, Failed};
use crate::backup::configured;
use crate::budget;
use crate::certificate;
use crate::error::EngineError;
use crate::runtime::PreflightFor;
use switchback_core::journal::Output;
use switchback_core::plan::Procedure;
use switchback_core::release::PRODUCTION;

/// Checks the generation, the certificate, and what the runtime needs (artefacts, disk space, ports).
pub fn preflight(context: &Context<'_>, target: &str, need_bytes: u64) -> Result<Output, Failed> {
    let instance = context.instance(target)?;
    let release = context.release(instance)?;
    let mut output = Output::default();
    let pointer = context.home.pointer()?;
    if pointer.as_ref().map(|p| p.current) != context.plan.from_generation {
        return Err(EngineError::refused(
            "production's generation changed since the plan was made",
            "start again; the new plan will see it",
        )
        .into());
    }
    context.midway();
    let wanted = PreflightFor { procedure: context.plan.procedure, need_bytes };
    output.notes.extend(context.world.runtime.preflight(&context.placement(instance, &release), wanted)?);
    // The new generation shares the databases of what stays, and would never end what another generation began in them.
    if context.plan.procedure == Procedure::ServiceRollback
        && let Some(leave) =
            context.plan.instances.values().find(|i| Some(i.generation) == context.plan.from_generation)
    {
        super::capture::end(context, leave, &context.release(leave)?)?;
    }
    let copies = matches!(
        context.plan.procedure,
        Procedure::Rehearse
            | Procedure::Path
            | Procedure::Scaling
            | Procedure::Promote
            | Procedure::Carry
            | Procedure::StagingUp
            | Procedure::StagingSync
            | Procedure::Backup
            | Procedure::RollbackDrill
            | Procedure::ProductionDrill
    );
    if copies
        && let Some(source) = context
            .plan
            .instances
            .values()
            .find(|i| i.is_production() && Some(i.generation) == context.plan.from_generation)
    {
        let old = context.release(source)?;
        if matches!(context.plan.procedure, Procedure::Promote | Procedure::Carry) {
            super::capture::end(context, source, &old)?;
        }
        let (from, to) = (context.placement(source, &old), context.placement(instance, &release));
        if context.plan.procedure == Procedure::Backup {
            context.world.keys.open_ahead(context.home, configured(context.config)?);
        }
        output.notes.extend(context.world.data.preflight(&from, &to, need_bytes)?);
        if matches!(context.plan.procedure, Procedure::Rehearse | Procedure::Promote) {
            let (was, is) = ((&source.release, &old), (&instance.release, &release));
            output.settings = context.world.runtime.settings(context.home, was, is)?;
        }
    }
    if context.plan.procedure == Procedure::Promote && instance.environment == PRODUCTION {
        if let Some(certificate) = certificate::permits(context.home, context.plan)? {
            budget::holds(context.home, context.config, context.plan, &certificate)?;
        }
        output.notes.push(match &context.plan.reason {
            None => "the certificate is valid".to_owned(),
            Some(waiver) => format!("no certificate was asked for ({waiver})"),
        });
    }
    Ok(output)
}
