//! What runs, and how ready a rollback is.

use super::output::printable;
use super::run::journal;
use super::{Exit, Global, Output, Trouble, why};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::{GenerationId, ServiceName, StoreName};
use switchback_core::journal::{Event, Record};
use switchback_core::plan::Procedure;
use switchback_core::release::{Instance, describe};
use switchback_core::trigger::{Standing, Trigger};
use switchback_engine::backup::{key_confirmed, late, newest};
use switchback_engine::capture::Progress as Captured;
use switchback_engine::carry::Left;
use switchback_engine::engine::{now_ms, production_down};
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;
use switchback_engine::journal::Journal;
use switchback_engine::left::unexported;
use switchback_engine::lock::Lock;
use switchback_engine::runtime::{Observed, Placement};
use switchback_engine::watch::{self, WatchdogTrouble};
use switchback_engine::world::World;

#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub stack: String,
    pub generation: Option<GenerationId>,
    pub runtime: &'static str,
    pub versions: BTreeMap<ServiceName, String>,
    /// What the files ask for; none where they cannot be read.
    pub desired: Option<BTreeMap<ServiceName, String>>,
    /// How what runs differs from the generation; Compose only.
    pub drift: Vec<String>,
    /// Why it is not known what runs.
    pub blind: Option<String>,
    pub services: Vec<ServiceStatus>,
    pub rollback: Readiness,
    /// Backups; none where they are not configured.
    pub backup: Option<BackupStatus>,
    pub trial: Option<TrialStatus>,
    /// What keeps the watchdog of a trial or an unfinished run from its work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_trouble: Option<WatchdogTrouble>,
    pub unfinished: Option<Unfinished>,
    pub busy: Option<String>,
    pub unexported: Vec<GenerationId>,
    /// How far it is kept which rows of the stores are written to; empty where it is not.
    pub capture: BTreeMap<StoreName, Captured>,
    /// Generations with exported writes that were not carried into production.
    pub uncarried: Vec<Left>,
}

#[derive(Debug, Serialize)]
pub(super) struct ServiceStatus {
    pub service: ServiceName,
    pub version: String,
    pub ports: BTreeMap<String, u16>,
    #[serde(flatten)]
    pub seen: Observed,
}

#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub ready: bool,
    pub to: Option<GenerationId>,
    pub expected_ms: Option<u64>,
    pub measured_ago_ms: Option<i64>,
    pub text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct BackupStatus {
    /// Age of the newest one.
    pub age_ms: Option<i64>,
    /// Since the last time that one was brought back to see whether it works.
    pub drilled_ago_ms: Option<i64>,
    pub key_confirmed: bool,
    /// What is scheduled (`backup`, `drill`), and whether it is late.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub late: BTreeMap<String, bool>,
    /// Since the last commit that is archived, by store.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub archived_ago_ms: BTreeMap<StoreName, i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct TrialStatus {
    pub generation: GenerationId,
    pub left_ms: u64,
    pub watchdog: Option<String>,
    pub failures_in_a_row: u32,
    /// Triggers that are not quiet.
    pub triggers: Vec<TriggerStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct TriggerStatus {
    pub trigger: Trigger,
    pub standing: Standing,
    pub why: String,
}

/// Options of status.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How the trial that is running, or the last one, was judged: what was seen and decided
    #[arg(long)]
    pub why: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Unfinished {
    pub run: String,
    pub procedure: Procedure,
    pub production_down: bool,
}

/// Shows the status.
pub fn status(global: &Global, args: &StatusArgs) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    if args.why {
        return why::why(global, &home);
    }
    let config = home.config()?;
    let status = gather(&home, &config)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&status)?;
    } else {
        print(&out, &status)?;
    }
    Ok(Exit::Done)
}

/// What the runtime says about the current generation.
#[derive(Default)]
struct Now {
    services: Vec<ServiceStatus>,
    desired: Option<BTreeMap<ServiceName, String>>,
    drift: Vec<String>,
    /// Why it could not be asked.
    blind: Option<String>,
}

