//! Describing a stack: what runs or lies here becomes a `switchback.yaml` and a first workflow.

mod compose;
mod compose_yaml;
mod yaml;

use super::output::printable;
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::Workflow;
use switchback_engine::detect::compose::compose_files;
use switchback_engine::detect::{
    Description, DetectError, FoundStore, HealthGuess, Running, Which, Wishes, describe, inspect, split_line,
};
use switchback_engine::home::{CONFIG_FILE, STATE_DIR, write_atomic};

/// Options of init.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Name of the service (and of the stack); with Compose files: of the stack
    #[arg(long)]
    pub name: Option<String>,
    /// Describe the running service that listens on this port; with --command: the port it will listen on
    #[arg(long)]
    pub port: Option<u16>,
    /// Describe this running process
    #[arg(long, conflicts_with = "port")]
    pub pid: Option<i32>,
    /// Program and arguments, as one line; {release} {version} {store.NAME} {port.http} {stack} may be used
    #[arg(long, value_name = "LINE")]
    pub command: Option<String>,
    /// Program and arguments that migrate the data to a new version, as one line
    #[arg(long, value_name = "LINE")]
    pub migrate: Option<String>,
    /// The version that runs now
    #[arg(long)]
    pub version: Option<String>,
    /// Where a version lies, for example releases/{version}
    #[arg(long, value_name = "TEMPLATE")]
    pub release: Option<String>,
    /// The path that tells whether the service is healthy
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// An SQLite database; may be repeated
    #[arg(long, value_name = "[NAME=]PATH")]
    pub sqlite: Vec<String>,
    /// A folder (or file) with data; may be repeated
    #[arg(long, value_name = "[NAME=]PATH")]
    pub files: Vec<String>,
    /// A configuration file that belongs to a version; may be repeated
    #[arg(long, value_name = "PATH")]
    pub config: Vec<String>,
    /// Overwrite what an earlier init wrote; the old switchback.yaml is kept as switchback.yaml.old
    #[arg(long)]
    pub force: bool,
}

/// The folder of the first workflows, relative to the stack.
const FIRST_FOLDER: &str = "checks";
/// The first workflow of a stack of processes.
const FIRST_WORKFLOW: &str = "checks/first.yaml";

impl InitArgs {
    /// Whether something was said that only makes sense for a local process.
    fn describes_a_process(&self) -> bool {
        let texts = [&self.command, &self.migrate, &self.version, &self.release, &self.health];
        let lists = [&self.sqlite, &self.files, &self.config];
        self.port.is_some()
            || self.pid.is_some()
            || texts.iter().any(|t| t.is_some())
            || lists.iter().any(|l| !l.is_empty())
    }
}

/// What was written, and what comes next.
struct Answered {
    written: Vec<String>,
    next: Vec<String>,
}

