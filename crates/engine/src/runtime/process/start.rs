//! Starting a service: its placement, its environment, its shim.

use super::shim::{LOG_FILE, SPEC_FILE, STATE_FILE, Spec};
use super::table::MARKER;
use super::{cell, marker, service_members};
use crate::error::{EngineError, io};
use crate::home::{create_dir, write_json_volatile};
use crate::runtime::{Placement, rules};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use switchback_core::compose::TRUST;
use switchback_core::config::Service;
use switchback_core::config::template::{Placeholder, expand};
use switchback_core::ids::ServiceName;
use switchback_core::workflow::is_secret_name;

impl Placement<'_> {
    /// The folder with the spec, state and log of a service.
    pub fn service_dir(&self, name: &ServiceName) -> PathBuf {
        self.home.state().join(self.instance.dir_of(name.as_str())).join("services").join(name.as_str())
    }
    /// The working folder, shared by the instance's services.
    pub fn work_dir(&self) -> PathBuf {
        self.home.instance_dir(self.instance).join("work")
    }
    /// The working folder of a service: another instance's, where it goes on as that one's.
    pub fn work_dir_of(&self, name: &ServiceName) -> PathBuf {
        self.home.state().join(self.instance.dir_of(name.as_str())).join("work")
    }
    /// The live log of a service.
    pub fn log_file(&self, name: &ServiceName) -> PathBuf {
        self.service_dir(name).join("log").join(LOG_FILE)
    }

    /// The values of variables that look like secrets, to be removed from anything shown.
    ///
    /// Everything from an `env_file` is a secret, and what comes from `{env.NAME}` or has a telling name.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for (name, service) in &self.release.services {
            let definition = &service.definition;
            if let Some(file) = &definition.env_file {
                secrets.extend(read_env_file(&self.work_dir().join(file)).unwrap_or_default().into_values());
            }
            let environment = service_environment(self, name, definition).unwrap_or_default();
            for (key, template) in definition.env.iter().chain(&self.config.staging.env) {
                if (template.contains("{env.") && key != "PATH" && key != "HOME") || is_secret_name(key) {
                    secrets.extend(environment.get(key).cloned());
                }
            }
        }
        // Shorter values would mask ordinary words.
        secrets.retain(|s| s.len() >= 4);
        secrets
    }

    /// Removes secrets from lines.
    pub fn redact(&self, lines: Vec<String>) -> Vec<String> {
        let secrets = self.secrets();
        lines
            .into_iter()
            .map(|line| secrets.iter().fold(line, |line, secret| line.replace(secret.as_str(), "***")))
            .collect()
    }
}

fn fill(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    p: &Placeholder<'_>,
) -> Option<String> {
    let instance = placement.instance;
    match p {
        Placeholder::Version => Some(service.version.clone()),
        Placeholder::Release => Some(placement.release.services.get(name)?.artefact.as_ref()?.path.clone()),
        Placeholder::Stack => Some(placement.home.root().to_string_lossy().into_owned()),
        Placeholder::Store(store) => Some(instance.stores.get(*store)?.path.clone()),
        Placeholder::Port(port) => Some(instance.ports.get(name)?.get(*port)?.to_string()),
        Placeholder::PortOf(other, port) => Some(instance.ports.get(*other)?.get(*port)?.to_string()),
        Placeholder::Env(variable) => std::env::var(variable).ok(),
    }
}

/// Fills the placeholders of a command.
pub fn resolve(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    words: &[String],
) -> Result<Vec<String>, EngineError> {
    words.iter().map(|word| resolve_one(placement, name, service, word)).collect()
}

fn resolve_one(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
    text: &str,
) -> Result<String, EngineError> {
    expand(text, |p| fill(placement, name, service, p)).map_err(|e| EngineError::Refused {
        message: format!("services.{name}: {e}"),
        hint: Some("a variable named by {env.NAME} must be set where Switchback is called".to_owned()),
    })
}

/// Variables of the caller that reach a service; everything else must be configured, so that a service
/// starts the same from a terminal, from the watchdog and after a reboot.
const PASSED: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"];

