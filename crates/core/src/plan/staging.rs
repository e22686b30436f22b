//! The plans of staging environments that a person keeps: up, sync, reset, stop, down.

use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps};
use crate::anonymise::Mask;
use crate::environment::Environment;
use crate::ids::{RunId, ServiceName, StackName};
use crate::release::{FORMAT, Instance};
use std::collections::BTreeMap;

/// What the plans of an environment are made from.
#[derive(Debug, Clone)]
pub struct StagingFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Production as it is; nothing of it is changed.
    pub production: Instance,
    /// Whether production is running.
    pub production_runs: bool,
    /// The environment, as it is recorded once the run has succeeded.
    pub environment: Environment,
    /// Services with a migration command whose version is not production's, in order.
    pub migrate: Vec<ServiceName>,
    /// The backup that the data comes from, instead of production: the snapshot's whole id.
    pub snapshot: Option<String>,
    /// The moment that the archived logs are replayed to after it, if any.
    pub at_ms: Option<i64>,
    /// Whether images of its release are gone from the engine, and the snapshot has them.
    pub images: bool,
    /// Bytes that the clones need.
    pub need_bytes: u64,
    /// The rules by which columns are masked.
    pub rules: BTreeMap<String, Mask>,
    /// Rollback budget; only recorded.
    pub budget_ms: u64,
}

impl StagingFacts {
    fn plan(&self, procedure: Procedure, steps: Steps) -> Plan {
        let environment = &self.environment;
        let all = [Some(&self.production), Some(&environment.instance), environment.pristine.as_ref()];
        Plan {
            format: FORMAT,
            run: self.run.clone(),
            procedure,
            stack: self.stack.clone(),
            made_at_ms: self.now_ms,
            from: self.production.versions.clone(),
            to: environment.instance.versions.clone(),
            from_generation: Some(self.production.generation),
            to_generation: None,
            reason: None,
            budget_ms: self.budget_ms,
            instances: all.into_iter().flatten().map(|i| (i.key(), i.clone())).collect::<BTreeMap<_, _>>(),
            steps: steps.0,
        }
    }

    fn key(&self) -> String {
        self.environment.instance.key()
    }

    fn pristine(&self) -> Option<String> {
        self.environment.pristine.as_ref().map(Instance::key)
    }

    fn mode(&self) -> CloneMode {
        if self.production_runs { CloneMode::Live } else { CloneMode::Cold }
    }

    fn preflight(&self, steps: &mut Steps) {
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| self.images) {
            super::backup::images(steps, snapshot);
        }
        steps.add(
            "preflight",
            "Check disk space, artefacts and ports",
            Group::Prepare,
            Op::Preflight { target: self.key(), need_bytes: self.need_bytes },
        );
    }

    /// The steps that bring production's data: into a new environment, or into one that has older data.
    fn data(&self, steps: &mut Steps, new: bool) {
        let (key, pristine) = (self.key(), self.pristine());
        // Also the first time: what is recorded then makes the next time quick.
        let copy = |from: String, to: String, mode: CloneMode| Op::Refresh { from, to, mode };
        let then = if new { OnFailure::Undo } else { OnFailure::Persist { attempts: 2 } };
        let title = if self.production_runs {
            "Copy production's data while it runs"
        } else {
            "Copy production's data"
        };
        // The untouched copy is the snapshot itself.
        let first = pristine.clone().unwrap_or_else(|| key.clone());
        let snapshot = copy(self.production.key(), first.clone(), self.mode());
        match &self.snapshot {
            Some(id) => {
                let fetch =
                    Op::Fetch { instance: first.clone(), snapshot: id.clone(), replay: self.at_ms.is_some() };
                let title = "Bring the backup back, and compare it with what was backed up";
                steps.add("snapshot", title, Group::Prepare, fetch).on_failure(then);
                super::backup::replay(steps, id, self.at_ms, &first, Group::Prepare);
            }
            None => {
                steps.add("snapshot", title, Group::Prepare, snapshot).on_failure(then);
            }
        }
        if !self.rules.is_empty() {
            // Before it is copied on: no second copy has what is masked.
            let title = "Mask personal data in the copy";
            steps
                .add(
                    "mask",
                    title,
                    Group::Prepare,
                    // A backup is no instance that a copy could be refreshed from: it is brought back again by a new run.
                    Op::Mask {
                        source: self
                            .snapshot
                            .as_ref()
                            .map_or_else(|| self.production.key(), |_| first.clone()),
                        instance: first,
                        mode: self.mode(),
                    },
                )
                .on_failure(then);
        }
        if let Some(pristine) = pristine {
            let title = "Copy the snapshot for the environment";
            let (from, to) = (pristine.clone(), key.clone());
            steps.add("copy", title, Group::Prepare, copy(from, to, CloneMode::Cold)).on_failure(then);
            steps
                .add(
                    "compare",
                    "Compare the copy with the snapshot",
                    Group::Prepare,
                    Op::Compare { source: pristine, copy: key },
                )
                .on_failure(then);
        }
    }

    fn migrate_and_start(&self, steps: &mut Steps, new: bool) {
        let key = self.key();
        let then = if new { OnFailure::Undo } else { OnFailure::Persist { attempts: 2 } };
        for service in &self.migrate {
            let source = self.pristine().unwrap_or_else(|| self.production.key());
            steps
                .add(
                    &format!("migrate-{service}"),
                    format!(
                        "Migrate the data of {service} to {}",
                        self.environment.instance.versions.get(service).map_or("", String::as_str)
                    ),
                    Group::Prepare,
                    Op::Migrate { instance: key.clone(), service: service.clone(), source },
                )
                .on_failure(then);
        }
        let start = steps
            .add(
                "start",
                "Start the services and wait until they are healthy",
                Group::Switch,
                Op::Start { instance: key.clone() },
            )
            .on_failure(then);
        if new {
            start.reversible();
        }
        steps
            .add("read-back", "Read back what runs", Group::Check, Op::ReadBack { instance: key.clone() })
            .on_failure(then);
        let check = Op::Check { instances: vec![key], phase: CheckPhase::Environment };
        steps.add("isolation", "Attack the isolation from inside", Group::Check, check).on_failure(then);
    }

    fn register(&self, steps: &mut Steps, id: &str, title: &str, whole: bool, sources: &[&str]) {
        let mut environment = self.environment.clone();
        environment.whole = whole;
        let copies = sources.iter().map(|s| (*s).into()).collect();
        let then = OnFailure::Persist { attempts: 3 };
        steps
            .add(id, title, Group::After, Op::Register { environment: Box::new(environment), copies })
            .on_failure(then);
    }
}

