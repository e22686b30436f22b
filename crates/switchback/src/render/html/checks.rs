//! The checks as a matrix, every failure with its evidence, and what each check did.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use std::collections::BTreeSet;
use switchback_core::check::{CheckResult, Failure, Verdict};
use switchback_core::duration::human_ms;
use switchback_core::report::{CodeOnly, Report};

/// More rows than a person reads.
const MOST_CHECKS: usize = 300;
/// More failures of one check than a person reads.
const MOST_FAILURES: usize = 20;

/// The section, if anything was checked.
pub fn section(report: &Report) -> Option<Section> {
    let (passed, all) = report.check_counts();
    let mut problems: Vec<&CheckResult> =
        report.checks.iter().filter(|c| words::counts(c) && c.verdict != Verdict::Pass).collect();
    problems.sort_by_key(|c| match c.verdict {
        Verdict::Fail { .. } => 0,
        Verdict::Inconclusive { .. } => 1,
        Verdict::NotRun { .. } => 2,
        Verdict::Waived { .. } | Verdict::Pass => 3,
    });
    let wrong = problems.iter().any(|c| !c.verdict.permits());
    (!report.checks.is_empty() || report.code_only.is_some()).then(|| Section {
        id: "checks",
        title: "Checks",
        wrong,
        open: wrong,
        summary: html! {
            (passed) " of " (all) " passed"
            @let failed = problems.iter().filter(|c| matches!(c.verdict, Verdict::Fail { .. })).count();
            @if failed > 0 { " " (parts::chip(Tone::Bad, &format!("{failed} failed"))) }
        },
        body: html! {
            (matrix(report))
            @for check in problems.iter().take(MOST_CHECKS) { (problem(check)) }
            (parts::left_out(MOST_CHECKS.min(problems.len()), problems.len(), "result"))
            @if let Some(code_only) = &report.code_only { (code_only_result(code_only, report)) }
            (parts_of_checks(report))
        },
    })
}

fn ids(report: &Report) -> Vec<(&str, &'static str)> {
    let mut seen = BTreeSet::new();
    report
        .checks
        .iter()
        .filter(|c| seen.insert(c.id.as_str()))
        .map(|c| (c.id.as_str(), c.kind.as_str()))
        .collect()
}

fn matrix(report: &Report) -> Markup {
    let environments = words::environments(report);
    let ids = ids(report);
    html! {
        div.scroll {
            table.matrix {
                thead {
                    tr {
                        th { "Check" }
                        @for environment in &environments {
                            th scope="col" {
                                (words::shorten(environment, 60))
                                small { (words::environment_meaning(environment)) }
                            }
                        }
                    }
                }
                tbody {
                    @for (id, kind) in ids.iter().take(MOST_CHECKS) {
                        tr {
                            th scope="row" { (name(id, kind)) small { (kind) } }
                            @for environment in &environments {
                                td { (cell(report, id, environment)) }
                            }
                        }
                    }
                }
            }
        }
        (parts::left_out(MOST_CHECKS.min(ids.len()), ids.len(), "check"))
    }
}

/// The id without the kind before it: the kind stands below.
fn name<'a>(id: &'a str, kind: &str) -> Markup {
    let short: &'a str = id.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).unwrap_or(id);
    html! { bdi title=(id) { (words::shorten(short, 120)) } }
}

fn cell(report: &Report, id: &str, environment: &str) -> Markup {
    let mut results = report.checks.iter().filter(|c| c.id == id && c.environment == environment).peekable();
    html! {
        @if results.peek().is_none() { span.none title="not part of this environment" { "–" } }
        @for check in results {
            @let (word, tone) = words::verdict(&check.verdict);
            div.result { (parts::chip(tone, word)) span.time { (human_ms(check.took_ms)) } }
        }
    }
}

fn problem(check: &CheckResult) -> Markup {
    let (word, tone) = words::verdict(&check.verdict);
    html! {
        article.problem.(parts::class(tone)) {
            h3 {
                (parts::chip(tone, word)) " "
                bdi { (words::shorten(&check.id, 200)) }
                span.dim { " in " (words::shorten(&check.environment, 60)) }
            }
            @match &check.verdict {
                Verdict::Pass => {}
                Verdict::Fail { reasons } => {
                    @for reason in reasons.iter().take(MOST_FAILURES) { (failure(reason)) }
                    (parts::left_out(MOST_FAILURES.min(reasons.len()), reasons.len(), "failure"))
                }
                Verdict::Inconclusive { why } => { p { "Nothing reliable was observed: " (why) } }
                Verdict::Waived { who, why } => { p { "Waived by " strong { (who) } ": " (why) } }
                Verdict::NotRun { why } => { p { "Not tried: " (why) } }
            }
            @if !check.steps.is_empty() && !check.verdict.permits() { (steps(check)) }
            (measured(check))
            @if !check.artefacts.is_empty() {
                p.files { "Evidence: "
                    @for (artefact, i) in check.artefacts.iter().zip(0..) {
                        @if i > 0 { ", " }
                        (super::evidence::link(&artefact.path, &artefact.title))
                    }
                }
            }
        }
    }
}

