//! The list of runs.

use super::run::{TOOL, host, journal};
use super::{Exit, Global, Output, Trouble};
use crate::render::trends::totals;
use clap::Args;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use switchback_core::analytics::{Past, Period, analyse, table};
use switchback_core::duration::{Span, human_ms};
use switchback_core::plan::Procedure;
use switchback_core::report::{Conclusion, Report};
use switchback_engine::engine::now_ms;
use switchback_engine::home::Home;

/// Options of history.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// How many runs, newest first; by default 20, with --csv all
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only runs that began so long ago or later, such as 30d
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// Print numbers instead: upgrades tried, prevented, promoted and rolled back, times, checks that are flaky
    #[arg(long)]
    pub stats: bool,
    /// Print the runs as CSV, one row per run
    #[arg(long, conflicts_with = "stats")]
    pub csv: bool,
}

/// Runs that are listed where nobody says how many: what a screen holds.
const LISTED: usize = 20;

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
    let since = since(args.since);
    if args.stats {
        return stats(global, &home, since);
    }
    if args.csv {
        return csv(global, &home, since, args.limit.unwrap_or(usize::MAX));
    }
    let mut lines = Vec::new();
    if let Some(journal) = journal(&home)? {
        for run in journal.runs(args.limit.unwrap_or(LISTED))? {
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
    let found = analyse(&all_runs(home)?, Period { from_ms: since, ..Period::ALL });
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&found)?;
    } else {
        out.text(&totals(&found))?;
    }
    Ok(Exit::Done)
}

/// The runs as a table for spreadsheets.
fn csv(global: &Global, home: &Home, since: i64, limit: usize) -> Result<Exit, Trouble> {
    if global.json {
        return Err(Trouble::usage("--csv and --json exclude each other", "ask for one after the other"));
    }
    let period = Period { from_ms: since, ..Period::ALL };
    Output::new(false).text(&table::of_runs(&all_runs(home)?, period, limit))?;
    Ok(Exit::Done)
}

/// The moment so long ago; the beginning of all time without a span.
pub fn since(span: Option<Span>) -> i64 {
    span.map_or(i64::MIN, |span| now_ms().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

/// All runs there are, newest first.
pub fn all_runs(home: &Home) -> Result<Vec<Past>, Trouble> {
    let mut runs = Vec::new();
    if let Some(journal) = journal(home)? {
        for run in journal.runs(usize::MAX >> 1)? {
            let (plan, _, records) = journal.load(&run)?;
            runs.push(Past::build(&plan, &records, TOOL, &host()));
        }
    }
    Ok(runs)
}
