//! When each step ran: a Gantt chart in rows, one small picture per step on one common axis.
//!
//! Rows and not one big picture: titles wrap, nothing shrinks on a narrow screen, and print can break
//! pages between steps.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::duration::human_ms;
use switchback_core::plan::{Group, Procedure};
use switchback_core::report::{Report, StepReport, StepStatus};

/// The section, if any step began.
pub fn section(report: &Report) -> Option<Section> {
    let axis = Axis::of(&report.steps)?;
    let spans = spans(report);
    let failed = report.steps.iter().filter(|s| s.status == StepStatus::Failed).count();
    let undone = report.steps.iter().filter(|s| s.undo_ms.is_some()).count();
    Some(Section {
        id: "timeline",
        title: "Timeline",
        wrong: failed > 0,
        open: true,
        summary: html! {
            (words::count(report.steps.iter().filter(|s| s.began_ms.is_some()).count() as u64, "step"))
            " in " (human_ms(axis.busy()))
            @if failed > 0 { " " (parts::chip(Tone::Bad, &format!("{failed} failed"))) }
            @if undone > 0 { " " (parts::chip(Tone::Warn, &format!("{undone} undone"))) }
        },
        body: chart(report, &axis, &spans),
    })
}

/// A stretch of time that matters to people.
struct Stretch {
    class: &'static str,
    label: String,
    from: u64,
    to: u64,
    group: Group,
}

fn spans(report: &Report) -> Vec<Stretch> {
    let began = |id: &str| report.steps.iter().find(|s| s.id == id).and_then(|s| s.began_ms);
    let mut found = Vec::new();
    let (rollback_begins, outage) = match report.procedure {
        Procedure::Rehearse => ("rollback-stop", "downtime, as a promotion would have"),
        Procedure::RollbackDrill => ("rollback-stop", ""),
        Procedure::ProductionDrill => ("rollback-stop", "downtime on production"),
        Procedure::Rollback | Procedure::ServiceRollback => ("stop-new", "downtime"),
        _ => ("", "downtime on production"),
    };
    if let (Some(from), Some(ms)) = (began("stop-old"), report.times.downtime_ms) {
        found.push(Stretch {
            class: "outage",
            label: format!("{} {outage}", human_ms(ms)),
            from,
            to: from + ms,
            group: Group::Switch,
        });
    }
    if let (Some(from), Some(ms)) = (began(rollback_begins), report.times.rollback_ms) {
        found.push(Stretch {
            class: "return",
            label: format!("{} from the decision to stable", human_ms(ms)),
            from,
            to: from + ms,
            group: Group::Rollback,
        });
    }
    found
}

/// The common axis. Pauses in which nothing ran (a run that was resumed later) are shortened.
struct Axis {
    /// Stretches with work, in milliseconds, and where they begin on the axis (in milliseconds, too).
    pieces: Vec<(u64, u64, u64)>,
}

/// A pause is shortened when it is longer than this and than a fifth of all work; shorter pauses tell
/// something about the run.
const LONG_PAUSE_MS: u64 = 10_000;

impl Axis {
    fn of(steps: &[StepReport]) -> Option<Self> {
        let mut work: Vec<(u64, u64)> = steps
            .iter()
            .filter_map(|s| s.began_ms.map(|b| (b, b.saturating_add(s.took_ms.unwrap_or(0)))))
            .collect();
        work.sort_unstable();
        let all: u64 = work.iter().map(|(from, to)| to - from).sum();
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for (from, to) in work {
            match pieces.last_mut() {
                Some(last) if from <= last.1.saturating_add(LONG_PAUSE_MS.max(all / 5)) => {
                    last.1 = last.1.max(to);
                }
                _ => pieces.push((from, to)),
            }
        }
        let shown: u64 = pieces.iter().map(|(from, to)| to - from).sum();
        let gap = (shown / 25).max(1);
        let mut at = 0;
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(from, to)| {
                let begins = at;
                at += to - from + gap;
                (from, to, begins)
            })
            .collect();
        (!pieces.is_empty()).then_some(Self { pieces })
    }

    /// Time with work.
    fn busy(&self) -> u64 {
        self.pieces.iter().map(|(from, to, _)| to - from).sum()
    }

    fn length(&self) -> u64 {
        self.pieces.last().map_or(1, |(from, to, at)| at + to - from).max(1)
    }

    /// Where a moment is, in per cent of the width.
    fn at(&self, ms: u64) -> f64 {
        let piece = self.pieces.iter().rev().find(|(from, ..)| *from <= ms).or(self.pieces.first());
        let along = piece.map_or(0, |(from, to, at)| at + ms.clamp(*from, *to) - from);
        (along as f64 / self.length() as f64 * 10_000.0).round() / 100.0
    }

    /// Moments to name.
    fn ticks(&self) -> Vec<u64> {
        const STEPS: [u64; 20] = [
            1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000,
            600_000, 1_800_000, 3_600_000, 14_400_000,
        ];
        let length = self.length();
        let step = STEPS.into_iter().find(|s| length / s <= 5).unwrap_or(86_400_000);
        let mut found = Vec::new();
        for (from, to, _) in self.pieces.iter().take(20) {
            found.extend((from.div_ceil(step)..=to / step).take(6).map(|n| n * step));
        }
        found.dedup_by(|b, a| self.at(*b) - self.at(*a) < 9.0);
        found
    }

    /// Where the shortened pauses are.
    fn pauses(&self) -> Vec<(f64, u64)> {
        self.pieces.windows(2).map(|w| ((self.at(w[0].1) + self.at(w[1].0)) / 2.0, w[1].0 - w[0].1)).collect()
    }
}

