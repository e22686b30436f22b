//! Returning single services to the generation before.

use super::consent::{confirm, declined};
use super::rollback::RollbackArgs;
use super::upgrade::{carry_out, show_plan};
use super::{Exit, Global, Trouble};
use switchback_core::config::Config;
use switchback_core::release::describe_change;
use switchback_engine::home::Home;
use switchback_engine::session::Session;
use switchback_engine::watch;

/// Rolls back what `--service` names.
pub fn rollback(
    global: &Global,
    home: &Home,
    config: &Config,
    session: &mut Session<'_>,
    args: &RollbackArgs,
) -> Result<Exit, Trouble> {
    let plan = session.plan_service_rollback(config, &args.services, &args.reason)?;
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let (from, to) = (plan.from_generation.map_or(0, |g| g.0), plan.to_generation.map_or(0, |g| g.0));
    let question = format!(
        "Return {} of {} to the version and data of before ({})? What was written to {} since generation {from} was made is not \
         there then, and is exported to .switchback/exports. All other services go on, on their present data, in generation {to}.",
        args.services.join(", "),
        plan.stack,
        describe_change(&plan.from, &plan.to),
        if args.services.len() == 1 { "it" } else { "them" },
    );
    if !confirm(global, &question)? {
        return Err(declined());
    }
    let exit = carry_out(global, home, session, &plan, config)?;
    if watch::current(&session.journal)?.is_some() {
        watch::ensure(home)?;
    }
    Ok(exit)
}
