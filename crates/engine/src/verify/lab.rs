//! What the phases share: the sandbox, the procedures run on it, and the evidence so far.

use super::Request;
use super::ground::{Ground, Lasting};
use super::production::{Footprint, begins};
use super::progress::Kept;
use super::proof::{Proof, Stop};
use super::sandbox::Sandbox;
use crate::data::Work;
use crate::engine::{Notice, RunEnd};
use crate::error::EngineError;
use crate::home::{Home, create_dir};
use crate::journal::Journal;
use crate::runtime::{Placement, Stage};
use crate::session::Session;
use crate::store::Progress;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use switchback_core::check::Artefact;
use switchback_core::config::Config;
use switchback_core::criteria::Phase;
use switchback_core::data::Fingerprint;
use switchback_core::ids::{RunId, StoreName};
use switchback_core::journal::{Event, Outcome, Record, RunState};
use switchback_core::plan::{CloneMode, OnFailure, Plan};
use switchback_core::release::Instance;
use switchback_core::report::Report;

/// The variable that makes an upgrade where there is none.
const MADE_UP: &str = "SWITCHBACK_VERIFY";

/// A procedure that ran on the sandbox.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its plan.
    pub plan: Plan,
    /// Where it ended.
    pub state: RunState,
    /// What happened.
    pub records: Vec<Record>,
    /// Its report.
    pub report: Report,
}

impl Ran {
    /// Whether it did what was asked for.
    pub fn done(&self) -> bool {
        self.state.ended == Some(Outcome::Done)
    }
    /// Why not, in a line.
    pub fn why(&self) -> String {
        if self.report.reasons.is_empty() {
            self.report.headline.clone()
        } else {
            self.report.reasons.join("; ")
        }
    }
}

/// Fingerprints by store.
pub type Fingerprints = BTreeMap<StoreName, Fingerprint>;

/// What was seen while the rehearsal's environments ran side by side.
#[derive(Debug, Default)]
pub struct Sight {
    /// How many processes or containers were looked at.
    pub looked: usize,
    /// What of production they had open or could reach.
    pub open: Vec<String>,
    /// Why nothing could be seen.
    pub error: Option<String>,
}

/// The state of an acceptance run.
pub struct Lab<'a> {
    /// The real stack; only looked at.
    pub production: &'a Home,
    /// Its configuration.
    pub config: &'a Config,
    /// What it stands on.
    pub ground: &'a dyn Ground,
    /// The runtime and the data.
    pub world: &'a World,
    /// What was asked for.
    pub request: &'a Request<'a>,
    /// Phases that ran to their end.
    pub ended: Vec<Phase>,
    /// Things a reader should know.
    pub notes: Vec<String>,
    /// The rehearsal of the upgrade.
    pub rehearsal: Option<Ran>,
    /// What was seen while it ran.
    pub sight: Sight,
    /// What of the rehearsal was left when it said that nothing was.
    pub left: Vec<String>,
    /// Fingerprints of the data that was cloned live, before and after the rehearsal.
    pub cloned_from: Option<[Fingerprints; 2]>,
    /// The answer to a promotion before any rehearsal: an error, as it must be.
    pub uncertified: Option<Result<(), String>>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) proofs: Vec<Proof>,
    pub(super) before: Option<Footprint>,
    pub(super) trouble: Option<Vec<String>>,
    pub(super) files: BTreeMap<RunId, Vec<Artefact>>,
    pub(super) spans: BTreeMap<RunId, (i64, i64)>,
    /// What an interrupted run proved, which this one goes on with.
    pub(super) kept: Kept,
}

impl<'a> Lab<'a> {
    /// An empty one.
    pub fn new(
        production: &'a Home,
        config: &'a Config,
        request: &'a Request<'a>,
        (ground, world): (&'a dyn Ground, &'a World),
        kept: Kept,
    ) -> Self {
        Self {
            production,
            config,
            ground,
            world,
            request,
            ended: kept.ended.clone(),
            notes: kept.notes.clone(),
            rehearsal: None,
            sight: Sight::default(),
            left: kept.left.clone(),
            cloned_from: None,
            uncertified: None,
            sandbox: None,
            proofs: Vec::new(),
            before: kept.before.clone(),
            trouble: None,
            files: BTreeMap::new(),
            spans: BTreeMap::new(),
            kept,
        }
    }

    /// Whether a phase was asked for.
    pub fn asked(&self, phase: Phase) -> bool {
        self.request.phases.contains(&phase)
    }

    /// Whether a phase is to be run: one that was asked for, and did not end before an interruption.
    pub fn wants(&self, phase: Phase) -> bool {
        self.asked(phase) && !self.kept.ended.contains(&phase)
    }

    /// Tells the person a line.
    pub fn say(&self, text: &str) {
        (self.request.say)(text);
    }

    /// The sandbox.
    pub fn sandbox(&self) -> Result<&Sandbox, EngineError> {
        self.sandbox
            .as_ref()
            .ok_or_else(|| EngineError::Internal { detail: "there is no sandbox".to_owned() })
    }

