use super::*;
use proptest::prelude::*;
use switchback_core::journal::Outcome;
use switchback_core::plan::Procedure;

fn filled(dir: &Path, events: usize) -> (PathBuf, Vec<Record>) {
    let path = dir.join("journal.db");
    let mut journal = Journal::open(&path).expect("opens");
    for i in 0..events {
        let event = Event::TrialProbe { ok: i % 2 == 0, seen: "x".repeat(i * 7 % 90), failures_in_a_row: 0 };
        journal.append(&RunId(format!("R{}", i % 3)), i as i64, &event).expect("appends");
    }
    let all = journal.all().expect("reads");
    (path, all)
}

#[test]
fn events_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, all) = filled(dir.path(), 20);
    assert_eq!(all.len(), 20);
    let journal = Journal::open_read(&path).expect("opens").expect("exists");
    assert_eq!(journal.all().expect("reads"), all);
    assert_eq!(journal.run(&"R1".into()).expect("reads").len(), 7);
}

#[test]
fn reading_while_somebody_appends_sees_one_moment() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, _) = filled(dir.path(), 5);
    let writer = {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut journal = Journal::open(&path).expect("opens");
            for i in 0..150 {
                journal.append(&"W".into(), i, &Event::Interrupted { gave_way_to: None }).expect("appends");
            }
        })
    };
    while !writer.is_finished() {
        let journal = Journal::open_read(&path).expect("opens").expect("exists");
        journal.all().expect("reads");
        journal.run(&"W".into()).expect("reads");
    }
    writer.join().expect("joins");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, _) = filled(dir.path(), 1);
    let raw = Connection::open(&path).expect("opens");
    raw.execute("UPDATE meta SET value = '99' WHERE key = 'format'", []).expect("updates");
    drop(raw);
    assert!(matches!(Journal::open(&path), Err(EngineError::NewerFormat { found: 99, .. })));
    assert!(matches!(Journal::open_read(&path), Err(EngineError::NewerFormat { .. })));
}

#[test]
fn a_removed_changed_or_reordered_event_is_damage() {
    for sql in [
        "DELETE FROM events WHERE seq = 5",
        "DELETE FROM events WHERE seq = 12",
        "UPDATE events SET json = replace(json, 'true', 'false') WHERE seq = 3",
        "UPDATE events SET at_ms = at_ms + 1 WHERE seq = 12",
        "UPDATE events SET run = 'R9' WHERE seq = 2",
        "DELETE FROM meta WHERE key = 'head'",
        "DELETE FROM events",
    ] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, _) = filled(dir.path(), 12);
        Connection::open(&path).expect("opens").execute_batch(sql).expect("tampers");
        let result = Journal::open_read(&path).and_then(|j| j.expect("exists").all());
        assert!(matches!(result, Err(EngineError::Damaged { .. })), "{sql}: {result:?}");
    }
}

/// Copies the files of a journal whose log was not folded in yet, as kill -9 leaves them.
fn with_log(events: usize) -> (tempfile::TempDir, PathBuf, Vec<Record>) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path).expect("opens");
    for i in 0..events {
        let event = Event::TrialProbe { ok: true, seen: "x".repeat(i * 7 % 90), failures_in_a_row: 0 };
        journal.append(&RunId(format!("R{}", i % 3)), i as i64, &event).expect("appends");
    }
    let all = journal.all().expect("reads");
    let copy = tempfile::tempdir().expect("tempdir");
    for name in ["journal.db", "journal.db-wal", "journal.head"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).expect("copies");
    }
    std::fs::write(copy.path().join("current.json"), "{}").expect("writes");
    let path = copy.path().join("journal.db");
    (copy, path, all)
}

#[test]
fn a_journal_killed_before_its_log_was_folded_in_is_whole() {
    let (_dir, path, all) = with_log(12);
    let journal = Journal::open_read(&path).expect("opens").expect("exists");
    assert_eq!(journal.all().expect("reads"), all);
}

