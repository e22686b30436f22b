//! One run at a time: the lock of a stack, and who holds it.

use crate::error::{EngineError, io};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Somebody who only looks who holds the lock ([`Lock::holder`]) has it for microseconds; a taker must not mistake
/// that for a run.
const GLANCE: Duration = Duration::from_millis(60);

/// The held lock; released when dropped or when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, waiting at most `wait`.
    pub fn take(path: &Path, what: &str, wait: Duration) -> Result<Self, EngineError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io("open the lock", path))?;
        let deadline = Instant::now() + wait.max(GLANCE);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    if Instant::now() >= deadline {
                        return Err(EngineError::Busy { holder: read_holder(&mut file) });
                    }
                    std::thread::sleep(Duration::from_millis(if wait < GLANCE { 5 } else { 50 }));
                }
                Err(e) => return Err(io("lock", path)(e.into())),
            }
        }
        let text = format!("{what} (process {})", std::process::id());
        let named =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        match named {
            // On a full disk there is no room for a name, and a rollback needs the lock all the same.
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => Ok(Self { file }),
            other => other.map(|()| Self { file }).map_err(io("write", path)),
        }
    }

    /// Who holds the lock now, if anybody.
    pub fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&file, FlockOperation::Unlock);
                None
            }
            Err(_) => Some(read_holder(&mut file)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.read_to_string(&mut text);
    if text.is_empty() { "unknown".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_who_looks_does_not_stop_somebody_who_takes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("lock");
        drop(Lock::take(&path, "first", Duration::ZERO).expect("takes"));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        Lock::holder(&path);
                        std::thread::yield_now();
                    }
                });
            }
            let taken = (0..300).all(|_| Lock::take(&path, "taker", Duration::ZERO).is_ok());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken, "a look was mistaken for a run");
        });
    }

    #[test]
    fn a_second_taker_is_told_who_holds_it_and_can_wait() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("lock");
        let held = Lock::take(&path, "promote", Duration::ZERO).expect("takes");
        let refused = Lock::take(&path, "rollback", Duration::ZERO).expect_err("busy");
        assert!(refused.to_string().contains("promote (process"), "{refused}");
        assert!(Lock::holder(&path).is_some_and(|h| h.contains("promote")));
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || Lock::take(&path, "rollback", Duration::from_secs(10)).map(drop))
        };
        drop(held);
        waiter.join().expect("joins").expect("takes it in the end");
        assert_eq!(Lock::holder(&path), None);
    }
}
