//! Stacks of local processes.
//!
//! Releases are used where they lie and never written.

use super::super::mutate::Mutation;
use super::super::production::open_files;
use super::super::proof::Proof;
use super::super::sandbox::{DATA, Outline, Sandbox, link, short_trial, yaml};
use super::{Copied, Count, Ground, Lasting, Order, Seen, Tags, Words};
use crate::checks::workflow_files;
use crate::error::EngineError;
use crate::gather;
use crate::home::{CONFIG_FILE, Home, read_json, write_atomic};
use crate::runtime::process::{instance_members, kill_below, members_below, shim};
use crate::runtime::{Placement, Stage};
use crate::session::Session;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use switchback_core::config::{Config, Service};
use switchback_core::ids::{Digest, GenerationId, ServiceName, StoreName};
use switchback_core::plan::{CloneMode, Plan};
use switchback_core::release::{Instance, PRODUCTION, Release, Shared};

/// Local processes.
pub struct ProcessGround;

fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Replaces `{stack}` by the stack's real folder, as a rehearsal understands it.
fn fix_stack(text: &str, stack: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        if let Some(after) = tail.strip_prefix("{{") {
            out.push_str("{{");
            rest = after;
        } else if let Some(after) = tail.strip_prefix("{stack}") {
            out.push_str(&escape(stack));
            rest = after;
        } else {
            out.push('{');
            rest = tail.get(1..).unwrap_or("");
        }
    }
    out.push_str(rest);
    out
}

type Ports = BTreeMap<(ServiceName, String), u16>;

fn rewrite(services: &mut BTreeMap<ServiceName, Service>, stack: &Path, ports: &Ports) {
    let root = stack.to_string_lossy().into_owned();
    for (name, service) in services {
        if let Some(release) = &mut service.release
            && !release.starts_with('/')
        {
            *release = format!("{}/{release}", escape(&root));
        }
        let health = service.health.command.iter_mut().flatten();
        for text in service
            .command
            .iter_mut()
            .chain(&mut service.migrate)
            .chain(service.env.values_mut())
            .chain(health)
        {
            *text = fix_stack(text, &root);
        }
        for (port_name, port) in &mut service.ports {
            if let Some(free) = ports.get(&(name.clone(), port_name.clone())) {
                *port = *free;
            }
        }
    }
}

fn free_ports(config: &Config, release: Option<&Release>) -> Result<Ports, EngineError> {
    let configured = config.services.iter();
    let running = release.into_iter().flat_map(|r| r.services.iter().map(|(n, s)| (n, &s.definition)));
    let wanted: BTreeSet<(ServiceName, String)> = configured
        .chain(running)
        .flat_map(|(n, s)| s.ports.keys().map(move |p| (n.clone(), p.clone())))
        .collect();
    let free = gather::free_ports(wanted.len())?;
    Ok(wanted.into_iter().zip(free).collect())
}

fn sandboxed(home: &Home, config: &Config, ports: &Ports) -> Config {
    let mut copy = config.clone();
    rewrite(&mut copy.services, home.root(), ports);
    for (name, store) in &mut copy.stores {
        let file = store.path.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data");
        store.path = format!("{DATA}/{name}/{file}");
    }
    let root = home.root().to_string_lossy().into_owned();
    for value in copy.staging.env.values_mut() {
        *value = fix_stack(value, &root);
    }
    short_trial(&mut copy);
    copy
}

/// Files that belong to the generation.
fn configured(config: &Config) -> impl Iterator<Item = &String> {
    config.services.values().flat_map(|s| s.config.iter().chain(&s.env_file))
}

impl Ground for ProcessGround {
    fn words(&self) -> Words {
        Words { many: "processes", configuration: "", vital: "working folder" }
    }

