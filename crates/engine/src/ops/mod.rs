//! The operations: what each step does to the world, and how it is reversed.
//!
//! Every operation is safe to run twice, and finds out from the world, not from memory, what is left to
//! do. None makes a choice: paths, ports and generations come from the plan.

mod apart;
mod backup;
mod capture;
mod carry;
mod checks;
mod convert;
mod data;
mod discard;
mod grace;
mod hooks;
mod judge;
mod lint;
mod mask;
mod pointer;
mod preflight;
mod queries;
mod scaling;
mod services;
mod staging;
mod trace;
mod versions;
mod wal;

pub(crate) use data::differing;
pub(crate) use judge::BOOKKEEPING;
pub use judge::{is_bookkeeping, losses, may_change};
pub use pointer::over_budget;
pub use versions::edit_versions;
pub(crate) use wal::told as replayed;

use crate::engine::{Cancel, Notice, Observer};
use crate::error::EngineError;
use crate::fault::{self, At, Way};
use crate::home::Home;
use crate::runtime::{Placement, Stage};
use crate::world::World;
use std::path::PathBuf;
use switchback_core::config::Config;
use switchback_core::journal::{Output, Record, RunState, StepError};
use switchback_core::plan::{Op, Plan, Step};
use switchback_core::release::{Instance, Release};

/// Everything an operation may look at.
pub struct Context<'a> {
    /// The stack.
    pub home: &'a Home,
    /// What it runs on.
    pub world: &'a World,
    /// The plan.
    pub plan: &'a Plan,
    /// The configuration as of the plan.
    pub config: &'a Config,
    /// Where the run stands.
    pub state: &'a RunState,
    /// Its events so far.
    pub records: &'a [Record],
    /// The step.
    pub step: &'a Step,
    /// From 1; above 1 means that an earlier attempt may have left something.
    pub attempt: u32,
    /// Forward or backward.
    pub way: Way,
    /// Asked within long work.
    pub cancel: &'a Cancel,
    /// Told what is being done.
    pub observe: Observer<'a>,
}

/// A failed operation and what it found nevertheless.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: StepError,
    /// What it found.
    pub output: Box<Output>,
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Self {
        Self { error, output: Box::default() }
    }
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self::from(error.to_step_error())
    }
}

impl From<crate::store::StoreError> for Failed {
    fn from(error: crate::store::StoreError) -> Self {
        Self::from(EngineError::from(error))
    }
}

impl Context<'_> {
    fn instance(&self, key: &str) -> Result<&Instance, EngineError> {
        self.plan
            .instance(key)
            .ok_or_else(|| EngineError::Internal { detail: format!("the plan names no instance {key}") })
    }
    fn release(&self, instance: &Instance) -> Result<Release, EngineError> {
        self.home.release(&instance.release)
    }
    fn placement<'p>(&'p self, instance: &'p Instance, release: &'p Release) -> Placement<'p> {
        Placement { home: self.home, config: self.config, instance, release }
    }
    fn run_dir(&self) -> PathBuf {
        self.home.run_dir(&self.plan.run)
    }
    fn say(&self, text: &str) {
        (self.observe)(&Notice::Doing { text, done: 0, total: 0 });
    }
    /// Calls with a stage that tells the observer, honours a cancellation and knows the crash points.
    fn staged<T>(&self, work: impl FnOnce(&Stage<'_>) -> T) -> T {
        let say = |text: &str| self.say(text);
        let cancelled = || self.cancel.requested();
        let midway = || self.midway();
        work(&Stage { say: &say, cancelled: &cancelled, midway: &midway })
    }
    /// The middle of an operation's effect, for the crash matrix.
    fn midway(&self) {
        fault::point(self.way, self.step.id.as_str(), At::During);
    }
}

/// Performs a step.
pub fn perform(context: &Context<'_>) -> Result<Output, Failed> {
    let output = perform_op(context)?;
    data::foresee(context);
    Ok(output)
}

