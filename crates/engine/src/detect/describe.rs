//! From what was seen and what was said to a description that becomes a `switchback.yaml`.

mod choose;
mod warn;

use super::DetectError;
use super::places::FoundRelease;
use super::process::Running;
use super::scan::{Scan, scan};
use super::substitute::{Known, Substitution, mentions, mentions_of};
use super::variables::{secret_value, substitute_variable, worth_keeping};
use super::words::name_from;
use crate::check::http::probe_http;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::config::template::{Placeholder, expand};
use switchback_core::data::StoreKind;
use switchback_core::workflow::is_secret_name;

/// What the user said.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Name of the service.
    pub name: Option<String>,
    /// The version that runs.
    pub version: Option<String>,
    /// Where a version lies.
    pub release: Option<String>,
    /// Program and arguments, possibly with placeholders.
    pub command: Option<Vec<String>>,
    /// Program and arguments that migrate the data.
    pub migrate: Vec<String>,
    /// The health path.
    pub health: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Databases: `PATH`, or `NAME=PATH`.
    pub sqlite: Vec<String>,
    /// Folders or files with data: `PATH`, or `NAME=PATH`.
    pub files: Vec<String>,
    /// Configuration files.
    pub config: Vec<String>,
}

/// A store that was found or named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundStore {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: StoreKind,
    /// Its path as `switchback.yaml` names it.
    pub path: String,
    /// Its absolute path.
    #[serde(skip)]
    pub full: PathBuf,
}

/// How health is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthGuess {
    /// A path.
    Http(String),
    /// Whether the port accepts connections: no path answered.
    Tcp,
}

/// Everything that goes into a `switchback.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Name of the stack.
    pub stack: String,
    /// Name of the service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Whether the version was seen or said, rather than made up.
    pub version_known: bool,
    /// Where versions lie, with `{version}`.
    pub release: Option<String>,
    /// Versions that lie there.
    pub installed: Vec<String>,
    /// Program and arguments with placeholders.
    pub command: Vec<String>,
    /// The same for the migration, if there is one.
    pub migrate: Vec<String>,
    /// Variables that go into the file.
    pub env: BTreeMap<String, String>,
    /// Variables that look like secrets; never shown.
    #[serde(skip)]
    pub secrets: BTreeMap<String, String>,
    /// Variables that were left out, as a login shell sets them too.
    pub left_out: Vec<String>,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// How health is asked for.
    pub health: HealthGuess,
    /// What `GET /` answers now; `None` if nothing runs, or it speaks no HTTP.
    pub front_page: Option<u16>,
    /// The stores.
    pub stores: Vec<FoundStore>,
    /// Configuration files.
    pub config: Vec<String>,
    /// What is dangerous or could not be found out.
    pub warnings: Vec<String>,
    /// What a person must decide: `command`, `version`, `port`, `stores`.
    pub todo: BTreeSet<&'static str>,
}

/// Describes the stack in a folder.
pub fn describe(root: &Path, wishes: &Wishes, running: Option<&Running>) -> Result<Description, DetectError> {
    let scan = scan(root);
    let base = running.map_or_else(|| root.to_owned(), |r| r.cwd.clone());
    let argv = wishes.command.clone().or_else(|| running.map(|r| r.argv.clone()));
    let mut draft = Draft { root, base, wishes, running, scan, warnings: Vec::new(), todo: BTreeSet::new() };
    if let Some(running) = running {
        draft.warnings.extend(running.warnings.iter().cloned());
    }
    draft.describe(argv.as_deref())
}

struct Draft<'a> {
    root: &'a Path,
    base: PathBuf,
    wishes: &'a Wishes,
    running: Option<&'a Running>,
    scan: Scan,
    warnings: Vec<String>,
    todo: BTreeSet<&'static str>,
}

