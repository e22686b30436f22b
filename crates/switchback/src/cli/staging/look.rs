//! What only looks at environments.

use super::super::output::printable;
use super::super::upgrade::open;
use super::super::{Exit, Global, Output, Trouble};
use super::StatusArgs;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::environment::{Environment, Sample};
use switchback_core::ids::ServiceName;
use switchback_core::release::describe;
use switchback_engine::engine::now_ms;
use switchback_engine::environments;
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::runtime::Placement;
use switchback_engine::world::World;

/// What is told of an environment.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    environment: Environment,
    /// What it is doing now; none where that cannot be told.
    now: Option<Sample>,
    /// Why it cannot be told.
    blind: Option<String>,
    /// Processor use per service since the last recorded look, in percent of one processor.
    cpu_percent: BTreeMap<ServiceName, f64>,
    /// Where services are reached: service, port name, address.
    addresses: BTreeMap<ServiceName, BTreeMap<String, String>>,
    /// Recorded looks, and how many of them found it well.
    looks: usize,
    well: usize,
    /// Who looks after the environments.
    keeper: Option<String>,
}

fn tell(home: &Home, config: &Config, environment: Environment) -> Told {
    let samples = keeper::samples(home, &environment.name);
    let mut told = Told {
        now: None,
        blind: None,
        cpu_percent: BTreeMap::new(),
        addresses: BTreeMap::new(),
        looks: samples.len(),
        well: samples.iter().filter(|s| s.well).count(),
        keeper: keeper::holder(home),
        environment,
    };
    let look = || -> Result<_, switchback_engine::error::EngineError> {
        let world = World::open(config)?;
        let release = home.release(&told.environment.instance.release)?;
        let at = Placement { home, config, instance: &told.environment.instance, release: &release };
        let mut addresses: BTreeMap<ServiceName, BTreeMap<String, String>> = BTreeMap::new();
        for (service, endpoint) in world.runtime.addresses(&at) {
            let own = endpoint.ports.iter().map(|(n, p)| (n.clone(), format!("{}:{p}", endpoint.host)));
            addresses.insert(service, own.collect());
        }
        Ok((keeper::sample(home, config, &world, &told.environment)?, addresses))
    };
    match look() {
        Ok((now, addresses)) => {
            if let Some(before) = samples.last() {
                told.cpu_percent = cpu(before, &now);
            }
            told.now = Some(now);
            told.addresses = addresses;
        }
        Err(e) => told.blind = Some(e.to_string()),
    }
    told
}

/// Processor use between two samples, in percent of one processor.
fn cpu(before: &Sample, now: &Sample) -> BTreeMap<ServiceName, f64> {
    let wall = now.at_ms.saturating_sub(before.at_ms);
    let mut found = BTreeMap::new();
    for (name, service) in &now.services {
        // A restart sets the counter back; then there is nothing to compare with.
        let used = before.services.get(name).and_then(|b| service.cpu_ms.checked_sub(b.cpu_ms));
        if let Some(used) = used.filter(|_| wall > 0) {
            found.insert(name.clone(), (used as f64 * 1000.0 / wall as f64).round() / 10.0);
        }
    }
    found
}

/// Lists the environments.
pub fn list(global: &Global) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let told: Vec<Told> = environments::list(&home)?.into_iter().map(|e| tell(&home, &config, e)).collect();
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&told)?;
        return Ok(Exit::Done);
    }
    if told.is_empty() {
        out.line("There is no staging environment. `switchback staging up` makes one.")?;
        return Ok(Exit::Done);
    }
    out.line(&format!("{:<16} {:<26} {:<20} {:<14} {}", "NAME", "RELEASE", "STATE", "DATA", "STAYS"))?;
    for one in &told {
        let e = &one.environment;
        let versions = describe(&e.instance.versions);
        let short: String = versions.chars().take(26).collect();
        out.line(&format!(
            "{:<16} {:<26} {:<20} {:<14} {}",
            e.name,
            short,
            state(one),
            format!("{} old", ago(e.data.at_ms)),
            stays(e)
        ))?;
    }
    Ok(Exit::Done)
}

fn state(told: &Told) -> String {
    match &told.now {
        _ if !told.environment.whole => "data not whole".to_owned(),
        None => "unknown".to_owned(),
        Some(now) if now.well => "well".to_owned(),
        Some(now) if now.services.values().all(|s| s.memory_bytes == 0 && !s.well) => "stopped".to_owned(),
        Some(_) => "NOT WELL".to_owned(),
    }
}

fn ago(at_ms: i64) -> String {
    span(now_ms().saturating_sub(at_ms))
}

/// A long time for people, in the two largest units.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn stays(environment: &Environment) -> String {
    match environment.expires_at_ms {
        None => "until you remove it".to_owned(),
        Some(at) if at <= now_ms() => "its time is over".to_owned(),
        Some(at) => format!("{} more", span(at.saturating_sub(now_ms()))),
    }
}

