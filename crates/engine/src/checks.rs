//! The suite of checks of a stack: which run where, and running them.
//!
//! On production only what cannot change anything runs, unless the user says otherwise.

mod compared;
mod kept;
pub mod looks;

use crate::check::command::{self, CommandContext};
use crate::check::hurl;
use crate::check::workflow::{self, WorkflowContext};
use crate::error::EngineError;
use crate::gateway::attack::Ended;
use crate::home::Home;
use crate::runtime::Placement;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::config::{ApiCheck, CommandCheck, CommandLine, Config, Invariant, PerformanceCheck};
use switchback_core::ids::{RunId, ServiceName, StoreName};
use switchback_core::journey::Journey;
use switchback_core::look::Approved;
use switchback_core::plan::CheckPhase;
use switchback_core::workflow::{Endpoint, Redactor, Workflow};

pub(crate) use kept::named_files;
use kept::{JOURNEYS, files_in, kept_dir, kept_hurl, load, load_journey};
pub use kept::{keep, workflow_files};

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

    /// A variable that a workflow may use: also those of the services' own env files, where tokens live.
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.world.runtime.variable(&self.placement, name))
    }

    /// A word of this run in this environment, for test data.
    fn unique(&self) -> String {
        format!("{}-{}", self.run, self.environment.replace(' ', "-"))
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
    /// Kept files of `hurl`, and the folders that they came from.
    hurl: Vec<(PathBuf, PathBuf)>,
    hurl_limit: Duration,
    journeys: Vec<(String, Journey)>,
    approved: Approved,
    invariants: Vec<Invariant>,
    commands: Vec<CommandCheck>,
    api: Vec<ApiCheck>,
    performance: Vec<PerformanceCheck>,
    folder: PathBuf,
}

impl Suite {
    /// Loads what `keep` kept.
    pub fn load(home: &Home, run: &RunId, config: &Config) -> Result<Self, EngineError> {
        let dir = kept_dir(home, run);
        let (files, journeys) = (files_in(&dir)?, files_in(&dir.join(JOURNEYS))?);
        Ok(Self {
            workflows: files.iter().map(|f| load(f)).collect::<Result<_, _>>()?,
            hurl: kept_hurl(home, &dir),
            hurl_limit: hurl::LIMIT,
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
            self.hurl.clear();
            self.journeys.clear();
            self.invariants.clear();
            self.commands.clear();
            self.api.clear();
        } else {
            self.performance.clear();
        }
        self
    }

    /// The same, with workflows that end after this time at the latest.
    #[must_use]
    pub fn at_most(mut self, limit: Duration) -> Self {
        for (_, workflow) in &mut self.workflows {
            workflow.timeout.0 = workflow.timeout.0.min(limit);
        }
        self.hurl_limit = self.hurl_limit.min(limit);
        self
    }

    /// Which kinds of check there are.
    pub fn kinds(&self) -> BTreeSet<CheckKind> {
        let all = [
            (CheckKind::Workflow, self.workflows.is_empty() && self.hurl.is_empty()),
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
        self.run_until(targets, phase, say, cancelled, &|_| false)
    }

    /// The same, until the results are enough.
    pub fn run_until(
        &self,
        targets: &[Target<'_>],
        phase: CheckPhase,
        say: &dyn Fn(&str),
        cancelled: &dyn Fn() -> bool,
        enough: &dyn Fn(&[CheckResult]) -> bool,
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
        if environment || enough(&results) {
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
            if enough(&results) {
                return Ok(results);
            }
        }
        for (file, folder) in self.hurl.iter().filter(|_| !production) {
            let id = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            for target in targets {
                say(&format!("hurl {id} in {}", target.environment));
                results.push(run_hurl(&id, (file, folder), target, self.hurl_limit, cancelled));
            }
            if enough(&results) {
                return Ok(results);
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
    let known = |name: &str| target.variable(name);
    let context = WorkflowContext {
        environment: target.environment.clone(),
        endpoints: target.endpoints(),
        run_id: target.unique(),
        env: &known,
        redactor: Redactor::from_values(target.world.runtime.secrets(&target.placement)),
        base_dir: folder.to_owned(),
        sql: Some(&sql),
        sent: Some(&sent).filter(|_| !target.placement.instance.is_production()).map(|s| s as _),
        cancel: cancelled,
    };
    CheckResult { id: format!("workflow/{id}"), ..workflow::run(workflow, &context) }
}

fn run_hurl(
    id: &str,
    (file, folder): (&Path, &Path),
    target: &Target<'_>,
    limit: Duration,
    cancelled: &dyn Fn() -> bool,
) -> CheckResult {
    let context = hurl::HurlContext {
        environment: target.environment.clone(),
        endpoints: target.endpoints(),
        run_id: target.unique(),
        root: folder,
        env: &|name| target.variable(name),
        redactor: Redactor::from_values(target.world.runtime.secrets(&target.placement)),
        limit,
        cancel: cancelled,
    };
    hurl::run(id, file, &context)
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
