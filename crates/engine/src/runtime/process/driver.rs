//! The process runtime behind the [`Runtime`] seam.

use super::{cell, health, instance_members, kill_below, logs, marker, members_below, shim, start, table};
use crate::check::workflow::Endpoint;
use crate::error::{EngineError, io};
use crate::exec::{self, Exec, Inherit, Leftovers};
use crate::gateway::attack::Ended;
use crate::gather;
use crate::home::{CONFIG_FILE, Home, create_dir, read_json};
use crate::ops::{Failed, edit_versions};
use crate::runtime::{
    Adopted, LogPart, Migrated, Observed, Placement, PreflightFor, ProbeResult, Runtime, Stage, Usage,
};
use crate::scratch::Scratch;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;
use switchback_core::config::Config;
use switchback_core::duration::human_ms;
use switchback_core::egress::Egress;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::journal::Output;
use switchback_core::release::{Instance, Release, ServiceRelease, StorePlace};
use switchback_core::workflow::Redactor;

/// Services as local processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessRuntime;

impl Runtime for ProcessRuntime {
    /// When it was put where it lies: programs do not say when they were made.
    fn made_ms(&self, service: &ServiceRelease) -> Result<Option<i64>, EngineError> {
        let Some(artefact) = &service.artefact else { return Ok(None) };
        let path = Path::new(&artefact.path);
        let changed = fs::metadata(path).and_then(|m| m.modified()).map_err(io("look at", path))?;
        let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).ok())
    }

    fn release(
        &self,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        _: &Stage<'_>,
    ) -> Result<(Digest, Release), EngineError> {
        gather::release(home, config, versions)
    }

    fn adopted(&self, home: &Home, config: &Config, stage: &Stage<'_>) -> Result<Adopted, EngineError> {
        let release = self.release(home, config, &BTreeMap::new(), stage)?;
        for (name, ports) in self.ports(home, &release)? {
            for (port_name, port) in ports {
                if table::port_taken(port) {
                    return Err(EngineError::refused(
                        format!("port {port} ({name}.{port_name}) is already in use"),
                        format!(
                            "if {name} is running by itself, stop it first: Switchback starts it from now on"
                        ),
                    ));
                }
            }
        }
        let stores = gather::configured_stores(home, config);
        Ok(Adopted { release, stores, project: None, running: false })
    }

    fn stores(&self, home: &Home, config: &Config) -> Result<BTreeMap<StoreName, StorePlace>, EngineError> {
        Ok(gather::configured_stores(home, config))
    }

    fn ports(
        &self,
        _: &Home,
        release: &(Digest, Release),
    ) -> Result<BTreeMap<ServiceName, BTreeMap<String, u16>>, EngineError> {
        Ok(release.1.services.iter().map(|(n, s)| (n.clone(), s.definition.ports.clone())).collect())
    }

    fn desired(&self, home: &Home, _: &Config) -> Result<Option<BTreeMap<ServiceName, String>>, EngineError> {
        let path = home.config_file();
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        let config = Config::parse(&text, CONFIG_FILE).ok();
        Ok(config.map(|c| c.services.into_iter().map(|(n, s)| (n, s.version)).collect()))
    }

    fn edits(
        &self,
        home: &Home,
        _: &Config,
        versions: &BTreeMap<ServiceName, String>,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let path = home.config_file();
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        Ok(BTreeMap::from([(CONFIG_FILE.to_owned(), edit_versions(&text, versions)?)]))
    }

    fn settings(
        &self,
        _: &Home,
        (_, old): (&Digest, &Release),
        (_, new): (&Digest, &Release),
    ) -> Result<Vec<String>, EngineError> {
        Ok(switchback_core::settings::changes(old, new))
    }

    fn preflight(&self, at: &Placement<'_>, wanted: PreflightFor) -> Result<Vec<String>, EngineError> {
        super::preflight::preflight(at, wanted)
    }

    fn prepare(
        &self,
        at: &Placement<'_>,
        scratch: &Scratch,
        stage: &Stage<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let work = scratch.path().join("work");
        create_dir(&work)?;
        (stage.midway)();
        let kept = at.home.release_dir(&at.instance.release).join("config");
        for relative in at.release.config.keys() {
            let (from, to) = (kept.join(relative), work.join(relative));
            if let Some(parent) = to.parent() {
                create_dir(parent)?;
            }
            scratch.remove_part(&to)?;
            fs::copy(&from, &to).map_err(io("copy", &from))?;
        }
        Ok(Vec::new())
    }

    fn start(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, Failed> {
        let services = at.services();
        let mut output = Output::default();
        cell::ensure(at, stage)?;
        for group in Config::start_order(&services) {
            let began = Instant::now();
            for name in &group {
                start::start(at, name, &services[name])?;
            }
            (stage.midway)();
            for name in &group {
                let service = &services[name];
                (stage.say)(&format!("waiting until {name} is healthy"));
                let times = health::wait_healthy(at, name, service, began, stage.cancelled)
                    .map_err(|error| Failed { error, output: Box::new(output.clone()) })?;
                output.notes.push(format!(
                    "{name} {}: healthy after {}",
                    service.version,
                    human_ms(times.healthy_after_ms.unwrap_or(0))
                ));
                output.services.insert(name.clone(), times);
            }
        }
        Ok(output)
    }

    fn stop(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, EngineError> {
        let services = at.services();
        let mut output = Output::default();
        for group in Config::start_order(&services).iter().rev() {
            for name in group {
                (stage.say)(&format!("stopping {name}"));
                let times = super::stop(at.home, at.instance, name, &services[name])?;
                if times.killed {
                    let grace = services[name].stop.grace;
                    output.notes.push(format!("{name} did not end within {grace} and was killed"));
                }
                output.services.insert(name.clone(), times);
                (stage.midway)();
            }
        }
        cell::stop(at)?;
        Ok(output)
    }

    fn migrate(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        stage: &Stage<'_>,
    ) -> Result<Migrated, EngineError> {
        let Some(service) = at.release.services.get(name).map(|s| &s.definition) else {
            return Err(EngineError::Internal { detail: format!("the release has no service {name}") });
        };
        // A migration that an earlier attempt left running must not go on beside this one.
        super::stop(at.home, at.instance, name, service)?;
        let mut environment = start::service_environment(at, name, service)?;
        let wanted = marker(at.home, at.instance, name.as_str())?;
        environment.insert(table::MARKER.to_owned(), format!("{wanted}#migrate"));
        cell::ensure(at, stage)?;
        let argv = start::resolve(at, name, service, &service.migrate)?;
        let argv = start::placed(at, argv, environment.get("PATH").map(String::as_str))?;
        let exec = Exec {
            cwd: Some(at.work_dir()),
            env: environment.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            inherit: Inherit::Nothing,
            leftovers: Leftovers::Kill,
            redactor: Redactor::from_values(at.secrets()),
            cancel: Some(stage.cancelled),
            ..Exec::new(argv, service.migrate_deadline.0)
        };
        let result = exec::run(&exec);
        (stage.midway)();
        // Whatever happened, nothing of it may go on.
        super::stop(at.home, at.instance, name, service)?;
        let ran = result.map_err(|e| {
            EngineError::refused(
                format!("the migration of {name} could not be run: {e}"),
                "check `migrate` in switchback.yaml",
            )
        })?;
        Ok(Migrated {
            success: ran.success(),
            timed_out: ran.timed_out(),
            how: ran.how(),
            took_ms: ran.took_ms,
            text: format!("{}{}", ran.stdout_tail, ran.stderr_tail),
        })
    }

    fn running(&self, home: &Home, instance: &Instance) -> Result<Vec<String>, EngineError> {
        Ok(instance_members(home, instance)?.iter().map(|p| format!("process {}", p.pid)).collect())
    }

    fn read_back(&self, at: &Placement<'_>) -> Result<Result<Vec<String>, Vec<String>>, EngineError> {
        super::read_back(at.home, at.instance, &at.services())
    }

    fn probe(&self, at: &Placement<'_>, name: &ServiceName) -> ProbeResult {
        match at.release.services.get(name) {
            Some(service) => health::probe(at, name, &service.definition),
            None => ProbeResult { ok: false, seen: format!("there is no service {name}") },
        }
    }

    fn observe(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Observed>, EngineError> {
        let all = table::read_all();
        let mut found = BTreeMap::new();
        for name in at.release.services.keys() {
            let wanted = marker(at.home, at.instance, name.as_str())?;
            let members = table::members(&all, |m| m == wanted);
            let path = at.service_dir(name).join(shim::STATE_FILE);
            let state: shim::State = if path.exists() { read_json(&path)? } else { shim::State::default() };
            // The shim alone is not the service.
            let running = members.iter().any(|p| p.pid != p.session);
            let ended = || format!("DOWN ({})", state.last_exit.as_deref().unwrap_or("not started"));
            let ports = at.instance.ports.get(name).into_iter().flatten();
            let one = Observed {
                running,
                well: running,
                state: if running { "running".to_owned() } else { ended() },
                health: None,
                processes: members.len(),
                starts: state.starts,
                out_of_memory: false,
                endpoints: ports
                    .map(|(port, number)| (port.clone(), format!("127.0.0.1:{number}")))
                    .collect(),
                last_exit: state.last_exit,
            };
            found.insert(name.clone(), one);
        }
        Ok(found)
    }

    fn usage(&self, at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Usage>, EngineError> {
        let all = table::read_all();
        let mut found = BTreeMap::new();
        for name in at.release.services.keys() {
            let wanted = marker(at.home, at.instance, name.as_str())?;
            let mut sum = Usage::default();
            for process in table::members(&all, |m| m == wanted) {
                let (cpu_ms, memory_bytes) = crate::exec::used_by(process.pid);
                sum.cpu_ms += cpu_ms;
                sum.memory_bytes += memory_bytes;
            }
            found.insert(name.clone(), sum);
        }
        Ok(found)
    }

    fn inside(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        program: &[String],
        _terminal: bool,
    ) -> Result<std::process::Command, EngineError> {
        let service = at
            .release
            .services
            .get(name)
            .ok_or_else(|| EngineError::Internal { detail: format!("there is no service {name}") })?;
        let environment = start::service_environment(at, name, &service.definition)?;
        let [first, rest @ ..] = program else {
            return Err(EngineError::refused("no program was named", "name it after `--`"));
        };
        let path = environment.get("PATH").map(String::as_str);
        let found = start::resolve_program(first, path, &at.work_dir()).ok_or_else(|| {
            EngineError::refused(
                format!("{first} is not on the PATH of {name}"),
                "give its whole path, or look at `env.PATH` of the service",
            )
        })?;
        let words = cell::before(at, first)?;
        let mut command = match words.split_first() {
            None => std::process::Command::new(found),
            Some((inside, words)) => {
                let mut command = std::process::Command::new(inside);
                command.args(words).arg(found);
                command
            }
        };
        command.args(rest).env_clear().envs(environment).current_dir(at.work_dir());
        Ok(command)
    }

    fn staged(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        let mut found = Vec::new();
        for (name, ports) in &at.instance.ports {
            for (port, number) in ports {
                found.push(format!("{name}: {{port.{port}}} is {number} (production has its own)"));
            }
        }
        for (name, place) in &at.instance.stores {
            found
                .push(format!("{{store.{name}}} is a copy at {} (production's is never opened)", place.path));
        }
        found.push(match cell::open_because(&at.config.staging) {
            None => "services are in a network of their own, and do not see production's data".to_owned(),
            Some(why) => format!("services are not isolated: {why}"),
        });
        let set = at.config.staging.env.keys();
        found.extend(set.map(|name| format!("{name} is set for every service (staging.env)")));
        Ok(found)
    }

    fn missing(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        let artefacts = at.release.services.iter().filter_map(|(n, s)| Some((n, s.artefact.as_ref()?)));
        let gone = artefacts.filter(|(_, artefact)| !Path::new(&artefact.path).exists());
        Ok(gone.map(|(name, artefact)| format!("artefact of {name} ({})", artefact.path)).collect())
    }

    fn restarting(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        let mut found = Vec::new();
        for name in at.release.services.keys() {
            let state: shim::State = read_json(&at.service_dir(name).join(shim::STATE_FILE))?;
            if state.quick_exits > 1 {
                found.push(format!(
                    "{name} restarts again and again: it {}",
                    state.last_exit.as_deref().unwrap_or("ended")
                ));
            }
        }
        Ok(found)
    }

    fn endpoints(&self, at: &Placement<'_>) -> BTreeMap<ServiceName, Endpoint> {
        let services = &at.release.services;
        services
            .iter()
            .map(|(name, service)| {
                let ports = at.instance.ports.get(name).cloned().unwrap_or_default();
                let main = service.definition.main_port().and_then(|p| ports.get(p)).copied().unwrap_or(0);
                (name.clone(), Endpoint { host: "127.0.0.1".to_owned(), ports, default_port: main })
            })
            .collect()
    }

    fn log(&self, at: &Placement<'_>, name: &ServiceName, bytes: u64) -> Vec<String> {
        at.redact(logs::tail(&at.log_file(name), bytes))
    }

    fn log_after(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        mark: Option<&str>,
        bytes: u64,
    ) -> Result<LogPart, EngineError> {
        let (lines, mark) = logs::after(&at.log_file(name), mark, bytes);
        Ok(LogPart { lines: at.redact(lines), mark })
    }

    fn free_bytes(&self, home: &Home) -> Option<u64> {
        crate::gather::free_bytes(&home.state()).ok()
    }

    fn secrets(&self, at: &Placement<'_>) -> Vec<String> {
        at.secrets()
    }

    fn variable(&self, at: &Placement<'_>, name: &str) -> Option<String> {
        at.release.services.values().find_map(|service| {
            let file = service.definition.env_file.as_ref()?;
            start::read_env_file(&at.work_dir().join(file)).ok()?.remove(name)
        })
    }

    fn egress(&self, at: &Placement<'_>) -> Result<Egress, EngineError> {
        cell::collect(at, &Redactor::from_values(at.secrets()))
    }

    fn attack(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
        cell::attack(at)
    }

    fn attack_exposed(&self, at: &Placement<'_>) -> Result<Option<Vec<Ended>>, EngineError> {
        cell::attack_exposed(at)
    }

    fn still(&self, at: &Placement<'_>, name: &ServiceName, on: bool) -> Result<usize, EngineError> {
        super::faults::still(at, name, on)
    }

    fn end(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError> {
        super::faults::end(at, name)
    }

    fn deaf(&self, at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError> {
        super::faults::still(at, name, true)
    }

    fn lacking(
        &self,
        _: &Home,
        (_, release): (&Digest, &Release),
    ) -> Result<Option<(String, Vec<String>)>, EngineError> {
        Ok(super::faults::lacking(release))
    }

    fn beside(
        &self,
        at: &Placement<'_>,
        name: &ServiceName,
        program: &[String],
    ) -> Result<std::process::Command, EngineError> {
        self.inside(at, name, &super::faults::marked(at, name, program)?, false)
    }

    fn discard(&self, _: &Home, _: &Instance) -> Result<(), EngineError> {
        Ok(()) // everything lies in the instance's folder
    }

    fn kill_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<(), EngineError> {
        kill_below(home, dir, except)
    }

    fn left_below(&self, home: &Home, dir: &str, except: &[String]) -> Result<Vec<String>, EngineError> {
        Ok(members_below(home, dir, except)?.iter().map(|p| format!("process {}", p.pid)).collect())
    }

    fn forget(&self, _: &Home, _: &[Release]) -> Result<usize, EngineError> {
        Ok(0)
    }

    fn reachable(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn is_here(&self) -> bool {
        true
    }

    fn activated(&self, _: &Placement<'_>) -> Result<(), EngineError> {
        Ok(())
    }
}
