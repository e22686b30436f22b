//! Rules that the shape of the file cannot express.

use super::located::has_key;
use super::{Config, ConfigError, Rollback, RuntimeKind, Service, line_of, suggest, template};
use crate::anonymise;
use crate::data::StoreKind;
use crate::ids::ServiceName;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Checker<'a> {
    text: &'a str,
    file: &'a str,
}

impl Checker<'_> {
    pub(super) fn error(&self, path: &str, message: impl Into<String>, hint: Option<String>) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: line_of(self.text, path).unwrap_or(0),
            message: message.into(),
            hint,
        }
    }
}

pub(super) fn check(config: &Config, text: &str, file: &str) -> Result<(), ConfigError> {
    let checker = Checker { text, file };
    match config.runtime {
        RuntimeKind::Process => check_process(config, &checker)?,
        RuntimeKind::Compose => super::check_compose::check(config, &checker)?,
    }
    super::egress::check(config, &checker)?;
    super::comparing::check(config, &checker)?;
    super::backup::check(config, &checker)?;
    super::paths::check(config, &checker)?;
    super::hooks::check(config, &checker)?;
    super::capture::check(config, &checker)?;
    for (index, invariant) in config.checks.invariants.iter().enumerate() {
        if !config.stores.contains_key(&invariant.store) {
            let hint =
                suggest(invariant.store.as_str(), config.stores.keys().map(crate::ids::StoreName::as_str));
            return Err(checker.error(
                &format!("checks.invariants[{index}].store"),
                format!("checks.invariants[{index}]: there is no store {:?}", invariant.store.as_str()),
                hint.map(|h| format!("did you mean {h:?}?")),
            ));
        }
    }
    for (index, allowed) in config.checks.expected_changes.iter().enumerate() {
        let store = allowed.split('.').next().unwrap_or("");
        if !allowed.contains('.') || !config.stores.contains_key(store) {
            return Err(checker.error(
                &format!("checks.expected_changes[{index}]"),
                format!("{allowed:?} does not name a table of a store"),
                Some("write store.table, or store.* for all of a store".into()),
            ));
        }
    }
    if config.after.contains(&config.stack) {
        return Err(checker.error("after", "after: a stack cannot come after itself", None));
    }
    if config.runtime == RuntimeKind::Process && !config.promotion.follow.is_empty() {
        return Err(checker.error(
            "promotion.follow",
            "promotion.follow: only images have a registry that could be asked",
            Some("with `runtime: process` a bot or a person changes `version`".into()),
        ));
    }
    check_left_out(config, &checker)?;
    check_masks(config, &checker)?;
    check_limits(config, &checker)?;
    check_drills(config, &checker)?;
    if config.rollback.failures == 0 {
        return Err(checker.error("rollback.failures", "rollback.failures must be at least 1", None));
    }
    super::triggers::check(config, &checker)?;
    Ok(())
}

fn check_drills(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let Rollback { drill, drill_production, .. } = &config.rollback;
    for (key, every) in [("rollback.drill", drill), ("rollback.drill_production", drill_production)] {
        if every.is_some_and(|every| every < crate::duration::Span::secs(60)) {
            return Err(checker.error(
                key,
                format!("{key} is shorter than a minute"),
                Some("write for example 30d".into()),
            ));
        }
    }
    if drill_production.is_some() && config.promotion.windows.is_empty() {
        return Err(checker.error(
            "rollback.drill_production",
            "rollback.drill_production needs promotion.windows: production is away while it runs",
            Some("write for example `promotion: { windows: [\"sun 03:00-05:00\"] }`".into()),
        ));
    }
    Ok(())
}

fn check_limits(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let limits = &config.staging.limits;
    let refuse = |key: &str, why: &str, hint: &str| {
        Err(checker.error(
            &format!("staging.limits.{key}"),
            format!("staging.limits.{key} {why}"),
            Some(hint.into()),
        ))
    };
    if config.runtime == RuntimeKind::Process && !limits.is_none() {
        let hint = "local processes of a copy share the machine with production";
        return Err(checker.error(
            "staging.limits",
            "staging.limits works with `runtime: compose` only",
            Some(hint.into()),
        ));
    }
    if limits.memory_mib.is_some_and(|m| m < 6) {
        return refuse("memory_mib", "must be at least 6", "the engine accepts no less");
    }
    if limits.cpus.is_some_and(|c| !(0.01..=1024.0).contains(&c)) {
        return refuse("cpus", "must be between 0.01 and 1024", "0.5 is half a processor");
    }
    Ok(())
}

