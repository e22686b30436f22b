//! Realistic reports for tests: plans of core, played through with invented results.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use switchback_core::check::{Artefact, CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::data::{
    CopyStats, ExportPart, ExportStats, Fingerprint, PartChange, PartDiff, RowChange, RowOp, StoreDiff,
    StoreKind,
};
use switchback_core::ids::{Digest, GenerationId, RunId, ServiceName, StackName, StoreName};
use switchback_core::journal::{ErrorKind, Event, Output, Record, RunState, ServiceTimes, StepError};
use switchback_core::next::{Next, next};
use switchback_core::plan::{
    OnFailure, Plan, PromoteFacts, RehearseFacts, RollbackFacts, promote, rehearse, rollback,
};
use switchback_core::release::{Certificate, Instance, PRODUCTION, StorePlace};
use switchback_core::report::Report;

const NOW: i64 = 1_790_000_000_000;
const RUN: &str = "01K5Q3V7ZC9M2X4T8B6WHRJ0NE";

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("valid")
}

fn store(name: &str) -> StoreName {
    StoreName::new(name).expect("valid")
}

fn versions(app: &str) -> BTreeMap<ServiceName, String> {
    BTreeMap::from([(service("assistant"), app.to_owned()), (service("proxy"), "4.6".to_owned())])
}

fn ports() -> BTreeMap<ServiceName, BTreeMap<String, u16>> {
    BTreeMap::from([(service("assistant"), BTreeMap::from([("http".to_owned(), 8300)]))])
}

fn production(generation: u32, app: &str) -> Instance {
    let place = |kind, path: &str| StorePlace { kind, path: path.to_owned() };
    Instance {
        environment: PRODUCTION.to_owned(),
        generation: GenerationId(generation),
        release: Digest::of(app.as_bytes()),
        versions: versions(app),
        dir: format!("generations/{generation}"),
        stores: BTreeMap::from([
            (store("notes"), place(StoreKind::Sqlite, "/srv/assistant/notes.db")),
            (store("uploads"), place(StoreKind::Files, "/srv/assistant/uploads")),
        ]),
        ports: ports(),
    }
}

fn rehearsal() -> Plan {
    rehearse(&RehearseFacts {
        run: RunId::from(RUN),
        stack: StackName::new("assistant").expect("valid"),
        now_ms: NOW,
        state_dir: "/srv/assistant/.switchback".to_owned(),
        production: production(3, "1.4.2"),
        target: Digest::of(b"2.0.0"),
        target_versions: versions("2.0.0"),
        target_ports: ports(),
        migrate: vec![service("assistant")],
        free_ports: (41_000..41_020).collect(),
        need_bytes: 3 << 30,
        budget_ms: 30_000,
        valid_ms: 7 * 86_400_000,
        code_only: true,
        production_runs: true,
    })
}

fn promotion() -> Plan {
    promote(&PromoteFacts {
        run: RunId::from(RUN),
        stack: StackName::new("assistant").expect("valid"),
        now_ms: NOW,
        state_dir: "/srv/assistant/.switchback".to_owned(),
        production: production(3, "1.4.2"),
        previous: Some(GenerationId(2)),
        next: GenerationId(4),
        target: Digest::of(b"2.0.0"),
        target_versions: versions("2.0.0"),
        target_ports: ports(),
        migrate: vec![service("assistant")],
        edit: (versions("1.4.2"), versions("2.0.0")),
        cheap_base: true,
        need_bytes: 1 << 30,
        budget_ms: 30_000,
        watch_ms: 900_000,
        waiver: None,
    })
}

type Found = Result<Output, (StepError, Output)>;

/// A run that is being played.
struct Player<'a> {
    plan: &'a Plan,
    state: RunState,
    records: Vec<Record>,
    at_ms: i64,
}

impl Player<'_> {
    fn push(&mut self, after_ms: u64, event: Event) {
        self.at_ms += i64::try_from(after_ms).expect("small");
        self.state.apply(self.plan, &event);
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record { run: self.plan.run.clone(), seq, at_ms: self.at_ms, event });
    }
}