impl Answered {
    fn print(&self, out: &Output) -> Result<(), Trouble> {
        out.line(&format!("Wrote {}.", self.written.join(", ")))?;
        out.line("Next:")?;
        for (index, step) in self.next.iter().enumerate() {
            out.line(&format!("  {}. {}", index + 1, printable(step)))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    written: Vec<String>,
    process: Option<ProcessFound<'a>>,
    #[serde(flatten)]
    description: &'a Description,
    env_file: Option<String>,
    secrets: Vec<&'a String>,
    next: Vec<String>,
}

#[derive(Serialize)]
struct ProcessFound<'a> {
    pid: i32,
    cwd: &'a Path,
    unit: Option<&'a str>,
}

/// Writes the files.
pub fn init(global: &Global, args: &InitArgs) -> Result<Exit, Trouble> {
    let root = folder(&global.directory)?;
    if !args.describes_a_process() && !compose_files(&root).is_empty() {
        return compose::init(global, args, &root);
    }
    let wishes = wishes(args)?;
    refuse_existing(&root, CONFIG_FILE, args.force)?;
    let running = look(args)?;
    let found = describe(&root, &wishes, running.as_ref()).map_err(trouble)?;
    let secrets: Vec<&String> = found.secrets.keys().collect();
    let env_file = (!secrets.is_empty()).then(|| format!("{}.env", found.service));
    if let Some(file) = &env_file {
        refuse_existing(&root, file, args.force)?;
    }
    // Everything is made and checked before the first byte is written.
    let first = root.join(FIRST_WORKFLOW);
    let workflow = yaml::workflow(&found).filter(|_| args.force || first.symlink_metadata().is_err());
    if let Some(workflow) = &workflow {
        Workflow::parse(FIRST_WORKFLOW, workflow)
            .map_err(|e| internal(&format!("{FIRST_WORKFLOW}: {}", e.message)))?;
    }
    let text = yaml::config(&found, env_file.as_deref(), workflow.is_some() || first.is_file());
    let config = checked(&text, &found)?;
    let mut written = Vec::new();
    if let Some(file) = &env_file {
        write(&root.join(file), &yaml::env_file(&found), 0o600)?;
        written.push(file.clone());
    }
    if let Some(workflow) = &workflow {
        make_folder(&root.join(FIRST_FOLDER))?;
        write(&first, workflow, 0o644)?;
        written.push(FIRST_WORKFLOW.to_owned());
    }
    keep_old(&root)?;
    write(&root.join(CONFIG_FILE), &text, 0o644)?;
    written.push(CONFIG_FILE.to_owned());
    let next = next_steps(&found, running.as_ref(), &config);
    let out = Output::new(global.json);
    if out.is_json() {
        let process =
            running.as_ref().map(|r| ProcessFound { pid: r.pid, cwd: &r.cwd, unit: r.unit.as_deref() });
        out.json(&Answer { written, process, description: &found, env_file, secrets, next })?;
    } else {
        report(&out, &found, running.as_ref(), env_file.as_deref(), &Answered { written, next })?;
    }
    Ok(Exit::Done)
}

fn folder(dir: &Path) -> Result<PathBuf, Trouble> {
    let hint = "`-C DIR` names the stack's folder";
    let root = dir
        .canonicalize()
        .map_err(|e| Trouble::usage(format!("cannot open {}: {e}", dir.display()), hint))?;
    if !root.is_dir() {
        return Err(Trouble::usage(format!("{} is not a folder", dir.display()), hint));
    }
    if root.components().any(|c| c.as_os_str() == STATE_DIR) {
        return Err(Trouble::usage("this is Switchback's own state folder", hint));
    }
    Ok(root)
}

fn wishes(args: &InitArgs) -> Result<Wishes, Trouble> {
    if let Some(name) = &args.name {
        ServiceName::new(name).map_err(|e| Trouble::usage(e.to_string(), "for example  --name hub"))?;
    }
    if let Some(path) = args.health.as_ref().filter(|p| !p.starts_with('/')) {
        return Err(Trouble::usage(
            format!("--health {path:?} must start with /"),
            "for example  --health /health",
        ));
    }
    let words = |line: &Option<String>| line.as_deref().map(split_line).transpose().map_err(trouble);
    Ok(Wishes {
        name: args.name.clone(),
        version: args.version.clone(),
        release: args.release.clone(),
        command: words(&args.command)?,
        migrate: words(&args.migrate)?.unwrap_or_default(),
        health: args.health.clone(),
        port: args.port,
        sqlite: args.sqlite.clone(),
        files: args.files.clone(),
        config: args.config.clone(),
    })
}

fn look(args: &InitArgs) -> Result<Option<Running>, Trouble> {
    let which = match (args.pid, args.port) {
        (Some(pid), _) => Which::Pid(pid),
        (None, Some(port)) => Which::Port(port),
        (None, None) => return Ok(None),
    };
    match inspect(which) {
        Ok(running) => Ok(Some(running)),
        // The service is described by hand; the port only says where it will listen.
        Err(_) if args.command.is_some() && args.pid.is_none() => Ok(None),
        Err(e) => Err(trouble(e)),
    }
}

fn refuse_existing(root: &Path, name: &str, force: bool) -> Result<(), Trouble> {
    if !force && root.join(name).symlink_metadata().is_ok() {
        return Err(Trouble::usage(
            format!("{} exists already", root.join(name).display()),
            "edit it; `switchback doctor` tells what is missing. --force replaces it",
        ));
    }
    Ok(())
}

/// Confirms that the text says what was found, by the reader that every other command uses.
fn checked(text: &str, found: &Description) -> Result<Config, Trouble> {
    let config = Config::parse(text, CONFIG_FILE).map_err(|e| {
        let flag = if e.message.contains("placeholder") || e.message.contains("without }") {
            "--command, --release, --sqlite and --files name what the placeholders stand for; {{ is a literal brace"
        } else if e.message.contains(".release") {
            "--release takes a path with {version}"
        } else if e.message.contains("version") {
            "--version VERSION"
        } else if e.message.contains(".path") {
            "--sqlite and --files name files and folders of their own, below the stack"
        } else if e.message.contains(".config") {
            "--config names files below the stack's folder"
        } else {
            "correct the options; `switchback init --help`"
        };
        Trouble::usage(format!("this would make no valid switchback.yaml: {}", e.message), flag)
    })?;
    let service = config.services.get(found.service.as_str());
    let same = service.is_some_and(|s| {
        s.command == found.command
            && s.env == found.env
            && s.migrate == found.migrate
            && s.config == found.config
    });
    if !same || config.stores.len() != found.stores.len() {
        return Err(internal("switchback.yaml would not say what was found"));
    }
    Ok(config)
}

fn make_folder(folder: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(folder).map_err(|e| cannot("make the folder", folder, &e))
}

/// Moves a configuration that is there out of the way, to a name that is free.
fn keep_old(root: &Path) -> Result<(), Trouble> {
    let target = root.join(CONFIG_FILE);
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    let names =
        std::iter::once(format!("{CONFIG_FILE}.old")).chain((2..).map(|n| format!("{CONFIG_FILE}.old{n}")));
    let mut free = names.map(|n| root.join(n)).filter(|p| p.symlink_metadata().is_err());
    let Some(old) = free.next() else { return Err(internal("there is no free name for the old file")) };
    fs::rename(&target, &old).map_err(|e| cannot("keep the old file as", &old, &e))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Trouble> {
    write_atomic(path, text.as_bytes())?;
    if mode != 0o600 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| cannot("set the mode of", path, &e))?;
    }
    Ok(())
}

