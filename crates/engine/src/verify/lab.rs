//! What the phases share: the sandbox, the procedures run on it, and the evidence so far.

use super::Request;
use super::production::{Footprint, begins, open_files};
use super::proof::{Proof, Stop};
use super::sandbox::Sandbox;
use crate::engine::{Notice, RunEnd};
use crate::error::{EngineError, io};
use crate::gather;
use crate::home::{Home, create_dir};
use crate::journal::Journal;
use crate::session::Session;
use crate::store::{self, Progress, Source};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use switchback_core::check::{Artefact, Verdict};
use switchback_core::config::Config;
use switchback_core::criteria::{Evidence, Phase};
use switchback_core::data::Fingerprint;
use switchback_core::ids::{Digest, RunId, ServiceName, StoreName};
use switchback_core::journal::{Event, Outcome, Record, RunState};
use switchback_core::plan::{OnFailure, Plan};
use switchback_core::report::Report;

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
    /// Processes that were looked at.
    pub processes: usize,
    /// Files of production that they had open.
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
    /// Fingerprints of the data that was cloned live, before and after the rehearsal.
    pub cloned_from: Option<[Fingerprints; 2]>,
    /// The answer to a promotion before any rehearsal: an error, as it must be.
    pub uncertified: Option<Result<(), String>>,
    sandbox: Option<Sandbox>,
    proofs: Vec<Proof>,
    before: Option<Footprint>,
    trouble: Option<Vec<String>>,
    files: BTreeMap<RunId, Vec<Artefact>>,
    spans: BTreeMap<RunId, (i64, i64)>,
}

impl<'a> Lab<'a> {
    /// An empty one.
    pub fn new(production: &'a Home, config: &'a Config, request: &'a Request<'a>) -> Self {
        Self {
            production,
            config,
            request,
            ended: Vec::new(),
            notes: Vec::new(),
            rehearsal: None,
            sight: Sight::default(),
            cloned_from: None,
            uncertified: None,
            sandbox: None,
            proofs: Vec::new(),
            before: None,
            trouble: None,
            files: BTreeMap::new(),
            spans: BTreeMap::new(),
        }
    }

    /// Whether a phase was asked for.
    pub fn wants(&self, phase: Phase) -> bool {
        self.request.phases.contains(&phase)
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
        self.before = Some(Footprint::take(self.production)?);
        let cancelled = || self.request.cancel.requested();
        let report = |done, total| {
            (self.request.observe)(&Notice::Doing { text: "copying the data", done, total });
        };
        let progress = Progress { cancel: &cancelled, report: &report };
        let made = Sandbox::make(self.production, self.config, &self.request.versions, &progress);
        if self.request.cancel.requested() {
            // A copy that was made nevertheless is removed with the rest.
            self.sandbox = made.ok();
            return Err(Stop::Interrupted);
        }
        self.sandbox = Some(made?);
        Ok(())
    }

