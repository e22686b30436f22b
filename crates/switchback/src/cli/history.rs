//! The list of runs.

use super::run::{TOOL, host, journal};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use switchback_core::analytics::{Analytics, CheckCount, analyse};
use switchback_core::duration::{Span, human_ms};
use switchback_core::plan::Procedure;
use switchback_core::report::{Conclusion, Report};
use switchback_engine::engine::now_ms;
use switchback_engine::home::Home;

/// Options of history.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// How many runs, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Only runs that began so long ago or later, such as 30d
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// Print numbers instead: upgrades tried, prevented, promoted and rolled back, times, checks that are flaky
    #[arg(long)]
    pub stats: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    run: String,
    procedure: Procedure,
    started_at_ms: i64,
    took_ms: u64,
    change: String,
    from_generation: Option<u32>,
    to_generation: Option<u32>,
    conclusion: Conclusion,
    headline: String,
    reason: Option<String>,
}

/// Lists the runs.
pub fn history(global: &Global, args: &HistoryArgs) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    let since = args.since.map_or(i64::MIN, |span| {
        now_ms().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    });
    if args.stats {
        return stats(global, &home, since);
    }
    let mut lines = Vec::new();
    if let Some(journal) = journal(&home)? {
        for run in journal.runs(args.limit)? {
            let (plan, _, records) = journal.load(&run)?;
            let report = Report::build(&plan, &records, TOOL, &host());
            if report.started_at_ms < since {
                break;
            }
            lines.push(Line {
                run: run.to_string(),
                procedure: report.procedure,
                started_at_ms: report.started_at_ms,
                took_ms: report.times.total_ms,
                change: report.change,
                from_generation: report.from_generation,
                to_generation: report.to_generation,
                conclusion: report.conclusion,
                headline: report.headline,
                reason: report.reason,
            });
        }
    }
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&lines)?;
        return Ok(Exit::Done);
    }
    if lines.is_empty() {
        out.line("No runs yet.")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["when (UTC)", "run", "what", "change", "took", "how it went"]);
    for line in &lines {
        let when = jiff::Timestamp::from_millisecond(line.started_at_ms)
            .map_or_else(|_| String::new(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string());
        table.add_row([
            when,
            line.run.clone(),
            line.procedure.as_str().to_owned(),
            line.change.clone(),
            human_ms(line.took_ms),
            line.headline.clone(),
        ]);
    }
    out.line(&table.to_string())?;
    Ok(Exit::Done)
}

/// The numbers of all runs since then.
fn stats(global: &Global, home: &Home, since: i64) -> Result<Exit, Trouble> {
    let found = analyse(&all_reports(home, since)?);
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&found)?;
    } else {
        out.text(&shown(&found))?;
    }
    Ok(Exit::Done)
}

/// The reports of all runs that began since then, newest first.
pub fn all_reports(home: &Home, since: i64) -> Result<Vec<Report>, Trouble> {
    let mut reports = Vec::new();
    if let Some(journal) = journal(home)? {
        for run in journal.runs(usize::try_from(i64::MAX).unwrap_or(usize::MAX))? {
            let (plan, _, records) = journal.load(&run)?;
            let report = Report::build(&plan, &records, TOOL, &host());
            if report.started_at_ms < since {
                break;
            }
            reports.push(report);
        }
    }
    Ok(reports)
}

fn shown(found: &Analytics) -> String {
    let day = |ms: Option<i64>| {
        ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| "–".to_owned(), |t| t.strftime("%Y-%m-%d").to_string())
    };
    let mut lines =
        vec![format!("{} runs, {} to {} (UTC)", found.runs, day(found.from_ms), day(found.to_ms))];
    let mut say = |name: &str, value: String| lines.push(format!("  {name:<22} {value}"));
    say("upgrades rehearsed", found.rehearsed.to_string());
    say("  refused", format!("{} bad upgrades that did not reach production", found.refused));
    say("  could not be judged", found.inconclusive.to_string());
    say("promoted", found.promoted.to_string());
    say("  rolled back by itself", found.rolled_back.to_string());
    say("  undone before", found.undone.to_string());
    say("rollbacks by command", found.rollbacks.to_string());
    let rate = found.change_failure_rate;
    say("change failure rate", rate.map_or_else(|| "–".to_owned(), |r| format!("{:.0} %", r * 100.0)));
    for (name, spread) in [("time to restore", found.restore), ("downtime of promotions", found.downtime)] {
        let value = match spread.count {
            0 => "–".to_owned(),
            count => format!(
                "{} in the middle, {} at most ({count})",
                human_ms(spread.median_ms),
                human_ms(spread.longest_ms)
            ),
        };
        say(name, value);
    }
    let list = |all: &[CheckCount]| {
        let words: Vec<String> = all.iter().take(8).map(|c| format!("{} ({})", c.check, c.count)).collect();
        if words.is_empty() { "–".to_owned() } else { words.join(", ") }
    };
    say("prevented by", list(&found.prevented_by));
    say("flaky checks", list(&found.flaky));
    lines.push(String::new());
    lines.join("\n")
}