/// The steps whose copies count as bringing production's data.
const COPIES: [&str; 3] = ["snapshot", "copy", "compare"];

/// Makes an environment from production.
pub fn staging_up(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    facts.preflight(&mut steps);
    for key in [Some(facts.key()), facts.pristine()].into_iter().flatten() {
        let id = format!("prepare-{}", key.replace('/', "-"));
        steps.add(&id, format!("Prepare {key}"), Group::Prepare, Op::Prepare { instance: key }).reversible();
    }
    facts.data(&mut steps, true);
    facts.migrate_and_start(&mut steps, true);
    facts.count(&mut steps);
    facts.register(&mut steps, "register", "Record the environment", true, &COPIES);
    facts.plan(Procedure::StagingUp, steps)
}

/// Brings production's present data into an environment.
pub fn staging_sync(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    facts.preflight(&mut steps);
    facts.register(&mut steps, "mark", "Record that its data is being replaced", false, &[]);
    facts.stop(&mut steps);
    facts.data(&mut steps, false);
    facts.migrate_and_start(&mut steps, false);
    facts.count(&mut steps);
    facts.register(&mut steps, "register", "Record the environment", true, &COPIES);
    facts.plan(Procedure::StagingSync, steps)
}

/// Brings back the data that an environment got last.
pub fn staging_reset(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    let (key, pristine) = (facts.key(), facts.pristine().unwrap_or_default());
    facts.register(&mut steps, "mark", "Record that its data is being replaced", false, &[]);
    facts.stop(&mut steps);
    let then = OnFailure::Persist { attempts: 2 };
    let op = Op::Refresh { from: pristine.clone(), to: key.clone(), mode: CloneMode::Cold };
    steps.add("copy", "Copy the data of the last sync again", Group::Prepare, op).on_failure(then);
    let op = Op::Compare { source: pristine, copy: key };
    steps.add("compare", "Compare the copy with the snapshot", Group::Prepare, op).on_failure(then);
    facts.migrate_and_start(&mut steps, false);
    facts.register(&mut steps, "register", "Record the environment", true, &[]);
    facts.plan(Procedure::StagingReset, steps)
}

/// Starts an environment that was stopped.
pub fn staging_start(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    let start = Op::Start { instance: facts.key() };
    steps
        .add("start", "Start the services and wait until they are healthy", Group::Switch, start)
        .on_failure(OnFailure::Persist { attempts: 1 });
    let read_back = Op::ReadBack { instance: facts.key() };
    steps
        .add("read-back", "Read back what runs", Group::Check, read_back)
        .on_failure(OnFailure::Persist { attempts: 1 });
    facts.plan(Procedure::StagingUp, steps)
}

/// Stops an environment and keeps its data.
pub fn staging_stop(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    facts.stop(&mut steps);
    facts.plan(Procedure::StagingStop, steps)
}

/// Removes an environment with everything that belongs to it.
pub fn staging_down(facts: &StagingFacts) -> Plan {
    let mut steps = Steps::new();
    let then = OnFailure::Persist { attempts: 3 };
    // First: what is half removed is no environment any more, and `gc` finds it.
    let name = facts.environment.name.clone();
    steps
        .add("unregister", "Forget the environment", Group::Prepare, Op::Unregister { name })
        .on_failure(then);
    let instances = [Some(facts.key()), facts.pristine()].into_iter().flatten().collect();
    steps
        .add("dispose", "Stop its services and remove its data", Group::Switch, Op::Dispose { instances })
        .on_failure(then);
    facts.plan(Procedure::StagingDown, steps)
}

impl StagingFacts {
    fn stop(&self, steps: &mut Steps) {
        let stop = Op::Stop { instance: self.key() };
        steps
            .add("stop", "Stop the services of the environment", Group::Switch, stop)
            .on_failure(OnFailure::Persist { attempts: 2 });
    }

    fn count(&self, steps: &mut Steps) {
        steps
            .add(
                "count",
                "Count the rows of the copy",
                Group::After,
                Op::Count { instance: self.key(), mode: CloneMode::Live },
            )
            .on_failure(OnFailure::Continue);
    }
}
