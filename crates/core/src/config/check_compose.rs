//! Rules for `runtime: compose`. What needs the Compose files (does the volume exist?) is asked later.

use super::check::{Checker, check_health, health_kinds};
use super::{Config, ConfigError, Service, Store};
use crate::data::StoreKind;
use crate::ids::ServiceName;

/// Checks what can be checked without the Compose files.
pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    for (name, service) in &config.services {
        check_service(name, service, checker)?;
    }
    for (name, store) in &config.stores {
        check_store(&format!("stores.{name}"), store, checker)?;
    }
    let files = config.compose.iter().flat_map(|c| &c.files);
    if let Some(empty) = files.into_iter().find(|f| f.is_empty() || f.contains(':')) {
        return Err(checker.error(
            "compose.files",
            format!("compose.files: {empty:?} cannot be a Compose file"),
            Some("name files relative to the stack; a colon separates files in COMPOSE_FILE".into()),
        ));
    }
    Ok(())
}

fn check_service(name: &ServiceName, service: &Service, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let default = Service::default();
    let set = [
        ("version", service.version != default.version),
        ("release", service.release.is_some()),
        ("command", !service.command.is_empty()),
        ("env", !service.env.is_empty()),
        ("env_file", service.env_file.is_some()),
        ("config", !service.config.is_empty()),
        ("stop", service.stop != default.stop),
        ("needs", !service.needs.is_empty()),
        ("restart", service.restart != default.restart),
    ];
    if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
        let at = format!("services.{name}.{key}");
        return Err(checker.error(
            &at,
            format!("{at}: with `runtime: compose` this comes from the Compose file"),
            Some("here can stand: migrate, migrate_deadline, ports, health".into()),
        ));
    }
    if health_kinds(service) > 1 {
        let at = format!("services.{name}.health");
        return Err(checker.error(
            &at,
            format!("{at}: at most one of http, tcp and command can be given"),
            Some("without any, the container's own health check is used".into()),
        ));
    }
    if let Some((port, _)) = service.ports.iter().find(|(_, number)| **number == 0) {
        let at = format!("services.{name}.ports.{port}");
        return Err(checker.error(&at, format!("{at}: port 0 is not a port of the container"), None));
    }
    check_health(name, service, checker)
}

fn check_store(at: &str, store: &Store, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let refuse =
        |message: &str, hint: &str| Err(checker.error(at, format!("{at}: {message}"), Some(hint.into())));
    if store.kind.has_server() {
        if store.service.is_none() {
            return refuse("which service runs the server?", "add `service: NAME`");
        }
    } else {
        if store.user.is_some() || store.password_env.is_some() || !store.databases.is_empty() {
            return refuse(
                "user, password_env and databases belong to the servers of databases",
                "remove them",
            );
        }
        if store.service.is_some() != store.target.is_some() {
            return refuse(
                "`service` and `target` belong together",
                "for a volume without a name: `{ kind: files, service: NAME, target: /path/in/container }`",
            );
        }
        let ways = [store.volume.is_some(), store.target.is_some()];
        match ways.iter().filter(|w| **w).count() {
            0 if store.path.is_empty() => {
                return refuse(
                    "where does it lie?",
                    "add `volume: KEY`, `path: ./folder` (a bind mount), or `service:` and `target:`",
                );
            }
            2 => return refuse("`volume` and `target` exclude each other", "keep `volume`"),
            _ => {}
        }
    }
    if store.major.is_some() && store.kind != StoreKind::Postgres {
        return refuse(
            "`major` belongs to Postgres",
            "remove it: other servers convert their data themselves",
        );
    }
    let below = std::path::Path::new(&store.path);
    let has_mount = store.volume.is_some() || store.target.is_some();
    if has_mount && (below.is_absolute() || leaves(below)) {
        return refuse("`path` must lie below the mount", "write it relative to the volume, without `..`");
    }
    if store.kind == StoreKind::Sqlite && has_mount && store.path.is_empty() {
        return refuse("which file of the volume?", "add `path: name-of-the-database.sqlite`");
    }
    Ok(())
}

fn leaves(path: &std::path::Path) -> bool {
    path.components().any(|c| matches!(c, std::path::Component::ParentDir))
}
