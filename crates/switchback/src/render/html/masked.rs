//! What was masked in copies of production's data.

use super::parts::{self, Section};
use crate::render::words;
use maud::html;
use switchback_core::report::Report;

/// Columns that are shown; the JSON form has all of them.
const MOST_COLUMNS: usize = 200;

/// The columns that were masked, with the number of their values.
pub fn section(report: &Report) -> Option<Section> {
    if report.masked.is_empty() {
        return None;
    }
    let all: Vec<_> =
        report.masked.iter().flat_map(|(store, m)| m.columns.iter().map(move |c| (store, c))).collect();
    let values: u64 = all.iter().map(|(_, c)| c.values).sum();
    Some(Section {
        id: "masked",
        title: "Masked personal data",
        wrong: false,
        open: false,
        summary: html! { (words::count(values, "value")) " in " (words::count(all.len() as u64, "column")) },
        body: html! {
            p { "Replaced in the copy right after it was made, before anything ran on it. The same value became the same everywhere." }
            div.scroll {
                table {
                    thead { tr { th { "Store" } th { "Column" } th { "Mask" } th.n { "Values" } } }
                    tbody {
                        @for (store, column) in all.iter().take(MOST_COLUMNS) {
                            tr {
                                td { (store) }
                                td.name { code { (words::shorten(&column.column, 160)) } }
                                td { (column.mask.as_str()) }
                                td.n { (words::number(column.values)) }
                            }
                        }
                    }
                }
            }
            (parts::left_out(MOST_COLUMNS.min(all.len()), all.len(), "column"))
            @for note in report.masked.values().flat_map(|m| &m.notes) { p.dim { (words::shorten(note, 400)) } }
        },
    })
}
