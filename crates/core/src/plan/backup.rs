//! The plans around backups: make one, try one, bring one back.

use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps, stores_in};
use crate::environment::BACKUP_COPY;
use crate::ids::{GenerationId, RunId, ServiceName, StackName};
use crate::release::{FORMAT, Instance, PRODUCTION, Shared};
use std::collections::BTreeMap;

/// Ports by service and name.
pub type Ports = BTreeMap<ServiceName, BTreeMap<String, u16>>;

/// What the plan of a backup is made from.
#[derive(Debug, Clone)]
pub struct ArchiveFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Absolute path of the state folder.
    pub state_dir: String,
    /// Production as it is.
    pub production: Instance,
    /// Whether production is running.
    pub production_runs: bool,
    /// Free ports, named as production's: what is written for the clone names some, though nothing listens there.
    pub ports: Ports,
    /// Bytes that the clone needs.
    pub need_bytes: u64,
    /// Rollback budget; only recorded.
    pub budget_ms: u64,
    /// Whether the log of a store is archived.
    pub archived: bool,
    /// What the backup is made of.
    pub copy: BackupCopy,
}

/// The copy that a backup is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackupCopy {
    /// A clone that is removed afterwards.
    #[default]
    Passing,
    /// One that is made now and kept for the next backup.
    First,
    /// The one that was kept is brought up to date.
    Kept,
}

/// What the plan of a drill or a restore is made from.
#[derive(Debug, Clone)]
pub struct FetchFacts {
    /// What is common with a backup.
    pub common: ArchiveFacts,
    /// The snapshot's whole id.
    pub snapshot: String,
    /// The moment that the archived logs are replayed to after it, if any.
    pub at_ms: Option<i64>,
    /// Whether images of its release are gone from the engine, and the snapshot has them.
    pub images: bool,
    /// Production as it was then; its release is known here.
    pub was: Instance,
    /// Free ports for the instance: as many as production has, in their order.
    pub ports: Ports,
    /// The number of the next generation of production.
    pub next: GenerationId,
    /// What a rollback returns to now.
    pub previous: Option<GenerationId>,
    /// Length of the trial.
    pub watch_ms: u64,
}

impl ArchiveFacts {
    pub(super) fn plan(&self, procedure: Procedure, all: &[&Instance], steps: Steps) -> Plan {
        Plan {
            format: FORMAT,
            run: self.run.clone(),
            procedure,
            stack: self.stack.clone(),
            made_at_ms: self.now_ms,
            from: self.production.versions.clone(),
            to: all.last().map_or_else(Default::default, |i| i.versions.clone()),
            from_generation: Some(self.production.generation),
            to_generation: None,
            reason: None,
            budget_ms: self.budget_ms,
            instances: all.iter().map(|i| (i.key(), (*i).clone())).collect(),
            steps: steps.0,
        }
    }

    /// An instance in the run's own folder.
    pub(super) fn beside(
        &self,
        like: &Instance,
        environment: &str,
        generation: u32,
        ports: &Ports,
    ) -> Instance {
        let dir = format!("staging/{}/{environment}/g{generation}", self.run);
        self.beside_in(dir, like, environment, generation, ports)
    }

    fn beside_in(
        &self,
        dir: String,
        like: &Instance,
        environment: &str,
        generation: u32,
        ports: &Ports,
    ) -> Instance {
        Instance {
            environment: environment.to_owned(),
            generation: GenerationId(generation),
            stores: stores_in(
                &like.stores,
                &format!("{}/{dir}", self.state_dir),
                like.project.as_deref().unwrap_or(""),
                &dir.replace('/', "."),
            ),
            dir,
            ports: ports.clone(),
            project: like.project.as_ref().map(|_| {
                let run = self.run.as_str().to_lowercase();
                format!("sb-{}-{environment}", run.get(run.len().saturating_sub(12)..).unwrap_or(&run))
            }),
            shared: Shared::default(),
            ..like.clone()
        }
    }
}

