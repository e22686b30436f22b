//! An upgrade in several steps, tried on clones.

use super::upgrade::{carry_out, open, planning, session, show_plan, target};
use super::{Exit, Global, Trouble};
use clap::Args;
use std::collections::BTreeMap;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::plan;
use switchback_engine::gather::Target;
use switchback_engine::path as facts;
use switchback_engine::world::World;

/// More steps than this are a mistake: each keeps a clone until the end.
const MOST: usize = 12;

/// Options of path.
#[derive(Debug, Clone, Args)]
pub struct PathArgs {
    /// The versions on the way of each service, in their order, divided by commas
    #[arg(value_name = "SERVICE=VERSION,VERSION", required = true)]
    pub versions: Vec<String>,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The versions of each step.
fn steps(config: &Config, words: &[String]) -> Result<Vec<Target>, Trouble> {
    let mut ways: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    for word in words {
        let (name, list) = word.split_once('=').unwrap_or((word, ""));
        for version in list.split(',').map(str::trim) {
            // Each is judged as `rehearse` does it.
            for (service, version) in target(config, &[format!("{name}={version}")])?.versions {
                ways.entry(service).or_default().push(version);
            }
        }
    }
    let count = ways.values().map(Vec::len).max().unwrap_or(0);
    if count > MOST {
        return Err(Trouble::usage(
            format!("{count} steps are too many"),
            format!("each keeps a clone of the data until the end; name at most {MOST}"),
        ));
    }
    let step = |number: usize| {
        let versions = ways.iter().filter_map(|(service, way)| {
            way.get(number).or(way.last()).map(|version| (service.clone(), version.clone()))
        });
        Target { versions: versions.collect() }
    };
    Ok((0..count).map(step).collect())
}

/// Tries the steps one after the other.
pub fn path(global: &Global, args: &PathArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let targets = steps(&config, &args.versions)?;
    let mut session = session(global, &home, "path")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let found = planning(global, |stage| facts::facts(&home, &config, &world, &targets, stage))?;
    let plan = plan::path(&found);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    carry_out(global, &home, &mut session, &plan, &config)
}
