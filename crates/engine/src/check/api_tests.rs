use super::*;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

/// A server that answers each path with a value.
fn server(answers: Vec<(&'static str, Value)>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let counter = AtomicU64::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut bytes = [0; 4096];
            let got = stream.read(&mut bytes).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..got]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let found = answers.iter().find(|(p, _)| *p == path);
            let (status, mut body) = found.map_or((404, json!({})), |(_, body)| (200, body.clone()));
            if let Some(now) = body.get_mut("now") {
                *now = json!(counter.fetch_add(1, Ordering::Relaxed));
            }
            let body = body.to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    Endpoint::new("127.0.0.1", port)
}

fn document(title: &Value, required: &[&str]) -> Value {
    json!({ "openapi": "3.1.0", "info": {}, "paths": {
        "/note": { "get": { "responses": { "200": { "content": { "application/json": { "schema": {
            "type": "object", "required": required, "properties": { "title": title, "extra": { "type": "string" } }
        } } } } } } },
        "/hidden/{id}": { "get": { "responses": { "200": {} } } }
    } })
}

fn check(yaml: &str) -> ApiCheck {
    serde_json::from_value(serde_json::from_str::<Value>(yaml).expect("JSON")).expect("a check")
}

fn compared_as(check: &ApiCheck, old: &Endpoint, new: &Endpoint) -> CheckResult {
    run(
        check,
        &Sides {
            old,
            new,
            headers: Vec::new(),
            redactor: Redactor::from_values(["s3cret-value".to_owned()]),
            environment: "candidate".to_owned(),
            exercised: BTreeSet::new(),
            cancelled: &|| false,
        },
    )
}

const BOTH: &str = r#"{ "service": "app", "document": "/openapi.json", "requests": ["/note?x=1"] }"#;

fn versions(new_note: Value, new_document: Value) -> CheckResult {
    let text = json!({ "type": "string" });
    let note = json!({ "title": "a", "now": 0 });
    let old = server(vec![
        ("/openapi.json", document(&text, &["title"])),
        ("/note?x=1", note.clone()),
        ("/note", note),
    ]);
    let new =
        server(vec![("/openapi.json", new_document), ("/note?x=1", new_note.clone()), ("/note", new_note)]);
    compared_as(&check(BOTH), &old, &new)
}

fn reasons(result: &CheckResult) -> String {
    match &result.verdict {
        Verdict::Fail { reasons } => reasons.iter().map(|r| format!("{}: {}\n", r.at, r.what)).collect(),
        other => format!("{other:?}"),
    }
}

#[test]
fn equal_apis_pass_and_noise_is_no_difference() {
    let result =
        versions(json!({ "title": "a", "now": 0 }), document(&json!({ "type": "string" }), &["title"]));
    assert_eq!(result.verdict, Verdict::Pass, "{result:?}");
    assert_eq!(result.measured["operations declared"], "2");
    assert_eq!(result.measured["of these exercised"], "1");
    assert!(result.steps[0].seen.contains("1 are noise"), "{:?}", result.steps);
}

#[test]
fn changed_values_and_changed_documents_fail_with_their_reasons() {
    let text = json!({ "type": "string" });
    let result = versions(json!({ "title": "b", "now": 0 }), document(&text, &["title"]));
    assert!(
        reasons(&result).contains("$.title was \"a\" and is \"b\" [answer-value]"),
        "{}",
        reasons(&result)
    );
    let result = versions(json!({ "title": 7, "now": 0 }), document(&json!({ "type": "integer" }), &[]));
    let said = reasons(&result);
    for rule in
        ["answer-type", "answer-against-document", "response-property-type-changed", "became-optional"]
    {
        assert!(said.contains(rule), "{rule}: {said}");
    }
    let result = versions(json!({ "title": "a", "now": 0 }), json!({ "nothing": true }));
    assert!(reasons(&result).contains("cannot be read"), "{}", reasons(&result));
}

#[test]
fn an_optional_property_that_was_answered_is_missed() {
    let both = |extra: bool| {
        let mut document = document(&json!({ "type": "string" }), &["title"]);
        if !extra {
            let schema = &mut document["paths"]["/note"]["get"]["responses"]["200"]["content"]["application/json"]
                ["schema"];
            schema["properties"].as_object_mut().expect("properties").shift_remove("extra");
        }
        document
    };
    let note = json!({ "title": "a", "extra": "x" });
    let old = server(vec![("/openapi.json", both(true)), ("/note", note.clone())]);
    let new = server(vec![("/openapi.json", both(false)), ("/note", note)]);
    let only_document = check(r#"{ "service": "app", "document": "/openapi.json" }"#);
    let result = compared_as(&only_document, &old, &new);
    assert!(reasons(&result).contains("real answers had it"), "{}", reasons(&result));
    let accepting = check(
        r#"{ "service": "app", "document": "/openapi.json", "accept": ["response-optional-property-removed GET /note"] }"#,
    );
    let result = compared_as(&accepting, &old, &new);
    assert_eq!((result.verdict, result.measured["changes that are accepted"].as_str()), (Verdict::Pass, "1"));
}

#[test]
fn trouble_with_the_old_version_is_inconclusive_and_with_the_new_one_a_failure() {
    let up = server(vec![("/note", json!({ "title": "a" }))]);
    let gone = Endpoint::new("127.0.0.1", 9);
    let only = check(r#"{ "service": "app", "requests": ["/note"] }"#);
    assert!(matches!(compared_as(&only, &gone, &up).verdict, Verdict::Inconclusive { .. }));
    assert!(reasons(&compared_as(&only, &up, &gone)).contains("gives no answer"));
}

#[test]
fn secrets_in_answers_are_not_shown() {
    let old = server(vec![("/note", json!({ "token": "s3cret-value" }))]);
    let new = server(vec![("/note", json!({ "token": "other" }))]);
    let result = compared_as(&check(r#"{ "service": "app", "requests": ["/note"] }"#), &old, &new);
    let said = reasons(&result);
    assert!(said.contains("answer-value") && !said.contains("s3cret-value"), "{said}");
}
