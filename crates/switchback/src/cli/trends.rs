//! The report over a time: numbers, and how they went.

use super::history::{all_runs, since};
use super::report::ReportArgs;
use super::{Exit, Global, Output, Trouble};
use crate::render;
use std::path::Path;
use switchback_core::analytics::{Period, Trends, table};
use switchback_core::duration::Span;
use switchback_engine::engine::now_ms;
use switchback_engine::home::Home;

/// Writes the report over the time since then.
pub fn trends(global: &Global, args: &ReportArgs, span: Span) -> Result<Exit, Trouble> {
    if args.csv && global.json {
        return Err(Trouble::usage("--csv and --json exclude each other", "ask for one after the other"));
    }
    let home = Home::open(&global.directory)?;
    let runs = all_runs(&home)?;
    let found = Trends::build(&runs, Period::since(since(Some(span)), now_ms(), &runs));
    if let Some(path) = &args.html {
        write(path, &render::trends_page(&found))?;
    }
    let text = if args.csv {
        table::of_trends(&found)
    } else if global.json {
        let mut text = serde_json::to_string_pretty(&found).map_err(std::io::Error::from)?;
        text.push('\n');
        text
    } else {
        render::trends::text(&found)
    };
    let out = Output::new(global.json);
    match &args.output {
        Some(path) => write(path, &text)?,
        None => out.text(&text)?,
    }
    let reads = args.output.is_none() && !args.csv && !global.json;
    if let Some(path) = args.html.as_ref().filter(|_| reads) {
        out.line(&format!("\n  Report: {}", path.display()))?;
    }
    Ok(Exit::Done)
}

/// Writes a file that a person named.
pub fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(path, text).map_err(|e| {
        Trouble::usage(format!("cannot write {}: {e}", path.display()), "name a file in a folder that exists")
    })
}
