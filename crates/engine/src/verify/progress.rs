//! What an acceptance run keeps after each phase, so that one that was killed can be gone on with.
//!
//! Owns `.switchback/verify-progress.json`. A phase is kept whole or not at all, and the sandbox is not: what runs in one after a
//! crash is nothing that anything could be proved on, so a new one is made. It must never be gone on with after anything changed
//! that the evidence is about.

use super::Request;
use super::ground::Ground;
use super::production::Footprint;
use crate::checks::workflow_files;
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::home::{Home, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::criteria::{Evidence, Phase};
use switchback_core::ids::{Digest, RunId, ServiceName};

const FILE: &str = "verify-progress.json";
const FORMAT: u32 = 1;
/// What was proved longer ago says little of a host as it is now.
const KEEPS: Duration = Duration::from_secs(24 * 3600);

/// What was proved so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// On-disk format.
    pub format: u32,
    /// Digest of everything that the evidence is about.
    pub basis: Digest,
    /// UTC, milliseconds since 1970.
    pub started_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub kept_at_ms: i64,
    /// Phases that ran to their end.
    pub ended: Vec<Phase>,
    /// Their evidence.
    pub evidence: Vec<Evidence>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Production before anything was done.
    pub before: Option<Footprint>,
    /// The rehearsal, and how it said that nothing of it is left.
    pub said: Option<(RunId, String)>,
    /// What of it was left nevertheless.
    pub left: Vec<String>,
    /// Versions before and after.
    pub versions: (BTreeMap<ServiceName, String>, BTreeMap<ServiceName, String>),
}

impl Kept {
    /// Nothing so far.
    pub fn new(basis: Digest) -> Self {
        let now = now_ms();
        Self {
            format: FORMAT,
            basis,
            started_at_ms: now,
            kept_at_ms: now,
            ended: Vec::new(),
            evidence: Vec::new(),
            notes: Vec::new(),
            before: None,
            said: None,
            left: Vec::new(),
            versions: Default::default(),
        }
    }
}

fn path(home: &Home) -> PathBuf {
    home.state().join(FILE)
}

/// A digest of what evidence is about: the program, the question, the stack's files and checks, and what production runs.
pub fn basis(
    home: &Home,
    config: &Config,
    request: &Request<'_>,
    ground: &dyn Ground,
) -> Result<Digest, EngineError> {
    let mut files: BTreeMap<String, Option<Digest>> = Footprint::take(home, ground)?.files;
    for file in workflow_files(home, config)? {
        let content = fs::read(&file).map_err(io("read", &file))?;
        files.insert(file.to_string_lossy().into_owned(), Some(Digest::of(&content)));
    }
    let of = (
        request.tool,
        crate::host_name(),
        &request.versions,
        &request.phases,
        request.catalogue,
        &request.docs,
        files,
    );
    let text = serde_json::to_vec(&of).map_err(|e| EngineError::Internal { detail: e.to_string() })?;
    Ok(Digest::of(&text))
}

/// What an earlier run kept, if it can be gone on with; else why not.
pub fn read(home: &Home, basis: &Digest) -> Result<Kept, String> {
    let path = path(home);
    if !path.exists() {
        return Err("no run was interrupted after a phase".to_owned());
    }
    let kept: Kept = read_json(&path).map_err(|e| e.to_string())?;
    if kept.format != FORMAT {
        return Err("another version of the program kept it".to_owned());
    }
    if kept.basis != *basis {
        return Err(
            "the program, the options, the stack's files or what production runs are not what they were"
                .to_owned(),
        );
    }
    let age = now_ms().saturating_sub(kept.kept_at_ms);
    if !(0..=i64::try_from(KEEPS.as_millis()).unwrap_or(i64::MAX)).contains(&age) {
        return Err("it is older than a day".to_owned());
    }
    Ok(kept)
}

/// Keeps it.
pub fn write(home: &Home, kept: &Kept) -> Result<(), EngineError> {
    write_json(&path(home), kept)
}

/// Forgets what was kept.
pub fn forget(home: &Home) -> Result<(), EngineError> {
    let path = path(home);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
        _ => Ok(()),
    }
}
