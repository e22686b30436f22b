//! The configuration of a stack (`switchback.yaml`): its shape, defaults and rules.
//!
//! Owns what the file may say. Reading the file from disk and looking at the host is the engine's.

mod backup;
mod capture;
mod check;
mod check_compose;
mod comparing;
mod egress;
mod hooks;
mod located;
mod paths;
mod promotion;
mod rehearsal;
mod retention;
mod service;
pub mod template;
mod triggers;
mod wal;

pub use backup::{Backup, CloneKept, Wal};
pub use capture::{Capture, Writes};
pub use comparing::{ApiCheck, PerformanceCheck};
pub use egress::{Destination, Egress, EgressDefault, STUB_BYTES, Stub, host_matches};
pub use hooks::{Hook, Hooks};
pub use located::{ConfigError, line_of, suggest};
pub use promotion::{Auto, Promotion, Window};
pub use rehearsal::Rehearsal;
pub use retention::Retention;
pub use service::{Health, Restart, Service, Stop, StopSignal};
pub use triggers::{Action, Database, Disk, Errors, Latency, LogErrors, Memory, Restarts, Triggers};

use crate::anonymise::Mask;
use crate::data::StoreKind;
use crate::duration::Span;
use crate::ids::{ServiceName, StackName, StoreName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the stack: 1 to 63 letters, digits, `_` or `-`.
    pub stack: StackName,
    /// Stacks that are upgraded before this one, by name (`upgrade --all`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StackName>,
    /// What runs the services.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// The Compose project; only with `runtime: compose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
    /// The services, by name. With `runtime: compose` they come from the Compose files, and here stands only what these do
    /// not say.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Service>,
    /// The stores, by name.
    #[serde(default)]
    pub stores: BTreeMap<StoreName, Store>,
    /// How staging environments differ from production.
    #[serde(default)]
    pub staging: Staging,
    /// What is checked besides health and data integrity.
    #[serde(default)]
    pub checks: Checks,
    /// Rehearsals and the certificates they issue.
    #[serde(default)]
    pub rehearsal: Rehearsal,
    /// Promotion's trial and rollback.
    #[serde(default)]
    pub rollback: Rollback,
    /// When production may be upgraded.
    #[serde(default)]
    pub promotion: Promotion,
    /// Commands around what changes production.
    #[serde(default)]
    pub hooks: Hooks,
    /// What `gc` keeps.
    #[serde(default)]
    pub retention: Retention,
    /// Stops that upgrades may not leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<crate::stops::Stop>,
    /// Backups of the whole stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// Log files of services.
    #[serde(default)]
    pub logs: Logs,
    /// The acceptance run.
    #[serde(default)]
    pub verify: Verify,
    /// Who is told when something happens that nobody asked for: URLs, `env:NAME` or `file:PATH` (which hold one).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
}

/// What runs the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Local processes, detached from the terminal.
    #[default]
    Process,
    /// The containers of a Docker Compose project.
    Compose,
}

impl RuntimeKind {
    /// As written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Compose => "compose",
        }
    }
}

/// The Compose project of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compose {
    /// The Compose files, relative to the stack. By default what `docker compose` would take: COMPOSE_FILE in `.env`, else
    /// `compose.yaml` (or `compose.yml`, `docker-compose.yaml`, `docker-compose.yml`) and its override file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The project's name; by default what `docker compose` would take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Profiles that are active.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Volumes (their keys) and host paths that services may write to and that are no stores: every generation uses the
    /// same ones, and a rollback does not bring them back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
}

/// One store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// What kind of data it is.
    pub kind: StoreKind,
    /// Where production's data lies before the first promotion, relative to the stack. With Compose: the host path of a bind
    /// mount; or, beside `volume` or `target`, the path below it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Compose: the volume (its key in the Compose file) that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Compose: the service that runs the Postgres, MySQL or MariaDB server, or that mounts the `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Compose: where the service mounts it; for volumes that have no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Postgres: the role that reads everything; by default POSTGRES_USER of the service, else `postgres`. MySQL and MariaDB: by
    /// default `root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The variable of the service's environment that holds the role's password, where the server wants one on its own socket. MySQL
    /// and MariaDB: by default MARIADB_ROOT_PASSWORD or MYSQL_ROOT_PASSWORD, or the files that those with `_FILE` name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The databases of the server that are compared; by default all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Postgres: the major version that an upgrade may convert the data to, by dump and restore. Without it an image of another
    /// major version than the data's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// Files: paths below it that copies of the running store do not get (rehearsals, staging, backups): what only says that
    /// something runs. Promotions, which clone what is stopped, take everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<String>,
}