fn failure(failure: &Failure) -> Markup {
    html! {
        div.failure {
            p {
                @if !failure.at.is_empty() { code.at { (words::shorten(&failure.at, 200)) } " " }
                (words::shorten(&failure.what, 2000))
            }
            @if failure.expected.is_some() || failure.got.is_some() {
                dl.versus {
                    @if let Some(expected) = &failure.expected {
                        div.expected { dt { "Expected" } dd { (words::shorten(expected, 2000)) } }
                    }
                    @if let Some(got) = &failure.got {
                        div.got { dt { "Got" } dd { (words::shorten(got, 2000)) } }
                    }
                }
            }
            @if let Some(command) = &failure.reproduce {
                p.hint { "Reproduce it:" }
                (parts::command(command))
            }
        }
    }
}

fn measured(check: &CheckResult) -> Markup {
    html! {
        @if !check.measured.is_empty() {
            dl.facts.small {
                @for (name, value) in check.measured.iter().take(50) { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

fn steps(check: &CheckResult) -> Markup {
    // Of many parts, those that failed come first; the order of the others stays.
    let mut order: Vec<_> = check.steps.iter().collect();
    if order.len() > 40 {
        order.sort_by_key(|s| s.ok);
    }
    html! {
        div.scroll {
            table.parts {
                thead { tr { th { "Part" } th { "Result" } th { "Seen" } th.n { "Took" } } }
                tbody {
                    @for step in order.iter().take(40) {
                        tr.failed[!step.ok] {
                            td { (words::shorten(&step.name, 200)) }
                            td { @if step.ok { (parts::chip(Tone::Good, "ok")) } @else { (parts::chip(Tone::Bad, "failed")) } }
                            td.seen { (words::shorten(&step.seen, 500)) }
                            td.n { (human_ms(step.took_ms)) }
                        }
                    }
                }
            }
        }
        (parts::left_out(40.min(order.len()), order.len(), "part"))
    }
}

fn code_only_result(code_only: &CodeOnly, report: &Report) -> Markup {
    let failed: Vec<&CheckResult> =
        report.checks.iter().filter(|c| !words::counts(c) && !c.verdict.permits()).collect();
    html! {
        article.problem.quiet {
            h3 { "Could the code alone go back?" }
            @if code_only.possible {
                p {
                    strong { "Yes. " } (code_only.why)
                    ". Going back without the old data would keep everything written since; Switchback always returns to code and data together."
                }
            } @else {
                p {
                    strong { "No: the old version does not work on the migrated data. " }
                    "A rollback has to return to the old data as well, which Switchback does. This does not count against the upgrade."
                }
                p.hint { (words::shorten(&code_only.why, 2000)) }
            }
            @if !failed.is_empty() {
                details.more {
                    summary { "What failed there" }
                    @for check in failed.iter().take(20) {
                        @if let Verdict::Fail { reasons } = &check.verdict {
                            @for reason in reasons.iter().take(5) { (failure(reason)) }
                        }
                    }
                }
            }
        }
    }
}

fn parts_of_checks(report: &Report) -> Markup {
    // Environments that behaved alike need no repetition: the one that decides is shown.
    let decisive = |id: &str| {
        let of = |environment: &str| {
            report.checks.iter().find(|c| c.id == id && c.environment == environment && !c.steps.is_empty())
        };
        of("candidate")
            .or_else(|| of("production"))
            .or_else(|| report.checks.iter().find(|c| c.id == id && !c.steps.is_empty()))
    };
    let found: Vec<&CheckResult> = ids(report).iter().filter_map(|(id, _)| decisive(id)).collect();
    html! {
        @if !found.is_empty() {
            details.more {
                summary { "What each check did" }
                @for check in found.iter().take(100) {
                    h3 { bdi { (words::shorten(&check.id, 200)) } span.dim { " in " (check.environment) } }
                    (steps(check))
                    @if check.verdict.permits() { (measured(check)) }
                }
                (parts::left_out(100.min(found.len()), found.len(), "check"))
            }
        }
    }
}