#[test]
fn a_lost_end_of_the_log_is_damage_for_readers_and_writers() {
    let (dir, path, _) = with_log(12);
    let log = dir.path().join("journal.db-wal");
    let bytes = std::fs::read(&log).expect("reads");
    std::fs::write(&log, &bytes[..bytes.len() - 4000]).expect("writes");
    let read = Journal::open_read(&path).and_then(|j| j.expect("exists").all());
    assert!(matches!(read, Err(EngineError::Damaged { .. })), "{read:?}");
    let mut journal = Journal::open(&path).expect("opens");
    let appended = journal.append(&"R".into(), 1, &Event::Interrupted { gave_way_to: None });
    assert!(matches!(appended, Err(EngineError::Damaged { .. })), "{appended:?}");
}

#[test]
fn a_journal_without_its_head_file_is_damage() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, _) = filled(dir.path(), 2);
    std::fs::remove_file(path.with_extension("head")).expect("removes");
    assert!(matches!(Journal::open(&path), Err(EngineError::Damaged { .. })));
    assert!(matches!(Journal::open_read(&path), Err(EngineError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    /// Torn and damaged files: an error, or exactly what was written; never anything else.
    #[test]
    fn a_damaged_file_is_never_guessed_at(flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 0..4), cut in proptest::option::of(any::<prop::sample::Index>())) {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, all) = filled(dir.path(), 30);
        let mut bytes = std::fs::read(&path).expect("reads");
        for (at, mask) in &flips {
            let i = at.index(bytes.len());
            bytes[i] ^= mask;
        }
        if let Some(cut) = cut {
            let keep = cut.index(bytes.len());
            bytes.truncate(keep);
        }
        std::fs::write(dir.path().join("current.json"), "{}").expect("writes");
        std::fs::write(&path, &bytes).expect("writes");
        if let Ok(Some(journal)) = Journal::open_read(&path) && let Ok(found) = journal.all() {
            prop_assert!(found == all, "other events were read from a damaged journal");
        }
    }

    /// The same for a log that was not folded in, and for the head file.
    #[test]
    fn a_damaged_log_is_never_guessed_at(
        file in prop::sample::select(vec!["journal.db-wal", "journal.head", "journal.db"]),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (dir, path, all) = with_log(12);
        let damaged = dir.path().join(file);
        let mut bytes = std::fs::read(&damaged).expect("reads");
        for (at, mask) in &flips {
            let i = at.index(bytes.len());
            bytes[i] ^= mask;
        }
        if let Some(cut) = cut {
            let keep = cut.index(bytes.len());
            bytes.truncate(keep);
        }
        std::fs::write(&damaged, &bytes).expect("writes");
        if let Ok(Some(journal)) = Journal::open_read(&path) && let Ok(found) = journal.all() {
            prop_assert!(found == all, "other events were read from a damaged journal");
        }
    }
}

/// One of the ways to change the past with SQL: a value, an event gone, two in another order, one repeated, one in between.
fn tamper(raw: &Connection, n: usize, events: usize) -> usize {
    let at = (n * 7919) % events + 1;
    let other = at % events + 1;
    let run = |sql: String| raw.execute(&sql, []).expect("changes");
    match n % 8 {
        0 => run(format!("UPDATE events SET json = replace(json, 'x', 'y') WHERE seq = {at}")),
        1 => run(format!("UPDATE events SET at_ms = at_ms + {} WHERE seq = {at}", n + 1)),
        2 => run(format!("UPDATE events SET run = run || 'z' WHERE seq = {at}")),
        3 => run(format!("UPDATE events SET kind = 'ended' WHERE seq = {at}")),
        4 => run(format!("DELETE FROM events WHERE seq = {at}")),
        5 => {
            run(format!("UPDATE events SET seq = -1 WHERE seq = {at}"));
            run(format!("UPDATE events SET seq = {at} WHERE seq = {other}"));
            run(format!("UPDATE events SET seq = {other} WHERE seq = -1"))
        }
        6 => run(format!(
            "INSERT INTO events SELECT {}, run, at_ms, kind, json, chain FROM events WHERE seq = {at}",
            events + 1
        )),
        _ => run(format!("UPDATE events SET chain = substr(chain, 2) || '0' WHERE seq = {at}")),
    }
}

