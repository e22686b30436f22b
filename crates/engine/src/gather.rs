//! Gathering the facts that plans are made from. Reads the world, changes nothing but the store of
//! releases, which is content-addressed.

use crate::data::Cost;
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir, write_atomic, write_json};
use crate::runtime::{Adopted, Placement, Stage};
use crate::world::World;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use switchback_core::config::template::{Placeholder, expand};
use switchback_core::config::{Capture, Config, RuntimeKind, Service};
use switchback_core::data::StoreKind;
use switchback_core::duration::human_bytes;
use switchback_core::ids::{Digest, GenerationId, RunId, ServiceName, StoreName};
use switchback_core::plan::{ArchiveFacts, BackupCopy, Majors, Ports, PromoteFacts, RehearseFacts};
use switchback_core::release::{
    ArtefactRef, FORMAT, Instance, PRODUCTION, Pointer, Release, ServiceRelease, Shared, StorePlace,
};

/// A new run's id.
pub fn new_run() -> RunId {
    RunId(ulid::Ulid::generate().to_string())
}

/// Makes the release that the configuration describes, with some versions replaced, and stores it.
pub fn release(
    home: &Home,
    config: &Config,
    versions: &BTreeMap<ServiceName, String>,
) -> Result<(Digest, Release), EngineError> {
    let mut services = BTreeMap::new();
    let mut files: Vec<String> = Vec::new();
    for (name, service) in &config.services {
        let mut definition = service.clone();
        if let Some(version) = versions.get(name) {
            definition.version.clone_from(version);
        }
        let artefact = artefact(home, name, &definition)?;
        files.extend(definition.config.iter().chain(&definition.env_file).cloned());
        services.insert(name.clone(), ServiceRelease { artefact, image: None, definition });
    }
    let mut contents = BTreeMap::new();
    for file in files {
        let path = home.root().join(&file);
        if !path.is_file() {
            return Err(EngineError::refused(
                format!("the configuration file {file} does not exist"),
                "files named by `config` and `env_file` must lie in the stack's folder",
            ));
        }
        contents.insert(file, fs::read(&path).map_err(io("read", &path))?);
    }
    let release = Release {
        format: FORMAT,
        services,
        config: contents.iter().map(|(f, c)| (f.clone(), Digest::of(c))).collect(),
        model: None,
    };
    let id = release.id();
    keep_release(home, &id, &release, &contents)?;
    Ok((id, release))
}

fn keep_release(
    home: &Home,
    id: &Digest,
    release: &Release,
    contents: &BTreeMap<String, Vec<u8>>,
) -> Result<(), EngineError> {
    let dir = home.release_dir(id);
    for (file, content) in contents {
        let path = dir.join("config").join(file);
        if let Some(parent) = path.parent() {
            create_dir(parent)?;
        }
        write_atomic(&path, content)?;
        let mode = fs::metadata(home.root().join(file)).map_err(io("look at", &path))?.permissions();
        fs::set_permissions(&path, mode).map_err(io("set the mode of", &path))?;
    }
    create_dir(&dir)?;
    write_json(&dir.join("release.json"), release)
}

fn artefact(home: &Home, name: &ServiceName, service: &Service) -> Result<Option<ArtefactRef>, EngineError> {
    let Some(template) = &service.release else { return Ok(None) };
    let relative = expand(template, |p| matches!(p, Placeholder::Version).then(|| service.version.clone()))
        .map_err(|e| EngineError::Internal { detail: e.to_string() })?;
    let path = home.root().join(relative);
    if !path.exists() {
        let known = installed_versions(home, service);
        return Err(EngineError::Refused {
            message: format!(
                "{name} {} is not installed: {} does not exist",
                service.version,
                path.display()
            ),
            hint: Some(if known.is_empty() {
                "install it there first".to_owned()
            } else {
                format!("installed: {}", known.join(", "))
            }),
        });
    }
    let digest = artefact_digest(&path)?;
    Ok(Some(ArtefactRef { path: path.to_string_lossy().into_owned(), digest }))
}

/// The versions that lie where the release template points.
pub fn installed_versions(home: &Home, service: &Service) -> Vec<String> {
    let Some((before, after)) = service.release.as_deref().and_then(|t| t.split_once("{version}")) else {
        return Vec::new();
    };
    let (folder, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let suffix = after.split('/').next().unwrap_or("");
    let mut found: Vec<String> = fs::read_dir(home.root().join(folder))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some(e.file_name().to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?.to_owned()))
        .collect();
    found.sort();
    found
}

