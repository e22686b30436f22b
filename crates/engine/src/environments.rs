//! Staging environments that a person keeps, on disk, and the facts of their plans.
//!
//! Owns `environment.json` in each environment's folder. It must never touch what an environment runs: that is for the
//! operations of a run.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::{EngineError, joined};
use crate::gather::{self, Target};
use crate::home::{Home, check_format, read_json, write_json};
use crate::runtime::{Placement, Stage};
use crate::world::World;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use switchback_core::config::{CloneKept, Config};
use switchback_core::duration::human_bytes;
use switchback_core::environment::{self, Environment, Synced};
use switchback_core::ids::{GenerationId, RunId};
use switchback_core::plan::{FetchFacts, StagingFacts, stores_in};
use switchback_core::release::{FORMAT, Instance, Shared};

/// The record's file name.
pub const FILE: &str = "environment.json";

/// The folder of an environment.
pub fn folder(home: &Home, name: &str) -> PathBuf {
    home.state().join(environment::dir(name))
}

fn file(home: &Home, name: &str) -> PathBuf {
    folder(home, name).join(FILE)
}

/// Reads the record of an environment; `None` if there is none of that name.
pub fn find(home: &Home, name: &str) -> Result<Option<Environment>, EngineError> {
    environment::check_name(name).map_err(|e| EngineError::refused(e.to_string(), NAME_HINT))?;
    let path = file(home, name);
    if !path.exists() {
        return Ok(None);
    }
    let found: Environment = read_json(&path)?;
    check_format(&path, found.format)?;
    if found.name != name || found.instance.is_production() || !found.instance.dir.starts_with("staging/") {
        return Err(EngineError::Damaged { what: path, detail: "it describes something else".to_owned() });
    }
    Ok(Some(found))
}

const NAME_HINT: &str = "for example  switchback staging up try-2";

/// Reads the record of an environment that must exist.
pub fn get(home: &Home, name: &str) -> Result<Environment, EngineError> {
    if let Some(found) = find(home, name)? {
        return Ok(found);
    }
    let known: Vec<String> = list(home)?.into_iter().map(|e| e.name).collect();
    Err(EngineError::refused(
        format!("there is no staging environment {name}"),
        if known.is_empty() {
            "`switchback staging up` makes one".to_owned()
        } else {
            format!("there is: {}", known.join(", "))
        },
    ))
}

/// All environments, by name.
pub fn list(home: &Home) -> Result<Vec<Environment>, EngineError> {
    let mut names: Vec<String> = fs::read_dir(home.state().join("staging"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some(e.file_name().to_str()?.strip_prefix("env-")?.to_owned()))
        .filter(|n| environment::check_name(n).is_ok())
        .collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        found.extend(find(home, &name)?);
    }
    Ok(found)
}

/// Folders of the state that belong to environments, or to the clone that backups keep: nothing in them is a leftover.
pub fn dirs(home: &Home) -> Result<Vec<String>, EngineError> {
    let mut found: Vec<String> = list(home)?.iter().map(|e| environment::dir(&e.name)).collect();
    if home.config()?.backup.is_some_and(|b| b.clone == CloneKept::Keep) {
        found.push(environment::BACKUP_COPY.to_owned());
    }
    Ok(found)
}

/// Writes the record of an environment.
pub fn save(home: &Home, environment: &Environment) -> Result<(), EngineError> {
    write_json(&file(home, &environment.name), environment)
}

/// Removes the record of an environment. Fine if there is none.
pub fn forget(home: &Home, name: &str) -> Result<(), EngineError> {
    let path = file(home, name);
    match fs::remove_file(&path) {
        Ok(()) => crate::home::sync_dir(&folder(home, name)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(crate::error::io("remove", &path)(e)),
    }
}

/// Facts for a new environment.
pub fn new_facts(
    home: &Home,
    config: &Config,
    world: &World,
    name: &str,
    target: &Target,
    backup: Option<&FetchFacts>,
    stage: &Stage<'_>,
) -> Result<StagingFacts, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    // What the data is of: what it is migrated from.
    let was = backup.map_or(&production, |b| &b.was);
    let (release, versions, like) = if target.versions.is_empty() {
        (was.release.clone(), was.versions.clone(), was.ports.clone())
    } else {
        let made = world.runtime.release(home, config, &target.versions, stage)?;
        let ports = world.runtime.ports(home, &made)?;
        let versions = made.1.versions();
        if let Some((store, (from, to))) =
            gather::conversions(home, config, world, was, (&made.0, &made.1))?.into_iter().next()
        {
            return Err(EngineError::refused(
                format!(
                    "stores.{store}: an environment with Postgres {to} cannot be made from data of Postgres {from}"
                ),
                "`switchback rehearse` tries the conversion; keep the version of the database for an environment",
            ));
        }
        (made.0, versions, ports)
    };
    let migrate = gather::migrations(&home.release(&release)?, &was.versions);
    let run = gather::new_run();
    let dir = environment::dir(name);
    let place = |generation: u32| {
        let dir = format!("{dir}/g{generation}");
        Instance {
            environment: name.to_owned(),
            generation: GenerationId(generation),
            release: release.clone(),
            versions: versions.clone(),
            stores: stores_in(
                &production.stores,
                &format!("{}/{dir}", home.state().to_string_lossy()),
                production.project.as_deref().unwrap_or(""),
                &dir.replace('/', "."),
            ),
            dir,
            ports: BTreeMap::new(),
            project: production.project.as_ref().map(|_| project(&run, name)),
            shared: Shared::default(),
            closed: false,
        }
    };
    let mut instance = place(1);
    instance.ports = gather::free_ports_like(&like)?;
    // A migration that is interrupted begins again from untouched data.
    let pristine = (config.staging.pristine || !migrate.is_empty()).then(|| place(0));
    let now = now_ms();
    let environment = Environment {
        format: FORMAT,
        name: name.to_owned(),
        instance,
        pristine,
        run: run.clone(),
        created_at_ms: now,
        expires_at_ms: Some(
            now.saturating_add(i64::try_from(config.staging.keep.as_millis()).unwrap_or(i64::MAX)),
        ),
        from_generation: production.generation,
        whole: true,
        data: Synced::default(),
    };
    let mut facts = facts(home, config, world, run, production, environment, migrate, true)?;
    facts.snapshot = backup.map(|b| b.snapshot.clone());
    facts.at_ms = backup.and_then(|b| b.at_ms);
    facts.images = backup.is_some_and(|b| b.images);
    Ok(facts)
}

