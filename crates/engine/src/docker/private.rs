//! Temporary folders that only this user can read.
//!
//! Owns making, removing and, after a kill, sweeping them: models and raw output hold secrets. They must never outlive the
//! process that made them by more than the next call.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that only this user can read, removed afterwards: models and raw output hold secrets.
pub(in crate::docker) struct PrivateDir {
    pub(in crate::docker) path: PathBuf,
    /// Locked as long as this process lives: what a killed one left behind is not.
    _lock: fs::File,
}

/// What the names of such folders begin with; a ULID follows.
const PREFIX: &str = "switchback-";
const LOCK: &str = ".lock";
/// A folder without a lock is being made this moment, or is of a version that made none.
const UNLOCKED: Duration = Duration::from_secs(86_400);

impl PrivateDir {
    pub(in crate::docker) fn create() -> io::Result<Self> {
        Self::create_in(&std::env::temp_dir())
    }

    /// In another folder than that for temporary files.
    pub(in crate::docker) fn create_in(temp: &Path) -> io::Result<Self> {
        sweep(temp);
        let path = temp.join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }
}

/// Removes the folders of killed processes of this user. What cannot be looked at or removed stays.
fn sweep(temp: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(temp).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let made = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(ulid::Ulid::from_string);
        let (Some(Ok(made)), Ok(meta)) = (made, entry.metadata()) else { continue };
        if !meta.is_dir() || meta.uid() != own {
            continue;
        }
        let left = match fs::File::open(entry.path().join(LOCK)) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => made.datetime().elapsed().is_ok_and(|age| age > UNLOCKED),
        };
        if left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // Nothing else can be done about it; only this user can read what stays.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_processes_are_removed_and_those_in_use_are_not() {
        let temp = tempfile::tempdir().expect("folder");
        let used = PrivateDir::create_in(temp.path()).expect("creates");
        // As a killed process leaves it: nobody holds the lock.
        let left = temp.path().join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        fs::create_dir(&left).expect("creates");
        fs::write(left.join(LOCK), "").expect("writes");
        fs::write(left.join("model.json"), "secret").expect("writes");
        // Being made this moment, and somebody else's.
        let new = temp.path().join(format!("{PREFIX}{}", ulid::Ulid::generate()));
        let other = temp.path().join("switchback-mine");
        for folder in [&new, &other] {
            fs::create_dir(folder).expect("creates");
        }
        let next = PrivateDir::create_in(temp.path()).expect("creates");
        assert!(!left.exists() && used.path.exists() && new.exists() && other.exists());
        let gone = (used.path.clone(), next.path.clone());
        drop((used, next));
        assert!(!gone.0.exists() && !gone.1.exists());
    }
}
