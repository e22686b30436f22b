//! Negative controls of the acceptance run: with one safeguard of the real engine switched off, `verify` fails and names the
//! criterion; without, the same run passes it. Needs the feature `faults`.
#![cfg(feature = "faults")]

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use switchback_engine::fault::Gap;

/// A safeguard, and the criteria that must fail without it; in which phase.
const GAPS: [(Gap, &str, &[&str]); 18] = [
    (Gap::Isolation, "staging", &["staging.isolation", "staging.gaps"]),
    (Gap::Masking, "staging", &["staging.isolation"]),
    (Gap::Snapshot, "staging", &["staging.data"]),
    (Gap::Disposal, "staging", &["staging.lifecycle", "integration.automation"]),
    (Gap::History, "staging", &["staging.monitoring"]),
    (Gap::Notifications, "staging", &["validation.alerting"]),
    (Gap::BackupCheck, "staging", &["integration.backup"]),
    (Gap::Comparison, "database", &["database.integrity", "integration.no-loss"]),
    (Gap::Apart, "database", &["database.rollback"]),
    (Gap::Trace, "database", &["database.performance"]),
    (Gap::Certificate, "certificate", &["integration.validated"]),
    (Gap::Expiry, "certificate", &["integration.validated"]),
    (Gap::Budget, "certificate", &["integration.validated"]),
    (Gap::Trigger, "rollback", &["rollback.triggers", "integration.automation"]),
    (Gap::ReadBack, "rollback", &["rollback.services"]),
    (Gap::Export, "rollback", &["rollback.data", "rollback.writes", "integration.no-loss"]),
    (Gap::Validation, "rollback", &["rollback.validated"]),
    (Gap::Undo, "rollback", &["rollback.failure"]),
];

fn stack() -> Stack {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up", "--quiet"]).expect(0);
    stack
}

fn verdicts(matrix: &Value) -> BTreeMap<String, String> {
    let word = |v: &Value, key: &str| v[key].as_str().expect("text").to_owned();
    let rows = matrix["rows"].as_array().expect("rows");
    rows.iter().map(|r| (word(r, "id"), word(r, "verdict"))).collect()
}

fn verify(stack: &Stack, phase: &str, docs: &Path, gap: Option<Gap>) -> (Option<i32>, Value) {
    let docs = docs.to_string_lossy();
    let args = ["verify", "app=2.0.0", "--phase", phase, "--docs", &docs, "--json", "--quiet"];
    let set: Vec<(&str, &str)> = gap.iter().map(|g| ("SWITCHBACK_GAP", g.as_str())).collect();
    let ran = stack.run_with(&args, &set);
    (ran.code, ran.json())
}

/// With the gap, exactly this run of the phase fails, and names the criteria.
#[track_caller]
fn named(gap: Gap) {
    let (_, phase, criteria) = GAPS.iter().find(|(g, ..)| *g == gap).expect("is in the table");
    let stack = stack();
    let (code, matrix) = verify(&stack, phase, Path::new("/nowhere"), Some(gap));
    let rows = verdicts(&matrix);
    let failed: Vec<&String> = rows.iter().filter(|(_, v)| *v == "fail").map(|(id, _)| id).collect();
    for id in *criteria {
        assert_eq!(rows[*id], "fail", "{id}; failed are {failed:?}");
    }
    assert_eq!(code, Some(3), "failed are {failed:?}");
    stack.run(&["down", "--quiet", "--yes"]).expect(0);
}

/// Without a gap, the same run fails nothing, and passes every criterion that it has all evidence for.
#[track_caller]
fn clean(phase: &str) {
    let stack = stack();
    let (code, matrix) = verify(&stack, phase, Path::new("/nowhere"), None);
    let rows = verdicts(&matrix);
    assert_eq!(code, Some(6), "{rows:?}");
    assert!(rows.values().all(|v| v != "fail" && v != "inconclusive"), "{rows:?}");
    let reasons: BTreeMap<&str, &Value> =
        matrix["rows"].as_array().expect("rows").iter().map(|r| (r["id"].as_str().expect("id"), r)).collect();
    for (gap, _, criteria) in GAPS.iter().filter(|(_, p, _)| *p == phase) {
        for id in *criteria {
            // What else such a row needs comes of other phases.
            let missing = reasons[id]["missing"].as_array().expect("list");
            let elsewhere = !missing.is_empty()
                && missing.iter().all(|m| m["why"].as_str().expect("why").ends_with("was left out"));
            assert!(rows[*id] == "pass" || elsewhere, "{gap:?}: {id}: {}", reasons[id]);
        }
    }
    stack.run(&["down", "--quiet", "--yes"]).expect(0);
}

