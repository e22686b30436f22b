//! Markdown for pull requests and chats: the verdict, the numbers, what is wrong, what is next.

use super::html::remarks;
use super::words::{self, Tone};
use super::{facts, words::one_line};
use std::fmt::Write as _;
use switchback_core::check::{CheckResult, Verdict};
use switchback_core::data::{PartChange, StoreDiff};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::report::{Report, StepStatus};

/// A comment on a pull request is read on a phone: more than this belongs to the HTML report.
const MOST_ROWS: usize = 25;

/// Renders the text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    numbers(&mut out, report);
    checks(&mut out, report);
    data(&mut out, report);
    scaling(&mut out, report);
    trace(&mut out, report);
    queries(&mut out, report);
    exports(&mut out, report);
    egress(&mut out, report);
    carried(&mut out, report);
    masked(&mut out, report);
    failed_steps(&mut out, report);
    next(&mut out, report);
    let _ = writeln!(
        out,
        "<sub>Run {} of {} on {}, {}; {}. All details: {}</sub>",
        code(report.run.as_str()),
        prose(report.stack.as_str()),
        prose(&report.host),
        words::utc(report.started_at_ms),
        prose(&report.tool),
        code(&format!("switchback report {}", report.run)),
    );
    out
}

fn emoji(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "✅",
        Tone::Info => "🔵",
        Tone::Warn => "⚠️",
        Tone::Bad => "❌",
        Tone::Quiet => "➖",
    }
}

fn head(out: &mut String, report: &Report) {
    let (label, tone) = words::conclusion(report.conclusion);
    let _ = writeln!(out, "## {} {label}: {}\n", emoji(tone), prose(&report.headline));
    let _ = writeln!(out, "{}\n", prose(&report.production));
    if !report.reasons.is_empty() {
        let _ = writeln!(out, "**{}**\n", words::reasons_title(report.conclusion));
        for reason in report.reasons.iter().take(MOST_ROWS) {
            let _ = writeln!(out, "- {}", prose(&words::shorten(reason, 600)));
        }
        more(out, report.reasons.len(), "- ");
        out.push('\n');
    }
}

fn more(out: &mut String, all: usize, lead: &str) {
    if all > MOST_ROWS {
        let _ = writeln!(out, "{lead}… and {} more", all - MOST_ROWS);
    }
}

fn numbers(out: &mut String, report: &Report) {
    out.push_str("| | | |\n|:--|--:|:--|\n");
    for fact in facts::key(report) {
        let mark = if matches!(fact.tone, Tone::Bad | Tone::Warn) { emoji(fact.tone) } else { "" };
        let _ = writeln!(out, "| {} | **{}** | {} {mark} |", fact.name, fact.value, prose(&fact.note));
    }
    out.push('\n');
}

fn checks(out: &mut String, report: &Report) {
    let environments = words::environments(report);
    if environments.is_empty() {
        return;
    }
    out.push_str("| Check |");
    for environment in &environments {
        let _ = write!(out, " {} |", prose(&words::shorten(environment, 40)));
    }
    let _ = writeln!(out, "\n|:--|{}", ":--|".repeat(environments.len()));
    let mut ids: Vec<&str> = Vec::new();
    for check in &report.checks {
        if !ids.contains(&check.id.as_str()) && ids.len() <= MOST_ROWS {
            ids.push(&check.id);
        }
    }
    for id in ids.iter().take(MOST_ROWS) {
        let _ = write!(out, "| {} |", code(&words::shorten(id, 100)));
        for environment in &environments {
            let cells: Vec<String> = report
                .checks
                .iter()
                .filter(|c| c.id == *id && c.environment == **environment)
                .map(|c| {
                    let (word, tone) = words::verdict(&c.verdict);
                    format!("{} {word}", emoji(tone))
                })
                .collect();
            let _ = write!(out, " {} |", cells.join(", "));
        }
        out.push('\n');
    }
    if ids.len() > MOST_ROWS {
        out.push_str("\nMore checks are in the full report.\n");
    }
    out.push('\n');
    let problems: Vec<&CheckResult> =
        report.checks.iter().filter(|c| words::counts(c) && c.verdict != Verdict::Pass).collect();
    for check in problems.iter().take(MOST_ROWS) {
        problem(out, check);
    }
    more(out, problems.len(), "");
    if let Some(code_only) = &report.code_only {
        let yes = if code_only.possible {
            "would work"
        } else {
            "would not work (this does not count against the upgrade)"
        };
        let _ = writeln!(
            out,
            "Going back with the code alone {yes}: {}.\n",
            prose(&words::shorten(&code_only.why, 400))
        );
    }
}

