//! The sandbox: a copy of a stack in a folder of its own, with its own ports, state and data.
//!
//! Owns the folder, and that nothing of the copy is left, also after a crash: the folder is the record of everything that
//! a sandbox consists of and goes last. Production's data is read once, through the same live clone that a rehearsal uses.

use super::ground::{self, Copied, Count, Ground, Order};
use crate::data::Work;
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::gather::Target;
use crate::home::{CONFIG_FILE, Home, STATE_DIR, create_dir, write_atomic};
use crate::keeper;
use crate::lock::Lock;
use crate::runtime::Stage;
use crate::session::Session;
use crate::store::Progress;
use crate::watch;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::config::{Action, Config, Hooks, RuntimeKind};
use switchback_core::data::CopyStats;
use switchback_core::duration::Span;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::journal::Event;
use switchback_core::release::{Instance, StorePlace};

/// The folder of sandboxes within the state folder.
const FOLDER: &str = "verify";
/// The sandbox's data, below its root. No stack has a folder of this name, so that no link to
/// production can be in its place.
pub const DATA: &str = ".switchback-verify-data";
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
    /// What is to be gone to, on the copy.
    pub desired: Config,
    /// The versions to go to besides.
    pub target: Target,
    /// Production, if Switchback runs it.
    pub production: Option<Instance>,
    /// Production's stores that were copied.
    pub places: BTreeMap<StoreName, StorePlace>,
    /// What cloning each cost.
    pub copies: BTreeMap<StoreName, CopyStats>,
    /// Whether the snapshot was taken from running services.
    pub live: bool,
    /// Whether its files say what is to be gone to.
    pub settled: bool,
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

/// Sandboxes that a killed run left; those that a person kept are not among them. The caller holds the lock of
/// acceptance runs.
pub fn leftovers(home: &Home) -> Result<Vec<PathBuf>, EngineError> {
    let folder = home.state().join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io("list", &folder))?,
    };
    Ok(entries.flatten().map(|e| e.path()).filter(|p| !p.join(KEEP).exists()).collect())
}

/// Removes sandboxes that a killed run left; the caller holds the lock of acceptance runs.
pub fn remove_leftovers(home: &Home, kind: RuntimeKind) -> Result<(), EngineError> {
    for root in leftovers(home)? {
        // It may have been made before the stack changed its runtime.
        let kind = Home::open(&root).and_then(|h| h.config()).map_or(kind, |c| c.runtime);
        remove(ground::open(kind)?.as_ref(), &root)?;
    }
    Ok(())
}

/// Marks a sandbox that a person wants to look at.
const KEEP: &str = ".keep";
/// What the mark says.
const KEPT: &str =
    "kept by `verify --keep`; to remove it, remove this file, and then run `switchback gc` on the stack\n";

/// A trial that can be waited for, and not held for a person; criteria are judged for the stack, not for its copy; nobody is told
/// what is broken on purpose in it, no command of the user takes it for production, and nothing of it
/// gets into the stack's backups.
pub fn short_trial(config: &mut Config) {
    config.notify.clear();
    config.hooks = Hooks::default();
    // Its keeper guards the trial, and does nothing by the clock: the repository is the stack's.
    config.backup = None;
    config.rollback.drill = None;
    config.rollback.drill_production = None;
    config.rollback.triggers.logs.action = Action::Off;
    config.rollback.triggers.disk.action = Action::Off;
    config.rollback.watch = WATCH;
    config.rollback.every = EVERY;
    config.rollback.failures = FAILURES;
    config.verify.catalogue = None;
}

impl Sandbox {
    /// Copies a stack: its definition, its configuration and, live, its data.
    pub fn make(
        ground: &dyn Ground,
        home: &Home,
        config: &Config,
        versions: &BTreeMap<ServiceName, String>,
        (stage, progress): (Stage<'_>, &Progress<'_>),
    ) -> Result<(Self, Vec<String>), EngineError> {
        let root = folder(home)?.join(ulid::Ulid::generate().to_string());
        let temp = root.join(STATE_DIR).join("tmp");
        create_dir(&temp)?;
        let work = Work { stage, progress, temp: &temp };
        let order = Order { home, config, versions, root: &root, work: &work };
        // Nobody may switch generations while their data is copied.
        let made = Lock::take(&home.state().join("lock"), "snapshot for verify", Duration::ZERO)
            .and_then(|_still| ground.copy(&order));
        match made {
            Ok(copied) => Ok(Self::of(copied, &root, home)),
            Err(e) => {
                remove(ground, &root)?;
                Err(e)
            }
        }
    }

