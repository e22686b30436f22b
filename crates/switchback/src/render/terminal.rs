//! The last lines of a run on the terminal: verdict, numbers, what failed, what is next.

use super::facts;
use super::words::{self, Tone, one_line};
use console::{Style, measure_text_width};
use switchback_core::check::{CheckResult, Verdict};
use switchback_core::report::{Report, StepStatus};

/// Failing checks that are shown; the page has all of them.
const MOST_CHECKS: usize = 5;
/// Reasons that are shown.
const MOST_REASONS: usize = 5;

/// Renders the lines, the last one ended.
pub fn text(report: &Report, color: bool, width: usize) -> String {
    let mut page = Page { lines: Vec::new(), color, width: width.clamp(30, 110) };
    let (label, tone) = words::conclusion(report.conclusion);
    let verdict = page.paint(&label.to_uppercase(), style(tone).bold());
    let mark = page.paint(tone.mark(), style(tone).bold());
    page.wrapped(&format!("{mark} {verdict}  "), &words::shorten(&report.headline, 300), None);
    page.wrapped("  ", &report.production, None);
    numbers(&mut page, report);
    let problems = problems(&mut page, report);
    reasons(&mut page, report, problems);
    egress(&mut page, report);
    next(&mut page, report);
    page.blank();
    let how = page.paint(&one_line(&format!("switchback report {}", report.run)), Style::new().dim());
    page.lines.push(format!("  Report  {how}"));
    let mut out = page.lines.join("\n");
    out.push('\n');
    out
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new().green(),
        Tone::Info => Style::new().cyan(),
        Tone::Warn => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
        Tone::Quiet => Style::new().dim(),
    }
}

/// Lines within a width. Everything of the report goes through [`one_line`], so no text of a service
/// can move the cursor or set colours.
struct Page {
    lines: Vec<String>,
    color: bool,
    width: usize,
}

