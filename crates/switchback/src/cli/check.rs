//! Writing checks: workflows from recordings, and approved looks of pages.

use super::report::find;
use super::run::{cancel_on_signals, write_report};
use super::upgrade::open;
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::record::{Exchange, Recorded, parse_har, workflow};
use switchback_engine::checks::looks;
use switchback_engine::environments;
use switchback_engine::gather;
use switchback_engine::home::Home;
use switchback_engine::prove::Proxy;
use switchback_engine::runtime::Placement;
use switchback_engine::world::World;

/// The largest HAR file that is read.
const HAR_BYTES: u64 = 256 << 20;

/// What to do with checks.
#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Make a workflow from a HAR file that a browser saved, or from what is done through a proxy until Ctrl-C
    #[command(
        after_help = "Examples:\n  switchback check record session.har --output checks/orders.yaml\n  switchback check record --environment staging --listen 9000 --output checks/orders.yaml"
    )]
    Record(RecordArgs),
    /// Approve how pages look in a rehearsal: exactly these looks then count as before
    #[command(
        after_help = "Examples:\n  switchback check approve\n  switchback check approve --only journey/notes/end\n  switchback check approve 01KT"
    )]
    Approve(ApproveArgs),
}

/// Options of check approve.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The run; by default the last one. A unique beginning is enough
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Only these: `journey/NAME`, or `journey/NAME/PICTURE`
    #[arg(long, value_name = "LOOK")]
    pub only: Vec<String>,
}

/// Options of check record.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The HAR file; without one, a proxy is started before a service
    #[arg(value_name = "FILE")]
    pub har: Option<PathBuf>,
    /// The service that the workflow asks; needed where several have ports
    #[arg(long)]
    pub service: Option<String>,
    /// Of a HAR file: the address whose requests are taken (`http://localhost:5678`); by default the one with most
    #[arg(long, value_name = "URL", requires = "har")]
    pub origin: Option<String>,
    /// The staging environment whose service the proxy is put before; by default production's
    #[arg(long, value_name = "NAME", conflicts_with = "har")]
    pub environment: Option<String>,
    /// The port of the proxy on this host; by default a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, conflicts_with = "har")]
    pub listen: u16,
    /// The workflow file, relative to the stack's folder; it must not exist
    #[arg(short, long, value_name = "FILE", default_value = "checks/recorded.yaml")]
    pub output: PathBuf,
}

/// Does it.
pub fn check(global: &Global, command: &CheckCommand) -> Result<Exit, Trouble> {
    match command {
        CheckCommand::Record(args) => record(global, args),
        CheckCommand::Approve(args) => approve(global, args),
    }
}

/// Takes the looks of a run over.
fn approve(global: &Global, args: &ApproveArgs) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    let run = find(&home, args.run.as_deref())?;
    let report = write_report(&home, &run)?;
    let differ: Vec<String> = report
        .checks
        .iter()
        .flat_map(|c| c.looks.iter().filter(|l| l.differs()).map(move |l| format!("{}/{}", c.id, l.name)))
        .collect();
    let is_meant = |name: &str, only: &str| {
        name == only || name.strip_prefix(only).is_some_and(|rest| rest.starts_with('/'))
    };
    if let Some(unknown) = args.only.iter().find(|o| !differ.iter().any(|d| is_meant(d, o))) {
        let known = if differ.is_empty() { "none".to_owned() } else { differ.join(", ") };
        return Err(Trouble::refused(
            format!("in run {run} no page {unknown:?} looks otherwise"),
            format!("those that do: {known}"),
        ));
    }
    let mut approved = looks::approved(&home)?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|o| is_meant(name, o));
    let added = approved.approve(&report.checks, wanted);
    if !added.is_empty() {
        looks::write(&home, &approved)?;
    }
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "run": run, "file": looks::FILE, "approved": added }))?;
    } else if added.is_empty() {
        out.line(&format!("In run {run} no page looks otherwise that was not approved before."))?;
    } else {
        for name in &added {
            out.line(&format!("approved  {name}"))?;
        }
        out.line(&format!(
            "Written to {}. The next rehearsal takes exactly these looks as before.",
            looks::FILE
        ))?;
    }
    Ok(Exit::Done)
}

