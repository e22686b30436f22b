//! What staging would have sent.

use super::parts::{self, Section};
use crate::render::egress::{MOST_LINES, destination, details, gaps, lines, sentence};
use crate::render::words;
use maud::html;
use switchback_core::duration::human_bytes;
use switchback_core::report::Report;

/// What the services of staging tried to send out.
pub fn section(report: &Report) -> Option<Section> {
    if report.egress.is_empty() {
        return None;
    }
    let (all, gaps) = (lines(report), gaps(report));
    Some(Section {
        id: "egress",
        title: "What staging would have sent",
        wrong: false,
        open: false,
        summary: html! { (sentence(report)) },
        body: html! {
            @if all.is_empty() { p { "No service tried to send anything out of its environment." } }
            @else {
                p { "What services tried to send out of their environments. Only what is marked as allowed left the host. Values of headers, queries and contents are never kept." }
                div.scroll {
                    table {
                        thead { tr { th { "Environment" } th { "Service" } th { "What" } th { "To" } th.n { "Times" } th.n { "Bytes" } th { "Outcome" } th { "Recipients, paths, subjects" } } }
                        tbody {
                            @for line in all.iter().take(MOST_LINES) {
                                tr {
                                    td { (line.environment) }
                                    td { code { (words::shorten(&line.service, 80)) } }
                                    td { (line.kind.as_str()) }
                                    td.name { code { (destination(line)) } }
                                    td.n { (words::number(line.count)) }
                                    td.n { (human_bytes(line.bytes)) }
                                    td { (line.outcome.as_str()) }
                                    td.name { (details(line)) }
                                }
                            }
                        }
                    }
                }
                (parts::left_out(MOST_LINES.min(all.len()), all.len(), "destination"))
            }
            @for gap in &gaps { p.dim { (gap) } }
        },
    })
}
