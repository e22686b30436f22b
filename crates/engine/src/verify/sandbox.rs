//! The sandbox: a copy of a stack in a folder of its own, with its own ports, state and data.
//!
//! Owns how a stack is copied and how nothing of the copy is left. Production's data is read once, through
//! the same live clone that a rehearsal uses; releases are used where they lie and never written.

use crate::checks::workflow_files;
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::gather::{self, Target};
use crate::home::{CONFIG_FILE, Home, STATE_DIR, create_dir, write_atomic};
use crate::lock::Lock;
use crate::runtime::process::{instance_members, kill_below, members_below};
use crate::session::Session;
use crate::store::{self, Progress};
use crate::watch;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::config::{Config, Service};
use switchback_core::data::CopyStats;
use switchback_core::duration::Span;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::journal::Event;
use switchback_core::release::{Instance, Release, StorePlace};

/// The folder of sandboxes within the state folder.
const FOLDER: &str = "verify";
/// The sandbox's data, below its root. No stack has a folder of this name, so that no link to
/// production can be in its place.
const DATA: &str = ".switchback-verify-data";
/// The trial of the sandbox: long enough for a dozen probes, short enough to wait for.
const WATCH: Span = Span::secs(3);
const EVERY: Span = Span::millis(250);
const FAILURES: u32 = 2;

/// A copy of a stack.
pub struct Sandbox {
    /// The copy.
    pub home: Home,
    /// What production runs, on the copy.
    pub current: Config,
    /// What `switchback.yaml` says, at production's versions.
    pub desired: Config,
    /// The versions to go to.
    pub target: Target,
    /// Production, if Switchback runs it.
    pub production: Option<Instance>,
    /// Production's stores and what cloning each cost.
    pub copies: BTreeMap<StoreName, (StorePlace, CopyStats)>,
    /// Whether the snapshot was taken from running services.
    pub live: bool,
    /// Where the configuration files of what production runs lie.
    kept_config: Option<PathBuf>,
    root: PathBuf,
    stack: PathBuf,
}

/// Whether a path lies in a sandbox.
pub fn is_inside(path: &Path) -> bool {
    let parts: Vec<_> = path.components().map(Component::as_os_str).collect();
    parts.windows(2).any(|w| w[0] == STATE_DIR && w[1] == FOLDER)
}

/// The folder of sandboxes; makes it.
pub fn folder(home: &Home) -> Result<PathBuf, EngineError> {
    let folder = home.state().join(FOLDER);
    create_dir(&folder)?;
    Ok(folder)
}

