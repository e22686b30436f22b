//! Renders a [`Report`] for people and machines: HTML, Markdown, JUnit and the terminal.
//!
//! Owns words, layout and escaping. Every fact comes from the report; nothing here reads a clock, a
//! file or the terminal, and no text of the report reaches an output unescaped.

pub mod backup;
pub mod compat;
pub mod egress;
mod facts;
mod html;
mod junit;
mod markdown;
pub mod prove;
mod terminal;
pub mod trends;
mod words;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use switchback_core::analytics::Trends;
use switchback_core::report::Report;

/// The content of a file of the run by its path, for pictures; nothing if there is none.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Renders one self-contained page: no script, no external resource.
pub fn html(report: &Report, files: Files<'_>) -> String {
    html::page(report, files)
}

/// Renders the page of a time: numbers, and plots of how they went; self-contained as well.
pub fn trends_page(trends: &Trends) -> String {
    html::trends(trends)
}

/// Renders a short text in GitHub's Markdown, for pull requests and chats.
pub fn markdown(report: &Report) -> String {
    markdown::text(report)
}

/// Renders JUnit XML: one suite per environment, one for the run and one for failed steps.
pub fn junit(report: &Report) -> String {
    junit::xml(report)
}

/// Renders the summary that ends a run on the terminal, in lines of at most `width` columns.
///
/// Commands are never broken, so that they can be copied; a long one may be wider.
pub fn terminal(report: &Report, color: bool, width: usize) -> String {
    terminal::text(report, color, width)
}
