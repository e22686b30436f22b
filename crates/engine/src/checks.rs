//! The suite of checks of a stack: which run where, and running them.
//!
//! On production only what cannot change anything runs, unless the user says otherwise.

mod compared;
pub mod looks;

use crate::check::command::{self, CommandContext};
use crate::check::workflow::{self, WorkflowContext};
use crate::error::{EngineError, io};
use crate::gateway::attack::Ended;
use crate::home::{Home, create_dir};
use crate::runtime::Placement;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::config::{
    ApiCheck, CommandCheck, CommandLine, Config, ConfigError, Invariant, PerformanceCheck,
};
use switchback_core::ids::{RunId, ServiceName, StoreName};
use switchback_core::journey::Journey;
use switchback_core::look::Approved;
use switchback_core::plan::CheckPhase;
use switchback_core::workflow::{Endpoint, Redactor, Workflow, WorkflowError};

/// An instance under observation.
pub struct Target<'a> {
    /// What it runs on.
    pub world: &'a World,
    /// Where it runs.
    pub placement: Placement<'a>,
    /// The name used in results.
    pub environment: String,
    /// The run, for unique test data.
    pub run: &'a str,
    /// The folder for artefacts.
    pub run_dir: &'a Path,
    /// A folder for private copies.
    pub scratch: &'a Path,
    /// Where its services are asked, if not at their own ports: through proxies that put faults in.
    pub through: Option<BTreeMap<ServiceName, Endpoint>>,
}

impl Target<'_> {
    /// Where checks ask its services.
    pub fn endpoints(&self) -> BTreeMap<ServiceName, Endpoint> {
        self.through.clone().unwrap_or_else(|| self.world.runtime.endpoints(&self.placement))
    }

    fn sql(
        &self,
        store: &StoreName,
        sql: &str,
        values: &[serde_json::Value],
    ) -> Result<serde_json::Value, String> {
        self.world.data.sql(&self.placement, store, sql, values)
    }
}

/// The checks of a stack as they were when the run was planned.
pub struct Suite {
    workflows: Vec<(String, Workflow)>,
    journeys: Vec<(String, Journey)>,
    approved: Approved,
    invariants: Vec<Invariant>,
    commands: Vec<CommandCheck>,
    api: Vec<ApiCheck>,
    performance: Vec<PerformanceCheck>,
    folder: PathBuf,
}

/// Where a run keeps its copy of the workflow files.
fn kept_dir(home: &Home, run: &RunId) -> PathBuf {
    home.run_dir(run).join("checks")
}

/// The workflow files that the configuration names, in order of name.
pub fn workflow_files(home: &Home, config: &Config) -> Result<Vec<PathBuf>, EngineError> {
    named_files(home, "checks.workflows", &config.checks.workflows)
}

