//! Workflows from recordings, with the real service: what was recorded runs, and finds what an upgrade breaks.

mod common;

use assistant::ReleaseKind;
use common::{Stack, TOKEN};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

fn ask(base: &str, method: &str, path: &str, sent: Option<&Value>) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{base}{path}");
    let token = format!("Bearer {TOKEN}");
    let mut answer = match (method, sent) {
        ("GET", _) => agent.get(&url).header("authorization", &token).call(),
        ("DELETE", _) => agent.delete(&url).header("authorization", &token).call(),
        (_, sent) => agent
            .post(&url)
            .header("authorization", &token)
            .header("content-type", "application/json")
            .send(sent.map(Value::to_string).unwrap_or_default()),
    }
    .expect("answers");
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().expect("text");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Records a session, and puts the workflow into the stack's checks.
fn recorded(stack: &Stack) -> Value {
    let mut command = stack.command(&["check", "record", "--output", "checks/session.yaml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let line = lines.next().expect("a line").expect("reads");
    let (_, rest) = line.split_once(" at ").unwrap_or_else(|| panic!("{line}"));
    let base = rest.split("/ until").next().expect("an address").to_owned();
    let (status, _) = ask(&base, "GET", "/api/notes?limit=3", None);
    assert_eq!(status, 200, "{line}");
    let (status, made) = ask(&base, "POST", "/api/notes", Some(&json!({ "title": "recorded", "body": "b" })));
    assert_eq!(status, 201);
    let path = format!("/api/notes/{}", made["id"]);
    assert_eq!(ask(&base, "GET", &path, None).0, 200);
    assert_eq!(ask(&base, "DELETE", &path, None).0, 204);
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill is there").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_was_recorded_runs_and_finds_what_an_upgrade_breaks() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::BrokenWorkflow]);
    stack.run(&["up"]).expect(0);
    let said = recorded(&stack);
    assert_eq!(
        (&said["steps"], &said["variables"]["APP_AUTHORIZATION"]),
        (&4.into(), &"the value of `authorization`".into())
    );
    let text = fs::read_to_string(stack.root.join("checks/session.yaml")).expect("reads");
    assert!(!text.contains(TOKEN), "{text}");
    assert!(text.contains("{{app.url}}/api/notes/{{id}}"), "{text}");
    for file in ["notes.yaml", "reading.yaml"] {
        fs::remove_file(stack.root.join("checks").join(file)).expect("removes");
    }
    let token = [("APP_AUTHORIZATION", TOKEN)];
    stack.run_with(&["rehearse", "app=2.0.0"], &token).expect(0);
    let report = stack.report();
    let ran = report["checks"].as_array().expect("checks").iter().any(|c| c["id"] == "workflow/session");
    assert!(ran, "{report}");
    let ran = stack.run_with(&["rehearse", "app=2.1.1"], &token).expect(3);
    assert!(ran.all().contains("POST /api/notes"), "{}", ran.all());
    // Nothing is written over.
    let again = stack.run(&["check", "record", "x.har", "--output", "checks/session.yaml"]).expect(3);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
}

#[test]
fn wrong_input_is_said_and_writes_nothing() {
    let stack = Stack::new(&[]);
    stack.run(&["check", "record"]).expect(3);
    let har = stack.root.join("x.har");
    let path = har.to_string_lossy().into_owned();
    assert!(stack.run(&["check", "record", &path]).expect(2).stderr.contains("No such file"));
    fs::write(&har, "<html>").expect("writes");
    assert!(stack.run(&["check", "record", &path]).expect(2).stderr.contains("it is no HAR file"));
    fs::write(&har, r#"{"log":{"entries":[{"request":{"method":"GET","url":"http://a/x.png"},"response":{"status":200}}]}}"#)
        .expect("writes");
    let ran = stack.run(&["check", "record", &path]).expect(3);
    assert!(ran.stderr.contains("1 requests for scripts"), "{}", ran.stderr);
    let ran = stack.run(&["check", "record", &path, "--origin", "http://b"]).expect(2);
    assert!(ran.stderr.contains("it has requests to http://a"), "{}", ran.stderr);
    let ran = stack.run(&["check", "record", &path, "--service", "nobody"]).expect(2);
    assert!(ran.stderr.contains("known are: app"), "{}", ran.stderr);
    assert!(!stack.root.join("checks/recorded.yaml").exists());
}