/// The digest of an artefact: relative names, modes, link targets and contents of the whole tree.
///
/// `__pycache__` folders are left out: Python writes them while it runs.
pub fn artefact_digest(path: &Path) -> Result<Digest, EngineError> {
    let mut hasher = blake3::Hasher::new();
    let walk = walkdir::WalkDir::new(path).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|e| e.file_name() != "__pycache__") {
        let entry = entry.map_err(|e| {
            let at = e.path().unwrap_or(path).to_owned();
            EngineError::Io { doing: "read the artefact", path: at, source: e.into() }
        })?;
        let relative = entry.path().strip_prefix(path).unwrap_or(entry.path());
        let metadata = entry.metadata().map_err(|e| EngineError::Io {
            doing: "read",
            path: entry.path().to_owned(),
            source: e.into(),
        })?;
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::fs::PermissionsExt as _;
        let name = relative.as_os_str().as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&metadata.permissions().mode().to_le_bytes());
        if metadata.file_type().is_symlink() {
            let target = fs::read_link(entry.path()).map_err(io("read the link", entry.path()))?;
            hasher.update(target.as_os_str().as_bytes());
        } else if metadata.is_file() {
            hasher.update(&metadata.len().to_le_bytes());
            let file = fs::File::open(entry.path()).map_err(io("read", entry.path()))?;
            hasher.update_reader(file).map_err(io("read", entry.path()))?;
        }
    }
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}

