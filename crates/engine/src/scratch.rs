//! What may be removed: folders that Switchback made and that are not production's.
//!
//! Every destructive operation takes a [`Scratch`]. One exists only for a folder below the state folder that
//! carries the scratch mark, which is taken off before a generation becomes production's. Wiping live data
//! cannot be written down.

use crate::error::{EngineError, io};
use crate::home::{Home, create_dir, sync_dir, write_atomic};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The file that marks a folder as removable.
const MARK: &str = ".switchback-scratch";

/// A folder that may be removed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

fn inside_state(home: &Home, relative: &str) -> Result<PathBuf, EngineError> {
    let clean = Path::new(relative);
    let plain = clean.components().all(|c| matches!(c, Component::Normal(_)));
    let known = clean.starts_with("staging") || clean.starts_with("generations");
    if !plain || !known || clean.components().count() < 2 {
        return Err(EngineError::Internal { detail: format!("{relative:?} cannot be scratch") });
    }
    Ok(home.state().join(clean))
}

/// Whether a folder holds nothing, or nothing but a mark that was being written: a program that was killed between making a
/// folder and marking it, or between taking the mark and the folder away, leaves that. It cannot be anybody's data.
fn bare(path: &Path) -> Result<bool, EngineError> {
    for entry in fs::read_dir(path).map_err(io("list", path))? {
        let entry = entry.map_err(io("list", path))?;
        if !entry.file_name().to_string_lossy().starts_with(MARK) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Scratch {
    /// Makes the folder (if needed) and marks it. Refuses a folder that exists without the mark.
    pub fn create(home: &Home, relative: &str) -> Result<Self, EngineError> {
        let path = inside_state(home, relative)?;
        if path.exists() && !path.join(MARK).exists() && !bare(&path)? {
            return Err(EngineError::refused(
                format!("{} exists and was not made by this run", path.display()),
                "look what it is and move it away",
            ));
        }
        create_dir(&path)?;
        write_atomic(&path.join(MARK), b"made by Switchback; may be removed\n")?;
        Ok(Self { path })
    }

    /// Opens a marked folder; `None` if it is gone.
    pub fn open(home: &Home, relative: &str) -> Result<Option<Self>, EngineError> {
        let path = inside_state(home, relative)?;
        if !path.exists() {
            return Ok(None);
        }
        let real = path.canonicalize().map_err(io("open", &path))?;
        let state = home.state().canonicalize().map_err(io("open", &home.state()))?;
        let marked = real.join(MARK).exists();
        if !real.starts_with(&state) || (!marked && !bare(&real)?) {
            return Err(EngineError::Internal {
                detail: format!("{} is live data and was about to be removed", path.display()),
            });
        }
        if !marked {
            fs::remove_dir_all(&real).map_err(io("remove", &real))?;
            return Ok(None);
        }
        Ok(Some(Self { path }))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a part of it, if it is there.
    pub fn remove_part(&self, part: &Path) -> Result<(), EngineError> {
        if !part.starts_with(&self.path) || part.components().any(|c| matches!(c, Component::ParentDir)) {
            return Err(EngineError::Internal {
                detail: format!("{} is not part of {}", part.display(), self.path.display()),
            });
        }
        let result = match fs::symlink_metadata(part) {
            Ok(m) if m.is_dir() => fs::remove_dir_all(part),
            Ok(_) => fs::remove_file(part),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        result.map_err(io("remove", part))
    }

    /// Removes the folder. The mark goes last, so that an interrupted removal can be repeated.
    pub fn remove(self) -> Result<(), EngineError> {
        for entry in fs::read_dir(&self.path).map_err(io("list", &self.path))? {
            let entry = entry.map_err(io("list", &self.path))?;
            if entry.file_name() != MARK {
                self.remove_part(&entry.path())?;
            }
        }
        fs::remove_dir_all(&self.path).map_err(io("remove", &self.path))?;
        match self.path.parent() {
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        }
    }

    /// Takes the mark off: from now on this is live data.
    pub fn keep(self) -> Result<(), EngineError> {
        let mark = self.path.join(MARK);
        fs::remove_file(&mark).map_err(io("remove", &mark))?;
        sync_dir(&self.path)
    }
}

/// Marks a generation that is no longer needed, after `gc` decided so.
pub fn retire(home: &Home, relative: &str) -> Result<Scratch, EngineError> {
    let path = inside_state(home, relative)?;
    write_atomic(&path.join(MARK), b"retired by gc; may be removed\n")?;
    Ok(Scratch { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_folders_and_paths_outside_cannot_become_scratch() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("creates");
        for bad in ["", "staging", "generations/../..", "../x", "/etc", "runs/x", "staging/../../x"] {
            assert!(Scratch::create(&home, bad).is_err(), "{bad:?} became scratch");
        }
        let scratch = Scratch::create(&home, "generations/2").expect("creates");
        fs::write(scratch.path().join("generation.json"), "{}").expect("writes");
        scratch.keep().expect("keeps");
        assert!(Scratch::open(&home, "generations/2").is_err(), "live data was opened as scratch");
        assert!(Scratch::create(&home, "generations/2").is_err());
        // What a program leaves that is killed in the middle of making or removing one.
        let unmarked = home.state().join("generations/3");
        for left in [None, Some(format!("{MARK}.tmp-1"))] {
            fs::create_dir_all(&unmarked).expect("creates");
            left.iter().for_each(|name| fs::write(unmarked.join(name), "").expect("writes"));
            assert!(Scratch::open(&home, "generations/3").expect("looks").is_none());
            assert!(!unmarked.exists());
            fs::create_dir_all(&unmarked).expect("creates");
            Scratch::create(&home, "generations/3").expect("takes it").remove().expect("removes");
        }
        let scratch = Scratch::create(&home, "staging/r/a").expect("creates");
        assert!(scratch.remove_part(Path::new("/etc/passwd")).is_err());
        scratch.remove().expect("removes");
        assert!(Scratch::open(&home, "staging/r/a").expect("looks").is_none());
    }
}