    /// The rehearsal of the upgrade.
    pub fn rehearsed(&self) -> Result<&Ran, EngineError> {
        self.rehearsal
            .as_ref()
            .ok_or_else(|| EngineError::Internal { detail: "nothing was rehearsed".to_owned() })
    }

    /// Copies the stack.
    pub fn make_sandbox(&mut self) -> Result<(), Stop> {
        if self.before.is_none() {
            self.before = Some(Footprint::take(self.production, self.ground)?);
        }
        let cancelled = || self.request.cancel.requested();
        let report = |done, total| {
            (self.request.observe)(&Notice::Doing { text: "copying the data", done, total });
        };
        let progress = Progress { cancel: &cancelled, report: &report };
        let say = |text: &str| (self.request.observe)(&Notice::Doing { text, done: 0, total: 0 });
        let stage = Stage { say: &say, cancelled: &cancelled, midway: &|| {} };
        let versions = &self.request.versions;
        let made = Sandbox::make(self.ground, self.production, self.config, versions, (stage, &progress));
        if self.request.cancel.requested() {
            // A copy that was made nevertheless is removed with the rest.
            self.sandbox = made.ok().map(|m| m.0);
            return Err(Stop::Interrupted);
        }
        let (sandbox, notes) = made?;
        self.sandbox = Some(sandbox);
        self.notes.extend(notes);
        Ok(())
    }

