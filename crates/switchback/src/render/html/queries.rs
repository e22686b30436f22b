//! What the databases were asked while the checks ran: the old version and the new one, side by side.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::ids::StoreName;
use switchback_core::queries::{Queries, Query, Scheme, Use};
use switchback_core::report::Report;

/// The section, if statements were counted.
pub fn section(report: &Report) -> Option<Section> {
    let all = || report.queries.values();
    if report.queries.is_empty() {
        return None;
    }
    let calls = |side: fn(&Queries) -> Use| all().map(|q| side(q).calls).sum::<u64>();
    let changed: usize = all().map(Queries::changed_plans).sum();
    let slower: usize = all().map(Queries::slower).sum();
    Some(Section {
        id: "queries",
        title: "Database queries",
        wrong: false,
        open: changed + slower > 0,
        summary: html! {
            (words::number(calls(|q| q.old))) " before, " (words::number(calls(|q| q.new))) " after"
            @if changed > 0 { ", " (parts::chip(Tone::Info, &words::count(changed as u64, "changed plan"))) }
            @if slower > 0 { ", " (parts::chip(Tone::Warn, &format!("{slower} slower"))) }
        },
        body: html! { @for (name, queries) in &report.queries { (store(name, queries)) } },
    })
}

fn store(name: &StoreName, queries: &Queries) -> Markup {
    let (old, new) = (&queries.old, &queries.new);
    let rows = [
        ("Statements", [old.calls, new.calls].map(words::number)),
        ("Time in the server", [old.total_us, new.total_us].map(words::micros)),
        ("Rows", [old.rows, new.rows].map(words::number)),
        ("Pages looked at", [old.pages, new.pages].map(words::number)),
    ];
    html! {
        article.store {
            h3 { code { (name) } }
            dl.facts {
                @for (label, [old, new]) in &rows { div { dt { (label) } dd { (old) " to " (new) } } }
            }
            p.dim {
                "What the server counted while the checks ran, on the old version and on the new one. The same checks may ask more or "
                "less of it: a version that asks ten times as much is found here before it is slow. Times are of this host, now."
            }
            div.scroll {
                table {
                    thead {
                        tr { th { "Statement" } th.n { "Calls" } th.n { "Each" } th.n { "Pages each" } th { "" } }
                    }
                    tbody { @for query in &queries.heaviest { (line(query)) } }
                }
            }
            @if queries.left_out > 0 {
                p.left-out { (words::count(queries.left_out as u64, "form")) " of statements that took less time are not shown." }
            }
            (parts::notes(&queries.notes))
        }
    }
}

fn line(query: &Query) -> Markup {
    html! {
        tr {
            td.statement {
                code { (words::shorten(&query.form.text, 500)) }
                p.dim { (query.form.database) }
                @if query.plan_changed() {
                    details.more {
                        summary { "Plans" }
                        dl.versus {
                            dt { "Before" } dd { (plan(query.old_plan.as_ref())) }
                            dt { "After" } dd { (plan(query.new_plan.as_ref())) }
                        }
                    }
                }
            }
            td.n { (sides(query, |u| words::number(u.calls))) }
            td.n { (sides(query, |u| words::micros(u.mean_us() as u64))) }
            td.n { (sides(query, |u| words::number(u.pages.checked_div(u.calls).unwrap_or(0)))) }
            td {
                @match (query.old, query.new) {
                    (None, _) => (parts::chip(Tone::Quiet, "new")),
                    (_, None) => (parts::chip(Tone::Quiet, "gone")),
                    _ => {
                        @if let Some(times) = query.slower() { (parts::chip(Tone::Warn, &format!("{times:.1} × slower"))) " " }
                        @if query.plan_changed() { (parts::chip(Tone::Info, "plan changed")) }
                    }
                }
            }
        }
    }
}

fn plan(plan: Option<&Scheme>) -> String {
    plan.map(|p| format!("{}\n(estimated cost {:.0})", p.nodes.join("\n"), p.cost)).unwrap_or_default()
}

fn sides(query: &Query, show: impl Fn(&Use) -> String) -> String {
    let side = |usage: Option<Use>| usage.map_or_else(|| "–".to_owned(), |u| show(&u));
    match (side(query.old), side(query.new)) {
        (old, new) if old == new => new,
        (old, new) => format!("{old} → {new}"),
    }
}
