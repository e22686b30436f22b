//! The matrix as one HTML file: no script, nothing loaded from elsewhere.

use super::style::CSS;
use super::{count, date, face, summary, took, why};
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};
use switchback_core::criteria::{Counts, Evidence, Judgement, Matrix, Missing, Row};
use switchback_core::duration::{human_bytes, human_ms};

/// Renders it.
pub fn html(matrix: &Matrix) -> String {
    let subject = &matrix.subject;
    let title = format!("Acceptance of upgrades: {}", subject.stack);
    markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · " (summary(matrix.counts)) }
                style { (PreEscaped(CSS)) }
            }
            body {
                main {
                    h1 { (title) }
                    p.lead {
                        (date(subject.started_at_ms)) " · in " (took(matrix)) " · " (subject.host)
                        " · " (subject.tool)
                        @if !subject.change.is_empty() { " · upgrade tried: " strong { (subject.change) } }
                    }
                    (head(matrix))
                    nav aria-label="Areas" { @for (area, rows) in matrix.areas() { (tile(area, &rows)) } }
                    @for (area, rows) in matrix.areas() { (section(matrix, area, &rows)) }
                    footer {
                        p {
                            "Everything here is rendered from " a href="evidence.json" { "evidence.json" }
                            "; also as " a href="matrix.md" { "Markdown" } " and " a href="junit.xml" { "JUnit" }
                            ". Files are named with their BLAKE3. Reproduce all of it: " code { "switchback verify" } "."
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

fn head(matrix: &Matrix) -> Markup {
    let c = matrix.counts;
    markup! {
        div.card.head {
            div.score {
                b { (c.passed) " of " (c.total) }
                span { "criteria are proved" }
            }
            (bar(c))
            ul.legend {
                @for (class, sign, word, n) in parts(c) {
                    li { span class={ "chip " (class) } { span aria-hidden="true" { (sign) } (word) } b { (n) } }
                }
            }
            p.rule { "A criterion passes only with evidence. What was not tried says NOT-RUN and counts against the total. What this stack has nothing for is not applicable, and says which fact that is." }
            @for note in &matrix.subject.notes { p.note { (note) } }
        }
    }
}

fn parts(c: Counts) -> [(&'static str, &'static str, &'static str, usize); 5] {
    [
        ("pass", "✓", "passed", c.passed),
        ("fail", "✗", "failed", c.failed),
        ("doubt", "?", "inconclusive", c.inconclusive),
        ("none", "–", "not run", c.not_run),
        ("spared", "∅", "not applicable", c.not_applicable),
    ]
}

fn bar(c: Counts) -> Markup {
    markup! {
        div.bar role="img" aria-label=(summary(c)) {
            @for (class, _, _, n) in parts(c) {
                @if n > 0 { i class=(class) style={ "flex:" (n) } {} }
            }
        }
    }
}

fn anchor(area: &str) -> String {
    area.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn tile(area: &str, rows: &[&Row]) -> Markup {
    let c = count(rows.iter().copied());
    markup! {
        a.card href={ "#" (anchor(area)) } {
            span { strong { (area) } small { (c.passed) "/" (c.total) } }
            (bar(c))
        }
    }
}

fn section(matrix: &Matrix, area: &str, rows: &[&Row]) -> Markup {
    let c = count(rows.iter().copied());
    markup! {
        section id=(anchor(area)) {
            div.area { h2 { (area) } small { (c.passed) " of " (c.total) " proved" } }
            div.card { @for row in rows { (criterion(matrix, row)) } }
        }
    }
}

fn chip(verdict: &Judgement) -> Markup {
    let (class, sign, word) = face(verdict);
    markup! { span class={ "chip " (class) } { span aria-hidden="true" { (sign) } (word) } }
}

fn criterion(matrix: &Matrix, row: &Row) -> Markup {
    markup! {
        details.row id=(row.criterion.id) open[matches!(row.verdict, Judgement::Fail { .. })] {
            summary {
                (chip(&row.verdict))
                span.what {
                    (row.criterion.text)
                    @if let Some(line) = short(row) { small { (line) } }
                }
                span.id { (row.criterion.id) }
            }
            div.body {
                @if let Some(note) = &row.criterion.note { p { (note) } }
                @for one in matrix.evidence_of(row) { (proof(one)) }
                @for one in row.missing.iter().filter(|m| !matrix.evidence.iter().any(|e| e.id == m.id)) { (absent(one)) }
            }
        }
    }
}

/// What speaks against a row that did not pass, in a line.
fn short(row: &Row) -> Option<String> {
    match &row.verdict {
        Judgement::Pass if row.not_applicable.is_empty() => None,
        Judgement::Pass => {
            let ids: Vec<&str> = row.not_applicable.iter().map(|m| m.id.as_str()).collect();
            Some(format!("without what does not apply: {}", ids.join(", ")))
        }
        Judgement::NotRun { .. } if !row.missing.is_empty() => {
            let ids: Vec<&str> = row.missing.iter().map(|m| m.id.as_str()).collect();
            Some(format!("missing: {}", ids.join(", ")))
        }
        other => {
            let lines = why(other);
            let more =
                if lines.len() > 1 { format!(" (and {} more)", lines.len() - 1) } else { String::new() };
            lines.first().map(|l| format!("{l}{more}"))
        }
    }
}

fn absent(missing: &Missing) -> Markup {
    markup! {
        div.proof.absent {
            header { span.chip.none { span aria-hidden="true" { "–" } "NOT-RUN" } h3 { "Missing evidence" } span.id { (missing.id) } }
            p.soft { (missing.why) }
        }
    }
}

fn proof(evidence: &Evidence) -> Markup {
    let lines = why(&evidence.verdict);
    let bad = matches!(evidence.verdict, Judgement::Fail { .. });
    let took = u64::try_from(evidence.ended_at_ms - evidence.started_at_ms).unwrap_or(0);
    markup! {
        div.proof {
            header { (chip(&evidence.verdict)) h3 { (evidence.title) } span.id { (evidence.id) } }
            @if !lines.is_empty() {
                ul class=(if bad { "bad" } else { "bad doubt" }) { @for line in &lines { li { (line) } } }
            }
            @if !evidence.threshold.is_empty() { p.soft { "Demanded: " (evidence.threshold) "." } }
            dl {
                @for (name, value) in &evidence.measured { dt { (name) } dd { (value) } }
                @if !evidence.runs.is_empty() {
                    dt { "runs" }
                    dd {
                        @for (i, run) in evidence.runs.iter().enumerate() {
                            @if i > 0 { ", " }
                            a href={ "runs/" (run) "/report.html" } { (run) }
                        }
                    }
                }
                dt { "observed" } dd { (date(evidence.started_at_ms)) ", over " (human_ms(took)) ", by " (evidence.tool) }
                @if !evidence.releases.is_empty() {
                    dt { "releases" }
                    dd {
                        @for (role, digest) in &evidence.releases { (role) " " code title=(digest) { (digest.short()) } " " }
                        "configuration " code title=(evidence.config) { (evidence.config.short()) }
                    }
                }
                dt { "reproduce" } dd { code { (evidence.reproduce) } }
            }
            @if !evidence.artefacts.is_empty() {
                details.files {
                    summary { (evidence.artefacts.len()) " files, with their BLAKE3" }
                    ul {
                        @for file in &evidence.artefacts {
                            li {
                                a href=(file.path) { (file.path) } " " (human_bytes(file.bytes)) " "
                                span.hash { (file.blake3) }
                            }
                        }
                    }
                }
            }
        }
    }
}
