//! What keys of repositories guard, found out once in as long as a run takes: it costs half a second, on purpose.

use super::vault::{Key, Task, Vault};
use super::{child, parsed};
use crate::error::EngineError;
use crate::home::Home;
use crate::notify::resolve;
use crate::store::{Progress, StoreError};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;
use switchback_core::config::Backup;

/// How often it is asked whether it is known by now.
const ASK: Duration = Duration::from_millis(10);

/// What is known by now, for one repository. It is kept in memory only.
#[derive(Default)]
pub struct Keys(Arc<Mutex<Option<Known>>>);

struct Known {
    /// Where the repository lies, as people see it.
    place: String,
    key: Key,
    guards: Key,
}

impl Keys {
    /// The same repository, and what its key guards. Where this program could not open it as its helpers do, it stays as it is.
    pub fn open(&self, vault: &Vault, progress: &Progress<'_>) -> Result<Vault, EngineError> {
        loop {
            let mut known = match self.0.try_lock() {
                Ok(known) => known,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // It is being found out; a server may be long in answering.
                Err(TryLockError::WouldBlock) if (progress.cancel)() => {
                    return Err(StoreError::Cancelled.into());
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(ASK);
                    continue;
                }
            };
            return open(&mut known, vault, progress);
        }
    }

    /// Begins to find it out while something else is done. What fails here fails again for who needs it.
    pub fn open_ahead(&self, home: &Home, backup: &Backup) {
        // A server of rclone's would be started twice.
        if resolve(home, &backup.repository).is_ok_and(|place| place.trim().starts_with("rclone:")) {
            return;
        }
        let Ok(vault) = Vault::of_stack(home, backup) else { return };
        let known = Arc::clone(&self.0);
        let (locked, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = locked.send(());
            let _ = open(&mut known, &vault, &Progress::none());
        });
        // Who asks from now on waits for the answer.
        let _ = wait.recv();
    }
}

fn open(known: &mut Option<Known>, vault: &Vault, progress: &Progress<'_>) -> Result<Vault, EngineError> {
    if vault.opened.is_some() || !vault.location.is_ours() {
        return Ok(vault.clone());
    }
    let place = vault.location.shown();
    let guards = match known {
        Some(known) if known.place == place && known.key == vault.key => Some(known.guards.clone()),
        _ => {
            let text: String = parsed(child::perform(vault, &Task::Open, progress)?)?;
            let guards = Key::of(&text);
            *known = guards.clone().map(|guards| Known { place, key: vault.key.clone(), guards });
            guards
        }
    };
    Ok(Vault { opened: guards, ..vault.clone() })
}
