//! `init` in a folder with Compose files: what is found there becomes a configuration that can be rehearsed as it is.

use super::super::output::printable;
use super::super::{Exit, Global, Output, Trouble};
use super::{Answered, FIRST_FOLDER, keep_old, make_folder, refuse_existing, write};
use super::{InitArgs, compose_yaml, internal};
use serde::Serialize;
use std::fs;
use std::path::Path;
use switchback_core::compose::HealthSource;
use switchback_core::config::Config;
use switchback_core::data::StoreKind;
use switchback_core::ids::StackName;
use switchback_core::workflow::Workflow;
use switchback_engine::detect::compose::{ComposeStack, DataAt, FoundData, FoundService, describe};
use switchback_engine::home::CONFIG_FILE;

#[derive(Serialize)]
struct Answer<'a> {
    written: Vec<String>,
    runtime: &'static str,
    stack: &'a str,
    project: &'a str,
    files: &'a [String],
    running: bool,
    services: Vec<ServiceFound<'a>>,
    stores: Vec<StoreFound<'a>>,
    shared: Vec<&'a str>,
    warnings: &'a [String],
    unseen: &'a [String],
    next: Vec<String>,
}

#[derive(Serialize)]
struct ServiceFound<'a> {
    name: &'a str,
    image: Option<&'a str>,
    port: Option<u16>,
    health: String,
    front_page: Option<u16>,
}

#[derive(Serialize)]
struct StoreFound<'a> {
    name: &'a str,
    kind: StoreKind,
    lies: String,
}

/// Writes the files.
pub fn init(global: &Global, args: &InitArgs, root: &Path) -> Result<Exit, Trouble> {
    let stack = describe(root)?;
    let name = name(args, &stack)?;
    // Everything is made and checked before the first byte is written.
    let mut checks = Vec::new();
    for service in &stack.services {
        let Some(text) = compose_yaml::workflow(service) else { continue };
        let file = format!("{FIRST_FOLDER}/{}-answers.yaml", service.name);
        Workflow::parse(&file, &text).map_err(|e| internal(&format!("{file}: {}", e.message)))?;
        // What a person wrote is never replaced, not even with --force.
        if root.join(&file).symlink_metadata().is_err() {
            checks.push((file, text));
        }
    }
    let any = !checks.is_empty() || has_checks(root);
    let text = compose_yaml::config(&name, &stack, any);
    let config = Config::parse(&text, CONFIG_FILE)
        .map_err(|e| internal(&format!("the configuration would not be valid: {}", e.message)))?;
    stack.accepts(root, &config)?;
    refuse_existing(root, CONFIG_FILE, args.force)?;
    let mut written = Vec::new();
    if !checks.is_empty() {
        make_folder(&root.join(FIRST_FOLDER))?;
    }
    for (file, text) in &checks {
        write(&root.join(file), text, 0o644)?;
        written.push(file.clone());
    }
    keep_old(root)?;
    write(&root.join(CONFIG_FILE), &text, 0o644)?;
    written.push(CONFIG_FILE.to_owned());
    let next = next_steps(root, &stack);
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&answer(&name, &stack, written, next))?;
    } else {
        report(&out, &name, &stack, &Answered { written, next })?;
    }
    Ok(Exit::Done)
}

/// The stack's name: what was said, or the project's.
fn name(args: &InitArgs, stack: &ComposeStack) -> Result<String, Trouble> {
    if let Some(name) = &args.name {
        StackName::new(name.as_str())
            .map_err(|e| Trouble::usage(e.to_string(), "for example  --name shop"))?;
        return Ok(name.clone());
    }
    // Compose allows longer names than we do.
    let short: String = stack.project.chars().take(63).collect();
    Ok(StackName::new(short.as_str()).map_or_else(|_| "stack".to_owned(), |_| short))
}

fn has_checks(root: &Path) -> bool {
    let entries = fs::read_dir(root.join(FIRST_FOLDER)).into_iter().flatten().flatten();
    entries.into_iter().any(|e| e.path().extension().is_some_and(|x| x == "yaml"))
}

