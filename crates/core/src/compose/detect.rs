//! What a model and its images tell about a stack, for writing a first configuration.

use super::{ImageName, Model, MountKind, Service, below};
use crate::data::StoreKind;
use crate::ids::{ServiceName, StoreName};
use crate::release::{MountSource, Server};
use std::collections::{BTreeMap, BTreeSet};

/// What an image says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// Its `VOLUME`s.
    pub volumes: Vec<String>,
    /// Its `EXPOSE`d TCP ports.
    pub exposed: Vec<u16>,
    /// Whether it has a health check.
    pub has_healthcheck: bool,
}

/// A database that is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Software {
    /// PostgreSQL.
    Postgres,
    /// Redis, Valkey, KeyDB.
    Redis,
    /// Neo4j.
    Neo4j,
    /// MariaDB, MySQL.
    Mysql,
    /// MongoDB.
    Mongo,
}

/// Where a service's health is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSource {
    /// `healthcheck:` of the Compose files.
    Compose,
    /// `HEALTHCHECK` of the image.
    Image,
    /// Nowhere.
    None,
}

/// A service, as detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedService {
    /// Its name.
    pub name: ServiceName,
    /// Its image, as the model names it.
    pub image: Option<String>,
    /// The version: the image's tag.
    pub version: Option<String>,
    /// The database that it is.
    pub software: Option<Software>,
    /// The TCP port of the container that users most likely use.
    pub port: Option<u16>,
    /// Where its health is known from.
    pub health: HealthSource,
}

/// Data, as detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedStore {
    /// A name for it.
    pub name: StoreName,
    /// What kind of data it is, as far as the model tells.
    pub kind: StoreKind,
    /// What holds it.
    pub mount: MountSource,
    /// The path below the mount; empty for all of it.
    pub path: String,
    /// Who mounts it, and may write to it.
    pub services: BTreeSet<ServiceName>,
    /// The database whose files these are.
    pub software: Option<Software>,
    /// How the server is asked; Postgres only.
    pub server: Option<Server>,
    /// Whether a copy is only sound while its services are stopped.
    pub stop_to_copy: bool,
}

/// What a [`Warning`] says of a service without a health check in Compose file and image.
pub const NO_HEALTH_CHECK: &str = "it has no health check";

/// Something worth knowing before the first upgrade.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The service, if it is about one.
    pub service: Option<ServiceName>,
    /// What was seen.
    pub what: String,
    /// What follows, or what to do.
    pub why: String,
}

/// What was detected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detected {
    /// The services, by the order of the model.
    pub services: Vec<DetectedService>,
    /// The data.
    pub stores: Vec<DetectedStore>,
    /// What to know.
    pub warnings: Vec<Warning>,
}

/// Reads a model and its images; services whose image is unknown are judged by its name.
pub fn detect(model: &Model, images: &BTreeMap<ServiceName, ImageFacts>, stack_dir: &str) -> Detected {
    let mut found = Detected::default();
    let nothing = ImageFacts::default();
    for service in model.services() {
        let facts = images.get(service.name()).unwrap_or(&nothing);
        found.services.push(describe(service, facts));
        found.warnings.extend(warnings(model, service, facts));
    }
    found.stores = stores(model, images, stack_dir);
    found.warnings.sort();
    found.warnings.dedup();
    found
}

fn describe(service: Service<'_>, facts: &ImageFacts) -> DetectedService {
    let name = service.image().and_then(|i| ImageName::parse(i).ok());
    let published = service.ports();
    let port = published.iter().find(|p| p.protocol == "tcp").map(|p| p.container);
    DetectedService {
        name: service.name().clone(),
        image: service.image().map(str::to_owned),
        version: name.as_ref().map(|n| n.version().to_owned()),
        software: software(service, facts),
        port: port.or_else(|| facts.exposed.iter().min().copied()),
        health: match service.healthcheck() {
            Some(check) if check.disabled => HealthSource::None,
            Some(check) if !check.test.is_empty() => HealthSource::Compose,
            _ if facts.has_healthcheck => HealthSource::Image,
            _ => HealthSource::None,
        },
    }
}

