//! The project as its Compose files describe it: the model, the services it makes of the configuration, and where
//! the stores lie.

use crate::docker::DockerError;
use crate::docker::compose::{ComposeCli, ProjectFiles};
use crate::error::{EngineError, io};
use crate::home::{CONFIG_FILE, Home};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use switchback_core::compose::{ImageName, Model, MountKind, MountUse};
use switchback_core::config::{Compose, Config, Store, suggest};
use switchback_core::data::StoreKind;
use switchback_core::duration::Span;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::release::{Mount, MountPlace, MountSource, Server, StorePlace};

/// The lock file, in the stack's folder.
pub const LOCK_FILE: &str = "switchback.lock.yaml";
/// What `docker compose` takes by itself, in its order.
const DEFAULT_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// The value of a variable in the stack's `.env`; empty if there is none.
pub fn dot_env(home: &Home) -> Result<String, EngineError> {
    let path = home.root().join(".env");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(io("read", &path)(e)),
    }
}

fn env_value(text: &str, name: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let (key, value) = line.trim().trim_start_matches("export ").split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// The Compose files of the stack, without the lock file.
pub fn base_files(home: &Home, config: &Config) -> Result<Vec<String>, EngineError> {
    let named = config.compose.as_ref().map(|c| c.files.clone()).unwrap_or_default();
    let env = dot_env(home)?;
    let not_lock = |f: &String| Path::new(f).file_name() != Some(LOCK_FILE.as_ref());
    let in_env: Option<Vec<String>> = env_value(&env, "COMPOSE_FILE").map(|list| {
        let separator = env_value(&env, "COMPOSE_PATH_SEPARATOR").unwrap_or_else(|| ":".to_owned());
        list.split(&separator).filter(|f| !f.is_empty()).map(str::to_owned).filter(not_lock).collect()
    });
    if let Some(other) = &in_env
        && !named.is_empty()
        && !other
            .iter()
            .map(|f| absolute(home, f))
            .eq(named.iter().filter(|f| not_lock(f)).map(|f| absolute(home, f)))
    {
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!(
                "compose.files names {}, but COMPOSE_FILE in .env names {}: plain `docker compose` would start another stack than Switchback",
                named.join(", "),
                other.join(", ")
            ),
            "let both name the same files in the same order; or leave `compose.files` out, then COMPOSE_FILE counts",
        ));
    }
    let files: Vec<String> = if !named.is_empty() {
        named.into_iter().filter(not_lock).collect()
    } else if let Some(files) = in_env {
        files
    } else {
        let first =
            |names: &[&str]| names.iter().find(|f| home.root().join(f).is_file()).map(|f| (*f).to_owned());
        first(&DEFAULT_FILES).into_iter().chain(first(&OVERRIDES)).collect()
    };
    if files.is_empty() {
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!("there is no Compose file in {}", home.root().display()),
            "name it: `compose: { files: [my-compose.yaml] }` in switchback.yaml",
        ));
    }
    if let Some(missing) = files.iter().find(|f| !home.root().join(f).is_file()) {
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!("the Compose file {missing} does not exist"),
            "check `compose.files` in switchback.yaml, or COMPOSE_FILE in .env",
        ));
    }
    Ok(files)
}

/// The model of the project as its files are now.
pub fn load(cli: &ComposeCli, home: &Home, config: &Config) -> Result<Model, EngineError> {
    load_with(cli, home, config, &base_files(home, config)?, None)
}

/// The model of given files, with another `.env`.
pub fn load_with(
    cli: &ComposeCli,
    home: &Home,
    config: &Config,
    files: &[String],
    env_file: Option<&Path>,
) -> Result<Model, EngineError> {
    let settings = config.compose.clone().unwrap_or_default();
    let Compose { profiles, project, .. } = settings;
    let json = cli.config(&ProjectFiles {
        dir: home.root().to_owned(),
        files: files.iter().map(|f| home.root().join(f)).collect(),
        env_files: env_file.map(Path::to_owned).into_iter().collect(),
        profiles,
        project,
    });
    let json = json.map_err(|e| match e {
        // Compose's own words: it knows best what is wrong with its files.
        DockerError::ComposeFailed { why, .. } => EngineError::misconfigured(
            files.join(", "),
            format!("Docker Compose does not accept it: {why}"),
            "`docker compose config` must work in this folder",
        ),
        other => other.into(),
    })?;
    Model::parse(&json)
        .map_err(|e| EngineError::misconfigured(files.join(", "), e.to_string(), "check the Compose file"))
}

