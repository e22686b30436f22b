//! What the migration did to the data: per store, per table or file.

use super::parts::{self, Section};
use super::rows;
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::data::{PartChange, PartDiff, StoreDiff};
use switchback_core::duration::human_bytes;
use switchback_core::ids::StoreName;
use switchback_core::report::Report;

/// More tables or files than a person reads; the worst come first.
const MOST_PARTS: usize = 100;
/// Names of unchanged tables that are listed.
const MOST_NAMES: usize = 300;

/// The section, if a migration was compared.
pub fn section(report: &Report) -> Option<Section> {
    if report.diffs.is_empty() {
        return None;
    }
    let lost: u64 = report.diffs.values().map(StoreDiff::lost_or_altered).sum();
    let orphans = report.diffs.values().any(|d| !d.new_orphans.is_empty());
    let refused = report.checks.iter().any(|c| {
        words::counts(c) && c.kind == CheckKind::Integrity && matches!(c.verdict, Verdict::Fail { .. })
    });
    let differ =
        report.diffs.values().flat_map(|d| &d.parts).filter(|p| p.change != PartChange::Unchanged).count();
    Some(Section {
        id: "data",
        title: "Data",
        wrong: refused || orphans,
        open: refused || orphans || lost > 0,
        summary: html! {
            @if differ == 0 { "nothing changed" } @else {
                (words::number(differ as u64)) " tables or files differ"
                @if lost > 0 {
                    ", " (parts::chip(if refused { Tone::Bad } else { Tone::Warn }, &format!("{} lost or altered", words::number(lost))))
                } @else { ", nothing lost or altered" }
            }
        },
        body: html! { @for (name, diff) in &report.diffs { (store(name, diff)) } },
    })
}

fn store(name: &StoreName, diff: &StoreDiff) -> Markup {
    let files = words::holds_files(diff);
    let noun = if files { "file" } else { "table" };
    let mut changed: Vec<&PartDiff> =
        diff.parts.iter().filter(|p| p.change != PartChange::Unchanged).collect();
    // Losses first, then by name as they come.
    changed.sort_by_key(|p| (words::lost(p) == 0, p.columns_removed.is_empty(), rank(p.change)));
    let longest = changed.iter().map(|p| p.before.max(p.after)).max().unwrap_or(0);
    html! {
        article.store {
            h3 {
                code { (name) }
                span.dim {
                    " " (words::count(changed.len() as u64, noun)) " changed, "
                    (words::number(diff.unchanged)) " unchanged, "
                    (words::count(diff.lost_or_altered(), if files { "file" } else { "row" })) " lost or altered"
                }
            }
            @if !diff.new_orphans.is_empty() {
                div.failure {
                    p { (parts::icon(Tone::Bad)) strong { "References to rows that do not exist, new since the migration" } }
                    (parts::notes(&diff.new_orphans))
                }
            }
            @if !changed.is_empty() {
                div.scroll {
                    table.diff {
                        thead {
                            tr {
                                th { (if files { "File" } else { "Table" }) }
                                th { "Change" }
                                th.n { (if files { "Size before" } else { "Rows before" }) }
                                th.n { "After" }
                                @if !files { th.n { "Added" } th.n { "Removed" } th.n { "Changed" } th.proportion { span.sr { "Proportion" } } }
                            }
                        }
                        tbody {
                            @for part in changed.iter().take(MOST_PARTS) { (line(part, files, longest)) }
                        }
                    }
                }
                (parts::left_out(MOST_PARTS.min(changed.len()), changed.len(), noun))
                @if !files { (legend()) }
            }
            @for part in changed.iter().take(MOST_PARTS).filter(|p| !p.examples.is_empty()) {
                details.more open[words::lost(part) > 0] {
                    summary { "Example rows of " code { (words::shorten(&part.name, 120)) } }
                    (rows::examples(part))
                }
            }
            @if !diff.schema_changes.is_empty() {
                details.more {
                    summary { (words::count(diff.schema_changes.len() as u64, "change")) " of the schema" }
                    ul.notes { @for text in diff.schema_changes.iter().take(200) { li { (words::shorten(text, 1000)) } } }
                    (parts::left_out(200.min(diff.schema_changes.len()), diff.schema_changes.len(), "change"))
                }
            }
            (unchanged(diff, noun))
        }
    }
}

