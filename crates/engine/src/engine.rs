//! The loop: next, journal, perform, journal.
//!
//! One path for fresh and resumed runs. An error of the journal stops the engine at once: nothing is
//! touched that is not recorded first.

use crate::error::EngineError;
use crate::fault::{self, At, Way};
use crate::give_way::Look;
use crate::home::Home;
use crate::journal::Journal;
use crate::ops::{self, Context, Failed};
use crate::world::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::ids::RunId;
use switchback_core::journal::{ErrorKind, Event, Outcome, Output, Record, RunState, StepError};
use switchback_core::next::{Next, gave_up, next};
use switchback_core::plan::{Op, Plan, Step};
use switchback_core::release::PRODUCTION;

/// Asks a run to stop; set by a signal handler, or by somebody who wants to roll back.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    gives_way: Option<Arc<Look>>,
    never: bool,
}

impl Cancel {
    /// The flag itself, for signal handlers.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Asks nothing to stop, ever: for what tidies up after a stop that was asked for.
    pub fn never() -> Self {
        Self { never: true, ..Self::default() }
    }

    /// The same, for what only works on copies: it gives way to a rollback of the stack.
    pub fn giving_way(&self, home: &Home) -> Self {
        if self.never || self.gives_way.is_some() {
            return self.clone();
        }
        Self { gives_way: Some(Arc::new(Look::new(home))), ..self.clone() }
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.gives_way.as_ref().is_some_and(|look| look.asked())
    }

    /// Who wanted to roll back, where that is why a stop was asked for.
    pub fn gave_way_to(&self) -> Option<String> {
        self.gives_way.as_ref().and_then(|look| look.to()).map(str::to_owned)
    }

    fn interrupted(&self) -> Event {
        Event::Interrupted { gave_way_to: self.gave_way_to() }
    }
}

/// What an observer is told while a run goes on.
#[derive(Debug, Clone)]
pub enum Notice<'a> {
    /// An event was recorded.
    Recorded(&'a Plan, &'a Record),
    /// A step says what it is doing now.
    Doing {
        /// In words.
        text: &'a str,
        /// Done so far, of `total` (bytes); zero if not known.
        done: u64,
        /// Of how much.
        total: u64,
    },
}

/// Somebody who is told what happens.
pub type Observer<'a> = &'a (dyn Fn(&Notice<'_>) + Sync);

/// With less space than this, undoing must not depend on finding some.
const LOW_BYTES: u64 = 4 << 20;

/// How long a run waits for an engine that went away: a restart stops its containers first, which have 10 s.
const AWAY: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// The run is over.
    Ended(Outcome),
    /// It was interrupted between two steps and can be resumed.
    Interrupted,
}

/// Why a trial ends when a rollback begins.
pub(crate) fn rolled_back_by(run: &RunId) -> String {
    format!("rolled back by run {run}")
}

/// The current time, UTC, milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Carries out a planned run until it ends or is interrupted. The caller holds the lock.
pub struct Engine<'a> {
    /// The stack.
    pub home: &'a Home,
    /// Its journal.
    pub journal: &'a mut Journal,
    /// Told about everything.
    pub observe: Observer<'a>,
    /// Asked between and within steps.
    pub cancel: Cancel,
}

