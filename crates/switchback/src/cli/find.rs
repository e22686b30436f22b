//! Looking for a way to a version through others, by trying them on clones.

use super::path::PathArgs;
use super::run::{cancel_on_signals, write_report};
use super::upgrade::{planning, session, target};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use serde::Serialize;
use switchback_core::config::Config;
use switchback_core::ids::{RunId, ServiceName};
use switchback_core::journal::Outcome;
use switchback_core::plan;
use switchback_core::stops::{self, Next, Search};
use switchback_engine::engine::{Notice, RunEnd};
use switchback_engine::error::EngineError;
use switchback_engine::gather::{self, Target};
use switchback_engine::home::Home;
use switchback_engine::path as facts;
use switchback_engine::session::Session;
use switchback_engine::world::World;

/// More stops than this are not looked at; the rest lies between them.
const STOPS: usize = 32;

/// A way that was tried.
#[derive(Debug, Serialize)]
struct Tried {
    versions: Vec<String>,
    /// The run; none where it could not even be planned.
    run: Option<RunId>,
    held: bool,
    /// What the report says.
    why: String,
}

/// Looks for a way.
pub fn find(global: &Global, home: &Home, config: &Config, args: &PathArgs) -> Result<Exit, Trouble> {
    let wanted = target(config, &args.versions)?.versions;
    let one = wanted.first_key_value().filter(|(_, to)| wanted.len() == 1 && !to.contains(','));
    let Some((service, to)) = one else {
        return Err(Trouble::usage(
            "--find looks for a way to one version",
            "switchback path --find n8n=2.8.4",
        ));
    };
    if args.dry_run {
        return Err(Trouble::usage("--find tries what it finds", "leave out --dry-run, or name the way"));
    }
    let mut session = session(global, home, "path")?;
    session.require_settled()?;
    session.end_leftovers(config)?;
    let world = World::open(config)?;
    let (_, production) = gather::production(home, config, &world)?;
    let from = production.versions.get(service).cloned().unwrap_or_default();
    let candidates = if args.among.is_empty() {
        let all = planning(global, |stage| facts::known_versions(home, config, &world, service, stage))?;
        stops::between(&from, to, &all, STOPS)
    } else {
        // Judged as versions of a service are.
        for version in &args.among {
            target(config, &[format!("{service}={version}")])?;
        }
        args.among.clone()
    };
    let progress = Progress::new(global.quiet);
    progress.line(&format!("path --find {service}  {from} -> {to}; known between: {}", shown(&candidates)));
    drop(progress);
    let mut search =
        Search { candidates, target: to.clone(), most: usize::from(args.most), tried: Vec::new() };
    let mut tried: Vec<Tried> = Vec::new();
    let end = loop {
        let way = match search.next() {
            Next::Try(way) => way,
            end => break end,
        };
        let progress = Progress::new(global.quiet);
        let number = tried.len() + 1;
        progress.line(&format!(
            "\n  try {number} of at most {}: {service} {from} -> {}",
            args.most,
            way.join(" -> ")
        ));
        drop(progress);
        let Some(one) = attempt(global, home, config, &world, &mut session, (service, &way))? else {
            return Ok(Exit::Interrupted);
        };
        Progress::new(global.quiet).line(&format!("  {}", one.why));
        search.tried.push((way, one.held));
        tried.push(one);
    };
    told(global, service, &from, &tried, &end)
}

fn shown(all: &[String]) -> String {
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Tries one way; `None` if somebody interrupted it.
fn attempt(
    global: &Global,
    home: &Home,
    config: &Config,
    world: &World,
    session: &mut Session<'_>,
    (service, way): (&ServiceName, &[String]),
) -> Result<Option<Tried>, Trouble> {
    let step = |v: &String| Target { versions: [(service.clone(), v.clone())].into() };
    let targets: Vec<Target> = way.iter().map(step).collect();
    let failed = |why: String| Tried { versions: way.to_vec(), run: None, held: false, why };
    let plan = match planning(global, |stage| facts::facts(home, config, world, &targets, stage)) {
        Ok(found) => plan::path(&found),
        // A version that cannot be had is no stop; what is wrong with us is an error.
        Err(e @ EngineError::Refused { .. }) => return Ok(Some(failed(e.to_string()))),
        Err(e) => return Err(e.into()),
    };
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    let end = session.carry_out(&plan, config, &cancel, &|notice: &Notice<'_>| progress.notice(notice))?;
    drop(progress);
    let report = write_report(home, &plan.run)?;
    Ok(match end {
        RunEnd::Interrupted => None,
        RunEnd::Ended(outcome) => Some(Tried {
            run: Some(plan.run),
            held: outcome == Outcome::Done,
            ..failed(
                std::iter::once(report.headline)
                    .chain(report.reasons.into_iter().take(1))
                    .collect::<Vec<_>>()
                    .join(": "),
            )
        }),
    })
}

fn told(
    global: &Global,
    service: &ServiceName,
    from: &str,
    tried: &[Tried],
    end: &Next,
) -> Result<Exit, Trouble> {
    let holds = match end {
        Next::Holds(way) => Some(way),
        _ => None,
    };
    let exit = if holds.is_some() { Exit::Done } else { Exit::Refused };
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&serde_json::json!({
            "service": service, "from": from, "holds": holds, "all_tried": !matches!(end, Next::Enough), "tried": tried,
        }))?;
        return Ok(exit);
    }
    for one in tried {
        let word = if one.held { "holds " } else { "BREAKS" };
        out.line(&format!("  {word}  {from} -> {}: {}", one.versions.join(" -> "), one.why))?;
    }
    match (holds, end) {
        (Some(way), _) => {
            out.line(&format!("This way holds: {service} {from} -> {}", way.join(" -> ")))?;
            if let [stops @ .., last] = way.as_slice()
                && let Some(stop) = stops.last()
            {
                out.line(&format!(
                    "So that it is kept to, write into switchback.yaml:  paths: [{{ service: {service}, before: \"{last}\", through: \"{stop}\" }}]"
                ))?;
            }
            out.line(&format!(
                "Next:  switchback upgrade {service}={}",
                way.first().map_or("", String::as_str)
            ))?;
        }
        (None, Next::Enough) => {
            out.line(&format!("No way was found in {} tries; --most N allows more.", tried.len()))?;
        }
        (None, _) => out.line("Every way that could be tried breaks.")?,
    }
    Ok(exit)
}