impl Draft<'_> {
    fn describe(mut self, argv: Option<&[String]>) -> Result<Description, DetectError> {
        let words: Vec<String> = argv.into_iter().flatten().chain(&self.wishes.migrate).cloned().collect();
        let (env, secrets, left_out) = self.environment();
        let mut seen = mentions(&words, &self.base);
        seen.extend(env.iter().flat_map(|(key, value)| mentions_of(value, key, &self.base)));
        let used = placeholders(&words);
        let release = self.release(argv, &seen, &used)?;
        let mut stores = self.stores(&seen, release.as_ref(), &used)?;
        let mut release = release;
        if let Some(found) = &release
            && let Some(store) = stores.iter().find(|s| s.full.starts_with(&found.path))
        {
            self.warnings.push(format!(
                "{} lies inside the release {}: an upgrade would leave it behind. Move data out of release folders",
                store.full.display(),
                found.path.display()
            ));
            release = None;
        }
        let config = self.config(&seen, release.as_ref(), &stores);
        let version = self.version(release.as_ref(), &used)?;
        let (ports, health) = self.ports(&used)?;
        let service = self.name(argv);
        if argv.is_none() {
            self.todo.insert("command");
            if stores.len() > 1 {
                self.todo.insert("stores");
            }
        }
        let substitution = self.substitution(release.as_ref(), &stores, &ports, version.as_deref());
        let command = match argv {
            Some(words) if self.wishes.command.is_some() => self.given(words, &substitution),
            Some(words) => self.found(words, &substitution, &config, &service),
            None => todo_command(release.is_some(), &stores),
        };
        let migrate = self.given(&self.wishes.migrate, &substitution);
        let env: BTreeMap<String, String> =
            env.iter().map(|(k, v)| (k.clone(), substitute_variable(&substitution, k, v))).collect();
        if let Some(running) = self.running
            && !running.cwd.starts_with(self.root)
            && !stores.iter().any(|s| s.full.starts_with(self.root))
        {
            self.warnings.push(format!(
                "the service runs in {} and has nothing in this folder: `-C DIR` names the stack's own folder, where generations and reports are kept",
                running.cwd.display()
            ));
        }
        self.check_secrets(&secrets, &stores);
        self.check_servers(env.iter().chain(&secrets));
        self.check_use(&command, &migrate, &env, &ports, &stores, &config);
        self.check_traces(&seen, &stores, release.as_ref());
        let installed = release.as_ref().map(|r| self.installed(&r.template)).unwrap_or_default();
        stores.sort_by(|a, b| a.name.cmp(&b.name));
        let folder = self.root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Description {
            stack: self.wishes.name.clone().unwrap_or_else(|| name_from(&folder, "stack")),
            service,
            version_known: version.is_some(),
            version: version.unwrap_or_else(|| "1".to_owned()),
            release: release.map(|r| r.template),
            installed,
            command,
            migrate,
            env,
            secrets,
            left_out,
            front_page: self.running.and_then(|_| front_page(*ports.values().next()?)),
            ports,
            health,
            stores,
            config,
            warnings: self.warnings,
            todo: self.todo,
        })
    }

    fn name(&self, argv: Option<&[String]>) -> String {
        if let Some(name) = &self.wishes.name {
            return name.clone();
        }
        let program = argv.and_then(|a| a.first()).and_then(|p| Path::new(p).file_name());
        let program = program.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let interpreter = ["python", "node", "ruby", "java", "php", "sh", "bash", "env", "deno", "bun"]
            .iter()
            .any(|i| program.starts_with(i));
        let folder = self.root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if program.is_empty() || interpreter || program.contains('{') {
            name_from(&folder, "app")
        } else {
            name_from(&program, "app")
        }
    }

    /// Variables for the file, secrets, and the names of those left out.
    fn environment(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>, Vec<String>) {
        let (mut env, mut secrets, mut left_out) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let Some(running) = self.running else { return (env, secrets, left_out) };
        for (key, value) in &running.env {
            if !worth_keeping(key, value) {
                continue;
            }
            if running.login.get(key) == Some(value) {
                left_out.push(key.clone());
            } else if is_secret_name(key) && !Path::new(value).is_absolute() || secret_value(value) {
                secrets.insert(key.clone(), value.clone());
            } else {
                env.insert(key.clone(), value.clone());
            }
        }
        (env, secrets, left_out)
    }

    fn version(
        &self,
        release: Option<&FoundRelease>,
        used: &BTreeSet<String>,
    ) -> Result<Option<String>, DetectError> {
        let found = self.wishes.version.clone().or_else(|| release.map(|r| r.version.clone()));
        if found.is_none() && used.contains("version") {
            return Err(DetectError::new("the command uses {version}", "say it with --version VERSION"));
        }
        Ok(found)
    }

    fn ports(
        &mut self,
        used: &BTreeSet<String>,
    ) -> Result<(BTreeMap<String, u16>, HealthGuess), DetectError> {
        let named = used.iter().find_map(|u| u.strip_prefix("port.").filter(|n| !n.contains('.')));
        let name = named.unwrap_or("http").to_owned();
        let asked = self.wishes.health.clone().map(HealthGuess::Http);
        if let Some(running) = self.running {
            let mut open: Vec<_> = running.listeners.iter().collect();
            open.sort_by_key(|l| (Some(l.port) != self.wishes.port, !l.local, l.port));
            let answers = open.iter().filter(|l| l.local).find_map(|l| Some((l.port, health_path(l.port)?)));
            let (port, health) = match answers {
                Some((port, path)) if self.wishes.port.is_none_or(|p| p == port) => {
                    (port, HealthGuess::Http(path))
                }
                _ => match self.wishes.port.or(open.first().map(|l| l.port)) {
                    Some(port) => (port, HealthGuess::Tcp),
                    None => {
                        return Err(DetectError::new(
                            format!("process {} listens on no TCP port", running.pid),
                            "a service needs a port that its health can be asked on; --port PORT names it",
                        ));
                    }
                },
            };
            if let Some(listener) = open.iter().find(|l| l.port == port && !l.local) {
                self.warnings.push(format!(
                    "port {} does not answer on 127.0.0.1, where Switchback asks",
                    listener.port
                ));
            }
            return Ok((BTreeMap::from([(name, port)]), asked.unwrap_or(health)));
        }
        let port = match self.wishes.port {
            Some(port) => port,
            None if self.wishes.command.is_some() => {
                return Err(DetectError::new(
                    "on which port does the service listen?",
                    "say it with --port PORT",
                ));
            }
            None => {
                self.todo.insert("port");
                8000
            }
        };
        Ok((BTreeMap::from([(name, port)]), asked.unwrap_or_else(|| HealthGuess::Http("/".to_owned()))))
    }

    fn substitution(
        &self,
        release: Option<&FoundRelease>,
        stores: &[FoundStore],
        ports: &BTreeMap<String, u16>,
        version: Option<&str>,
    ) -> Substitution {
        let mut known: Vec<Known> = stores
            .iter()
            .map(|s| Known {
                path: s.full.clone(),
                placeholder: format!("store.{}", s.name),
                folder: s.full.is_dir(),
            })
            .collect();
        known.extend(release.map(|r| Known {
            path: r.path.clone(),
            placeholder: "release".to_owned(),
            folder: true,
        }));
        known.sort_by_key(|k| std::cmp::Reverse(k.path.components().count()));
        known.push(Known { path: self.root.to_owned(), placeholder: "stack".to_owned(), folder: true });
        Substitution {
            base: self.base.clone(),
            known,
            ports: ports.iter().map(|(n, p)| (*p, n.clone())).collect(),
            // A lone number would be found everywhere.
            version: version.filter(|v| v.contains('.')).map(str::to_owned),
        }
    }

    /// A command that the user wrote: words with placeholders are left as they are.
    fn given(&self, words: &[String], substitution: &Substitution) -> Vec<String> {
        let replaced = substitution.words(words);
        words
            .iter()
            .zip(replaced)
            .map(|(word, replaced)| if word.contains('{') { word.clone() } else { replaced })
            .collect()
    }

    /// A command that was seen: configuration files become relative, secrets become variables.
    fn found(
        &mut self,
        words: &[String],
        substitution: &Substitution,
        config: &[String],
        service: &str,
    ) -> Vec<String> {
        let mut replaced = substitution.words(words);
        for word in &mut replaced {
            for file in config {
                *word = word.replace(&format!("{{stack}}/{file}"), file);
            }
        }
        for index in 0..words.len() {
            let Some(word) = words.get(index) else { continue };
            let (option, inline) = word.split_once('=').map_or((word.as_str(), None), |(o, v)| (o, Some(v)));
            if !option.starts_with('-') || !is_secret_name(option) {
                continue;
            }
            let next = words.get(index + 1).filter(|w| !w.starts_with('-'));
            let value = inline.or(next.map(String::as_str)).unwrap_or("");
            if value.is_empty() || Path::new(value).exists() || self.base.join(value).exists() {
                continue;
            }
            let mut name = name_from(&format!("{service}_{}", option.trim_start_matches('-')), "SECRET");
            name = name.to_ascii_uppercase().replace('-', "_");
            let at = if inline.is_some() { index } else { index + 1 };
            if let Some(place) = replaced.get_mut(at) {
                *place = match inline {
                    Some(_) => format!("{option}={{env.{name}}}"),
                    None => format!("{{env.{name}}}"),
                };
            }
            self.warnings.push(format!(
                "the argument of {option} looks like a secret and was replaced by {{env.{name}}}: set {name} where you call Switchback, or better, let the service read it from a variable in the env file"
            ));
        }
        replaced
    }
}