fn next_steps(root: &Path, stack: &ComposeStack) -> Vec<String> {
    let mut next = Vec::new();
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let ignores = |pattern: &str| ignored.lines().any(|l| l.trim().trim_end_matches('/') == pattern);
    let missing: Vec<&str> = [".switchback", ".switchback-*"].into_iter().filter(|p| !ignores(p)).collect();
    if !missing.is_empty() && under_version_control(root) {
        let lines: Vec<String> = missing.iter().map(|p| format!("{p}/")).collect();
        next.push(format!(
            "add {} to .gitignore; {} belongs into version control",
            lines.join(" and "),
            switchback_engine::runtime::compose::project::LOCK_FILE
        ));
    }
    next.push("switchback doctor".to_owned());
    if stack.must_run_first() {
        next.push(
            "docker compose up -d   # volumes without a name exist only with their containers".to_owned(),
        );
    }
    next.push("switchback up".to_owned());
    let upgraded = stack.services.iter().find(|s| s.software.is_none()).or(stack.services.first());
    if let Some(service) = upgraded {
        next.push(format!("switchback rehearse {}=VERSION", service.name));
    }
    next
}

fn under_version_control(root: &Path) -> bool {
    root.ancestors().any(|dir| dir.join(".git").exists())
}

fn answer<'a>(name: &'a str, stack: &'a ComposeStack, written: Vec<String>, next: Vec<String>) -> Answer<'a> {
    Answer {
        written,
        runtime: "compose",
        stack: name,
        project: &stack.project,
        files: &stack.files,
        running: stack.running,
        services: stack
            .services
            .iter()
            .map(|s| ServiceFound {
                name: s.name.as_str(),
                image: s.image.as_deref(),
                port: s.port.as_ref().map(|(_, number)| *number),
                health: health(s),
                front_page: s.front_page,
            })
            .collect(),
        stores: stack
            .stores
            .iter()
            .map(|s| StoreFound { name: &s.name, kind: s.kind, lies: lies(s) })
            .collect(),
        shared: stack.shared.iter().map(|s| s.what.as_str()).collect(),
        warnings: &stack.warnings,
        unseen: &stack.unseen,
        next,
    }
}

fn health(service: &FoundService) -> String {
    match (service.health, &service.healthy_path) {
        (HealthSource::Compose, _) => "its own (Compose file)".to_owned(),
        (HealthSource::Image, _) => "its own (image)".to_owned(),
        (HealthSource::None, Some(path)) => path.clone(),
        (HealthSource::None, None) => match &service.port {
            Some(_) => "the port accepts connections".to_owned(),
            None => "none: it counts as healthy when it runs".to_owned(),
        },
    }
}

fn lies(store: &FoundData) -> String {
    let at = match &store.at {
        DataAt::Volume(key) => format!("volume {key}"),
        DataAt::Bind(path) => path.clone(),
        DataAt::Anonymous { service, target } => format!("{target} of {service}"),
        DataAt::Server(service) => format!("the server of {service}"),
    };
    if store.path.is_empty() { at } else { format!("{at}: {}", store.path) }
}

fn report(out: &Output, name: &str, stack: &ComposeStack, done: &Answered) -> Result<(), Trouble> {
    let line = |key: &str, text: &str| out.line(&format!("  {key:<12} {}", printable(text)));
    let state = if stack.running { "running" } else { "not running" };
    out.line(&format!(
        "Found the Compose project {} ({}; {state}):",
        stack.project,
        printable(&stack.files.join(", "))
    ))?;
    line("stack", name)?;
    for service in &stack.services {
        let image = service.image.as_deref().unwrap_or("built here");
        line("service", &format!("{}  {image}  health: {}", service.name, health(service)))?;
    }
    for store in &stack.stores {
        let kind = match store.kind {
            StoreKind::Sqlite => "SQLite",
            StoreKind::Files => "files",
            StoreKind::Postgres => "Postgres",
            StoreKind::Mysql => "MySQL or MariaDB",
        };
        line("store", &format!("{}  {kind}  {}", store.name, lies(store)))?;
    }
    for shared in &stack.shared {
        line("shared", &format!("{}  ({})", shared.what, shared.why))?;
    }
    for warning in &stack.warnings {
        out.line(&format!("  ! {}", printable(warning)))?;
    }
    for unseen in &stack.unseen {
        out.line(&format!("  ? {}", printable(unseen)))?;
    }
    done.print(out)
}