fn problem(out: &mut String, check: &CheckResult) {
    let (word, tone) = words::verdict(&check.verdict);
    let _ = writeln!(
        out,
        "**{} {} in {}: {word}**\n",
        emoji(tone),
        code(&words::shorten(&check.id, 200)),
        prose(&words::shorten(&check.environment, 60))
    );
    match &check.verdict {
        Verdict::Pass => {}
        Verdict::Fail { reasons } => {
            for reason in reasons.iter().take(5) {
                let at = if reason.at.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", code(&words::shorten(&reason.at, 200)))
                };
                let _ = writeln!(out, "- {at}{}", prose(&words::shorten(&reason.what, 600)));
                for (name, value) in
                    [("expected", &reason.expected), ("got", &reason.got), ("reproduce", &reason.reproduce)]
                {
                    if let Some(value) = value {
                        let _ = writeln!(out, "  - {name} {}", code(&words::shorten(value, 600)));
                    }
                }
            }
            if reasons.len() > 5 {
                let _ = writeln!(out, "- … and {} more", reasons.len() - 5);
            }
        }
        Verdict::Inconclusive { why } | Verdict::NotRun { why } => {
            let _ = writeln!(out, "- {}", prose(&words::shorten(why, 600)));
        }
        Verdict::Waived { who, why } => {
            let _ = writeln!(out, "- by {}: {}", prose(who), prose(&words::shorten(why, 600)));
        }
    }
    out.push('\n');
}

fn data(out: &mut String, report: &Report) {
    let differing = |d: &StoreDiff| d.parts.iter().filter(|p| p.change != PartChange::Unchanged).count();
    if report.diffs.values().all(|d| differing(d) == 0 && d.schema_changes.is_empty()) {
        return;
    }
    out.push_str("<details><summary>What the migration did to the data</summary>\n\n");
    out.push_str("| Table or file | Change | Before | After | Added | Removed | Changed |\n");
    out.push_str("|:--|:--|--:|--:|--:|--:|--:|\n");
    for (store, diff) in &report.diffs {
        let mut parts: Vec<_> = diff.parts.iter().filter(|p| p.change != PartChange::Unchanged).collect();
        parts.sort_by_key(|p| words::lost(p) == 0);
        for part in parts.iter().take(MOST_ROWS) {
            let name = code(&words::shorten(&format!("{store}.{}", part.name), 120));
            let (word, _) = words::change(part.change);
            let bold = if words::lost(part) > 0 { "**" } else { "" };
            let _ = writeln!(
                out,
                "| {name} | {bold}{word}{bold} | {} | {} | {} | {} | {} |",
                words::number(part.before),
                words::number(part.after),
                words::number(part.rows_added),
                words::number(part.rows_removed),
                words::number(part.rows_changed),
            );
        }
        if parts.len() > MOST_ROWS {
            let _ = writeln!(
                out,
                "| … and {} more in {} | | | | | | |",
                parts.len() - MOST_ROWS,
                code(store.as_str())
            );
        }
    }
    out.push('\n');
    for (store, diff) in &report.diffs {
        for orphan in diff.new_orphans.iter().take(MOST_ROWS) {
            let _ = writeln!(out, "- {}: orphaned references: {}", code(store.as_str()), prose(orphan));
        }
        for change in diff.schema_changes.iter().take(MOST_ROWS) {
            let _ = writeln!(out, "- {}: {}", code(store.as_str()), prose(&words::shorten(change, 300)));
        }
    }
    out.push_str("\n</details>\n\n");
}

