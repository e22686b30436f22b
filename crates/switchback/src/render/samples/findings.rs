//! What the steps of the samples find.

use super::stack::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use switchback_core::check::{Artefact, CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::data::{CopyStats, Fingerprint, PartChange, PartDiff, RowChange, RowOp, StoreDiff};
use switchback_core::ids::{Digest, RunId, StoreName};
use switchback_core::journal::{ErrorKind, Output, Record, ServiceTimes, StepError};
use switchback_core::look::Look;
use switchback_core::plan::Plan;
use switchback_core::release::{Certificate, Signature};
use switchback_core::report::Report;

pub fn report(plan: &Plan, records: &[Record]) -> Report {
    Report::build(plan, records, "switchback 0.1.0", "atlas")
}

pub fn took(step: &str) -> u64 {
    match step {
        "preflight" => 640,
        "snapshot" => 5_230,
        "fingerprint-snapshot" | "verify-clone" => 2_870,
        "start-baseline" | "start-old" => 4_100,
        "stop-old" | "rollback-stop" | "stop-new" => 940,
        "clone-candidate" | "clone" => 1_280,
        "migrate-assistant" => 3_460,
        "start-new" | "rollback-start" => 3_900,
        "fingerprint-before" | "fingerprint-untouched" | "diff" => 2_210,
        "checks" => 14_600,
        "checks-code-only" | "checks-after-rollback" | "gate" => 5_480,
        "clone-code-only" | "clone-baseline" | "dispose" => 1_120,
        "start-code-only" => 3_700,
        "export" => 880,
        "observe" => 1_900,
        _ => 35,
    }
}

pub fn copies(of: &[(&str, u64)], waited: u64) -> BTreeMap<StoreName, CopyStats> {
    of.iter()
        .map(|(name, bytes)| {
            let stats = CopyStats {
                bytes: *bytes,
                bytes_written: if *name == "uploads" { 0 } else { *bytes },
                files: if *name == "uploads" { 1_482 } else { 1 },
                reflinked: if *name == "uploads" { 1_482 } else { 0 },
                took_ms: 1_120,
                writers_waited_ms: waited,
                notes: if *name == "uploads" { vec!["1 socket was left out".to_owned()] } else { Vec::new() },
                ..CopyStats::default()
            };
            (store(name), stats)
        })
        .collect()
}

pub fn both(waited: u64) -> BTreeMap<StoreName, CopyStats> {
    copies(&[("notes", 734_003_200), ("uploads", 1_932_735_283)], waited)
}

pub fn fingerprints(seed: &str) -> BTreeMap<StoreName, Fingerprint> {
    [("notes", 184_212), ("uploads", 1_482)]
        .into_iter()
        .map(|(name, items)| {
            let print = Fingerprint {
                digest: Digest::of(format!("{seed}{name}").as_bytes()),
                schema: Digest::of(name.as_bytes()),
                items,
                bytes: items * 4_096,
                parts: BTreeMap::new(),
            };
            (store(name), print)
        })
        .collect()
}

pub fn step_ok(name: &str, took_ms: u64, seen: &str) -> CheckStep {
    CheckStep { name: name.to_owned(), ok: true, took_ms, seen: seen.to_owned() }
}

pub fn check(id: &str, kind: CheckKind, environment: &str, took_ms: u64, verdict: Verdict) -> CheckResult {
    let steps = match kind {
        CheckKind::Workflow => vec![
            step_ok("log in", 84, "POST /api/session -> 200"),
            step_ok("create a note", 31, "POST /api/notes -> 201"),
            step_ok("read it back", 12, "GET /api/notes/18 -> 200"),
            CheckStep {
                ok: verdict == Verdict::Pass,
                ..step_ok("find it by its text", 44, "GET /api/search?q=switch -> 200")
            },
        ],
        CheckKind::Health
        | CheckKind::Integrity
        | CheckKind::Invariant
        | CheckKind::Command
        | CheckKind::Isolation
        | CheckKind::Api
        | CheckKind::Performance
        | CheckKind::Journey => Vec::new(),
    };
    let measured = match kind {
        CheckKind::Health => BTreeMap::from([("healthy after".to_owned(), "3.1 s".to_owned())]),
        _ => BTreeMap::new(),
    };
    CheckResult {
        looks: Vec::new(),
        id: id.to_owned(),
        kind,
        environment: environment.to_owned(),
        verdict,
        took_ms,
        measured,
        steps,
        artefacts: Vec::new(),
    }
}

pub fn suite(environment: &str) -> Vec<CheckResult> {
    use CheckKind::{Command, Health, Invariant, Workflow};
    vec![
        check("health/assistant", Health, environment, 3_120, Verdict::Pass),
        check("health/proxy", Health, environment, 410, Verdict::Pass),
        check("workflow/notes", Workflow, environment, 171, Verdict::Pass),
        check("workflow/attachments", Workflow, environment, 1_240, Verdict::Pass),
        check("invariant/every-note-has-an-owner", Invariant, environment, 9, Verdict::Pass),
        check("command/smoke", Command, environment, 4_020, Verdict::Pass),
    ]
}

pub fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

pub fn part(name: &str, change: PartChange, before: u64, after: u64) -> PartDiff {
    PartDiff {
        name: name.to_owned(),
        change,
        before,
        after,
        rows_added: 0,
        rows_removed: 0,
        rows_changed: 0,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        examples: Vec::new(),
        notes: Vec::new(),
    }
}

pub fn harmless_diff() -> StoreDiff {
    StoreDiff {
        parts: vec![
            part("attachment", PartChange::Unchanged, 1_482, 1_482),
            PartDiff {
                columns_added: vec!["pinned".to_owned(), "colour".to_owned()],
                ..part("note", PartChange::ColumnsAdded, 48_210, 48_210)
            },
            PartDiff { rows_added: 5_120, ..part("note_tag", PartChange::Added, 0, 5_120) },
            PartDiff {
                rows_added: 1,
                examples: vec![RowChange {
                    op: RowOp::Insert,
                    key: object(&json!({"version": 7})),
                    row: Some(object(&json!({"version": 7, "applied_at": "2026-09-21T13:33:20Z"}))),
                    before: None,
                }],
                ..part("schema_migrations", PartChange::Changed, 6, 7)
            },
            part("session", PartChange::Unchanged, 212, 212),
            part("user", PartChange::Unchanged, 94, 94),
        ],
        schema_changes: vec![
            "table note_tag added".to_owned(),
            "index note_tag_by_tag added".to_owned(),
            "table note redefined".to_owned(),
        ],
        new_orphans: Vec::new(),
        unchanged: 3,
    }
}

pub fn update(id: u32, before: &Value, row: &Value) -> RowChange {
    RowChange {
        op: RowOp::Update,
        key: object(&json!({"id": id})),
        row: Some(object(row)),
        before: Some(object(before)),
    }
}

pub fn lossy_diff() -> StoreDiff {
    let mut diff = harmless_diff();
    diff.parts[1] = PartDiff {
        rows_removed: 12,
        rows_changed: 1_904,
        columns_added: vec!["pinned".to_owned()],
        columns_removed: vec!["remind_at".to_owned()],
        examples: vec![
            update(
                17,
                &json!({"id": 17, "title": "Dentist, then the boiler", "body": "Ask whether the quote of 480 € includes the valve.", "remind_at": "2026-10-02T08:00:00Z", "owner": 3}),
                &json!({"id": 17, "title": "Dentist, then the boiler", "body": "Ask whether the quote of 480 ? includes the valve.", "owner": 3, "pinned": 0}),
            ),
            update(
                902,
                &json!({"id": 902, "title": "Café opening hours", "body": null, "remind_at": null, "owner": 8}),
                &json!({"id": 902, "title": "Caf? opening hours", "body": "", "owner": 8, "pinned": 0}),
            ),
            RowChange {
                op: RowOp::Delete,
                key: object(&json!({"id": 4_411})),
                row: None,
                before: Some(object(
                    &json!({"id": 4411, "title": "Passwords of the router", "body": "in the blue folder", "remind_at": null, "owner": 3, "cover": {"$blob": "iVBORw0KGgoAAAANSUhEUgAA"}}),
                )),
            },
        ],
        ..part("note", PartChange::Changed, 48_210, 48_198)
    };
    diff.parts.push(PartDiff { rows_removed: 37, ..part("reminder", PartChange::Dropped, 37, 0) });
    diff.new_orphans = vec!["attachment.note_id: 9 rows".to_owned()];
    diff
}

pub fn files_diff() -> StoreDiff {
    StoreDiff {
        parts: vec![PartDiff {
            rows_added: 1,
            notes: vec!["file".to_owned()],
            ..part("thumbs/index.bin", PartChange::Added, 0, 81_920)
        }],
        schema_changes: Vec::new(),
        new_orphans: Vec::new(),
        unchanged: 1_482,
    }
}

pub fn started() -> Output {
    let times = ServiceTimes {
        healthy_after_ms: Some(2_900),
        stable_after_ms: Some(3_900),
        ..ServiceTimes::default()
    };
    Output { services: BTreeMap::from([(service("assistant"), times)]), ..Output::default() }
}

pub fn artefact(title: &str, path: &str, bytes: u64) -> Artefact {
    Artefact { title: title.to_owned(), path: path.to_owned(), blake3: Digest::of(path.as_bytes()).0, bytes }
}

pub fn error(kind: ErrorKind, message: &str, hint: Option<&str>, details: &[&str]) -> StepError {
    StepError {
        kind,
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
        details: details.iter().map(|d| (*d).to_owned()).collect(),
    }
}

pub fn all_well(step: &str) -> Output {
    let notes = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    match step {
        "preflight" => Output {
            notes: notes(&[
                "assistant: artefact 5d2c09e1ab7f is the planned one",
                "disk: 3.0 GiB needed, 212.4 GiB free",
            ]),
            ..Output::default()
        },
        "snapshot" => Output { copies: both(14), ..Output::default() },
        "clone" | "clone-baseline" | "clone-candidate" | "clone-code-only" => {
            Output { copies: both(0), ..Output::default() }
        }
        "fingerprint-snapshot" | "verify-clone" => {
            Output { fingerprints: fingerprints("a"), ..Output::default() }
        }
        "fingerprint-before" | "fingerprint-untouched" => {
            Output { fingerprints: fingerprints("b"), ..Output::default() }
        }
        "start-new" | "start-old" | "start-baseline" | "rollback-start" => started(),
        "migrate-assistant" => Output {
            notes: notes(&["assistant: 3.4 s"]),
            artefacts: vec![artefact(
                "Log of the migration of assistant",
                "logs/migrate-candidate-assistant.log",
                18_231,
            )],
            ..Output::default()
        },
        "lint" => Output {
            notes: notes(&["14 files, 2 findings"]),
            lint: Some(super::trace::lint()),
            ..Output::default()
        },
        "trace-end" => Output {
            notes: notes(&["ledger: 52 statements within 3.1 s"]),
            traces: BTreeMap::from([
                (store("ledger"), super::trace::trace()),
                (store("notes"), super::trace::file()),
            ]),
            ..Output::default()
        },
        "queries" => Output {
            notes: notes(&[
                "ledger: 612 statements in 418 ms became 2904 in 2.0 s; 1 of the heaviest are carried out in another way; 1 of them are slower",
            ]),
            queries: BTreeMap::from([(store("ledger"), super::queries::queries())]),
            ..Output::default()
        },
        "diff" => Output {
            diffs: BTreeMap::from([(store("notes"), harmless_diff()), (store("uploads"), files_diff())]),
            checks: vec![
                check("integrity/notes", CheckKind::Integrity, "candidate", 2_010, Verdict::Pass),
                check("integrity/uploads", CheckKind::Integrity, "candidate", 190, Verdict::Pass),
            ],
            ..Output::default()
        },
        "checks" => Output {
            checks: suite("baseline").into_iter().chain(suite("candidate")).chain([pages()]).collect(),
            ..Output::default()
        },
        "checks-code-only" => {
            let mut checks = suite("code-only");
            checks[2].verdict = Verdict::fail(Failure {
                at: "create a note".to_owned(),
                what: "the status is not one of those expected".to_owned(),
                expected: Some("201".to_owned()),
                got: Some("500: table note has no column named remind_at".to_owned()),
                reproduce: None,
            });
            Output { checks, ..Output::default() }
        }
        "checks-after-rollback" => Output { checks: suite("after rollback"), ..Output::default() },
        "gate" => Output { checks: suite("production").into_iter().take(2).collect(), ..Output::default() },
        "read-back-new" | "rollback-read-back" | "read-back" => Output {
            read_back: notes(&[
                "assistant: process 41873 runs in its own folder",
                "port 8300 is held by assistant's own process",
            ]),
            ..Output::default()
        },
        "dispose" => Output {
            read_back: notes(&["no process, port or folder of the staging environments is left"]),
            artefacts: vec![artefact(
                "Log of assistant in candidate (generation 2)",
                "logs/candidate-g2-assistant.log",
                90_112,
            )],
            ..Output::default()
        },
        "observe" => Output {
            notes: vec!["6 checks timed 5 times; 3 different error messages in the logs".to_owned()],
            ..Output::default()
        },
        "certify" => Output {
            certificate: Some(Certificate {
                run: RunId::from(RUN),
                from: Digest::of(b"1.4.2"),
                to: Digest::of(b"2.0.0"),
                issued_at_ms: NOW + 72_000,
                expires_at_ms: NOW + 7 * 86_400_000,
                host: "atlas".to_owned(),
                data_bytes: 2_666_738_483,
                rollback_ms: 4_881,
                rollback_range_ms: Some((4_403, 5_120)),
                coverage: None,
                drilled: false,
                signature: Some(Signature { key: "3b6a27bc".repeat(8), value: "0".repeat(128) }),
                downtime_ms: 8_592,
                checks_passed: 20,
            }),
            ..Output::default()
        },
        _ => Output::default(),
    }
}

/// A journey whose pages look otherwise: one is approved, one is not, one is as before.
fn pages() -> CheckResult {
    let picture = |name: &str, kind: &str| format!("browser/notes-1/{name}{kind}.png");
    let look = |name: &str, changed_ppm, approved| Look {
        name: name.to_owned(),
        changed_ppm,
        places: 2,
        digest: Digest::of(name.as_bytes()).0,
        approved,
        pictures: vec![
            format!("browser/notes-0/{name}.png"),
            picture(name, ""),
            picture(name, ".difference"),
        ],
        ..Look::default()
    };
    CheckResult {
        looks: vec![
            Look {
                gone: vec!["button \"Add\"".to_owned()],
                fresh: vec!["button \"Add <b>note</b>\"".to_owned()],
                ..look("end", 23_400, false)
            },
            look("list", 1_100, true),
            look("start", 0, false),
        ],
        ..check("journey/notes", CheckKind::Journey, "candidate", 3_420, Verdict::Pass)
    }
}
