//! The facts of a rollback that is tried on clones.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::gather::{self, free_ports_like, new_run};
use crate::home::Home;
use crate::world::World;
use switchback_core::config::Config;
use switchback_core::plan::{ArchiveFacts, RollbackDrillFacts};

/// What the plan is made from. Refuses where there is no generation to return to.
pub fn facts(home: &Home, config: &Config, world: &World) -> Result<RollbackDrillFacts, EngineError> {
    let (pointer, production) = gather::production(home, config, world)?;
    let Some(previous) = pointer.previous else {
        return Err(EngineError::refused(
            "there is no generation to return to",
            "only a promotion makes one; `switchback rehearse` tries an upgrade and its rollback",
        ));
    };
    let previous = home.generation(previous)?.instance;
    let mut need_bytes = 0;
    for instance in [&production, &previous] {
        let Cost { bytes, shared } = world.data.cost(home, instance)?;
        need_bytes += if shared { 0 } else { bytes };
    }
    let ports = free_ports_like(&production.ports)?;
    // The same environment is switched, as production would be.
    let mut before = free_ports_like(&previous.ports)?;
    for (service, own) in &mut before {
        for (name, port) in own {
            if let Some(same) = ports.get(service).and_then(|p| p.get(name)) {
                *port = *same;
            }
        }
    }
    Ok(RollbackDrillFacts {
        common: ArchiveFacts {
            run: new_run(),
            stack: config.stack.clone(),
            now_ms: now_ms(),
            state_dir: home.state().to_string_lossy().into_owned(),
            production_runs: !world.runtime.running(home, &production)?.is_empty(),
            production,
            ports,
            need_bytes,
            budget_ms: config.rollback.budget.as_millis(),
        },
        previous,
        ports: before,
        valid_ms: config.rehearsal.valid.as_millis(),
    })
}
