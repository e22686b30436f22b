//! A session: the lock, the journal, and the procedures that the command line and the watchdog share.

use crate::budget;
use crate::certificate;
use crate::checks;
use crate::engine::{Cancel, Engine, Observer, RunEnd, now_ms, rolled_back_by};
use crate::error::EngineError;
use crate::fault::{self, At, Gap, Way, gap};
use crate::gather::{self, Target};
use crate::give_way;
use crate::home::{CONFIG_FILE, Home, create_dir};
use crate::journal::Journal;
use crate::lock::Lock;
use crate::runtime::{Placement, Stage};
use crate::watch;
use crate::world::World;
use std::time::{Duration, Instant};
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::ids::{GenerationId, RunId};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::{self, OnFailure, Plan, RollbackFacts};

/// The right to change a stack.
pub struct Session<'h> {
    pub(crate) home: &'h Home,
    /// The stack's journal.
    pub journal: Journal,
    _lock: Lock,
}

/// The moment in which a run is recorded, as a crash point.
const BEGINS: &str = "begin";

/// How often who waits for the lock looks at it again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl<'h> Session<'h> {
    /// Takes the lock and opens the journal. Nobody overtakes who wants to roll back.
    pub fn open(home: &'h Home, what: &str, wait: Duration) -> Result<Self, EngineError> {
        let deadline = Instant::now() + wait;
        loop {
            let session = Self::take(home, what, deadline.saturating_duration_since(Instant::now()))?;
            let Some(holder) = give_way::wanted(home) else { return Ok(session) };
            drop(session);
            if Instant::now() >= deadline {
                return Err(EngineError::Busy { holder });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Takes the lock for a rollback: a run that only works on copies is asked to give way, and one that changes
    /// production is waited for, at most `wait` (or as long as it takes). `waits` is told of whom, once. `None` where `ends`
    /// says meanwhile that the rollback is not wanted any more.
    pub fn open_for_rollback(
        home: &'h Home,
        what: &str,
        wait: Option<Duration>,
        ends: &dyn Fn() -> bool,
        waits: &dyn Fn(&str),
    ) -> Result<Option<Self>, EngineError> {
        let began = Instant::now();
        let (mut announced, mut told) = (None, false);
        loop {
            match Self::take(home, what, Duration::ZERO) {
                Err(EngineError::Busy { holder }) => {
                    let limit = wait.map(|w| match give_way::production_changes(home) {
                        true => w,
                        false => w.max(give_way::PATIENCE),
                    });
                    if limit.is_some_and(|limit| began.elapsed() >= limit) {
                        return Err(EngineError::Busy { holder });
                    }
                    if ends() {
                        return Ok(None);
                    }
                    announced = announced.or_else(|| give_way::Announcement::make(home, what));
                    if !std::mem::replace(&mut told, true) {
                        waits(&holder);
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                other => return other.map(Some),
            }
        }
    }

    fn take(home: &'h Home, what: &str, wait: Duration) -> Result<Self, EngineError> {
        home.create_state()?;
        // On a full disk not even the lock can be taken, and production may have to be brought back.
        let full = home.is_full();
        if full {
            home.release_reserve();
        }
        let lock = Lock::take(&home.state().join("lock"), what, wait)?;
        let journal = Journal::open(&home.state().join("journal.db"))?;
        if !full {
            home.keep_reserve();
        }
        home.sweep();
        Ok(Self { home, journal, _lock: lock })
    }

    /// Ends what a killed program left at work on the stack's data before it had begun a run. Every run does so first.
    pub fn end_leftovers(&self, config: &Config) -> Result<(), EngineError> {
        World::open(config)?.data.end_leftovers(self.home)
    }

    /// Refuses to begin while an earlier run is unfinished: its state must be settled first.
    pub fn require_settled(&self) -> Result<(), EngineError> {
        let Some(run) = self.journal.unfinished()?.pop() else { return Ok(()) };
        let (plan, ..) = self.journal.load(&run)?;
        Err(EngineError::Refused {
            message: format!("the {} {run} was interrupted and is not finished", plan.procedure.noun()),
            hint: Some(
                "`switchback resume` goes on with it, `switchback resume --abort` undoes it".to_owned(),
            ),
        })
    }

    /// Like [`Self::require_settled`], but an interrupted rehearsal or run of a staging environment, which is no
    /// business of production's, does not stand in the way of a rollback.
    pub fn require_settled_for_rollback(&self) -> Result<(), EngineError> {
        for run in self.journal.unfinished()? {
            let procedure = self.journal.load(&run)?.0.procedure;
            if !procedure.is_aside() {
                return self.require_settled();
            }
        }
        Ok(())
    }

    /// Refuses while a promotion is on trial.
    pub fn require_no_trial(&self) -> Result<(), EngineError> {
        let Some(trial) = watch::current(&self.journal)? else { return Ok(()) };
        let generation = trial.state.trial.as_ref().map_or(GenerationId(0), |t| t.generation);
        Err(EngineError::refused(
            format!("generation {generation} is on trial"),
            "wait until the trial has ended (`switchback status`), or `switchback rollback`",
        ))
    }

    /// Keeps the configuration and checks with a run, so that it sees the same ones to its end.
    pub fn keep(&self, run: &RunId, config: &Config) -> Result<(), EngineError> {
        let dir = self.home.run_dir(run);
        create_dir(&dir)?;
        checks::keep(self.home, run, config)?;
        let text = serde_yaml_ng::to_string(config)
            .map_err(|e| EngineError::Internal { detail: format!("cannot keep the configuration: {e}") })?;
        crate::home::write_atomic(&dir.join(CONFIG_FILE), text.as_bytes())
    }

    /// Plans a rehearsal.
    pub fn plan_rehearsal(
        &self,
        config: &Config,
        target: &Target,
        stage: &Stage<'_>,
    ) -> Result<Plan, EngineError> {
        let world = World::open(config)?;
        let plan = plan::rehearse(&gather::rehearse_facts(self.home, config, &world, target, stage)?);
        crate::path::refuse_skips(config, &plan.from, &plan.to)?;
        Ok(plan)
    }

    /// Plans a promotion, and confirms that a certificate permits it.
    pub fn plan_promotion(
        &self,
        config: &Config,
        target: &Target,
        waiver: Option<String>,
        stage: &Stage<'_>,
    ) -> Result<Plan, EngineError> {
        let world = World::open(config)?;
        let plan = plan::promote(&gather::promote_facts(self.home, config, &world, target, waiver, stage)?)
            .with_hooks(&config.hooks);
        crate::path::refuse_skips(config, &plan.from, &plan.to)?;
        if let Some(certificate) = certificate::permits(self.home, &plan)? {
            budget::holds(self.home, config, &plan, &certificate)?;
        }
        Ok(plan)
    }

    /// Has production's databases keep nothing of their log any more, where no trial needs it and that was left undone.
    pub fn end_capture(&self, config: &Config, world: &World) -> Result<(), EngineError> {
        let Some(pointer) = self.home.pointer()? else { return Ok(()) };
        let instance = self.home.generation(pointer.current)?.instance;
        let open = crate::capture::open_spools(self.home, &instance);
        if open.is_empty() || crate::watch::current(&self.journal)?.is_some() {
            return Ok(());
        }
        let Some(capturing) = world.data.capturing() else { return Ok(()) };
        let release = self.home.release(&instance.release)?;
        let at = Placement { home: self.home, config, instance: &instance, release: &release };
        open.iter().try_for_each(|name| capturing.end(&at, name))
    }

    /// Plans a rollback to a generation, or to the previous one.
    pub fn plan_rollback(
        &self,
        config: &Config,
        to: Option<GenerationId>,
        reason: &str,
        on_failure: OnFailure,
    ) -> Result<Plan, EngineError> {
        let Some(pointer) = self.home.pointer()? else {
            return Err(EngineError::refused(
                "the stack has no generation yet",
                "`switchback up` makes the first",
            ));
        };
        let Some(to) = to.or(pointer.previous) else {
            return Err(EngineError::refused(
                format!("generation {} has no previous generation to return to", pointer.current),
                "only a promotion makes a generation that can be left again",
            ));
        };
        if to == pointer.current {
            return Err(EngineError::refused(
                format!("production already runs generation {to}"),
                "nothing was done",
            ));
        }
        let target = self.home.generation(to)?;
        let current = self.home.generation(pointer.current)?.instance;
        crate::apart::may_return(&current, &target.instance, pointer.previous)?;
        Ok(plan::rollback(&RollbackFacts {
            run: gather::new_run(),
            stack: config.stack.clone(),
            now_ms: now_ms(),
            leave: current,
            target_previous: target.previous.filter(|p| self.home.generation(*p).is_ok()),
            target: target.instance,
            pointer_previous: pointer.previous,
            budget_ms: config.rollback.budget.as_millis(),
            reason: reason.to_owned(),
            on_failure,
        })
        .with_hooks(&config.hooks))
    }

    /// Plans to start production, adopting the stack if it has no generation yet.
    pub fn plan_up(&self, config: &Config, stage: &Stage<'_>) -> Result<Plan, EngineError> {
        let (instance, adopt) = match self.home.pointer()? {
            Some(pointer) => {
                let instance = self.home.generation(pointer.current)?.instance;
                // Containers are told by their engine.
                if config.runtime == RuntimeKind::Process {
                    crate::runtime::process::ports_are_free(self.home, &instance)?;
                }
                (instance, false)
            }
            None => {
                let world = World::open(config)?;
                let adopted = world.runtime.adopted(self.home, config, stage)?;
                (gather::first_generation(self.home, &world, &adopted)?, true)
            }
        };
        Ok(plan::up(
            gather::new_run(),
            config.stack.clone(),
            now_ms(),
            config.rollback.budget.as_millis(),
            &instance,
            adopt,
        ))
    }

    /// Plans to stop production.
    pub fn plan_down(&self, config: &Config) -> Result<Plan, EngineError> {
        let Some(pointer) = self.home.pointer()? else {
            return Err(EngineError::refused(
                "the stack has no generation yet",
                "nothing is running that Switchback started",
            ));
        };
        let instance = self.home.generation(pointer.current)?.instance;
        Ok(plan::down(
            gather::new_run(),
            config.stack.clone(),
            now_ms(),
            config.rollback.budget.as_millis(),
            &instance,
        ))
    }

    /// Records a plan and carries it out. A rollback ends the trial of the generation that it leaves.
    pub fn carry_out(
        &mut self,
        plan: &Plan,
        config: &Config,
        cancel: &Cancel,
        observe: Observer<'_>,
    ) -> Result<RunEnd, EngineError> {
        let ends = self.trial_ended_by(plan)?;
        self.begin(plan, config, ends.as_ref(), observe)?;
        self.perform(plan, config, cancel, observe)
    }

    /// Records a plan, and with it the end of the trial that it ends: both or neither, so that whatever happens either the trial or the
    /// run is there for somebody to go on with.
    pub(crate) fn begin(
        &mut self,
        plan: &Plan,
        config: &Config,
        ends: Option<&(RunId, Event)>,
        observe: Observer<'_>,
    ) -> Result<(), EngineError> {
        self.keep(&plan.run, config)?;
        if let (Some((trial, _)), plan::Procedure::ServiceRollback) = (ends, plan.procedure) {
            watch::keep_before(self.home, trial, &plan.run)?;
        }
        fault::point(Way::Do, BEGINS, At::Before);
        let cancel = Cancel::never();
        Engine { home: self.home, journal: &mut self.journal, observe, cancel }.begin(plan, ends)?;
        fault::point(Way::Do, BEGINS, At::After);
        Ok(())
    }

    /// Carries out a plan that is recorded.
    pub(crate) fn perform(
        &mut self,
        plan: &Plan,
        config: &Config,
        cancel: &Cancel,
        observe: Observer<'_>,
    ) -> Result<RunEnd, EngineError> {
        let cancel = self.cancel_of(plan, cancel);
        let mut engine = Engine { home: self.home, journal: &mut self.journal, observe, cancel };
        guard(self.home, plan)?;
        let end = engine.run(plan, config)?;
        self.tidy(plan, &end);
        Ok(end)
    }

    /// Goes on with a run, or undoes it.
    pub fn resume(
        &mut self,
        run: &RunId,
        abort: bool,
        cancel: &Cancel,
        observe: Observer<'_>,
    ) -> Result<RunEnd, EngineError> {
        let (plan, state, _) = self.journal.load(run)?;
        if state.ended.is_none() {
            self.journal.append(run, now_ms(), &Event::Resumed { pid: std::process::id() })?;
            if abort {
                let reason = "undone on request".to_owned();
                self.journal.append(run, now_ms(), &Event::AbortRequested { reason })?;
            }
        }
        let config = self.home.run_config(run)?;
        guard(self.home, &plan)?;
        let cancel = self.cancel_of(&plan, cancel);
        let mut engine = Engine { home: self.home, journal: &mut self.journal, observe, cancel };
        let end = engine.run(&plan, &config)?;
        self.tidy(&plan, &end);
        Ok(end)
    }

    /// What only works on copies gives way to a rollback.
    fn cancel_of(&self, plan: &Plan, cancel: &Cancel) -> Cancel {
        match plan.procedure.is_aside() {
            true => cancel.giving_way(self.home),
            false => cancel.clone(),
        }
    }

    /// Undoes the runs that gave way to the rollback that is done now: their copies are of no use to anybody.
    pub fn undo_what_gave_way(
        &mut self,
        cancel: &Cancel,
        observe: Observer<'_>,
    ) -> Result<Vec<RunId>, EngineError> {
        let mut undone = Vec::new();
        for run in self.journal.unfinished()? {
            if self.journal.load(&run)?.1.gave_way {
                self.resume(&run, true, cancel, observe)?;
                undone.push(run);
            }
        }
        Ok(undone)
    }

    /// The trial that ends with a plan, and how.
    fn trial_ended_by(&self, plan: &Plan) -> Result<Option<(RunId, Event)>, EngineError> {
        if !matches!(plan.procedure, plan::Procedure::Rollback | plan::Procedure::ServiceRollback) {
            return Ok(None);
        }
        let why = rolled_back_by(&plan.run);
        let trial = watch::current(&self.journal)?;
        Ok(trial.map(|trial| (trial.plan.run, Event::TrialCancelled { why })))
    }

    /// Removes private copies of a run that is over, and what staging of it is left after an undo.
    fn tidy(&self, plan: &Plan, end: &RunEnd) {
        if matches!(end, RunEnd::Interrupted | RunEnd::Ended(Outcome::NeedsOperator { .. })) {
            return;
        }
        // Leftovers here cost disk space only; `gc` finds them too.
        let _ = std::fs::remove_dir_all(self.home.run_dir(&plan.run).join("tmp"));
        if gap(Gap::Disposal) {
            return;
        }
        let _ = std::fs::remove_dir_all(self.home.state().join("staging").join(plan.run.as_str()));
    }
}

/// Has a watchdog take over if this process is killed while production is being switched.
fn guard(home: &Home, plan: &Plan) -> Result<(), EngineError> {
    match plan.procedure {
        plan::Procedure::Promote
        | plan::Procedure::Restore
        | plan::Procedure::Carry
        | plan::Procedure::ServiceRollback
        | plan::Procedure::ProductionDrill => watch::ensure(home).map(drop),
        // A rollback does not wait for its guard.
        plan::Procedure::Rollback if watch::holder(home).is_none() => watch::spawn(home),
        _ => Ok(()),
    }
}
