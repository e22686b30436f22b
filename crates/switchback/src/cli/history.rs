//! The list of runs.

use super::run::{TOOL, host, journal};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use switchback_core::duration::human_ms;
use switchback_core::plan::Procedure;
use switchback_core::report::{Conclusion, Report};
use switchback_engine::home::Home;

/// Options of history.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// How many runs, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
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
    let mut lines = Vec::new();
    if let Some(journal) = journal(&home)? {
        for run in journal.runs(args.limit)? {
            let (plan, _, records) = journal.load(&run)?;
            let report = Report::build(&plan, &records, TOOL, &host());
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