/// The configuration with every service of the model in it: versions from image tags, ports, order and grace time from
/// the Compose file, the rest as configured.
pub fn effective(config: &Config, model: &Model) -> Result<Config, EngineError> {
    let mut resolved = config.clone();
    let known: Vec<&str> = model.services().map(|s| s.name().as_str()).collect();
    let named = config.services.keys().map(|n| ("services", n));
    let mut named = named.chain(config.promotion.follow.keys().map(|n| ("promotion.follow", n)));
    if let Some((at, stranger)) = named.find(|(_, n)| !known.contains(&n.as_str())) {
        let hint = match suggest(stranger.as_str(), known.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("services of the Compose file: {}", known.join(", ")),
        };
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!("{at}.{stranger}: the Compose file has no such service"),
            hint,
        ));
    }
    for found in model.services() {
        let mut service = config.services.get(found.name()).cloned().unwrap_or_default();
        service.version = found.image().map_or_else(|| "built".to_owned(), version_of);
        if service.ports.is_empty() {
            let tcp = found.ports().into_iter().filter(|p| p.protocol == "tcp");
            service.ports = tcp.map(|p| (p.container.to_string(), p.container)).collect();
        }
        service.needs = found
            .depends_on()
            .into_iter()
            .filter_map(|d| ServiceName::new(&d.service).ok())
            .filter(|n| known.contains(&n.as_str()))
            .collect();
        if let Some(grace) = found.stop_grace().and_then(compose_duration) {
            service.stop.grace = grace;
        }
        resolved.services.insert(found.name().clone(), service);
    }
    Ok(resolved)
}

/// The version that an image's name shows: its tag.
pub fn version_of(image: &str) -> String {
    ImageName::parse(image).map_or_else(|_| image.to_owned(), |name| name.version().to_owned())
}

