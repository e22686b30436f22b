//! Tests of what judges checks, mutants and reports.

use super::super::made_up::{check, failed, ran};
use super::*;
use switchback_core::plan::Procedure;

#[test]
fn an_operation_that_no_check_exercises_fails_its_row() {
    let coverage = |reached: usize| {
        let mut seen = ran(Procedure::Rehearse);
        let mut api = check(CheckKind::Api, "candidate", Verdict::Pass);
        api.measured.insert("operations declared".to_owned(), "3".to_owned());
        api.measured.insert("of these exercised".to_owned(), reached.to_string());
        seen.report.checks = vec![api];
        let all = compared(&seen);
        all.iter().find(|p| p.id == "coverage.surface").expect("there").verdict().word()
    };
    assert_eq!((coverage(3), coverage(2)), ("pass", "fail"));
}

/// Each check that compares both versions fails its row, and no other.
#[test]
fn a_check_that_fails_with_the_new_version_fails_its_row() {
    for (kind, id) in [
        (CheckKind::Api, "api.compatibility"),
        (CheckKind::Performance, "performance.paired"),
        (CheckKind::Journey, "browser.journeys"),
    ] {
        let mut seen = ran(Procedure::Rehearse);
        let all = [CheckKind::Api, CheckKind::Performance, CheckKind::Journey];
        seen.report.checks = all
            .map(|k| if k == kind { failed(k, "candidate") } else { check(k, "candidate", Verdict::Pass) })
            .into();
        for proof in compared(&seen).iter().filter(|p| p.id != "coverage.surface") {
            assert_eq!(proof.verdict().word(), if proof.id == id { "fail" } else { "pass" }, "{}", proof.id);
        }
    }
    let mut seen = ran(Procedure::Rehearse);
    seen.report.checks = vec![
        check(CheckKind::Workflow, "baseline", Verdict::Pass),
        check(CheckKind::Workflow, "candidate", Verdict::Pass),
    ];
    let crossing = BTreeSet::from(["workflow/one".to_owned()]);
    assert_eq!(workflows(&seen).verdict().word(), "pass");
    assert_eq!(cross_service(&seen, &crossing, 2).verdict().word(), "pass");
    seen.report.checks[1] = failed(CheckKind::Workflow, "candidate");
    assert_eq!(workflows(&seen).verdict().word(), "fail");
    assert_eq!(cross_service(&seen, &crossing, 2).verdict().word(), "fail");
}

#[test]
fn a_mutant_that_survives_or_a_false_alarm_fails_its_row() {
    let row = |outcome| Row {
        id: TABLE[0].id.to_owned(),
        name: "a mutant".to_owned(),
        expects: Vec::new(),
        outcome,
        also: Vec::new(),
        landed: 1,
        took_ms: 1,
    };
    let caught = || Outcome::Caught { by: "integrity/db".to_owned(), why: "rows are gone".to_owned() };
    let survived = Outcome::Survived { instead: Vec::new(), advice: "a workflow".to_owned() };
    let alarmed = Outcome::Alarmed { why: "it is slow".to_owned() };
    let unviable = Outcome::Unviable { why: "it did not land".to_owned() };
    for (outcome, word) in [(caught(), "pass"), (survived, "fail"), (alarmed, "fail"), (unviable, "not run")]
    {
        let mut proof = Proof::new("mutants.table", "");
        judge_table(&mut proof, &[row(caught()), row(outcome)]);
        assert_eq!(proof.verdict().word(), word);
    }
}

#[test]
fn a_report_that_is_missing_or_says_something_else_fails_its_row() {
    let dir = tempfile::tempdir().expect("folder");
    let mut refused = ran(Procedure::Rehearse);
    refused.state.ended = Some(Ended::Refused { reasons: vec!["rows are gone".to_owned()] });
    let verdict = || {
        let mut proof = Proof::new("reports.written", "");
        written(&mut proof, dir.path(), &refused);
        proof.verdict().word()
    };
    let case = |inner: &str| {
        format!("<testsuite name=\"s\"><testcase name=\"a\" classname=\"b\">{inner}</testcase></testsuite>")
    };
    let json = serde_json::to_string(&refused.report).expect("JSON");
    let run = refused.plan.run.to_string();
    let good = [
        ("report.json", json.clone()),
        ("report.html", format!("<p>{run}</p>")),
        ("report.md", run.clone()),
        ("junit.xml", case("<failure message=\"rows are gone\"/>")),
    ];
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).expect("writes");
    for (file, text) in &good {
        write(file, text);
    }
    assert_eq!(verdict(), "pass");
    for (file, text) in &good {
        fs::remove_file(dir.path().join(file)).expect("removes");
        assert_eq!(verdict(), "fail", "{file} is missing");
        write(file, text);
    }
    for (file, wrong) in [
        ("report.json", json.replace("\"host\":\"host\"", "\"host\":\"another\"")),
        ("report.html", String::new()),
        ("junit.xml", case("")),
    ] {
        write(file, &wrong);
        assert_eq!(verdict(), "fail", "{file}: {wrong}");
        let (_, text) = good.iter().find(|(f, _)| *f == file).expect("there");
        write(file, text);
    }
}