    /// Starts the copy and rehearses the upgrade on it.
    pub fn set_up(&mut self) -> Result<(), Stop> {
        let current = self.sandbox()?.current.clone();
        let up = self.carry_out(&current, |s| s.plan_up(&current))?;
        if !up.done() {
            return Err(EngineError::refused(
                format!("the stack does not start in a sandbox: {}", up.why()),
                "the same would happen in a rehearsal; `verify --keep` keeps the sandbox and its logs",
            )
            .into());
        }
        self.choose_upgrade(&up)?;
        let (config, target) = (self.sandbox()?.desired.clone(), self.sandbox()?.target.clone());
        let answer = self.session()?.plan_promotion(&config, &target, None).map(drop);
        self.uncertified = Some(answer.map_err(|e| e.to_string()));
        let home = self.sandbox()?.home.clone();
        let mut forbidden: Vec<PathBuf> =
            self.sandbox()?.copies.values().map(|(p, _)| PathBuf::from(&p.path)).collect();
        forbidden.push(self.production.state());
        let before = self.live_fingerprints(&up)?;
        let sight = Mutex::new(Sight::default());
        let observe = |notice: &Notice<'_>| {
            if let Notice::Recorded(_, record) = notice
                && begins(&record.event, "checks")
                && let Ok(mut sight) = sight.lock()
            {
                match open_files(&home, "staging/", &forbidden) {
                    Ok((processes, open)) => *sight = Sight { processes, open, error: None },
                    Err(e) => sight.error = Some(e.to_string()),
                }
            }
            (self.request.observe)(notice);
        };
        let ran = self.carry_out_seen(&config, |s| s.plan_rehearsal(&config, &target), &observe)?;
        self.cloned_from = Some([before, self.live_fingerprints(&up)?]);
        self.sight = sight.into_inner().unwrap_or_default();
        self.rehearsal = Some(ran);
        Ok(())
    }

    /// Fingerprints of the sandbox's own production while it runs.
    fn live_fingerprints(&self, up: &Ran) -> Result<Fingerprints, Stop> {
        let mut found = Fingerprints::new();
        for (name, place) in up.plan.instances.values().flat_map(|i| &i.stores) {
            let path = Path::new(&place.path);
            if path.exists() {
                let one = store::fingerprint(place.kind, Source::live(path), &Progress::none())?;
                found.insert(name.clone(), one);
            }
        }
        Ok(found)
    }

    /// Goes to what `switchback.yaml` says; where that is what runs already, an upgrade is made up.
    fn choose_upgrade(&mut self, up: &Ran) -> Result<(), Stop> {
        let running = up.plan.instances.values().next().map(|i| i.release.clone());
        let Some(sandbox) = &mut self.sandbox else { return Ok(()) };
        sandbox.configure_desired()?;
        let (release, _) = gather::release(&sandbox.home, &sandbox.desired, &sandbox.target.versions)?;
        if Some(release) != running {
            return Ok(());
        }
        if let Some((name, service)) = sandbox.desired.services.iter_mut().next() {
            service.env.insert("SWITCHBACK_VERIFY".to_owned(), "1".to_owned());
            self.notes.push(format!(
                "There was no upgrade to try: switchback.yaml says what runs. One was made up: the variable SWITCHBACK_VERIFY=1 was added to {name}. Name a version to try a real one: `switchback verify {name}=VERSION`."
            ));
        }
        sandbox.configure_desired()?;
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

    fn carry_out_seen(
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
        self.carry_out(config, |s| s.plan_promotion(config, &target, None))
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

    /// Adds evidence.
    pub fn add(&mut self, mut proof: Proof) {
        proof.ended_at_ms = crate::engine::now_ms();
        self.proofs.push(proof);
    }

    /// Says of all evidence of a phase that is not there yet why it is not there.
    pub fn rest(&mut self, phase: Phase, verdict: &Verdict) {
        let missing: Vec<String> = self
            .request
            .catalogue
            .evidence
            .iter()
            .filter(|(id, kind)| kind.phase == Some(phase) && !self.proofs.iter().any(|p| &&p.id == id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            // Written after the sandbox is gone.
            let late = matches!(id.as_str(), "staging.disposed" | "staging.production-untouched");
            if late && self.sandbox.is_some() && self.wants(phase) {
                continue;
            }
            let mut proof = Proof::new(id, "");
            match verdict {
                Verdict::Inconclusive { why } => proof.doubt(why),
                Verdict::NotRun { why } => proof.not_run(why),
                other => proof.doubt(other.word()),
            };
            self.add(proof);
        }
    }

    /// A line about a phase that has ended.
    pub fn summary(&self, phase: Phase) -> String {
        let kinds = &self.request.catalogue.evidence;
        let of = self.proofs.iter().filter(|p| kinds.get(&p.id).is_some_and(|k| k.phase == Some(phase)));
        let words: Vec<&str> = of.map(|p| p.verdict().word()).collect();
        let passed = words.iter().filter(|w| **w == "pass").count();
        let failed = words.iter().filter(|w| **w == "fail").count();
        let open = words.len() - passed - failed;
        let mark = if failed > 0 {
            "✗"
        } else if open > 0 {
            "?"
        } else {
            "✓"
        };
        format!(
            "{mark} {}: {passed} of {} pieces of evidence pass, {failed} fail",
            phase.as_str(),
            words.len()
        )
    }

    /// Copies what the sandbox's runs wrote to the folder of the matrix.
    pub fn keep_runs(&mut self) -> Result<(), EngineError> {
        let Some(sandbox) = &self.sandbox else { return Ok(()) };
        let path = sandbox.home.state().join("journal.db");
        if !path.exists() {
            return Ok(());
        }
        let Some(journal) = Journal::open_read(&path)? else { return Ok(()) };
        let folder = self.request.output.join("runs");
        remove_earlier(&folder)?;
        for run in journal.runs(usize::MAX >> 1)? {
            // Trials ended after the run did: the last report says how.
            let report = (self.request.write_report)(&sandbox.home, &run)?;
            self.spans.insert(run.clone(), (report.started_at_ms, report.ended_at_ms));
            let files = keep_run(&sandbox.home.run_dir(&run), &folder.join(run.as_str()), run.as_str())?;
            self.files.insert(run, files);
        }
        Ok(())
    }

    /// Ends and removes the sandbox; what cannot be is evidence too.
    pub fn dispose(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            let root = sandbox.root().to_owned();
            let keep = self.request.keep;
            let trouble = sandbox.dispose(keep).unwrap_or_else(|e| vec![e.to_string()]);
            if keep {
                self.notes.push(format!("The sandbox was kept in {}.", root.display()));
            }
            for line in &trouble {
                self.say(&format!("✗ {line}"));
            }
            self.trouble = Some(trouble);
        }
    }

    /// Looks at production again, now that everything is over.
    pub fn footprint_after(&mut self) {
        let Some(before) = self.before.clone().filter(|_| self.wants(Phase::Staging)) else { return };
        let mut proof = Proof::new(
            "staging.production-untouched",
            "the same processes with the same start counters, and the same files, before and after all phases",
        );
        match Footprint::take(self.production) {
            Err(e) => {
                proof.doubt(format!("production could not be looked at: {e}"));
            }
            Ok(after) if after.runs != before.runs => {
                proof.doubt("another run changed production meanwhile; nothing can be told apart");
            }
            Ok(after) => {
                let differences = before.differences(&after);
                proof
                    .measure(
                        "processes",
                        format!("{} before, {} after", before.processes.len(), after.processes.len()),
                    )
                    .measure("starts", format!("{:?}", after.starts))
                    .measure("files compared", before.files.len())
                    .demand(differences.is_empty(), "production", differences.join("; "));
            }
        }
        self.add(proof);
        let mut proof = Proof::new("staging.disposed", "no process, watchdog or folder of staging is left");
        match (&self.rehearsal, &self.trouble) {
            (Some(ran), Some(trouble)) => {
                let said = ran.report.read_back.iter().find(|l| l.contains("staging environments is left"));
                proof.runs.push(ran.plan.run.clone());
                proof
                    .measure("rehearsal", said.map_or("said nothing", String::as_str))
                    .measure(
                        "sandbox",
                        if self.request.keep { "kept on request, nothing runs" } else { "removed" },
                    )
                    .demand(said.is_some(), "rehearsal", "it did not confirm that nothing is left")
                    .demand(trouble.is_empty(), "sandbox", trouble.join("; "));
            }
            _ => {
                proof.doubt("nothing was rehearsed");
            }
        }
        self.add(proof);
    }

    /// Says whether everything ran together.
    pub fn full_run(&mut self) {
        if !self.wants(Phase::Integration) {
            let why = "the phase integration was left out".to_owned();
            return self.rest(Phase::Integration, &Verdict::NotRun { why });
        }
        let mut proof = Proof::new("verify.full-run", "every phase that exists ran to its end in this run");
        let missing: Vec<&str> = Phase::ALL
            .iter()
            .filter(|p| **p != Phase::Integration && !self.ended.contains(p))
            .map(|p| p.as_str())
            .collect();
        let ended: Vec<&str> = self.ended.iter().map(|p| p.as_str()).collect();
        proof.measure("phases", ended.join(", ")).measure("runs on the sandbox", self.files.len());
        proof.runs.extend(self.files.keys().cloned());
        if missing.is_empty() {
            proof.demand(true, "", "");
        } else {
            proof.not_run(format!("not run to the end: {}", missing.join(", ")));
        }
        self.add(proof);
    }

    /// Versions before and after.
    pub fn versions(&self) -> (BTreeMap<ServiceName, String>, BTreeMap<ServiceName, String>) {
        self.rehearsal.as_ref().map_or_else(Default::default, |r| (r.plan.from.clone(), r.plan.to.clone()))
    }

    /// All evidence, complete.
    pub fn evidence(&self) -> Vec<Evidence> {
        let config = fs::read(self.production.config_file()).unwrap_or_default();
        let mut releases = BTreeMap::new();
        if let Some(ran) = &self.rehearsal {
            for (role, key) in [("from", "candidate/1"), ("to", "candidate/2")] {
                if let Some(instance) = ran.plan.instance(key) {
                    releases.insert(role.to_owned(), instance.release.clone());
                }
            }
        }
        let kinds = &self.request.catalogue.evidence;
        let versions: String = self.request.versions.iter().map(|(n, v)| format!(" {n}={v}")).collect();
        self.proofs
            .iter()
            .map(|p| {
                let kind = kinds.get(&p.id);
                let phase = kind.and_then(|k| k.phase).unwrap_or(Phase::Validation);
                // Evidence is as old as the runs it was read from.
                let spans = || p.runs.iter().filter_map(|r| self.spans.get(r));
                Evidence {
                    id: p.id.clone(),
                    title: kind.map_or_else(
                        || "The stack's own check, on the candidate".to_owned(),
                        |k| k.title.clone(),
                    ),
                    verdict: p.verdict(),
                    measured: p.measured.clone(),
                    threshold: p.threshold.clone(),
                    runs: p.runs.clone(),
                    started_at_ms: spans().map(|s| s.0).min().unwrap_or(p.started_at_ms),
                    ended_at_ms: spans().map(|s| s.1).max().unwrap_or(p.ended_at_ms),
                    tool: self.request.tool.to_owned(),
                    releases: releases.clone(),
                    config: Digest::of(&config),
                    artefacts: p.runs.iter().filter_map(|r| self.files.get(r)).flatten().cloned().collect(),
                    reproduce: if phase == Phase::Integration {
                        format!("switchback verify{versions}")
                    } else {
                        format!("switchback verify{versions} --phase {}", phase.as_str())
                    },
                }
            })
            .collect()
    }
}

/// Removes the runs that an earlier acceptance run copied here: folders named by a run's id, nothing else.
fn remove_earlier(folder: &Path) -> Result<(), EngineError> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 26 && name.parse::<ulid::Ulid>().is_ok() {
            fs::remove_dir_all(entry.path()).map_err(io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Copies reports and logs of a run. Its configuration and data stay behind: they may hold secrets.
fn keep_run(from: &Path, to: &Path, run: &str) -> Result<Vec<Artefact>, EngineError> {
    let mut kept = Vec::new();
    for (folder, prefix) in [(from.to_owned(), ""), (from.join("logs"), "logs/")] {
        let mut names: Vec<String> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.path().is_file())
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| {
                ["report.json", "report.html", "report.md", "junit.xml"].contains(&n.as_str())
                    || n.ends_with(".log")
            })
            .collect();
        names.sort();
        for name in names {
            let target = to.join(prefix).join(&name);
            if let Some(parent) = target.parent() {
                create_dir(parent)?;
            }
            let bytes = fs::read(folder.join(&name)).map_err(io("read", &folder))?;
            fs::write(&target, &bytes).map_err(io("write", &target))?;
            kept.push(Artefact {
                title: name.clone(),
                path: format!("runs/{run}/{prefix}{name}"),
                blake3: Digest::of(&bytes).0,
                bytes: bytes.len() as u64,
            });
        }
    }
    Ok(kept)
}
