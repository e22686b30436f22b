//! The report of a run, in the format asked for; that over a time is [`super::trends`].

use super::run::{file_of, journal, write_report};
use super::{Exit, Global, Output, Trouble};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use switchback_core::duration::Span;
use switchback_core::ids::RunId;
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;

/// Options of report.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// The run; by default the last one. A unique beginning is enough
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Not of a run, but over all runs that began so long ago or later, such as 30d: numbers, and how they went by day or week
    #[arg(long, value_name = "TIME", conflicts_with_all = ["run", "format"])]
    pub since: Option<Span>,
    /// With --since: as CSV, one row per day or week
    #[arg(long, requires = "since")]
    pub csv: bool,
    /// With --since: write a page with plots to this file besides
    #[arg(long, value_name = "FILE", requires = "since")]
    pub html: Option<PathBuf>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For the terminal.
    Text,
    /// One self-contained file.
    Html,
    /// For pull requests and chats.
    Markdown,
    /// Everything, with a stable schema.
    Json,
    /// For CI.
    Junit,
}

/// Writes the report.
pub fn report(global: &Global, args: &ReportArgs) -> Result<Exit, Trouble> {
    if let Some(span) = args.since {
        return super::trends::trends(global, args, span);
    }
    let home = Home::open(&global.directory)?;
    let run = find(&home, args.run.as_deref())?;
    let report = write_report(&home, &run)?;
    let format = if global.json { Format::Json } else { args.format };
    let text = match format {
        Format::Text => {
            crate::render::terminal(&report, args.output.is_none() && console::colors_enabled(), 100)
        }
        Format::Html => crate::render::html(&report, &|path| file_of(&home, &run, path)),
        Format::Markdown => crate::render::markdown(&report),
        Format::Junit => crate::render::junit(&report),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            text.push('\n');
            text
        }
    };
    let out = Output::new(global.json);
    match &args.output {
        None => {
            out.text(&text)?;
            if format == Format::Text {
                out.line(&format!("  Report: {}", home.run_dir(&run).join("report.html").display()))?;
            }
        }
        Some(path) => super::trends::write(path, &text)?,
    }
    Ok(Exit::Done)
}

/// The run that a person means.
pub fn find(home: &switchback_engine::home::Home, wanted: Option<&str>) -> Result<RunId, Trouble> {
    let runs = match journal(home)? {
        Some(journal) => journal.runs(usize::MAX >> 1)?,
        None => Vec::new(),
    };
    let Some(wanted) = wanted else {
        return runs
            .into_iter()
            .next()
            .ok_or_else(|| Trouble::usage("there is no run yet", "`switchback rehearse` makes one"));
    };
    let upper = wanted.to_ascii_uppercase();
    let mut matching = runs.into_iter().filter(|r| r.as_str().starts_with(&upper));
    match (matching.next(), matching.next()) {
        (Some(run), None) => Ok(run),
        (Some(_), Some(_)) => {
            Err(Trouble::usage(format!("{wanted:?} is the beginning of several runs"), "write more of it"))
        }
        (None, _) => Err(EngineError::UnknownRun { run: wanted.into() }.into()),
    }
}
