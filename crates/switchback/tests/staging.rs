//! Staging environments of local processes: made, looked at, synchronised, reset, kept and removed.

mod common;

use assistant::ReleaseKind;
use common::{Stack, TOKEN};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

fn stack(releases: &[ReleaseKind]) -> Stack {
    let stack = Stack::new(releases);
    stack.run(&["up"]).expect(0);
    stack
}

fn environment(stack: &Stack, name: &str) -> Value {
    stack.run(&["staging", "status", name, "--json"]).json()
}

fn ask(environment: &Value, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = environment["addresses"]["app"]["http"].as_str().expect("an address");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let authorization = format!("Bearer {TOKEN}");
    let url = format!("http://{address}{path}");
    let answer = match method {
        "GET" => agent.get(url).header("Authorization", authorization).call(),
        _ => agent
            .post(url)
            .header("Authorization", authorization)
            .header("Content-Type", "application/json")
            .send(body),
    };
    let mut answer = answer.expect("answers");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("reads"))
}

fn titles(environment: &Value) -> BTreeSet<String> {
    let (status, body) = ask(environment, "GET", "/api/notes?limit=1000", "");
    assert_eq!(status, 200, "{body}");
    let value: Value = serde_json::from_str(&body).expect("JSON");
    let all = value.as_array().or_else(|| value["items"].as_array()).or_else(|| value["notes"].as_array());
    let all = all.unwrap_or_else(|| panic!("no list of notes: {value}"));
    all.iter().map(|n| n["title"].as_str().expect("a title").to_owned()).collect()
}

