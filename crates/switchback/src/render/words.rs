//! The words, marks and orders that all formats share.

use std::borrow::Cow;
use std::fmt::Write as _;
use switchback_core::check::{CheckResult, Verdict};
use switchback_core::data::{PartChange, PartDiff, StoreDiff};
use switchback_core::duration::human_ms;
use switchback_core::plan::{Group, Procedure};
use switchback_core::report::{Conclusion, Report, StepStatus};

/// How something is to be taken; formats map it to colour and mark, never to colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Going on.
    Info,
    /// A person should look.
    Warn,
    /// Wrong.
    Bad,
    /// Neither good nor bad.
    Quiet,
}

impl Tone {
    /// The mark of text formats.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Info => "•",
            Self::Warn => "!",
            Self::Bad => "✗",
            Self::Quiet => "–",
        }
    }
}

/// The conclusion as a label.
pub fn conclusion(conclusion: Conclusion) -> (&'static str, Tone) {
    match conclusion {
        Conclusion::Pass => ("Pass", Tone::Good),
        Conclusion::OnTrial => ("On trial", Tone::Info),
        Conclusion::Refused => ("Refused", Tone::Bad),
        Conclusion::Inconclusive => ("Inconclusive", Tone::Warn),
        Conclusion::Undone => ("Undone", Tone::Warn),
        Conclusion::RolledBack => ("Rolled back", Tone::Warn),
        Conclusion::NeedsOperator => ("Needs operator", Tone::Bad),
        Conclusion::Unfinished => ("Unfinished", Tone::Info),
    }
}

/// The title of the list of reasons.
pub fn reasons_title(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Refused => "Why it was refused",
        Conclusion::Inconclusive => "What could not be judged",
        Conclusion::Undone => "Why it was undone",
        Conclusion::RolledBack => "Why it was rolled back",
        Conclusion::NeedsOperator => "Why a person is needed",
        Conclusion::Pass | Conclusion::OnTrial | Conclusion::Unfinished => "Reasons",
    }
}

/// What the run was, as a noun.
pub fn procedure(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::Rehearse => "Rehearsal",
        Procedure::Path => "Path",
        Procedure::Scaling => "Timing of a migration",
        Procedure::Promote => "Promotion",
        Procedure::Rollback => "Rollback",
        Procedure::ServiceRollback => "Rollback of single services",
        Procedure::Up => "Start",
        Procedure::Down => "Stop",
        Procedure::StagingUp => "Staging environment",
        Procedure::StagingSync => "Sync of a staging environment",
        Procedure::StagingReset => "Reset of a staging environment",
        Procedure::StagingStop => "Stop of a staging environment",
        Procedure::StagingDown => "Removal of a staging environment",
        Procedure::Backup => "Backup",
        Procedure::Drill => "Drill",
        Procedure::RollbackDrill => "Rollback drill",
        Procedure::ProductionDrill => "Rollback drill on production",
        Procedure::Restore => "Restore",
        Procedure::Carry => "Writes carried back",
        Procedure::Export => "Later writes exported",
    }
}

/// The title of a group of steps.
pub fn group(group: Group) -> &'static str {
    match group {
        Group::Prepare => "Prepare",
        Group::Baseline => "Baseline",
        Group::Switch => "Switch",
        Group::Check => "Check",
        Group::Rollback => "Rollback",
        Group::After => "After",
    }
}

/// The status of a step.
pub fn status(status: StepStatus) -> (&'static str, Tone) {
    match status {
        StepStatus::Pending => ("not begun", Tone::Quiet),
        StepStatus::Running => ("not ended", Tone::Info),
        StepStatus::Done => ("done", Tone::Good),
        StepStatus::Failed => ("failed", Tone::Bad),
        StepStatus::Finding => ("not possible", Tone::Quiet),
        StepStatus::Skipped => ("left out", Tone::Quiet),
        StepStatus::Undone => ("undone", Tone::Warn),
    }
}

/// The verdict of a check.
pub fn verdict(verdict: &Verdict) -> (&'static str, Tone) {
    let tone = match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Fail { .. } => Tone::Bad,
        Verdict::Inconclusive { .. } => Tone::Warn,
        Verdict::Waived { .. } | Verdict::NotRun { .. } => Tone::Quiet,
    };
    (verdict.word(), tone)
}

/// The environment whose results are recorded and never counted.
pub const CODE_ONLY: &str = "code-only";

/// Whether a check's result counts for the conclusion.
pub fn counts(check: &CheckResult) -> bool {
    check.environment != CODE_ONLY
}