/// The whole environment of a service, without the marker.
pub fn service_environment(
    placement: &Placement<'_>,
    name: &ServiceName,
    service: &Service,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut environment = BTreeMap::new();
    for (key, value) in std::env::vars() {
        if PASSED.contains(&key.as_str()) || key.starts_with("LC_") {
            environment.insert(key, value);
        }
    }
    if let Some(file) = &service.env_file {
        environment.extend(read_env_file(&placement.work_dir_of(name).join(file))?);
    }
    for (key, text) in &service.env {
        environment.insert(key.clone(), resolve_one(placement, name, service, text)?);
    }
    if !placement.instance.is_production() {
        for (key, text) in &placement.config.staging.env {
            environment.insert(key.clone(), resolve_one(placement, name, service, text)?);
        }
        // Canned answers over HTTPS have a certificate of the environment's own authority.
        if let Some(file) = rules::authority_file(placement)? {
            let file = file.to_string_lossy().into_owned();
            environment.extend(TRUST.map(|variable| (variable.to_owned(), file.clone())));
        }
    }
    Ok(environment)
}

/// A command as it is run where the instance's services are: with the words before it that lead into its cell.
pub fn placed(
    placement: &Placement<'_>,
    argv: Vec<String>,
    path: Option<&str>,
) -> Result<Vec<String>, EngineError> {
    let program = argv.first().cloned().unwrap_or_default();
    let mut words = cell::before(placement, &program)?;
    if words.is_empty() {
        return Ok(argv);
    }
    // The program is looked for here: what leads inside executes what it is told.
    let found = resolve_program(&program, path, &placement.work_dir());
    words.push(found.map_or(program, |f| f.to_string_lossy().into_owned()));
    words.extend(argv.into_iter().skip(1));
    Ok(words)
}

/// Reads `NAME=value` lines; `#` begins a comment, quotes around a value are removed.
pub fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, EngineError> {
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let unquoted =
            ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(value);
        values.insert(key.trim().to_owned(), unquoted.to_owned());
    }
    Ok(values)
}

/// Finds the program that a command names, as the system would: a path, or a name on PATH.
pub fn resolve_program(program: &str, path: Option<&str>, cwd: &Path) -> Option<PathBuf> {
    let executable =
        |p: &Path| p.is_file() && fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let full = cwd.join(program);
        return executable(&full).then_some(full);
    }
    path?.split(':').map(|dir| Path::new(dir).join(program)).find(|p| executable(p))
}

/// Starts a service under a shim of its own, unless it runs already.
pub fn start(placement: &Placement<'_>, name: &ServiceName, service: &Service) -> Result<(), EngineError> {
    let members = service_members(placement.home, placement.instance, name)?;
    let shim_alive = members.iter().any(|p| p.session == p.pid);
    if shim_alive {
        return Ok(());
    }
    if !members.is_empty() {
        // The shim was killed and left the service alone: it is taken down and started under a new one.
        super::stop(placement.home, placement.instance, name, service)?;
    }
    let dir = placement.service_dir(name);
    create_dir(&dir.join("log"))?;
    let _ = fs::remove_file(dir.join(STATE_FILE));
    let environment = service_environment(placement, name, service)?;
    let mut argv = resolve(placement, name, service, &service.command)?;
    let program = argv.first().cloned().unwrap_or_default();
    let work = placement.work_dir_of(name);
    let found = resolve_program(&program, environment.get("PATH").map(String::as_str), &work);
    match (found, argv.first_mut()) {
        (Some(full), Some(first)) => *first = full.to_string_lossy().into_owned(),
        _ => {
            return Err(EngineError::refused(
                format!(
                    "services.{name}.command: the program {program:?} does not exist or is not executable"
                ),
                "give its full path, or put its folder on PATH under `env`",
            ));
        }
    }
    let spec = Spec {
        argv,
        cwd: placement.work_dir_of(name),
        logs: dir.join("log"),
        log_bytes: placement.config.logs.max_mib << 20,
        log_keep: placement.config.logs.keep,
        restart: service.restart,
    };
    write_json_volatile(&dir.join(SPEC_FILE), &spec)?;
    let program = own_program();
    let log = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("log").join("shim.log"))
        .map_err(io("open the log in", &dir))?;
    let second = log.try_clone().map_err(io("open the log in", &dir))?;
    let inside = cell::before(placement, "switchback-shim")?;
    let mut command = match inside.split_first() {
        None => Command::new(&program),
        Some((first, words)) => {
            let mut command = Command::new(first);
            command.args(words).arg(&program);
            command
        }
    };
    if inside.is_empty() {
        command.arg0("switchback-shim");
    }
    let mut child = command
        .arg(SHIM_VERB)
        .arg(&dir)
        .env_clear()
        .envs(environment)
        .env(MARKER, marker(placement.home, placement.instance, name.as_str())?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        .spawn()
        .map_err(io("start", &program))?;
    // Reaps the shim if it ends while this process lives.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// The hidden command that becomes a shim.
pub const SHIM_VERB: &str = "__shim";

/// This program's own file, also after it was replaced on disk.
pub fn own_program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}