    fn of(copied: Copied, root: &Path, stack: &Home) -> (Self, Vec<String>) {
        let sandbox = Self {
            home: copied.home,
            current: copied.current,
            desired: copied.desired,
            target: Target { versions: copied.versions },
            production: copied.production,
            places: copied.places,
            copies: copied.copies,
            live: copied.live,
            settled: false,
            root: root.to_owned(),
            stack: stack.root().to_owned(),
        };
        (sandbox, copied.notes)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the stack that it is a copy of.
    pub fn stack(&self) -> &Path {
        &self.stack
    }

    /// Ends everything that runs in it and removes it; returns what could not be ended or removed.
    pub fn dispose(self, ground: &dyn Ground, keep: bool) -> Result<Vec<String>, EngineError> {
        end(ground, &self.home)?;
        let mut trouble = ground.left(&self.home, Count::Running)?;
        if let Some(holder) = watch::holder(&self.home) {
            trouble.push(format!("a watchdog is left: {holder}"));
        }
        if keep {
            write_atomic(&self.root.join(KEEP), KEPT.as_bytes())?;
        } else {
            ground.clear(&self.home)?;
            trouble.extend(ground.left(&self.home, Count::Everything)?);
            remove(ground, &self.root)?;
            if self.root.exists() {
                trouble.push(format!("{} is left", self.root.display()));
            }
        }
        Ok(trouble)
    }
}

/// A configuration as the text of a `switchback.yaml`.
pub fn yaml(config: &Config) -> Result<String, EngineError> {
    serde_yaml_ng::to_string(config).map_err(|e| EngineError::Internal {
        detail: format!("cannot write the sandbox's configuration: {e}"),
    })
}

/// What of a stack's folder is seen in its sandbox. All paths are relative to the stack.
#[derive(Debug, Default)]
pub struct Outline {
    /// Files that are copied.
    pub own: BTreeSet<PathBuf>,
    /// Stores: neither copied nor linked, together with SQLite's files beside them.
    pub apart: BTreeSet<PathBuf>,
    /// Other files that are not seen.
    pub hidden: BTreeSet<PathBuf>,
}

fn clean(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let clean = |p: &PathBuf| p.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    paths.iter().map(clean).collect()
}

/// Makes the rest of the stack's folder visible in the sandbox: checks are copied, everything else that checks
/// may need is linked, stores and state are neither.
pub fn link(home: &Home, outline: &Outline, root: &Path) -> Result<(), EngineError> {
    let (own, stores, hidden) = (clean(&outline.own), clean(&outline.apart), clean(&outline.hidden));
    let apart = Apart { own: &own, stores: &stores, hidden: &hidden };
    apart.level(home.root(), root, Path::new(""))
}

struct Apart<'a> {
    own: &'a BTreeSet<PathBuf>,
    stores: &'a BTreeSet<PathBuf>,
    hidden: &'a BTreeSet<PathBuf>,
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
            if self.is_store(&relative) || self.hidden.contains(&relative) {
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

/// Ends trials, watchdogs and services of a sandbox.
fn end(ground: &dyn Ground, home: &Home) -> Result<(), EngineError> {
    if home.state().is_dir() {
        // A watchdog that rolls back right now holds the lock: it is left to finish.
        let mut session = Session::open(home, "end of verify", Duration::from_secs(120))?;
        if let Some(trial) = watch::current(&session.journal)? {
            let why = "the sandbox is disposed of".to_owned();
            session.journal.append(&trial.plan.run, now_ms(), &Event::TrialCancelled { why })?;
        }
        drop(session);
        let deadline = Instant::now() + Duration::from_secs(20);
        let at_work = || watch::holder(home).or_else(|| keeper::holder(home)).is_some();
        while at_work() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        ground.end(home)?;
    }
    Ok(())
}

/// Ends everything that runs in a stack's copy and removes it.
pub(super) fn remove(ground: &dyn Ground, root: &Path) -> Result<(), EngineError> {
    // Its configuration may not be written yet: an identity is all that is needed.
    if root.join(STATE_DIR).is_dir() {
        if !root.join(CONFIG_FILE).exists() {
            write_atomic(&root.join(CONFIG_FILE), b"")?;
        }
        let home = Home::open(root)?;
        if end(ground, &home).is_err() {
            // Its journal may be damaged; its services must go all the same.
            ground.end(&home)?;
        }
        ground.clear(&home)?;
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
    fn a_copy_of_a_stack_calls_nobody() {
        let text = "stack: s\nservices:\n  a: { version: '1', command: [x, '{port.http}'], ports: {http: 80}, health: {tcp: http} }\n\
                    notify: ['ntfy://a/b']\nhooks:\n  before_promote: { run: ./page }\n  after_rollback: { run: ./page }\n\
                    backup: { repository: /b, every: 24h }\nrollback: { drill: 30d }\n";
        let mut config = Config::parse(text, "f").expect("valid");
        assert!(config.hooks.before_promote.is_some());
        short_trial(&mut config);
        assert_eq!((config.hooks, config.notify), (Hooks::default(), Vec::new()));
        assert!(config.backup.is_none() && !config.rollback.drills());
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
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<BTreeSet<PathBuf>>();
        fs::write(stack.join(CONFIG_FILE), "").expect("writes");
        fs::write(stack.join(".env"), "x").expect("writes");
        let outline = Outline {
            own: paths(&["checks/w.yaml", "./app.env"]),
            apart: paths(&["data/a.db"]),
            hidden: paths(&[".env"]),
        };
        link(&Home::open(&stack).expect("opens"), &outline, &root).expect("links");
        let is_link = |p: &str| root.join(p).symlink_metadata().is_ok_and(|m| m.is_symlink());
        for absent in ["data/a.db", "data/a.db-wal", ".switchback", CONFIG_FILE, ".env"] {
            assert!(root.join(absent).symlink_metadata().is_err(), "{absent}");
        }
        for linked in ["data/other", "data/sub", "checks/body.json", "tools"] {
            assert!(is_link(linked), "{linked}");
        }
        for copied in ["checks/w.yaml", "app.env"] {
            assert!(root.join(copied).is_file() && !is_link(copied), "{copied}");
        }
        remove(&ground::ProcessGround, &root).expect("removes");
        assert!(stack.join("tools").is_dir() && stack.join("data/other").exists());
    }
}
