//! How far the library is, for those who wait.

use rustic_core::{Progress, ProgressBars, ProgressType, RusticProgress};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes done and in total, of the present work.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<(AtomicU64, AtomicU64)>);

impl Meter {
    pub(super) fn read(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }
}

impl ProgressBars for Meter {
    fn progress(&self, kind: ProgressType, _: &str) -> Progress {
        match kind {
            ProgressType::Bytes => Progress::new(self.clone()),
            ProgressType::Spinner | ProgressType::Counter => Progress::hidden(),
        }
    }
}

impl RusticProgress for Meter {
    fn is_hidden(&self) -> bool {
        false
    }
    fn set_length(&self, len: u64) {
        self.0.0.store(0, Ordering::Relaxed);
        self.0.1.store(len, Ordering::Relaxed);
    }
    fn set_title(&self, _: &str) {}
    fn inc(&self, inc: u64) {
        self.0.0.fetch_add(inc, Ordering::Relaxed);
    }
    fn finish(&self) {}
}