/// The database that a service runs, by its image's name or variables.
fn software(service: Service<'_>, facts: &ImageFacts) -> Option<Software> {
    // Only servers' images have these; clients get POSTGRES_PASSWORD too.
    if facts.env.contains_key("PGDATA") || facts.env.contains_key("PG_MAJOR") {
        return Some(Software::Postgres);
    }
    let image = ImageName::parse(service.image()?).ok()?;
    let base = image.base().to_ascii_lowercase();
    let any = |names: &[&str]| names.iter().any(|n| base == *n);
    let tool =
        ["exporter", "backup", "admin", "client", "operator", "proxy", "commander", "insight", "express"];
    if tool.iter().any(|t| base.contains(t)) {
        return None;
    }
    if any(&[
        "postgres",
        "postgresql",
        "postgis",
        "pgvector",
        "pgvecto-rs",
        "timescaledb",
        "timescaledb-ha",
        "spilo",
    ]) {
        Some(Software::Postgres)
    } else if any(&["redis", "redis-stack", "redis-stack-server", "valkey", "keydb", "dragonfly"]) {
        Some(Software::Redis)
    } else if base == "neo4j" {
        Some(Software::Neo4j)
    } else if any(&["mysql", "mysql-server", "mariadb", "percona", "percona-server"]) {
        Some(Software::Mysql)
    } else if any(&["mongo", "mongodb", "mongodb-community-server"]) {
        Some(Software::Mongo)
    } else {
        None
    }
}

fn stores(model: &Model, images: &BTreeMap<ServiceName, ImageFacts>, stack_dir: &str) -> Vec<DetectedStore> {
    let nothing = ImageFacts::default();
    let mut stores: BTreeMap<MountSource, DetectedStore> = BTreeMap::new();
    for service in model.services() {
        let facts = images.get(service.name()).unwrap_or(&nothing);
        let mounts = service.mounts();
        let data = mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume | MountKind::Bind));
        let data = data.filter(|m| !m.read_only && !is_hosts(&m.source));
        let mut targets: Vec<(MountSource, String)> =
            data.map(|m| (m.source.clone(), m.target.clone())).collect();
        for target in &facts.volumes {
            let covered =
                mounts.iter().any(|m| m.target.trim_end_matches('/') == target.trim_end_matches('/'));
            if !covered {
                let source =
                    MountSource::Anonymous { service: service.name().clone(), target: target.clone() };
                targets.push((source, target.clone()));
            }
        }
        let software = software(service, facts);
        let (kind, keeps) = match software {
            Some(Software::Postgres) => (StoreKind::Postgres, Some(pgdata(service, facts))),
            Some(Software::Mysql) => (StoreKind::Mysql, Some("/var/lib/mysql".to_owned())),
            _ => (StoreKind::Files, None),
        };
        // The mount that holds the database: the deepest one above its folder.
        let holds = |target: &str| keeps.as_deref().and_then(|p| below(p, target));
        let database =
            targets.iter().filter(|(_, t)| holds(t).is_some()).max_by_key(|(_, t)| t.len()).cloned();
        for (source, target) in targets {
            let server =
                database.as_ref().filter(|(s, _)| *s == source).map(|_| server(service, kind, &target));
            let path = server.as_ref().and_then(|_| holds(&target)).unwrap_or_default().to_owned();
            let store = stores.entry(source.clone()).or_insert_with(|| DetectedStore {
                name: store_name(&source, &target, stack_dir),
                kind: StoreKind::Files,
                mount: source.clone(),
                path: String::new(),
                services: BTreeSet::new(),
                software: None,
                server: None,
                stop_to_copy: false,
            });
            store.services.insert(service.name().clone());
            if let Some(server) = server {
                store.kind = kind;
                store.path = path;
                store.server = Some(server);
                store.software = software;
            } else if let Some(other) = software.filter(|s| *s != Software::Postgres) {
                store.software = Some(other);
                store.stop_to_copy = true;
            }
        }
    }
    unique(stores.into_values().collect())
}

/// Where the server keeps its databases.
fn pgdata(service: Service<'_>, facts: &ImageFacts) -> String {
    let own = service.environment().remove("PGDATA").or_else(|| facts.env.get("PGDATA").cloned());
    own.filter(|p| p.starts_with('/')).unwrap_or_else(|| "/var/lib/postgresql/data".to_owned())
}

