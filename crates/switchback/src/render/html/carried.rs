//! Later writes that were carried back.

use super::parts::{self, Section};
use crate::render::words;
use maud::html;
use switchback_core::carry::CarriedPart;
use switchback_core::report::Report;

/// Tables that are shown; the JSON form has all of them.
const MOST_PARTS: usize = 200;

/// What became of the writes to each table.
pub fn section(report: &Report) -> Option<Section> {
    let all: Vec<_> =
        report.carried.iter().flat_map(|(store, c)| c.parts.iter().map(move |p| (store, p))).collect();
    if all.is_empty() {
        return None;
    }
    let sum = |of: fn(&CarriedPart) -> u64| all.iter().map(|(_, (_, p))| of(p)).sum::<u64>();
    let quarantined = sum(|p| p.quarantined);
    Some(Section {
        id: "carried",
        title: "Later writes, carried back",
        wrong: quarantined > 0,
        open: true,
        summary: html! {
            (words::count(sum(CarriedPart::carried), "write")) " carried"
            @if quarantined > 0 { ", " (words::number(quarantined)) " in quarantine" }
        },
        body: html! {
            p { "A write is carried where this version still has what was there before it. What is in quarantine stays exported; nothing was overwritten." }
            div.scroll {
                table {
                    thead { tr {
                        th { "Store" } th { "Table" } th.n { "Inserted" } th.n { "Updated" } th.n { "Deleted" }
                        th.n { "There already" } th.n { "Quarantine" } th { "Why, and what was left out" }
                    } }
                    tbody {
                        @for (store, (name, part)) in all.iter().take(MOST_PARTS) {
                            tr {
                                td { (store) }
                                td.name { code { (words::shorten(name, 160)) } }
                                @for number in [part.inserted, part.updated, part.deleted, part.already, part.quarantined] {
                                    td.n { (words::number(number)) }
                                }
                                td { (words::shorten(&remarks(part), 400)) }
                            }
                        }
                    }
                }
            }
            (parts::left_out(MOST_PARTS.min(all.len()), all.len(), "table"))
            @for note in report.carried.values().flat_map(|c| &c.notes) { p.dim { (words::shorten(note, 400)) } }
        },
    })
}

/// Reasons with their numbers, and columns that this version does not have.
pub fn remarks(part: &CarriedPart) -> String {
    let mut all: Vec<String> = part.why.iter().map(|(why, n)| format!("{n}: {why}")).collect();
    if !part.left_out.is_empty() {
        all.push(format!("without {}", part.left_out.join(", ")));
    }
    if part.newer_columns_only > 0 {
        all.push(format!("{} concern only columns that this version does not have", part.newer_columns_only));
    }
    all.join("; ")
}
