//! What can be seen of production from outside, before and after: it must be the same.

use super::ground::{Ground, Seen};
use crate::error::{EngineError, io};
use crate::home::{CONFIG_FILE, Home, STATE_DIR};
use crate::journal::Journal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use switchback_core::ids::{Digest, GenerationId};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Procedure;

/// Production at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// What runs and what it uses.
    pub seen: Seen,
    /// Content of the configuration and of the pointer.
    pub files: BTreeMap<String, Option<Digest>>,
    /// Generations on disk.
    pub generations: Vec<GenerationId>,
    /// Runs that began and are about production itself: backups and drills on copies are not.
    pub runs: usize,
}

impl Footprint {
    /// Looks at production.
    pub fn take(home: &Home, ground: &dyn Ground) -> Result<Self, EngineError> {
        let config = crate::world::config(home)?;
        let seen = ground.seen(home, &config)?;
        let mut files = BTreeMap::new();
        for file in [CONFIG_FILE.to_owned(), format!("{STATE_DIR}/current.json")].iter().chain(&seen.files) {
            let content = fs::read(home.root().join(file)).ok().map(|c| Digest::of(&c));
            files.insert(file.clone(), content);
        }
        Ok(Self {
            seen,
            files,
            generations: home.generation_ids()?,
            runs: journal(home)?.map_or(Ok(0), |j| changes(&j))?,
        })
    }

    /// What differs, in words; `many` is what a service consists of.
    pub fn differences(&self, later: &Self, many: &str) -> Vec<String> {
        let mut found = Vec::new();
        if self.seen.running != later.seen.running {
            let list = |p: &Self| p.seen.running.keys().cloned().collect::<Vec<_>>().join(", ");
            let (was, is) = (list(self), list(later));
            found.push(if was == is {
                format!("{many} were replaced or started again: {is}")
            } else {
                format!("{many} were {was} and are {is}")
            });
        }
        if self.seen.starts != later.seen.starts {
            found.push(format!("starts were {:?} and are {:?}", self.seen.starts, later.seen.starts));
        }
        for (what, before) in &self.seen.holds {
            if later.seen.holds.get(what) != Some(before) {
                found.push(format!("{what} changed or is gone"));
            }
        }
        for (file, before) in &self.files {
            if later.files.get(file) != Some(before) {
                found.push(format!("{file} changed"));
            }
        }
        if self.generations != later.generations {
            found.push("the generations on disk changed".to_owned());
        }
        found
    }
}

fn journal(home: &Home) -> Result<Option<Journal>, EngineError> {
    let path = home.state().join("journal.db");
    if path.exists() { Journal::open_read(&path) } else { Ok(None) }
}

/// How many runs began that can change production.
fn changes(journal: &Journal) -> Result<usize, EngineError> {
    let planned = journal.of_kind("planned")?;
    let changes = |e: &Event| matches!(e, Event::Planned { plan } if !plan.procedure.is_aside());
    Ok(planned.iter().filter(|r| changes(&r.event)).count())
}

/// Promotions of production so far: all that took place, and those that a person let through without a
/// certificate.
pub fn promotions(home: &Home) -> Result<(usize, usize), EngineError> {
    let Some(journal) = journal(home)? else { return Ok((0, 0)) };
    let (mut all, mut waived) = (0, 0);
    for run in journal.runs(usize::MAX >> 1)? {
        let (plan, state, _) = journal.load(&run)?;
        if plan.procedure == Procedure::Promote && matches!(state.ended, Some(Outcome::Done)) {
            all += 1;
            waived += usize::from(plan.reason.is_some());
        }
    }
    Ok((all, waived))
}

/// Files that the processes below a folder of a stack's state have open below `forbidden`.
pub fn open_files(
    home: &Home,
    dir: &str,
    forbidden: &[std::path::PathBuf],
) -> Result<(usize, Vec<String>), EngineError> {
    let members = crate::runtime::process::members_below(home, dir, &[])?;
    let mut found = Vec::new();
    for process in &members {
        let fds = format!("/proc/{}/fd", process.pid);
        let entries = match fs::read_dir(&fds) {
            Ok(entries) => entries,
            // It ended meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io("look at", std::path::Path::new(&fds))(e)),
        };
        for path in entries.flatten().filter_map(|e| fs::read_link(e.path()).ok()) {
            if forbidden.iter().any(|f| path.starts_with(f)) && !super::sandbox::is_inside(&path) {
                found.push(format!("process {} has {} open", process.pid, path.display()));
            }
        }
    }
    Ok((members.len(), found))
}

/// Whether an event says that a step has begun.
pub fn begins(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Started { step, .. } if step.as_str() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taken_back::tests::plan;

    #[test]
    fn a_backup_by_the_clock_is_no_change_of_production() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(&dir.path().join("journal.db")).expect("opens");
        let begin = |journal: &mut Journal, run: &str, procedure| {
            let plan = Box::new(plan(run, procedure, (1, "a"), (2, "b")));
            journal.append(&run.into(), 1, &Event::Planned { plan }).expect("appends");
        };
        for (run, procedure) in [
            ("B", Procedure::Backup),
            ("D", Procedure::Drill),
            ("R", Procedure::Rehearse),
            ("E", Procedure::StagingSync),
        ] {
            begin(&mut journal, run, procedure);
            assert_eq!(changes(&journal).expect("reads"), 0, "{procedure:?}");
        }
        begin(&mut journal, "U", Procedure::Up);
        begin(&mut journal, "P", Procedure::Promote);
        begin(&mut journal, "X", Procedure::ProductionDrill);
        assert_eq!(changes(&journal).expect("reads"), 3);
    }
}
