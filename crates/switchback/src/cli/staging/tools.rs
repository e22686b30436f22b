//! Small tools for an environment: its differences, addresses, logs, and commands in it.

use super::super::output::printable;
use super::super::upgrade::open as open_stack;
use super::super::{Exit, Global, Output, Trouble};
use super::{ExecArgs, LogsArgs, OpenArgs};
use serde_json::json;
use std::io::IsTerminal as _;
use std::process::Stdio;
use switchback_core::config::{Config, suggest};
use switchback_core::environment::Environment;
use switchback_core::ids::ServiceName;
use switchback_core::release::Release;
use switchback_engine::environments;
use switchback_engine::home::Home;
use switchback_engine::runtime::Placement;
use switchback_engine::world::World;

/// An environment with everything that is needed to look at it.
struct Opened {
    home: Home,
    config: Config,
    world: World,
    environment: Environment,
    release: Release,
}

impl Opened {
    fn new(global: &Global, name: &str) -> Result<Self, Trouble> {
        let (home, config) = open_stack(global)?;
        let environment = environments::get(&home, name)?;
        let release = home.release(&environment.instance.release)?;
        let world = World::open(&config)?;
        Ok(Self { home, config, world, environment, release })
    }

    fn at(&self) -> Placement<'_> {
        Placement {
            home: &self.home,
            config: &self.config,
            instance: &self.environment.instance,
            release: &self.release,
        }
    }

    fn service(&self, name: &str) -> Result<ServiceName, Trouble> {
        if let Some((found, _)) = self.release.services.get_key_value(name) {
            return Ok(found.clone());
        }
        let known: Vec<&str> = self.release.services.keys().map(ServiceName::as_str).collect();
        let hint = match suggest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("services: {}", known.join(", ")),
        };
        Err(Trouble::usage(format!("there is no service {name:?}"), hint))
    }
}

/// Shows in what an environment differs from production.
pub fn diff(global: &Global, name: &str) -> Result<Exit, Trouble> {
    let opened = Opened::new(global, name)?;
    let mut differences = opened.world.runtime.staged(&opened.at())?;
    for (name, store) in &opened.config.stores {
        for path in &store.leave_out {
            differences.push(format!("{name}: {path} is left out (it only says that something runs)"));
        }
    }
    let current = opened.home.pointer()?.map(|p| opened.home.generation(p.current)).transpose()?;
    let production = current.map(|g| g.instance.versions).unwrap_or_default();
    let versions: Vec<String> = opened
        .environment
        .instance
        .versions
        .iter()
        .filter(|(service, version)| production.get(*service) != Some(*version))
        .map(|(service, version)| {
            let there = production.get(service).map_or("nothing", String::as_str);
            format!("{service} is {version} (production runs {there})")
        })
        .collect();
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "environment": name, "versions": versions, "differences": differences }))?;
        return Ok(Exit::Done);
    }
    out.line(&format!("In {name}, other than in production:"))?;
    for line in versions.iter().chain(&differences) {
        out.line(&format!("  {}", printable(line)))?;
    }
    Ok(Exit::Done)
}

/// Shows what an environment would have sent since it was started.
pub fn sent(global: &Global, name: &str) -> Result<Exit, Trouble> {
    use crate::render::egress::{destination, details};
    let opened = Opened::new(global, name)?;
    let seen = opened.world.runtime.egress(&opened.at())?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&seen)?;
        return Ok(Exit::Done);
    }
    if let Some(why) = &seen.not_observed {
        out.line(&format!("What {name} sends is not observed: {}", printable(why)))?;
        return Ok(Exit::Done);
    }
    if seen.lines.is_empty() {
        out.line(&format!("{name} has tried to send nothing."))?;
    }
    for line in &seen.lines {
        let details = details(line);
        let details = if details.is_empty() { details } else { format!(" ({details})") };
        let text = format!(
            "{}: {} x {} to {}, {}{details}",
            line.service,
            line.count,
            line.kind.as_str(),
            destination(line),
            line.outcome.as_str()
        );
        out.line(&format!("  {}", printable(&text)))?;
    }
    if seen.dropped > 0 {
        out.line(&format!("  {} more were seen and not recorded: there were too many", seen.dropped))?;
    }
    Ok(Exit::Done)
}

/// Prints addresses, and opens the first one if asked.
pub fn open(global: &Global, args: &OpenArgs) -> Result<Exit, Trouble> {
    let opened = Opened::new(global, &args.name)?;
    let urls = super::look::addresses(global, &opened.home, &opened.config, &opened.environment)?;
    if global.json {
        Output::new(true).json(&json!({ "environment": args.name, "urls": urls }))?;
    }
    let Some(first) = urls.first() else {
        return Err(Trouble::refused(
            format!("no service of {} has a port", args.name),
            "name its ports in switchback.yaml (services.NAME.ports)",
        ));
    };
    if args.browser && opened.world.runtime.login().is_some() {
        return Err(Trouble::refused(
            format!("{first} is an address of the engine's host, not of this one"),
            "forward its port with ssh, as said above, and open it yourself",
        ));
    }
    if args.browser {
        let started = std::process::Command::new("xdg-open")
            .arg(first)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Err(e) = started {
            return Err(Trouble::refused(
                format!("no browser could be opened (xdg-open: {e})"),
                format!("open {first} yourself"),
            ));
        }
    }
    Ok(Exit::Done)
}

/// Shows the ends of logs.
pub fn logs(global: &Global, args: &LogsArgs) -> Result<Exit, Trouble> {
    let opened = Opened::new(global, &args.name)?;
    let names = match &args.service {
        Some(name) => vec![opened.service(name)?],
        None => opened.release.services.keys().cloned().collect(),
    };
    let out = Output::new(global.json);
    let mut all = serde_json::Map::new();
    for name in &names {
        let mut lines = opened.world.runtime.log(&opened.at(), name, 1 << 20);
        lines.drain(..lines.len().saturating_sub(args.lines));
        if out.is_json() {
            all.insert(name.to_string(), json!(lines));
            continue;
        }
        for line in &lines {
            let before = if names.len() > 1 { format!("{name} | ") } else { String::new() };
            out.line(&format!("{before}{}", printable(line)))?;
        }
    }
    if out.is_json() {
        out.json(&all)?;
    }
    Ok(Exit::Done)
}

/// Runs a command in a service; its exit code is ours.
pub fn exec(global: &Global, args: &ExecArgs) -> Result<Exit, Trouble> {
    let opened = Opened::new(global, &args.name)?;
    let service = opened.service(&args.service)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut command = opened.world.runtime.inside(&opened.at(), &service, &args.command, terminal)?;
    let status = command.status().map_err(|e| {
        Trouble::refused(
            format!("{} cannot be run: {e}", command.get_program().to_string_lossy()),
            "is it installed?",
        )
    })?;
    match status.code() {
        Some(0) => Ok(Exit::Done),
        // The command's own code says more than one of ours would.
        Some(code) => std::process::exit(code),
        None => std::process::exit(130),
    }
}
