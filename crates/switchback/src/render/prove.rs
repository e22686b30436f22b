//! Which known-bad upgrades were caught, for people.

use serde::Serialize;
use std::fmt::Write as _;
use switchback_core::duration::human_ms;
use switchback_core::prove::{Injection, Outcome, Proved, Row, TABLE};

/// The longest reason that is shown on a line.
const LONGEST: usize = 150;

fn short(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    let cut: String = line.chars().take(LONGEST).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

fn mark(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Caught { .. } | Outcome::Passed => "✓",
        Outcome::Survived { .. } | Outcome::Alarmed { .. } => "✗",
        _ => "–",
    }
}

fn words(row: &Row) -> String {
    match &row.outcome {
        Outcome::Caught { by, why } => format!("caught by {by}: {}", short(why)),
        Outcome::Survived { instead, advice } if instead.is_empty() => format!("SURVIVED; {advice}"),
        Outcome::Survived { instead, advice } => {
            format!("SURVIVED: only {}; {advice}", short(&instead.join(", ")))
        }
        Outcome::Passed => "passes, as it has to".to_owned(),
        Outcome::Alarmed { why } => format!("FALSE ALARM: {}", short(why)),
        Outcome::Unviable { why } => format!("could not be tried: {why}"),
        Outcome::NotApplicable { why, advice } => format!("cannot be tried: {why}; {advice}"),
    }
}

fn summary(proved: &Proved) -> String {
    let score = proved.score();
    let mut text = format!(
        "{} of {} mutants that could be tried were caught",
        score.caught,
        score.caught + score.survived
    );
    if score.untried > 0 {
        let _ = write!(text, "; {} could not be tried here", score.untried);
    }
    let controls = proved.rows.iter().filter(|r| r.id.starts_with('C')).count();
    let _ = match score.alarms {
        0 => write!(text, "; no false alarm in {} runs without a fault", controls * proved.controls),
        _ => write!(text, "; FALSE ALARM without a fault"),
    };
    text
}

/// For a terminal.
pub fn terminal(proved: &Proved) -> String {
    let width = proved.rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &proved.rows {
        let pad = " ".repeat(width - row.name.chars().count());
        let _ = writeln!(text, "  {} {:<4} {}{pad}  {}", mark(&row.outcome), row.id, row.name, words(row));
    }
    let _ = writeln!(text, "\n  {}", summary(proved));
    text
}

/// As Markdown.
pub fn markdown(proved: &Proved) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ");
    let mut text = format!("# Known-bad upgrades of {}\n\n{}\n\n", cell(&proved.stack), summary(proved));
    text.push_str("| | mutant | has to be caught by | outcome |\n|---|---|---|---|\n");
    for row in &proved.rows {
        let _ = writeln!(
            text,
            "| {} {} | {} | {} | {} |",
            mark(&row.outcome),
            row.id,
            cell(&row.name),
            row.expects.join(" or "),
            cell(&words(row))
        );
    }
    text
}

/// One row on a line of its own, as soon as it is known.
pub fn line(row: &Row) -> String {
    format!("  {} {:<4} {}  {}", mark(&row.outcome), row.id, words(row), human_ms(row.took_ms))
}

/// A line of the table.
#[derive(Serialize)]
pub struct Listed {
    id: &'static str,
    name: &'static str,
    expects: Vec<&'static str>,
    made: &'static str,
}

/// The table of mutants.
pub fn listed() -> Vec<Listed> {
    let made = |injection: Injection| match injection {
        Injection::Proxy => "by a proxy",
        Injection::Data(_) => "in its data",
        Injection::Irreversible(_) => "in its data, with the old version on it",
        Injection::Beside(_) => "by a program beside the service",
        Injection::Still => "by a service that stands still",
        Injection::Hanging => "by a migration that never ends",
        Injection::Exposed => "by a way to production",
        Injection::Ending => "by ending a service again and again",
        Injection::Lacking => "by a release without one variable",
        Injection::OverBudget => "by a budget of half the time it takes",
    };
    let line = |m: &switchback_core::prove::Mutant| Listed {
        id: m.id,
        name: m.name,
        expects: m.catchers(),
        made: made(m.injection),
    };
    TABLE.iter().map(line).collect()
}

/// The same, for a terminal.
pub fn list() -> String {
    let all = listed();
    let width = all.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in all {
        let pad = " ".repeat(width - line.name.chars().count());
        let expects = if line.expects.is_empty() { "–".to_owned() } else { line.expects.join(" or ") };
        let _ = writeln!(text, "  {:<4} {}{pad}  {expects:<22} {}", line.id, line.name, line.made);
    }
    text
}