impl Page {
    fn paint(&self, text: &str, style: Style) -> String {
        if self.color { style.force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    }

    fn blank(&mut self) {
        self.lines.push(String::new());
    }

    /// Adds `lead` and the text after it; further lines are indented by the width of `lead`, at most
    /// by ten.
    fn wrapped(&mut self, lead: &str, text: &str, style: Option<&Style>) {
        let indent = measure_text_width(lead).min(10);
        let mut line = lead.to_owned();
        let mut used = measure_text_width(lead);
        let mut begun = false;
        for word in one_line(text).split(' ') {
            for piece in self.pieces(word, indent) {
                let wide = measure_text_width(&piece);
                if begun && used + 1 + wide > self.width {
                    self.lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                    used = indent;
                    begun = false;
                }
                if begun {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(&style.map_or(piece.clone(), |s| self.paint(&piece, s.clone())));
                used += wide;
                begun = true;
            }
        }
        self.lines.push(line.trim_end().to_owned());
    }

    /// A word that fits on no line is broken.
    fn pieces(&self, word: &str, indent: usize) -> Vec<String> {
        let most = self.width.saturating_sub(indent).max(10);
        if measure_text_width(word) <= most {
            return vec![word.to_owned()];
        }
        let mut pieces = vec![String::new()];
        let mut used = 0;
        for c in word.chars() {
            let wide = measure_text_width(c.encode_utf8(&mut [0; 4]));
            if used + wide > most {
                pieces.push(String::new());
                used = 0;
            }
            used += wide;
            if let Some(last) = pieces.last_mut() {
                last.push(c);
            }
        }
        pieces
    }
}

fn numbers(page: &mut Page, report: &Report) {
    let facts = facts::key(report);
    let names = facts.iter().map(|f| measure_text_width(f.name)).max().unwrap_or(0);
    let values = facts.iter().map(|f| measure_text_width(&f.value)).max().unwrap_or(0);
    page.blank();
    // What stays for the note; on a narrow terminal numbers are plain lines without notes.
    let room = page.width.saturating_sub(names + values + 7);
    for fact in facts {
        if room < 12 {
            page.wrapped("  ", &format!("{}: {}", fact.name, fact.value), None);
            continue;
        }
        let name = console::pad_str(fact.name, names, console::Alignment::Left, None).into_owned();
        let value = console::pad_str(&fact.value, values, console::Alignment::Right, None).into_owned();
        let value = match fact.tone {
            Tone::Bad | Tone::Warn | Tone::Good => page.paint(&value, style(fact.tone).bold()),
            Tone::Info | Tone::Quiet => value,
        };
        let alarm = if matches!(fact.tone, Tone::Bad | Tone::Warn) { fact.tone.mark() } else { " " };
        let note = words::shorten(&one_line(&fact.note), room - 1).into_owned();
        let note = page.paint(&note, Style::new().dim());
        page.lines.push(format!("  {name}  {value} {alarm} {note}").trim_end().to_owned());
    }
}

/// Adds failing checks and returns whether there were any.
fn problems(page: &mut Page, report: &Report) -> bool {
    let found: Vec<&CheckResult> =
        report.checks.iter().filter(|c| words::counts(c) && !c.verdict.permits()).collect();
    if !found.is_empty() {
        page.blank();
    }
    for check in found.iter().take(MOST_CHECKS) {
        let (word, tone) = words::verdict(&check.verdict);
        let mark = page.paint(tone.mark(), style(tone));
        let name = format!(
            "{} in {}: {word}",
            words::shorten(&check.id, 120),
            words::shorten(&check.environment, 40)
        );
        page.wrapped(&format!("  {mark} "), &name, Some(&Style::new().bold()));
        match &check.verdict {
            Verdict::Fail { reasons } => {
                for reason in reasons.iter().take(2) {
                    let at = if reason.at.is_empty() {
                        String::new()
                    } else {
                        format!("{}: ", words::shorten(&reason.at, 120))
                    };
                    page.wrapped("      ", &format!("{at}{}", words::shorten(&reason.what, 240)), None);
                }
                if reasons.len() > 2 {
                    page.wrapped(
                        "      ",
                        &format!("and {} more", reasons.len() - 2),
                        Some(&Style::new().dim()),
                    );
                }
            }
            Verdict::Inconclusive { why } | Verdict::NotRun { why } => {
                page.wrapped("      ", &words::shorten(why, 240), None);
            }
            Verdict::Pass | Verdict::Waived { .. } => {}
        }
    }
    if found.len() > MOST_CHECKS {
        page.wrapped(
            "    ",
            &format!("and {} more checks", found.len() - MOST_CHECKS),
            Some(&Style::new().dim()),
        );
    }
    !found.is_empty()
}

/// Adds the reasons that the failing checks do not already give.
fn reasons(page: &mut Page, report: &Report, problems: bool) {
    let said = |reason: &str| {
        problems
            && report.checks.iter().any(|c| match &c.verdict {
                Verdict::Fail { reasons } => {
                    reason.contains(&c.id)
                        || reasons.iter().any(|r| !r.what.is_empty() && reason.contains(&r.what))
                }
                Verdict::Inconclusive { why } | Verdict::NotRun { why } => reason.contains(why.as_str()),
                Verdict::Pass | Verdict::Waived { .. } => false,
            })
    };
    let left: Vec<&String> = report.reasons.iter().filter(|r| !said(r)).collect();
    if !left.is_empty() {
        page.blank();
        let title = page.paint(words::reasons_title(report.conclusion), Style::new().bold());
        page.lines.push(format!("  {title}"));
        for reason in left.iter().take(MOST_REASONS) {
            page.wrapped("    ", &words::shorten(reason, 400), None);
        }
        if left.len() > MOST_REASONS {
            page.wrapped(
                "    ",
                &format!("and {} more", left.len() - MOST_REASONS),
                Some(&Style::new().dim()),
            );
        }
    }
    for step in report.steps.iter().filter(|s| s.status == StepStatus::Failed || s.undo_error.is_some()) {
        if let Some(error) = &step.undo_error {
            let mark = page.paint(Tone::Bad.mark(), style(Tone::Bad));
            let text = format!(
                "undoing \"{}\" failed: {}",
                words::shorten(&step.title, 160),
                words::shorten(&error.message, 240)
            );
            page.wrapped(&format!("  {mark} "), &text, None);
        }
    }
}

/// Destinations that are shown; the page has all of them.
const MOST_DESTINATIONS: usize = 5;

fn egress(page: &mut Page, report: &Report) {
    use super::egress::{destination, details, lines, sentence};
    let all = lines(report);
    if all.is_empty() {
        return;
    }
    page.blank();
    let title = page.paint("What staging would have sent", Style::new().bold());
    page.lines.push(format!("  {title}"));
    page.wrapped("    ", &sentence(report), None);
    for line in all.iter().take(MOST_DESTINATIONS) {
        let details = details(line);
        let details = if details.is_empty() { details } else { format!(" ({details})") };
        let text = format!(
            "{} in {}: {} x {} to {}, {}{details}",
            words::shorten(&line.service, 80),
            line.environment,
            line.count,
            line.kind.as_str(),
            destination(line),
            line.outcome.as_str(),
        );
        page.wrapped("    - ", &text, None);
    }
    if all.len() > MOST_DESTINATIONS {
        page.wrapped("    ", &format!("and {} more destinations", all.len() - MOST_DESTINATIONS), None);
    }
}

fn next(page: &mut Page, report: &Report) {
    if report.next.is_empty() {
        return;
    }
    page.blank();
    let title = page.paint("Next", Style::new().bold());
    page.lines.push(format!("  {title}"));
    for advice in &report.next {
        page.wrapped("    ", &advice.text, None);
        if let Some(command) = &advice.command {
            let command = page.paint(&one_line(command), Style::new().cyan());
            page.lines.push(format!("      {command}"));
        }
    }
}
