//! Looking through a folder: databases and version folders.

use super::words::{version_key, version_of};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Folders below the stack that are looked into.
const DEPTH: usize = 4;
/// Entries looked at before giving up: a folder with more is not where a stack keeps its database.
const MOST_ENTRIES: usize = 20_000;
/// Never looked into: other people's code, and what tools keep for themselves.
const SKIPPED: [&str; 9] =
    [".switchback", "node_modules", ".git", ".hg", ".venv", "venv", "__pycache__", ".cache", ".tox"];

/// Versions that lie beside each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// Path with `{version}`, relative to the folder that was looked through.
    pub template: String,
    /// The versions, ascending.
    pub versions: Vec<String>,
    /// The version that a link beside them points to (`current -> 1.2.3`).
    pub current: Option<String>,
}

/// What lies in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// SQLite databases, relative.
    pub databases: Vec<PathBuf>,
    /// Version folders, the ones nearest to the top first.
    pub installed: Vec<Installed>,
    /// Whether there was more than could be looked at.
    pub cut_short: bool,
}

/// Whether a file is an SQLite database (by its first 16 bytes).
pub fn is_sqlite(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end)) {
        return false;
    }
    // A named pipe would block the open.
    if !fs::metadata(path).is_ok_and(|m| m.is_file()) {
        return false;
    }
    let mut head = [0; 16];
    File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok() && &head == b"SQLite format 3\0"
}

/// Looks through a folder; symbolic links are not followed.
pub fn scan(root: &Path) -> Scan {
    let mut found = Scan::default();
    let mut walk = walkdir::WalkDir::new(root).max_depth(DEPTH).sort_by_file_name().into_iter();
    let mut seen = 0;
    while let Some(entry) = walk.next() {
        seen += 1;
        if seen > MOST_ENTRIES {
            found.cut_short = true;
            break;
        }
        let Ok(entry) = entry else { continue };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if entry.file_type().is_dir() && entry.depth() > 0 {
            let name = entry.file_name().to_string_lossy();
            let version = version_folder(entry.path());
            if SKIPPED.contains(&name.as_ref()) {
                walk.skip_current_dir();
            } else if let Some((prefix, version)) = version {
                // What belongs to a version is not data, whatever it looks like.
                add_version(&mut found, relative, &prefix, &version, entry.path());
                walk.skip_current_dir();
            } else if entry.path().join("pyvenv.cfg").exists() {
                walk.skip_current_dir();
            }
        } else if entry.file_type().is_file() && is_sqlite(entry.path()) {
            found.databases.push(relative.to_owned());
        }
    }
    for installed in &mut found.installed {
        installed.versions.sort_by_key(|v| version_key(v));
    }
    found.installed.sort_by_key(|i| i.template.matches('/').count());
    found
}

fn version_folder(path: &Path) -> Option<(String, String)> {
    let name = path.file_name()?.to_str()?;
    let before = path.parent().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("");
    version_of(before, name).map(|(p, v)| (p.to_owned(), v.to_owned()))
}

fn add_version(found: &mut Scan, relative: &Path, prefix: &str, version: &str, full: &Path) {
    let Some(parent) = relative.parent().and_then(Path::to_str) else { return };
    let slash = if parent.is_empty() { "" } else { "/" };
    let template = format!("{parent}{slash}{prefix}{{version}}");
    if let Some(installed) = found.installed.iter_mut().find(|i| i.template == template) {
        installed.versions.push(version.to_owned());
        return;
    }
    let current = full.parent().and_then(|folder| current_link(folder, prefix));
    found.installed.push(Installed { template, versions: vec![version.to_owned()], current });
}

/// The version that `current` (or `latest`, `live`) in or beside the folder links to.
fn current_link(folder: &Path, prefix: &str) -> Option<String> {
    let beside = folder.parent();
    [Some(folder), beside].into_iter().flatten().find_map(|dir| {
        ["current", "live", "latest"].iter().find_map(|name| {
            let target = fs::read_link(dir.join(name)).ok()?;
            let version = target.file_name()?.to_str()?.strip_prefix(prefix)?.to_owned();
            folder.join(format!("{prefix}{version}")).is_dir().then_some(version)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_and_versions_are_found_and_the_rest_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let put = |path: &str, text: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        };
        put("data/app.db", b"SQLite format 3\0rest");
        put("data/app.db-wal", b"SQLite format 3\0rest");
        put("data/notes.txt", b"SQLite format 2");
        put("node_modules/x/y.db", b"SQLite format 3\0rest");
        put("releases/1.10.0/a.db", b"SQLite format 3\0rest");
        put("releases/1.9.0/a.db", b"SQLite format 3\0rest");
        put("a/b/c/d/e.db", b"SQLite format 3\0rest");
        put("odd\n name/x \"q\".db", b"SQLite format 3\0rest");
        std::os::unix::fs::symlink("1.9.0", dir.path().join("releases/current")).expect("link");
        std::os::unix::fs::symlink("/", dir.path().join("data/root")).expect("link");
        let found = scan(dir.path());
        assert_eq!(found.databases, [PathBuf::from("data/app.db"), PathBuf::from("odd\n name/x \"q\".db")],);
        assert_eq!(
            found.installed,
            [Installed {
                template: "releases/{version}".into(),
                versions: vec!["1.9.0".into(), "1.10.0".into()],
                current: Some("1.9.0".into()),
            }]
        );
    }
}
