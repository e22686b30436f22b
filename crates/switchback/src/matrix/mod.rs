//! The matrix of acceptance criteria as files: JSON (the truth), one HTML file, Markdown, JUnit.
//!
//! Everything here renders a [`Matrix`] and decides nothing.

mod html;
mod junit;
mod markdown;
mod style;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use switchback_core::criteria::{Counts, Judgement, Matrix};

/// The truth.
pub const JSON: &str = "evidence.json";
/// For people.
pub const HTML: &str = "index.html";
const MARKDOWN: &str = "matrix.md";
const JUNIT: &str = "junit.xml";

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes all four files; the JSON last, so that it is there only if the others are.
pub fn write(folder: &Path, matrix: &Matrix) -> Result<(), WriteError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        |source| WriteError { path, source }
    };
    std::fs::create_dir_all(folder).map_err(wrap(folder))?;
    let mut json = serde_json::to_string_pretty(matrix)
        .map_err(|e| WriteError { path: folder.join(JSON), source: e.into() })?;
    json.push('\n');
    let files = [
        (HTML, html::html(matrix)),
        (MARKDOWN, markdown::markdown(matrix)),
        (JUNIT, junit::junit(matrix)),
        (JSON, json),
    ];
    for (name, text) in files {
        let (path, temp) = (folder.join(name), folder.join(format!(".{name}.tmp")));
        std::fs::write(&temp, text).and_then(|()| std::fs::rename(&temp, &path)).map_err(wrap(&path))?;
    }
    Ok(())
}

/// Class, sign and word of a verdict; colour is never the only sign.
fn face(verdict: &Judgement) -> (&'static str, &'static str, &'static str) {
    match verdict {
        Judgement::Pass => ("pass", "✓", "passed"),
        Judgement::Fail { .. } => ("fail", "✗", "failed"),
        Judgement::Inconclusive { .. } => ("doubt", "?", "inconclusive"),
        Judgement::NotRun { .. } => ("none", "–", "NOT-RUN"),
        Judgement::NotApplicable { .. } => ("spared", "∅", "n/a"),
    }
}

/// Why a verdict is not a pass, one line each.
fn why(verdict: &Judgement) -> Vec<String> {
    match verdict {
        Judgement::Pass => Vec::new(),
        Judgement::Fail { reasons } => reasons
            .iter()
            .map(|r| if r.at.is_empty() { r.what.clone() } else { format!("{}: {}", r.at, r.what) })
            .collect(),
        Judgement::Inconclusive { why } | Judgement::NotRun { why } | Judgement::NotApplicable { why } => {
            vec![why.clone()]
        }
    }
}

/// `27 passed · 0 failed · 1 inconclusive · 17 not run · 3 not applicable · of 48`.
fn summary(counts: Counts) -> String {
    format!(
        "{} passed · {} failed · {} inconclusive · {} not run · {} not applicable · of {}",
        counts.passed,
        counts.failed,
        counts.inconclusive,
        counts.not_run,
        counts.not_applicable,
        counts.total
    )
}

/// Counts of some rows.
fn count<'r>(rows: impl IntoIterator<Item = &'r switchback_core::criteria::Row>) -> Counts {
    let mut counts = Counts::default();
    for row in rows {
        counts.add(&row.verdict);
    }
    counts
}

fn date(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| String::new(), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn took(matrix: &Matrix) -> String {
    let ms = matrix.subject.ended_at_ms - matrix.subject.started_at_ms;
    switchback_core::duration::human_ms(u64::try_from(ms).unwrap_or(0))
}

/// The matrix for a terminal: one line per criterion, and what speaks against those that did not pass.
pub fn terminal(matrix: &Matrix) -> String {
    let mut out = String::new();
    for (area, rows) in matrix.areas() {
        let counts = count(rows.iter().copied());
        let _ = writeln!(out, "\n{area}  {} of {}", counts.passed, counts.total);
        for row in rows {
            let (_, sign, word) = face(&row.verdict);
            let _ = writeln!(out, "  {sign} {word:<12} {}", row.criterion.text);
            if matches!(row.verdict, Judgement::NotRun { .. }) {
                for missing in &row.missing {
                    let _ = writeln!(out, "                 {}: {}", missing.id, missing.why);
                }
            } else {
                for line in why(&row.verdict).iter().take(5) {
                    let _ = writeln!(out, "                 {line}");
                }
                for one in row.not_applicable.iter().filter(|_| row.verdict == Judgement::Pass) {
                    let _ = writeln!(out, "                 without {}: {}", one.id, one.why);
                }
            }
        }
    }
    let _ = writeln!(out, "\n{}, in {}", summary(matrix.counts), took(matrix));
    for note in &matrix.subject.notes {
        let _ = writeln!(out, "  {note}");
    }
    out
}

#[cfg(test)]
mod tests;
