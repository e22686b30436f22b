//! How long the migration took at several sizes of the data, and what follows for others.

use super::parts::Section;
use crate::render::words;
use maud::{PreEscaped, html};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::report::Report;
use switchback_core::scaling::{Growth, Shrunk, picture};

/// The section, if sizes were tried.
pub fn section(report: &Report) -> Option<Section> {
    let found = report.scaling.as_ref()?;
    let summary = match found.growth {
        Some(Growth::None) => "does not grow with the data",
        Some(Growth::Linear) => "grows with the data",
        Some(Growth::Faster) => "grows faster than the data",
        None => "no prediction",
    };
    let sum = |percent: u8, of: fn(&Shrunk) -> u64| {
        found.sizes.get(&percent).map_or(0, |stores| stores.values().map(of).sum::<u64>())
    };
    Some(Section {
        id: "scaling",
        title: "Time by size of the data",
        wrong: false,
        open: true,
        summary: html! { (summary) },
        body: html! {
            @if let Some(why) = &found.why_not { p { "No prediction: " (why) "." } }
            @if !found.points.is_empty() {
                figure { (PreEscaped(picture(found))) }
                p.dim {
                    "Circles: migrations that were timed, from the first migration command (or the start) to the first healthy answer. "
                    "Squares: what is expected, with the interval that 95 of 100 migrations of this kind lie in, if the data keeps its shape "
                    "as it grows and the host is as busy as it was."
                }
            }
            @if !found.predictions.is_empty() {
                div.scroll {
                    table {
                        thead { tr { th { "Databases" } th.n { "Size" } th.n { "Expected" } th.n { "From" } th.n { "To" } } }
                        tbody {
                            @for p in &found.predictions {
                                tr {
                                    td { @if p.times_production == 1.0 { "as in production now" } @else { (p.times_production) " × as large" } }
                                    td.n { (human_bytes(p.bytes)) } td.n { (human_ms(p.took_ms)) }
                                    td.n { (human_ms(p.low_ms)) } td.n { (human_ms(p.high_ms)) }
                                }
                            }
                        }
                    }
                }
            }
            div.scroll {
                table {
                    thead { tr { th { "Rows kept" } th.n { "Databases" } th.n { "Rows" } th { "Took" } } }
                    tbody {
                        @for percent in found.sizes.keys() {
                            tr {
                                td { (percent) " %" }
                                td.n { (human_bytes(sum(*percent, |s| s.bytes))) }
                                td.n { (words::number(sum(*percent, |s| s.rows))) }
                                td {
                                    (found.points.iter().filter(|p| p.percent == *percent).map(|p| human_ms(p.took_ms)).collect::<Vec<_>>().join(", "))
                                    @let followed = sum(*percent, |s| s.followed);
                                    @if followed > 0 { " (" (words::count(followed, "row")) " of small tables went with what they refer to)" }
                                }
                            }
                        }
                    }
                }
            }
        },
    })
}
