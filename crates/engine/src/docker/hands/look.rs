//! Looking through a mount for what is worth knowing before it is cloned the first time.
//!
//! Owns the limits of the search. It must never follow a link, open anything but regular files, or write.

use super::client::{Below, Hands, Mounts, Result};
use super::wire::Request;
use crate::detect::is_sqlite;
use crate::store::Progress;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Entries that are looked at: a search must end on a volume with millions of files.
const ENTRIES: usize = 200_000;
/// Databases that are told about.
const DATABASES: usize = 32;
/// Folders deeper than this are not told about one by one.
const FOLDER_DEPTH: usize = 3;
/// Folders that are told about.
const FOLDERS: usize = 500;

/// What lies on a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// SQLite databases, by their path below the mount.
    pub databases: Vec<String>,
    /// Folders with files in them or below them, down to a depth of three.
    pub folders: BTreeSet<String>,
    /// Regular files directly in the mount that are neither databases nor their companions (`-wal`).
    pub loose_files: usize,
    /// Whether the mount is a file itself.
    pub is_file: bool,
    /// Whether the server's files of a Postgres cluster lie directly in it.
    pub postgres: bool,
    /// Databases whose names cannot be written into a configuration (no UTF-8).
    pub unnamed: usize,
    /// Whether there is more than was looked at.
    pub more: bool,
}

impl Hands<'_> {
    /// Looks through a place that exists.
    pub fn survey(&self, at: Below<'_>) -> Result<Survey> {
        let mut mounts = Mounts::default();
        let path = mounts.reads(at)?;
        super::client::parsed(self.call(mounts, &Request::Survey { path }, &Progress::none(), None)?)
    }
}

/// Looks through a folder. What cannot be read is passed over: a store on it would say so.
pub(super) fn survey(root: &Path) -> Survey {
    let mut found = Survey { is_file: root.is_file(), ..Survey::default() };
    let walk = walkdir::WalkDir::new(root).min_depth(1).follow_links(false).sort_by_file_name();
    for (number, entry) in walk.into_iter().enumerate() {
        if number >= ENTRIES {
            found.more = true;
            break;
        }
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_file() {
            continue;
        }
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        let text = entry.file_name().to_string_lossy();
        let companion = ["-wal", "-shm", "-journal"].iter().any(|end| text.ends_with(end));
        if entry.depth() == 1 && !companion && !is_sqlite(entry.path()) {
            found.loose_files += 1;
        }
        if entry.depth() == 1 {
            found.postgres |= entry.file_name() == "PG_VERSION";
        }
        for folder in relative.ancestors().skip(1) {
            let depth = folder.components().count();
            if (1..=FOLDER_DEPTH).contains(&depth)
                && found.folders.len() < FOLDERS
                && let Some(text) = folder.to_str()
            {
                found.folders.insert(text.to_owned());
            }
        }
        if is_sqlite(entry.path()) {
            match relative.to_str() {
                Some(text) if found.databases.len() < DATABASES => found.databases.push(text.to_owned()),
                Some(_) => found.more = true,
                None => found.unnamed += 1,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn databases_and_folders_are_found_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path();
        fs::create_dir_all(root.join("a/b/c/d")).expect("creates");
        fs::create_dir(root.join("empty")).expect("creates");
        let header = b"SQLite format 3\0rest";
        fs::write(root.join("a/b/app.db"), header).expect("writes");
        fs::write(root.join("a/b/app.db-wal"), header).expect("writes");
        fs::write(root.join("a/b/c/d/deep"), "x").expect("writes");
        fs::write(root.join("PG_VERSION"), "15").expect("writes");
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).expect("links");
        let found = survey(root);
        assert_eq!(found.databases, ["a/b/app.db"]);
        assert_eq!(found.folders.iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!((found.loose_files, found.postgres, found.is_file), (1, true, false));
        let file = survey(&root.join("PG_VERSION"));
        assert!(file.is_file && file.databases.is_empty());
    }
}