/// Free bytes on the file system of a folder, for this user.
pub fn free_bytes(path: &Path) -> Result<u64, EngineError> {
    let found = rustix::fs::statvfs(path).map_err(|e| io("ask for free space on", path)(e.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Room that is left free besides the clones: journal, logs and what the services write.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// Refuses where the clones would fill the file system of a folder; otherwise says what is free.
pub fn enough_space(folder: &Path, need_bytes: u64) -> Result<String, EngineError> {
    enough("", need_bytes, free_bytes(folder)?)
}

/// Refuses where what clones need is not free at a place (in words, with a space before them); otherwise says what is.
pub fn enough(place: &str, need_bytes: u64, free: u64) -> Result<String, EngineError> {
    if free < need_bytes.saturating_add(RESERVE_BYTES) {
        return Err(EngineError::refused(
            format!(
                "not enough disk space{place}: {} are needed for the clones and {} in reserve, {} are free",
                human_bytes(need_bytes),
                human_bytes(RESERVE_BYTES),
                human_bytes(free)
            ),
            "free some space; `switchback gc` removes what is no longer needed",
        ));
    }
    Ok(format!("disk{place}: {} needed, {} free", human_bytes(need_bytes), human_bytes(free)))
}

/// Where the configuration says that production's data lies before the first promotion.
pub fn configured_stores(home: &Home, config: &Config) -> BTreeMap<StoreName, StorePlace> {
    config
        .stores
        .iter()
        .map(|(name, store)| {
            let path = home.root().join(&store.path).components().collect::<std::path::PathBuf>();
            let path = path.to_string_lossy().into_owned();
            (name.clone(), StorePlace { kind: store.kind, path, mount: None, server: None })
        })
        .collect()
}

/// The first generation: the stack as it is, its data where it lies.
pub fn first_generation(home: &Home, world: &World, adopted: &Adopted) -> Result<Instance, EngineError> {
    let (id, release) = &adopted.release;
    Ok(Instance {
        environment: PRODUCTION.to_owned(),
        generation: GenerationId(1),
        versions: release.versions(),
        ports: world.runtime.ports(home, &adopted.release)?,
        release: id.clone(),
        dir: "generations/1".to_owned(),
        stores: adopted.stores.clone(),
        project: adopted.project.clone(),
        shared: Shared::default(),
        closed: false,
    })
}

/// Production as it is; stores that were configured since are taken from where they lie.
pub fn production(home: &Home, config: &Config, world: &World) -> Result<(Pointer, Instance), EngineError> {
    let Some(pointer) = home.pointer()? else {
        return Err(EngineError::refused(
            "the stack has not been started by Switchback yet",
            "`switchback up` starts it and makes it generation 1",
        ));
    };
    let mut instance = home.generation(pointer.current)?.instance;
    for (name, place) in world.runtime.stores(home, config)? {
        let known = instance.stores.entry(name).or_insert_with(|| place.clone());
        // How a server is asked is the configuration's, also after the adoption; where its data lies is not.
        if let (Some(known), Some(now)) = (&mut known.server, place.server) {
            known.user = now.user;
            known.password_env = now.password_env;
            known.databases = now.databases;
        }
    }
    instance.stores.retain(|name, _| config.stores.contains_key(name));
    Ok((pointer, instance))
}

/// Where free ports are looked for first: below those that kernels give to connections by themselves, which would take one away
/// between its being found and its being used.
const OWN_PORTS: std::ops::Range<u16> = 20_000..32_768;

/// Ports that nobody listens on, all different.
pub fn free_ports(count: usize) -> Result<Vec<u16>, EngineError> {
    let here = Path::new("127.0.0.1");
    let own = u128::from(OWN_PORTS.end - OWN_PORTS.start);
    // Another process that looks at the same moment begins elsewhere.
    let first = ulid::Ulid::generate().random() % own;
    let mut found = Vec::new();
    for n in 0..own {
        if found.len() == count {
            break;
        }
        let port = OWN_PORTS.start + u16::try_from((first + n) % own).unwrap_or(0);
        found.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    while found.len() < count {
        found.push(TcpListener::bind("127.0.0.1:0").map_err(io("find a free port on", here))?);
    }
    found.iter().map(|l| l.local_addr().map(|a| a.port()).map_err(io("find a free port on", here))).collect()
}

/// What every plan needs that only reads production: clones of it lie beside it.
pub fn beside(
    home: &Home,
    config: &Config,
    world: &World,
    production: Instance,
    need_bytes: u64,
) -> Result<ArchiveFacts, EngineError> {
    Ok(ArchiveFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        production_runs: !world.runtime.running(home, &production)?.is_empty(),
        ports: free_ports_like(&production.ports)?,
        production,
        need_bytes,
        budget_ms: config.rollback.budget.as_millis(),
        archived: false,
        copy: BackupCopy::Passing,
    })
}

/// Free ports, by the services and names of others.
pub fn free_ports_like(like: &Ports) -> Result<Ports, EngineError> {
    let mut free = free_ports(like.values().map(BTreeMap::len).sum())?.into_iter();
    let mut given =
        |own: &BTreeMap<String, u16>| own.keys().filter_map(|p| Some((p.clone(), free.next()?))).collect();
    Ok(like.iter().map(|(service, own)| (service.clone(), given(own))).collect())
}

/// Services with a migration command, in the order in which they start.
pub(crate) fn migrations(release: &Release, current: &BTreeMap<ServiceName, String>) -> Vec<ServiceName> {
    let definitions: BTreeMap<ServiceName, Service> =
        release.services.iter().map(|(n, s)| (n.clone(), s.definition.clone())).collect();
    Config::start_order(&definitions)
        .into_iter()
        .flatten()
        .filter(|n| {
            let service = &definitions[n];
            !service.migrate.is_empty() && current.get(n) != Some(&service.version)
        })
        .collect()
}

/// What is asked of a rehearsal or a promotion.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Versions that replace the configured ones.
    pub versions: BTreeMap<ServiceName, String>,
}

/// Whether what is desired is another release than production's.
pub fn differs(
    home: &Home,
    config: &Config,
    world: &World,
    target: &Target,
    stage: &Stage<'_>,
) -> Result<bool, EngineError> {
    let (_, instance) = production(home, config, world)?;
    Ok(world.runtime.release(home, config, &target.versions, stage)?.0 != instance.release)
}

/// Facts of a rehearsal.
pub fn rehearse_facts(
    home: &Home,
    config: &Config,
    world: &World,
    target: &Target,
    stage: &Stage<'_>,
) -> Result<RehearseFacts, EngineError> {
    let (_, instance) = production(home, config, world)?;
    let made = world.runtime.release(home, config, &target.versions, stage)?;
    let target_ports = world.runtime.ports(home, &made)?;
    let (id, release) = made;
    if id == instance.release {
        return Err(nothing_to_do(config));
    }
    // A pattern that matches nothing is better told now.
    crate::checks::named_files(home, "checks.lint", &config.checks.lint)?;
    let convert = conversions(home, config, world, &instance, (&id, &release))?;
    let Cost { bytes, shared } = world.data.cost(home, &instance)?;
    let copies = if config.rehearsal.code_only_rollback { 4 } else { 3 };
    let count: usize = target_ports.values().chain(instance.ports.values()).map(BTreeMap::len).sum();
    let any = |kind| instance.stores.values().any(|s| s.kind == kind);
    let postgres = any(StoreKind::Postgres);
    let traced = postgres || any(StoreKind::Sqlite) || any(StoreKind::Mysql);
    Ok(RehearseFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        migrate: migrations(&release, &instance.versions),
        target_versions: release.versions(),
        target: id,
        target_ports,
        free_ports: free_ports(count * 4)?,
        need_bytes: if shared { 0 } else { bytes * copies } + if convert.is_empty() { 0 } else { bytes },
        budget_ms: config.rollback.budget.as_millis(),
        valid_ms: config.rehearsal.valid.as_millis(),
        // No server of the old version starts on what was converted.
        code_only: config.rehearsal.code_only_rollback && convert.is_empty(),
        convert,
        lint: !config.checks.lint.is_empty(),
        trace: config.rehearsal.trace && traced,
        queries: config.rehearsal.queries && postgres,
        production_runs: !world.runtime.running(home, &instance)?.is_empty(),
        production: instance,
    })
}

/// Stores whose data must be converted for a release.
pub(crate) fn conversions(
    home: &Home,
    config: &Config,
    world: &World,
    production: &Instance,
    (id, release): (&Digest, &Release),
) -> Result<Majors, EngineError> {
    let old = home.release(&production.release)?;
    let new = Instance { release: id.clone(), ..production.clone() };
    world.data.conversions(
        &Placement { home, config, instance: production, release: &old },
        &Placement { home, config, instance: &new, release },
    )
}

fn nothing_to_do(config: &Config) -> EngineError {
    let names: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
    EngineError::Refused {
        message: "there is nothing to upgrade: production runs exactly what switchback.yaml says".to_owned(),
        hint: Some(format!(
            "change a version there, or name one: `{}=VERSION`",
            names.first().unwrap_or(&"SERVICE")
        )),
    }
}

/// A clone of this size costs next to no downtime even where it must be copied (0.1 s at 1 GB/s).
pub(crate) const SMALL_BYTES: u64 = 128 << 20;

/// Facts of a promotion.
pub fn promote_facts(
    home: &Home,
    config: &Config,
    world: &World,
    target: &Target,
    waiver: Option<String>,
    stage: &Stage<'_>,
) -> Result<PromoteFacts, EngineError> {
    let (pointer, instance) = production(home, config, world)?;
    let made = world.runtime.release(home, config, &target.versions, stage)?;
    let target_ports = world.runtime.ports(home, &made)?;
    let (id, release) = made;
    if id == instance.release {
        return Err(nothing_to_do(config));
    }
    let convert = conversions(home, config, world, &instance, (&id, &release))?;
    let Cost { bytes, shared } = world.data.cost(home, &instance)?;
    // A standby that takes over would be one of the old version.
    let precopy = config.runtime == RuntimeKind::Compose && !shared && convert.is_empty();
    let before: BTreeMap<ServiceName, String> = config
        .services
        .iter()
        .filter(|(n, s)| target.versions.get(*n).is_some_and(|v| *v != s.version))
        .map(|(n, s)| (n.clone(), s.version.clone()))
        .collect();
    let after = target
        .versions
        .iter()
        .filter(|(n, _)| before.contains_key(*n))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    Ok(PromoteFacts {
        run: new_run(),
        stack: config.stack.clone(),
        now_ms: now_ms(),
        state_dir: home.state().to_string_lossy().into_owned(),
        migrate: migrations(&release, &instance.versions),
        production: instance,
        previous: pointer.previous,
        next: home.next_generation(pointer.current)?,
        target_versions: release.versions(),
        target_ports,
        target: id,
        edit: (before, after),
        precopy,
        // A copy by a helper container takes seconds, however small.
        cheap_base: shared || !precopy && bytes <= SMALL_BYTES,
        need_bytes: if shared { 0 } else { bytes * 2 } + if convert.is_empty() { 0 } else { bytes },
        convert,
        budget_ms: config.rollback.budget.as_millis(),
        watch_ms: config.rollback.watch.as_millis(),
        waiver,
        capture: config.rollback.capture == Capture::Continuous,
        carry: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn free_ports_differ_and_are_not_those_that_connections_take_by_themselves() {
        let found = free_ports(40).expect("found");
        let different: BTreeSet<u16> = found.iter().copied().collect();
        assert_eq!(different.len(), 40, "{found:?}");
        assert!(found.iter().all(|port| OWN_PORTS.contains(port)), "{found:?}");
    }
}