/// Removes sandboxes that a killed run left; the caller holds the lock of acceptance runs.
pub fn remove_leftovers(folder: &Path) -> Result<(), EngineError> {
    for entry in fs::read_dir(folder).map_err(io("list", folder))?.flatten() {
        if !entry.path().join(KEEP).exists() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Marks a sandbox that a person wants to look at.
const KEEP: &str = ".keep";

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

impl Sandbox {
    /// Copies a stack: its definition, its configuration and, live, its data.
    pub fn make(
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        progress: &Progress<'_>,
    ) -> Result<Self, EngineError> {
        let root = folder(home)?.join(ulid::Ulid::generate().to_string());
        create_dir(&root)?;
        let made = Self::fill(home, config, versions, progress, &root);
        if made.is_err() {
            remove(&root)?;
        }
        made
    }

    fn fill(
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        progress: &Progress<'_>,
        root: &Path,
    ) -> Result<Self, EngineError> {
        // Nobody may switch generations while their data is copied.
        let _still = Lock::take(&home.state().join("lock"), "snapshot for verify", Duration::ZERO)?;
        let (production, release) = match home.pointer()? {
            None => (None, None),
            Some(_) => {
                let (_, instance) = gather::production(home, config, &World::open(config)?)?;
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
        let mut target = Target::default();
        for (name, service) in &mut desired.services {
            let wanted = versions.get(name).unwrap_or(&service.version).clone();
            if let Some(now) = current.services.get(name) {
                service.version.clone_from(&now.version);
            }
            if wanted != service.version {
                target.versions.insert(name.clone(), wanted);
            }
        }
        link(home, config, root)?;
        let text = yaml(&current)?;
        write_atomic(&root.join(CONFIG_FILE), text.as_bytes())?;
        let mut sandbox = Self {
            home: Home::open(root)?,
            current,
            desired,
            target,
            live: production
                .as_ref()
                .map_or(Ok(true), |p| instance_members(home, p).map(|m| !m.is_empty()))?,
            production,
            copies: BTreeMap::new(),
            kept_config,
            root: root.to_owned(),
            stack: home.root().to_owned(),
        };
        sandbox.configure(&sandbox.current.clone(), sandbox.kept_config.clone().as_deref())?;
        sandbox.clone_stores(home, config, progress)?;
        Ok(sandbox)
    }

    fn clone_stores(
        &mut self,
        home: &Home,
        config: &Config,
        progress: &Progress<'_>,
    ) -> Result<(), EngineError> {
        let places = match &self.production {
            Some(instance) => instance.stores.clone(),
            None => gather::configured_stores(home, config),
        };
        for (name, place) in places {
            let Some(store) = self.current.stores.get(&name) else { continue };
            let (from, to) = (Path::new(&place.path), self.root.join(&store.path));
            if let Some(parent) = to.parent() {
                create_dir(parent)?;
            }
            if !from.exists() {
                continue; // the service makes it when it starts, here as there
            }
            let stats = if self.live {
                store::clone_live(place.kind, from, &to, progress)?
            } else {
                store::clone_cold(place.kind, from, &to, progress)?
            };
            self.copies.insert(name, (place, stats));
        }
        Ok(())
    }

    /// Writes the sandbox's `switchback.yaml` and its configuration files, from a folder of kept ones or from
    /// the stack.
    pub fn configure(&self, config: &Config, kept: Option<&Path>) -> Result<(), EngineError> {
        for relative in config.services.values().flat_map(|s| s.config.iter().chain(&s.env_file)) {
            let from = kept.map_or_else(|| self.stack.join(relative), |k| k.join(relative));
            let to = self.root.join(relative);
            if let Some(parent) = to.parent() {
                create_dir(parent)?;
            }
            if from.is_file() {
                // A link to production's file must not be written through.
                let _ = fs::remove_file(&to);
                fs::copy(&from, &to).map_err(io("copy", &from))?;
            }
        }
        write_atomic(&self.home.config_file(), yaml(config)?.as_bytes())
    }

    /// Goes on from what production runs to what `switchback.yaml` says.
    pub fn configure_desired(&self) -> Result<(), EngineError> {
        self.configure(&self.desired, None)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Ends everything that runs in it and removes it; returns what could not be ended or removed.
    pub fn dispose(self, keep: bool) -> Result<Vec<String>, EngineError> {
        end(&self.home)?;
        let left = members_below(&self.home, "")?;
        let mut trouble: Vec<String> = left.iter().map(|p| format!("process {} is left", p.pid)).collect();
        if let Some(holder) = watch::holder(&self.home) {
            trouble.push(format!("a watchdog is left: {holder}"));
        }
        if keep {
            write_atomic(&self.root.join(KEEP), b"kept by `verify --keep`; remove it when done\n")?;
        } else {
            remove(&self.root)?;
            if self.root.exists() {
                trouble.push(format!("{} is left", self.root.display()));
            }
        }
        Ok(trouble)
    }
}

fn yaml(config: &Config) -> Result<String, EngineError> {
    serde_yaml_ng::to_string(config).map_err(|e| EngineError::Internal {
        detail: format!("cannot write the sandbox's configuration: {e}"),
    })
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
    copy.rollback.watch = WATCH;
    copy.rollback.every = EVERY;
    copy.rollback.failures = FAILURES;
    copy.verify.catalogue = None;
    copy
}

/// Makes the rest of the stack's folder visible in the sandbox: checks are copied, everything else that checks
/// may need is linked, stores and state are neither.
fn link(home: &Home, config: &Config, root: &Path) -> Result<(), EngineError> {
    let relative = |p: PathBuf| p.strip_prefix(home.root()).map(Path::to_owned).ok();
    let configured = config.services.values().flat_map(|s| s.config.iter().chain(&s.env_file));
    let own: BTreeSet<PathBuf> = workflow_files(home, config)?
        .into_iter()
        .filter_map(relative)
        .chain(configured.map(PathBuf::from))
        .map(|p| p.components().filter(|c| matches!(c, Component::Normal(_))).collect())
        .collect();
    let stores: BTreeSet<PathBuf> =
        config.stores.values().map(|s| Path::new(&s.path).components().collect()).collect();
    let apart = Apart { own: &own, stores: &stores };
    apart.level(home.root(), root, Path::new(""))
}

struct Apart<'a> {
    own: &'a BTreeSet<PathBuf>,
    stores: &'a BTreeSet<PathBuf>,
}

impl Apart<'_> {
    fn level(&self, from: &Path, to: &Path, at: &Path) -> Result<(), EngineError> {
        for entry in fs::read_dir(from).map_err(io("list", from))? {
            let entry = entry.map_err(io("list", from))?;
            let relative = at.join(entry.file_name());
            let top = at.as_os_str().is_empty();
            if top && [STATE_DIR, CONFIG_FILE, DATA].iter().any(|n| entry.file_name() == **n) {
                continue;
            }
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let beneath = |set: &BTreeSet<PathBuf>| set.iter().any(|p| p.starts_with(&relative));
            if self.is_store(&relative) {
                continue;
            }
            if self.own.contains(&relative) {
                fs::copy(&source, &target).map_err(io("copy", &source))?;
            } else if source.is_dir() && (beneath(self.own) || beneath(self.stores)) {
                create_dir(&target)?;
                self.level(&source, &target, &relative)?;
            } else {
                std::os::unix::fs::symlink(&source, &target).map_err(io("link", &target))?;
            }
        }
        Ok(())
    }

    /// A store, or one of SQLite's files beside it.
    fn is_store(&self, relative: &Path) -> bool {
        let text = relative.to_string_lossy();
        self.stores.iter().any(|s| {
            text.strip_prefix(&*s.to_string_lossy())
                .is_some_and(|rest| ["", "-wal", "-shm", "-journal"].contains(&rest))
        })
    }
}

/// Ends trials, watchdogs and processes of a sandbox.
fn end(home: &Home) -> Result<(), EngineError> {
    if home.state().is_dir() {
        // A watchdog that rolls back right now holds the lock: it is left to finish.
        let mut session = Session::open(home, "end of verify", Duration::from_secs(120))?;
        if let Some(trial) = watch::current(&session.journal)? {
            let why = "the sandbox is disposed of".to_owned();
            session.journal.append(&trial.plan.run, now_ms(), &Event::TrialCancelled { why })?;
        }
        drop(session);
        let deadline = Instant::now() + Duration::from_secs(20);
        while watch::holder(home).is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_below(home, "")?;
    }
    Ok(())
}

fn remove(root: &Path) -> Result<(), EngineError> {
    if let Ok(home) = Home::open(root)
        && end(&home).is_err()
    {
        // Its journal may be damaged; its processes must go all the same.
        kill_below(&home, "")?;
    }
    // Links are removed, never what they point to.
    match fs::remove_dir_all(root) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", root)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_placeholder_means_the_real_folder_and_escapes_stay() {
        assert_eq!(fix_stack("{stack}/x {{stack}} {port.http}", "/a{b"), "/a{{b/x {{stack}} {port.http}");
    }

    #[test]
    fn stores_are_never_linked_and_checks_are_copied() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (stack, root) = (dir.path().join("s"), dir.path().join("r"));
        for folder in ["data/sub", "checks", "tools", ".switchback"] {
            fs::create_dir_all(stack.join(folder)).expect("creates");
        }
        fs::create_dir(&root).expect("creates");
        for file in
            ["data/a.db", "data/a.db-wal", "data/other", "checks/w.yaml", "checks/body.json", "app.env"]
        {
            fs::write(stack.join(file), "x").expect("writes");
        }
        fs::write(stack.join("checks/w.yaml"), "steps: [{ wait: 1ms }]").expect("writes");
        let text = "stack: s\nservices:\n  a: { version: '1', command: [x, '{port.http}', '{store.db}'], env_file: app.env, ports: {http: 80}, health: {tcp: http} }\nstores: { db: { kind: sqlite, path: data/a.db } }\nchecks: { workflows: ['checks/*.yaml'] }\n";
        fs::write(stack.join(CONFIG_FILE), text).expect("writes");
        let home = Home::open(&stack).expect("opens");
        link(&home, &Config::parse(text, "f").expect("valid"), &root).expect("links");
        let is_link = |p: &str| root.join(p).symlink_metadata().is_ok_and(|m| m.is_symlink());
        for absent in ["data/a.db", "data/a.db-wal", ".switchback", CONFIG_FILE] {
            assert!(root.join(absent).symlink_metadata().is_err(), "{absent}");
        }
        for linked in ["data/other", "data/sub", "checks/body.json", "tools"] {
            assert!(is_link(linked), "{linked}");
        }
        for copied in ["checks/w.yaml", "app.env"] {
            assert!(root.join(copied).is_file() && !is_link(copied), "{copied}");
        }
        remove(&root).expect("removes");
        assert!(stack.join("tools").is_dir() && stack.join("data/other").exists());
    }
}
