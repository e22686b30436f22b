//! Watching files of copies in the background, from one step of a run to another.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use switchback_core::ids::StoreName;
use switchback_core::release::Instance;
use switchback_core::trace::Trace;

/// A watcher that sees nothing by then is given up.
const READY: Duration = Duration::from_secs(60);

/// What watchers know of their end and of their beginning.
pub(super) struct Signals {
    /// Told once the watcher sees.
    pub ready: Sender<()>,
    /// Says something, or is closed, when it is over.
    pub stop: Receiver<()>,
}

type Seen = Result<Trace, String>;

#[derive(Debug)]
struct Watcher {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    fn end(self) -> Seen {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|_| Err("the watcher broke off".to_owned()))
    }
}

/// When something began in this process, by folder of the instance and store.
#[derive(Debug, Default)]
pub(super) struct Began(Mutex<BTreeMap<(String, StoreName), SystemTime>>);

impl Began {
    /// It begins now.
    pub(super) fn now(&self, instance: &Instance, store: &StoreName) {
        let key = (instance.dir.clone(), store.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, SystemTime::now());
    }

    /// Milliseconds since then, if it began here.
    pub(super) fn ended(&self, instance: &Instance, store: &StoreName) -> Option<u64> {
        let key = (instance.dir.clone(), store.clone());
        let began = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key)?;
        u64::try_from(began.elapsed().ok()?.as_millis()).ok()
    }
}

/// Those of this process, by folder of the instance and store. A run that was taken over by another process has none.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<BTreeMap<(String, StoreName), Watcher>>);

impl Watchers {
    /// Begins. Returns why it cannot, if so.
    pub(super) fn begin(
        &self,
        instance: &Instance,
        store: &StoreName,
        run: impl FnOnce(Signals) -> Seen + Send + 'static,
    ) -> Option<String> {
        // Its data was cloned afresh.
        let _ = self.end(instance, store);
        let (ready, sees) = channel();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || run(Signals { ready, stop: stopped }));
        let watcher = match thread {
            Ok(thread) => Watcher { stop, thread },
            Err(e) => return Some(e.to_string()),
        };
        match sees.recv_timeout(READY) {
            Ok(()) => {
                let key = (instance.dir.clone(), store.clone());
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, watcher);
                None
            }
            Err(RecvTimeoutError::Disconnected) => watcher.end().err(),
            Err(RecvTimeoutError::Timeout) => {
                // Not waited for: it ends when it looks.
                drop(watcher.stop);
                Some(format!("it did not begin within {} s", READY.as_secs()))
            }
        }
    }

    /// Ends one, if it was begun.
    pub(super) fn end(&self, instance: &Instance, store: &StoreName) -> Option<Seen> {
        let key = (instance.dir.clone(), store.clone());
        let watcher = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        watcher.map(Watcher::end)
    }

    /// Ends those of an instance whose data is about to go.
    pub(super) fn forget(&self, instance: &Instance) {
        for store in instance.stores.keys() {
            let _ = self.end(instance, store);
        }
    }
}

/// A trace that could not be made is one with a note.
pub(super) fn noted(seen: Seen) -> Trace {
    seen.unwrap_or_else(|why| Trace {
        notes: vec![format!("it was not watched to the end: {why}")],
        ..Trace::default()
    })
}
