//! Carrying back what was written to a generation that was left.

use super::consent::{confirm, declined};
use super::trial::follow;
use super::upgrade::{carry_out_end, open, session, show_plan};
use super::{Exit, Global, Trouble};
use clap::Args;
use switchback_core::ids::GenerationId;
use switchback_core::plan;
use switchback_engine::world::World;

/// Options of carry.
#[derive(Debug, Args)]
pub struct CarryArgs {
    /// The generation that was left; by default the newest with writes that were not carried
    #[arg(long, value_name = "GENERATION")]
    pub from: Option<u32>,
    /// Also if they were carried before
    #[arg(long)]
    pub again: bool,
    /// Return once the trial has begun; the watchdog goes on by itself
    #[arg(long)]
    pub detach: bool,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Carries writes back.
pub fn carry(global: &Global, args: &CarryArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "carry")?;
    session.require_settled()?;
    session.require_no_trial()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let wanted = args.from.map(GenerationId);
    let (facts, left) = switchback_engine::carry::facts(&home, &config, &world, wanted, args.again)?;
    let plan = plan::promote(&facts).with_hooks(&config.hooks);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let question = format!(
        "Bring the {} writes made to generation {} into production, as far as they fit? Production stops while its data is cloned and they are carried; `switchback rollback` returns to generation {}.",
        left.writes, left.generation, facts.production.generation,
    );
    if !confirm(global, &question)? {
        return Err(declined());
    }
    let (exit, end) = carry_out_end(global, &home, &mut session, &plan, &config, args.detach)?;
    drop(session);
    follow(global, &home, &plan, exit, &end, args.detach)
}
