//! One service of the configuration: program, release, environment, ports.

use super::Findings;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use switchback_core::config::template::{Placeholder, expand};
use switchback_core::config::{Config, Service};
use switchback_core::ids::{Digest, GenerationId, ServiceName};
use switchback_core::release::{ArtefactRef, FORMAT, Instance, PRODUCTION, Release, ServiceRelease, Shared};
use switchback_core::workflow::is_secret_name;
use switchback_engine::detect::{external_server, host, mentions, secret_value};
use switchback_engine::gather::{configured_stores, installed_versions};
use switchback_engine::home::Home;
use switchback_engine::runtime::process::start::{read_env_file, resolve};
use switchback_engine::runtime::process::{Placement, resolve_program, table};

pub fn look(home: &Home, config: &Config, name: &ServiceName, service: &Service, findings: &mut Findings) {
    release(home, config, name, service, findings);
    programs(home, config, name, service, findings);
    files(home, name, service, findings);
    secrets(name, service, findings);
    shared(home, config, name, service, findings);
    servers(home, config, name, service, findings);
    ports(home, name, service, findings);
    if service.health.stable.0.is_zero() {
        findings.warning(
            "stable",
            format!("services.{name}.health.stable is 0: a service that answers once and then ends counts as healthy"),
            "2s sees most of them",
        );
    }
}

/// Where the release of a service lies, if it has one.
fn release_path(home: &Home, service: &Service) -> Option<String> {
    let template = service.release.as_ref()?;
    let text =
        expand(template, |p| matches!(p, Placeholder::Version).then(|| service.version.clone())).ok()?;
    Some(home.root().join(text).to_string_lossy().into_owned())
}

fn release(home: &Home, config: &Config, name: &ServiceName, service: &Service, findings: &mut Findings) {
    let Some(path) = release_path(home, service) else {
        findings.warning(
            "release",
            format!("{name} has no `release`: what is started is not known by its content, and an upgrade that overwrites it cannot be rolled back"),
            "install versions beside each other and name them with `release: PATH/{version}`",
        );
        return;
    };
    let installed = installed_versions(home, service);
    let list = if installed.is_empty() { "none".to_owned() } else { installed.join(", ") };
    if !Path::new(&path).exists() {
        findings.problem(
            "release",
            format!("{name} {} is not installed: {path} does not exist", service.version),
            format!("install it there, or correct `version`; installed: {list}"),
        );
    } else if service.release.as_deref().is_some_and(|r| !r.contains("{version}")) {
        findings.warning(
            "release",
            format!(
                "services.{name}.release has no {{version}}: an upgrade would overwrite what a rollback needs"
            ),
            "install versions beside each other, and write {version} for the part that differs",
        );
    } else {
        findings.ok("release", format!("{name} {} is installed (all: {list})", service.version));
    }
    let inside =
        configured_stores(home, config).into_iter().find(|(_, p)| p.path.starts_with(&format!("{path}/")));
    if let Some((store, place)) = inside {
        findings.problem(
            "release_data",
            format!("the store {store} lies inside the release of {name}: {}", place.path),
            "move it out: a release must not change while it runs, and an upgrade would leave the data behind",
        );
    }
}

/// Production as the configuration describes it, for filling in placeholders. Nothing of it is stored.
fn pretend(home: &Home, config: &Config) -> (Instance, Release) {
    let services: BTreeMap<ServiceName, ServiceRelease> = config
        .services
        .iter()
        .map(|(name, service)| {
            let artefact =
                release_path(home, service).map(|path| ArtefactRef { path, digest: Digest(String::new()) });
            (name.clone(), ServiceRelease { artefact, image: None, definition: service.clone() })
        })
        .collect();
    let release = Release { format: FORMAT, services, config: BTreeMap::new(), model: None };
    let instance = Instance {
        environment: PRODUCTION.to_owned(),
        generation: GenerationId(1),
        release: Digest(String::new()),
        versions: release.versions(),
        dir: "generations/1".to_owned(),
        stores: configured_stores(home, config),
        ports: config.services.iter().map(|(n, s)| (n.clone(), s.ports.clone())).collect(),
        project: None,
        shared: Shared::default(),
        closed: false,
    };
    (instance, release)
}

