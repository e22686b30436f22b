//! Writing exports: JSON Lines with a digest, and the manifest.
//!
//! Owns durability of export files. It must never report a digest before the bytes are synced.

use super::{Result, StoreError};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use switchback_core::ids::Digest;

/// A JSON Lines file being written.
pub(super) struct Lines {
    path: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    line: Vec<u8>,
}

impl Lines {
    /// Creates the file, which must not exist.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| StoreError::io("create", path, e))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 17, file),
            hasher: blake3::Hasher::new(),
            line: Vec::new(),
        })
    }

    /// Appends one value. Returns the bytes written.
    pub(super) fn push(&mut self, value: &impl Serialize) -> Result<u64> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)
            .map_err(|e| StoreError::io("encode a line of", &self.path, e))?;
        self.line.push(b'\n');
        self.hasher.update(&self.line);
        self.out.write_all(&self.line).map_err(|e| StoreError::io("write", &self.path, e))?;
        Ok(self.line.len() as u64)
    }

    /// Makes the file durable and returns its digest.
    pub(super) fn finish(self) -> Result<Digest> {
        let file = self.out.into_inner().map_err(|e| StoreError::io("write", &self.path, e.into_error()))?;
        file.sync_all().map_err(|e| StoreError::io("fsync", &self.path, e))?;
        Ok(Digest::from(self.hasher.finalize().to_hex().to_string()))
    }
}

/// Writes the manifest durably; the last file of an export.
pub(super) fn manifest(dir: &Path, value: &serde_json::Value) -> Result<()> {
    let path = dir.join("manifest.json");
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| StoreError::io("encode", &path, e))?;
    text.push(b'\n');
    let mut file = File::create_new(&path).map_err(|e| StoreError::io("create", &path, e))?;
    file.write_all(&text).map_err(|e| StoreError::io("write", &path, e))?;
    file.sync_all().map_err(|e| StoreError::io("fsync", &path, e))?;
    super::place::sync_dir(dir)
}
