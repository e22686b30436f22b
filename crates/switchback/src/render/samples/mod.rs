//! Realistic reports for tests: plans of core, played through with invented results.

mod findings;
mod history;
mod queries;
mod stack;
mod trace;

use findings::*;
pub use history::{history, trends};
use serde_json::json;
use stack::*;
use std::collections::BTreeMap;
use switchback_core::carry::{Carried, CarriedPart, DIFFERS, NO_TABLE, TAKEN};
use switchback_core::check::{CheckKind, CheckResult, Failure, Verdict};
use switchback_core::data::{ExportPart, ExportStats, PartChange, PartDiff, StoreDiff};
use switchback_core::ids::{Digest, GenerationId, RunId, StackName};
use switchback_core::journal::{ErrorKind, Event, Output, Record};
use switchback_core::plan::{OnFailure, RollbackFacts, rollback};
use switchback_core::report::Report;

/// A rehearsal that passed.
pub fn pass() -> Report {
    let plan = rehearsal();
    report(&plan, &play(&plan, took, |step| Ok(all_well(step))))
}

fn broken_workflow() -> CheckResult {
    let failure = Failure {
        at: "find it by its text".to_owned(),
        what: "$.results is empty".to_owned(),
        expected: Some("at least 1 result".to_owned()),
        got: Some("{\"results\":[],\"took\":3}".to_owned()),
        reproduce: Some(
            "curl -sS -H 'Authorization: Bearer [redacted]' 'http://127.0.0.1:41004/api/search?q=switch'"
                .to_owned(),
        ),
    };
    check("workflow/notes", CheckKind::Workflow, "candidate", 190, Verdict::fail(failure))
}

/// A rehearsal that found lost data, a broken workflow and something that could not be judged.
pub fn refused() -> Report {
    let plan = rehearsal();
    let found = |step: &str| {
        let mut output = all_well(step);
        match step {
            "diff" => {
                output.diffs.insert(store("notes"), lossy_diff());
                output.checks[0].verdict = Verdict::Fail {
                    reasons: vec![
                        Failure {
                            at: "notes.note".to_owned(),
                            what: "12 of 48210 rows are gone, 1904 of 48210 rows were altered, columns are gone: remind_at".to_owned(),
                            expected: Some("{\"id\":17,\"title\":\"Dentist, then the boiler\",\"remind_at\":\"2026-10-02T08:00:00Z\"}".to_owned()),
                            got: Some("{\"id\":17,\"title\":\"Dentist, then the boiler\",\"pinned\":0}".to_owned()),
                            reproduce: None,
                        },
                        Failure { at: "notes.reminder".to_owned(), what: "is gone".to_owned(), ..Failure::default() },
                    ],
                };
                let message = "notes.note: 12 of 48210 rows are gone, 1904 of 48210 rows were altered, columns are gone: remind_at; notes.reminder: is gone";
                let hint = "if a change is intended, add it to checks.expected_changes (store.table)";
                Err(Box::new((error(ErrorKind::Refused, message, Some(hint), &[]), output)))
            }
            "checks" => {
                output.checks[8] = broken_workflow();
                output.checks[11].verdict = Verdict::Inconclusive {
                    why: "smoke.sh did not end within 30 s, in the baseline neither".to_owned(),
                };
                output.checks[9].verdict = Verdict::Waived {
                    who: "ada".to_owned(),
                    why: "attachments move to S3 next week".to_owned(),
                };
                let message = "workflow/notes in candidate: find it by its text: $.results is empty";
                Err(Box::new((error(ErrorKind::Refused, message, None, &[]), output)))
            }
            "certify" => Ok(Output::default()),
            _ => Ok(output),
        }
    };
    report(&plan, &play(&plan, took, found))
}