/// The environments of all checks, in the order of a rehearsal.
pub fn environments(report: &Report) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for check in &report.checks {
        if !found.contains(&check.environment.as_str()) {
            found.push(&check.environment);
        }
    }
    let rank = |name: &str| match name {
        "baseline" => 0,
        "candidate" => 1,
        "after rollback" => 2,
        "production" => 3,
        CODE_ONLY => 5,
        _ => 4,
    };
    found.sort_by_key(|name| rank(name));
    found
}

/// What is observed in an environment.
pub fn environment_meaning(name: &str) -> &'static str {
    match name {
        "baseline" => "old version",
        "candidate" => "new version",
        "after rollback" => "old version again",
        "production" => "live",
        CODE_ONLY => "old version, new data; not counted",
        _ => "",
    }
}

/// What happened to a table or file.
pub fn change(change: PartChange) -> (&'static str, Tone) {
    match change {
        PartChange::Unchanged => ("unchanged", Tone::Quiet),
        PartChange::ColumnsAdded => ("columns added", Tone::Good),
        PartChange::Changed => ("changed", Tone::Warn),
        PartChange::Added => ("added", Tone::Good),
        PartChange::Dropped => ("dropped", Tone::Bad),
    }
}

/// Rows or files of one part that are gone or altered, as [`StoreDiff::lost_or_altered`] counts them.
pub fn lost(part: &PartDiff) -> u64 {
    match part.change {
        PartChange::Dropped => part.rows_removed.max(1),
        _ => part.rows_removed + part.rows_changed,
    }
}

/// Whether a store holds files and not tables: `before` and `after` are then sizes.
///
/// The diff does not say so itself. Only files have notes; for a table that is new or gone, its rows
/// are also its added or removed rows.
pub fn holds_files(diff: &StoreDiff) -> bool {
    // Only a database has columns and a schema; notes are written about its tables, too.
    let database = !diff.schema_changes.is_empty()
        || diff.parts.iter().any(|p| !p.columns_added.is_empty() || !p.columns_removed.is_empty());
    !database
        && diff.parts.iter().any(|p| {
            !p.notes.is_empty()
                || match p.change {
                    PartChange::Added => p.after != p.rows_added,
                    PartChange::Dropped => p.before != p.rows_removed,
                    PartChange::Unchanged | PartChange::ColumnsAdded | PartChange::Changed => false,
                }
        })
}

pub use switchback_core::times::utc;

/// A time in microseconds.
pub fn micros(us: u64) -> String {
    if us < 10_000 { format!("{:.1} ms", us as f64 / 1000.0) } else { human_ms(us / 1000) }
}

/// Which table the migration would have kept others from longest, in words; nothing if no migration was traced.
pub fn blocked(report: &Report) -> Option<String> {
    if report.traces.is_empty() {
        return None;
    }
    let tables = report.traces.values().flat_map(|t| &t.tables);
    let tables = tables.map(|t| (t.name.as_str(), t.reads_blocked_us, t.writes_blocked_us));
    let files = report.traces.iter().filter_map(|(store, t)| {
        t.file.map(|f| (store.as_str(), f.readers_blocked_us, f.writers_blocked_us))
    });
    let worst = tables.chain(files).max_by_key(|(_, reads, writes)| ((*reads).max(*writes), *reads));
    Some(match worst {
        Some((name, reads, writes)) if writes > 0 && reads == writes => {
            format!("{} could not have been used for {}", shorten(name, 80), micros(writes))
        }
        Some((name, 0, writes)) if writes > 0 => {
            format!("{} could not have been written for {}", shorten(name, 80), micros(writes))
        }
        Some((name, reads, writes)) if writes > 0 => format!(
            "{} could not have been written for {}, nor read for {}",
            shorten(name, 80),
            micros(writes),
            micros(reads)
        ),
        _ => "it would have kept nobody waiting".to_owned(),
    })
}

/// A number with thousands apart: `12,345`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with its noun: `1 row`, `12,345 rows`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// Cuts a text that is longer than `most` characters.
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Makes characters visible that would act instead of showing: controls, and the marks that reorder
/// text ("Trojan Source", CVE-2021-42574). New lines and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            // The symbols for controls are in the same order as the controls.
            '\0'..='\x1f' if acts(c) => out.extend(char::from_u32(0x2400 + u32::from(c))),
            '\x7f' => out.push('␡'),
            c if acts(c) => {
                let _ = write!(out, "[U+{:04X}]", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// One line: every run of white space becomes a space.
pub fn one_line(text: &str) -> String {
    visible(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}