impl Engine<'_> {
    /// Records a new plan, together with the end of another run's trial where the plan is why it ends. Nothing is touched yet.
    pub fn begin(&mut self, plan: &Plan, ends: Option<&(RunId, Event)>) -> Result<(), EngineError> {
        let (at_ms, planned) = (now_ms(), Event::Planned { plan: Box::new(plan.clone()) });
        let mut events: Vec<_> = ends.into_iter().map(|(run, event)| (run, at_ms, event)).collect();
        events.push((&plan.run, at_ms, &planned));
        self.append_of_runs(plan, &events)?;
        Ok(())
    }

    fn append(&mut self, plan: &Plan, events: &[(i64, &Event)]) -> Result<Vec<Record>, EngineError> {
        let events: Vec<_> = events.iter().map(|(at_ms, event)| (&plan.run, *at_ms, *event)).collect();
        self.append_of_runs(plan, &events)
    }

    fn append_of_runs(
        &mut self,
        plan: &Plan,
        events: &[(&RunId, i64, &Event)],
    ) -> Result<Vec<Record>, EngineError> {
        let records = match self.journal.append_of_runs(events) {
            // The disk is full: what was kept aside lets the run record itself and be undone.
            Err(_) if self.home.release_reserve() => self.journal.append_of_runs(events)?,
            other => other?,
        };
        for record in records.iter().filter(|r| r.run == plan.run) {
            (self.observe)(&Notice::Recorded(plan, record));
        }
        Ok(records)
    }

    /// Runs from wherever the journal says the run stands.
    ///
    /// The end of a step is recorded together with the beginning of the next one, in one transaction: before
    /// the world is touched again, everything up to there is durable. A crash between the two makes the step be
    /// done again, which every step permits.
    pub fn run(&mut self, plan: &Plan, config: &Config) -> Result<RunEnd, EngineError> {
        let world = World::open(config)?;
        world.data.end_leftovers(self.home)?;
        let (_, mut state, mut records) = self.journal.load(&plan.run)?;
        let mut ended: Option<(i64, Event)> = None;
        loop {
            let decision = next(plan, &state);
            let event = match &decision {
                Next::Finished(outcome) => return Ok(RunEnd::Ended(outcome.clone())),
                Next::End(outcome) => Event::Ended { outcome: outcome.clone() },
                Next::Skip(step, because) => {
                    Event::Skipped { step: step.id.clone(), because: because.clone() }
                }
                Next::GiveUp(step) => Event::Failed {
                    step: step.id.clone(),
                    error: gave_up(step),
                    output: Output::default(),
                    took_ms: 0,
                },
                Next::Do(_) | Next::Undo(_) if self.cancel.requested() => self.cancel.interrupted(),
                Next::Do(step) => Event::Started {
                    step: step.id.clone(),
                    attempt: state.steps.get(&step.id).map_or(0, |s| s.attempts) + 1,
                },
                Next::Undo(step) => Event::UndoStarted {
                    step: step.id.clone(),
                    attempt: state.steps.get(&step.id).map_or(0, |s| s.undo_attempts) + 1,
                },
            };
            let mut batch: Vec<_> = ended.iter().map(|(at, e)| (&plan.run, *at, e)).collect();
            batch.push((&plan.run, now_ms(), &event));
            let goes_on = match &decision {
                Next::End(Outcome::Undone { .. }) => self.trial_that_goes_on(plan)?,
                _ => None,
            };
            batch.extend(goes_on.iter().map(|(run, began)| (run, now_ms(), began)));
            let recorded = self.append_of_runs(plan, &batch)?;
            records.extend(recorded.into_iter().filter(|r| r.run == plan.run));
            state.apply(plan, &event);
            if matches!(event, Event::Interrupted { .. }) {
                return Ok(RunEnd::Interrupted);
            }
            let result = match (&decision, &event) {
                (Next::Do(step), Event::Started { attempt, .. }) => {
                    self.perform(plan, config, &world, &state, &records, step, *attempt)?
                }
                (Next::Undo(step), Event::UndoStarted { attempt, .. }) => {
                    self.reverse(plan, config, &world, &state, &records, step, *attempt)
                }
                _ => {
                    ended = None;
                    continue;
                }
            };
            let at_ms = now_ms();
            if matches!(result, Event::Failed { .. } | Event::UndoFailed { .. })
                && let Err(away) = world.runtime.reachable()
            {
                // What failed says nothing about the step, and undoing would fail as well.
                ended = None;
                let Some(back) = self.wait_for(&world, plan, &state, away)? else { continue };
                self.append(plan, &[(now_ms(), &back)])?;
                state.apply(plan, &back);
                world.data.end_leftovers(self.home)?;
                continue;
            }
            if matches!(result, Event::Interrupted { .. }) {
                self.append(plan, &[(at_ms, &result)])?;
                return Ok(RunEnd::Interrupted);
            }
            state.apply(plan, &result);
            ended = Some((at_ms, result));
        }
    }

    /// The trial that ended with the beginning of this plan, and its new beginning: what ended it is undone, and production is
    /// what it was.
    fn trial_that_goes_on(&self, plan: &Plan) -> Result<Option<(RunId, Event)>, EngineError> {
        let ended = Event::TrialCancelled { why: rolled_back_by(&plan.run) };
        let all = self.journal.of_kind("trial_cancelled")?;
        let Some(last) = all.into_iter().rfind(|r| r.event == ended) else { return Ok(None) };
        let (trial, ..) = self.journal.load(&last.run)?;
        Ok(trial.steps.iter().find_map(|step| match &step.op {
            Op::BeginTrial { instance, watch_ms } => {
                let generation = trial.instance(instance)?.generation;
                let deadline_ms = now_ms().saturating_add_unsigned(*watch_ms);
                Some((trial.run.clone(), Event::TrialBegan { generation, deadline_ms }))
            }
            _ => None,
        }))
    }

    /// Waits until what runs the services can be spoken to again: the event that says so, or `None` where a stop was
    /// asked for meanwhile. The run stays unfinished if it does not come back.
    fn wait_for(
        &self,
        world: &World,
        plan: &Plan,
        state: &RunState,
        mut away: EngineError,
    ) -> Result<Option<Event>, EngineError> {
        let began = Instant::now();
        (self.observe)(&Notice::Doing { text: &format!("waiting: {away}"), done: 0, total: 0 });
        while began.elapsed() < AWAY {
            if self.cancel.requested() {
                return Ok(None);
            }
            std::thread::sleep(LOOK_AGAIN);
            match world.runtime.reachable() {
                Ok(()) => return Ok(Some(Event::Resumed { pid: std::process::id() })),
                Err(e) => away = e,
            }
        }
        Err(EngineError::Away {
            run: plan.run.clone(),
            noun: plan.procedure.noun(),
            down: production_down(plan, state),
            why: away.to_string(),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step's context")]
    fn perform(
        &mut self,
        plan: &Plan,
        config: &Config,
        world: &World,
        state: &RunState,
        records: &[Record],
        step: &Step,
        attempt: u32,
    ) -> Result<Event, EngineError> {
        let began = Instant::now();
        let id = step.id.as_str();
        fault::point(Way::Do, id, At::Before);
        if let Op::BeginTrial { instance, watch_ms } = &step.op
            && state.trial.is_none()
            && let Some(instance) = plan.instance(instance)
        {
            let deadline_ms = now_ms().saturating_add_unsigned(*watch_ms);
            let began = Event::TrialBegan { generation: instance.generation, deadline_ms };
            self.append(plan, &[(now_ms(), &began)])?;
        }
        let context = self.context(plan, config, world, state, records, step, attempt, Way::Do);
        let mut result = ops::perform(&context);
        if fault::repeats() && result.is_ok() {
            result = ops::perform(&context);
        }
        if fault::fails(Way::Do, id) && result.is_ok() {
            result = Err(Failed::from(injected()));
        }
        fault::point(Way::Do, id, At::After);
        let took_ms = elapsed(began);
        Ok(match result {
            Ok(output) => Event::Finished { step: step.id.clone(), output, took_ms },
            // A failure that the interruption caused is not the step's: it is done again on resume.
            Err(_) if self.cancel.requested() => self.cancel.interrupted(),
            Err(Failed { error, output }) => {
                Event::Failed { step: step.id.clone(), error, output: *output, took_ms }
            }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step's context")]
    fn reverse(
        &mut self,
        plan: &Plan,
        config: &Config,
        world: &World,
        state: &RunState,
        records: &[Record],
        step: &Step,
        attempt: u32,
    ) -> Event {
        let began = Instant::now();
        let id = step.id.as_str();
        fault::point(Way::Undo, id, At::Before);
        if crate::gather::free_bytes(&self.home.state()).is_ok_and(|free| free < LOW_BYTES) {
            self.home.release_reserve();
        }
        let context = self.context(plan, config, world, state, records, step, attempt, Way::Undo);
        let mut result = ops::reverse(&context);
        if fault::repeats() && result.is_ok() {
            result = ops::reverse(&context);
        }
        if fault::fails(Way::Undo, id) && result.is_ok() {
            result = Err(Failed::from(injected()));
        }
        fault::point(Way::Undo, id, At::After);
        let took_ms = elapsed(began);
        match result {
            Ok(output) => Event::Undone { step: step.id.clone(), output, took_ms },
            Err(_) if self.cancel.requested() => self.cancel.interrupted(),
            Err(Failed { error, .. }) => Event::UndoFailed { step: step.id.clone(), error, took_ms },
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one step's context, named at the only call sites"
    )]
    fn context<'c>(
        &'c self,
        plan: &'c Plan,
        config: &'c Config,
        world: &'c World,
        state: &'c RunState,
        records: &'c [Record],
        step: &'c Step,
        attempt: u32,
        way: Way,
    ) -> Context<'c> {
        Context {
            home: self.home,
            world,
            plan,
            config,
            state,
            records,
            step,
            attempt,
            way,
            cancel: &self.cancel,
            observe: self.observe,
        }
    }
}

/// Whether the production services are expected to be down at this point of an unfinished run.
pub fn production_down(plan: &Plan, state: &RunState) -> bool {
    let mut down = false;
    for step in &plan.steps {
        let status = state.steps.get(&step.id);
        let begun = status.is_some_and(|s| s.attempts > 0);
        let undone = status.is_some_and(|s| s.undone);
        match &step.op {
            Op::Stop { instance } if instance.starts_with(PRODUCTION) && begun => down = !undone,
            Op::StopServices { .. } if begun => down = !undone,
            Op::StartServices { .. } if state.succeeded(&step.id) => down = undone,
            // Nobody reaches a closed one.
            Op::Start { instance } if plan.instance(instance).is_some_and(|i| i.closed) => {}
            Op::Start { instance } if instance.starts_with(PRODUCTION) && state.succeeded(&step.id) => {
                down = undone;
            }
            _ => {}
        }
    }
    down
}

fn injected() -> StepError {
    StepError {
        kind: ErrorKind::Internal,
        message: "failed on request".to_owned(),
        hint: None,
        details: Vec::new(),
    }
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