#[test]
fn a_thousand_changes_of_the_past_are_all_found() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = 40;
    let (path, _) = filled(dir.path(), events);
    let head = std::fs::read_dir(dir.path()).expect("lists").flatten().map(|e| e.path()).collect::<Vec<_>>();
    let originals: Vec<(PathBuf, Vec<u8>)> =
        head.iter().map(|p| (p.clone(), std::fs::read(p).expect("reads"))).collect();
    let (mut tried, mut found) = (0, 0);
    for n in 0..1100 {
        for (file, bytes) in &originals {
            std::fs::write(file, bytes).expect("writes");
        }
        let raw = Connection::open(&path).expect("opens");
        let before = everything(&raw);
        tamper(&raw, n, events);
        if everything(&raw) == before {
            continue; // an event without an x in it
        }
        drop(raw);
        tried += 1;
        let read = Journal::open_read(&path).and_then(|j| j.map(|j| j.all()).transpose());
        found += usize::from(matches!(read, Err(EngineError::Damaged { .. })));
    }
    assert!(tried >= 1000, "{tried}");
    assert_eq!(found, tried);
}

fn everything(raw: &Connection) -> Vec<String> {
    let mut statement = raw
        .prepare("SELECT seq || run || at_ms || kind || json || chain FROM events ORDER BY seq")
        .expect("asks");
    let rows = statement.query_map([], |r| r.get(0)).expect("asks");
    rows.map(|r| r.expect("a row")).collect()
}

#[test]
fn a_noted_chain_value_is_found_again_and_another_journal_has_it_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, _) = filled(dir.path(), 3);
    let mut journal = Journal::open(&path).expect("opens");
    let (seq, noted) = journal.tip().expect("reads");
    journal.append(&"R9".into(), 9, &Event::Interrupted { gave_way_to: None }).expect("appends");
    assert_eq!(journal.find_chain(&noted).expect("asks"), Some(seq));
    assert_eq!(journal.find_chain(&noted[..12]).expect("asks"), Some(seq));
    let (other, _) = filled(tempfile::tempdir().expect("tempdir").keep().as_path(), 4);
    let other = Journal::open_read(&other).expect("opens").expect("exists");
    assert_eq!(other.find_chain(&journal.tip().expect("reads").1).expect("asks"), None);
}

fn planned(run: &str, procedure: Procedure) -> Event {
    let plan = Plan {
        format: FORMAT,
        run: run.into(),
        procedure,
        stack: switchback_core::ids::StackName::new("s").expect("a name"),
        made_at_ms: 1,
        from: Default::default(),
        to: Default::default(),
        from_generation: None,
        to_generation: None,
        reason: Some("\"procedure\":\"backup\"".to_owned()),
        budget_ms: 1,
        instances: Default::default(),
        steps: Vec::new(),
    };
    Event::Planned { plan: Box::new(plan) }
}

