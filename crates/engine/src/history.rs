//! Files that values are appended to, one JSON object a line, and whose past is bounded.

use crate::error::{EngineError, io};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// Appends a value. A file that is larger than `limit` is put aside first, in place of the one before.
pub fn append<T: Serialize>(path: &Path, value: &T, limit: u64) -> Result<(), EngineError> {
    if fs::metadata(path).is_ok_and(|m| m.len() > limit) {
        fs::rename(path, path.with_extension("old.jsonl")).map_err(io("rename", path))?;
    }
    let mut line =
        serde_json::to_string(value).map_err(|e| EngineError::Internal { detail: e.to_string() })?;
    line.push('\n');
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(io("open", path))?;
    file.write_all(line.as_bytes()).map_err(io("write", path))
}

/// The values of a file and of the one that was put aside, oldest first; lines that are none are left out.
pub fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = [&path.with_extension("old.jsonl"), path].map(|p| fs::read_to_string(p).unwrap_or_default());
    text.iter().flat_map(|t| t.lines()).filter_map(|l| serde_json::from_str(l).ok()).collect()
}