/// A duration as Compose writes it: `1m30s`, `10s`, `500ms`.
fn compose_duration(text: &str) -> Option<Span> {
    let mut total = std::time::Duration::ZERO;
    let mut number = String::new();
    let mut unit = String::new();
    let mut parts: Vec<(String, String)> = Vec::new();
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            if !unit.is_empty() {
                parts.push((std::mem::take(&mut number), std::mem::take(&mut unit)));
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    parts.push((number, unit));
    for (number, unit) in parts {
        let seconds = match unit.as_str() {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += std::time::Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    }
    Some(Span(total))
}

/// Where the images of MySQL and MariaDB keep their databases.
const MYSQL_DATA: &str = "/var/lib/mysql";

/// Where the stores lie before the first promotion, found in the model.
///
/// Refuses stores that nothing mounts, and writable data that belongs to no store and is not `shared`: it would not come
/// back with a rollback.
pub fn stores(
    home: &Home,
    config: &Config,
    model: &Model,
    postgres_env: &dyn Fn(&ServiceName) -> BTreeMap<String, String>,
) -> Result<BTreeMap<StoreName, StorePlace>, EngineError> {
    let mounts = model.mounts();
    let mut found = BTreeMap::new();
    for (name, store) in &config.stores {
        let place = match store.kind {
            StoreKind::Postgres | StoreKind::Mysql => served(name, store, model, &mounts, postgres_env)?,
            StoreKind::Sqlite | StoreKind::Files => plain(home, name, store, &mounts)?,
        };
        found.insert(name.clone(), place);
    }
    uncovered(home, config, &mounts, &found)?;
    for place in found.values_mut() {
        settle(home, model, place)?;
    }
    Ok(found)
}

fn no_mount(name: &StoreName, what: &str, mounts: &[MountUse]) -> EngineError {
    let known: BTreeSet<String> =
        mounts.iter().filter(|m| !m.read_only).map(|m| describe(&m.source)).collect();
    EngineError::misconfigured(
        CONFIG_FILE,
        format!("stores.{name}: no service mounts {what}"),
        format!("mounted are: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    )
}

/// A mount in words.
pub fn describe(source: &MountSource) -> String {
    match source {
        MountSource::Volume(key) => format!("the volume {key}"),
        MountSource::Bind(path) => path.clone(),
        MountSource::Anonymous { service, target } => {
            format!("{target} of {service} (a volume without a name)")
        }
    }
}

fn plain(
    home: &Home,
    name: &StoreName,
    store: &Store,
    mounts: &[MountUse],
) -> Result<StorePlace, EngineError> {
    let (source, path) = if let Some(key) = &store.volume {
        (MountSource::Volume(key.clone()), store.path.clone())
    } else if let (Some(service), Some(target)) = (&store.service, &store.target) {
        let mounted = mounts.iter().find(|m| m.service == *service && m.target == *target);
        let source = mounted.map_or_else(
            || MountSource::Anonymous { service: service.clone(), target: target.clone() },
            |m| m.source.clone(),
        );
        (source, store.path.clone())
    } else {
        let wanted = absolute(home, &store.path);
        // The store may be a file or folder below what is mounted.
        let holds = mounts.iter().filter_map(|m| match &m.source {
            MountSource::Bind(path) => {
                let below = wanted.strip_prefix(path).ok()?.to_string_lossy().into_owned();
                Some((m.source.clone(), below))
            }
            _ => None,
        });
        // Of mounts inside each other, the nearest one.
        let mounted = holds.min_by_key(|(_, below)| below.len());
        mounted.ok_or_else(|| no_mount(name, &wanted.to_string_lossy(), mounts))?
    };
    let anonymous = matches!(source, MountSource::Anonymous { .. });
    if !anonymous && !mounts.iter().any(|m| m.source == source) {
        return Err(no_mount(name, &describe(&source), mounts));
    }
    Ok(StorePlace { kind: store.kind, path, mount: Some(unsettled(source)), server: None })
}

fn unsettled(source: MountSource) -> Mount {
    Mount { source, at: MountPlace::Volume(String::new()), beside: None }
}

/// The databases of a server: where it keeps them, and as whom it is asked.
fn served(
    name: &StoreName,
    store: &Store,
    model: &Model,
    mounts: &[MountUse],
    env_of: &dyn Fn(&ServiceName) -> BTreeMap<String, String>,
) -> Result<StorePlace, EngineError> {
    let wanted = store.service.as_ref().map_or("", |s| s.as_str());
    let Some(service) = store.service.as_ref().and_then(|s| model.service(s)) else {
        let known: Vec<&str> = model.services().map(|s| s.name().as_str()).collect();
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!("stores.{name}: the Compose file has no service {wanted:?}"),
            match suggest(wanted, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("name the one that runs the server: {}", known.join(", ")),
            },
        ));
    };
    let mut env = env_of(service.name());
    env.extend(service.environment());
    let postgres = store.kind == StoreKind::Postgres;
    let data = if postgres {
        env.get("PGDATA").cloned().unwrap_or_else(|| "/var/lib/postgresql/data".to_owned())
    } else {
        MYSQL_DATA.to_owned()
    };
    // The mount that holds PGDATA; images of version 18 keep it below /var/lib/postgresql.
    let own = mounts.iter().filter(|m| m.service == *service.name());
    let inside = |m: &&MountUse| {
        Path::new(&data).starts_with(&m.target)
            || postgres && Path::new(&m.target).starts_with("/var/lib/postgresql")
    };
    let mounted = own.filter(inside).max_by_key(|m| m.target.len());
    let (source, target) = match mounted {
        Some(m) => (m.source.clone(), m.target.clone()),
        None => {
            (MountSource::Anonymous { service: service.name().clone(), target: data.clone() }, data.clone())
        }
    };
    let path = Path::new(&data)
        .strip_prefix(&target)
        .map_or_else(|_| String::new(), |p| p.to_string_lossy().into_owned());
    let user = store.user.clone().or_else(|| env.get("POSTGRES_USER").filter(|_| postgres).cloned());
    Ok(StorePlace {
        kind: store.kind,
        path,
        mount: Some(unsettled(source)),
        server: Some(Server {
            service: service.name().clone(),
            user: user.unwrap_or_else(|| if postgres { "postgres" } else { "root" }.to_owned()),
            password_env: store.password_env.clone(),
            databases: store.databases.clone(),
            target,
        }),
    })
}

/// Refuses writable data that belongs to no store.
fn uncovered(
    home: &Home,
    config: &Config,
    mounts: &[MountUse],
    stores: &BTreeMap<StoreName, StorePlace>,
) -> Result<(), EngineError> {
    let shared: Vec<&str> = config.compose.iter().flat_map(|c| &c.shared).map(String::as_str).collect();
    for mount in
        mounts.iter().filter(|m| !m.read_only && matches!(m.kind, MountKind::Volume | MountKind::Bind))
    {
        let covered = stores.values().any(|p| p.mount.as_ref().is_some_and(|m| m.source == mount.source));
        let named = match &mount.source {
            MountSource::Volume(key) => shared.contains(&key.as_str()),
            MountSource::Bind(path) => {
                is_special(path) || shared.iter().any(|s| absolute(home, s) == Path::new(path))
            }
            MountSource::Anonymous { .. } => false,
        };
        if covered || named {
            continue;
        }
        let (store, share) = match &mount.source {
            MountSource::Volume(key) => (format!("{{ kind: files, volume: {key} }}"), key.clone()),
            MountSource::Bind(path) => (format!("{{ kind: files, path: {path} }}"), path.clone()),
            MountSource::Anonymous { service, target } => {
                (format!("{{ kind: files, service: {service}, target: {target} }}"), target.clone())
            }
        };
        return Err(EngineError::misconfigured(
            CONFIG_FILE,
            format!(
                "{} writes to {}, which is no store: it would not come back with a rollback",
                mount.service,
                describe(&mount.source)
            ),
            format!(
                "add a store, `NAME: {store}`; or, if every generation may use the same one, `compose: {{ shared: [{share}] }}`"
            ),
        ));
    }
    Ok(())
}

/// Host paths that are no data: sockets of the engine and the kernel's file systems.
fn is_special(path: &str) -> bool {
    path.ends_with(".sock")
        || ["/proc", "/sys", "/dev", "/run", "/var/run"].iter().any(|p| Path::new(path).starts_with(p))
}

/// Finds where a mount's data lies now, and where clones go that can share its blocks.
fn settle(home: &Home, model: &Model, place: &mut StorePlace) -> Result<(), EngineError> {
    let Some(mount) = &mut place.mount else { return Ok(()) };
    match &mount.source {
        MountSource::Volume(key) => {
            let Some(volume) = model.volume(key) else {
                return Err(EngineError::misconfigured(
                    CONFIG_FILE,
                    format!("the Compose file has no volume {key:?}"),
                    "check `volume` in switchback.yaml",
                ));
            };
            mount.beside = bind_device(&volume.driver_opts).and_then(|d| beside(home, Path::new(&d)));
            mount.at = MountPlace::Volume(volume.name);
        }
        MountSource::Bind(path) => {
            mount.beside = beside(home, Path::new(path));
            mount.at = MountPlace::Dir(path.clone());
        }
        // What it is called is known to the engine only; `adopt` asks.
        MountSource::Anonymous { .. } => {}
    }
    Ok(())
}

/// The host folder of a `local` volume that binds one.
fn bind_device(options: &BTreeMap<String, String>) -> Option<String> {
    let bound = options.get("o")?.split(',').any(|o| o == "bind" || o == "rbind");
    bound.then(|| options.get("device").cloned()).flatten()
}

/// The folder for clones of a host path: on its file system, out of sight.
fn beside(home: &Home, path: &Path) -> Option<String> {
    let id = home.id().ok()?;
    let parent = path.parent()?;
    Some(parent.join(format!(".switchback-{id}")).to_string_lossy().into_owned())
}

/// A path of the configuration on the host, without `.` and `..`.
pub fn absolute(home: &Home, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in home.root().join(path).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}