pub(super) fn gather(home: &Home, config: &Config) -> Result<Status, Trouble> {
    let pointer = home.pointer()?;
    let journal = journal(home)?;
    let current = pointer.as_ref().map(|p| home.generation(p.current)).transpose()?;
    // Without an engine, what is on disk can still be told.
    let (world, blind) = match World::open(config) {
        Ok(world) => (Some(world), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let now = match (&world, &current) {
        (Some(world), Some(generation)) => now(home, config, world, &generation.instance)?,
        _ => Now { blind, ..Now::default() },
    };
    let trial = match &journal {
        Some(journal) => watch::current(journal)?.and_then(|t| t.state.trial).map(|t| TrialStatus {
            generation: t.generation,
            left_ms: u64::try_from(t.deadline_ms - now_ms()).unwrap_or(0),
            watchdog: watch::holder(home),
            failures_in_a_row: t.failures_in_a_row,
            triggers: t
                .triggers
                .into_iter()
                .map(|(trigger, (standing, why))| TriggerStatus { trigger, standing, why })
                .collect(),
        }),
        None => None,
    };
    // A generation that a promotion is making just now is not one that was left.
    let mut in_the_making = None;
    let unfinished = match &journal {
        Some(journal) => match journal.unfinished()?.pop() {
            Some(run) => {
                let (plan, state, _) = journal.load(&run)?;
                in_the_making = plan.to_generation;
                Some(Unfinished {
                    run: run.to_string(),
                    procedure: plan.procedure,
                    production_down: production_down(&plan, &state),
                })
            }
            None => None,
        },
        None => None,
    };
    Ok(Status {
        stack: config.stack.to_string(),
        generation: pointer.as_ref().map(|p| p.current),
        versions: current.as_ref().map(|g| g.instance.versions.clone()).unwrap_or_default(),
        runtime: config.runtime.as_str(),
        desired: match (&now.desired, config.runtime) {
            (Some(desired), _) => Some(desired.clone()),
            (None, RuntimeKind::Process) => {
                Some(config.services.iter().map(|(n, s)| (n.clone(), s.version.clone())).collect())
            }
            (None, RuntimeKind::Compose) => None,
        },
        services: now.services,
        drift: now.drift,
        blind: now.blind,
        rollback: readiness(
            home,
            config,
            world.as_ref(),
            journal.as_ref(),
            pointer.as_ref().and_then(|p| p.previous),
        )?,
        backup: backup(home, config)?,
        watchdog_trouble: watch::trouble(home).filter(|_| trial.is_some() || unfinished.is_some()),
        trial,
        unfinished,
        busy: Lock::holder(&home.state().join("lock")),
        capture: current.as_ref().map(|g| captured(home, &g.instance)).unwrap_or_default(),
        uncarried: uncarried(home)?,
        unexported: unexported(home)?.into_iter().filter(|g| Some(*g) != in_the_making).collect(),
    })
}

/// What is kept, as long as it is.
fn captured(home: &Home, instance: &Instance) -> BTreeMap<StoreName, Captured> {
    let mut all = switchback_engine::capture::progress(home, instance);
    all.retain(|_, now| !now.ended || now.trouble.is_some());
    all
}

fn in_words(store: &StoreName, now: &Captured) -> String {
    let ago = human_ms(u64::try_from(now_ms() - now.at_ms).unwrap_or(0));
    let behind = human_bytes(now.behind_bytes);
    match &now.trouble {
        Some(why) => format!("{store}: NOT CAPTURED, {ago} ago: {why}; later writes are compared"),
        None if now.position.is_empty() => format!("{store}: begins"),
        None => format!(
            "{store}: {} changes kept up to {}, {ago} ago; the server keeps {behind} of its log",
            now.changes, now.position
        ),
    }
}

fn uncarried(home: &Home) -> Result<Vec<Left>, EngineError> {
    let all = switchback_engine::carry::left(home)?;
    Ok(all.into_iter().filter(|l| l.writes > 0 && l.carried_into.is_none()).collect())
}

fn backup(home: &Home, config: &Config) -> Result<Option<BackupStatus>, EngineError> {
    let Some(backup) = &config.backup else { return Ok(None) };
    let chains = switchback_engine::backup::wal::chains(home)?;
    let ago = |of| Ok::<_, EngineError>(newest(home, of)?.map(|(at, _)| now_ms() - at));
    Ok(Some(BackupStatus {
        age_ms: ago(Procedure::Backup)?,
        drilled_ago_ms: ago(Procedure::Drill)?,
        key_confirmed: key_confirmed(home, backup),
        late: late::scheduled(home, config)?
            .into_iter()
            .map(|s| (s.procedure.as_str().to_owned(), s.is_late()))
            .collect(),
        archived_ago_ms: config
            .archived()
            .into_iter()
            .filter_map(|s| chains.stores.get(&s).map(|c| (s, now_ms() - c.until_ms())))
            .collect(),
    }))
}

/// What runs, what should, and what is different.
fn now(home: &Home, config: &Config, world: &World, instance: &Instance) -> Result<Now, Trouble> {
    let release = home.release(&instance.release)?;
    let at = Placement { home, config, instance, release: &release };
    let observed = match world.runtime.observe(&at) {
        Ok(observed) => observed,
        Err(e) if config.runtime == RuntimeKind::Compose => {
            return Ok(Now { blind: Some(e.to_string()), ..Now::default() });
        }
        Err(e) => return Err(e.into()),
    };
    let services = observed.into_iter().map(|(name, seen)| ServiceStatus {
        version: release.services.get(&name).map(|s| s.definition.version.clone()).unwrap_or_default(),
        ports: instance.ports.get(&name).cloned().unwrap_or_default(),
        service: name,
        seen,
    });
    // Processes are told by what is observed; the containers of a project may be another generation's.
    let drift = match config.runtime {
        RuntimeKind::Process => Vec::new(),
        RuntimeKind::Compose => world.runtime.read_back(&at)?.err().unwrap_or_default(),
    };
    Ok(Now {
        services: services.collect(),
        desired: world.runtime.desired(home, config)?,
        drift,
        blind: None,
    })
}

/// Whether a rollback would work, from what is there, and how long the last one took.
fn readiness(
    home: &Home,
    config: &Config,
    world: Option<&World>,
    journal: Option<&Journal>,
    to: Option<GenerationId>,
) -> Result<Readiness, Trouble> {
    let no = |text: String| Readiness { ready: false, to, expected_ms: None, measured_ago_ms: None, text };
    let Some(to) = to else {
        return Ok(no("no previous generation; only a promotion makes one".to_owned()));
    };
    let Some(world) = world else {
        return Ok(no(format!("generation {to}: not known, the Docker engine does not answer")));
    };
    let missing = match incomplete(home, config, world, to) {
        Ok(missing) => missing,
        Err(e) => return Ok(no(format!("generation {to}: {e}"))),
    };
    if !missing.is_empty() {
        return Ok(no(format!("generation {to} is not complete: {} missing", missing.join(", "))));
    }
    let mut readiness = no(format!("generation {to} ready, never measured"));
    readiness.ready = true;
    if let Some(journal) = journal
        && let Some((ms, at_ms, what)) = last_measurement(journal)?
    {
        let ago = now_ms() - at_ms;
        readiness.expected_ms = Some(ms);
        readiness.measured_ago_ms = Some(ago);
        let ago = human_ms(u64::try_from(ago).unwrap_or(0));
        readiness.text = format!("generation {to} ready, about {}, {what} {ago} ago", human_ms(ms));
    }
    Ok(readiness)
}

/// What of a generation is gone, in words.
fn incomplete(
    home: &Home,
    config: &Config,
    world: &World,
    id: GenerationId,
) -> Result<Vec<String>, EngineError> {
    let generation = home.generation(id)?;
    let release = home.release(&generation.instance.release)?;
    let at = Placement { home, config, instance: &generation.instance, release: &release };
    let mut missing = Vec::new();
    for name in generation.instance.stores.keys() {
        if !world.data.exists(&at, name)? {
            missing.push(format!("store {name}"));
        }
    }
    missing.extend(world.runtime.missing(&at)?);
    Ok(missing)
}

/// The last measured rollback: a certificate's, or a real one.
fn last_measurement(journal: &Journal) -> Result<Option<(u64, i64, &'static str)>, Trouble> {
    let drilled = switchback_engine::certificate::certificates(journal)?
        .pop()
        .map(|c| (c.rollback_ms, c.issued_at_ms, "drilled"));
    let mut real = None;
    for run in journal.runs(20)? {
        let (plan, _, records): (_, _, Vec<Record>) = journal.load(&run)?;
        if plan.procedure != Procedure::Rollback {
            continue;
        }
        let ended = records.iter().find(|r| matches!(r.event, Event::Ended { .. })).map(|r| r.at_ms);
        if let (Some(ms), Some(at)) = (switchback_core::times::between(&records, "stop-new", "flip"), ended) {
            real = Some((ms, at, "rolled back"));
            break;
        }
    }
    Ok([drilled, real].into_iter().flatten().max_by_key(|(_, at, _)| *at))
}

fn print(out: &Output, status: &Status) -> Result<(), Trouble> {
    let Some(generation) = status.generation else {
        out.line(&format!("{}: not started by Switchback yet; `switchback up` starts it", status.stack))?;
        return Ok(());
    };
    out.line(&format!("{}: generation {generation}, {}", status.stack, describe(&status.versions)))?;
    if let Some(why) = &status.blind {
        out.line(&format!("  {:<14} not known what runs: {}", "?", printable(why)))?;
    }
    for service in &status.services {
        let seen = &service.seen;
        let state = printable(&seen.state);
        let restarts =
            if seen.starts > 1 { format!(", started {} times", seen.starts) } else { String::new() };
        let places: Vec<String> = if status.runtime == RuntimeKind::Process.as_str() {
            service.ports.iter().map(|(n, p)| format!("{n} {p}")).collect()
        } else {
            seen.endpoints.iter().map(|(n, place)| format!("{n} {place}")).collect()
        };
        let (name, version) = (service.service.as_str(), &service.version);
        out.line(format!("  {name:<14} {version:<10} {state}{restarts}  {}", places.join(", ")).trim_end())?;
    }
    for difference in &status.drift {
        out.line(&format!("  drift          {}", printable(difference)))?;
    }
    out.line(&format!("  rollback       {}", status.rollback.text))?;
    if let Some(backup) = &status.backup {
        let ago = |ms: Option<i64>| ms.map(|ms| human_ms(u64::try_from(ms).unwrap_or(0)));
        let newest =
            ago(backup.age_ms).map_or("none yet: `switchback backup`".to_owned(), |a| format!("{a} old"));
        let drilled =
            ago(backup.drilled_ago_ms).map_or("never tried".to_owned(), |a| format!("tried {a} ago"));
        let key = if backup.key_confirmed { "" } else { ", no copy of the key is known" };
        let late = if backup.late.values().any(|late| *late) { ", LATE" } else { "" };
        out.line(&format!("  backup         {newest}, {drilled}{late}{key}"))?;
        for (store, ms) in &backup.archived_ago_ms {
            let ago = ago(Some(*ms)).unwrap_or_default();
            out.line(&format!("  log            {store}: archived up to {ago} ago"))?;
        }
    }
    if let Some(trial) = &status.trial {
        let watchdog =
            trial.watchdog.clone().unwrap_or_else(|| "NO WATCHDOG: type `switchback resume`".to_owned());
        let doubt = if trial.failures_in_a_row > 0 {
            format!(", {} failed probes in a row", trial.failures_in_a_row)
        } else {
            String::new()
        };
        out.line(&format!(
            "  trial          generation {}, {} left{doubt}, {watchdog}",
            trial.generation,
            human_ms(trial.left_ms)
        ))?;
        for one in &trial.triggers {
            let words = if one.standing == Standing::Fired { "fired" } else { "suspect" };
            out.line(&format!("  {words:<14} {}: {}", one.trigger.as_str(), printable(&one.why)))?;
        }
    }
    if let Some(trouble) = &status.watchdog_trouble {
        let what = if trouble.rollback_waits { "the rollback cannot be done" } else { "it cannot watch" };
        out.line(&format!("  watchdog       {what}, it tries again: {}", printable(&trouble.why)))?;
    }
    for (store, now) in &status.capture {
        out.line(&format!("  capture        {}", printable(&in_words(store, now))))?;
    }
    if let Some(run) = &status.unfinished {
        let down = if run.production_down { "; production is DOWN" } else { "" };
        out.line(&format!(
            "  unfinished     {} {}{down}: `switchback resume`, or `switchback resume --abort`",
            run.procedure.as_str(),
            run.run
        ))?;
    }
    if let Some(holder) = &status.busy {
        out.line(&format!("  busy           {holder}"))?;
    }
    match &status.desired {
        Some(desired) if differs(&status.versions, desired) => {
            let change = switchback_core::release::describe_change(&status.versions, desired);
            out.line(&format!("  desired        {change}: `switchback rehearse`"))?;
        }
        None if status.blind.is_none() => {
            out.line("  desired        the Compose files cannot be read: `switchback doctor` tells why")?;
        }
        _ => {}
    }
    if !status.unexported.is_empty() {
        let list: Vec<String> = status.unexported.iter().map(ToString::to_string).collect();
        let text = format!("generation {}: writes not exported yet", list.join(", "));
        out.line(&format!("  kept           {text}; `switchback export` does it"))?;
    }
    for left in &status.uncarried {
        let text = format!("{} made to generation {} are exported", left.writes, left.generation);
        out.line(&format!("  later writes   {text}; `switchback carry` brings them into production"))?;
    }
    Ok(())
}

/// Whether other versions are wanted than those that run. A tag that moves runs as `latest@ID`.
fn differs(now: &BTreeMap<ServiceName, String>, desired: &BTreeMap<ServiceName, String>) -> bool {
    let same = |name: &ServiceName, version: &String| {
        now.get(name)
            .is_some_and(|n| n == version || n.split_once('@').is_some_and(|(tag, _)| tag == version))
    };
    now.len() != desired.len() || !desired.iter().all(|(name, version)| same(name, version))
}