#[test]
fn every_safeguard_that_can_be_switched_off_is_tried() {
    let tried: BTreeSet<&str> = GAPS.iter().map(|(g, ..)| g.as_str()).collect();
    assert_eq!(tried.len(), GAPS.len());
    assert!(Gap::ALL.iter().all(|g| tried.contains(g.as_str())));
}

#[test]
fn without_a_gap_the_phase_staging_passes() {
    clean("staging");
}

#[test]
fn without_a_gap_the_phase_database_passes() {
    clean("database");
}

#[test]
fn without_a_gap_the_phase_certificate_passes() {
    clean("certificate");
}

#[test]
fn without_a_gap_the_phase_rollback_passes() {
    clean("rollback");
}

#[test]
fn isolation_that_hides_nothing_is_named() {
    named(Gap::Isolation);
}

#[test]
fn masking_that_masks_nothing_is_named() {
    named(Gap::Masking);
}

#[test]
fn a_clone_that_is_not_whole_is_named() {
    named(Gap::Snapshot);
}

#[test]
fn disposal_that_leaves_something_is_named() {
    named(Gap::Disposal);
}

#[test]
fn a_keeper_that_records_nothing_is_named() {
    named(Gap::History);
}

#[test]
fn messages_that_are_dropped_are_named() {
    named(Gap::Notifications);
}

#[test]
fn a_check_of_backups_that_finds_nothing_is_named() {
    named(Gap::BackupCheck);
}

#[test]
fn a_comparison_that_is_skipped_is_named() {
    named(Gap::Comparison);
}

#[test]
fn generations_that_share_their_data_are_named() {
    named(Gap::Apart);
}

#[test]
fn a_trace_that_shows_nothing_is_named() {
    named(Gap::Trace);
}

#[test]
fn a_promotion_that_asks_for_no_certificate_is_named() {
    named(Gap::Certificate);
}

#[test]
fn a_certificate_that_never_expires_is_named() {
    named(Gap::Expiry);
}

#[test]
fn a_budget_that_nobody_keeps_is_named() {
    named(Gap::Budget);
}

#[test]
fn a_watchdog_that_never_rolls_back_is_named() {
    named(Gap::Trigger);
}

#[test]
fn a_read_back_that_looks_at_nothing_is_named() {
    named(Gap::ReadBack);
}

#[test]
fn an_export_that_is_skipped_is_named() {
    named(Gap::Export);
}

#[test]
fn a_rollback_that_checks_nothing_is_named() {
    named(Gap::Validation);
}

#[test]
fn a_failed_rollback_that_undoes_nothing_is_named() {
    named(Gap::Undo);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists").map(|e| e.expect("entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The documentation of this version in a folder of its own, with one page changed; what its links lead to is beside it.
fn documentation(page: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("tempdir");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("is there");
    for entry in fs::read_dir(&source).expect("lists").map(|e| e.expect("entry")) {
        if entry.file_name() != "docs" {
            symlink(entry.path(), dir.path().join(entry.file_name())).expect("links");
        }
    }
    copy(&source.join("docs"), &dir.path().join("docs"));
    let docs = dir.path().join("docs/upgrade-infrastructure");
    let path = docs.join(page);
    let text = fs::read_to_string(&path).expect("reads");
    assert!(text.contains(from), "{page} does not say {from:?}");
    fs::write(&path, text.replace(from, to)).expect("writes");
    (dir, docs)
}

#[track_caller]
fn documented(page: &str, from: &str, to: &str, criterion: &str, said: &str) {
    let (_dir, docs) = documentation(page, from, to);
    let stack = Stack::new(&[ReleaseKind::V2]);
    let (code, matrix) = verify(&stack, "documentation", &docs, None);
    let rows = verdicts(&matrix);
    assert_eq!((code, rows[criterion].as_str()), (Some(3), "fail"), "{rows:?}");
    let row = matrix["rows"].as_array().expect("rows").iter().find(|r| r["id"] == criterion).expect("there");
    assert!(row["reasons"].to_string().contains(said), "{row}");
    let others = rows.iter().filter(|(id, v)| *v == "fail" && *id != criterion).count();
    assert_eq!(others, 0, "{rows:?}");
}

/// One example that prints something else than its page shows, and one row that is gone, are named; the rest of the documentation
/// passes all the same.
#[test]
fn a_row_that_is_missing_in_the_documentation_is_named() {
    let wanted = "the key `rollback.budget` is not documented";
    let page = "reference/configuration.md";
    documented(page, "`rollback.budget`", "`rollback`", "documentation.complete", wanted);
}

#[test]
fn an_example_of_the_documentation_that_is_wrong_is_named() {
    let (from, to) = ("the environment is removed; nothing of it is left", "the environment is kept");
    let page = "staging/environments.md";
    documented(page, from, to, "documentation.accurate", "staging/environments.md:");
}
