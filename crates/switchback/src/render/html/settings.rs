//! What the new release's settings differ in.

use super::parts::{self, Section};
use crate::render::words;
use maud::html;
use switchback_core::report::Report;

/// Differences that are shown; the JSON form has all of them.
const MOST: usize = 200;

/// The differences, without values.
pub fn section(report: &Report) -> Option<Section> {
    let all = &report.settings;
    (!all.is_empty()).then(|| Section {
        id: "settings",
        title: "Settings",
        wrong: false,
        open: false,
        summary: html! { (words::count(all.len() as u64, "difference")) " besides the versions" },
        body: html! {
            p { "Between what runs and what is to run. Values are not shown: they may be secrets." }
            ul { @for text in all.iter().take(MOST) { li { (words::shorten(text, 300)) } } }
            (parts::left_out(MOST.min(all.len()), all.len(), "difference"))
        },
    })
}
