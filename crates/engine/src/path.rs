//! The facts of an upgrade in several steps.

use crate::data::Cost;
use crate::error::EngineError;
use crate::gather::{self, Target, free_ports_like};
use crate::home::Home;
use crate::runtime::Stage;
use crate::world::World;
use std::collections::BTreeMap;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::plan::{Hop, PathFacts};
use switchback_core::release::{Instance, describe_change};
use switchback_core::stops::{self, Demand};

/// Versions by service.
pub type Versions = BTreeMap<ServiceName, String>;

/// The stops that the configuration demands first on the way between versions.
fn demanded<'c>(config: &'c Config, from: &Versions, to: &Versions) -> Vec<(ServiceName, Demand<'c>)> {
    let of = |(name, to): (&ServiceName, &String)| {
        let demand = stops::skipped(&config.paths, name, from.get(name)?, to)?;
        Some((name.clone(), demand))
    };
    to.iter().filter_map(of).collect()
}

/// Refuses an upgrade that leaves out a stop which the configuration demands.
pub fn refuse_skips(config: &Config, from: &Versions, to: &Versions) -> Result<(), EngineError> {
    let Some((name, demand)) = demanded(config, from, to).into_iter().next() else { return Ok(()) };
    let wanted = to.get(&name).map_or("", String::as_str);
    Err(match demand {
        Demand::Skipped(stop) => EngineError::refused(
            format!(
                "{name} {} -> {wanted} leaves out a stop that `paths` demands: {} comes before {}",
                from.get(&name).map_or("", String::as_str),
                stop.through,
                stop.before
            ),
            format!(
                "`switchback path {name}={wanted}` tries the whole way; the next step is {name}={}",
                stop.through
            ),
        ),
        Demand::Unknown(stop, word) => EngineError::refused(
            format!(
                "whether {name} {word} leaves out the stop {} that `paths` demands cannot be told",
                stop.through
            ),
            "name a version with numbers, or remove the rule",
        ),
    })
}

/// The next step towards versions: the stop that is demanded first, where one would be left out.
pub fn next_step(config: &Config, from: &Versions, to: &Versions) -> Versions {
    let mut next = to.clone();
    for (name, demand) in demanded(config, from, to) {
        if let Demand::Skipped(stop) = demand {
            next.insert(name, stop.through.clone());
        }
    }
    next
}

/// Versions of a service that are known: installed ones, or the tags of its image in its registry.
pub fn known_versions(
    home: &Home,
    config: &Config,
    world: &World,
    name: &ServiceName,
    stage: &Stage<'_>,
) -> Result<Vec<String>, EngineError> {
    let installed =
        config.services.get(name).map(|s| gather::installed_versions(home, s)).unwrap_or_default();
    if !installed.is_empty() {
        return Ok(installed);
    }
    crate::outdated::tags_of(home, config, world, name, stage)
}

/// What the plan is made from. Images that are not here are pulled or built.
pub fn facts(
    home: &Home,
    config: &Config,
    world: &World,
    targets: &[Target],
    stage: &Stage<'_>,
) -> Result<PathFacts, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    let mut hops: Vec<Hop> = Vec::new();
    let mut at = production.clone();
    for target in targets {
        let made = world.runtime.release(home, config, &target.versions, stage)?;
        let ports = free_ports_like(&world.runtime.ports(home, &made)?)?;
        let (release, definition) = made;
        let versions = definition.versions();
        if release == at.release {
            return Err(EngineError::refused(
                format!(
                    "a step of the path changes nothing: it is {} already",
                    describe_change(&at.versions, &versions)
                ),
                "name each version once, in their order",
            ));
        }
        let converts = gather::conversions(home, config, world, &production, (&release, &definition))?;
        if let Some((store, (from, to))) = converts.into_iter().next() {
            return Err(EngineError::refused(
                format!("stores.{store}: a path cannot convert Postgres {from} to {to}"),
                "`switchback rehearse` tries the conversion; make it a step of its own",
            ));
        }
        let migrate = gather::migrations(&definition, &at.versions);
        at = Instance { release: release.clone(), versions: versions.clone(), ..at };
        hops.push(Hop { release, versions, ports, migrate });
    }
    let Cost { bytes, shared } = world.data.cost(home, &production)?;
    let need = if shared { 0 } else { bytes.saturating_mul(hops.len() as u64 + 1) };
    Ok(PathFacts { common: gather::beside(home, config, world, production, need)?, hops })
}
