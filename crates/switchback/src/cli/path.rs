//! An upgrade in several steps, tried on clones.

use super::upgrade::{carry_out, open, planning, session, show_plan, target};
use super::{Exit, Global, Trouble};
use clap::Args;
use std::collections::BTreeMap;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::plan;
use switchback_core::stops;
use switchback_engine::gather::{self, Target};
use switchback_engine::path::{self as facts, Versions};
use switchback_engine::world::World;

/// More steps than this are a mistake: each keeps a clone until the end.
const MOST: usize = 12;

/// Options of path.
#[derive(Debug, Clone, Args)]
pub struct PathArgs {
    /// The versions on the way of each service, in their order, divided by commas; stops that `paths` demands are put in. Without
    /// any: to what the configuration names
    #[arg(value_name = "SERVICE=VERSION,VERSION")]
    pub versions: Vec<String>,
    /// Look for stops that make a way to one version work: several rehearsals
    #[arg(long)]
    pub find: bool,
    /// With --find: the versions that may be stops, instead of those that are installed or that the registry has
    #[arg(long, value_name = "VERSION,VERSION", value_delimiter = ',', requires = "find")]
    pub among: Vec<String>,
    /// With --find: the most ways that are tried
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=40))]
    pub most: u8,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The versions of each step.
fn steps(config: &Config, words: &[String], from: &Versions) -> Result<Vec<Target>, Trouble> {
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
    for (service, way) in &mut ways {
        if let Some(from) = from.get(service) {
            *way = stops::with_stops(&config.paths, service, from, way);
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
    if args.find {
        return super::find::find(global, &home, &config, args);
    }
    let mut session = session(global, &home, "path")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let (_, production) = gather::production(&home, &config, &world)?;
    let from = &production.versions;
    let mut words = args.versions.clone();
    if words.is_empty() {
        let nothing = Versions::new();
        let wanted =
            planning(global, |stage| world.runtime.release(&home, &config, &nothing, stage))?.1.versions();
        words.extend(wanted.iter().filter(|(s, v)| from.get(*s) != Some(v)).map(|(s, v)| format!("{s}={v}")));
    }
    if words.is_empty() {
        return Err(Trouble::refused(
            "production runs exactly what the configuration names",
            "name where to go: switchback path SERVICE=VERSION",
        ));
    }
    let targets = steps(&config, &words, from)?;
    let found = planning(global, |stage| facts::facts(&home, &config, &world, &targets, stage))?;
    let plan = plan::path(&found);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    carry_out(global, &home, &mut session, &plan, &config)
}