/// Plays a plan: each step takes `took` and finds `found`.
fn play(plan: &Plan, took: impl Fn(&str) -> u64, found: impl Fn(&str) -> Found) -> Vec<Record> {
    let mut player = Player { plan, state: RunState::default(), records: Vec::new(), at_ms: plan.made_at_ms };
    player.push(0, Event::Planned { plan: Box::new(plan.clone()) });
    loop {
        let state = player.state.clone();
        match next(plan, &state) {
            Next::Do(step) => {
                let attempt = state.steps.get(&step.id).map_or(0, |s| s.attempts) + 1;
                player.push(3, Event::Started { step: step.id.clone(), attempt });
                let took_ms = took(step.id.as_str());
                let step = step.id.clone();
                let event = match found(step.as_str()) {
                    Ok(output) => Event::Finished { step, output, took_ms },
                    Err((error, output)) => Event::Failed { step, error, output, took_ms },
                };
                player.push(took_ms, event);
            }
            Next::Skip(step, because) => player.push(0, Event::Skipped { step: step.id.clone(), because }),
            Next::GiveUp(_) => unreachable!("no step crashes here"),
            Next::Undo(step) => {
                player.push(2, Event::UndoStarted { step: step.id.clone(), attempt: 1 });
                let output = Output::default();
                player.push(420, Event::Undone { step: step.id.clone(), output, took_ms: 420 });
            }
            Next::End(outcome) => player.push(1, Event::Ended { outcome }),
            Next::Finished(_) => return player.records,
        }
    }
}

fn report(plan: &Plan, records: &[Record]) -> Report {
    Report::build(plan, records, "switchback 0.1.0", "atlas")
}

fn took(step: &str) -> u64 {
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
        _ => 35,
    }
}

fn copies(of: &[(&str, u64)], waited: u64) -> BTreeMap<StoreName, CopyStats> {
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
            };
            (store(name), stats)
        })
        .collect()
}

fn both(waited: u64) -> BTreeMap<StoreName, CopyStats> {
    copies(&[("notes", 734_003_200), ("uploads", 1_932_735_283)], waited)
}

fn fingerprints(seed: &str) -> BTreeMap<StoreName, Fingerprint> {
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

fn step_ok(name: &str, took_ms: u64, seen: &str) -> CheckStep {
    CheckStep { name: name.to_owned(), ok: true, took_ms, seen: seen.to_owned() }
}

fn check(id: &str, kind: CheckKind, environment: &str, took_ms: u64, verdict: Verdict) -> CheckResult {
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
        CheckKind::Health | CheckKind::Integrity | CheckKind::Invariant | CheckKind::Command => Vec::new(),
    };
    let measured = match kind {
        CheckKind::Health => BTreeMap::from([("healthy after".to_owned(), "3.1 s".to_owned())]),
        _ => BTreeMap::new(),
    };
    CheckResult {
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

fn suite(environment: &str) -> Vec<CheckResult> {
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

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn part(name: &str, change: PartChange, before: u64, after: u64) -> PartDiff {
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

fn harmless_diff() -> StoreDiff {
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

fn update(id: u32, before: &Value, row: &Value) -> RowChange {
    RowChange {
        op: RowOp::Update,
        key: object(&json!({"id": id})),
        row: Some(object(row)),
        before: Some(object(before)),
    }
}

fn lossy_diff() -> StoreDiff {
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

fn files_diff() -> StoreDiff {
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

fn started() -> Output {
    let times = ServiceTimes {
        healthy_after_ms: Some(2_900),
        stable_after_ms: Some(3_900),
        ..ServiceTimes::default()
    };
    Output { services: BTreeMap::from([(service("assistant"), times)]), ..Output::default() }
}

fn artefact(title: &str, path: &str, bytes: u64) -> Artefact {
    Artefact { title: title.to_owned(), path: path.to_owned(), blake3: Digest::of(path.as_bytes()).0, bytes }
}

fn error(kind: ErrorKind, message: &str, hint: Option<&str>, details: &[&str]) -> StepError {
    StepError {
        kind,
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
        details: details.iter().map(|d| (*d).to_owned()).collect(),
    }
}

fn all_well(step: &str) -> Output {
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
        "diff" => Output {
            diffs: BTreeMap::from([(store("notes"), harmless_diff()), (store("uploads"), files_diff())]),
            checks: vec![
                check("integrity/notes", CheckKind::Integrity, "candidate", 2_010, Verdict::Pass),
                check("integrity/uploads", CheckKind::Integrity, "candidate", 190, Verdict::Pass),
            ],
            ..Output::default()
        },
        "checks" => Output {
            checks: suite("baseline").into_iter().chain(suite("candidate")).collect(),
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
                downtime_ms: 8_592,
                checks_passed: 20,
            }),
            ..Output::default()
        },
        _ => Output::default(),
    }
}

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
                Err((error(ErrorKind::Refused, message, Some(hint), &[]), output))
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
                Err((error(ErrorKind::Refused, message, None, &[]), output))
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

/// A promotion whose migration failed; production is as before.
pub fn undone() -> Report {
    let plan = promotion();
    let found = |step: &str| match step {
        "migrate-assistant" => Err((
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
        )),
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
        ("undone", undone()),
        ("unfinished", unfinished()),
        ("hostile", hostile()),
    ]
}