fn programs(home: &Home, config: &Config, name: &ServiceName, service: &Service, findings: &mut Findings) {
    let (instance, release) = pretend(home, config);
    let placement = Placement { home, config, instance: &instance, release: &release };
    let fill = |words: &[String]| resolve(&placement, name, service, words);
    let template = service.env.get("PATH").cloned();
    let path = match template {
        Some(template) => fill(&[template]).ok().and_then(|mut w| w.pop()),
        None => {
            let file = service.env_file.as_ref().and_then(|f| read_env_file(&home.root().join(f)).ok());
            file.and_then(|mut f| f.remove("PATH")).or_else(|| std::env::var("PATH").ok())
        }
    };
    let health = service.health.command.clone().unwrap_or_default();
    for (key, words) in
        [("command", &service.command), ("migrate", &service.migrate), ("health.command", &health)]
    {
        let Some(template) = words.first() else { continue };
        let at = format!("services.{name}.{key}");
        match fill(words) {
            Err(e) => findings.error("program", &e),
            Ok(argv) => {
                let program = argv.first().map_or("", String::as_str);
                // Relative programs are configuration files, which are copied from the stack's folder.
                if resolve_program(program, path.as_deref(), home.root()).is_some() {
                    findings.ok("program", format!("{at}: the program {template} exists"));
                } else if template.ends_with("TODO") {
                    findings.problem(
                        "program",
                        format!("{at} is still to be written (TODO)"),
                        "name the program and its arguments",
                    );
                } else {
                    findings.problem(
                        "program",
                        format!("{at}: the program {program} does not exist or is not executable"),
                        "give its full path, or put its folder on PATH under `env`",
                    );
                }
            }
        }
    }
    for (key, text) in &service.env {
        if let Err(e) = fill(std::slice::from_ref(text)) {
            findings.problem(
                "env",
                format!("services.{name}.env.{key}: {e}"),
                "set it where you call Switchback",
            );
        }
    }
}

fn files(home: &Home, name: &ServiceName, service: &Service, findings: &mut Findings) {
    for file in service.config.iter().chain(&service.env_file) {
        let path = home.root().join(file);
        if !path.is_file() {
            findings.problem(
                "config_files",
                format!("{name}: the configuration file {file} does not exist"),
                "files named by `config` and `env_file` must lie in the stack's folder",
            );
        }
    }
    let Some(file) = &service.env_file else { return };
    let Ok(found) = fs::metadata(home.root().join(file)) else { return };
    if found.permissions().mode() & 0o077 != 0 {
        findings.warning(
            "secrets",
            format!("{file} can be read by other users"),
            format!("chmod 600 {file}"),
        );
    }
}

fn secrets(name: &ServiceName, service: &Service, findings: &mut Findings) {
    let plain = service.env.iter().filter(|(key, value)| {
        let filled = value.contains("{env.") || value.starts_with('/') || value.starts_with("{store.");
        !filled && !value.is_empty() && (is_secret_name(key) || secret_value(value))
    });
    for (key, _) in plain {
        findings.warning(
            "secrets",
            format!("services.{name}.env.{key} looks like a secret, in plain text"),
            "put it into a file of mode 600 and name that file with `env_file`",
        );
    }
}