fn exports(out: &mut String, report: &Report) {
    if report.exports.values().all(|e| e.total() == 0) {
        return;
    }
    out.push_str(
        "**Exported writes**\n\n| Table | Inserted | Updated | Deleted | File |\n|:--|--:|--:|--:|:--|\n",
    );
    for (store, stats) in &report.exports {
        for (name, part) in stats.parts.iter().take(MOST_ROWS) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                code(&words::shorten(&format!("{store}.{name}"), 120)),
                words::number(part.inserted),
                words::number(part.updated),
                words::number(part.deleted),
                code(&words::shorten(&part.file, 120)),
            );
        }
    }
    out.push('\n');
}

fn egress(out: &mut String, report: &Report) {
    let all = super::egress::lines(report);
    if all.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<details><summary>What staging would have sent: {}</summary>\n",
        prose(&super::egress::sentence(report))
    );
    out.push_str(
        "| Environment | Service | What | To | Times | Outcome | Details |\n|:--|:--|:--|:--|--:|:--|:--|\n",
    );
    for line in all.iter().take(MOST_ROWS) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            prose(&line.environment),
            code(&words::shorten(&line.service, 80)),
            line.kind.as_str(),
            code(&super::egress::destination(line)),
            words::number(line.count),
            line.outcome.as_str(),
            prose(&super::egress::details(line)),
        );
    }
    if all.len() > MOST_ROWS {
        let _ = writeln!(out, "| … and {} more | | | | | | |", all.len() - MOST_ROWS);
    }
    out.push('\n');
    for gap in super::egress::gaps(report) {
        let _ = writeln!(out, "- {}", prose(&gap));
    }
    out.push_str("\n</details>\n\n");
}

fn carried(out: &mut String, report: &Report) {
    if report.carried.values().all(|c| c.parts.is_empty()) {
        return;
    }
    out.push_str("**Later writes, carried back**\n\n| Store | Table | Inserted | Updated | Deleted | There already | Quarantine | Remarks |\n|:--|:--|--:|--:|--:|--:|--:|:--|\n");
    let all = report.carried.iter().flat_map(|(store, c)| c.parts.iter().map(move |p| (store, p)));
    for (store, (name, part)) in all.take(MOST_ROWS) {
        let numbers = [part.inserted, part.updated, part.deleted, part.already, part.quarantined];
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            prose(store.as_str()),
            code(&words::shorten(name, 160)),
            numbers.map(words::number).join(" | "),
            prose(&words::shorten(&remarks(part), 300)),
        );
    }
    out.push('\n');
}

fn trace(out: &mut String, report: &Report) {
    let mut tables: Vec<_> =
        report.traces.values().flat_map(|t| &t.tables).filter(|t| t.lock.is_some()).collect();
    if tables.is_empty() {
        return;
    }
    tables.sort_by_key(|t| std::cmp::Reverse((t.reads_blocked_us, t.writes_blocked_us)));
    out.push_str("<details><summary>Locks of the migration</summary>\n\n| Table | Strongest lock | No reads | No writes | Written anew |\n|:--|:--|--:|--:|:--|\n");
    for table in tables.iter().take(MOST_ROWS) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            code(&words::shorten(&table.name, 160)),
            table.lock.map_or("", switchback_core::trace::Lock::as_str),
            words::micros(table.reads_blocked_us),
            words::micros(table.writes_blocked_us),
            if table.rewritten { "yes" } else { "" },
        );
    }
    more(out, tables.len(), "");
    out.push_str("\n</details>\n\n");
}

fn scaling(out: &mut String, report: &Report) {
    let Some(found) = &report.scaling else { return };
    if found.predictions.is_empty() {
        return;
    }
    out.push_str("| Databases | Expected | 95 % interval |\n|:--|--:|:--|\n");
    for p in &found.predictions {
        let _ = writeln!(
            out,
            "| {} ({} × production) | {} | {} to {} |",
            human_bytes(p.bytes),
            p.times_production,
            human_ms(p.took_ms),
            human_ms(p.low_ms),
            human_ms(p.high_ms)
        );
    }
    out.push('\n');
}

