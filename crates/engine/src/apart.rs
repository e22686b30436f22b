//! The facts of a rollback of single services, and of what shares data with what.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::gather::new_run;
use crate::home::Home;
use crate::runtime::Placement;
use crate::session::Session;
use crate::watch;
use crate::world::World;
use std::collections::BTreeSet;
use switchback_core::config::{Config, suggest};
use switchback_core::ids::{GenerationId, ServiceName};
use switchback_core::plan::{self, Plan, ServiceRollbackFacts, Ties};
use switchback_core::release::{Instance, Release};

/// Refuses to return to a generation whose data production goes on with, or that was only made for a drill.
pub(crate) fn may_return(
    current: &Instance,
    target: &Instance,
    previous: Option<GenerationId>,
) -> Result<(), EngineError> {
    let hint = match previous {
        Some(previous) => format!("`switchback rollback` returns to generation {previous}"),
        None => "`switchback upgrade` brings services forward again".to_owned(),
    };
    if target.closed {
        return Err(EngineError::refused(
            format!("generation {} was made for a drill", target.generation),
            hint,
        ));
    }
    let common = current.common_places(target);
    let Some(store) = common.first() else { return Ok(()) };
    Err(EngineError::refused(
        format!(
            "generation {} has the store {store} in common with generation {}, since single services were rolled back: its data is not that of then",
            target.generation, current.generation
        ),
        format!("{hint}; to bring the services that went back forward again, upgrade them"),
    ))
}

impl Session<'_> {
    /// Plans to return single services to the generation before. Refuses where anything else depends on them.
    pub fn plan_service_rollback(
        &self,
        config: &Config,
        names: &[String],
        reason: &str,
    ) -> Result<Plan, EngineError> {
        let facts = facts(self, config, names, reason)?;
        Ok(plan::service_rollback(&facts).with_hooks(&config.hooks))
    }
}

fn facts(
    session: &Session<'_>,
    config: &Config,
    names: &[String],
    reason: &str,
) -> Result<ServiceRollbackFacts, EngineError> {
    let home = session.home;
    let world = World::open(config)?;
    let pointer = home.pointer()?.ok_or_else(|| {
        EngineError::refused("the stack has no generation yet", "`switchback up` makes the first")
    })?;
    let Some(previous) = pointer.previous else {
        return Err(EngineError::refused(
            format!("generation {} has no previous generation to return to", pointer.current),
            "only a promotion makes a generation that can be left again",
        ));
    };
    let leave = home.generation(pointer.current)?.instance;
    let target = home.generation(previous)?.instance;
    let (now, before) = (home.release(&leave.release)?, home.release(&target.release)?);
    let services = chosen(names, &now)?;
    let words = services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    let whole = "`switchback rollback` returns the whole stack";
    for name in &services {
        let Some(was) = before.services.get(name) else {
            return Err(EngineError::refused(
                format!("{name} is new in generation {}: there is nothing to return it to", leave.generation),
                whole,
            ));
        };
        if now.services.get(name) == Some(was) {
            return Err(EngineError::refused(
                format!("{name} {} is the same in generation {previous}", was.definition.version),
                "leave it out; what was written to its data would go, and nothing else would change",
            ));
        }
    }
    if services.len() == now.services.len() {
        return Err(EngineError::refused(format!("{words} are all services"), whole));
    }
    let found = tied(home, &world, (&leave, &now), (&target, &before), &services)?;
    if !found.reasons.is_empty() {
        let hint = hint(&services, &found, &now);
        let reasons = found.reasons.join("; ");
        return Err(EngineError::refused(format!("{words} cannot go back alone: {reasons}"), hint));
    }
    let uses = world.runtime.uses(home, &leave, &now)?;
    let stores: BTreeSet<_> = services.iter().filter_map(|s| uses.stores.get(s)).flatten().cloned().collect();
    for store in &stores {
        let sources =
            [&leave, &target].map(|i| i.stores.get(store).map(|p| p.mount.as_ref().map(|m| &m.source)));
        if sources[1].is_none() || sources[0] != sources[1] {
            return Err(EngineError::refused(
                format!("generation {previous} has no store {store}, or keeps it elsewhere"),
                whole,
            ));
        }
    }
    let at = Placement { home, config, instance: &leave, release: &now };
    if !world.data.has_base(&at)? {
        return Err(EngineError::refused(
            format!("generation {} has no clone to recognise later writes by", leave.generation),
            whole,
        ));
    }
    let (release, _) =
        world.runtime.mixed(home, (&leave.release, &now), (&target.release, &before), &services)?;
    let mut copied = target.clone();
    copied.stores.retain(|name, _| stores.contains(name));
    let Cost { bytes, shared } = world.data.cost(home, &copied)?;
    let trial = watch::current(&session.journal)?.is_some();
    Ok(ServiceRollbackFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        next: home.next_generation(pointer.current)?,
        pointer_previous: pointer.previous,
        need_bytes: if shared { 0 } else { bytes * 2 },
        budget_ms: config.rollback.budget.as_millis(),
        watch_ms: trial.then(|| config.rollback.watch.as_millis()),
        reason: reason.to_owned(),
        leave,
        target,
        services,
        stores,
        release,
    })
}

/// The services that were named, each once.
fn chosen(names: &[String], now: &Release) -> Result<Vec<ServiceName>, EngineError> {
    let mut found = BTreeSet::new();
    for name in names {
        let known = now.services.keys().map(ServiceName::as_str);
        match now.services.get_key_value(name.as_str()) {
            Some((service, _)) => drop(found.insert(service.clone())),
            None => {
                let hint = match suggest(name, known.clone()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("services: {}", known.collect::<Vec<_>>().join(", ")),
                };
                return Err(EngineError::refused(format!("production has no service {name:?}"), hint));
            }
        }
    }
    Ok(found.into_iter().collect())
}

fn tied(
    home: &Home,
    world: &World,
    (leave, now): (&Instance, &Release),
    (target, before): (&Instance, &Release),
    services: &[ServiceName],
) -> Result<Ties, EngineError> {
    let uses = (world.runtime.uses(home, leave, now)?, world.runtime.uses(home, target, before)?);
    let files: BTreeSet<&String> = now.config.keys().chain(before.config.keys()).collect();
    let changed =
        files.into_iter().filter(|f| now.config.get(*f) != before.config.get(*f)).cloned().collect();
    let stores = leave.stores.keys().cloned().collect();
    Ok(plan::ties(services, &stores, (&uses.0, &uses.1), &changed))
}

fn hint(services: &[ServiceName], found: &Ties, now: &Release) -> String {
    let all: BTreeSet<&ServiceName> = services.iter().chain(&found.with).collect();
    let whole = "`switchback rollback` returns the whole stack";
    if found.with.is_empty() || all.len() == now.services.len() {
        return whole.to_owned();
    }
    let named: Vec<String> = all.iter().map(|s| format!("--service {s}")).collect();
    format!("name them together: `switchback rollback {}`; or {whole}", named.join(" "))
}