fn write(environment: &Value, title: &str) {
    let (status, body) = ask(environment, "POST", "/api/notes", &format!(r#"{{"title": "{title}"}}"#));
    assert!((200..300).contains(&status), "{status} {body}");
}

/// Nothing of any environment is left: no folder, process or keeper.
#[track_caller]
fn assert_nothing_is_left(stack: &Stack, production: usize) {
    let folders: Vec<_> = fs::read_dir(stack.state().join("staging")).expect("lists").flatten().collect();
    assert!(folders.is_empty(), "{folders:?}");
    let all = stack.processes();
    assert_eq!(all.values().sum::<usize>(), production, "{all:?}");
}

#[test]
fn an_environment_is_made_written_to_reset_synchronised_and_removed() {
    let stack = stack(&[]);
    let production = stack.processes().values().sum::<usize>();
    let before = stack.rows(1);
    let ran = stack.run(&["staging", "up"]).expect(0);
    assert!(ran.stdout.contains("http://127.0.0.1:"), "{}", ran.all());
    let made = environment(&stack, "staging");
    assert_eq!(made["now"]["well"], true, "{made}");
    assert_eq!(made["data"]["compared"], true, "{made}");
    assert_eq!(made["data"]["counts"]["db"]["notes"], 40, "{made}");
    let first = titles(&made);
    write(&made, "only in staging");
    assert!(titles(&made).contains("only in staging"));
    assert_eq!(stack.rows(1), before, "production saw a write to staging");

    stack.run(&["staging", "reset"]).expect(2);
    stack.run(&["staging", "reset", "--yes"]).expect(0);
    let reset = environment(&stack, "staging");
    assert_eq!(titles(&reset), first);
    assert_eq!(reset["addresses"], made["addresses"], "the address changed");

    write(&reset, "only in staging again");
    stack.write_note("new in production");
    stack.run(&["staging", "sync", "--yes"]).expect(0);
    let synced = environment(&stack, "staging");
    let now = titles(&synced);
    assert!(now.contains("new in production") && !now.contains("only in staging again"), "{now:?}");
    assert!(synced["data"]["at_ms"].as_i64() > made["data"]["at_ms"].as_i64());
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    assert_eq!(stack.run(&["gc", "--dry-run", "--json"]).expect(0).json()["staging"], serde_json::json!([]));

    stack.run(&["staging", "down", "--yes"]).expect(0);
    stack.run(&["staging", "status"]).expect(3);
    assert_nothing_is_left(&stack, production);
    stack.wait_until("the keeper has gone", Duration::from_secs(15), || {
        !stack.root.join(".switchback/keeper.lock").exists()
            || switchback_engine::keeper::holder(
                &switchback_engine::home::Home::open(&stack.root).expect("opens"),
            )
            .is_none()
    });
}

#[test]
fn an_environment_can_run_another_release_and_two_run_side_by_side() {
    let stack = stack(&[ReleaseKind::V2]);
    stack.run(&["staging", "up", "try-2", "app=2.0.0"]).expect(0);
    stack.run(&["staging", "up", "as-is"]).expect(0);
    let version = |name: &str| {
        let (_, body) = ask(&environment(&stack, name), "GET", "/health", "");
        serde_json::from_str::<Value>(&body).expect("JSON")["version"].clone()
    };
    assert_eq!((version("try-2"), version("as-is")), ("2.0.0".into(), "1.0.0".into()));
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    let diff = stack.run(&["staging", "diff", "try-2"]).expect(0).stdout;
    assert!(diff.contains("app is 2.0.0 (production runs 1.0.0)"), "{diff}");
    let list = stack.run(&["staging", "list"]).expect(0).stdout;
    assert!(list.contains("try-2") && list.contains("as-is"), "{list}");
    // A rehearsal and a promotion go on beside them.
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["staging", "sync", "try-2", "--yes"]).expect(0);
    assert_eq!(version("try-2"), "2.0.0");
    for name in ["try-2", "as-is"] {
        stack.run(&["staging", "down", name, "--yes"]).expect(0);
    }
    assert_nothing_is_left(&stack, 2);
}

#[test]
fn small_tools_work_in_an_environment() {
    let stack = stack(&[]);
    stack.run(&["staging", "up"]).expect(0);
    let ran = stack
        .run(&["staging", "exec", "app", "--", "sh", "-c", "pwd; test -n \"$ASSISTANT_TOKEN\" && exit 7"])
        .expect(7);
    assert!(ran.stdout.contains("staging/env-staging/g1"), "{}", ran.all());
    let ran = stack.run(&["staging", "exec", "ap", "--", "true"]).expect(2);
    assert!(ran.all().contains("did you mean \"app\""), "{}", ran.all());
    stack.run(&["staging", "logs", "--lines", "3"]).expect(0);
    let urls = stack.run(&["staging", "open", "--json"]).expect(0).json();
    assert!(urls["urls"][0].as_str().expect("a URL").starts_with("http://127.0.0.1:"), "{urls}");
    stack.run(&["staging", "keep", "--forever"]).expect(0);
    assert!(environment(&stack, "staging")["expires_at_ms"].is_null());
    stack.run(&["staging", "stop"]).expect(0);
    assert!(stack.run(&["staging", "status"]).expect(3).stdout.contains("stopped"));
    stack.run(&["staging", "up"]).expect(0);
    assert_eq!(environment(&stack, "staging")["now"]["well"], true);
    let again = stack.run(&["staging", "up"]).expect(0);
    assert!(again.stdout.contains("up already"), "{}", again.all());
    let usage = environment(&stack, "staging");
    assert!(usage["now"]["services"]["app"]["memory_bytes"].as_u64() > Some(0), "{usage}");
}

#[test]
fn what_is_asked_for_wrongly_is_refused_with_what_to_do() {
    let stack = stack(&[]);
    stack.configure("stores:", "staging: { environments: 1 }\nstores:");
    for (args, code, says) in [
        (vec!["staging", "up", "../x"], 2, "lower-case"),
        (vec!["staging", "up", "production"], 2, "Switchback itself"),
        (vec!["staging", "up", "a", "b"], 2, "one environment at a time"),
        (vec!["staging", "up", "a", "nope=1"], 2, "there is no service"),
        (vec!["staging", "up", "a", "app=9.9"], 3, "not installed"),
        (vec!["staging", "down", "a", "--yes"], 3, "there is no staging environment a"),
        (vec!["staging", "sync", "--yes"], 3, "`switchback staging up` makes one"),
    ] {
        let ran = stack.run(&args).expect(code);
        assert!(ran.all().contains(says), "{args:?}: {}", ran.all());
    }
    stack.run(&["staging", "up", "one"]).expect(0);
    let ran = stack.run(&["staging", "up", "two"]).expect(3);
    assert!(ran.all().contains("at most 1") && ran.all().contains("one"), "{}", ran.all());
    stack.run(&["staging", "down", "one", "--yes"]).expect(0);
    assert_nothing_is_left(&stack, 2);
}

#[test]
fn an_environment_whose_time_is_over_is_removed_by_itself() {
    let stack = stack(&[]);
    stack.run(&["staging", "up", "brief", "--keep", "1s"]).expect(0);
    stack.wait_until("it is removed", Duration::from_secs(60), || {
        stack.run(&["staging", "list", "--json"]).json() == serde_json::json!([])
            && stack.run(&["history", "--json"]).json()[0]["conclusion"] == "pass"
    });
    assert_nothing_is_left(&stack, 2);
    let history = stack.run(&["history", "--json"]).expect(0).json();
    assert_eq!(history[0]["procedure"], "staging_down", "{history}");
}

/// Killed at several moments; what is left is gone on with, or removed.
#[test]
fn a_killed_start_is_gone_on_with_or_leaves_nothing() {
    let stack = stack(&[]);
    let mut unfinished = 0;
    for (round, ms) in [40_u64, 120, 250, 400, 600].into_iter().enumerate() {
        let mut child = stack
            .command(&["staging", "up", "half"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(ms));
        child.kill().expect("kills");
        child.wait().expect("ends");
        let begun = !stack.status()["unfinished"].is_null();
        unfinished += usize::from(begun);
        if begun {
            let how: &[&str] = if round % 2 == 0 { &["resume"] } else { &["resume", "--abort"] };
            let code = if round % 2 == 0 { 0 } else { 4 };
            let ran = stack.run(how);
            assert!([Some(0), Some(code), Some(3)].contains(&ran.code), "{:?} {}", ran.code, ran.all());
        }
        if stack.run(&["staging", "status", "half", "--json"]).code == Some(0) {
            stack.run(&["staging", "down", "half", "--yes"]).expect(0);
        }
        stack.run(&["gc", "--yes"]).expect(0);
        assert_nothing_is_left(&stack, 2);
        assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    }
    assert!(unfinished > 0, "no kill hit a run");
}

#[test]
fn cycles_of_up_and_down_leave_nothing_behind() {
    let stack = stack(&[]);
    let cycles = if common::docker::full() { 100 } else { 5 };
    let releases = || fs::read_dir(stack.state().join("releases")).expect("lists").count();
    let before = releases();
    for _ in 0..cycles {
        stack.run(&["staging", "up", "--quiet"]).expect(0);
        stack.run(&["staging", "down", "--yes", "--quiet"]).expect(0);
    }
    assert_nothing_is_left(&stack, 2);
    assert_eq!(releases(), before);
}
