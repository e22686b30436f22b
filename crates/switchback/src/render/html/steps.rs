//! Every step with what it noted, why it failed and how it was undone.

use super::parts::{self, Section};
use super::timeline;
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::duration::human_ms;
use switchback_core::journal::StepError;
use switchback_core::report::{Report, StepReport, StepStatus};

/// The section, if there are steps.
pub fn section(report: &Report) -> Option<Section> {
    let wrong = report.steps.iter().any(|s| {
        (s.error.is_some() && s.status != StepStatus::Finding)
            || s.undo_error.is_some()
            || s.status == StepStatus::Running
    });
    let number = |status| report.steps.iter().filter(|s| s.status == status).count();
    (!report.steps.is_empty()).then(|| Section {
        id: "steps",
        title: "Steps",
        wrong,
        open: wrong,
        summary: html! {
            @for (status, i) in [StepStatus::Done, StepStatus::Failed, StepStatus::Finding, StepStatus::Undone, StepStatus::Skipped, StepStatus::Running, StepStatus::Pending]
                .into_iter().filter(|s| number(*s) > 0).zip(0..) {
                @if i > 0 { ", " }
                (number(status)) " " (words::status(status).0)
            }
        },
        body: html! {
            div.scroll {
                table.steps {
                    thead { tr { th.n { "#" } th { "Step" } th { "Status" } th.n { "Began" } th.n { "Took" } } }
                    tbody { @for (step, n) in report.steps.iter().zip(1..) { (row(step, n)) } }
                }
            }
        },
    })
}

fn row(step: &StepReport, n: usize) -> Markup {
    let (word, tone) = words::status(step.status);
    html! {
        tr.failed[step.error.is_some()] {
            td.n.dim { (n) }
            td.wide {
                span.swatch.(timeline::class(step.group)) title=(words::group(step.group)) {}
                (words::shorten(&step.title, 300)) " " code.id { (words::shorten(&step.id, 80)) }
                (parts::notes(&step.notes))
                @if let Some(error) = &step.error { (failure("Failed", error)) }
                @if let Some(ms) = step.undo_ms {
                    p.undo { "Undone in " (human_ms(ms)) }
                    (parts::notes(&step.undo_notes))
                }
                @if let Some(error) = &step.undo_error { (failure("Undoing it failed", error)) }
            }
            td {
                (parts::chip(tone, word))
                @if step.attempts > 1 { " " span.dim.nowrap { (step.attempts) " attempts" } }
            }
            td.n { @if let Some(ms) = step.began_ms { "+" (human_ms(ms)) } }
            td.n { @if let Some(ms) = step.took_ms { (human_ms(ms)) } }
        }
    }
}

fn failure(title: &str, error: &StepError) -> Markup {
    html! {
        div.failure {
            p { (parts::icon(Tone::Bad)) strong { (title) ": " } (words::shorten(&error.message, 4000)) }
            @if let Some(hint) = &error.hint { p.hint { "Hint: " (hint) } }
            @if !error.details.is_empty() {
                @let first = error.details.len().saturating_sub(100);
                pre.log tabindex="0" {
                    @if first > 0 { (first) " lines before are left out\n" }
                    @for line in &error.details[first..] { (words::shorten(line, 1000)) "\n" }
                }
            }
        }
    }
}
