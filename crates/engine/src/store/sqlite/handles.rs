//! Plain descriptors of databases that also have a connection in this process.
//!
//! POSIX drops *all* locks a process holds on a file as soon as it closes *any* descriptor of it.
//! So a plain descriptor (needed to share blocks) is parked here until the last connection of this
//! module to the same file is closed. Owns that bookkeeping only.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

type Id = (u64, u64);

#[derive(Default)]
struct Slot {
    connections: usize,
    parked: Vec<File>,
}

static SLOTS: Mutex<BTreeMap<Id, Slot>> = Mutex::new(BTreeMap::new());

/// Counts one connection while it lives.
pub(super) struct Guard(Option<Id>);

/// Announces a connection that is about to be opened.
pub(super) fn connection(path: &Path) -> Guard {
    let id = path.metadata().ok().map(|m| (m.dev(), m.ino()));
    if let Some(id) = id {
        SLOTS.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().connections += 1;
    }
    Guard(id)
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(id) = self.0 else { return };
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&id) {
            slot.connections -= 1;
            if slot.connections == 0 {
                slots.remove(&id);
            }
        }
    }
}

/// A plain descriptor that is closed only when that cannot drop a lock.
pub(super) struct Plain(Option<File>);

impl Plain {
    pub(super) fn new(file: File) -> Self {
        Self(Some(file))
    }

    pub(super) fn file(&self) -> &File {
        self.0.as_ref().expect("the file is taken only by drop")
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let Some(file) = self.0.take() else { return };
        let Ok(meta) = file.metadata() else { return };
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&(meta.dev(), meta.ino())) {
            slot.parked.push(file);
        }
    }
}