/// Paths that production and staging would share, as no placeholder keeps them apart.
fn shared(home: &Home, config: &Config, name: &ServiceName, service: &Service, findings: &mut Findings) {
    let stores = configured_stores(home, config);
    let fill = |text: &String| {
        expand(text, |p| {
            Some(match p {
                // What differs per environment, or belongs to a version, is not looked for on the disk.
                Placeholder::Stack => home.root().to_string_lossy().into_owned(),
                _ => "\u{1}".to_owned(),
            })
        })
        .unwrap_or_default()
    };
    let mut texts: Vec<Vec<String>> =
        vec![service.command.iter().map(fill).collect(), service.migrate.iter().map(fill).collect()];
    // An option and its value, so that folders are recognised as what they are.
    texts.extend(
        service.env.iter().filter(|(k, _)| *k != "PATH").map(|(k, v)| vec![format!("--{k}={}", fill(v))]),
    );
    let mut seen = std::collections::BTreeSet::new();
    let nowhere = Path::new("/nonexistent");
    for mention in texts.iter().flat_map(|words| mentions(words, nowhere)) {
        let path = &mention.path;
        if !seen.insert(path.clone()) {
            continue;
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let store = stores.iter().find(|(_, place)| {
            let place = Path::new(&place.path);
            let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
            real.starts_with(&place) || (real.is_dir() && place.starts_with(&real) && real != home.root())
        });
        if let Some((store, _)) = store {
            findings.problem(
                "shared_path",
                format!(
                    "{name} is told {} literally: staging would run on production's data",
                    path.display()
                ),
                format!("write {{store.{store}}} instead"),
            );
            continue;
        }
        let system = ["/usr", "/bin", "/sbin", "/lib", "/etc", "/dev", "/proc", "/sys"];
        let writable = host::writable(path).is_ok();
        let code = ["py", "js", "mjs", "ts", "rb", "jar", "php", "pl", "sh"];
        let program = path.is_file()
            && (fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o111 != 0)
                || path.extension().is_some_and(|e| code.iter().any(|c| e == *c)));
        if writable && !program && !system.iter().any(|s| path.starts_with(s)) {
            findings.warning(
                "shared_path",
                format!("{name} is told {}, which production and staging would share", path.display()),
                "make it a store if the service writes there; harmless if it only reads",
            );
        }
    }
}

/// Data on a server is not cloned: without a variable of its own, staging would use production's.
fn servers(home: &Home, config: &Config, name: &ServiceName, service: &Service, findings: &mut Findings) {
    let file = service.env_file.as_ref().and_then(|f| read_env_file(&home.root().join(f)).ok());
    for (key, value) in file.iter().flatten().chain(&service.env) {
        let Some(server) = external_server(value) else { continue };
        if !config.staging.env.contains_key(key) {
            findings.problem(
                "external_server",
                format!("{key} of {name} names a {server} server, which is not cloned: staging would talk to production's"),
                format!("give staging another one: `staging: {{ env: {{ {key}: ... }} }}`"),
            );
        }
    }
}

fn ports(home: &Home, name: &ServiceName, service: &Service, findings: &mut Findings) {
    let floor = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let floor: u16 = floor.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(1024);
    let all = table::read_all();
    let id = home.id().unwrap_or_default();
    let own = table::members(&all, |m| m.starts_with(&format!("{id}:")));
    for (port_name, port) in &service.ports {
        let at = format!("services.{name}.ports.{port_name}");
        if *port < floor && !host::is_root() {
            findings.warning(
                "ports",
                format!("{at}: {port} is privileged, and you are not root"),
                "take a higher port behind a proxy, or give the program CAP_NET_BIND_SERVICE",
            );
        }
        if !table::port_taken(*port) || !table::listeners(*port, &own).is_empty() {
            continue;
        }
        let holder = table::listeners(*port, &all);
        let who = holder
            .first()
            .map_or_else(|| "a process of another user".to_owned(), |pid| format!("process {pid}"));
        let started = home.pointer().is_ok_and(|p| p.is_some());
        let message = format!("{at}: port {port} is in use by {who}, which is not this stack's");
        if started {
            findings.problem("ports", message, "stop that process, or change the port");
        } else {
            findings.warning(
                "ports",
                message,
                format!(
                    "if that is {name}, stop it before `switchback up`: Switchback starts it from then on"
                ),
            );
        }
    }
}