fn chart(report: &Report, axis: &Axis, spans: &[Stretch]) -> Markup {
    let ticks = axis.ticks();
    let mut last = None;
    html! {
        div.gantt role="img" aria-label="Chart of the steps over time; the table of steps below has the same numbers" {
            div.row.axis {
                span.label { "Step" }
                svg.lane height="18" width="100%" {
                    @for tick in &ticks {
                        @let x = axis.at(*tick);
                        text x={ (x) "%" } y="12" text-anchor=(if x < 4.0 { "start" } else if x > 92.0 { "end" } else { "middle" }) {
                            (tick_label(*tick))
                        }
                    }
                }
                span.took { "Took" }
            }
            @for step in &report.steps {
                @if last.replace(step.group) != Some(step.group) {
                    div.row.group.(class(step.group)) {
                        span.label { span.swatch {} (words::group(step.group)) }
                        div.lane {
                            svg.back width="100%" height="100%" aria-hidden="true" { (backdrop(axis, spans, &ticks)) }
                            @for span in spans.iter().filter(|s| s.group == step.group && holds(s, step)) {
                                (span_label(span, axis))
                            }
                        }
                        span.took {}
                    }
                }
                (row(step, axis, spans, &ticks))
            }
        }
        @for (_, ms) in axis.pauses() {
            p.hint { "A pause of " (human_ms(ms)) " in which nothing ran is shortened in the chart." }
        }
    }
}

/// What lies behind the bars of every row: stretches, ticks and pauses.
fn backdrop(axis: &Axis, spans: &[Stretch], ticks: &[u64]) -> Markup {
    html! {
        @for span in spans {
            @let (x, end) = (axis.at(span.from), axis.at(span.to));
            rect.(span.class) x={ (x) "%" } width={ (round((end - x).max(0.4))) "%" } height="100%" {}
        }
        @for tick in ticks {
            @let x = axis.at(*tick);
            line.grid x1={ (x) "%" } x2={ (x) "%" } y1="0" y2="100%" {}
        }
        @for (x, _) in axis.pauses() {
            line.pause x1={ (round(x)) "%" } x2={ (round(x)) "%" } y1="0" y2="100%" {}
        }
    }
}

/// Names a stretch where it is; one that begins far right is named from its end to the left.
fn span_label(span: &Stretch, axis: &Axis) -> Markup {
    let (x, end) = (axis.at(span.from), axis.at(span.to));
    let place = if x > 50.0 {
        format!("justify-content:flex-end;padding-right:{}%", round(100.0 - end))
    } else {
        format!("padding-left:{x}%")
    };
    html! { div.span-place style=(place) { span.span-label.(span.class) { (span.label) } } }
}

/// Whether the step begins within the stretch, so that its group is the one to be labelled.
fn holds(span: &Stretch, step: &StepReport) -> bool {
    step.began_ms.is_some_and(|b| b >= span.from && b <= span.to)
}

fn tick_label(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        1..60_000 if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        60_000.. if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        60_000.. if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ => human_ms(ms),
    }
}

fn row(step: &StepReport, axis: &Axis, spans: &[Stretch], ticks: &[u64]) -> Markup {
    let (word, tone) = words::status(step.status);
    let odd = matches!(
        step.status,
        StepStatus::Failed | StepStatus::Finding | StepStatus::Undone | StepStatus::Running
    );
    html! {
        div.row.(class(step.group)).idle[step.began_ms.is_none()].failed[step.status == StepStatus::Failed] {
            span.label {
                (words::shorten(&step.title, 160))
                @if odd { " " (parts::chip(tone, word)) }
            }
            svg.lane height="22" width="100%" {
                title { (words::shorten(&step.title, 160)) ": " (word) @if let Some(ms) = step.took_ms { ", " (human_ms(ms)) } }
                (backdrop(axis, spans, ticks))
                @if let Some(began) = step.began_ms {
                    @let x = axis.at(began);
                    @let end = axis.at(began.saturating_add(step.took_ms.unwrap_or(0)));
                    @let width = round((end - x).max(0.5));
                    rect.step x={ (x.min(99.5)) "%" } y="5" width={ (width) "%" } height="12" rx="2" {}
                }
            }
            span.took {
                @match step.took_ms { Some(ms) => (human_ms(ms)), None => span.none { (word) } }
                @if let Some(ms) = step.undo_ms { br; small { "undo " (human_ms(ms)) } }
            }
        }
    }
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// The name of a group in the style sheet.
pub fn class(group: Group) -> &'static str {
    match group {
        Group::Prepare => "g-prepare",
        Group::Baseline => "g-baseline",
        Group::Switch => "g-switch",
        Group::Check => "g-check",
        Group::Rollback => "g-rollback",
        Group::After => "g-after",
    }
}