    fn copy(&self, order: &Order<'_>) -> Result<Copied, EngineError> {
        let (home, config) = (order.home, order.config);
        let world = World::open(config)?;
        let (production, release) = match home.pointer()? {
            None => (None, None),
            Some(_) => {
                let (_, instance) = gather::production(home, config, &world)?;
                let release = home.release(&instance.release)?;
                (Some(instance), Some(release))
            }
        };
        let kept_config = production.as_ref().map(|p| home.release_dir(&p.release).join("config"));
        let ports = free_ports(config, release.as_ref())?;
        let mut desired = sandboxed(home, config, &ports);
        let mut current = desired.clone();
        if let Some(release) = &release {
            current.services =
                release.services.iter().map(|(n, s)| (n.clone(), s.definition.clone())).collect();
            rewrite(&mut current.services, home.root(), &ports);
        }
        let mut versions = BTreeMap::new();
        for (name, service) in &mut desired.services {
            let wanted = order.versions.get(name).unwrap_or(&service.version).clone();
            if let Some(now) = current.services.get(name) {
                service.version.clone_from(&now.version);
            }
            if wanted != service.version {
                versions.insert(name.clone(), wanted);
            }
        }
        let outline = Outline {
            own: workflow_files(home, config)?
                .into_iter()
                .filter_map(|p| p.strip_prefix(home.root()).map(Path::to_owned).ok())
                .chain(configured(config).map(PathBuf::from))
                .collect(),
            apart: config.stores.values().map(|s| PathBuf::from(&s.path)).collect(),
            hidden: BTreeSet::new(),
        };
        link(home, &outline, order.root)?;
        write_atomic(&order.root.join(CONFIG_FILE), yaml(&current)?.as_bytes())?;
        let copy = Home::open(order.root)?;
        super::copy::files(
            configured(&current).map(String::as_str),
            kept_config.as_deref().unwrap_or(home.root()),
            order.root,
        )?;
        let live =
            production.as_ref().map_or(Ok(true), |p| instance_members(home, p).map(|m| !m.is_empty()))?;
        let mode = if live { CloneMode::Live } else { CloneMode::Cold };
        let stores = match &production {
            Some(instance) => instance.stores.clone(),
            None => gather::configured_stores(home, config),
        };
        // What production's data is cloned from and to; nothing runs on either as an instance of these.
        let nothing = Release { format: 1, services: BTreeMap::new(), config: BTreeMap::new(), model: None };
        let mut from = Instance {
            environment: PRODUCTION.to_owned(),
            generation: GenerationId(1),
            release: nothing.id(),
            versions: BTreeMap::new(),
            dir: "generations/1".to_owned(),
            stores,
            ports: BTreeMap::new(),
            project: None,
            shared: Shared::default(),
            closed: false,
        };
        // Without it the service makes it when it starts, here as there.
        from.stores.retain(|n, place| current.stores.contains_key(n) && Path::new(&place.path).exists());
        let mut to = from.clone();
        to.stores = gather::configured_stores(&copy, &current);
        let at = |home, instance| Placement { home, config, instance, release: &nothing };
        let output = world.data.seed(&at(home, &from), &at(&copy, &to), mode, order.work)?;
        Ok(Copied {
            home: copy,
            current,
            desired,
            versions,
            production,
            places: from.stores,
            copies: output.copies,
            live,
            notes: Vec::new(),
        })
    }

    fn plan_up(&self, sandbox: &Sandbox, session: &Session<'_>) -> Result<Plan, EngineError> {
        session.plan_up(&sandbox.current, &Stage::quiet())
    }

    fn settle(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let names = configured(&sandbox.desired).map(String::as_str);
        super::copy::files(names, sandbox.stack(), sandbox.root())?;
        write_atomic(&sandbox.home.config_file(), yaml(&sandbox.desired)?.as_bytes())
    }

    fn with_variable(
        &self,
        sandbox: &Sandbox,
        variable: &str,
        _: Lasting,
    ) -> Result<Option<(ServiceName, Config)>, EngineError> {
        let mut config = sandbox.desired.clone();
        let Some((name, service)) = config.services.iter_mut().next() else { return Ok(None) };
        service.env.insert(variable.to_owned(), "1".to_owned());
        Ok(Some((name.clone(), config)))
    }

