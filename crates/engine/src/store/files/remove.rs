//! Removing an unfinished copy.
//!
//! Owns deleting; only [`super::super::place`] may call it, with a name that it made up itself, and the
//! incremental copy, inside its own destination.

use super::super::{Result, StoreError};
use super::walk::{Found, Visit, shown, walk, walk_at};
use rustix::fs::{AtFlags, FileType, Mode, Stat, fchmod, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

struct Remover {
    root: PathBuf,
}

impl Visit for Remover {
    fn enter(&mut self, _: &Found<'_>, opened: BorrowedFd<'_>) -> Result<()> {
        // A finished folder may have been made unwritable; without the right this fails, and so does
        // the removal below, which reports it.
        let _ = fchmod(opened, Mode::RWXU);
        Ok(())
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        unlinkat(found.dir, found.name, AtFlags::empty())
            .map_err(|e| StoreError::io("remove", &shown(&self.root, found.rel), e))
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        Ok(())
    }
    fn closed(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|e| StoreError::io("remove", &self.root, e))
    }
    fn vanished(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Removes a file or tree of any depth; nothing there is fine.
pub(in super::super) fn remove(path: &Path) -> Result<()> {
    let err = |e| StoreError::io("remove", path, e);
    match path.symlink_metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(err(e)),
        Ok(meta) if meta.is_dir() => {
            walk(path, &mut Remover { root: path.to_owned() })?;
            std::fs::remove_dir(path).map_err(err)
        }
        Ok(_) => std::fs::remove_file(path).map_err(err),
    }
}

/// Removes paths below a finished copy, which nobody writes to, and returns those that were there. Folders on the way are
/// followed, links are not: they may lead out of it.
pub(in super::super) fn leave_out(root: &Path, paths: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in paths {
        let mut place = root.to_owned();
        let mut real = true;
        for part in Path::new(path).components() {
            real &= place.symlink_metadata().is_ok_and(|m| m.is_dir());
            match part {
                Component::Normal(name) => place.push(name),
                Component::CurDir => {}
                _ => real = false,
            }
        }
        if real && place != root && place.symlink_metadata().is_ok() {
            remove(&place)?;
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// Removes the entry `name` of the folder `dir`, with all that is in it. Says whether there was one.
pub(super) fn remove_at(dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<bool> {
    let err = |e| StoreError::io("remove", path, e);
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(err(e)),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        walk_at(dir, name, path, &mut Remover { root: path.to_owned() })?;
        unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(err)?;
    } else {
        unlinkat(dir, name, AtFlags::empty()).map_err(err)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_left_out_lies_below_the_copy_whatever_links_it_has() {
        let dir = tempfile::tempdir().expect("folder");
        let (root, outside) = (dir.path().join("copy"), dir.path().join("outside"));
        for folder in [root.join("a/b"), outside.clone()] {
            fs::create_dir_all(folder).expect("creates");
        }
        for file in [root.join("crash.journal"), root.join("a/b/pid"), root.join("kept"), outside.join("pid")]
        {
            fs::write(file, "x").expect("writes");
        }
        symlink(&outside, root.join("link")).expect("links");
        symlink(outside.join("pid"), root.join("dangling")).expect("links");
        let paths = ["crash.journal", "none", "link/pid", "../outside/pid", "a/b", "dangling", "kept/x", "."];
        let left = leave_out(&root, &paths.map(str::to_owned)).expect("removes");
        assert_eq!(left, ["crash.journal", "a/b", "dangling"]);
        assert!(outside.join("pid").exists() && root.join("kept").exists() && root.join("a").is_dir());
        assert!(root.join("link").symlink_metadata().is_ok() && !root.join("crash.journal").exists());
    }
}
