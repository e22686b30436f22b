//! Exporting the files that changed between two trees.
//!
//! Owns the layout of a files export: `files/` with every new or changed entry under its relative
//! path, `files.jsonl` with one line per difference, `manifest.json` last.

use super::super::jsonl::{Lines, manifest};
use super::super::place::Place;
use super::super::progress::{Meter, Progress};
use super::super::{Result, Source, StoreError};
use super::census::{Item, kind_name};
use super::clone::Cloner;
use super::diff::differences;
use super::escape;
use super::walk::{Found, ROOT, Visit, walk};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{FileType, Stat, syncfs};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;
use switchback_core::data::{ExportPart, ExportStats};

/// Copies only the wanted entries and the folders above them.
struct Picker<'p> {
    cloner: Cloner<'p>,
    wanted: BTreeSet<Vec<u8>>,
    /// Whether each open folder is left out.
    skipped: Vec<bool>,
}

impl Visit for Picker<'_> {
    fn enter(&mut self, found: &Found<'_>, opened: BorrowedFd<'_>) -> Result<()> {
        let skip = !self.wanted.contains(found.rel);
        self.skipped.push(skip);
        if skip { Ok(()) } else { self.cloner.enter(found, opened) }
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        if self.wanted.contains(found.rel) { self.cloner.leaf(found) } else { Ok(()) }
    }
    fn leave(&mut self, opened: BorrowedFd<'_>, rel: &[u8], stat: &Stat) -> Result<()> {
        if self.skipped.pop() == Some(false) { self.cloner.leave(opened, rel, stat) } else { Ok(()) }
    }
    fn vanished(&mut self, rel: &[u8]) -> Result<()> {
        self.cloner.vanished(rel)
    }
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "$text_base64": BASE64_STANDARD.encode(bytes) }),
    }
}

fn described(item: &Item) -> Value {
    let mut meta = Map::new();
    meta.insert("kind".into(), kind_name(item.kind).into());
    meta.insert("mode".into(), format!("{:o}", item.mode).into());
    meta.insert("uid".into(), item.uid.into());
    meta.insert("gid".into(), item.gid.into());
    if item.kind == FileType::RegularFile {
        meta.insert("size".into(), item.size.into());
    }
    if item.kind == FileType::Symlink {
        meta.insert("target".into(), text(&item.target));
    }
    if !item.xattrs.is_empty() {
        let all: Map<String, Value> = item
            .xattrs
            .iter()
            .map(|(name, value)| (escape(name), json!({ "$blob": BASE64_STANDARD.encode(value) })))
            .collect();
        meta.insert("xattrs".into(), all.into());
    }
    meta.into()
}

/// Exports what differs in `after`.
pub(in super::super) fn export(
    before: Source<'_>,
    after: Source<'_>,
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    let started = Instant::now();
    let place = Place::prepare(out_dir)?;
    place.make_dir()?;
    let (found, _) = differences(before, after, progress)?;
    let dir = place.temp().to_owned();
    let mut lines = Lines::create(&dir.join("files.jsonl"))?;
    let mut part = ExportPart { file: "files.jsonl".to_owned(), ..ExportPart::default() };
    let mut wanted = BTreeSet::new();
    let mut bytes = 0;
    for difference in &found {
        let op = match (&difference.before, &difference.after) {
            (None, _) => {
                part.inserted += 1;
                "insert"
            }
            (_, None) => {
                part.deleted += 1;
                "delete"
            }
            _ => {
                part.updated += 1;
                "update"
            }
        };
        let mut line = Map::new();
        line.insert("op".into(), op.into());
        line.insert("path".into(), text(&difference.rel));
        if let Some(item) = &difference.after {
            line.insert("meta".into(), described(item));
            bytes += item.size;
            want(&mut wanted, &difference.rel);
        }
        if let Some(item) = &difference.before {
            line.insert("before".into(), described(item));
        }
        if !difference.notes.is_empty() {
            line.insert("changed".into(), difference.notes.clone().into());
        }
        lines.push(&line)?;
    }
    part.digest = lines.finish()?;
    let files = dir.join("files");
    let tree = after.path.metadata().map_err(|e| StoreError::read("stat", after.path, e))?.is_dir();
    let to = if tree { files.clone() } else { files.join("content") };
    if !wanted.is_empty() {
        if !tree {
            std::fs::create_dir(&files).map_err(|e| StoreError::io("create", &files, e))?;
        }
        let cloner = Cloner::new(after.path, &to, after.access.into(), Meter::new(progress, bytes))?;
        let mut picker = Picker { cloner, wanted, skipped: Vec::new() };
        walk(after.path, &mut picker)?;
        syncfs(&picker.cloner.at).map_err(|e| StoreError::io("sync", &files, e))?;
        picker.cloner.meter.finish();
    }
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let stats = ExportStats { parts: [("files".to_owned(), part.clone())].into(), took_ms };
    manifest(
        &dir,
        &json!({
            "format": "switchback-export", "version": 1, "kind": "files",
            "content": if tree { "files" } else { "files/content" },
            "parts": { "files": part },
        }),
    )?;
    place.commit(&dir)?;
    Ok(stats)
}

/// Wants a path and every folder above it.
fn want(wanted: &mut BTreeSet<Vec<u8>>, rel: &[u8]) {
    wanted.insert(ROOT.to_vec());
    let mut end = rel.len();
    loop {
        wanted.insert(rel[..end].to_vec());
        match rel[..end].iter().rposition(|b| *b == b'/') {
            Some(slash) => end = slash,
            None => return,
        }
    }
}
