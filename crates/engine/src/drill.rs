//! The facts of a rollback that is tried on clones.

use crate::certificate::certificates;
use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::gather::{self, free_ports_like, new_run};
use crate::home::Home;
use crate::journal::Journal;
use crate::runtime::Placement;
use crate::world::World;
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::ids::{Digest, RunId};
use switchback_core::plan::{Procedure, ProductionDrillFacts, RollbackDrillFacts};
use switchback_core::times;

/// What the plan of a drill on production is made from. Refuses where production does not run, and where something could reach the
/// copy: what is written to it would not be in production's data.
pub fn production_facts(
    home: &Home,
    config: &Config,
    world: &World,
) -> Result<ProductionDrillFacts, EngineError> {
    let (pointer, production) = gather::production(home, config, world)?;
    let release = home.release(&production.release)?;
    if world.runtime.running(home, &production)?.is_empty() {
        return Err(EngineError::refused(
            "production does not run",
            "`switchback up` starts it; a drill leaves it as it was",
        ));
    }
    let at = Placement { home, config, instance: &production, release: &release };
    let open = world.runtime.open_ways(&at)?;
    if !open.is_empty() {
        return Err(EngineError::refused(
            format!("what is written meanwhile could not be kept apart: {}", open.join("; ")),
            "`switchback drill rollback` tries it on clones, which nothing reaches",
        ));
    }
    let Cost { bytes, shared } = world.data.cost(home, &production)?;
    Ok(ProductionDrillFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        previous: pointer.previous,
        next: home.next_generation(pointer.current)?,
        ports: free_ports_like(&production.ports)?,
        precopy: config.runtime == RuntimeKind::Compose && !shared,
        need_bytes: if shared { 0 } else { bytes * 2 },
        budget_ms: config.rollback.budget.as_millis(),
        valid_ms: config.rehearsal.valid.as_millis(),
        production,
    })
}

/// How long production will be away for a drill, as far as it was measured: by the last drill on production, or by the last promotion's
/// rehearsal and rollback. The second says whether it was a drill.
pub fn expected(home: &Home, production: &Digest) -> Result<Option<(u64, bool)>, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(None) };
    let away = |run: &RunId| Ok(times::downtime(&journal.load(run)?.2, "stop-old", "rollback-start"));
    if let Some(ms) = journal.newest_of(|p| p == Procedure::ProductionDrill, away)? {
        return Ok(Some((ms, true)));
    }
    let all = certificates(&journal)?;
    let of = all.iter().rev().find(|c| c.to == *production && c.downtime_ms > 0);
    Ok(of.map(|c| (c.downtime_ms.saturating_add(c.rollback_ms), false)))
}

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
    let common = gather::beside(home, config, world, production, need_bytes)?;
    // The same environment is switched, as production would be.
    let mut before = free_ports_like(&previous.ports)?;
    for (service, own) in &mut before {
        for (name, port) in own {
            if let Some(same) = common.ports.get(service).and_then(|p| p.get(name)) {
                *port = *same;
            }
        }
    }
    Ok(RollbackDrillFacts { common, previous, ports: before, valid_ms: config.rehearsal.valid.as_millis() })
}
