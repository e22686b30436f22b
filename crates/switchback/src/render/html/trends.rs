//! The page of a time: key numbers, plots of how they went, and the same as a table.

use super::parts::{self, Section};
use crate::render::trends::{count, day, heading, rate, spread};
use crate::render::words::{self, Tone};
use maud::{Markup, PreEscaped, html};
use switchback_core::analytics::{CheckCount, Spread, Trends, picture};
use switchback_core::duration::human_ms;

/// Renders the whole page.
pub fn page(trends: &Trends) -> String {
    let stack = trends.stack.as_ref().map_or("a stack without runs", |s| s.as_str());
    let period = format!("{} to {}", day(trends.period.from_ms), day(trends.period.until_ms));
    let sections = [
        Some(plots(trends)),
        (!trends.buckets.is_empty()).then(|| numbers(trends)),
        checks("prevented", "Bad upgrades prevented", PREVENTED, &trends.total.prevented_by),
        checks("flaky", "Flaky checks", FLAKY, &trends.total.flaky),
    ];
    let body = html! {
        header.top {
            span.brand { svg.brand-mark aria-hidden="true" { use href="#i-brand" {} } "Switchback" }
            span.what { "History of " strong { (stack) } }
            span.when { (period) " (UTC)" }
        }
        main {
            section.period aria-label="What this is" {
                h1 { "Upgrades of " (stack) }
                p.dim {
                    (words::count(trends.total.runs as u64, "run")) " from " (period) ", UTC. "
                    "A run counts where it began; a promotion that was rolled back, on the day when it was made."
                }
            }
            (tiles(trends))
            (parts::contents(&sections))
            @for section in sections.iter().flatten() { (section.render()) }
        }
        footer {
            p {
                "This page shows what the stack's journal holds. To make it again: "
                code.command { "switchback report --since TIME --html FILE" }
            }
        }
    };
    super::frame(&format!("History of {stack}, {period}"), &body)
}

fn tiles(trends: &Trends) -> Markup {
    let total = &trends.total;
    let went_back = match total.failed {
        0 => "none was rolled back".to_owned(),
        failed => format!(
            "{failed} rolled back, {} of these by {}",
            total.rolled_back,
            if total.rolled_back == 1 { "itself" } else { "themselves" }
        ),
    };
    let tone = |bad: bool| if bad { Tone::Warn } else { Tone::Quiet };
    let took = |of: Spread| if of.count == 0 { "–".to_owned() } else { human_ms(of.median_ms) };
    let longest = |of: Spread, what: &str| match of.count {
        0 => "never measured in this time".to_owned(),
        n => format!("median of {}; the longest {}", words::count(n as u64, what), human_ms(of.longest_ms)),
    };
    let all = [
        (
            "Upgrades tried",
            total.rehearsed.to_string(),
            format!("{} refused, {} could not be judged", total.refused, total.inconclusive),
            Tone::Quiet,
        ),
        ("Promoted", total.promoted.to_string(), went_back, Tone::Quiet),
        (
            "Change failure rate",
            rate(total.change_failure_rate),
            "promotions that were rolled back, by themselves or by command".to_owned(),
            tone(total.failed > 0),
        ),
        ("Time to restore", took(total.restore), longest(total.restore, "rollback"), Tone::Quiet),
        ("Rollback time", took(total.rollback), longest(total.rollback, "rollback"), Tone::Quiet),
        ("Downtime", took(total.downtime), longest(total.downtime, "promotion"), Tone::Quiet),
    ];
    html! {
        section.tiles aria-label="Key numbers" {
            @for (name, value, note, tone) in &all {
                div.tile.(parts::class(*tone)) {
                    p.name { (name) }
                    p.value { (value) }
                    p.note { (note) }
                }
            }
        }
    }
}

fn plots(trends: &Trends) -> Section {
    let all = [
        (
            "Upgrades",
            "Rehearsed, refused by a check, brought to production, and rolled back since.",
            picture::upgrades(trends),
        ),
        (
            "Change failure rate",
            "Promotions that were rolled back since. No mark: nothing was promoted.",
            picture::failure_rate(trends),
        ),
        (
            "Downtime of promotions",
            "From the stop of the old version to the first healthy answer of the new one.",
            picture::times(trends, "Downtime of promotions", |b| b.downtime),
        ),
        (
            "Rollback time",
            "The rollback itself: from the first stop until everything was read back.",
            picture::times(trends, "Rollback time", |b| b.rollback),
        ),
        (
            "Time to restore",
            "From the first sign of a failure on trial, or from the command, until production answered again.",
            picture::times(trends, "Time to restore", |b| b.restore),
        ),
    ];
    let missing: Vec<&str> = all.iter().filter(|(.., p)| p.is_none()).map(|(title, ..)| *title).collect();
    Section {
        id: "trends",
        title: "Trends",
        wrong: false,
        open: true,
        summary: html! { "per " (trends.width.as_str()) },
        body: html! {
            div.plots {
                @for (title, meaning, picture) in &all {
                    @if let Some(picture) = picture {
                        figure {
                            figcaption { (title) span { (meaning) } }
                            (PreEscaped(picture))
                        }
                    }
                }
            }
            @if !missing.is_empty() {
                p.hint { "Nothing to draw in this time: " (missing.join(", ").to_lowercase()) "." }
            }
        },
    }
}

fn numbers(trends: &Trends) -> Section {
    Section {
        id: "numbers",
        title: "Numbers",
        wrong: false,
        open: true,
        summary: html! { (words::count(trends.buckets.len() as u64, trends.width.as_str())) },
        body: html! {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            th { (heading(trends.width)) }
                            @for name in ["Tried", "Refused", "Promoted", "Rolled back", "Failure rate", "Downtime", "Rollback time", "Time to restore"] {
                                th.n { (name) }
                            }
                        }
                    }
                    tbody {
                        @for b in &trends.buckets {
                            tr {
                                td.nowrap { (day(b.period.from_ms)) }
                                @for n in [b.rehearsed, b.refused, b.promoted, b.failed] { td.n { (count(n)) } }
                                td.n { (rate(b.change_failure_rate)) }
                                @for of in [b.downtime, b.rollback, b.restore] { td.n { (spread(of)) } }
                            }
                        }
                    }
                }
            }
            p.hint { "Times: the median, and in brackets the longest where there are several. –: none, or not measured." }
        },
    }
}

const PREVENTED: &str = "Checks that failed in refused rehearsals, and how many rehearsals each refused; one that fails with others counts as well.";
const FLAKY: &str = "Checks that said different things of the same change in rehearsals that followed each other, and how often.";

fn checks(id: &'static str, title: &'static str, meaning: &str, found: &[CheckCount]) -> Option<Section> {
    let most = found.iter().map(|c| c.count).max()?;
    let shown = found.len().min(50);
    Some(Section {
        id,
        title,
        wrong: false,
        open: true,
        summary: html! { (words::count(found.len() as u64, "check")) },
        body: html! {
            p.dim { (meaning) }
            div.scroll tabindex="0" {
                table {
                    thead { tr { th { "Check" } th.proportion {} th.n { "Times" } } }
                    tbody {
                        @for check in found.iter().take(shown) {
                            tr {
                                td { code { (words::shorten(&check.check, 200)) } }
                                td.proportion { (parts::bar(check.count as f64 / most as f64, Tone::Quiet)) }
                                td.n { (check.count) }
                            }
                        }
                    }
                }
            }
            (parts::left_out(shown, found.len(), "check"))
        },
    })
}