    /// Starts the copy and rehearses the upgrade on it.
    pub fn set_up(&mut self) -> Result<(), Stop> {
        let current = self.sandbox()?.current.clone();
        let up = {
            let (ground, sandbox) = (self.ground, self.sandbox()?);
            self.carry_out(&current, |s| ground.plan_up(sandbox, s))?
        };
        if !up.done() {
            return Err(EngineError::refused(
                format!("the stack does not start in a sandbox: {}", up.why()),
                "the same would happen in a rehearsal; `verify --keep` keeps the sandbox and its logs",
            )
            .into());
        }
        self.choose_upgrade(&up)?;
        let (config, target) = (self.sandbox()?.desired.clone(), self.sandbox()?.target.clone());
        let answer = self.session()?.plan_promotion(&config, &target, None, &Stage::quiet()).map(drop);
        self.uncertified = Some(answer.map_err(|e| e.to_string()));
        let before = self.live_fingerprints(&up)?;
        let sight = Mutex::new(Sight::default());
        let (sandbox, ground, production) = (self.sandbox()?, self.ground, self.production);
        let told = self.request.observe;
        let observe = |notice: &Notice<'_>| {
            if let Notice::Recorded(_, record) = notice
                // Both versions run now, or have just failed to; this step is never left out.
                && begins(&record.event, "fingerprint-before")
                && let Ok(mut sight) = sight.lock()
            {
                match ground.trespass(sandbox, production) {
                    Ok((looked, open)) => *sight = Sight { looked, open, error: None },
                    Err(e) => sight.error = Some(e.to_string()),
                }
            }
            told(notice);
        };
        let ran =
            self.carry_out_seen(&config, |s| s.plan_rehearsal(&config, &target, &Stage::quiet()), &observe)?;
        self.cloned_from = Some([before, self.live_fingerprints(&up)?]);
        self.sight = sight.into_inner().unwrap_or_default();
        let below = format!("staging/{}", ran.plan.run);
        let left = self.world.runtime.left_below(&self.sandbox()?.home, &below, &[])?;
        self.left.extend(left);
        let folder = self.sandbox()?.home.state().join(&below);
        if folder.exists() {
            self.left.push(folder.display().to_string());
        }
        self.rehearsal = Some(ran);
        Ok(())
    }

    /// Fingerprints of the sandbox's own production while it runs.
    fn live_fingerprints(&self, up: &Ran) -> Result<Fingerprints, Stop> {
        let Some(instance) = up.plan.instances.values().next() else { return Ok(Fingerprints::new()) };
        self.fingerprints(instance, CloneMode::Live)
    }

    /// Fingerprints of the stores of an instance of the sandbox.
    pub fn fingerprints(&self, instance: &Instance, mode: CloneMode) -> Result<Fingerprints, Stop> {
        let mut found = Fingerprints::new();
        self.placed(instance, |at, work| {
            for name in instance.stores.keys() {
                if self.world.data.exists(at, name)? {
                    found.insert(name.clone(), self.world.data.fingerprint(at, name, mode, work)?);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls with an instance of the sandbox and what work on its data needs.
    pub fn placed<T>(
        &self,
        instance: &Instance,
        work: impl FnOnce(&Placement<'_>, &Work<'_>) -> Result<T, EngineError>,
    ) -> Result<T, Stop> {
        let sandbox = self.sandbox()?;
        let release = sandbox.home.release(&instance.release)?;
        let config = if sandbox.settled { &sandbox.desired } else { &sandbox.current };
        let at = Placement { home: &sandbox.home, config, instance, release: &release };
        let temp = sandbox.home.state().join("kept-by-verify").join("scratch");
        create_dir(&temp)?;
        let cancelled = || self.request.cancel.requested();
        let progress = Progress { cancel: &cancelled, report: &|_, _| {} };
        let stage = Stage { say: &|_| {}, cancelled: &cancelled, midway: &|| {} };
        let done = work(&at, &Work { stage, progress: &progress, temp: &temp });
        if self.request.cancel.requested() {
            return Err(Stop::Interrupted);
        }
        Ok(done?)
    }

    /// Goes to what `switchback.yaml` says; where that is what runs already, an upgrade is made up.
    fn choose_upgrade(&mut self, up: &Ran) -> Result<(), Stop> {
        let running = up.plan.instances.values().next().map(|i| i.release.clone());
        let (ground, world) = (self.ground, self.world);
        let Some(sandbox) = &mut self.sandbox else { return Ok(()) };
        sandbox.settled = true;
        ground.settle(sandbox)?;
        let versions = sandbox.target.versions.clone();
        let (release, _) =
            world.runtime.release(&sandbox.home, &sandbox.desired, &versions, &Stage::quiet())?;
        if Some(release) != running {
            return Ok(());
        }
        if let Some((name, config)) = ground.with_variable(sandbox, MADE_UP, Lasting::Kept)? {
            sandbox.desired = config;
            self.notes.push(format!(
                "There was no upgrade to try: the stack's files say what runs. One was made up: the variable {MADE_UP}=1 was added to {name}. Name a version to try a real one: `switchback verify {name}=VERSION`."
            ));
        }
        ground.settle(sandbox)?;
        Ok(())
    }

    /// A session on the sandbox.
    pub fn session(&self) -> Result<Session<'_>, EngineError> {
        // The watchdog of an earlier promotion may be about to let go of it.
        Session::open(&self.sandbox()?.home, "verify", Duration::from_secs(60))
    }

    /// Plans and carries out a procedure on the sandbox.
    pub fn carry_out(
        &self,
        config: &Config,
        plan: impl FnOnce(&Session<'_>) -> Result<Plan, EngineError>,
    ) -> Result<Ran, Stop> {
        self.carry_out_seen(config, plan, self.request.observe)
    }

    /// Plans and carries out a procedure on the sandbox, and tells somebody else than usual.
    pub fn carry_out_seen(
        &self,
        config: &Config,
        plan: impl FnOnce(&Session<'_>) -> Result<Plan, EngineError>,
        observe: crate::engine::Observer<'_>,
    ) -> Result<Ran, Stop> {
        if self.request.cancel.requested() {
            return Err(Stop::Interrupted);
        }
        let mut session = self.session()?;
        let plan = plan(&session)?;
        let end = session.carry_out(&plan, config, self.request.cancel, observe)?;
        drop(session);
        match end {
            RunEnd::Interrupted => Err(Stop::Interrupted),
            RunEnd::Ended(_) => Ok(self.ran(&plan.run)?),
        }
    }

    /// Reads a run of the sandbox and writes its report.
    pub fn ran(&self, run: &RunId) -> Result<Ran, EngineError> {
        let home = &self.sandbox()?.home;
        let report = (self.request.write_report)(home, run)?;
        let (plan, state, records) = self.journal()?.load(run)?;
        Ok(Ran { plan, state, records, report })
    }

    /// The sandbox's journal.
    pub fn journal(&self) -> Result<Journal, EngineError> {
        let path = self.sandbox()?.home.state().join("journal.db");
        Journal::open_read(&path)?
            .ok_or_else(|| EngineError::Internal { detail: "the sandbox has no journal".to_owned() })
    }

    /// Promotes on the sandbox.
    pub fn promote(&self, config: &Config) -> Result<Ran, Stop> {
        let target = self.sandbox()?.target.clone();
        self.carry_out(config, |s| s.plan_promotion(config, &target, None, &Stage::quiet()))
    }

    /// Rolls back on the sandbox, as a person would.
    pub fn roll_back(&self, config: &Config, reason: &str) -> Result<Ran, Stop> {
        self.carry_out(config, |s| s.plan_rollback(config, None, reason, OnFailure::Undo))
    }

    /// Waits until a condition yields something; asks every 20 ms.
    pub fn wait_for<T>(
        &self,
        at_most: Duration,
        mut look: impl FnMut() -> Result<Option<T>, EngineError>,
    ) -> Result<Option<T>, Stop> {
        let deadline = Instant::now() + at_most;
        loop {
            if self.request.cancel.requested() {
                return Err(Stop::Interrupted);
            }
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the trial of a promotion has ended.
    pub fn wait_trial(&self, run: &RunId, at_most: Duration) -> Result<Option<Event>, Stop> {
        self.wait_for(at_most, || {
            let ended = |e: &Event| {
                matches!(
                    e,
                    Event::TrialConfirmed { .. } | Event::TrialFailed { .. } | Event::TrialCancelled { .. }
                )
            };
            Ok(self.journal()?.run(run)?.into_iter().map(|r| r.event).find(|e| ended(e)))
        })
    }
}
