//! How pages look in the new version: old, new, and what differs.

use super::parts::{self, Section};
use crate::render::Files;
use crate::render::words::{self, Tone};
use base64::Engine as _;
use maud::{Markup, html};
use switchback_core::check::CheckResult;
use switchback_core::look::Look;
use switchback_core::report::Report;

/// Pages whose pictures are in the report itself; the others are files beside it.
const MOST_PAGES: usize = 8;
/// A picture of more bytes is only linked.
const LARGEST: usize = 1 << 20;
/// Names of what a screen reader finds.
const MOST_NAMES: usize = 12;

/// The section, if any page was looked at on both sides.
pub fn section(report: &Report, files: Files<'_>) -> Option<Section> {
    let all: Vec<(&CheckResult, &Look)> =
        report.checks.iter().flat_map(|c| c.looks.iter().map(move |l| (c, l))).collect();
    if all.is_empty() {
        return None;
    }
    let (differ, same): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, l)| l.differs());
    let open = differ.iter().filter(|(_, l)| !l.approved).count();
    let refused = report
        .checks
        .iter()
        .any(|c| !c.verdict.permits() && c.looks.iter().any(|l| l.differs() && !l.approved));
    Some(Section {
        id: "pages",
        title: "Pages",
        wrong: false,
        open: refused,
        summary: html! {
            @if differ.is_empty() { (words::count(same.len() as u64, "picture")) ", all as before" } @else {
                (differ.len()) " of " (words::count((differ.len() + same.len()) as u64, "picture")) " look otherwise"
                @if open < differ.len() { ", " (differ.len() - open) " of them approved" }
            }
        },
        body: html! {
            @for (index, (check, look)) in differ.iter().enumerate() { (page(check, look, files, index < MOST_PAGES)) }
            @if open > 0 {
                p.hint { "If they are as they should be, approve them; exactly these looks then count as before:" }
                (parts::command(&format!("switchback check approve {}", report.run)))
            }
            @if !same.is_empty() {
                details.more {
                    summary { (words::count(same.len() as u64, "picture")) " as before" }
                    p { @for (check, look) in &same { code { (words::shorten(&check.id, 120)) "/" (words::shorten(&look.name, 60)) } " " } }
                }
            }
        },
    })
}

fn page(check: &CheckResult, look: &Look, files: Files<'_>, shown: bool) -> Markup {
    html! {
        article.store {
            h3 {
                code { (words::shorten(&check.id, 120)) "/" (words::shorten(&look.name, 60)) } " "
                @if look.approved { (parts::chip(Tone::Good, "approved")) } @else { (parts::chip(Tone::Info, "otherwise")) }
            }
            p { (words::shorten(&look.words(), 600)) }
            div.looks {
                @for (path, what) in look.pictures.iter().zip(["Old", "New", "What differs"]) {
                    figure {
                        @if let Some(data) = shown.then(|| inline(path, files)).flatten() {
                            img src=(data) alt={ (what) ", " (words::shorten(&look.name, 60)) };
                        }
                        figcaption { (super::evidence::link(path, what)) }
                    }
                }
            }
            @for (list, what) in [(&look.gone, "no longer finds"), (&look.fresh, "now finds")] {
                @if !list.is_empty() {
                    p.dim {
                        "A screen reader " (what) ": "
                        @for (index, name) in list.iter().take(MOST_NAMES).enumerate() {
                            @if index > 0 { ", " }
                            code { (words::shorten(name, 120)) }
                        }
                        @if list.len() > MOST_NAMES { " and " (list.len() - MOST_NAMES) " more" }
                    }
                }
            }
        }
    }
}

/// A picture as part of the page: nothing is loaded.
fn inline(path: &str, files: Files<'_>) -> Option<String> {
    let bytes = files(path).filter(|b| b.len() <= LARGEST && b.starts_with(b"\x89PNG"))?;
    Some(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}