/// A promotion that failed its trial.
pub fn rolled_back() -> Report {
    let plan = promotion();
    let mut records = play(&plan, took, |step| Ok(all_well(step)));
    let began = records.last().map_or(NOW, |r| r.at_ms);
    let mut push = |after: i64, event: Event| {
        let seq = records.len() as u64 + 1;
        records.push(Record { run: plan.run.clone(), seq, at_ms: began + after, event });
    };
    push(4, Event::TrialBegan { generation: GenerationId(4), deadline_ms: began + 900_000 });
    let probe = |ok, seen: &str, failures_in_a_row| Event::TrialProbe {
        ok,
        seen: seen.to_owned(),
        failures_in_a_row,
    };
    push(5_000, probe(true, "2 services healthy, 2 checks passed", 0));
    push(210_000, probe(false, "assistant: GET /health -> 503 after 2.0 s", 1));
    push(215_000, probe(true, "2 services healthy, 2 checks passed", 0));
    push(402_000, probe(false, "assistant: GET /health -> connection refused", 1));
    push(412_000, probe(false, "assistant: GET /health -> connection refused", 3));
    push(
        412_100,
        Event::TrialFailed {
            trigger: "assistant failed 3 probes in a row".to_owned(),
            reasons: vec!["assistant: GET /health -> connection refused".to_owned()],
        },
    );
    report(&plan, &records)
}

/// A rollback that exported writes.
pub fn exported() -> Report {
    let plan = rollback(&RollbackFacts {
        run: RunId::from(RUN),
        stack: StackName::new("assistant").expect("valid"),
        now_ms: NOW,
        leave: production(4, "2.0.0"),
        target: production(3, "1.4.2"),
        target_previous: Some(GenerationId(2)),
        pointer_previous: Some(GenerationId(3)),
        budget_ms: 30_000,
        reason: "assistant failed 3 probes in a row".to_owned(),
        on_failure: OnFailure::Persist { attempts: 3 },
    });
    let line = |inserted, updated, deleted, file: &str| ExportPart {
        inserted,
        updated,
        deleted,
        file: file.to_owned(),
        digest: Digest::of(file.as_bytes()),
    };
    let found = |step: &str| {
        Ok(match step {
            "checks" => all_well("gate"),
            "export" => Output {
                notes: vec![
                    "notes: 45 writes exported to /srv/assistant/.switchback/exports/4/notes".to_owned(),
                ],
                exports: BTreeMap::from([
                    (
                        store("notes"),
                        ExportStats {
                            parts: BTreeMap::from([
                                ("note".to_owned(), line(31, 8, 2, "note.jsonl")),
                                ("note_tag".to_owned(), line(4, 0, 0, "note_tag.jsonl")),
                            ]),
                            took_ms: 612,
                        },
                    ),
                    (
                        store("uploads"),
                        ExportStats {
                            parts: BTreeMap::from([("files".to_owned(), line(3, 0, 0, "files.jsonl"))]),
                            took_ms: 55,
                        },
                    ),
                ]),
                ..Output::default()
            },
            other => all_well(other),
        })
    };
    report(&plan, &play(&plan, took, found))
}

/// Later writes that were carried back, but for some.
pub fn carried() -> Report {
    let plan = carrying();
    let part = |inserted, updated, why: &[(&str, u64)], left_out: &[&str]| CarriedPart {
        inserted,
        updated,
        quarantined: why.iter().map(|(_, n)| n).sum(),
        why: why.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        left_out: left_out.iter().map(|c| (*c).to_owned()).collect(),
        ..CarriedPart::default()
    };
    let found = |step: &str| {
        Ok(match step {
            "carry" => Output {
                notes: vec!["notes: 42 of 45 later writes carried, 3 in quarantine".to_owned()],
                carried: BTreeMap::from([
                    (
                        store("notes"),
                        Carried {
                            parts: BTreeMap::from([
                                ("note".to_owned(), part(29, 8, &[(TAKEN, 2), (DIFFERS, 1)], &["pinned"])),
                                ("reminder".to_owned(), part(0, 0, &[(NO_TABLE, 2)], &[])),
                            ]),
                            took_ms: 640,
                            notes: Vec::new(),
                        },
                    ),
                    (
                        store("uploads"),
                        Carried {
                            parts: BTreeMap::from([("files".to_owned(), part(3, 0, &[], &[]))]),
                            took_ms: 40,
                            notes: Vec::new(),
                        },
                    ),
                ]),
                ..Output::default()
            },
            other => all_well(other),
        })
    };
    report(&plan, &play(&plan, took, found))
}