/// How staging environments differ from production.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Staging {
    /// Environment variables that are set or replaced in staging, for every service.
    pub env: BTreeMap<String, String>,
    /// An environment is removed this long after it was made, unless it is told to stay longer.
    pub keep: Span,
    /// Whether an environment keeps an untouched copy of its data, which it is compared with and can be reset to.
    pub pristine: bool,
    /// Environments get production's present data this often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<Span>,
    /// At most so many environments at a time.
    pub environments: u32,
    /// At most so much disk space (GiB) for the data of all environments; shared blocks do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Columns whose values are masked before anything runs on a copy: `STORE.TABLE.COLUMN`, with Postgres also
    /// `STORE.SCHEMA.TABLE.COLUMN` and `STORE.DATABASE.SCHEMA.TABLE.COLUMN`; not in rehearsals.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub anonymise: BTreeMap<String, Mask>,
    /// The most that each service of a copy gets; only lowers what production's may use, and only with `runtime: compose`.
    #[serde(skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Whether local processes of a copy have a network of their own and do not see production's data; containers always
    /// have.
    pub isolation: ProcessIsolation,
    /// What becomes of what the services send out: `record`, `deny`, or a mapping.
    pub egress: Egress,
    /// Variables and Compose secrets whose values staging never gets: it has generated ones instead; only with
    /// `runtime: compose`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replace_secrets: Vec<String>,
}

/// Whether local processes of a staging copy are isolated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessIsolation {
    /// Where the host allows namespaces; where it does not, the report says so.
    #[default]
    Auto,
    /// Nothing of staging starts where the host does not allow it.
    Required,
    /// Services of staging share the host's network and files.
    Off,
}

/// The most that each service of a staging copy gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory, in MiB; at least 6, which is the engine's own least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Processors, such as 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Staging {
    fn default() -> Self {
        Self {
            env: BTreeMap::new(),
            keep: Span::secs(7 * 86_400),
            pristine: true,
            sync: None,
            environments: 3,
            disk_gib: None,
            anonymise: BTreeMap::new(),
            limits: Limits::default(),
            isolation: ProcessIsolation::default(),
            egress: Egress::default(),
            replace_secrets: Vec::new(),
        }
    }
}

/// What is checked besides health and data integrity.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Workflow files: paths or patterns (`checks/*.yaml`), relative to the stack.
    pub workflows: Vec<String>,
    /// Files that an installed `hurl` runs: paths or patterns (`checks/*.hurl`), relative to the stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hurl: Vec<String>,
    /// Journeys in a browser: paths or patterns (`journeys/*.yaml`), relative to the stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journeys: Vec<String>,
    /// Rules on the data.
    pub invariants: Vec<Invariant>,
    /// Commands that check something.
    pub commands: Vec<CommandCheck>,
    /// APIs whose old and new versions are compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api: Vec<ApiCheck>,
    /// Requests whose times in the old and the new version are compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance: Vec<PerformanceCheck>,
    /// Migration files in SQL that squawk looks at: paths or patterns (`migrations/*.sql`), relative to the stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lint: Vec<String>,
    /// Changes to existing rows that an upgrade is allowed to make: `store.table`, or `store.*`.
    pub expected_changes: Vec<String>,
}

/// A rule on the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invariant {
    /// Name in reports; by default the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The store that is asked.
    pub store: StoreName,
    /// A query that yields one value.
    pub sql: String,
    /// The value it must have. Without it, the value must be the same before and after the upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<serde_json::Value>,
}

