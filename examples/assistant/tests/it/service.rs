//! The good releases: what the API does, and the way from the first to the second.

use std::fs;
use std::time::Duration;

use crate::support::{Stack, stderr};
use assistant::ReleaseKind;
use serde_json::json;

#[test]
fn an_upgrade_keeps_notes_and_uploads_and_cannot_be_undone_by_starting_the_old_release() {
    let stack = Stack::migrated(ReleaseKind::V1);
    let mut v1 = stack.serve(ReleaseKind::V1);
    assert_eq!(v1.get("/health").json, json!({"status": "ok", "version": "1.0.0"}));
    let note = json!({"title": "Call the dentist", "body": "before noon", "tags": ["urgent", "health"]});
    let added = v1.send("POST", "/api/notes", &note);
    assert_eq!((added.status, &added.json["id"]), (201, &json!(1)));
    assert_eq!(added.json.get("priority"), None);
    assert_eq!(v1.send("POST", "/api/notes", &json!({"title": "Buy bread"})).status, 201);
    let upload = v1.upload("../../list.txt", "eggs\nmilk\n");
    assert_eq!((upload.status, &upload.json["name"]), (201, &json!("list.txt")));
    assert_eq!(upload.json["blake3"], blake3::hash(b"eggs\nmilk\n").to_hex().as_str());
    assert_eq!(v1.get("/api/reminders").status, 404);
    let stats = v1.get("/api/stats").json;
    assert_eq!(stats, json!({"notes": 2, "uploads": 1, "bytes": 10}));
    v1.stop();
    assert!(!stack.path("assistant.db-wal").exists(), "a stopped service leaves one file");

    let refused = stack.serve_fails(ReleaseKind::V2);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("has schema 1, release 2.0.0 needs schema 2"), "{refused:?}");

    let migrated = stack.migrate(ReleaseKind::V2);
    assert_eq!(String::from_utf8_lossy(&migrated.stdout), "done: migrated the database from schema 1 to 2\n");
    let mut v2 = stack.serve(ReleaseKind::V2);
    let version = json!({"version": "2.0.0", "schema": 2, "features": ["priorities", "reminders"]});
    assert_eq!(v2.get("/api/version").json, version);
    let notes = v2.get("/api/notes").json;
    assert_eq!(notes[0]["title"], "Buy bread");
    assert_eq!(notes[1]["tags"], json!(["health", "urgent"]));
    assert_eq!((&notes[1]["body"], &notes[1]["priority"]), (&json!("before noon"), &json!(3)));
    assert_eq!(v2.get("/uploads/1").text, "eggs\nmilk\n");
    v2.stop();

    let refused = stack.serve_fails(ReleaseKind::V1);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("has schema 2, release 1.0.0 knows only schema 1"), "{refused:?}");
}

#[test]
fn notes_and_reminders_can_be_changed_and_deleted() {
    let stack = Stack::migrated(ReleaseKind::V2);
    let v2 = stack.serve(ReleaseKind::V2);
    for title in ["One", "Two", "Three"] {
        v2.send("POST", "/api/notes", &json!({"title": title, "priority": 2}));
    }
    assert_eq!(v2.get("/api/notes?limit=1").json[0]["title"], "Three");
    let changed = v2.send("PUT", "/api/notes/2", &json!({"done": true, "tags": ["home"]}));
    assert_eq!(changed.json["title"], "Two");
    assert_eq!((&changed.json["done"], &changed.json["priority"]), (&json!(true), &json!(2)));
    assert_eq!(v2.get("/api/stats").json["open"], 2);

    let reminder =
        v2.send("POST", "/api/reminders", &json!({"note_id": 1, "at": "2026-01-31T10:00:00+01:00"}));
    assert_eq!(reminder.status, 201);
    let expected = json!([{"id": 1, "note_id": 1, "title": "One", "at": "2026-01-31T09:00:00.000Z"}]);
    assert_eq!(v2.get("/api/reminders").json, expected);
    assert_eq!(v2.send("DELETE", "/api/notes/1", &json!(null)).status, 204);
    assert_eq!(v2.get("/api/notes/1").status, 404);
    assert_eq!(v2.get("/api/reminders").json, json!([]), "reminders go with their note");
}