/// A promotion whose migration failed; production is as before.
pub fn undone() -> Report {
    let plan = promotion();
    let found = |step: &str| match step {
        "migrate-assistant" => Err(Box::new((
            error(
                ErrorKind::Refused,
                "the migration of assistant ended with exit code 1",
                Some("see the end of its log below; the old generation runs again on its untouched data"),
                &[
                    "applying 0007_tags.sql",
                    "applying 0008_pin.sql",
                    "sqlite3.OperationalError: UNIQUE constraint failed: note_tag.note_id, note_tag.tag",
                ],
            ),
            all_well(step),
        ))),
        _ => Ok(all_well(step)),
    };
    report(&plan, &play(&plan, took, found))
}

/// A run that was interrupted for a night and has not ended.
pub fn unfinished() -> Report {
    let plan = rehearsal();
    let mut records = play(&plan, took, |step| Ok(all_well(step)));
    let stop = records
        .iter()
        .position(|r| matches!(&r.event, Event::Started { step, .. } if step.as_str() == "checks"))
        .expect("the plan has checks");
    records.truncate(stop + 1);
    for record in &mut records[stop - 8..] {
        record.at_ms += 32_400_000;
    }
    report(&plan, &records)
}

/// Texts that try to leave their place, very long names, and 10,000 files.
pub fn hostile() -> Report {
    const EVIL: &str = "<script>alert(1)</script> \"><img src=x onerror=alert(2)> `|` [x](javascript:alert(3)) @everyone \u{1b}[31mred\u{7}\u{0} \u{202e}txt.exe\u{202c} \u{ffff} ]]> _em_ *bold* שלום עולם مرحبا";
    let mut report = refused();
    let long = "x".repeat(900);
    report.host = EVIL.to_owned();
    report.tool = EVIL.to_owned();
    report.reason = Some(EVIL.to_owned());
    report.headline = format!("{EVIL} {long}");
    report.change = EVIL.to_owned();
    report.from.insert(service("evil"), EVIL.to_owned());
    report.to.insert(service("evil"), long.clone());
    report.reasons = vec![EVIL.to_owned(), long.clone(), format!("two\nlines\r\nand\ttabs {EVIL}")];
    report.next[0].command = Some(format!("echo '{EVIL}'"));
    report.steps[3].title = format!("{EVIL} {long}");
    report.steps[3].notes = vec![EVIL.to_owned(), long.clone()];
    report.steps[3].error = Some(error(ErrorKind::Internal, EVIL, Some(EVIL), &[EVIL, &long]));
    report.steps[3].undo_error = Some(error(ErrorKind::Host, EVIL, None, &[]));
    report.read_back.push(EVIL.to_owned());
    for id in [EVIL, &long] {
        let failure = Failure {
            at: id.to_owned(),
            what: EVIL.to_owned(),
            expected: Some(long.clone()),
            got: Some(EVIL.to_owned()),
            reproduce: Some(format!("curl http://127.0.0.1:1/{EVIL}")),
        };
        let mut result =
            check(id, CheckKind::Command, EVIL, 12, Verdict::Fail { reasons: vec![failure; 40] });
        result.artefacts.push(artefact(EVIL, "../../etc/passwd", 1));
        result.artefacts.push(artefact(EVIL, "javascript:alert(4)", 1));
        result.measured.insert(EVIL.to_owned(), EVIL.to_owned());
        result.steps.push(step_ok(EVIL, 1, EVIL));
        report.checks.push(result);
    }
    report.artefacts.push(artefact(EVIL, EVIL, 7));
    let parts = (0..10_000)
        .map(|i| PartDiff {
            rows_changed: 1,
            notes: vec![format!("mode 644 -> 600 {EVIL}")],
            ..part(&format!("{EVIL}/{i:05}"), PartChange::Changed, 1 << 20, 1 << 21)
        })
        .collect();
    let diff = StoreDiff {
        parts,
        schema_changes: vec![EVIL.to_owned()],
        new_orphans: vec![EVIL.to_owned()],
        unchanged: 0,
    };
    report.diffs.insert(store("uploads"), diff);
    let table = report.diffs.get_mut("notes").expect("the sample has notes");
    table.parts[1].examples.push(update(1, &json!({EVIL: EVIL, "id": 1}), &json!({EVIL: long, "id": 1})));
    report
}

/// All samples by name.
pub fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("pass", pass()),
        ("refused", refused()),
        ("rolled_back", rolled_back()),
        ("exported", exported()),
        ("carried", carried()),
        ("undone", undone()),
        ("unfinished", unfinished()),
        ("hostile", hostile()),
    ]
}