fn check_masks(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let at = |rule: &str, why: String, hint: Option<String>| {
        Err(checker.error(
            &format!("staging.anonymise.{rule}"),
            format!("staging.anonymise: {rule}: {why}"),
            hint,
        ))
    };
    let rules = match anonymise::rules(&config.staging.anonymise) {
        Ok(rules) => rules,
        Err((rule, why)) => return at(&rule, why, Some("for example  db.users.email: email".into())),
    };
    for rule in &rules {
        match config.stores.get(&rule.store) {
            None => {
                let hint =
                    suggest(rule.store.as_str(), config.stores.keys().map(crate::ids::StoreName::as_str));
                let why = format!("there is no store {:?}", rule.store.as_str());
                return at(&rule.text, why, hint.map(|h| format!("did you mean {h:?}?")));
            }
            Some(store) if store.kind == StoreKind::Files => {
                let why = format!("the store {} holds files, not columns", rule.store);
                return at(&rule.text, why, Some("files are copied as they are".into()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_process(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    if config.services.is_empty() {
        return Err(checker.error(
            "services",
            "no service is configured",
            Some("add one under `services:`".into()),
        ));
    }
    if config.compose.is_some() {
        return Err(checker.error(
            "compose",
            "`compose` belongs to `runtime: compose`, and the runtime is `process`",
            Some("write `runtime: compose`, or remove `compose`".into()),
        ));
    }
    let mut used_ports: BTreeMap<u16, String> = BTreeMap::new();
    for (name, service) in &config.services {
        check_service(config, name, service, checker)?;
        for (port_name, port) in &service.ports {
            let path = format!("services.{name}.ports.{port_name}");
            if *port == 0 {
                return Err(checker.error(&path, format!("{path}: port 0 is not a fixed port"), None));
            }
            if let Some(other) = used_ports.insert(*port, path.clone()) {
                let line = line_of(checker.text, &other).unwrap_or(0);
                return Err(checker.error(
                    &path,
                    format!("{path}: port {port} is already used by {other} (line {line})"),
                    Some("give each service its own port".into()),
                ));
            }
        }
    }
    check_cycles(config, checker)?;
    check_stores(config, checker)?;
    check_used(config, checker)?;
    Ok(())
}

fn check_service(
    config: &Config,
    name: &ServiceName,
    service: &Service,
    checker: &Checker<'_>,
) -> Result<(), ConfigError> {
    let at = |key: &str| format!("services.{name}.{key}");
    for key in ["version", "command", "health"] {
        if !has_key(checker.text, &at(key)) {
            return Err(checker.error(
                &format!("services.{name}"),
                format!("the key {key:?} is missing in services.{name}"),
                Some(format!("add `{key}:`")),
            ));
        }
    }
    if service.command.is_empty() {
        return Err(checker.error(&at("command"), format!("{}: the command is empty", at("command")), None));
    }
    if service.version.is_empty() || service.version.contains('/') || service.version.contains("..") {
        return Err(checker.error(
            &at("version"),
            format!("{}: {:?} is not a version", at("version"), service.version),
            Some("a version may not be empty or contain '/' or '..'".into()),
        ));
    }
    if health_kinds(service) != 1 {
        return Err(checker.error(
            &at("health"),
            format!("{}: exactly one of http, tcp and command must be given", at("health")),
            Some("for example  health: { http: /health }".into()),
        ));
    }
    check_health(name, service, checker)?;
    for needed in &service.needs {
        if !config.services.contains_key(needed) {
            let hint = suggest(needed.as_str(), config.services.keys().map(ServiceName::as_str));
            return Err(checker.error(
                &at("needs"),
                format!("{}: there is no service {:?}", at("needs"), needed.as_str()),
                hint.map(|h| format!("did you mean {h:?}?")),
            ));
        }
    }
    for path in service.config.iter().chain(&service.env_file) {
        if !stays_inside(path) {
            return Err(checker.error(
                &at("config"),
                format!("{}: {path:?} leaves the stack's folder", at("config")),
                Some("only files below the stack's folder can belong to a generation".into()),
            ));
        }
    }
    check_templates(config, name, service, checker)
}

/// How many kinds of health check are given.
pub(super) fn health_kinds(service: &Service) -> usize {
    let health = &service.health;
    let kinds = [health.http.is_some(), health.tcp.is_some(), health.command.is_some()];
    kinds.iter().filter(|k| **k).count()
}

/// Confirms that the health check's path and ports make sense.
pub(super) fn check_health(
    name: &ServiceName,
    service: &Service,
    checker: &Checker<'_>,
) -> Result<(), ConfigError> {
    let at = |key: &str| format!("services.{name}.{key}");
    let health = &service.health;
    if let Some(path) = &health.http
        && !path.starts_with('/')
    {
        return Err(checker.error(
            &at("health.http"),
            format!("{}: {path:?} must start with /", at("health.http")),
            None,
        ));
    }
    for (key, port) in [("port", &health.port), ("tcp", &health.tcp)] {
        if let Some(port) = port
            && !service.ports.contains_key(port)
        {
            let hint = suggest(port, service.ports.keys().map(String::as_str));
            return Err(checker.error(
                &at(&format!("health.{key}")),
                format!("{}: the service has no port {port:?}", at(&format!("health.{key}"))),
                hint.map(|h| format!("did you mean {h:?}?")),
            ));
        }
    }
    if health.http.is_some() && service.ports.is_empty() {
        return Err(checker.error(
            &at("health.http"),
            format!("{}: the service has no port to ask", at("health.http")),
            Some("add `ports: { http: 8000 }`".into()),
        ));
    }
    if health.http.is_some()
        && health.port.is_none()
        && service.ports.len() > 1
        && !service.ports.contains_key("http")
    {
        return Err(checker.error(
            &at("health"),
            format!(
                "{}: which of the ports ({}) answers {}?",
                at("health"),
                service.ports.keys().cloned().collect::<Vec<_>>().join(", "),
                health.http.as_deref().unwrap_or("")
            ),
            Some("add `port: NAME`".into()),
        ));
    }
    Ok(())
}

/// The texts of a service that may hold placeholders, with the key they stand under.
fn texts(service: &Service) -> impl Iterator<Item = (&'static str, &String)> {
    let command = service.command.iter().map(|t| ("command", t));
    let migrate = service.migrate.iter().map(|t| ("migrate", t));
    let health = service.health.command.iter().flatten().map(|t| ("health.command", t));
    command.chain(migrate).chain(health).chain(service.env.values().map(|t| ("env", t)))
}

/// Every store and port must be told to a service: one that finds its data or port by itself would, in staging
/// and in a new generation, work on production's.
fn check_used(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (name, service) in &config.services {
        for (_, text) in texts(service) {
            let _ = template::expand(text, |p| {
                used.insert(match p {
                    template::Placeholder::Port(port) => format!("port.{name}.{port}"),
                    other => other.to_string(),
                });
                Some(String::new())
            });
        }
    }
    for name in config.stores.keys() {
        if !used.contains(&format!("store.{name}")) {
            let at = format!("stores.{name}");
            return Err(checker.error(
                &at,
                format!("{at}: no service is told where this store lies"),
                Some(format!(
                    "use {{store.{name}}} in a command or in env; otherwise a clone would go unused and every version would work on the same data"
                )),
            ));
        }
    }
    for (name, service) in &config.services {
        let unused = service.ports.keys().find(|p| !used.contains(&format!("port.{name}.{p}")));
        if let Some(port) = unused {
            let at = format!("services.{name}.ports.{port}");
            return Err(checker.error(
                &at,
                format!("{at}: the service is not told to use this port"),
                Some(format!("use {{port.{port}}} in its command or env: staging gives it another number")),
            ));
        }
    }
    Ok(())
}

fn check_templates(
    config: &Config,
    name: &ServiceName,
    service: &Service,
    checker: &Checker<'_>,
) -> Result<(), ConfigError> {
    use template::Placeholder as P;
    let has_release = service.release.is_some();
    let fill = |p: &P<'_>| {
        let known = match p {
            P::Version | P::Stack | P::Env(_) => true,
            P::Release => has_release,
            P::Store(store) => config.stores.contains_key(*store),
            P::Port(port) => service.ports.contains_key(*port),
            P::PortOf(other, port) => {
                config.services.get(*other).is_some_and(|s| s.ports.contains_key(*port))
            }
        };
        known.then(String::new)
    };
    for (key, text) in texts(service) {
        if let Err(e) = template::expand(text, fill) {
            let path = format!("services.{name}.{key}");
            let hint = match &e {
                template::TemplateError::Unknown { name, .. } if name == "release" => "add `release: path/{version}` to the service".to_owned(),
                _ => "known: {release} {version} {stack} {store.NAME} {port.NAME} {port.SERVICE.NAME} {env.NAME}".to_owned(),
            };
            return Err(checker.error(&path, format!("{path}: {e}"), Some(hint)));
        }
    }
    if let Some(release) = &service.release {
        let only_version = template::expand(release, |p| matches!(p, P::Version).then(String::new));
        if let Err(e) = only_version {
            let path = format!("services.{name}.release");
            return Err(checker.error(
                &path,
                format!("{path}: {e}"),
                Some("only {version} can be used here".into()),
            ));
        }
    }
    Ok(())
}

fn check_cycles(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let placed: usize = Config::start_order(&config.services).iter().map(Vec::len).sum();
    if placed < config.services.len() {
        return Err(checker.error(
            "services",
            "services need each other in a circle (`needs`)",
            Some("remove one of the `needs`".into()),
        ));
    }
    Ok(())
}

fn check_stores(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let mut seen: Vec<(String, &str)> = Vec::new();
    for (name, store) in &config.stores {
        let at = format!("stores.{name}.path");
        if store.kind.has_server() || store.volume.is_some() || store.service.is_some() {
            return Err(checker.error(
                &format!("stores.{name}"),
                format!(
                    "stores.{name}: servers of databases, `volume` and `service` need `runtime: compose`"
                ),
                Some("with `runtime: process` a store is `{ kind: sqlite | files, path: PATH }`".into()),
            ));
        }
        let path = std::path::Path::new(&store.path);
        let clean = path.components().collect::<std::path::PathBuf>().to_string_lossy().into_owned();
        if store.path.is_empty()
            || path.components().any(|c| matches!(c, std::path::Component::ParentDir))
            || clean == "/"
            || clean == "."
        {
            return Err(checker.error(
                &at,
                format!("{at}: {:?} cannot be a store", store.path),
                Some("name a file or folder of its own, without `..`".into()),
            ));
        }
        for (other, other_name) in &seen {
            let (a, b) = (std::path::Path::new(&clean), std::path::Path::new(other));
            if a.starts_with(b) || b.starts_with(a) {
                return Err(checker.error(
                    &at,
                    format!("{at}: {:?} overlaps with the store {other_name:?}", store.path),
                    Some("each file must belong to one store only".into()),
                ));
            }
        }
        seen.push((clean, name.as_str()));
    }
    Ok(())
}

/// Checks what copies of running stores do not get.
fn check_left_out(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    for (name, store) in config.stores.iter().filter(|(_, s)| !s.leave_out.is_empty()) {
        let at = format!("stores.{name}.leave_out");
        if store.kind != StoreKind::Files {
            return Err(checker.error(
                &at,
                format!("{at}: parts of a database cannot be left out"),
                Some(
                    "a database in a volume with other files is a store of its own, beside the `files`"
                        .into(),
                ),
            ));
        }
        if let Some(path) = store.leave_out.iter().find(|p| !stays_inside(p) || p.as_str() == ".") {
            return Err(checker.error(
                &at,
                format!("{at}: {path:?} is no path below the store"),
                Some(
                    "name files or folders relative to the store, without `..`; patterns are not known"
                        .into(),
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a relative path stays below its root (lexically).
fn stays_inside(path: &str) -> bool {
    use std::path::Component;
    let path = std::path::Path::new(path);
    path.components().next().is_some()
        && path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}
