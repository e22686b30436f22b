//! What runs, and how ready a rollback is.

use super::run::journal;
use super::upgrade::open;
use super::{Exit, Global, Output, Trouble};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::config::Config;
use switchback_core::duration::human_ms;
use switchback_core::ids::{GenerationId, ServiceName};
use switchback_core::journal::{Event, Record};
use switchback_core::plan::Procedure;
use switchback_core::release::describe;
use switchback_engine::engine::{now_ms, production_down};
use switchback_engine::home::{Home, read_json};
use switchback_engine::journal::Journal;
use switchback_engine::lock::Lock;
use switchback_engine::runtime::process::{shim, table};
use switchback_engine::watch;

#[derive(Debug, Serialize)]
struct Status {
    stack: String,
    generation: Option<GenerationId>,
    versions: BTreeMap<ServiceName, String>,
    desired: BTreeMap<ServiceName, String>,
    services: Vec<ServiceStatus>,
    rollback: Readiness,
    trial: Option<TrialStatus>,
    unfinished: Option<Unfinished>,
    busy: Option<String>,
    unexported: Vec<GenerationId>,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    service: ServiceName,
    version: String,
    running: bool,
    processes: usize,
    starts: u32,
    ports: BTreeMap<String, u16>,
    last_exit: Option<String>,
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    to: Option<GenerationId>,
    expected_ms: Option<u64>,
    measured_ago_ms: Option<i64>,
    text: String,
}

#[derive(Debug, Serialize)]
struct TrialStatus {
    generation: GenerationId,
    left_ms: u64,
    watchdog: Option<String>,
    failures_in_a_row: u32,
}

#[derive(Debug, Serialize)]
struct Unfinished {
    run: String,
    procedure: Procedure,
    production_down: bool,
}

/// Shows the status.
pub fn status(global: &Global) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let status = gather(&home, &config)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&status)?;
    } else {
        print(&out, &status)?;
    }
    Ok(Exit::Done)
}

fn gather(home: &Home, config: &Config) -> Result<Status, Trouble> {
    let pointer = home.pointer()?;
    let journal = journal(home)?;
    let current = pointer.as_ref().map(|p| home.generation(p.current)).transpose()?;
    let mut services = Vec::new();
    if let Some(generation) = &current {
        let release = home.release(&generation.instance.release)?;
        let all = table::read_all();
        for (name, service) in &release.services {
            let marker = format!("{}:{}:{name}", home.id()?, generation.instance.dir);
            let members = table::members(&all, |m| m == marker);
            let path = home
                .instance_dir(&generation.instance)
                .join("services")
                .join(name.as_str())
                .join(shim::STATE_FILE);
            let state: shim::State =
                if Path::new(&path).exists() { read_json(&path)? } else { shim::State::default() };
            services.push(ServiceStatus {
                service: name.clone(),
                version: service.definition.version.clone(),
                // The shim alone is not the service.
                running: members.iter().any(|p| p.pid != p.session),
                processes: members.len(),
                starts: state.starts,
                ports: generation.instance.ports.get(name).cloned().unwrap_or_default(),
                last_exit: state.last_exit,
            });
        }
    }
    let trial = match &journal {
        Some(journal) => watch::current(journal)?.and_then(|t| t.state.trial).map(|t| TrialStatus {
            generation: t.generation,
            left_ms: u64::try_from(t.deadline_ms - now_ms()).unwrap_or(0),
            watchdog: watch::holder(home),
            failures_in_a_row: t.failures_in_a_row,
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
        desired: config.services.iter().map(|(n, s)| (n.clone(), s.version.clone())).collect(),
        services,
        rollback: readiness(home, journal.as_ref(), pointer.as_ref().and_then(|p| p.previous))?,
        trial,
        unfinished,
        busy: Lock::holder(&home.state().join("lock")),
        unexported: super::gc::unexported(home)?.into_iter().filter(|g| Some(*g) != in_the_making).collect(),
    })
}

/// Whether a rollback would work, from what is on disk, and how long the last one took.
fn readiness(home: &Home, journal: Option<&Journal>, to: Option<GenerationId>) -> Result<Readiness, Trouble> {
    let no = |text: String| Readiness { ready: false, to, expected_ms: None, measured_ago_ms: None, text };
    let Some(to) = to else {
        return Ok(no("no previous generation; only a promotion makes one".to_owned()));
    };
    let generation = match home.generation(to) {
        Ok(generation) => generation,
        Err(e) => return Ok(no(format!("generation {to}: {e}"))),
    };
    let release = match home.release(&generation.instance.release) {
        Ok(release) => release,
        Err(e) => return Ok(no(format!("generation {to}: {e}"))),
    };
    let missing = generation
        .instance
        .stores
        .iter()
        .filter(|(_, place)| !Path::new(&place.path).exists())
        .map(|(name, _)| format!("store {name}"))
        .chain(release.services.iter().filter_map(|(name, s)| {
            let artefact = s.artefact.as_ref()?;
            (!Path::new(&artefact.path).exists()).then(|| format!("artefact of {name} ({})", artefact.path))
        }))
        .collect::<Vec<_>>();
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

/// The last measured rollback: a certificate's, or a real one.
fn last_measurement(journal: &Journal) -> Result<Option<(u64, i64, &'static str)>, Trouble> {
    let drilled = switchback_engine::gather::certificates(journal)?
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
    for service in &status.services {
        let ports: Vec<String> = service.ports.iter().map(|(n, p)| format!("{n} {p}")).collect();
        let state = if service.running {
            "running".to_owned()
        } else {
            format!("DOWN ({})", service.last_exit.as_deref().unwrap_or("not started"))
        };
        let restarts =
            if service.starts > 1 { format!(", started {} times", service.starts) } else { String::new() };
        out.line(&format!(
            "  {:<14} {:<10} {state}{restarts}  {}",
            service.service.as_str(),
            service.version,
            ports.join(", ")
        ))?;
    }
    out.line(&format!("  rollback       {}", status.rollback.text))?;
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
    if status.versions != status.desired {
        let change = switchback_core::release::describe_change(&status.versions, &status.desired);
        out.line(&format!("  desired        {change}: `switchback rehearse`"))?;
    }
    if !status.unexported.is_empty() {
        let list: Vec<String> = status.unexported.iter().map(ToString::to_string).collect();
        out.line(&format!("  kept           generation {}: writes not exported yet", list.join(", ")))?;
    }
    Ok(())
}