    fn seen(&self, home: &Home, config: &Config) -> Result<Seen, EngineError> {
        let mut seen = Seen { files: configured(config).cloned().collect(), ..Seen::default() };
        let Some(pointer) = home.pointer()? else { return Ok(seen) };
        let instance = home.generation(pointer.current)?.instance;
        for process in instance_members(home, &instance)? {
            seen.running.insert(process.pid.to_string(), process.started.to_string());
        }
        let services = home.instance_dir(&instance).join("services");
        for service in instance.versions.keys() {
            let path = services.join(service.as_str()).join(shim::STATE_FILE);
            if path.exists() {
                let state: shim::State = read_json(&path)?;
                seen.starts.insert(service.to_string(), u64::from(state.starts));
            }
        }
        Ok(seen)
    }

    fn trespass(&self, sandbox: &Sandbox, production: &Home) -> Result<(usize, Vec<String>), EngineError> {
        let mut forbidden: Vec<PathBuf> = sandbox.places.values().map(|p| PathBuf::from(&p.path)).collect();
        forbidden.push(production.state());
        open_files(&sandbox.home, "staging/", &forbidden)
    }

    fn same_definition(
        &self,
        (_, _, real): (&Home, &Instance, &Release),
        (_, _, copy): (&Home, &Instance, &Release),
        proof: &mut Proof,
    ) -> Result<(), EngineError> {
        for (name, service) in &real.services {
            let digest = |r: &Release| {
                r.services.get(name).and_then(|s| s.artefact.as_ref()).map(|a| a.digest.clone())
            };
            proof.demand(digest(copy) == digest(real), name.as_str(), "another artefact runs in staging");
            let definition = copy.services.get(name).map(|s| &s.definition);
            let same = definition.is_some_and(|d| {
                let real = &service.definition;
                d.version == real.version
                    && d.command.len() == real.command.len()
                    && d.env.keys().eq(real.env.keys())
                    && d.ports.keys().eq(real.ports.keys())
                    && d.health == real.health
                    && d.stop == real.stop
                    && d.needs == real.needs
            });
            proof.demand(same, name.as_str(), "its definition differs by more than ports and paths");
        }
        proof.measure("artefacts equal to production's", real.services.len());
        Ok(())
    }

    fn config_now(
        &self,
        home: &Home,
        instance: &Instance,
    ) -> Result<BTreeMap<String, Option<Digest>>, EngineError> {
        let release = home.release(&instance.release)?;
        let work = home.instance_dir(instance).join("work");
        let read = |f: &String| std::fs::read(work.join(f)).ok().map(|c| Digest::of(&c));
        Ok(release.config.keys().map(|f| (f.clone(), read(f))).collect())
    }

    fn running_configuration(
        &self,
        _: &Home,
        _: &Config,
        _: &Instance,
        _: &mut Proof,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    fn crash(&self, home: &Home, instance: &Instance) -> Result<(), EngineError> {
        kill_below(home, &format!("{}:", instance.dir), &[])
    }

    fn lose_rows(
        &self,
        _: &Home,
        _: &Instance,
        _: &StoreName,
        _: &[String],
    ) -> Result<Option<Mutation>, EngineError> {
        Ok(None)
    }

    fn vital(&self, home: &Home, instance: &Instance) -> PathBuf {
        home.instance_dir(instance).join("work")
    }

    fn image_tags(&self, _: &str) -> Result<Option<Tags>, EngineError> {
        Ok(None)
    }

    fn end(&self, home: &Home) -> Result<(), EngineError> {
        kill_below(home, "", &[])
    }

    fn clear(&self, home: &Home) -> Result<(), EngineError> {
        kill_below(home, "", &[])
    }

    fn left(&self, home: &Home, _: Count) -> Result<Vec<String>, EngineError> {
        Ok(members_below(home, "", &[])?.iter().map(|p| format!("process {} is left", p.pid)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_placeholder_means_the_real_folder_and_escapes_stay() {
        assert_eq!(fix_stack("{stack}/x {{stack}} {port.http}", "/a{b"), "/a{{b/x {{stack}} {port.http}");
    }
}
