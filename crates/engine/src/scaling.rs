//! The facts of a migration timed at several sizes of the data.

use crate::data::Cost;
use crate::error::EngineError;
use crate::gather::{self, Target, free_ports_like};
use crate::home::Home;
use crate::runtime::Stage;
use crate::world::World;
use switchback_core::config::Config;
use switchback_core::plan::ScalingFacts;
use switchback_core::release::describe_change;

/// What the plan is made from: the shares in percent, ascending, and how often each is tried.
pub fn facts(
    home: &Home,
    config: &Config,
    world: &World,
    target: &Target,
    (percents, rounds): (Vec<u8>, u32),
    stage: &Stage<'_>,
) -> Result<ScalingFacts, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    let made = world.runtime.release(home, config, &target.versions, stage)?;
    let ports = free_ports_like(&world.runtime.ports(home, &made)?)?;
    let (release, definition) = made;
    let versions = definition.versions();
    if release == production.release {
        return Err(EngineError::refused(
            format!("{} is what production runs", describe_change(&production.versions, &versions)),
            "name the version whose migration is to be timed",
        ));
    }
    let converts = gather::conversions(home, config, world, &production, (&release, &definition))?;
    if let Some((store, (from, to))) = converts.into_iter().next() {
        return Err(EngineError::refused(
            format!(
                "stores.{store}: Postgres {from} would be converted to {to}; only migrations of the application are timed at several sizes"
            ),
            "`switchback rehearse` tells how long the conversion takes",
        ));
    }
    let migrate = gather::migrations(&definition, &production.versions);
    let Cost { bytes, shared } = world.data.cost(home, &production)?;
    // The clone, every smaller one, and at any time one more of the largest that is tried.
    let smaller: u64 = percents.iter().filter(|p| **p < 100).map(|p| u64::from(*p)).sum();
    let largest = percents.iter().max().map_or(100, |p| u64::from(*p));
    // Rows are removed and the tables written anew, one after the other: a copy is briefly as large as the whole.
    let need = match shared {
        true => bytes.saturating_mul(smaller) / 100,
        false => bytes.saturating_mul(200 + smaller + largest) / 100,
    };
    Ok(ScalingFacts {
        common: gather::beside(home, config, world, production, need)?,
        target: release,
        versions,
        ports,
        migrate,
        percents,
        rounds,
    })
}