/// A command that checks something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandCheck {
    /// Name in reports.
    pub name: String,
    /// Program and arguments, or one line for `sh -c`.
    pub run: CommandLine,
    /// JUnit XML that the command writes; relative to the folder it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<String>,
    /// Stopped and failed after this time.
    #[serde(default = "defaults::command_timeout")]
    pub timeout: Span,
    /// Whether it may run against production during a trial.
    #[serde(default)]
    pub production: bool,
}

/// A command as a list, or as one line for the shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandLine {
    /// Program and arguments.
    Words(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

/// Promotion's trial and rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// A rollback must be done within this time.
    pub budget: Span,
    /// How long a promotion is on trial.
    pub watch: Span,
    /// Time between two probes of a trial.
    pub every: Span,
    /// So many failed probes in a row roll back.
    pub failures: u32,
    /// A rollback is tried on clones this often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<Span>,
    /// Production itself is switched to a copy and back this often, within `promotion.windows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_production: Option<Span>,
    /// What happens to the writes made since the promotion.
    pub writes: Writes,
    /// How those are found.
    pub capture: Capture,
    /// Room for a database server's log while nobody reads it, in MiB.
    pub capture_wal_mib: u64,
    /// What a trial is watched for besides the checks.
    pub triggers: Triggers,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            budget: Span::secs(300),
            watch: Span::secs(1800),
            every: Span::secs(10),
            failures: 3,
            drill: None,
            drill_production: None,
            writes: Writes::Export,
            capture: Capture::Compare,
            capture_wal_mib: 1024,
            triggers: Triggers::default(),
        }
    }
}

impl Rollback {
    /// Whether there are drills by the clock.
    pub fn drills(&self) -> bool {
        self.drill.is_some() || self.drill_production.is_some()
    }
}

/// Log files of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// A log file that reaches this size (MiB) is rotated.
    pub max_mib: u64,
    /// Rotated files kept per service.
    pub keep: u32,
}

impl Default for Logs {
    fn default() -> Self {
        Self { max_mib: 10, keep: 5 }
    }
}

/// The acceptance run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// A file with further criteria, in the format of the built-in catalogue.
    pub catalogue: Option<String>,
}

mod defaults {
    use crate::duration::Span;
    pub fn migrate_deadline() -> Span {
        Span::secs(3600)
    }
    /// Two applications that we measured report ready and exit a second later; 2 s sees it.
    pub fn stable() -> Span {
        Span::secs(2)
    }
    pub fn start() -> Span {
        Span::secs(60)
    }
    /// A 10 s time-out once caused a false rollback elsewhere; a probe that needs over 5 s is a
    /// failure, but several in a row are needed before anything happens.
    pub fn probe_timeout() -> Span {
        Span::secs(5)
    }
    pub fn command_timeout() -> Span {
        Span::secs(600)
    }
}

impl Config {
    /// Parses and checks the text of a `switchback.yaml`; `file` is only named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_yaml_ng::from_str(text).map_err(|e| located::from_serde(&e, text, file))?;
        check::check(&config, text, file)?;
        Ok(config)
    }

    /// Parses what Switchback itself kept with a run: checked when it was planned, and completed since.
    pub fn parse_kept(text: &str, file: &str) -> Result<Self, ConfigError> {
        serde_yaml_ng::from_str(text).map_err(|e| located::from_serde(&e, text, file))
    }

    /// The JSON Schema (draft 2020-12) of the file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The services in an order in which each comes after those it needs.
    ///
    /// Groups can start at the same time. `parse` has refused cycles.
    pub fn start_order(services: &BTreeMap<ServiceName, Service>) -> Vec<Vec<ServiceName>> {
        let mut groups: Vec<Vec<ServiceName>> = Vec::new();
        let mut placed: Vec<&ServiceName> = Vec::new();
        while placed.len() < services.len() {
            let group: Vec<&ServiceName> = services
                .iter()
                .filter(|(name, service)| {
                    !placed.contains(name) && service.needs.iter().all(|n| placed.contains(&n))
                })
                .map(|(name, _)| name)
                .collect();
            if group.is_empty() {
                break; // a cycle; the caller's configuration was not checked
            }
            placed.extend(group.iter().copied());
            groups.push(group.into_iter().cloned().collect());
        }
        groups
    }
}

#[cfg(test)]
mod tests;
