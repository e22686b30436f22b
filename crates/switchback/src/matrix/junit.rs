//! The matrix as JUnit XML: a suite per area, a case per criterion. Inconclusive is an error; NOT-RUN and what does not
//! apply are skipped.

use super::why;
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};
use switchback_core::criteria::{Judgement, Matrix};

/// Renders it.
pub fn junit(matrix: &Matrix) -> String {
    let mut report = Report::new(format!("acceptance of {}", matrix.subject.stack));
    for (area, rows) in matrix.areas() {
        let mut suite = TestSuite::new(clean(area));
        suite.add_property(Property::new("change", clean(&matrix.subject.change)));
        for row in rows {
            let text = clean(&why(&row.verdict).join("\n"));
            let mut status = match &row.verdict {
                Judgement::Pass => TestCaseStatus::success(),
                Judgement::Fail { .. } => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Judgement::Inconclusive { .. } => TestCaseStatus::non_success(NonSuccessKind::Error),
                Judgement::NotRun { .. } | Judgement::NotApplicable { .. } => TestCaseStatus::skipped(),
            };
            if !matches!(row.verdict, Judgement::Pass) {
                status.set_message(text.clone());
            }
            let name = format!("{}: {}", row.criterion.id, row.criterion.text);
            let mut case = TestCase::new(clean(&name), status);
            case.set_classname(clean(area));
            let took: i64 = matrix.evidence_of(row).map(|e| e.ended_at_ms - e.started_at_ms).sum();
            case.set_time(std::time::Duration::from_millis(u64::try_from(took).unwrap_or(0)));
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    // Writing to memory fails only for text that is no XML, which `clean` has removed.
    report.to_string().unwrap_or_default()
}

/// Removes what XML 1.0 cannot hold.
fn clean(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\t' | '\n' | '\r') || !c.is_control()).collect()
}
