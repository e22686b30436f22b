//! The facts of an upgrade in several steps.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::gather::{self, Target, free_ports_like, new_run};
use crate::home::Home;
use crate::runtime::Stage;
use crate::world::World;
use switchback_core::config::Config;
use switchback_core::plan::{ArchiveFacts, Hop, PathFacts};
use switchback_core::release::{Instance, describe_change};

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
    let copies = hops.len() as u64 + 1;
    Ok(PathFacts {
        common: ArchiveFacts {
            run: new_run(),
            stack: config.stack.clone(),
            now_ms: now_ms(),
            state_dir: home.state().to_string_lossy().into_owned(),
            production_runs: !world.runtime.running(home, &production)?.is_empty(),
            ports: free_ports_like(&production.ports)?,
            production,
            need_bytes: if shared { 0 } else { bytes.saturating_mul(copies) },
            budget_ms: config.rollback.budget.as_millis(),
            archived: false,
        },
        hops,
    })
}