/// Shows an environment, once or again and again.
pub fn status(global: &Global, args: &StatusArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let out = Output::new(global.json);
    let cancel = super::super::run::cancel_on_signals();
    loop {
        let told = tell(&home, &config, environments::get(&home, &args.name)?);
        if out.is_json() {
            out.json(&told)?;
        } else {
            if args.watch && console::Term::stdout().is_term() {
                console::Term::stdout().clear_screen()?;
            }
            print(&out, &told)?;
        }
        if !args.watch || cancel.requested() {
            let well = told.environment.whole && told.now.as_ref().is_some_and(|n| n.well);
            return Ok(if well || args.watch { Exit::Done } else { Exit::Refused });
        }
        let mut left = args.every.0;
        while !left.is_zero() && !cancel.requested() {
            let nap = left.min(Duration::from_millis(100));
            std::thread::sleep(nap);
            left -= nap;
        }
        if cancel.requested() {
            return Ok(Exit::Done);
        }
    }
}

fn print(out: &Output, told: &Told) -> Result<(), Trouble> {
    let e = &told.environment;
    out.line(&format!("{}  {}  {}", e.name, describe(&e.instance.versions), state(told)))?;
    let compared = if e.data.compared { ", equal to its snapshot" } else { "" };
    let source = match &e.data.snapshot {
        Some(id) => format!("the backup {}", id.get(..8).unwrap_or(id)),
        None => format!("production's generation {}", e.from_generation),
    };
    out.line(&format!(
        "  data      of {source}, {} old: {}{compared}",
        ago(e.data.at_ms),
        human_bytes(e.data.bytes)
    ))?;
    out.line(&format!(
        "  sync      {} written of {}, production's writers waited {}, {}",
        human_bytes(e.data.written),
        human_bytes(e.data.bytes),
        human_ms(e.data.waited_ms),
        human_ms(e.data.took_ms)
    ))?;
    for (store, counts) in &e.data.counts {
        let rows: u64 = counts.values().sum();
        out.line(&format!("  store     {store}: {rows} rows or files in {} parts", counts.len()))?;
    }
    out.line(&format!("  masked    {}", masked(e)))?;
    out.line(&format!("  stays     {}", stays(e)))?;
    if told.looks > 0 {
        out.line(&format!("  history   well in {} of {} looks", told.well, told.looks))?;
    }
    if let Some(why) = &told.blind {
        out.line(&format!("  ! what it is doing cannot be told: {}", printable(why)))?;
    }
    let Some(now) = &told.now else { return Ok(()) };
    for (name, service) in &now.services {
        let cpu = told.cpu_percent.get(name).map_or_else(String::new, |p| format!(", {p} % CPU"));
        let errors = match service.log_errors {
            0 => String::new(),
            n => format!(", {n} lines of errors in its log"),
        };
        out.line(&format!(
            "  {} {:<14} {}  started {} times, {}{cpu}{errors}",
            if service.well { "✓" } else { "✗" },
            name.as_str(),
            printable(&service.state),
            service.starts,
            human_bytes(service.memory_bytes)
        ))?;
        for (port, address) in told.addresses.get(name).into_iter().flatten() {
            out.line(&format!("      {port:<12} http://{address}"))?;
        }
    }
    Ok(())
}

/// What was masked when its data came, in words.
fn masked(environment: &Environment) -> String {
    let all: Vec<_> = environment.data.masked.values().flat_map(|s| &s.columns).collect();
    if all.is_empty() {
        return "nothing; `switchback staging scan` finds personal data".to_owned();
    }
    let values: u64 = all.iter().map(|c| c.values).sum();
    format!("{values} values in {} columns", all.len())
}

/// Prints where the services of an environment are reached.
pub fn addresses(
    global: &Global,
    home: &Home,
    config: &Config,
    environment: &Environment,
) -> Result<Vec<String>, Trouble> {
    let world = World::open(config)?;
    let release = home.release(&environment.instance.release)?;
    let at = Placement { home, config, instance: &environment.instance, release: &release };
    let out = Output::new(global.json);
    let (mut found, mut forwarded) = (Vec::new(), Vec::new());
    for (service, endpoint) in world.runtime.addresses(&at) {
        for (name, port) in &endpoint.ports {
            let url = format!("http://{}:{port}", endpoint.host);
            if !out.is_json() {
                out.line(&format!("  {service} {name}  {url}"))?;
            }
            found.push(url);
            forwarded.push(format!("-L {port}:127.0.0.1:{port}"));
        }
    }
    if let Some(login) = world.runtime.login().filter(|_| !forwarded.is_empty() && !out.is_json()) {
        out.line(&format!(
            "  on the engine's host; to reach them from here: ssh -N {} {login}",
            forwarded.join(" ")
        ))?;
    }
    Ok(found)
}
