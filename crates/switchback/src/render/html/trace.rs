//! What the migration did to the databases while it ran: its statements, their locks, whom they would have kept waiting.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::duration::human_bytes;
use switchback_core::ids::StoreName;
use switchback_core::lint::Lint;
use switchback_core::report::Report;
use switchback_core::trace::{Effect, Existence, FileUse, Lock, Statement, TableTrace, Trace};

/// Tables that are shown; those that were blocked longest come first.
const MOST_TABLES: usize = 60;
/// Statements that are shown.
const MOST_STATEMENTS: usize = 150;
/// Names within one cell.
const MOST_NAMES: usize = 4;

/// The section, if a migration was traced.
pub fn section(report: &Report) -> Option<Section> {
    let silent = report.traces.values().all(|t| t.is_empty() && t.notes.is_empty());
    if silent && report.lint.is_none() {
        return None;
    }
    let calls: u64 = report.traces.values().map(Trace::calls).sum();
    let destroying: usize = report
        .traces
        .values()
        .map(|t| t.statements.iter().filter(|s| s.effect == Effect::Destroys).count())
        .sum();
    let errors: usize = report.traces.values().map(|t| t.errors.len()).sum();
    Some(Section {
        id: "migration",
        title: "Migration",
        wrong: false,
        open: errors > 0,
        summary: html! {
            (words::count(calls, "statement"))
            @if let Some(text) = words::blocked(report) { "; " (text) }
            @if destroying > 0 { ", " (parts::chip(Tone::Info, &format!("{destroying} irreversible"))) }
            @if errors > 0 { ", " (parts::chip(Tone::Warn, &format!("{errors} failed"))) }
            @if let Some(lint) = report.lint.as_ref().filter(|l| !l.findings.is_empty()) {
                ", " (words::count(lint.findings.len() as u64, "remark")) " on its files"
            }
        },
        body: html! {
            @for (name, trace) in &report.traces { (store(name, trace)) }
            @if let Some(lint) = &report.lint { (files(lint)) }
        },
    })
}

fn store(name: &StoreName, trace: &Trace) -> Markup {
    html! {
        article.store {
            h3 { code { (name) } }
            @if let Some(file) = &trace.file { (file_facts(trace, file)) } @else { (server_facts(trace)) }
            @if !trace.errors.is_empty() {
                div.failure {
                    p { (parts::icon(Tone::Warn)) strong { "Statements that failed" } }
                    @for error in &trace.errors {
                        p { code { (error.sqlstate) } " " (words::shorten(&error.message, 600)) }
                        @if !error.text.is_empty() { pre { code { (words::shorten(&error.text, 600)) } } }
                    }
                }
            }
            (tables(&trace.tables))
            (statements(trace))
            (parts::notes(&trace.notes))
        }
    }
}

fn server_facts(trace: &Trace) -> Markup {
    let (reads, writes) = trace.blocked_us();
    html! {
            dl.facts {
                div { dt { "From the first statement to the last commit" } dd { (words::micros(trace.span_us)) } }
                div { dt { "Longest without reading a table" } dd { (words::micros(reads)) } }
                div { dt { "Longest without writing a table" } dd { (words::micros(writes)) } }
                div { dt { "Write-ahead log" } dd { (human_bytes(trace.wal_bytes)) } }
                div { dt { "Databases" } dd { (human_bytes(trace.bytes_before)) " to " (human_bytes(trace.bytes_after)) } }
                div { dt { "Statements that only read" } dd { (words::number(trace.reads)) " in " (words::micros(trace.reads_us)) } }
            }
            p.dim {
                "What the new version did until it was healthy. Reads and writes were blocked as long as another session would have "
                "had to wait, had there been one; a promotion stops the services meanwhile."
            }
    }
}

/// Of a database that is a file nobody tells the statements.
fn file_facts(trace: &Trace, file: &FileUse) -> Markup {
    html! {
        dl.facts {
            div { dt { "From the first write to the last" } dd { (words::micros(trace.span_us)) } }
            div { dt { "Transactions that wrote" } dd { (words::number(file.transactions)) } }
            div { dt { "Nobody else could write" } dd { (words::micros(file.writers_blocked_us)) ", the longest " (words::micros(file.longest_write_us)) } }
            div { dt { "Nobody else could read" } dd { (words::micros(file.readers_blocked_us)) } }
            div { dt { "Write-ahead log" } dd { @if file.wal || trace.wal_bytes > 0 { (human_bytes(trace.wal_bytes)) } @else { "none" } } }
            div { dt { "Database" } dd { (human_bytes(trace.bytes_before)) " to " (human_bytes(trace.bytes_after)) } }
        }
        p.dim {
            "What the new version did until it was healthy, as the file shows it: its locks, and its definitions after each transaction. "
            "A promotion stops the services meanwhile."
        }
    }
}