fn rank(change: PartChange) -> u8 {
    match change {
        PartChange::Dropped => 0,
        PartChange::Changed => 1,
        PartChange::ColumnsAdded => 2,
        PartChange::Added => 3,
        PartChange::Unchanged => 4,
    }
}

fn line(part: &PartDiff, files: bool, longest: u64) -> Markup {
    let (word, tone) = words::change(part.change);
    // A changed table that only gained rows lost nothing.
    let tone = match part.change {
        PartChange::Changed if words::lost(part) == 0 && part.columns_removed.is_empty() => Tone::Good,
        _ => tone,
    };
    let amount = |n: u64| if files { human_bytes(n) } else { words::number(n) };
    let gone = part.change == PartChange::Dropped;
    let new = part.change == PartChange::Added;
    html! {
        tr {
            td.name {
                code { (words::shorten(&part.name, 300)) }
                @for (title, columns) in [("Columns added: ", &part.columns_added), ("Columns gone: ", &part.columns_removed)] {
                    @if !columns.is_empty() {
                        p.columns {
                            (title)
                            @for column in columns.iter().take(50) { code { (words::shorten(column, 100)) } " " }
                            @if columns.len() > 50 { "and " (columns.len() - 50) " more" }
                        }
                    }
                }
                (parts::notes(&part.notes))
            }
            td { (parts::chip(tone, word)) }
            td.n { @if new { span.none { "–" } } @else { (amount(part.before)) } }
            td.n { @if gone { span.none { "–" } } @else { (amount(part.after)) } }
            @if !files {
                (tally(part.rows_added, "add", "+"))
                (tally(part.rows_removed, "rem", "−"))
                (tally(part.rows_changed, "cha", "~"))
                td.proportion { (proportion(part, longest)) }
            }
        }
    }
}

fn tally(n: u64, class: &str, sign: &str) -> Markup {
    html! {
        td.n { @if n == 0 { span.none { "0" } } @else { span.(class) { (sign) (words::number(n)) } } }
    }
}

fn legend() -> Markup {
    html! {
        p.legend aria-hidden="true" {
            span.key.kept {} "as before" span.key.cha {} "changed" span.key.rem {} "removed" span.key.add {} "added"
        }
    }
}

/// Rows kept, changed, removed and added, against the largest table of the list.
fn proportion(part: &PartDiff, longest: u64) -> Markup {
    let kept = part.before.saturating_sub(part.rows_removed).saturating_sub(part.rows_changed);
    let all = (kept + part.rows_changed + part.rows_removed + part.rows_added).max(1);
    // Small tables stay readable: the scale goes with the square root of the rows.
    let scale =
        (part.before.max(part.after).max(1) as f64 / longest.max(1) as f64).sqrt().clamp(0.08, 1.0) * 100.0;
    let mut x = 0.0;
    html! {
        svg.stack width="100%" height="10" role="img"
            aria-label={ (part.rows_added) " added, " (part.rows_removed) " removed, " (part.rows_changed) " changed, " (kept) " as before" } {
            @for (n, class) in [(kept, "kept"), (part.rows_changed, "cha"), (part.rows_removed, "rem"), (part.rows_added, "add")] {
                @if n > 0 {
                    @let width = (n as f64 / all as f64 * scale).max(1.5);
                    @let at = advance(&mut x, width);
                    rect.(class) x={ (round(at)) "%" } width={ (round(width)) "%" } height="10" {}
                }
            }
        }
    }
}

/// Where a bar begins, and moves to its end.
fn advance(x: &mut f64, width: f64) -> f64 {
    *x += width;
    *x - width
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn unchanged(diff: &StoreDiff, noun: &str) -> Markup {
    let names: Vec<&str> =
        diff.parts.iter().filter(|p| p.change == PartChange::Unchanged).map(|p| p.name.as_str()).collect();
    html! {
        @if !names.is_empty() {
            details.more {
                summary { (words::count(diff.unchanged.max(names.len() as u64), noun)) " unchanged" }
                p.names { @for name in names.iter().take(MOST_NAMES) { code { (words::shorten(name, 120)) } " " } }
                (parts::left_out(MOST_NAMES.min(names.len()), names.len(), "name"))
            }
        }
    }
}