fn queries(out: &mut String, report: &Report) {
    let told: Vec<_> = report
        .queries
        .values()
        .flat_map(|q| &q.heaviest)
        .filter(|q| q.plan_changed() || q.slower().is_some())
        .collect();
    if told.is_empty() {
        return;
    }
    out.push_str("<details><summary>Database queries that changed</summary>\n\n| Statement | Calls | Each | |\n|:--|--:|--:|:--|\n");
    for query in told.iter().take(MOST_ROWS) {
        let side = |u: Option<switchback_core::queries::Use>| u.unwrap_or_default();
        let (old, new) = (side(query.old), side(query.new));
        let _ = writeln!(
            out,
            "| {} | {} to {} | {} to {} | {} |",
            code(&words::shorten(&query.form.text, 160)),
            words::number(old.calls),
            words::number(new.calls),
            words::micros(old.mean_us() as u64),
            words::micros(new.mean_us() as u64),
            if query.plan_changed() { "another plan" } else { "" },
        );
    }
    more(out, told.len(), "");
    out.push_str("\n</details>\n\n");
}

fn masked(out: &mut String, report: &Report) {
    if report.masked.is_empty() {
        return;
    }
    out.push_str("<details><summary>Masked personal data</summary>\n\n| Store | Column | Mask | Values |\n|:--|:--|:--|--:|\n");
    let all = report.masked.iter().flat_map(|(store, m)| m.columns.iter().map(move |c| (store, c)));
    for (store, column) in all.take(MOST_ROWS) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            prose(store.as_str()),
            code(&words::shorten(&column.column, 160)),
            column.mask.as_str(),
            words::number(column.values)
        );
    }
    out.push('\n');
    for note in report.masked.values().flat_map(|m| &m.notes) {
        let _ = writeln!(out, "- {}", prose(note));
    }
    out.push_str("\n</details>\n\n");
}

fn failed_steps(out: &mut String, report: &Report) {
    let failed: Vec<_> =
        report.steps.iter().filter(|s| s.status == StepStatus::Failed || s.undo_error.is_some()).collect();
    if failed.is_empty() {
        return;
    }
    out.push_str("**Failed steps**\n\n");
    for step in failed.iter().take(MOST_ROWS) {
        for (what, error) in [("", &step.error), ("undoing it failed: ", &step.undo_error)] {
            let Some(error) = error else { continue };
            let took = step.took_ms.map_or_else(String::new, |ms| format!(" after {}", human_ms(ms)));
            let _ = writeln!(
                out,
                "- {}{took}: {what}{}",
                prose(&words::shorten(&step.title, 160)),
                prose(&words::shorten(&error.message, 600))
            );
            if let Some(hint) = &error.hint {
                let _ = writeln!(out, "  - {}", prose(&words::shorten(hint, 600)));
            }
        }
    }
    more(out, failed.len(), "- ");
    out.push('\n');
}

fn next(out: &mut String, report: &Report) {
    if report.next.is_empty() {
        return;
    }
    out.push_str("**What to do next**\n\n");
    for advice in &report.next {
        let _ = match &advice.command {
            Some(command) => writeln!(out, "- {} {}", prose(&advice.text), code(command)),
            None => writeln!(out, "- {}", prose(&advice.text)),
        };
    }
    out.push('\n');
}

/// Text that is to be read as it is: whatever Markdown or HTML would act on is escaped.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '\\' | '`' | '|' | '*' | '[' | ']' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // A zero-width space keeps GitHub from notifying whoever has that name.
            '@' => out.push_str("@\u{200b}"),
            c => out.push(c),
        }
    }
    // Within a word `_` is no emphasis; at its edges it is.
    if out.contains('_') { escape_outer_underscores(&out) } else { out }
}

fn escape_outer_underscores(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let word = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(|c| c.is_alphanumeric());
    chars
        .iter()
        .enumerate()
        .flat_map(|(i, c)| {
            let inner = word(i.checked_sub(1)) && word(Some(i + 1));
            (*c == '_' && !inner).then_some('\\').into_iter().chain([*c])
        })
        .collect()
}

/// Text as code, fenced by more backticks than it holds; `|` would end a table's cell even in code.
fn code(text: &str) -> String {
    let text = one_line(text);
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{}{pad}{fence}", text.replace('|', "\\|"))
}
