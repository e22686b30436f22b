//! The plans of backups: what they are made of, and what is left of one that fails.

use super::tests::{Fate, instance, run};
use super::*;

fn facts(archived: bool, copy: BackupCopy) -> ArchiveFacts {
    ArchiveFacts {
        run: "R".into(),
        stack: StackName::new("s").expect("valid"),
        now_ms: 0,
        state_dir: "/s/.switchback".into(),
        production: instance(1, "1"),
        production_runs: true,
        ports: Default::default(),
        need_bytes: 0,
        budget_ms: 300_000,
        archived,
        copy,
    }
}

fn ids(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| s.id.to_string()).collect()
}

#[test]
fn a_server_never_reads_the_data_of_a_backup_before_it_is_written_where_logs_are_replayed() {
    let with = ids(&backup(&facts(true, BackupCopy::Passing)));
    let at = |id: &str| with.iter().position(|s| s == id).unwrap_or_else(|| panic!("no {id}: {with:?}"));
    assert!(at("wal") < at("snapshot") && at("snapshot") < at("contents"), "{with:?}");
    assert!(at("contents") < at("archive") && !with.iter().any(|s| s == "fingerprint"), "{with:?}");
    let without = ids(&backup(&facts(false, BackupCopy::Passing)));
    assert!(!without.iter().any(|s| s == "wal"), "{without:?}");
    let fetch = |at_ms| FetchFacts {
        common: facts(true, BackupCopy::Passing),
        snapshot: "f".repeat(64),
        at_ms,
        images: false,
        was: instance(1, "1"),
        ports: Default::default(),
        next: GenerationId(2),
        previous: None,
        watch_ms: 1000,
    };
    let restored = restore(&fetch(Some(1)));
    let ops: Vec<&Op> = restored.steps.iter().map(|s| &s.op).collect();
    let fetched =
        ops.iter().position(|o| matches!(o, Op::Fetch { replay: true, .. })).expect("fetched, not read");
    assert!(matches!(ops[fetched + 1], Op::Replay { at_ms: 1, .. }), "{ops:?}");
    let drilled = drill(&fetch(Some(1)));
    let ops: Vec<&Op> = drilled.steps.iter().map(|s| &s.op).collect();
    let fetched =
        ops.iter().position(|o| matches!(o, Op::Fetch { replay: true, .. })).expect("fetched, not read");
    assert!(matches!(ops[fetched + 1], Op::Replay { at_ms: 1, .. }), "{ops:?}");
    assert!(!restore(&fetch(None)).steps.iter().any(|s| matches!(s.op, Op::Replay { .. })));
}

#[test]
fn a_clone_that_backups_keep_is_made_once_brought_up_to_date_and_never_removed() {
    let plan = |copy| backup(&facts(false, copy));
    let all = ["preflight", "prepare", "snapshot", "contents", "archive", "retain", "dispose"];
    assert_eq!(ids(&plan(BackupCopy::Passing)), all);
    assert_eq!(ids(&plan(BackupCopy::First)), all[..6]);
    let kept = plan(BackupCopy::Kept);
    assert_eq!(ids(&kept), ["preflight", "snapshot", "contents", "archive", "retain"]);
    let copy = kept.instances.values().find(|i| !i.is_production()).expect("a copy");
    assert_eq!(copy.dir, crate::environment::BACKUP_COPY);
    assert_eq!(plan(BackupCopy::First).instances.get(&copy.key()), Some(copy));
    assert!(matches!(kept.steps[1].op, Op::Refresh { .. }), "{:?}", kept.steps[1]);
    // A first one that fails is undone: nothing half made is taken for a copy the next time.
    let fails = |step: &str, undo: bool| if step == "archive" && !undo { Fate::Fail } else { Fate::Ok };
    let (effects, _) = run(&plan(BackupCopy::First), &mut |step, undo| fails(step, undo));
    assert!(effects.contains(&"undo prepare".to_owned()), "{effects:?}");
    let (effects, _) = run(&kept, &mut |step, undo| fails(step, undo));
    assert!(!effects.iter().any(|e| e.starts_with("undo")), "{effects:?}");
}