fn next_steps(found: &Description, running: Option<&Running>, config: &Config) -> Vec<String> {
    let mut next = Vec::new();
    if !found.todo.is_empty() {
        next.push("edit switchback.yaml where it says TODO".to_owned());
    }
    next.push("switchback doctor".to_owned());
    if let Some(running) = running {
        next.push(match &running.unit {
            Some(unit) => format!(
                "stop the running process {} (if {unit} restarts it: systemctl disable --now {unit})",
                running.pid
            ),
            None => format!("stop the running process: kill {}", running.pid),
        });
    }
    next.push("switchback up".to_owned());
    let other = found.installed.iter().rfind(|v| **v != found.version);
    let version = other.map_or("VERSION", String::as_str);
    for service in config.services.keys() {
        next.push(format!("switchback rehearse {service}={version}"));
    }
    next
}

fn report(
    out: &Output,
    found: &Description,
    running: Option<&Running>,
    env_file: Option<&str>,
    done: &Answered,
) -> Result<(), Trouble> {
    let line = |key: &str, text: &str| out.line(&format!("  {key:<12} {}", printable(text)));
    match running {
        Some(running) => out.line(&format!(
            "Found process {} in {}:",
            running.pid,
            printable(&running.cwd.to_string_lossy())
        ))?,
        None => out.line("Found:")?,
    }
    line("service", &found.service)?;
    let guess = if found.version_known { "" } else { " (made up: no version is to be seen)" };
    line("version", &format!("{}{guess}", found.version))?;
    if let Some(release) = &found.release {
        let others = if found.installed.is_empty() {
            String::new()
        } else {
            format!("  installed: {}", found.installed.join(", "))
        };
        line("release", &format!("{release}{others}"))?;
    }
    line("command", &found.command.join(" "))?;
    for (name, port) in &found.ports {
        line("port", &format!("{name} {port}"))?;
    }
    line(
        "health",
        match &found.health {
            HealthGuess::Http(path) => path,
            HealthGuess::Tcp => "the port accepts connections (no path answered)",
        },
    )?;
    for FoundStore { name, kind, path, .. } in &found.stores {
        let kind = if *kind == switchback_core::data::StoreKind::Sqlite { "SQLite" } else { "files" };
        line("store", &format!("{name}  {kind}  {path}"))?;
    }
    for file in &found.config {
        line("config", file)?;
    }
    for name in found.env.keys() {
        line("variable", name)?;
    }
    for name in found.secrets.keys() {
        line("secret", &format!("{name}  -> {} (mode 600; do not commit it)", env_file.unwrap_or("")))?;
    }
    if !found.left_out.is_empty() {
        line("left out", &format!("{} (your login has them too)", found.left_out.join(", ")))?;
    }
    for warning in &found.warnings {
        out.line(&format!("  ! {}", printable(warning)))?;
    }
    done.print(out)
}

fn trouble(error: DetectError) -> Trouble {
    Trouble::usage(printable(&error.message), error.hint)
}

fn internal(message: &str) -> Trouble {
    Trouble { exit: Exit::Internal, message: message.to_owned(), hint: None }
}

fn cannot(doing: &str, path: &Path, error: &std::io::Error) -> Trouble {
    Trouble {
        exit: Exit::Internal,
        message: format!("cannot {doing} {}: {error}", path.display()),
        hint: None,
    }
}
