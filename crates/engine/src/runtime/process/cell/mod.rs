//! Cells: what keeps the services of a staging instance apart where they are local processes.
//!
//! A cell is a process (`switchback __cell`) in namespaces of its own; services are started inside. They reach each other
//! and the gateway, and nothing else. Their ports lead out to this host's loopback through it.

mod attack;
mod enter;
mod hide;
mod inside;
mod network;
mod outlet;

pub use attack::{attack, attack_exposed};
pub use enter::{INSIDE_VERB, run as run_enter, words};
pub use inside::run as run_cell;
pub use outlet::{OUTLET_VERB, run as run_outlet};

use super::{send, start, table, wait_for_any};
use crate::error::{EngineError, io};
use crate::fault::{Gap, gap};
use crate::gateway::{GatewayConfig, Ingress, in_parts, read_back};
use crate::home::{Home, create_dir, read_json};
use crate::runtime::{Placement, Stage, rules};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use switchback_core::config::{ProcessIsolation, Staging};
use switchback_core::egress::Egress;
use switchback_core::release::Instance;
use switchback_core::workflow::Redactor;

/// The hidden command.
pub const CELL_VERB: &str = "__cell";
/// Makes it only find out whether a cell can be made.
pub const PROBE: &str = "--probe";
/// The variables that hold its orders, in parts.
const VARIABLE: &str = "SWITCHBACK_CELL";
/// What stands for the service's name in the marker of its process; no service can be called so.
const NAME: &str = "#gateway";
const READY: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);
/// All that it can have written.
const OUTPUT_BYTES: u64 = 16 << 20;

/// A cell that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its process.
    pub pid: i32,
    /// When that was started, in clock ticks since boot.
    pub started: u64,
    /// What it was told.
    pub digest: String,
}

/// What a cell is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    gateway: GatewayConfig,
    /// Who the records are of.
    service: String,
    /// Where it says that it is ready.
    file: PathBuf,
    digest: String,
    hidden: Vec<PathBuf>,
    spared: Vec<PathBuf>,
    /// The file that says who knows names, and one with nothing in it.
    names: PathBuf,
    empty: PathBuf,
}

fn folder(home: &Home, instance: &Instance) -> PathBuf {
    home.instance_dir(instance).join("cell")
}

/// Why this host lets nobody make a cell; found out once.
pub fn impossible() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let program = start::own_program();
        let ran = Command::new(program).args([CELL_VERB, PROBE]).stdin(Stdio::null()).output();
        match ran {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let line = said.lines().last().unwrap_or("it ended without a word");
                Some(line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned())
            }
            Err(e) => Some(e.to_string()),
        }
    });
    found.as_deref()
}

/// Whether services of an instance are to run in a cell; an error where they must and cannot.
pub fn wanted(staging: &Staging, instance: &Instance) -> Result<bool, EngineError> {
    if instance.is_production() {
        return Ok(false);
    }
    match (staging.isolation, impossible()) {
        (ProcessIsolation::Off, _) => Ok(false),
        (ProcessIsolation::Auto, why) => Ok(why.is_none()),
        (ProcessIsolation::Required, None) => Ok(true),
        (ProcessIsolation::Required, Some(why)) => Err(EngineError::refused(
            format!("staging.isolation is `required`, and this host does not allow it: {why}"),
            "allow unprivileged user namespaces, run as root, or write `isolation: auto`",
        )),
    }
}

/// Why an instance of staging is not isolated, in words; `None` where it is.
pub fn open_because(staging: &Staging) -> Option<String> {
    match staging.isolation {
        ProcessIsolation::Off => Some("staging.isolation is `off`".to_owned()),
        _ => impossible().map(|why| format!("this host does not allow it ({why})")),
    }
}

/// The cell of an instance, if it runs.
pub fn running(home: &Home, instance: &Instance) -> Option<Cell> {
    let cell: Cell = read_json(&folder(home, instance).join("cell.json")).ok()?;
    table::read_one(cell.pid).filter(|p| p.started == cell.started && !matches!(p.state, 'Z' | 'X'))?;
    Some(cell)
}