fn server(service: Service<'_>, kind: StoreKind, target: &str) -> Server {
    let user = service.environment().remove("POSTGRES_USER");
    let user = user.filter(|u| kind == StoreKind::Postgres && !u.is_empty());
    let default = if kind == StoreKind::Postgres { "postgres" } else { "root" };
    Server {
        service: service.name().clone(),
        user: user.unwrap_or_else(|| default.to_owned()),
        // The images trust their own socket.
        password_env: None,
        databases: Vec::new(),
        target: target.to_owned(),
    }
}

fn store_name(source: &MountSource, target: &str, stack_dir: &str) -> StoreName {
    let text = match source {
        MountSource::Volume(key) => key.clone(),
        MountSource::Bind(path) => {
            match below(path, stack_dir).filter(|rest| !stack_dir.is_empty() && !rest.is_empty()) {
                Some(rest) => rest.to_owned(),
                None => path.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data").to_owned(),
            }
        }
        MountSource::Anonymous { service, .. } => {
            format!("{service}-{}", target.rsplit('/').find(|p| !p.is_empty()).unwrap_or("data"))
        }
    };
    name(&text)
}

/// The text made into an allowed name.
fn name(text: &str) -> StoreName {
    let text: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let text: String = text.trim_matches(['-', '_']).chars().take(60).collect();
    let fallback = || StoreName::new("data").unwrap_or_else(|_| unreachable!("is an allowed name"));
    StoreName::new(text).unwrap_or_else(|_| fallback())
}

/// Names made unique with a number.
fn unique(mut stores: Vec<DetectedStore>) -> Vec<DetectedStore> {
    let mut used = BTreeSet::new();
    for store in &mut stores {
        let base = store.name.clone();
        let mut number = 2;
        while !used.insert(store.name.clone()) {
            store.name = name(&format!("{}-{number}", base.as_str().get(..56).unwrap_or(base.as_str())));
            number += 1;
        }
    }
    stores
}

/// Whether it belongs to the host: sockets, devices, the whole file system.
fn is_hosts(source: &MountSource) -> bool {
    let MountSource::Bind(path) = source else { return false };
    let system = ["/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/boot", "/usr", "/var/lib/docker"];
    path.trim_matches('/').is_empty()
        || path.ends_with(".sock")
        || system.iter().any(|s| below(path, s).is_some())
}

fn warnings(model: &Model, service: Service<'_>, facts: &ImageFacts) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |what: String, why: &str| {
        found.push(Warning { service: Some(service.name().clone()), what, why: why.to_owned() });
    };
    let moves = ["latest", "stable", "edge", "main", "master", "nightly", "dev"];
    if let Some(image) = service.image().and_then(|i| ImageName::parse(i).ok())
        && image.digest.is_none()
        && moves.contains(&image.tag())
    {
        warn(
            format!("its image {image} has no fixed version"),
            "name the version that runs: otherwise nobody can say what an upgrade changes",
        );
    }
    if service.has_build() {
        warn(
            "its image is built from source".to_owned(),
            "give each version a tag of its own: under one tag, nobody can tell what an upgrade changes",
        );
    }
    if describe(service, facts).health == HealthSource::None {
        warn(NO_HEALTH_CHECK.to_owned(), "add one: without it, ready means only that the container runs");
    }
    if service.network_mode() == Some("host") {
        warn(
            "it uses the host's network".to_owned(),
            "its staging copy gets a network of its own, and reaches others by their service names only",
        );
    }
    if service.privileged() {
        warn("it is privileged".to_owned(), "its staging copy is not");
    }
    for mount in service.mounts() {
        match &mount.source {
            MountSource::Bind(path) if path.ends_with(".sock") => {
                warn(format!("it mounts {path}"), "its staging copy does not get it");
            }
            MountSource::Volume(key) if model.volume(key).is_some_and(|v| v.external) => {
                warn(
                    format!("the volume {key} is external"),
                    "another stack may use it too; after an upgrade this one uses a clone",
                );
            }
            MountSource::Volume(_) | MountSource::Bind(_) | MountSource::Anonymous { .. } => {}
        }
    }
    found
}