#[test]
fn the_newest_run_of_a_procedure_is_found_behind_a_thousand_others() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path).expect("opens");
    journal.connection.execute_batch("PRAGMA synchronous=OFF").expect("sets");
    let mut record = |run: &str, procedure, outcome: Option<Outcome>| {
        let ended = outcome.map(|outcome| Event::Ended { outcome });
        let events: Vec<(i64, Event)> =
            [Some(planned(run, procedure)), ended].into_iter().flatten().map(|e| (1, e)).collect();
        let events: Vec<(i64, &Event)> = events.iter().map(|(at, e)| (*at, e)).collect();
        journal.append_all(&run.into(), &events).expect("appends");
    };
    let refused = || Some(Outcome::Refused { reasons: Vec::new() });
    record("older", Procedure::Backup, Some(Outcome::Done));
    record("good", Procedure::Backup, Some(Outcome::Done));
    record("drill", Procedure::Drill, refused());
    for n in 0..1000 {
        record(&format!("S{n}"), Procedure::StagingSync, Some(Outcome::Done));
    }
    record("bad", Procedure::Backup, refused());
    record("goes-on", Procedure::Backup, None);
    let journal = Journal::open_read(&path).expect("opens").expect("exists");
    let newest =
        |procedure| journal.newest_of(|p| p == procedure, |run| Ok(Some(run.clone()))).expect("asks");
    let done = |procedure| {
        let done =
            |run: &RunId| journal.outcome(run).map(|o| (o == Some(Outcome::Done)).then(|| run.clone()));
        journal.newest_of(|p| p == procedure, done).expect("asks")
    };
    assert_eq!(newest(Procedure::Backup), Some("goes-on".into()));
    assert_eq!(done(Procedure::Backup), Some("good".into()));
    assert_eq!((newest(Procedure::Drill), done(Procedure::Drill)), (Some("drill".into()), None));
    assert_eq!(newest(Procedure::StagingSync), Some("S999".into()));
    // One name is the beginning of another.
    assert_eq!(newest(Procedure::Rollback), None);
    assert_eq!(newest(Procedure::RollbackDrill), None);
    // Nothing of it keeps others from writing, or from reading another moment.
    assert!(journal.connection.is_autocommit());
}

#[test]
fn a_plan_that_begins_in_another_order_or_is_damaged_is_looked_at_as_a_whole() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path).expect("opens");
    // The name of the run leaves no room for what follows.
    let long = "R".repeat(400);
    journal.append(&long.as_str().into(), 1, &planned(&long, Procedure::Drill)).expect("appends");
    let newest = |journal: &Journal, of| journal.newest_of(|p| p == of, |run| Ok(Some(run.clone())));
    assert_eq!(newest(&journal, Procedure::Drill).expect("asks"), Some(RunId(long)));
    assert_eq!(newest(&journal, Procedure::Backup).expect("asks"), None);
    drop(journal);
    let raw = Connection::open(&path).expect("opens");
    raw.execute("UPDATE events SET json = '{}'", []).expect("tampers");
    drop(raw);
    let journal = Journal::open_read(&path).expect("opens").expect("exists");
    let found = newest(&journal, Procedure::Drill);
    assert!(matches!(found, Err(EngineError::Damaged { .. })), "{found:?}");
}

#[test]
fn events_of_several_runs_are_recorded_together_or_not_at_all() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, before) = filled(dir.path(), 3);
    let mut journal = Journal::open(&path).expect("opens");
    let (trial, rollback) = (RunId::from("R1"), RunId::from("B"));
    let failed = Event::TrialFailed { trigger: "t".to_owned(), reasons: Vec::new() };
    let resumed = Event::Resumed { pid: 1 };
    let recorded =
        journal.append_of_runs(&[(&trial, 7, &failed), (&rollback, 7, &resumed)]).expect("appends");
    let of: Vec<_> = recorded.iter().map(|r| (r.run.as_str(), r.seq)).collect();
    assert_eq!(of, [("R1", 4), ("B", 5)]);
    assert_eq!(journal.run(&rollback).expect("reads"), recorded[1..]);
    // The second cannot be written: neither is.
    journal
        .connection
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.run = 'B'
             BEGIN SELECT RAISE(ABORT, 'full'); END;",
        )
        .expect("makes");
    assert!(journal.append_of_runs(&[(&trial, 8, &failed), (&rollback, 8, &resumed)]).is_err());
    assert_eq!(journal.all().expect("reads").len(), before.len() + 2);
}
