//! Taking apart what a helper says: lines of progress, the answer, and what follows it.
//!
//! Owns the limits on a helper's output. It must never take what follows the answer for lines.

use super::wire::Line;
use crate::store::{Progress, StoreError};
use serde_json::Value;
use std::io::{self, Write};

/// Longest line of a helper: a fingerprint lists at most 10,000 parts, a folder 100,000 entries.
const LONGEST_LINE: usize = 64 << 20;

/// Takes a helper's lines apart, and what follows the answer.
pub(crate) struct Lines<'a, 'r, 'p> {
    line: Vec<u8>,
    pub(crate) answer: Option<std::result::Result<Value, StoreError>>,
    rest: Option<&'r mut dyn Write>,
    progress: &'a Progress<'p>,
}

impl<'a, 'r, 'p> Lines<'a, 'r, 'p> {
    pub(crate) fn new(rest: Option<&'r mut dyn Write>, progress: &'a Progress<'p>) -> Self {
        Self { line: Vec::new(), answer: None, rest, progress }
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        match serde_json::from_slice(line)? {
            Line::Progress(done, total) => (self.progress.report)(done, total),
            Line::Turn(_) => return Err(io::Error::other("the helper waits for a word")),
            Line::Done(value) => self.answer = Some(Ok(value)),
            Line::Failed(failure) => self.answer = Some(Err(failure.into())),
        }
        Ok(())
    }
}

impl Write for Lines<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.answer.is_some() {
            return match &mut self.rest {
                Some(rest) => rest.write(bytes),
                None => Err(io::Error::other("the helper went on after its answer")),
            };
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = end.unwrap_or(bytes.len());
        if self.line.len() + part > LONGEST_LINE {
            return Err(io::Error::other("the helper's answer is too long"));
        }
        self.line.extend_from_slice(&bytes[..part]);
        if end.is_none() {
            return Ok(part);
        }
        let line = std::mem::take(&mut self.line);
        self.take(&line)?;
        Ok(part + 1)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_wherever_they_are_cut() {
        let text = b"{\"progress\":[1,2]}\n{\"done\":[7]}\nTAR\nTAR";
        for size in 1..text.len() {
            let reports = std::sync::atomic::AtomicU64::new(0);
            let report = |_, _| {
                reports.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            };
            let progress = Progress { cancel: &|| false, report: &report };
            let mut rest = Vec::new();
            let mut lines = Lines::new(Some(&mut rest), &progress);
            for chunk in text.chunks(size) {
                lines.write_all(chunk).expect("takes it");
            }
            let answer = lines.answer.take().expect("an answer").expect("a good one");
            assert_eq!(answer, serde_json::json!([7]));
            assert_eq!((rest.as_slice(), reports.into_inner()), (&b"TAR\nTAR"[..], 1), "{size}");
        }
    }
}