/// The cell of an instance, started unless it runs; `None` where it is to have none.
pub fn ensure(at: &Placement<'_>, stage: &Stage<'_>) -> Result<Option<Cell>, EngineError> {
    if !wanted(&at.config.staging, at.instance)? {
        return Ok(None);
    }
    let dir = folder(at.home, at.instance);
    create_dir(&dir)?;
    let mut orders = orders(at, &dir)?;
    let text = serde_json::to_string(&orders).unwrap_or_default();
    orders.digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    if let Some(cell) = running(at.home, at.instance) {
        if cell.digest == orders.digest {
            return Ok(Some(cell));
        }
        stop(at)?;
    }
    // What still runs is in the network of a gateway that is gone.
    for (name, service) in &at.services() {
        super::stop(at.home, at.instance, name, service)?;
    }
    (stage.say)("isolating the environment");
    let _ = fs::remove_file(&orders.file);
    let log = fs::File::create(dir.join("records.jsonl")).map_err(io("make a file in", &dir))?;
    let errors = fs::File::create(dir.join("cell.log")).map_err(io("make a file in", &dir))?;
    let mut child = Command::new(start::own_program())
        .arg0("switchback-cell")
        .arg(CELL_VERB)
        .env_clear()
        .envs(std::env::var_os("XDG_RUNTIME_DIR").map(|v| ("XDG_RUNTIME_DIR", v)))
        .envs(in_parts(VARIABLE, &orders))
        .env(table::MARKER, super::marker(at.home, at.instance, NAME)?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(io("start the gateway in", &dir))?;
    let began = Instant::now();
    loop {
        if let Some(cell) = running(at.home, at.instance) {
            std::thread::spawn(move || child.wait());
            return Ok(Some(cell));
        }
        let ended = child.try_wait().map_err(io("wait for the gateway in", &dir))?;
        if ended.is_some() || began.elapsed() > READY || (stage.cancelled)() {
            let _ = child.kill();
            let _ = child.wait();
            let said = super::health::tail(&dir.join("cell.log"), 3).join("; ");
            return Err(EngineError::refused(
                format!("{} cannot be isolated: {said}", at.instance.key()),
                "`staging.isolation: off` runs it without; see the page on isolation",
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn orders(at: &Placement<'_>, dir: &std::path::Path) -> Result<Orders, EngineError> {
    let ports = at.instance.ports.values().flat_map(|p| p.values()).filter(|p| **p > 0);
    // Services of a copy have ports of their own, so the same number serves on both sides.
    let ingress = ports
        .map(|port| Ingress { listen: *port, service: Ipv4Addr::LOCALHOST.to_string(), port: *port })
        .collect();
    let names: Vec<String> = at.release.services.keys().map(ToString::to_string).collect();
    let artefacts = at.release.services.values().filter_map(|s| s.artefact.as_ref());
    let mut spared: Vec<PathBuf> = artefacts.map(|a| PathBuf::from(&a.path)).collect();
    spared.push(at.home.instance_dir(at.instance));
    spared.extend(at.instance.stores.values().map(|s| PathBuf::from(&s.path)));
    Ok(Orders {
        gateway: GatewayConfig {
            project: String::new(),
            addresses: vec![network::GATEWAY],
            resolver: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
            ingress,
            rules: rules::rules(at)?,
        },
        service: names.join(" or "),
        file: dir.join("cell.json"),
        digest: String::new(),
        hidden: if gap(Gap::Isolation) { Vec::new() } else { production(at)? },
        spared,
        names: dir.join("resolv.conf"),
        empty: dir.join("empty"),
    })
}

/// Where production's data lies: of every generation, and the files that the stack had before.
fn production(at: &Placement<'_>) -> Result<Vec<PathBuf>, EngineError> {
    let mut found = vec![at.home.state().join("generations"), at.home.state().join("exports")];
    let configured = crate::gather::configured_stores(at.home, at.config);
    let mut places: Vec<PathBuf> = configured.values().map(|s| PathBuf::from(&s.path)).collect();
    if let Some(pointer) = at.home.pointer()? {
        let current = at.home.generation(pointer.current)?;
        places.extend(current.instance.stores.values().map(|s| PathBuf::from(&s.path)));
    }
    for place in places {
        // What SQLite keeps beside a database.
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut beside = place.clone().into_os_string();
            beside.push(suffix);
            found.push(PathBuf::from(beside));
        }
        found.push(place);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Ends the cell of an instance; what it recorded can still be collected.
pub fn stop(at: &Placement<'_>) -> Result<(), EngineError> {
    let Some(cell) = running(at.home, at.instance) else { return Ok(()) };
    let began = Instant::now();
    while let Some(process) = table::read_one(cell.pid).filter(|p| p.started == cell.started) {
        if matches!(process.state, 'Z' | 'X') {
            break;
        }
        let late = began.elapsed() > GRACE;
        send(&process, if late { Signal::KILL } else { Signal::TERM });
        wait_for_any(std::slice::from_ref(&process), Duration::from_millis(50));
        if began.elapsed() > GRACE * 3 {
            return Err(EngineError::Internal { detail: format!("process {} survives SIGKILL", cell.pid) });
        }
    }
    Ok(())
}

/// What the gateway of a cell recorded since its last start.
pub fn collect(at: &Placement<'_>, redactor: &Redactor) -> Result<Egress, EngineError> {
    let environment = &at.instance.environment;
    if let Some(why) = open_because(&at.config.staging) {
        let why = format!("local processes share the host's network here, and nobody watches it: {why}");
        return Ok(Egress::not_observed(environment, why));
    }
    let dir = folder(at.home, at.instance);
    let mut text = String::new();
    if let Ok(file) = fs::File::open(dir.join("records.jsonl")) {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        file.take(OUTPUT_BYTES).read_to_end(&mut bytes).map_err(io("read the records in", &dir))?;
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let (started, records, dropped) = read_back(&text);
    let Some(started) = started else {
        return Ok(Egress::not_observed(environment, "its gateway was never started"));
    };
    let clean = |text: &str| redactor.redact(text);
    let records = records.into_iter().map(|r| r.cleaned(&clean)).collect();
    Ok(Egress::observed(environment, format!("{}@{started}", at.instance.dir), records, dropped))
}

/// The words before a program that is to run where the services of an instance do; none where they are not isolated.
///
/// An instance that is to be isolated and whose cell is gone is an error: nothing of it may run outside.
pub fn before(at: &Placement<'_>, name: &str) -> Result<Vec<String>, EngineError> {
    if !wanted(&at.config.staging, at.instance)? {
        return Ok(Vec::new());
    }
    match running(at.home, at.instance) {
        Some(cell) => Ok(words(&cell, &start::own_program(), name)),
        None => Err(EngineError::refused(
            format!("the gateway of {} does not run", at.instance.key()),
            "start the environment again",
        )),
    }
}
