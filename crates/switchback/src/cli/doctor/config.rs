//! The configuration: does what it names exist, and is staging kept apart from production?

use super::Findings;
use super::services;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use switchback_core::config::{Config, ConfigError};
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::{ReferenceKind, Workflow};
use switchback_engine::checks::workflow_files;
use switchback_engine::detect::is_sqlite;
use switchback_engine::error::EngineError;
use switchback_engine::gather::configured_stores;
use switchback_engine::home::Home;
use switchback_engine::runtime::process::start::read_env_file;

pub fn look(home: &Home, config: &Config, findings: &mut Findings) {
    stores(home, config, findings);
    for (name, service) in &config.services {
        services::look(home, config, name, service, findings);
    }
    checks(home, config, None, findings);
}

/// The services that workflows should use, and the variables that services get, where the configuration does not say it.
type Known<'a> = (&'a BTreeSet<ServiceName>, &'a BTreeSet<String>);

/// Looks at what is the same for every runtime.
pub fn checks(home: &Home, config: &Config, known: Option<Known<'_>>, findings: &mut Findings) {
    workflows(home, config, known, findings);
    browser(config, findings);
    trial(config, findings);
}

fn browser(config: &Config, findings: &mut Findings) {
    if config.checks.journeys.is_empty() {
        return;
    }
    match switchback_engine::check::browser::find() {
        Ok(path) => findings.ok("browser", format!("journeys are walked with {}", path.display())),
        Err(why) => {
            findings.warning("browser", why, "install Chromium; until then journeys are inconclusive");
        }
    }
}

fn stores(home: &Home, config: &Config, findings: &mut Findings) {
    if config.stores.is_empty() {
        findings.warning(
            "stores",
            "no store is configured: data would neither be rehearsed on nor come back with a rollback",
            "name databases and folders under `stores`",
        );
    }
    // Once a generation exists its own record counts; that is looked at with the state.
    let started = home.pointer().is_ok_and(|p| p.is_some());
    for (name, place) in configured_stores(home, config) {
        let path = Path::new(&place.path);
        if !path.exists() {
            let message = format!("the store {name} does not exist: {}", place.path);
            if started || !path.parent().is_some_and(Path::is_dir) {
                findings.problem("stores", message, "correct `path`, or put the data there");
            } else {
                findings.warning(
                    "stores",
                    message,
                    "correct `path`, unless the service makes it at its first start",
                );
            }
        } else if place.kind == StoreKind::Sqlite
            && !is_sqlite(path)
            && fs::metadata(path).map_or(1, |m| m.len()) > 0
        {
            findings.problem(
                "stores",
                format!("the store {name} is no SQLite database: {}", place.path),
                "write `kind: files` if it is something else",
            );
        } else {
            findings.ok("stores", format!("the store {name} exists"));
        }
    }
}

fn workflows(home: &Home, config: &Config, known: Option<Known<'_>>, findings: &mut Findings) {
    let files = match workflow_files(home, config) {
        Ok(files) => files,
        Err(e) => return findings.error("workflows", &e),
    };
    let (mut tested, mut writes, mut variables) = (BTreeSet::new(), false, BTreeSet::new());
    for file in &files {
        let shown = file.strip_prefix(home.root()).unwrap_or(file).display().to_string();
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => {
                findings.problem("workflows", format!("cannot read {shown}: {e}"), "check its permissions");
                continue;
            }
        };
        match Workflow::parse(&shown, &text) {
            Ok(workflow) => {
                writes |= !workflow.only_reads();
                for reference in &workflow.references {
                    match reference.kind {
                        ReferenceKind::Service => tested.insert(reference.name.clone()),
                        ReferenceKind::Env => variables.insert(reference.name.clone()),
                        ReferenceKind::Store => false,
                    };
                }
            }
            Err(e) => findings.error(
                "workflows",
                &EngineError::Config(ConfigError {
                    file: e.file,
                    line: e.line,
                    message: e.message,
                    hint: e.hint,
                }),
            ),
        }
    }
    let should = |name: &&ServiceName| known.is_none_or(|(used, _)| used.contains(*name));
    for name in config.services.keys().filter(should).filter(|n| !tested.contains(n.as_str())) {
        findings.warning(
            "untested",
            format!("no workflow check uses {name}: an upgrade that breaks it quietly would pass"),
            format!("write one with {{{{{name}.url}}}}; `switchback init` writes a first"),
        );
    }
    if !files.is_empty() && !writes {
        findings.warning(
            "no_writes",
            "no workflow writes anything: that users can still save would not be tested",
            "add a workflow that creates, reads back and removes something; it runs in staging only",
        );
    }
    let mut given: BTreeSet<String> = config
        .services
        .values()
        .filter_map(|s| read_env_file(&home.root().join(s.env_file.as_ref()?)).ok())
        .flat_map(std::collections::BTreeMap::into_keys)
        .collect();
    given.extend(known.into_iter().flat_map(|(_, variables)| variables.iter().cloned()));
    for name in variables.iter().filter(|n| !given.contains(*n) && std::env::var_os(n).is_none()) {
        findings.warning(
            "variables",
            format!("a workflow uses {{{{env.{name}}}}}, which is set neither for a service nor here"),
            "set it, or its checks are inconclusive",
        );
    }
    if !findings.any_bad("workflows") && !files.is_empty() {
        findings.ok("workflows", format!("{} workflow file(s) have no mistakes", files.len()));
    }
}

fn trial(config: &Config, findings: &mut Findings) {
    let rollback = &config.rollback;
    if rollback.watch.0 < rollback.every.0.saturating_mul(rollback.failures) {
        findings.warning(
            "trial",
            format!(
                "a trial of {} ends before {} probes, {} apart, can fail",
                rollback.watch, rollback.failures, rollback.every
            ),
            "raise `rollback.watch`, or lower `rollback.every`",
        );
    }
}
