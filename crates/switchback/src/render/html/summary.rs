//! What a reader needs in the first minute: verdict, change, numbers, reasons, next steps.

use super::parts;
use crate::render::facts::{self, Rank};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::ids::ServiceName;
use switchback_core::plan::Procedure;
use switchback_core::report::{Conclusion, Report};

/// The line above everything.
pub fn top(report: &Report) -> Markup {
    html! {
        header.top {
            span.brand { svg.brand-mark aria-hidden="true" { use href="#i-brand" {} } "Switchback" }
            span.what { (words::procedure(report.procedure)) " of " strong { (report.stack) } }
            span.when { (words::utc(report.started_at_ms)) " on " (report.host) }
        }
    }
}

/// The verdict.
pub fn banner(report: &Report, label: &str, tone: Tone) -> Markup {
    html! {
        section.banner.(parts::class(tone)) aria-label="Verdict" {
            div.seal { (parts::icon(tone)) }
            div.says {
                p.verdict { (label) }
                h1 { (capital(&report.headline).replace(" -> ", " → ")) }
                p.production {
                    svg.icon aria-hidden="true" { use href="#i-shield" {} }
                    span { (report.production) }
                }
                @if let Some(reason) = &report.reason { p.asked { "Reason given: " q { (reason) } } }
            }
        }
        (change(report))
    }
}

fn capital(text: &str) -> String {
    // Only words of Switchback: the name of a service is written as it is.
    let begins_with_word = ["production ", "the ", "rehearse", "promote", "rollback", "up", "down"]
        .iter()
        .any(|word| text.starts_with(word));
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if begins_with_word => first.to_uppercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// Versions and generations, before and after.
fn change(report: &Report) -> Markup {
    let names: std::collections::BTreeSet<&ServiceName> =
        report.from.keys().chain(report.to.keys()).collect();
    let (mut same, mut changed) = (Vec::new(), Vec::new());
    for name in names {
        match (report.from.get(name), report.to.get(name)) {
            (Some(a), Some(b)) if a == b => same.push(format!("{name} {a}")),
            (a, b) => changed.push((name, a, b)),
        }
    }
    let generations = match (report.from_generation, report.to_generation) {
        (Some(a), Some(b)) if a != b => Some((a.to_string(), b.to_string())),
        _ => None,
    };
    html! {
        section.change aria-label="What changed" {
            @for (name, from, to) in &changed {
                div.version {
                    span.name { (name) }
                    span.pair {
                        @match from { Some(v) => code { (v) }, None => em { "new" } }
                        span.arrow { "→" }
                        @match to { Some(v) => code.to { (v) }, None => em { "removed" } }
                    }
                }
            }
            @if changed.is_empty()
                && matches!(report.procedure, Procedure::Rehearse | Procedure::Promote | Procedure::Rollback)
            {
                div.version { span.name { "versions" } span.pair { "unchanged; the configuration differs" } }
            }
            @if let Some((from, to)) = generations {
                div.version {
                    span.name { "generation" }
                    span.pair {
                        code { (from) } span.arrow { "→" } code.to { (to) }
                        @if matches!(report.conclusion, Conclusion::Undone | Conclusion::RolledBack) {
                            span.arrow { "→" } code.to { (from) }
                        }
                    }
                }
            }
            @if !same.is_empty() {
                div.version.same { span.name { "unchanged" } span.pair { (same.join(", ")) } }
            }
        }
    }
}

/// The key numbers.
pub fn tiles(report: &Report) -> Markup {
    html! {
        @let facts = facts::key(report);
        @if facts.iter().any(|f| f.rank == Rank::Main) {
        section.tiles aria-label="Key numbers" {
            @for fact in facts.iter().filter(|f| f.rank == Rank::Main) {
                div.tile.(parts::class(fact.tone)) {
                    p.name {
                        (fact.name)
                        @if !matches!(fact.tone, Tone::Quiet) { (parts::icon(fact.tone)) }
                    }
                    p.value { (fact.value) }
                    @if let Some(share) = fact.share { (parts::bar(share, fact.tone)) }
                    p.note { (fact.note) }
                }
            }
        }
        }
        dl.side {
            @for fact in facts.iter().filter(|f| f.rank == Rank::Side) {
                div { dt { (fact.name) } dd { strong { (fact.value) } " " span { (fact.note) } } }
            }
        }
    }
}

/// Why.
pub fn reasons(report: &Report) -> Markup {
    let (_, tone) = words::conclusion(report.conclusion);
    html! {
        @if !report.reasons.is_empty() {
            section.reasons.(parts::class(tone)) {
                h2 { (words::reasons_title(report.conclusion)) }
                ul {
                    @for reason in report.reasons.iter().take(50) { li { (words::shorten(reason, 4000)) } }
                }
                (parts::left_out(50.min(report.reasons.len()), report.reasons.len(), "reason"))
            }
        }
    }
}

/// What to do.
pub fn next(report: &Report) -> Markup {
    html! {
        @if !report.next.is_empty() {
            section.next {
                h2 { "What to do next" }
                ol {
                    @for advice in &report.next {
                        li {
                            span { (advice.text) }
                            @if let Some(command) = &advice.command { (parts::command(command)) }
                        }
                    }
                }
            }
        }
    }
}