/// Lower case, as Compose wants it; the run's end differs most between runs.
fn project(run: &RunId, name: &str) -> String {
    let run = run.as_str().to_lowercase();
    format!("sb-{}-{name}", run.get(run.len().saturating_sub(12)..).unwrap_or(&run))
}

/// Facts for an environment that exists.
pub fn facts_of(
    home: &Home,
    config: &Config,
    world: &World,
    environment: Environment,
) -> Result<StagingFacts, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    let mut environment = environment;
    let run = gather::new_run();
    environment.run = run.clone();
    let migrate = gather::migrations(&home.release(&environment.instance.release)?, &production.versions);
    facts(home, config, world, run, production, environment, migrate, false)
}

#[expect(clippy::too_many_arguments, reason = "the two callers above share it")]
fn facts(
    home: &Home,
    config: &Config,
    world: &World,
    run: RunId,
    production: Instance,
    environment: Environment,
    migrate: Vec<switchback_core::ids::ServiceName>,
    new: bool,
) -> Result<StagingFacts, EngineError> {
    // Both ask the engine, and wait for it.
    let (carried, cost) = std::thread::scope(|scope| {
        let carried = scope.spawn(|| if new { carries(home, config, world, &production) } else { Ok(()) });
        let cost = world.data.cost(home, &production);
        (joined(carried), cost)
    });
    let Cost { bytes, shared } = cost?;
    let copies = 1 + u64::from(environment.pristine.is_some());
    let need_bytes = if shared || !new { 0 } else { bytes.saturating_mul(copies) };
    if new {
        quota(home, config, need_bytes)?;
        carried?;
    }
    Ok(StagingFacts {
        run,
        stack: config.stack.clone(),
        now_ms: now_ms(),
        production_runs: !world.runtime.running(home, &production)?.is_empty(),
        production,
        migrate,
        snapshot: None,
        at_ms: None,
        images: false,
        need_bytes,
        rules: config.staging.anonymise.clone(),
        budget_ms: config.rollback.budget.as_millis(),
        environment,
    })
}

/// Refuses a copy for which this host has no memory: it would take production down with it.
fn carries(home: &Home, config: &Config, world: &World, production: &Instance) -> Result<(), EngineError> {
    let release = home.release(&production.release)?;
    let at = Placement { home, config, instance: production, release: &release };
    let Some(free) = crate::available_memory().filter(|_| world.runtime.is_here()) else { return Ok(()) };
    let needed = world.runtime.memory(&at, free)?;
    if needed > free {
        return Err(EngineError::refused(
            format!(
                "this host cannot carry another copy: production's services use {} of memory, and {} are available",
                human_bytes(needed),
                human_bytes(free)
            ),
            "stop another environment (`switchback staging stop NAME`), or use another host",
        ));
    }
    Ok(())
}

/// Refuses an environment more than the configuration allows.
fn quota(home: &Home, config: &Config, need_bytes: u64) -> Result<(), EngineError> {
    let all = list(home)?;
    let most = config.staging.environments;
    if all.len() >= most as usize {
        let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
        return Err(EngineError::refused(
            format!(
                "there are {} staging environments already ({}); at most {most} are allowed",
                all.len(),
                names.join(", ")
            ),
            "remove one (`switchback staging down NAME`), or raise staging.environments in switchback.yaml",
        ));
    }
    let Some(gib) = config.staging.disk_gib else { return Ok(()) };
    let used: u64 = all.iter().map(|e| e.data.written).sum();
    let allowed = gib.saturating_mul(1 << 30);
    if used.saturating_add(need_bytes) > allowed {
        return Err(EngineError::refused(
            format!(
                "the data of another environment takes {}; {} of the {} that are allowed are in use",
                human_bytes(need_bytes),
                human_bytes(used),
                human_bytes(allowed)
            ),
            "remove an environment (`switchback staging down NAME`), or raise staging.disk_gib in switchback.yaml",
        ));
    }
    Ok(())
}
