//! How long a migration takes by the size of the data, on clones.

use super::upgrade::{carry_out, open, planning, session, show_plan, target};
use super::{Exit, Global, Trouble};
use clap::Args;
use std::collections::BTreeSet;
use switchback_core::plan;
use switchback_engine::scaling as facts;
use switchback_engine::world::World;

/// A line through two sizes says nothing about its own truth, and more than this take too long.
const SIZES: std::ops::RangeInclusive<usize> = 2..=5;

/// Options of scaling.
#[derive(Debug, Clone, Args)]
pub struct ScalingArgs {
    /// The version whose migration is timed
    #[arg(value_name = "SERVICE=VERSION")]
    pub versions: Vec<String>,
    /// Shares of the large tables' rows to try it on, in percent, divided by commas
    #[arg(long, value_name = "PERCENT,...", default_value = "12,25,50")]
    pub sizes: String,
    /// How often each size is tried, 1 to 10
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub rounds: u32,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn sizes(text: &str) -> Result<Vec<u8>, Trouble> {
    let wrong = |why: String| Trouble::usage(why, "for example  --sizes 12,25,50");
    let mut found = BTreeSet::new();
    for word in text.split(',') {
        let word = word.trim().trim_end_matches('%').trim_end();
        match word.parse::<u8>() {
            Ok(percent @ 1..=100) => found.insert(percent),
            _ => return Err(wrong(format!("{word:?} is no size between 1 and 100 percent"))),
        };
    }
    if !SIZES.contains(&found.len()) {
        return Err(wrong(format!(
            "{} different sizes; {} to {} can be tried",
            found.len(),
            SIZES.start(),
            SIZES.end()
        )));
    }
    Ok(found.into_iter().collect())
}

/// Times the migration at several sizes.
pub fn scaling(global: &Global, args: &ScalingArgs) -> Result<Exit, Trouble> {
    let percents = sizes(&args.sizes)?;
    if percents.len() * args.rounds as usize <= 2 {
        return Err(Trouble::usage(
            "two migrations are too few for an interval".to_owned(),
            "try more sizes, or each of them twice: --rounds 2".to_owned(),
        ));
    }
    let (home, config) = open(global)?;
    let target = target(&config, &args.versions)?;
    let mut session = session(global, &home, "scaling")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let wanted = (percents, args.rounds);
    let found = planning(global, |stage| facts::facts(&home, &config, &world, &target, wanted, stage))?;
    let plan = plan::scaling(&found);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    carry_out(global, &home, &mut session, &plan, &config)
}
