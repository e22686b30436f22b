//! Watching a SQLite database in a helper, until the program says that it is over.

use super::client::{Below, Hands, Mounts, Result, parsed};
use super::wire::Request;
use crate::store::{self, Progress, StoreError};
use serde_json::Value;
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use switchback_core::data::StoreKind;
use switchback_core::trace::Trace;

impl Hands<'_> {
    /// The helper image.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Watches a database; `ready` is told once it is seen, `stop` says when to end.
    pub fn watch(&self, at: Below<'_>, ready: &Sender<()>, stop: &Receiver<()>) -> Result<Trace> {
        let mut mounts = Mounts::default();
        // Reading a log takes part in its locks, which are files.
        let path = mounts.store(StoreKind::Sqlite, at, true)?.path;
        let mut talk = |_| {
            let _ = ready.send(());
            // Closed is over, too.
            let _ = stop.recv();
            Ok("end\n")
        };
        parsed(self.converse(mounts, &Request::Watch { path }, &Progress::none(), &mut talk)?)
    }
}

/// The helper's side: watches until a line comes, or the end of the input.
pub(super) fn perform(
    path: &Path,
    input: &mut (impl BufRead + Send),
    ready: impl FnOnce() + Send,
) -> store::Result<Value> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut ready = Some(ready);
        let mut listening = Some(input);
        let over = &over;
        let mut sees = || {
            if let (Some(say), Some(input)) = (ready.take(), listening.take()) {
                say();
                scope.spawn(move || {
                    let mut word = String::new();
                    let _ = input.read_line(&mut word);
                    over.store(true, Ordering::Relaxed);
                });
            }
        };
        let trace = store::watch_sqlite(path, &|| over.load(Ordering::Relaxed), &mut sees)?;
        serde_json::to_value(trace)
            .map_err(|e| StoreError::Unsupported { path: path.to_owned(), why: e.to_string() })
    })
}
