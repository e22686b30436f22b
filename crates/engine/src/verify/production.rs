//! What can be seen of production from outside, before and after: it must be the same.

use crate::error::{EngineError, io};
use crate::home::{Home, read_json};
use crate::journal::Journal;
use crate::runtime::process::{instance_members, shim};
use std::collections::BTreeMap;
use std::fs;
use switchback_core::ids::{Digest, GenerationId};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Procedure;

/// Production at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Process id and start time, per process.
    pub processes: BTreeMap<i32, u64>,
    /// How often each service was started.
    pub starts: BTreeMap<String, u32>,
    /// Content of the configuration and of the pointer.
    pub files: BTreeMap<String, Option<Digest>>,
    /// Generations on disk.
    pub generations: Vec<GenerationId>,
    /// Runs that began.
    pub runs: usize,
}

impl Footprint {
    /// Looks at production.
    pub fn take(home: &Home) -> Result<Self, EngineError> {
        let mut footprint = Self {
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            files: BTreeMap::new(),
            generations: home.generation_ids()?,
            runs: journal(home)?.map_or(Ok(0), |j| j.runs(usize::MAX >> 1).map(|r| r.len()))?,
        };
        let config = crate::world::config(home)?;
        let configured = config.services.values().flat_map(|s| s.config.iter().chain(&s.env_file)).cloned();
        for file in ["switchback.yaml".to_owned(), ".switchback/current.json".to_owned()]
            .into_iter()
            .chain(configured)
        {
            let content = fs::read(home.root().join(&file)).ok().map(|c| Digest::of(&c));
            footprint.files.insert(file, content);
        }
        if let Some(pointer) = home.pointer()? {
            let instance = home.generation(pointer.current)?.instance;
            for process in instance_members(home, &instance)? {
                footprint.processes.insert(process.pid, process.started);
            }
            let services = home.instance_dir(&instance).join("services");
            for service in instance.versions.keys() {
                let path = services.join(service.as_str()).join(shim::STATE_FILE);
                if path.exists() {
                    let state: shim::State = read_json(&path)?;
                    footprint.starts.insert(service.to_string(), state.starts);
                }
            }
        }
        Ok(footprint)
    }

    /// What differs, in words.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.processes != later.processes {
            let list = |p: &Self| p.processes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            found.push(format!("processes were {} and are {}", list(self), list(later)));
        }
        if self.starts != later.starts {
            found.push(format!("starts were {:?} and are {:?}", self.starts, later.starts));
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
    let members = crate::runtime::process::members_below(home, dir)?;
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
