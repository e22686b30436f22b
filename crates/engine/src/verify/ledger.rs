//! What comes of a run: the evidence, the files kept for it, and what is left of the sandbox.

use super::lab::Lab;
use super::production::Footprint;
use super::progress::{self, Kept};
use super::proof::Proof;
use crate::error::{EngineError, io};
use crate::home::create_dir;
use crate::journal::Journal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use switchback_core::check::Artefact;
use switchback_core::criteria::{Evidence, Judgement, Phase};
use switchback_core::ids::{Digest, RunId, ServiceName};

impl Lab<'_> {
    /// Adds evidence.
    pub fn add(&mut self, mut proof: Proof) {
        proof.ended_at_ms = crate::engine::now_ms();
        self.proofs.push(proof);
    }

    /// Says of all evidence of a phase that is not there yet why it is not there.
    pub fn rest(&mut self, phase: Phase, verdict: &Judgement) {
        let missing: Vec<String> = self
            .request
            .catalogue
            .evidence
            .iter()
            .filter(|(id, kind)| kind.phase == Some(phase) && !self.proofs.iter().any(|p| &&p.id == id))
            .filter(|(id, _)| !self.kept.evidence.iter().any(|e| e.id == **id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            // Written after the sandbox is gone.
            let late = matches!(id.as_str(), "staging.disposed" | "staging.production-untouched");
            if late && self.sandbox.is_some() && self.asked(phase) {
                continue;
            }
            let mut proof = Proof::new(id, "");
            match verdict {
                Judgement::Inconclusive { why } => proof.doubt(why),
                Judgement::NotRun { why } => proof.not_run(why),
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
        let theirs: BTreeSet<&RunId> = self.kept.evidence.iter().flat_map(|e| &e.runs).collect();
        remove_earlier(&folder, &theirs)?;
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
            let trouble = sandbox.dispose(self.ground, keep).unwrap_or_else(|e| vec![e.to_string()]);
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
        let Some(before) = self.before.clone().filter(|_| self.asked(Phase::Staging)) else { return };
        let mut proof = Proof::new(
            "staging.production-untouched",
            format!(
                "the same {} with the same start counters, the same files and, where it has them, the same volumes and networks, before and after all phases",
                self.ground.words().many
            ),
        );
        match Footprint::take(self.production, self.ground) {
            Err(e) => {
                proof.doubt(format!("production could not be looked at: {e}"));
            }
            Ok(after) if after.runs != before.runs => {
                proof.doubt("another run changed production meanwhile; nothing can be told apart");
            }
            Ok(after) => {
                let differences = before.differences(&after, self.ground.words().many);
                proof
                    .measure(
                        self.ground.words().many,
                        format!("{} before, {} after", before.seen.running.len(), after.seen.running.len()),
                    )
                    .measure("starts", format!("{:?}", after.seen.starts))
                    .measure("files compared", before.files.len())
                    .demand(differences.is_empty(), "production", differences.join("; "));
            }
        }
        self.add(proof);
        let mut proof = Proof::new(
            "staging.disposed",
            format!("no {}, watchdog, data or folder of staging is left", self.ground.words().many),
        );
        // The sandbox of an interrupted run was removed before anything else was done.
        let earlier = !self.kept.ended.is_empty();
        let trouble = self.trouble.clone().or_else(|| earlier.then(Vec::new));
        let rehearsed = self.rehearsal.is_some() || self.kept.said.is_some();
        match trouble.filter(|_| rehearsed) {
            Some(trouble) => {
                let said = self.said();
                proof.runs.extend(said.iter().map(|(run, _)| run.clone()));
                proof
                    .measure("rehearsal", said.as_ref().map_or("said nothing", |(_, line)| line))
                    .measure(
                        "sandbox",
                        if self.request.keep { "kept on request, nothing runs" } else { "removed" },
                    )
                    .demand(said.is_some(), "rehearsal", "it did not confirm that nothing is left")
                    .demand(self.left.is_empty(), "rehearsal", format!("left are {}", self.left.join(", ")))
                    .demand(trouble.is_empty(), "sandbox", trouble.join("; "));
            }
            None => {
                proof.doubt("nothing was rehearsed");
            }
        }
        self.add(proof);
    }

    /// The rehearsal, and how it said that nothing of its environments is left.
    fn said(&self) -> Option<(RunId, String)> {
        let Some(ran) = &self.rehearsal else { return self.kept.said.clone() };
        let said = ran.report.read_back.iter().find(|l| l.contains("staging environments is left"));
        said.map(|line| (ran.plan.run.clone(), line.clone()))
    }

    /// Keeps what is proved so far, for a run that is killed later.
    pub fn keep_progress(&mut self) -> Result<(), EngineError> {
        self.keep_runs()?;
        let kept = Kept {
            kept_at_ms: crate::engine::now_ms(),
            ended: self.ended.clone(),
            evidence: self.evidence(),
            notes: self.notes.clone(),
            before: self.before.clone(),
            said: self.said(),
            left: self.left.clone(),
            versions: self.versions(),
            ..self.kept.clone()
        };
        progress::write(self.production, &kept)
    }

    /// Says whether everything ran together.
    pub fn full_run(&mut self) {
        if !self.asked(Phase::Integration) {
            let why = "the phase integration was left out".to_owned();
            return self.rest(Phase::Integration, &Judgement::NotRun { why });
        }
        let mut proof = Proof::new(
            "verify.full-run",
            "every phase that exists ran to its end, in one run or in one that was interrupted and gone on with",
        );
        let missing: Vec<&str> = Phase::ALL
            .iter()
            .filter(|p| **p != Phase::Integration && !self.ended.contains(p))
            .map(|p| p.as_str())
            .collect();
        let ended: Vec<&str> = self.ended.iter().map(|p| p.as_str()).collect();
        proof.measure("phases", ended.join(", ")).measure("runs on the sandbox", self.files.len());
        proof.measure("of these before an interruption", self.kept.ended.len());
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
        self.rehearsal
            .as_ref()
            .map_or_else(|| self.kept.versions.clone(), |r| (r.plan.from.clone(), r.plan.to.clone()))
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
        let new = self.proofs.iter().map(|p| {
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
        });
        self.kept.evidence.iter().cloned().chain(new).collect()
    }
}

/// Removes the runs that an earlier acceptance run copied here: folders named by a run's id, nothing else.
fn remove_earlier(folder: &Path, but: &BTreeSet<&RunId>) -> Result<(), EngineError> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kept = but.iter().any(|r| r.as_str() == name);
        if !kept && name.len() == 26 && name.parse::<ulid::Ulid>().is_ok() {
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
