//! JUnit XML, for the test views of CI systems.

use super::words;
use quick_junit::{NonSuccessKind, Property, Report as Xml, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;
use switchback_core::check::{CheckResult, Failure, Verdict};
use switchback_core::journal::{ErrorKind, StepError};
use switchback_core::report::{Conclusion, Report};

/// Renders the document.
pub fn xml(report: &Report) -> String {
    let mut xml = Xml::new(clean(&format!("switchback {} {}", report.procedure.as_str(), report.stack)));
    xml.set_time(Duration::from_millis(report.times.total_ms));
    xml.add_test_suite(run(report));
    for environment in words::environments(report) {
        let mut suite = TestSuite::new(clean(environment));
        let results = || report.checks.iter().filter(|c| c.environment == environment);
        suite.set_time(Duration::from_millis(results().map(|c| c.took_ms).sum()));
        for check in results() {
            suite.add_test_case(case(check, report));
        }
        xml.add_test_suite(suite);
    }
    let steps = steps(report);
    if !steps.is_empty() {
        let mut suite = TestSuite::new("steps");
        suite.add_test_cases(steps);
        xml.add_test_suite(suite);
    }
    // Writing to memory fails only for text that is not valid XML, and `clean` leaves none.
    xml.to_string().expect("clean text serializes")
}

/// Removes what XML 1.0 forbids and quick-junit leaves: it strips controls and ANSI sequences itself.
fn clean(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "")
}

/// The conclusion as a case, so that a run that was refused for another reason than a check is red.
fn run(report: &Report) -> TestSuite {
    let (label, _) = words::conclusion(report.conclusion);
    let kind = match report.conclusion {
        Conclusion::Pass | Conclusion::OnTrial => None,
        Conclusion::Refused | Conclusion::Undone | Conclusion::RolledBack => Some(NonSuccessKind::Failure),
        Conclusion::Inconclusive | Conclusion::NeedsOperator | Conclusion::Unfinished => {
            Some(NonSuccessKind::Error)
        }
    };
    let status = kind.map_or_else(TestCaseStatus::success, |kind| {
        let mut lines = vec![report.production.clone()];
        lines.extend(report.reasons.iter().cloned());
        problem(kind, &label.to_lowercase(), &report.headline, &lines.join("\n"))
    });
    let mut case = TestCase::new("conclusion", status);
    case.set_classname(clean(&format!("{}.run", report.stack)));
    case.set_time(Duration::from_millis(report.times.total_ms));
    case.set_system_out(clean(&report.headline));
    let mut suite = TestSuite::new("run");
    suite.set_time(Duration::from_millis(report.times.total_ms));
    suite.add_properties([
        Property::new("run", clean(report.run.as_str())),
        Property::new("change", clean(&report.change)),
        Property::new("host", clean(&report.host)),
        Property::new("tool", clean(&report.tool)),
        Property::new("started", words::utc(report.started_at_ms)),
        Property::new("conclusion", label),
    ]);
    let times = &report.times;
    for (name, ms) in [
        ("rollback_ms", times.rollback_ms),
        ("budget_ms", Some(times.budget_ms)),
        ("downtime_ms", times.downtime_ms),
        ("writers_waited_ms", times.writers_waited_ms),
    ] {
        if let Some(ms) = ms {
            suite.add_property(Property::new(name, ms.to_string()));
        }
    }
    suite.add_test_case(case);
    suite
}

fn problem(kind: NonSuccessKind, type_: &str, message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(type_).set_message(clean(&words::shorten(message, 1000))).set_description(clean(text));
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(clean(message));
    status
}

fn case(check: &CheckResult, report: &Report) -> TestCase {
    let status = match &check.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Waived { who, why } => skipped(&format!("waived by {who}: {why}")),
        // What the old version does with new data is recorded and never refused for.
        other if !words::counts(check) => skipped(&format!("{} (does not count)", other.word())),
        Verdict::Fail { reasons } => {
            let message = reasons.first().map_or_else(|| "failed".to_owned(), headline);
            let text = reasons.iter().map(describe).collect::<Vec<_>>().join("\n\n");
            problem(NonSuccessKind::Failure, check.kind.as_str(), &message, &text)
        }
        Verdict::Inconclusive { why } => problem(NonSuccessKind::Error, "inconclusive", why, why),
        Verdict::NotRun { why } => problem(NonSuccessKind::Error, "not run", why, why),
    };
    let mut case = TestCase::new(clean(&check.id), status);
    case.set_classname(clean(&format!("{}.{}", report.stack, check.kind.as_str())));
    case.set_time(Duration::from_millis(check.took_ms));
    for (name, value) in &check.measured {
        case.add_property(Property::new(clean(name), clean(value)));
    }
    if !check.steps.is_empty() {
        let lines: Vec<String> = check
            .steps
            .iter()
            .take(1000)
            .map(|s| {
                format!(
                    "{} {}: {} ({} ms)",
                    if s.ok { "ok    " } else { "FAILED" },
                    s.name,
                    s.seen,
                    s.took_ms
                )
            })
            .collect();
        case.set_system_out(clean(&lines.join("\n")));
    }
    case
}

fn headline(failure: &Failure) -> String {
    if failure.at.is_empty() { failure.what.clone() } else { format!("{}: {}", failure.at, failure.what) }
}

fn describe(failure: &Failure) -> String {
    let mut text = headline(failure);
    for (name, value) in
        [("expected", &failure.expected), ("got", &failure.got), ("reproduce", &failure.reproduce)]
    {
        if let Some(value) = value {
            text.push_str(&format!("\n  {name}: {value}"));
        }
    }
    text
}

fn steps(report: &Report) -> Vec<TestCase> {
    let mut cases = Vec::new();
    for step in &report.steps {
        for (suffix, error) in [("", &step.error), (" (undo)", &step.undo_error)] {
            let Some(error) = error else { continue };
            let mut case = TestCase::new(clean(&format!("{}{suffix}", step.id)), failed(&step.title, error));
            case.set_classname(clean(&format!("{}.step", report.stack)));
            case.set_time(Duration::from_millis(step.took_ms.unwrap_or(0)));
            cases.push(case);
        }
    }
    cases
}

fn failed(title: &str, error: &StepError) -> TestCaseStatus {
    let (kind, type_) = match error.kind {
        ErrorKind::Refused => (NonSuccessKind::Failure, "refused"),
        ErrorKind::Internal => (NonSuccessKind::Error, "internal"),
        ErrorKind::Usage => (NonSuccessKind::Error, "usage"),
        ErrorKind::Host => (NonSuccessKind::Error, "host"),
    };
    let mut text = format!("{title}\n{}", error.message);
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\nhint: {hint}"));
    }
    for line in &error.details {
        text.push_str(&format!("\n  {line}"));
    }
    problem(kind, type_, &error.message, &text)
}