/// The placeholders that words use, as `store.db`.
fn placeholders(words: &[String]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for word in words {
        // What is no placeholder is text here; the configuration's own check complains about a user's mistake.
        let _ = expand(word, |p: &Placeholder<'_>| {
            used.insert(p.to_string());
            Some(String::new())
        });
    }
    used
}

/// A command that shows what must be filled in, and parses.
fn todo_command(release: bool, stores: &[FoundStore]) -> Vec<String> {
    let program = if release { "{release}/bin/TODO" } else { "/path/to/TODO" };
    let mut words = vec![program.to_owned(), "--port".to_owned(), "{port.http}".to_owned()];
    for store in stores {
        words.push(format!("--{}", store.name));
        words.push(format!("{{store.{}}}", store.name));
    }
    words
}

/// What the front page answers.
fn front_page(port: u16) -> Option<u16> {
    probe_http(&format!("http://127.0.0.1:{port}/"), &(100..=599), PATIENCE).ok()
}

/// Longer than any local answer of a service that is well.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first path that answers like a health check.
fn health_path(port: u16) -> Option<String> {
    let answers = |path: &str, most: u16| {
        probe_http(&format!("http://127.0.0.1:{port}{path}"), &(200..=most), PATIENCE).is_ok()
    };
    // A health path that redirects is a login page; the front page may do so.
    let special =
        ["/health", "/healthz", "/api/health", "/hub/api/health"].into_iter().find(|p| answers(p, 299));
    special.or_else(|| answers("/", 399).then_some("/")).map(str::to_owned)
}