/// Before what they are needed for is looked at.
pub(super) fn images(steps: &mut Steps, snapshot: &str) {
    let op = Op::Images { snapshot: snapshot.to_owned() };
    steps.add("images", "Bring back images that are gone", Group::Prepare, op);
}

pub(super) fn preflight(steps: &mut Steps, target: &Instance, need_bytes: u64) {
    steps.add(
        "preflight",
        "Check disk space, artefacts and ports",
        Group::Prepare,
        Op::Preflight { target: target.key(), need_bytes },
    );
}

pub(super) fn prepare(steps: &mut Steps, target: &Instance, need_bytes: u64) {
    let key = target.key();
    preflight(steps, target, need_bytes);
    steps
        .add("prepare", format!("Prepare {key}"), Group::Prepare, Op::Prepare { instance: key })
        .reversible();
}

/// Replays logs on what a snapshot brought.
pub(super) fn replay(steps: &mut Steps, snapshot: &str, at_ms: Option<i64>, key: &str, group: Group) {
    let Some(at_ms) = at_ms else { return };
    let op = Op::Replay { instance: key.to_owned(), snapshot: snapshot.to_owned(), at_ms };
    let title = format!("Replay the archived log up to {}", crate::times::utc(at_ms));
    steps.add("replay", title, group, op);
}

/// Brings a snapshot back, and replays logs on it where a moment is wanted.
fn fetch(steps: &mut Steps, facts: &FetchFacts, key: &str, group: Group) {
    let (snapshot, replays) = (facts.snapshot.clone(), facts.at_ms.is_some());
    let op = Op::Fetch { instance: key.to_owned(), snapshot, replay: replays };
    steps.add("fetch", "Bring the snapshot back, and compare it with what was backed up", group, op);
    replay(steps, &facts.snapshot, facts.at_ms, key, group);
}

fn dispose(steps: &mut Steps, key: String) {
    steps
        .add("dispose", "Remove the copy", Group::After, Op::Dispose { instances: vec![key] })
        .on_failure(OnFailure::Persist { attempts: 2 });
}

/// Writes a snapshot of production into the repository of backups.
pub fn backup(facts: &ArchiveFacts) -> Plan {
    let copy = match facts.copy {
        BackupCopy::Passing => facts.beside(&facts.production, "backup", 1, &facts.ports),
        _ => facts.beside_in(BACKUP_COPY.to_owned(), &facts.production, "backup", 1, &facts.ports),
    };
    let (source, key) = (facts.production.key(), copy.key());
    let mut steps = Steps::new();
    match facts.copy {
        BackupCopy::Kept => preflight(&mut steps, &copy, facts.need_bytes),
        _ => prepare(&mut steps, &copy, facts.need_bytes),
    }
    let mode = if facts.production_runs { CloneMode::Live } else { CloneMode::Cold };
    if facts.archived && facts.production_runs {
        // A backup without it is better than none.
        let ship = Op::Ship { instance: source.clone() };
        steps
            .add("wal", "Archive the log, which the backup goes on in", Group::Prepare, ship)
            .on_failure(OnFailure::Continue);
    }
    let title = match (facts.copy, mode) {
        (BackupCopy::Kept, CloneMode::Live) => "Bring the kept clone up to date while production runs",
        (BackupCopy::Kept, CloneMode::Cold) => "Bring the kept clone up to date",
        (_, CloneMode::Live) => "Clone production's data while it runs",
        (_, CloneMode::Cold) => "Clone production's data",
    };
    let (from, to) = (source.clone(), key.clone());
    let clone = match facts.copy {
        BackupCopy::Passing => Op::Clone { from, to, mode },
        // Also the first time: what is recorded then makes the next time quick.
        _ => Op::Refresh { from, to, mode },
    };
    steps.add("snapshot", title, Group::Prepare, clone);
    let read = Op::Contents { instance: key.clone(), source: source.clone() };
    steps.add("contents", "Take the content of the clone as digests", Group::Prepare, read);
    let archive = Op::Archive { instance: key.clone(), source };
    steps.add("archive", "Write it into the repository", Group::Check, archive);
    steps
        .add("retain", "Remove backups that no rule keeps", Group::After, Op::Retain)
        .on_failure(OnFailure::Continue);
    if facts.copy == BackupCopy::Passing {
        dispose(&mut steps, key);
    }
    facts.plan(Procedure::Backup, &[&facts.production, &copy], steps)
}

