//! Marks: which folders on the engine's host a helper may remove.
//!
//! Owns making, changing and reading them. Nothing is removed but below a scratch volume or a folder with the stack's mark.

use super::serve::{io_error, json, refused, sync_dir};
use super::wire::MARK;
use crate::store;
use serde_json::Value;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The mark of a folder that is production's.
const LIVE: &str = ".switchback-live";

/// Whether a folder holds nothing, or nothing but the beginning of a mark: what a helper leaves that was killed between making a
/// folder and marking it, or between taking the mark and the folder away.
fn bare(path: &Path, stack: &str) -> bool {
    let folder = path.symlink_metadata().is_ok_and(|m| m.is_dir());
    let unfinished = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|e| {
            let text = (e.file_name() == MARK).then(|| fs::read_to_string(e.path()).ok()).flatten();
            text.is_some_and(|text| text != stack && stack.starts_with(&text))
        })
    };
    folder && fs::read_dir(path).is_ok_and(|mut all| all.all(unfinished))
}

pub(super) fn mark(path: &Path, stack: &str) -> store::Result<Value> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        // Interrupted between making and marking it.
        Err(_) if bare(path, stack) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            check_mark(path, stack)?;
            return json(false);
        }
        Err(e) => return Err(io_error("create", path)(e)),
    }
    let file = path.join(MARK);
    let write = || -> io::Result<()> {
        let mut mark = File::create(&file)?;
        mark.write_all(stack.as_bytes())?;
        mark.sync_all()
    };
    write().map_err(io_error("mark", path))?;
    sync_dir(path)?;
    path.parent().map(sync_dir).transpose()?;
    json(true)
}

fn swap_mark(path: &Path, from: &str, to: &str) -> store::Result<()> {
    fs::rename(path.join(from), path.join(to)).map_err(io_error("change the mark of", path))?;
    sync_dir(path)
}

/// Refuses a folder that this stack did not make, or that became live.
pub(super) fn check_mark(path: &Path, stack: &str) -> store::Result<()> {
    let folder = path.symlink_metadata().is_ok_and(|m| m.is_dir());
    match fs::read_to_string(path.join(MARK)) {
        Ok(text) if folder && text == stack => Ok(()),
        _ => Err(refused(path, "it does not carry the mark of this stack: look what it is and move it away")),
    }
}

fn remove_any(path: &Path) -> store::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    removed.map_err(io_error("remove", path))
}

pub(super) fn remove(root: &Path, path: &Path, stack: Option<&str>) -> store::Result<Value> {
    if let Some(stack) = stack {
        check_mark(root, stack)?;
    }
    // A link in the middle must not lead out of the root.
    let real = root.canonicalize().map_err(io_error("resolve", root))?;
    let parent = path.parent().unwrap_or(path);
    let parent = match parent.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return json(false),
        other => other.map_err(io_error("resolve", parent))?,
    };
    let named = path.file_name().filter(|n| *n != MARK);
    let (true, Some(name)) = (parent.starts_with(&real), named) else {
        return Err(refused(path, format!("it is not part of {}", root.display())));
    };
    remove_any(&parent.join(name))?;
    sync_dir(&parent)?;
    json(true)
}

pub(super) fn remove_marked(path: &Path, stack: &str) -> store::Result<Value> {
    if path.symlink_metadata().is_err() {
        return json(false);
    }
    if !bare(path, stack) {
        check_mark(path, stack)?;
    }
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let entry = entry.map_err(io_error("list", path))?;
        if entry.file_name() != MARK {
            remove_any(&entry.path())?;
        }
    }
    fs::remove_dir_all(path).map_err(io_error("remove", path))?;
    path.parent().map(sync_dir).transpose()?;
    json(true)
}

/// From now on a folder is production's. False if it was before.
pub(super) fn unmark(path: &Path, stack: &str) -> store::Result<Value> {
    // Interrupted after it was kept.
    if fs::read(path.join(LIVE)).is_ok_and(|c| c == stack.as_bytes()) {
        return json(false);
    }
    check_mark(path, stack)?;
    swap_mark(path, MARK, LIVE)?;
    json(true)
}

/// From now on a folder may be removed.
pub(super) fn retire(path: &Path, stack: &str) -> store::Result<Value> {
    // Only what this stack made and kept itself; anything else is somebody's data.
    let ours = fs::read(path.join(LIVE)).is_ok_and(|c| c == stack.as_bytes());
    if !ours && check_mark(path, stack).is_err() {
        return Err(refused(path, "this stack did not make it; it is left alone"));
    }
    if ours {
        swap_mark(path, LIVE, MARK)?;
    }
    json(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_a_marked_folder_can_be_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().join("g7");
        let outside = dir.path().join("live");
        fs::create_dir(&outside).expect("folder");
        fs::write(outside.join("precious"), "x").expect("writes");
        assert_eq!(mark(&root, "s").expect("marks"), Value::Bool(true));
        assert_eq!(mark(&root, "s").expect("marks again"), Value::Bool(false));
        assert!(mark(&outside, "s").is_err(), "a folder of somebody else became scratch");
        fs::write(root.join("a"), "x").expect("writes");
        std::os::unix::fs::symlink(&outside, root.join("way out")).expect("links");
        let gone = |path: &Path| remove(&root, path, Some("s"));
        assert!(gone(&root.join("way out/precious")).is_err());
        assert!(gone(&root.join("../live/precious")).is_err());
        assert!(gone(&root.join(MARK)).is_err());
        assert!(gone(&root).is_err());
        assert!(remove(&root, &root.join("a"), Some("another")).is_err());
        gone(&root.join("a")).expect("removes");
        assert!(!root.join("a").exists());
        assert!(remove_marked(&root, "another").is_err());
        remove_marked(&root, "s").expect("removes");
        assert!(!root.exists() && outside.join("precious").exists());
    }

    #[test]
    fn what_a_killed_helper_leaves_of_a_mark_is_taken_or_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().join("g8");
        for begun in [None, Some(""), Some("st")] {
            fs::create_dir(&root).expect("folder");
            begun.iter().for_each(|text| fs::write(root.join(MARK), text).expect("writes"));
            assert_eq!(mark(&root, "stack").expect("marks"), Value::Bool(true));
            check_mark(&root, "stack").expect("is marked");
            remove_marked(&root, "stack").expect("removes");
            fs::create_dir(&root).expect("folder");
            begun.iter().for_each(|text| fs::write(root.join(MARK), text).expect("writes"));
            assert_eq!(remove_marked(&root, "stack").expect("removes"), Value::Bool(true));
        }
        fs::create_dir(&root).expect("folder");
        fs::write(root.join(MARK), "other").expect("writes");
        assert!(mark(&root, "stack").is_err() && remove_marked(&root, "stack").is_err());
    }
}