fn perform_op(context: &Context<'_>) -> Result<Output, Failed> {
    match &context.step.op {
        Op::Preflight { target, need_bytes } => preflight::preflight(context, target, *need_bytes),
        Op::Prepare { instance } => services::prepare(context, instance),
        Op::Hook { when } => hooks::run(context, *when),
        Op::Observe { instance } => checks::observe(context, instance),
        Op::Precopy { from, to } => data::precopy(context, from, to),
        Op::Clone { from, to, mode } => data::clone(context, from, to, *mode),
        Op::Refresh { from, to, mode } => staging::refresh(context, from, to, *mode),
        Op::Compare { source, copy } => staging::compare(context, source, copy),
        Op::Mask { instance, source, mode } => mask::mask(context, instance, source, *mode),
        Op::Count { instance, mode } => staging::count(context, instance, *mode),
        Op::Register { environment, copies } => staging::register(context, environment, copies),
        Op::Unregister { name } => staging::unregister(context, name),
        Op::Base { instance, source } => data::base(context, instance, source),
        Op::Lint => lint::lint(context),
        Op::Convert { instance, source, majors } => convert::convert(context, instance, source, majors),
        Op::TraceBegin { instance } => trace::begin(context, instance),
        Op::TraceEnd { instance } => trace::end(context, instance),
        Op::QueriesBegin { instance, beside } => queries::begin(context, instance, beside.as_deref()),
        Op::QueriesReset { instances } => queries::reset(context, instances),
        Op::Queries { before, after } => queries::compare(context, before, after),
        Op::Migrate { instance, service, source } => services::migrate(context, instance, service, source),
        Op::Start { instance } => services::start(context, instance),
        Op::Stop { instance } => services::stop(context, instance),
        Op::StartServices { instance, services, instead_of } => {
            apart::start(context, instance, services, Some(instead_of))
        }
        Op::StopServices { instance, services } => apart::stop(context, instance, services),
        Op::Seal { instance, equal_to } => discard::seal(context, instance, equal_to.as_ref()),
        Op::Discard { instance } => discard::discard(context, instance),
        Op::ReadBack { instance } => services::read_back(context, instance),
        Op::Fingerprint { instance, mode, equal_to } => {
            data::fingerprint(context, instance, *mode, equal_to.as_ref())
        }
        Op::Diff { before, after } => judge::diff(context, before, after),
        Op::Check { instances, phase } => checks::check(context, instances, *phase),
        Op::Dispose { instances } => services::dispose(context, instances),
        Op::Remove { instance } => services::remove_one(context, instance),
        Op::Shrink { instance, source, percent } => scaling::shrink(context, instance, source, *percent),
        Op::Flip { from, to, to_previous, .. } => pointer::flip(context, *from, *to, *to_previous),
        Op::EditVersions { from, to } => versions::edit(context, from, to),
        Op::BeginTrial { instance, .. } => pointer::begin_trial(context, instance),
        Op::Capture { instance } => capture::begin(context, instance),
        Op::Export { abandoned } => data::export(context, abandoned),
        Op::Carry { instance, left, source } => carry::carry(context, instance, *left, source),
        Op::Archive { instance, source } => backup::archive(context, instance, source),
        Op::Retain => backup::retain(context),
        Op::Images { snapshot } => backup::images(context, snapshot),
        Op::Fetch { instance, snapshot, replay } => backup::fetch(context, instance, snapshot, *replay),
        Op::Ship { .. } => wal::ship(context),
        Op::Contents { instance, source } => backup::contents(context, instance, source),
        Op::Integrity { instance } => judge::integrity(context, instance),
        Op::Replay { instance, snapshot, at_ms } => wal::replay(context, instance, snapshot, *at_ms),
        Op::Certify { from, to, valid_ms } => pointer::certify(context, from, to, *valid_ms),
    }
}

/// Reverses a step, finished or not.
pub fn reverse(context: &Context<'_>) -> Result<Output, Failed> {
    if fault::gap(fault::Gap::Undo) {
        return Ok(Output::default());
    }
    match &context.step.op {
        Op::Prepare { instance } => services::unprepare(context, instance),
        Op::Start { instance } => services::stop(context, instance),
        Op::Stop { instance } => services::start(context, instance),
        Op::StartServices { instance, services, .. } => apart::stop(context, instance, services),
        Op::StopServices { instance, services } => apart::start(context, instance, services, None),
        Op::Hook { .. } => hooks::after_all(context),
        Op::Precopy { from, to } => data::forget_precopy(context, from, to),
        Op::Flip { from, from_previous, to, .. } => pointer::unflip(context, *from, *from_previous, *to),
        Op::EditVersions { from, to } => versions::edit(context, to, from),
        Op::Preflight { .. }
        | Op::Observe { .. }
        | Op::Clone { .. }
        | Op::Refresh { .. }
        | Op::Compare { .. }
        | Op::Mask { .. }
        | Op::Count { .. }
        | Op::Register { .. }
        | Op::Unregister { .. }
        | Op::Base { .. }
        | Op::Lint
        | Op::Convert { .. }
        | Op::TraceBegin { .. }
        | Op::TraceEnd { .. }
        | Op::QueriesBegin { .. }
        | Op::QueriesReset { .. }
        | Op::Queries { .. }
        | Op::Migrate { .. }
        | Op::ReadBack { .. }
        | Op::Fingerprint { .. }
        | Op::Diff { .. }
        | Op::Check { .. }
        | Op::Dispose { .. }
        | Op::Remove { .. }
        | Op::Shrink { .. }
        | Op::BeginTrial { .. }
        | Op::Capture { .. }
        | Op::Export { .. }
        | Op::Carry { .. }
        | Op::Archive { .. }
        | Op::Ship { .. }
        | Op::Contents { .. }
        | Op::Integrity { .. }
        | Op::Replay { .. }
        | Op::Retain
        | Op::Images { .. }
        | Op::Fetch { .. }
        | Op::Seal { .. }
        | Op::Discard { .. }
        | Op::Certify { .. } => {
            context.midway();
            Ok(Output::default())
        }
    }
}
