//! Masking in a helper: SQLite databases, and what a database server leaves beside its tables.
//!
//! Owns both ends of it. It must never write to anything but scratch.

use super::client::{Below, Hands, Mounts, Result, Scratch, bad_path, plain};
use super::marks::check_mark;
use super::serve::{io_error, json, refused};
use super::wire::Request;
use crate::store::{self, Progress};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use switchback_core::anonymise::{self, Key, Mask, MaskedStore, Rule, Sample};
use switchback_core::data::StoreKind;

/// A text that is sent but never shown.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Hands<'_> {
    /// Mounts scratch for writing: where it is, and the mark it must carry.
    pub(super) fn root(&self, mounts: &mut Mounts, scratch: Scratch<'_>) -> Result<(String, Option<String>)> {
        let (root, stack) = match scratch {
            Scratch::Volume(volume) => (mounts.writes((&volume.place(), ""))?, None),
            Scratch::Dir(dir) => (mounts.writes((&dir.beside(), &dir.suffix))?, Some(self.stack.clone())),
        };
        Ok((root, stack))
    }

    /// Masks columns of a SQLite database at a path in scratch.
    pub fn mask(
        &self,
        scratch: Scratch<'_>,
        below: &str,
        rules: &[Rule],
        key: &Key,
        progress: &Progress<'_>,
    ) -> Result<MaskedStore> {
        if below.is_empty() || !plain(below, false) {
            return Err(bad_path(below));
        }
        let mut mounts = Mounts::default();
        let (root, stack) = self.root(&mut mounts, scratch)?;
        let path = format!("{root}/{below}");
        let rules = rules.iter().map(|r| (r.text.clone(), r.mask)).collect();
        self.ask(mounts, &Request::Mask { root, path, stack, rules, key: Hidden(key.to_hex()) }, progress)
    }

    /// Some values of each column of a SQLite database.
    pub fn samples(&self, at: Below<'_>, live: bool, each: u32) -> Result<Vec<Sample>> {
        let mut mounts = Mounts::default();
        let at = mounts.store(StoreKind::Sqlite, at, live)?;
        self.ask(mounts, &Request::Samples { at, each }, &Progress::none())
    }

    /// Removes the files in folders of scratch; the folders stay. Returns how many there were.
    pub fn empty_folders(&self, scratch: Scratch<'_>, folders: &[String]) -> Result<u64> {
        if let Some(odd) = folders.iter().find(|f| f.is_empty() || !plain(f, false)) {
            return Err(bad_path(odd));
        }
        let mut mounts = Mounts::default();
        let (root, stack) = self.root(&mut mounts, scratch)?;
        self.ask(mounts, &Request::EmptyFolders { root, stack, folders: folders.to_vec() }, &Progress::none())
    }
}

/// What is asked for, in the helper.
pub(super) fn mask(
    (root, path, stack): (&Path, &Path, Option<&str>),
    rules: &BTreeMap<String, Mask>,
    key: &Hidden,
    progress: &Progress<'_>,
) -> store::Result<Value> {
    let path = within(root, path, stack)?;
    let rules = anonymise::rules(rules).map_err(|(rule, why)| refused(&path, format!("{rule}: {why}")))?;
    let key = Key::from_hex(&key.0).ok_or_else(|| refused(&path, "the key is none"))?;
    json(store::mask_sqlite(&path, &rules, &key, progress)?)
}

/// Removes the files in folders, in the helper.
pub(super) fn empty_folders(root: &Path, stack: Option<&str>, folders: &[String]) -> store::Result<Value> {
    let mut removed = 0u64;
    for folder in folders {
        let path = root.join(folder);
        if path.symlink_metadata().is_err() {
            continue;
        }
        let path = within(root, &path, stack)?;
        for entry in fs::read_dir(&path).map_err(io_error("list", &path))? {
            let entry = entry.map_err(io_error("list", &path))?;
            if entry.file_type().is_ok_and(|t| !t.is_dir()) {
                fs::remove_file(entry.path()).map_err(io_error("remove", &entry.path()))?;
                removed += 1;
            }
        }
    }
    json(removed)
}

/// A path, links resolved, that must lie below a root that is scratch.
fn within(root: &Path, path: &Path, stack: Option<&str>) -> store::Result<std::path::PathBuf> {
    if let Some(stack) = stack {
        check_mark(root, stack)?;
    }
    let resolve = |p: &Path| -> store::Result<std::path::PathBuf> {
        p.canonicalize().map_err(|e: io::Error| io_error("resolve", p)(e))
    };
    let (root, real) = (resolve(root)?, resolve(path)?);
    if real == root || !real.starts_with(&root) {
        return Err(refused(path, format!("it is not part of {}", root.display())));
    }
    Ok(real)
}

/// The same, or the root itself.
pub(super) fn at_or_within(
    root: &Path,
    path: &Path,
    stack: Option<&str>,
) -> store::Result<std::path::PathBuf> {
    if path != root {
        return within(root, path, stack);
    }
    stack.map(|stack| check_mark(root, stack)).transpose()?;
    Ok(root.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_within_scratch_are_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let (root, outside) = (dir.path().join("g1"), dir.path().join("live"));
        fs::create_dir_all(root.join("log")).expect("folder");
        fs::create_dir_all(outside.join("log")).expect("folder");
        fs::write(root.join("log/a"), "x").expect("writes");
        fs::write(outside.join("log/a"), "x").expect("writes");
        std::os::unix::fs::symlink(outside.join("log"), root.join("pg_log")).expect("links");
        let folders = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(empty_folders(&root, None, &folders(&["log", "none"])).expect("removes"), Value::from(1));
        assert!(empty_folders(&root, None, &folders(&["pg_log"])).is_err());
        assert!(empty_folders(&root, Some("another"), &folders(&["log"])).is_err());
        assert!(outside.join("log/a").exists());
        assert_eq!(format!("{:?}", Hidden("secret".into())), "(hidden)");
    }
}
