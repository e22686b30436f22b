//! The samples of a trial, as they are kept: for a watchdog that takes over, and to look into a decision afterwards.

use crate::error::EngineError;
use crate::history;
use crate::home::Home;
use std::path::PathBuf;
use switchback_core::ids::RunId;
use switchback_core::trigger::Sample;

/// A file of this size is put aside, in place of the one before.
const FILE_BYTES: u64 = 4 << 20;

fn file(home: &Home, run: &RunId) -> PathBuf {
    home.run_dir(run).join("trial.jsonl")
}

/// Keeps one more.
pub(super) fn keep(home: &Home, run: &RunId, sample: &Sample) -> Result<(), EngineError> {
    history::append(&file(home, run), sample, FILE_BYTES)
}

/// Those that were kept, oldest first.
pub fn samples(home: &Home, run: &RunId) -> Vec<Sample> {
    history::read(&file(home, run))
}
