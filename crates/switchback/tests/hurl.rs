//! Files for hurl as checks. With the real program, which is compiled for it: `scripts/test --full`.

mod common;

use assistant::ReleaseKind;
use common::{Stack, TOKEN};
use serde_json::Value;
use std::fs;

const FILE: &str = r#"# Writes a note and reads it.
POST {{app_url}}/api/notes
Authorization: Bearer {{env_ASSISTANT_TOKEN}}
{ "title": "hurl {{run_id}}", "body": "as it was sent" }
HTTP 201
[Captures]
id: jsonpath "$.id"

GET {{app_http_url}}/api/notes?limit=5
Authorization: Bearer {{ env_ASSISTANT_TOKEN }}
HTTP 200
[Asserts]
jsonpath "$[0].body" == "as it was sent"

# What stays would be a difference between the sides.
DELETE {{app_url}}/api/notes/{{id}}
Authorization: Bearer {{env_ASSISTANT_TOKEN}}
HTTP 204

GET {{app_url}}/api/notes
HTTP 401
"#;

fn stack(releases: &[ReleaseKind], file: &str) -> Stack {
    let stack = Stack::new(releases);
    stack.configure("  invariants:\n", "  hurl: [\"checks/*.hurl\"]\n  invariants:\n");
    fs::write(stack.root.join("checks/orders.hurl"), file).expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

fn checks(report: &Value) -> Vec<&Value> {
    let all = report["checks"].as_array().expect("checks");
    all.iter().filter(|c| c["id"] == "hurl/orders").collect()
}

#[test]
fn a_file_for_hurl_is_run_on_both_sides_and_catches_what_it_asks_for() {
    let stack = stack(&[ReleaseKind::V1, ReleaseKind::V2, ReleaseKind::BrokenWorkflow], FILE);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let report = stack.report();
    let found = checks(&report);
    // Old, new, and after the rollback.
    assert_eq!(found.len(), 3, "{found:?}");
    for check in found {
        assert_eq!((&check["kind"], &check["verdict"]), (&"workflow".into(), &"pass".into()), "{check}");
        let steps = check["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), 4, "{check}");
        assert!(steps[1]["name"].as_str().expect("text").starts_with("GET http://127.0.0.1:"), "{check}");
        assert!(steps[1]["seen"].as_str().expect("text").starts_with("200; "), "{check}");
    }
    let text = report.to_string();
    assert!(!text.contains(TOKEN), "the token is in the report");

    stack.run(&["rehearse", "app=2.1.1"]).expect(3);
    let report = stack.report();
    let bad = checks(&report).into_iter().find(|c| c["verdict"] == "fail").expect("one failed");
    let reason = &bad["reasons"][0];
    assert_eq!(reason["at"], "orders.hurl, line 5", "{reason}");
    assert_eq!(reason["what"], "Assert status code", "{reason}");
    assert!(reason["got"].as_str().expect("text").contains("500"), "{reason}");
    assert!(!report.to_string().contains(TOKEN), "the token is in the report");

    let proved = stack.run(&["prove", "--json", "--mutant", "M29"]).expect(0).json();
    assert_eq!(proved["rows"][1]["outcome"], "caught", "{proved}");
}

#[test]
fn files_that_cannot_be_run_are_inconclusive_and_say_why() {
    for (file, why) in [
        ("GET {{app_url}}/\nHTTP 2000x\n", "exit code 2"),
        ("GET {{app_url}}/{{env_NOT_THERE}}\n", "no service has a variable NOT_THERE"),
    ] {
        let stack = stack(&[ReleaseKind::V1, ReleaseKind::V2], file);
        stack.run(&["rehearse", "app=2.0.0"]).expect(6);
        let report = stack.report();
        let said = checks(&report)[0]["why"].as_str().expect("why").to_owned();
        assert!(said.contains(why), "{said}");
    }
}
