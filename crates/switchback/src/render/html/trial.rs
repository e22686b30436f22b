//! The trial: what the watchdog saw, as a strip of time.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::duration::human_ms;
use switchback_core::report::{Report, TrialReport};

/// More changes of mind than a person reads.
const MOST_PROBES: usize = 200;

/// The section, if there was a trial.
pub fn section(report: &Report) -> Option<Section> {
    let trial = report.trial.as_ref()?;
    // The event is written a moment after the deadline was set.
    let planned = length(trial.began_at_ms, trial.deadline_ms).saturating_add(500) / 1000 * 1000;
    let (tone, word) = match trial.state.as_str() {
        "confirmed" => (Tone::Good, "confirmed"),
        "failed" => (Tone::Bad, "failed"),
        "running" => (Tone::Info, "running"),
        _ => (Tone::Quiet, "cancelled"),
    };
    let wrong = tone == Tone::Bad;
    Some(Section {
        id: "trial",
        title: "Trial",
        wrong,
        open: wrong || tone == Tone::Info,
        summary: html! { (human_ms(planned)) " under watch " (parts::chip(tone, word)) },
        body: body(trial, report, planned),
    })
}

fn length(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

/// Stretches of equal results: from, to, whether all was well.
fn stretches(trial: &TrialReport, end: u64) -> Vec<(u64, u64, bool)> {
    // A probe is recorded when it differs from the one before, so its result holds until the next.
    let first = trial.probes.first().map_or(end, |p| p.0);
    let mut found = if first > 0 { vec![(0, first, true)] } else { Vec::new() };
    for (i, (at, ok, _)) in trial.probes.iter().enumerate() {
        let until = trial.probes.get(i + 1).map_or(end, |p| p.0).max(*at);
        found.push((*at, until, *ok));
    }
    found
}

fn body(trial: &TrialReport, report: &Report, planned: u64) -> Markup {
    let last_probe = trial.probes.last().map_or(0, |p| p.0);
    let end = match trial.state.as_str() {
        "confirmed" => planned,
        _ => length(trial.began_at_ms, report.ended_at_ms).max(last_probe).min(planned.max(last_probe)),
    };
    let whole = planned.max(end).max(1) as f64;
    let percent = |ms: u64| (ms as f64 / whole * 1000.0).round() / 10.0;
    html! {
        @if let Some(trigger) = &trial.trigger {
            div.failure {
                p { (parts::icon(if trial.state == "failed" { Tone::Bad } else { Tone::Quiet })) strong { "It ended early: " } (trigger) }
            }
        }
        svg.strip width="100%" height="26" role="img" aria-label="Results of the probes over the time of the trial; listed below" {
            rect.track width="100%" height="26" rx="4" {}
            @for (from, to, ok) in stretches(trial, end).into_iter().take(MOST_PROBES) {
                rect.(if ok { "good" } else { "bad" }) x={ (percent(from).min(99.2)) "%" } width={ ((percent(to) - percent(from)).max(0.8)) "%" } height="26" {
                    title { (if ok { "well" } else { "failing" }) " from " (human_ms(from)) " to " (human_ms(to)) }
                }
            }
        }
        div.strip-ends {
            span { "began " (words::utc(trial.began_at_ms)) }
            span { (if trial.state == "running" { "ends " } else { "planned until " }) (words::utc(trial.deadline_ms)) }
        }
        p.legend { span.key.well {} "well" span.key.failing {} "failing" span.key.rest {} "not watched (yet)" }
        @if trial.probes.is_empty() {
            p.hint { "No probe differed from the one before: everything was well all the time." }
        } @else {
            div.scroll {
                table {
                    thead { tr { th.n { "After" } th { "Result" } th { "Seen" } } }
                    tbody {
                        @for (at, ok, seen) in trial.probes.iter().take(MOST_PROBES) {
                            tr.failed[!ok] {
                                td.n { (human_ms(*at)) }
                                td { @if *ok { (parts::chip(Tone::Good, "well")) } @else { (parts::chip(Tone::Bad, "failing")) } }
                                td.wide { (words::shorten(seen, 1000)) }
                            }
                        }
                    }
                }
            }
            (parts::left_out(MOST_PROBES.min(trial.probes.len()), trial.probes.len(), "probe"))
            p.hint { "A probe is listed when its result differs from the one before." }
        }
    }
}
