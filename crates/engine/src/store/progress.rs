//! Progress and cancelling of long operations.
//!
//! Owns how often the caller hears of progress. It must never print or sleep.

use super::{Result, StoreError};
use std::time::{Duration, Instant};

/// Reports at most this often: below the 100 ms a person notices, far above the cost of a call.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// How an operation hears of cancelling and tells of progress.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    /// Answers whether the operation should stop. Called often; must be cheap.
    pub cancel: &'a (dyn Fn() -> bool + Sync),
    /// Takes bytes done and bytes in total (an estimate for comparisons).
    pub report: &'a (dyn Fn(u64, u64) + Sync),
}

impl Progress<'_> {
    /// Never cancels, reports to nobody.
    pub fn none() -> Self {
        Progress { cancel: &|| false, report: &|_, _| () }
    }
}

/// Counts bytes and passes them on at intervals.
pub(super) struct Meter<'p> {
    progress: &'p Progress<'p>,
    done: u64,
    total: u64,
    last: Instant,
}

impl<'p> Meter<'p> {
    pub(super) fn new(progress: &'p Progress<'p>, total: u64) -> Self {
        (progress.report)(0, total);
        Self { progress, done: 0, total, last: Instant::now() }
    }

    /// Counts bytes. Fails with [`StoreError::Cancelled`] if the caller wants to stop.
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        self.tick()
    }

    /// Sets the bytes done, for sources that tell the position.
    pub(super) fn set(&mut self, done: u64, total: u64) -> Result<()> {
        self.done = done;
        self.total = total;
        self.tick()
    }

    fn tick(&mut self) -> Result<()> {
        if (self.progress.cancel)() {
            return Err(StoreError::Cancelled);
        }
        if self.last.elapsed() >= REPORT_EVERY {
            self.last = Instant::now();
            (self.progress.report)(self.done.min(self.total), self.total);
        }
        Ok(())
    }

    /// Reports the end.
    pub(super) fn finish(&self) {
        (self.progress.report)(self.total, self.total);
    }
}