#[test]
fn wrong_requests_get_json_errors() {
    let stack = Stack::migrated(ReleaseKind::V2);
    let v2 = stack.serve(ReleaseKind::V2);
    for (method, path, body, status) in [
        ("GET", "/nowhere", json!(null), 404),
        ("GET", "/api/notes/abc", json!(null), 404),
        ("GET", "/api/notes?limit=0", json!(null), 400),
        ("GET", "/api/notes?limit=1&limit=x", json!(null), 400),
        ("PATCH", "/api/notes", json!(null), 405),
        ("POST", "/api/notes", json!({}), 400),
        ("POST", "/api/notes", json!({"title": " "}), 400),
        ("POST", "/api/notes", json!({"title": "x", "priority": 9}), 400),
        ("POST", "/api/notes", json!({"title": 5}), 422),
        ("PUT", "/api/notes/99", json!({"title": "x"}), 404),
        ("DELETE", "/api/notes/99", json!(null), 404),
        ("POST", "/api/reminders", json!({"note_id": 99, "at": "2026-01-31T09:00:00Z"}), 404),
        ("POST", "/api/reminders", json!({"note_id": 1, "at": "soon"}), 400),
        ("GET", "/uploads/99", json!(null), 404),
    ] {
        let answer = v2.send(method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert!(answer.json["error"].is_string(), "{method} {path} {body}: {answer:?}");
    }
}

#[test]
fn a_token_guards_the_api_but_not_the_page() {
    let stack = Stack::migrated(ReleaseKind::V1);
    let mut server = stack.serve_with(ReleaseKind::V1, |command| {
        command.env("ASSISTANT_TOKEN", "secret");
    });
    let statuses = |server: &crate::support::Server| {
        let post = server.send("POST", "/api/notes", &json!({"title": "x"}));
        [server.get("/api/notes").status, post.status, server.upload("a.txt", "a").status]
    };
    assert_eq!(statuses(&server), [401, 401, 401]);
    assert_eq!([server.get("/").status, server.get("/health").status], [200, 200]);
    server.token = Some("Secret".to_owned());
    assert_eq!(statuses(&server), [401, 401, 401]);
    server.token = Some("secret".to_owned());
    assert_eq!(statuses(&server), [200, 201, 201]);
}

#[test]
fn the_page_is_the_releases_and_requests_are_logged() {
    let stack = Stack::migrated(ReleaseKind::V1);
    let mut v1 = stack.serve(ReleaseKind::V1);
    let page = v1.get("/").text;
    assert!(page.contains("Version 1.0.0") && !page.contains("priority"));
    assert_eq!(
        v1.get("/style.css").text,
        fs::read_to_string(stack.release(ReleaseKind::V1).join("web/style.css")).expect("a style")
    );
    let took = v1.stop();
    // The promise is 100 ms; this machine may be busy with other tests.
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(v1.log().lines().any(|line| line.contains(" GET /style.css 200 ")), "{}", v1.log());
    stack.migrate(ReleaseKind::V2);
    let v2 = stack.serve(ReleaseKind::V2);
    assert!(v2.get("/").text.contains("High"));
}

#[test]
fn an_open_connection_does_not_delay_the_stop_and_the_port_is_free_at_once() {
    let stack = Stack::migrated(ReleaseKind::V1);
    let mut first = stack.serve(ReleaseKind::V1);
    // The agent keeps this connection open.
    assert_eq!(first.get("/health").status, 200);
    let port = first.url("").rsplit(':').next().expect("a port").to_owned();
    assert!(first.stop() < Duration::from_secs(1));
    let again = stack.serve_with(ReleaseKind::V1, |command| {
        let listen = format!("--listen=127.0.0.1:{port}");
        let mut args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        args.truncate(args.len() - 2);
        *command = std::process::Command::new(command.get_program());
        command.args(args).arg(listen);
    });
    assert_eq!(again.url("").rsplit(':').next(), Some(port.as_str()));
}
