//! The matrix as Markdown, for pull requests.

use super::{count, date, face, summary, took, why};
use std::fmt::Write as _;
use switchback_core::criteria::{Judgement, Matrix, Row};

/// Renders it.
pub fn markdown(matrix: &Matrix) -> String {
    let subject = &matrix.subject;
    let mut out = String::new();
    let _ = writeln!(out, "# Acceptance of upgrades: {}\n", subject.stack);
    let _ = writeln!(out, "**{}**\n", summary(matrix.counts));
    let _ = writeln!(
        out,
        "{} on {}, {}, in {}. Upgrade tried: {}.\n",
        subject.tool,
        cell(&subject.host),
        date(subject.started_at_ms),
        took(matrix),
        cell(&subject.change)
    );
    for note in &subject.notes {
        let _ = writeln!(out, "> {}\n", cell(note));
    }
    let _ = writeln!(
        out,
        "A criterion passes only with evidence. What was not tried says NOT-RUN and counts against the total; what this stack has nothing for is not applicable.\n"
    );
    for (area, rows) in matrix.areas() {
        let counts = count(rows.iter().copied());
        let _ = writeln!(out, "## {} ({} of {})\n", cell(area), counts.passed, counts.total);
        let _ = writeln!(out, "| | Criterion | Evidence |\n|---|---|---|");
        for row in rows {
            let (_, sign, word) = face(&row.verdict);
            let _ =
                writeln!(out, "| {sign} {word} | {} | {} |", cell(&row.criterion.text), proofs(matrix, row));
        }
        out.push('\n');
    }
    let _ = writeln!(out, "## Evidence\n");
    for evidence in &matrix.evidence {
        let (_, sign, word) = face(&evidence.verdict);
        let _ = writeln!(out, "### {}: {}\n", cell(&evidence.id), cell(&evidence.title));
        let _ = writeln!(out, "{sign} {word}. Demanded: {}.\n", cell(&evidence.threshold));
        for line in why(&evidence.verdict) {
            let _ = writeln!(out, "- **{}**", cell(&line));
        }
        for (name, value) in &evidence.measured {
            let _ = writeln!(out, "- {}: {}", cell(name), cell(value));
        }
        for run in &evidence.runs {
            let _ = writeln!(out, "- run [{run}](runs/{run}/report.md)");
        }
        let _ = writeln!(out, "\nReproduce: `{}`\n", evidence.reproduce);
    }
    out
}

/// Which evidence there is, which is missing, and why the row is not a pass.
fn proofs(matrix: &Matrix, row: &Row) -> String {
    let mut parts: Vec<String> = matrix
        .evidence_of(row)
        .filter(|e| !row.missing.iter().chain(&row.not_applicable).any(|m| m.id == e.id))
        .map(|e| format!("{} `{}`", face(&e.verdict).1, e.id))
        .collect();
    parts.extend(row.missing.iter().map(|m| format!("– `{}`: {}", m.id, cell(&m.why))));
    parts.extend(row.not_applicable.iter().map(|m| format!("∅ `{}`: {}", m.id, cell(&m.why))));
    if !matches!(row.verdict, Judgement::NotRun { .. } | Judgement::NotApplicable { .. }) {
        parts.extend(why(&row.verdict).iter().take(5).map(|w| cell(w)));
    }
    parts.join("<br>")
}

/// Text that cannot break a table or begin a construct of Markdown or HTML.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
