//! The faulty releases: each shows its fault, and nothing but its fault.

use std::thread;
use std::time::Duration;

use crate::support::{Stack, poll, stderr, wait};
use assistant::ReleaseKind;
use serde_json::json;

/// A database of the first release with a hundred and twenty notes.
fn seeded() -> Stack {
    let stack = Stack::new();
    let seeded =
        assistant::seed(&stack.path("assistant.db"), &stack.path("uploads"), 120, 2, 1).expect("seeded data");
    assert_eq!(seeded.notes, 120);
    stack
}

#[test]
fn lossy_migration_succeeds_and_loses_notes() {
    let stack = seeded();
    assert!(stack.migrate(ReleaseKind::LossyMigration).status.success());
    let server = stack.serve(ReleaseKind::LossyMigration);
    assert_eq!(server.get("/api/stats").json["notes"], 118);
    assert_eq!(server.send("POST", "/api/notes", &json!({"title": "x"})).status, 201);
}

#[test]
fn broken_workflow_cannot_add_notes_but_is_healthy() {
    let stack = seeded();
    assert!(stack.migrate(ReleaseKind::BrokenWorkflow).status.success());
    let server = stack.serve(ReleaseKind::BrokenWorkflow);
    let added = server.send("POST", "/api/notes", &json!({"title": "x"}));
    assert_eq!(added.status, 500);
    assert_eq!(added.json["error"], "database: no such table: main.note_search");
    assert_eq!([server.get("/health").status, server.get("/api/notes").status], [200, 200]);
    assert_eq!(server.get("/api/stats").json["notes"], 120);
}

#[test]
fn leaky_pool_serves_forty_requests() {
    let stack = Stack::migrated(ReleaseKind::LeakyPool);
    let server = stack.serve(ReleaseKind::LeakyPool);
    for n in 0..40 {
        let answer = if n % 2 == 0 {
            server.get("/api/stats")
        } else {
            server.send("POST", "/api/notes", &json!({"title": n.to_string()}))
        };
        assert!(answer.status < 300, "{n}: {answer:?}");
    }
    for path in ["/api/stats", "/api/version", "/api/notes"] {
        let answer = server.get(path);
        assert_eq!((answer.status, &answer.json["error"]), (503, &json!("connection pool exhausted")));
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn good_releases_give_connections_back() {
    let stack = Stack::migrated(ReleaseKind::V2);
    stack.change_settings(ReleaseKind::V2, |settings| settings.pool_size = 1);
    let server = stack.serve(ReleaseKind::V2);
    for n in 0..50 {
        assert_eq!(server.send("POST", "/api/notes", &json!({"title": n.to_string()})).status, 201);
    }
}

#[test]
fn crash_later_ends_with_status_1() {
    let stack = Stack::migrated(ReleaseKind::CrashLater);
    stack.change_settings(ReleaseKind::CrashLater, |settings| {
        settings.crash_after_ms = Some(300);
    });
    let mut server = stack.serve(ReleaseKind::CrashLater);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.wait().code(), Some(1));
}

#[test]
fn never_healthy_serves_all_the_same() {
    let stack = Stack::migrated(ReleaseKind::NeverHealthy);
    let server = stack.serve(ReleaseKind::NeverHealthy);
    let health = server.get("/health");
    assert_eq!((health.status, &health.json["status"]), (503, &json!("unavailable")));
    assert_eq!(server.get("/api/notes").status, 200);
}

#[test]
fn a_failed_migration_leaves_the_old_release_its_database() {
    let stack = seeded();
    let failed = stack.migrate(ReleaseKind::MigrationFails);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("no such column: category"), "{failed:?}");
    let v1 = stack.serve(ReleaseKind::V1);
    assert_eq!(v1.get("/api/stats").json["notes"], 120);
}

#[test]
fn a_hanging_migration_holds_the_database_until_it_is_killed() {
    let stack = seeded();
    let mut migrate = stack.spawn_migrate(ReleaseKind::MigrationHangs);
    let v1 = stack.serve(ReleaseKind::V1);
    poll("the migration's transaction", || {
        let probe = rusqlite::Connection::open(stack.path("assistant.db")).expect("a database");
        probe.busy_timeout(Duration::ZERO).expect("a time-out");
        probe.execute_batch("begin immediate; rollback").err()
    });
    assert!(migrate.try_wait().expect("a state").is_none());
    migrate.kill().expect("killed");
    wait(&mut migrate);
    assert_eq!(v1.send("POST", "/api/notes", &json!({"title": "still the first"})).status, 201);
    assert_eq!(v1.get("/api/version").json["schema"], 1);
}

#[test]
fn a_migration_that_does_nothing_says_it_is_done() {
    let stack = seeded();
    let migrated = stack.migrate(ReleaseKind::MigrationNoop);
    assert!(migrated.status.success());
    assert!(String::from_utf8_lossy(&migrated.stdout).starts_with("done"));
    let refused = stack.serve_fails(ReleaseKind::MigrationNoop);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("has schema 1, release 2.3.3 needs schema 2"), "{refused:?}");
}

#[test]
fn auto_migrate_needs_no_migrate() {
    let stack = seeded();
    let server = stack.serve(ReleaseKind::AutoMigrate);
    assert_eq!(server.get("/api/version").json["schema"], 2);
    assert_eq!(server.get("/api/stats").json["notes"], 120);
}

#[test]
fn ignores_term_goes_on_serving() {
    let stack = Stack::migrated(ReleaseKind::IgnoresTerm);
    let mut server = stack.serve(ReleaseKind::IgnoresTerm);
    server.signal("TERM");
    poll("the signal in the log", || server.logged("ignoring SIGTERM"));
    thread::sleep(Duration::from_millis(150));
    assert!(server.is_running());
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn start_fails_exit0_complains_and_says_all_is_well() {
    let stack = Stack::migrated(ReleaseKind::StartFailsExit0);
    let output = stack.serve_fails(ReleaseKind::StartFailsExit0);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("licence key"), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn broken_page_asks_for_addresses_that_are_not_there() {
    let stack = Stack::migrated(ReleaseKind::BrokenPage);
    let server = stack.serve(ReleaseKind::BrokenPage);
    assert!(server.get("/").text.contains("\"/api/v3/notes"));
    assert_eq!([server.get("/api/v3/notes").status, server.get("/api/notes").status], [404, 200]);
}

#[test]
fn what_shows_with_time_shows_and_all_else_works() {
    let stack = Stack::migrated(ReleaseKind::SlowsDown);
    let server = stack.serve(ReleaseKind::SlowsDown);
    let began = std::time::Instant::now();
    assert_eq!(server.get("/api/notes").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(150));
    drop(server);

    let server = stack.serve(ReleaseKind::FailsSometimes);
    let found: Vec<u16> = (0..14).map(|_| server.get("/api/notes").status).collect();
    assert_eq!(found.iter().filter(|s| **s == 500).count(), 2, "{found:?}");
    assert_eq!((found[6], found[13], server.get("/health").status), (500, 500, 200));
    drop(server);

    let server = stack.serve(ReleaseKind::Complains);
    assert_eq!(server.get("/api/notes").status, 200);
}