fn tables(all: &[TableTrace]) -> Markup {
    let mut sorted: Vec<&TableTrace> = all.iter().collect();
    sorted.sort_by_key(|t| std::cmp::Reverse((t.reads_blocked_us, t.writes_blocked_us)));
    html! {
        @if !sorted.is_empty() {
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "Table" } th { "Strongest lock" } th.n { "No reads" } th.n { "No writes" }
                            th.n { "Inserted" } th.n { "Updated" } th.n { "Deleted" } th.n { "Size" } th { "" }
                        }
                    }
                    tbody {
                        @for table in sorted.iter().take(MOST_TABLES) {
                            tr {
                                td.name { code { (words::shorten(&table.name, 120)) } }
                                td { (table.lock.map_or("none", Lock::as_str)) }
                                td.n { (time(table.reads_blocked_us)) }
                                td.n { (time(table.writes_blocked_us)) }
                                td.n { (words::number(table.inserted)) }
                                td.n { (words::number(table.updated)) }
                                td.n { (words::number(table.deleted)) }
                                td.n { (size(table)) }
                                td {
                                    @match table.existence {
                                        Existence::New => (parts::chip(Tone::Quiet, "new")),
                                        Existence::Gone => (parts::chip(Tone::Warn, "gone")),
                                        Existence::Kept => @if table.rewritten { (parts::chip(Tone::Info, "written anew")) },
                                    }
                                }
                            }
                        }
                    }
                }
            }
            (parts::left_out(MOST_TABLES.min(sorted.len()), sorted.len(), "table"))
        }
    }
}

fn size(table: &TableTrace) -> String {
    match (table.bytes_before, table.bytes_after) {
        (before, after) if before == after => human_bytes(after),
        (before, after) => format!("{} to {}", human_bytes(before), human_bytes(after)),
    }
}

fn time(us: u64) -> String {
    if us == 0 { "–".to_owned() } else { words::micros(us) }
}

fn statements(trace: &Trace) -> Markup {
    let all = &trace.statements;
    let longest = all.iter().map(|s| s.took_us).max().unwrap_or(0).max(1);
    html! {
        @if !all.is_empty() {
            details.more open[all.len() <= 40] {
                summary { (words::count(trace.calls(), "statement")) ", in the order in which they began" }
                div.scroll {
                    table {
                        thead {
                            tr { th.n { "At" } th.n { "Took" } th.n { "Held" } th { "Lock" } th { "Statement" } th { "Effect" } }
                        }
                        tbody { @for one in all.iter().take(MOST_STATEMENTS) { (line(one, longest, trace.file.is_some())) } }
                    }
                }
                (parts::left_out(MOST_STATEMENTS.min(all.len()), all.len(), "form of statement"))
                @if trace.left_out > 0 { p.left-out { (words::count(trace.left_out, "short statement")) " were not kept one by one." } }
                @if trace.file.is_some() {
                    p.left-out { "Only what changed definitions; each with the time of its transaction." }
                } @else if !trace.timed { p.left-out { "Statements on rows are not in the list: the server could not log them." } }
            }
        }
    }
}

/// What the linter says of the files, beside what was measured.
fn files(lint: &Lint) -> Markup {
    html! {
        article.store {
            h3 {
                "Migration files"
                span.dim { " " (words::count(lint.files, "file")) ", " (words::count(lint.findings.len() as u64 + lint.left_out, "remark")) }
            }
            @if let Some(note) = &lint.note { p.dim { "Not looked at: " (words::shorten(note, 400)) } }
            @if !lint.findings.is_empty() {
                details.more open[lint.findings.len() <= 10] {
                    summary { "Remarks of " (lint.tool) }
                    div.scroll {
                        table {
                            thead { tr { th { "File" } th.n { "Line" } th { "Rule" } th { "Remark" } } }
                            tbody {
                                @for one in lint.findings.iter().take(MOST_STATEMENTS) {
                                    tr {
                                        td.name { code { (words::shorten(&one.file, 120)) } }
                                        td.n { (one.line) }
                                        td { code { (one.rule) } }
                                        td {
                                            (words::shorten(&one.message, 400))
                                            @if let Some(help) = &one.help { p.dim { (words::shorten(help, 400)) } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    (parts::left_out(MOST_STATEMENTS.min(lint.findings.len()), lint.findings.len(), "remark"))
                }
            }
        }
    }
}

fn line(one: &Statement, longest: u64, file: bool) -> Markup {
    let tone = match one.effect {
        Effect::Adds => Tone::Quiet,
        Effect::Redefines => Tone::Info,
        Effect::Destroys => Tone::Warn,
    };
    let blocks = one.lock.is_some_and(Lock::blocks_writes);
    html! {
        tr {
            td.n { (words::micros(one.at_us)) }
            td.n {
                (words::micros(one.took_us))
                (parts::bar(one.took_us as f64 / longest as f64, if blocks { Tone::Warn } else { Tone::Quiet }))
            }
            td.n { (words::micros(one.held_us)) }
            td {
                @if let Some(lock) = one.lock {
                    (lock.as_str())
                    @for name in one.locked.iter().take(MOST_NAMES) { br; code.dim { (words::shorten(name, 80)) } }
                    @if one.locked.len() > MOST_NAMES { br; span.dim { "and " (one.locked.len() - MOST_NAMES) " more" } }
                } @else if file { "the file" } @else { span.dim { "none" } }
            }
            td.statement {
                code { (words::shorten(&one.text, 500)) }
                @if one.calls > 1 { span.dim { " × " (words::number(one.calls)) } }
                @if !one.rewrote.is_empty() { p.dim { "Writes anew: " (one.rewrote.join(", ")) } }
                @if !one.dropped.is_empty() { p.dim { "Removes: " (words::shorten(&one.dropped.join(", "), 400)) } }
            }
            td { (parts::chip(tone, one.effect.as_str())) }
        }
    }
}
