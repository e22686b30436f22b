//! The page: its frame, its header with the verdict, and its sections.

mod carried;
mod checks;
mod data;
mod egress;
mod evidence;
mod looks;
mod masked;
mod parts;
mod queries;
mod rows;
mod scaling;
mod settings;
mod steps;
mod summary;
mod timeline;
mod trace;
mod trends;
mod trial;

pub use carried::remarks;
pub use trends::page as trends;

use super::words;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use switchback_core::report::Report;

const STYLE: &str = include_str!("style.css");
/// Nothing may be loaded and nothing may run, whatever text the report holds.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Renders the whole page.
pub fn page(report: &Report, files: super::Files<'_>) -> String {
    let (label, tone) = words::conclusion(report.conclusion);
    let title =
        format!("{label}: {} of {} ({})", words::procedure(report.procedure), report.stack, report.change);
    let sections = [
        timeline::section(report),
        checks::section(report),
        looks::section(report, files),
        data::section(report),
        scaling::section(report),
        trace::section(report),
        queries::section(report),
        egress::section(report),
        carried::section(report),
        masked::section(report),
        settings::section(report),
        trial::section(report),
        evidence::exports(report),
        evidence::certificate(report),
        evidence::copies(report),
        steps::section(report),
        evidence::artefacts(report),
    ];
    let body = html! {
        (summary::top(report))
        main {
            (summary::banner(report, label, tone))
            (summary::tiles(report))
            (summary::reasons(report))
            (summary::next(report))
            (parts::contents(&sections))
            @for section in sections.iter().flatten() { (section.render()) }
        }
        (footer(report))
    };
    frame(&title, &body)
}

/// The page around its content.
fn frame(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (words::shorten(title, 150)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (parts::symbols())
                (body)
            }
        }
    };
    words::visible(&page.into_string()).into_owned()
}

fn footer(report: &Report) -> Markup {
    html! {
        footer {
            dl.facts {
                div { dt { "Run" } dd { code { (report.run) } } }
                div { dt { "Stack" } dd { (report.stack) } }
                div { dt { "Host" } dd { (report.host) } }
                div { dt { "Written by" } dd { (report.tool) } }
                div { dt { "Began" } dd { (words::utc(report.started_at_ms)) } }
                div { dt { "Last event" } dd { (words::utc(report.ended_at_ms)) } }
            }
            p {
                "This page shows what the run's journal holds. To make it again: "
                code.command { "switchback report " (report.run) }
            }
        }
    }
}