/// The files that a list of paths and patterns names, in order of name.
pub(crate) fn named_files(home: &Home, key: &str, patterns: &[String]) -> Result<Vec<PathBuf>, EngineError> {
    let mut files = Vec::new();
    for pattern in patterns {
        let before = files.len();
        let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
        let folder = home.root().join(folder);
        match name.split_once('*') {
            None => files.push(folder.join(name)),
            Some((prefix, suffix)) => {
                let entries = fs::read_dir(&folder).map_err(io("list the checks in", &folder))?;
                for entry in entries.flatten() {
                    let file = entry.file_name();
                    let text = file.to_string_lossy();
                    if text.len() >= prefix.len() + suffix.len()
                        && text.starts_with(prefix)
                        && text.ends_with(suffix)
                    {
                        files.push(entry.path());
                    }
                }
            }
        }
        if files.len() == before || files.iter().any(|f| !f.is_file()) {
            return Err(EngineError::refused(
                format!("{key}: {pattern:?} matches no file"),
                "remove the pattern, or write the file; `switchback init` writes a first workflow",
            ));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Reads and keeps the workflow files with the run, so that it sees the same ones to its end.
pub fn keep(home: &Home, run: &RunId, config: &Config) -> Result<(), EngineError> {
    let dir = kept_dir(home, run);
    create_dir(&dir)?;
    let services: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
    let stores: Vec<&str> = config.stores.keys().map(StoreName::as_str).collect();
    for file in workflow_files(home, config)? {
        let (_, workflow) = load(&file)?;
        let name = file.file_name().unwrap_or_default();
        let shown = format!("checks/{}", name.to_string_lossy());
        workflow.check_names(&shown, &services, &stores).map_err(located)?;
        if dir.join(name).exists() {
            return Err(EngineError::refused(
                format!("two workflow files are called {}", name.to_string_lossy()),
                "rename one: a workflow is known by its file's name",
            ));
        }
        fs::copy(&file, dir.join(name)).map_err(io("copy", &file))?;
    }
    let journeys = named_files(home, "checks.journeys", &config.checks.journeys)?;
    if !journeys.is_empty() {
        let kept = dir.join(JOURNEYS).join(looks::KEPT);
        create_dir(kept.parent().unwrap_or(&dir))?;
        crate::home::write_json(&kept, &looks::approved(home)?)?;
    }
    for file in journeys {
        load_journey(&file)?;
        let folder = dir.join(JOURNEYS);
        create_dir(&folder)?;
        fs::copy(&file, folder.join(file.file_name().unwrap_or_default())).map_err(io("copy", &file))?;
    }
    Ok(())
}

/// Where kept journeys lie among kept workflows.
const JOURNEYS: &str = "journeys";

fn load_journey(file: &Path) -> Result<(String, Journey), EngineError> {
    let text = fs::read_to_string(file).map_err(io("read", file))?;
    let shown = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let id = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut journey = Journey::parse(&shown, &text).map_err(located)?;
    if journey.name.is_empty() {
        journey.name.clone_from(&id);
    }
    Ok((id, journey))
}

/// Files of a folder, in order of name; none where there is no folder.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut files: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io("list", dir)(e)),
    };
    files.sort();
    Ok(files)
}

fn located(error: WorkflowError) -> EngineError {
    let WorkflowError { file, line, message, hint, .. } = error;
    EngineError::Config(ConfigError { file, line, message, hint })
}

fn load(file: &Path) -> Result<(String, Workflow), EngineError> {
    let text = fs::read_to_string(file).map_err(io("read", file))?;
    let shown = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let workflow = Workflow::parse(&format!("checks/{shown}"), &text).map_err(located)?;
    let id = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok((id, workflow))
}

impl Suite {
    /// Loads what `keep` kept.
    pub fn load(home: &Home, run: &RunId, config: &Config) -> Result<Self, EngineError> {
        let dir = kept_dir(home, run);
        let (files, journeys) = (files_in(&dir)?, files_in(&dir.join(JOURNEYS))?);
        Ok(Self {
            workflows: files.iter().map(|f| load(f)).collect::<Result<_, _>>()?,
            journeys: journeys.iter().map(|f| load_journey(f)).collect::<Result<_, _>>()?,
            approved: looks::read(&dir.join(JOURNEYS).join(looks::KEPT))?,
            invariants: config.checks.invariants.clone(),
            commands: config.checks.commands.clone(),
            api: config.checks.api.clone(),
            performance: config.checks.performance.clone(),
            folder: home.root().to_owned(),
        })
    }

    /// The same, with checks of performance only, or with all but those.
    #[must_use]
    pub fn of_performance(mut self, only: bool) -> Self {
        if only {
            self.workflows.clear();
            self.journeys.clear();
            self.invariants.clear();
            self.commands.clear();
            self.api.clear();
        } else {
            self.performance.clear();
        }
        self
    }

    /// Which kinds of check there are.
    pub fn kinds(&self) -> BTreeSet<CheckKind> {
        let all = [
            (CheckKind::Workflow, self.workflows.is_empty()),
            (CheckKind::Invariant, self.invariants.is_empty()),
            (CheckKind::Command, self.commands.is_empty()),
            (CheckKind::Api, self.api.is_empty()),
            (CheckKind::Performance, self.performance.is_empty()),
            (CheckKind::Journey, self.journeys.is_empty()),
        ];
        all.into_iter().filter(|(_, none)| !none).map(|(kind, _)| kind).collect()
    }

    /// Runs every check that belongs to the phase, each on all targets before the next one.
    pub fn run(
        &self,
        targets: &[Target<'_>],
        phase: CheckPhase,
        say: &dyn Fn(&str),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<CheckResult>, EngineError> {
        let production = phase == CheckPhase::Production;
        let mut results = Vec::new();
        let environment = phase == CheckPhase::Environment;
        if (phase == CheckPhase::Staging || environment)
            && let Some(target) = targets.first().filter(|t| t.through.is_none())
        {
            say(&format!("attacking the isolation of {} from inside", target.environment));
            results.extend(isolation(target));
        }
        for target in targets {
            results.extend(health_results(target));
        }
        if environment {
            return Ok(results);
        }
        for (id, workflow) in &self.workflows {
            if production && !workflow.runs_on_production() {
                continue;
            }
            for target in targets {
                say(&format!("workflow {id} in {}", target.environment));
                results.push(run_workflow(id, workflow, target, &self.folder, cancelled));
            }
        }
        for invariant in &self.invariants {
            if invariant.expect.is_none() && targets.len() < 2 {
                continue; // it compares two states, and there is one
            }
            results.extend(run_invariant(invariant, targets));
        }
        for check in self.commands.iter().filter(|c| !production || c.production) {
            for target in targets {
                say(&format!("command {} in {}", check.name, target.environment));
                results.push(run_command(check, target, &self.folder, cancelled));
            }
        }
        if phase == CheckPhase::Staging
            && let [old, new] = targets
        {
            compared::compare(&self.api, &self.performance, (old, new), say, cancelled, &mut results);
            // Last: what a person leaves behind would be a difference between the two.
            compared::walk((&self.journeys, &self.approved), (old, new), say, cancelled, &mut results);
        }
        Ok(results)
    }
}

fn health_results(target: &Target<'_>) -> Vec<CheckResult> {
    let services = &target.placement.release.services;
    services
        .keys()
        .map(|name| {
            let began = Instant::now();
            let seen = target.world.runtime.probe(&target.placement, name);
            let verdict = if seen.ok {
                Verdict::Pass
            } else {
                Verdict::fail(Failure { at: name.to_string(), what: seen.seen.clone(), ..Failure::default() })
            };
            CheckResult {
                measured: BTreeMap::from([("seen".to_owned(), seen.seen)]),
                ..blank(format!("health/{name}"), CheckKind::Health, target, verdict, began)
            }
        })
        .collect()
}

/// Whether anything could be reached from inside that must not be; nothing where the runtime has no isolation to try.
fn isolation(target: &Target<'_>) -> Option<CheckResult> {
    let began = Instant::now();
    attacked(target, target.world.runtime.attack(&target.placement), began)
}

/// What an attack means.
pub(crate) fn attacked(
    target: &Target<'_>,
    ended: Result<Option<Vec<Ended>>, EngineError>,
    began: Instant,
) -> Option<CheckResult> {
    let result = |verdict| blank("isolation/attack".to_owned(), CheckKind::Isolation, target, verdict, began);
    let ended = match ended {
        Ok(ended) => ended?,
        Err(e) => return Some(result(Verdict::Inconclusive { why: e.to_string() })),
    };
    let reached = ended.iter().filter(|e| e.reached).map(|e| Failure {
        at: e.attempt.what.clone(),
        what: format!("it can be reached from inside the environment: {}", e.seen),
        expected: Some("no way there".to_owned()),
        got: Some(e.seen.clone()),
        reproduce: None,
    });
    let verdict = Verdict::from_failures(reached.collect());
    let count = ended.iter().filter(|e| e.reached).count();
    Some(CheckResult {
        measured: BTreeMap::from([
            ("attempts".to_owned(), ended.len().to_string()),
            ("that reached something".to_owned(), count.to_string()),
        ]),
        steps: ended
            .into_iter()
            .map(|e| CheckStep { name: e.attempt.what, ok: !e.reached, took_ms: e.took_ms, seen: e.seen })
            .collect(),
        ..result(verdict)
    })
}

fn blank(id: String, kind: CheckKind, target: &Target<'_>, verdict: Verdict, began: Instant) -> CheckResult {
    CheckResult {
        looks: Vec::new(),
        id,
        kind,
        environment: target.environment.clone(),
        verdict,
        took_ms: crate::runtime::process::elapsed_ms(began),
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
    }
}

fn run_workflow(
    id: &str,
    workflow: &Workflow,
    target: &Target<'_>,
    folder: &Path,
    cancelled: &dyn Fn() -> bool,
) -> CheckResult {
    let sql = |store: &StoreName, sql: &str, values: &[serde_json::Value]| target.sql(store, sql, values);
    let sent = || {
        let egress = target.world.runtime.egress(&target.placement).map_err(|e| e.to_string())?;
        match egress.not_observed {
            Some(why) => Err(why),
            None => Ok(egress.latest),
        }
    };
    // A workflow may use the variables of the services' own env files: tokens live there.
    let known = |name: &str| {
        std::env::var(name).ok().or_else(|| target.world.runtime.variable(&target.placement, name))
    };
    let context = WorkflowContext {
        environment: target.environment.clone(),
        endpoints: target.endpoints(),
        run_id: format!("{}-{}", target.run, target.environment.replace(' ', "-")),
        env: &known,
        redactor: Redactor::from_values(target.world.runtime.secrets(&target.placement)),
        base_dir: folder.to_owned(),
        sql: Some(&sql),
        sent: Some(&sent).filter(|_| !target.placement.instance.is_production()).map(|s| s as _),
        cancel: cancelled,
    };
    CheckResult { id: format!("workflow/{id}"), ..workflow::run(workflow, &context) }
}

fn run_invariant(invariant: &Invariant, targets: &[Target<'_>]) -> Vec<CheckResult> {
    let name = invariant.name.clone().unwrap_or_else(|| invariant.sql.clone());
    let mut first: Option<serde_json::Value> = None;
    let mut results = Vec::new();
    for target in targets {
        let began = Instant::now();
        let (verdict, seen) = match target.sql(&invariant.store, &invariant.sql, &[]) {
            // Missing data is inconclusive, never a pass.
            Err(e) => (Verdict::Inconclusive { why: e }, String::new()),
            Ok(value) => {
                let expected = invariant.expect.clone().or_else(|| first.clone());
                first.get_or_insert_with(|| value.clone());
                let verdict = match expected {
                    Some(expected) if expected != value => Verdict::fail(Failure {
                        at: invariant.store.to_string(),
                        what: format!("{name} is {value}"),
                        expected: Some(expected.to_string()),
                        got: Some(value.to_string()),
                        reproduce: None,
                    }),
                    _ => Verdict::Pass,
                };
                (verdict, value.to_string())
            }
        };
        results.push(CheckResult {
            measured: BTreeMap::from([("value".to_owned(), seen), ("sql".to_owned(), invariant.sql.clone())]),
            ..blank(format!("invariant/{name}"), CheckKind::Invariant, target, verdict, began)
        });
    }
    results
}

fn run_command(
    check: &CommandCheck,
    target: &Target<'_>,
    folder: &Path,
    cancelled: &dyn Fn() -> bool,
) -> CheckResult {
    let wanted = command::CommandCheck {
        id: check.name.clone(),
        command: match &check.run {
            CommandLine::Words(words) => command::CommandLine::Argv(words.clone()),
            CommandLine::Shell(line) => command::CommandLine::Shell(line.clone()),
        },
        timeout: check.timeout,
        junit: check.junit.iter().cloned().collect(),
    };
    command::run(
        &wanted,
        &CommandContext {
            environment: target.environment.clone(),
            endpoints: target.endpoints(),
            run_id: target.run.to_owned(),
            base_dir: folder.to_owned(),
            redactor: Redactor::from_values(target.world.runtime.secrets(&target.placement)),
            cancel: cancelled,
        },
    )
}
