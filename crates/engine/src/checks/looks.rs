//! The looks that a person approved: a file in the stack's folder.

use crate::error::{EngineError, io};
use crate::home::{Home, write_json};
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::look::Approved;

/// The file in the stack's folder; it belongs into version control.
pub const FILE: &str = "approved-looks.json";
/// The copy that a run keeps, in a folder of its own beside its journeys.
pub(super) const KEPT: &str = "looks/approved.json";

fn path(home: &Home) -> PathBuf {
    home.root().join(FILE)
}

/// What was approved so far.
pub fn approved(home: &Home) -> Result<Approved, EngineError> {
    read(&path(home))
}

pub(super) fn read(path: &Path) -> Result<Approved, EngineError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| EngineError::Damaged { what: path.to_owned(), detail: e.to_string() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Approved::default()),
        Err(e) => Err(io("read", path)(e)),
    }
}

/// Writes what is approved.
pub fn write(home: &Home, approved: &Approved) -> Result<(), EngineError> {
    write_json(&path(home), approved)
}
