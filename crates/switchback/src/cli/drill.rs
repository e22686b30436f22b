//! Trying the rollback: on clones, or on production itself.

use super::consent::{confirm, declined};
use super::upgrade::{carry_out, show_plan};
use super::{Exit, Global, Trouble};
use clap::Args;
use switchback_core::config::Config;
use switchback_core::duration::human_ms;
use switchback_core::plan;
use switchback_engine::drill::{expected, production_facts};
use switchback_engine::home::Home;
use switchback_engine::policy;
use switchback_engine::session::Session;
use switchback_engine::world::World;

/// Options of a drill of the rollback.
#[derive(Debug, Clone, Args)]
pub struct RollbackDrillArgs {
    /// Switch production itself to a copy that no client can reach, and back; it is away meanwhile
    #[arg(long)]
    pub production: bool,
    /// With --production: also outside of `promotion.windows`
    #[arg(long, requires = "production")]
    pub any_time: bool,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Tries it on production.
pub fn production(
    global: &Global,
    home: &Home,
    config: &Config,
    session: &mut Session<'_>,
    args: &RollbackDrillArgs,
) -> Result<Exit, Trouble> {
    session.require_no_trial()?;
    if !args.any_time {
        policy::in_window(&config.promotion, &jiff::Zoned::now())?;
    }
    let world = World::open(config)?;
    let facts = production_facts(home, config, &world)?;
    let away = match expected(home, &facts.production.release)? {
        Some((ms, true)) => format!("for about {}, as in the last drill", human_ms(ms)),
        Some((ms, false)) => format!("for about {}, as a promotion and its rollback", human_ms(ms)),
        None => "for a time that was not measured yet; `switchback drill rollback` measures it on clones"
            .to_owned(),
    };
    let plan = plan::production_drill(&facts);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let question = format!(
        "Switch production of {} to a copy of itself and back? It is away {away}. Nothing that is written can be lost: no client \
         reaches the copy.",
        plan.stack
    );
    if !confirm(global, &question)? {
        return Err(declined());
    }
    carry_out(global, home, session, &plan, config)
}