/// Makes a workflow of a recording.
fn record(global: &Global, args: &RecordArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let service = service(&config, args.service.as_deref())?;
    let path = home.root().join(&args.output);
    if path.exists() {
        return Err(Trouble::refused(
            format!("{} exists", path.display()),
            "name another file with --output",
        ));
    }
    let exchanges = match &args.har {
        Some(file) => from_har(file, args.origin.as_deref())?,
        None => through_proxy(global, &home, &config, &service, args)?,
    };
    let name =
        args.output.file_stem().map_or_else(|| "recorded".to_owned(), |n| n.to_string_lossy().into_owned());
    let made = workflow(&name, &service, &exchanges);
    if made.steps == 0 {
        return Err(Trouble::refused(
            format!("nothing was recorded of which a workflow could be made ({})", made.notes.join("; ")),
            "scripts, styles and pictures are left out; do what a user does",
        ));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, text(&made))?;
    say(global, &args.output, &made)?;
    Ok(Exit::Done)
}

fn service(config: &Config, wanted: Option<&str>) -> Result<ServiceName, Trouble> {
    let with_ports: Vec<&ServiceName> =
        config.services.iter().filter(|(_, s)| !s.ports.is_empty()).map(|(n, _)| n).collect();
    let known = || with_ports.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, &with_ports[..]) {
        (Some(name), all) => all.iter().find(|n| n.as_str() == name).map(|n| (*n).clone()).ok_or_else(|| {
            Trouble::usage(
                format!("there is no service {name:?} with ports"),
                format!("known are: {}", known()),
            )
        }),
        (None, [one]) => Ok((*one).clone()),
        (None, []) => Err(Trouble::refused("no service has ports", "name them in switchback.yaml")),
        (None, _) => Err(Trouble::usage(
            "several services have ports",
            format!("name one with --service: {}", known()),
        )),
    }
}

fn from_har(file: &Path, origin: Option<&str>) -> Result<Vec<Exchange>, Trouble> {
    let wrong = |why: String| {
        Trouble::usage(
            format!("{}: {why}", file.display()),
            "save one with the network tab of a browser's developer tools",
        )
    };
    let length = std::fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
    if length > HAR_BYTES {
        return Err(wrong(format!("it has {length} bytes; at most {HAR_BYTES} are read")));
    }
    let bytes = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
    parse_har(&String::from_utf8_lossy(&bytes), origin).map_err(|e| wrong(e.to_string()))
}

fn through_proxy(
    global: &Global,
    home: &Home,
    config: &Config,
    service: &ServiceName,
    args: &RecordArgs,
) -> Result<Vec<Exchange>, Trouble> {
    let world = World::open(config)?;
    let instance = match &args.environment {
        None => gather::production(home, config, &world)?.1,
        Some(name) => match environments::find(home, name)? {
            Some(found) => found.instance,
            None => {
                return Err(Trouble::refused(
                    format!("there is no environment {name}"),
                    "`switchback staging list` names them",
                ));
            }
        },
    };
    let release = home.release(&instance.release)?;
    let at = Placement { home, config, instance: &instance, release: &release };
    let endpoint = world.runtime.endpoints(&at).remove(service).filter(|e| e.default_port != 0);
    let Some(endpoint) = endpoint else {
        return Err(Trouble::refused(
            format!("{service} does not run"),
            "`switchback up`, or `staging up`, starts it",
        ));
    };
    let cancel = cancel_on_signals();
    let record = Arc::new(Mutex::new(Vec::new()));
    let upstream = format!("{}:{}", endpoint.host, endpoint.default_port);
    let proxy = Proxy::recording(args.listen, upstream, record.clone())?;
    let place = args.environment.as_deref().unwrap_or("production");
    let progress = Progress::new(global.quiet);
    progress
        .line(&format!("Recording {service} of {place} at http://127.0.0.1:{}/ until Ctrl-C.", proxy.port));
    while !cancel.requested() {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(proxy);
    Ok(record.lock().map(|list| list.clone()).unwrap_or_default())
}

fn text(made: &Recorded) -> String {
    let mut head = String::from(
        "# Recorded by `switchback check record`. Read it before it is used: what has to be new each time (a name, an address) is written\n# with {{run.id}} in it, and what is made has to be removed again.\n",
    );
    for (name, what) in &made.variables {
        head.push_str(&format!("# {name}: {what}; set it where checks run\n"));
    }
    for note in &made.notes {
        head.push_str(&format!("# {note}\n"));
    }
    head + &made.text
}

fn say(global: &Global, path: &Path, made: &Recorded) -> Result<(), Trouble> {
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(
            &json!({ "file": path, "steps": made.steps, "variables": made.variables, "notes": made.notes }),
        )?;
        return Ok(());
    }
    out.line(&format!("{} steps in {}", made.steps, path.display()))?;
    for note in &made.notes {
        out.line(&format!("  {note}"))?;
    }
    for (name, what) in &made.variables {
        out.line(&format!("  set {name} where checks run ({what})"))?;
    }
    out.line("  It runs with the next rehearsal if `checks.workflows` names it; read it first.")?;
    Ok(())
}