/// Brings a snapshot back into a sandbox, starts it and runs the checks.
pub fn drill(facts: &FetchFacts) -> Plan {
    let common = &facts.common;
    let sandbox = common.beside(&facts.was, "drill", 1, &facts.ports);
    let key = sandbox.key();
    let mut steps = Steps::new();
    if facts.images {
        images(&mut steps, &facts.snapshot);
    }
    prepare(&mut steps, &sandbox, common.need_bytes);
    fetch(&mut steps, facts, &key, Group::Switch);
    let start = Op::Start { instance: key.clone() };
    steps
        .add("start", "Start the services and wait until they are healthy", Group::Switch, start)
        .reversible();
    steps.add("read-back", "Read back what runs", Group::Check, Op::ReadBack { instance: key.clone() });
    let check = Op::Check { instances: vec![key.clone()], phase: CheckPhase::AfterRollback };
    steps.add("check", "Run the checks", Group::Check, check);
    let sound = Op::Integrity { instance: key.clone() };
    steps.add("integrity", "Look for damage in the databases", Group::Check, sound);
    dispose(&mut steps, key);
    common.plan(Procedure::Drill, &[&common.production, &sandbox], steps)
}

/// Brings a snapshot back as production's next generation; the present one stays what a rollback returns to.
pub fn restore(facts: &FetchFacts) -> Plan {
    let common = &facts.common;
    let old = common.production.generation;
    let dir = format!("generations/{}", facts.next);
    let new = Instance {
        environment: PRODUCTION.to_owned(),
        generation: facts.next,
        stores: stores_in(
            &common.production.stores,
            &format!("{}/{dir}", common.state_dir),
            common.production.project.as_deref().unwrap_or(""),
            &format!("g{}", facts.next),
        ),
        dir,
        ports: common.production.ports.clone(),
        project: common.production.project.clone(),
        shared: Shared::default(),
        ..facts.was.clone()
    };
    let (old_key, key) = (common.production.key(), new.key());
    let mut steps = Steps::new();
    if facts.images {
        images(&mut steps, &facts.snapshot);
    }
    prepare(&mut steps, &new, common.need_bytes);
    fetch(&mut steps, facts, &key, Group::Prepare);
    let stop = Op::Stop { instance: old_key.clone() };
    steps.add("stop-old", format!("Stop generation {old}"), Group::Switch, stop).reversible();
    let base = Op::Base { instance: key.clone(), source: key.clone() };
    steps.add("base", "Keep a clone to recognise later writes by", Group::Switch, base);
    let title = format!("Start generation {} and wait until it is healthy", facts.next);
    steps.add("start-new", title, Group::Switch, Op::Start { instance: key.clone() }).reversible();
    steps.add("read-back", "Read back what runs", Group::Check, Op::ReadBack { instance: key.clone() });
    let check = Op::Check { instances: vec![key.clone()], phase: CheckPhase::Production };
    steps.add("gate", "Run the checks that are safe on production", Group::Check, check);
    let flip =
        Op::Flip { from: Some(old), from_previous: facts.previous, to: facts.next, to_previous: Some(old) };
    let title = format!("Point production at generation {}", facts.next);
    steps.add("flip", title, Group::Check, flip).reversible();
    let trial = Op::BeginTrial { instance: key, watch_ms: facts.watch_ms };
    steps.add("begin-trial", "Begin the trial", Group::After, trial);
    let mut plan = common.plan(Procedure::Restore, &[&common.production, &new], steps);
    plan.to_generation = Some(facts.next);
    plan
}
