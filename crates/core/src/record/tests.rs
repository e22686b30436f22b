use super::{Exchange, HarError, parse_har, workflow};
use crate::ids::ServiceName;
use crate::workflow::Workflow;
use serde_json::{Value, json};

fn service() -> ServiceName {
    ServiceName::new("app").expect("a name")
}

fn exchange(method: &str, target: &str, sent: &Value, status: u16, answer: &Value) -> Exchange {
    let mut headers = vec![
        ("user-agent".to_owned(), "Firefox".to_owned()),
        ("accept".to_owned(), "*/*".to_owned()),
        ("sec-fetch-mode".to_owned(), "cors".to_owned()),
    ];
    if !sent.is_null() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let bytes = |v: &Value| if v.is_null() { Vec::new() } else { v.to_string().into_bytes() };
    Exchange {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: bytes(sent),
        status,
        answer_type: "application/json".to_owned(),
        answer: bytes(answer),
    }
}

fn with(mut exchange: Exchange, name: &str, value: &str) -> Exchange {
    exchange.headers.push((name.to_owned(), value.to_owned()));
    exchange
}

#[test]
fn a_recorded_session_becomes_a_workflow_without_secrets_that_runs_on_other_data() {
    let token = "eyJhbGciOi.J9.abc";
    let login = json!({ "email": "anna@example.org", "password": "correct horse battery" });
    let all = [
        exchange("POST", "/api/login", &login, 200, &json!({ "token": token, "user": { "id": 7 } })),
        with(
            exchange(
                "POST",
                "/api/notes?from=web",
                &json!({ "title": "milk {{x}}", "owner_id": 7, "pages": 3 }),
                201,
                &json!({ "id": 41, "title": "milk {{x}}", "pages": 3, "made": "2026-11-29T02:03:04Z", "gone": null }),
            ),
            "authorization",
            &format!("Bearer {token}"),
        ),
        with(
            exchange("GET", "/api/notes/41", &Value::Null, 200, &json!({ "id": 41, "title": "milk {{x}}" })),
            "authorization",
            &format!("Bearer {token}"),
        ),
        with(
            exchange(
                "GET",
                "/api/search?q=correct%20horse%20battery&key=k-12345678",
                &Value::Null,
                200,
                &json!([]),
            ),
            "x-api-key",
            "k-12345678",
        ),
    ];
    let made = workflow("notes", &service(), &all);
    assert_eq!(made.steps, 4);
    let parsed = Workflow::parse("notes.yaml", &made.text).unwrap_or_else(|e| panic!("{e}\n{}", made.text));
    assert_eq!(parsed.steps.len(), 4);
    let file: Value = serde_yaml_ng::from_str(&made.text).expect("YAML");
    let steps = &file["steps"];
    assert_eq!(steps[0]["request"]["json"]["password"], "{{env.APP_PASSWORD}}");
    assert_eq!(steps[0]["request"]["json"]["email"], "anna@example.org");
    assert_eq!(steps[0]["capture"], json!({ "token": { "json": "$.token" }, "id": { "json": "$.user.id" } }));
    assert_eq!(steps[1]["request"]["headers"], json!({ "authorization": "Bearer {{token}}" }));
    assert_eq!(steps[1]["request"]["url"], "{{app.url}}/api/notes?from=web");
    assert_eq!(
        steps[1]["request"]["json"],
        json!({ "title": "milk \\{{x}}", "owner_id": "{{id}}", "pages": 3 })
    );
    assert_eq!(steps[1]["expect"]["status"], 201);
    assert_eq!(steps[1]["expect"]["json"]["$.pages"], 3);
    assert_eq!(steps[1]["expect"]["json"]["$.made"], json!({ "type": "string" }));
    assert_eq!(steps[1]["expect"]["json"]["$.gone"], Value::Null, "null says nothing");
    assert_eq!(steps[2]["request"]["url"], "{{app.url}}/api/notes/{{id_2}}");
    assert_eq!(steps[2]["name"], "GET /api/notes/:id_2");
    assert_eq!(steps[3]["request"]["headers"]["x-api-key"], "{{env.APP_X_API_KEY}}");
    assert_eq!(steps[3]["expect"]["json"], json!({ "$": { "type": "array" } }));
    for secret in [token, "correct horse battery", "k-12345678", "Firefox"] {
        assert!(!made.text.contains(secret), "{secret}: {}", made.text);
    }
    assert_eq!(made.variables.keys().collect::<Vec<_>>(), ["APP_PASSWORD", "APP_X_API_KEY"]);
}

#[test]
fn what_is_no_part_of_a_workflow_is_left_out_and_said() {
    let mut picture = exchange("GET", "/logo.png", &Value::Null, 200, &Value::Null);
    picture.answer_type = "image/png".to_owned();
    let mut page = exchange("GET", "/", &Value::Null, 200, &Value::Null);
    page.answer_type = "text/html".to_owned();
    page.answer = b"<html><title>Notes</title>".to_vec();
    let mut upload = exchange("POST", "/upload", &Value::Null, 201, &json!({ "id": "f-1" }));
    upload.headers.push(("content-type".to_owned(), "multipart/form-data; boundary=x".to_owned()));
    let mut form = exchange("POST", "/login", &Value::Null, 302, &Value::Null);
    form.headers.push(("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
    form.body = b"user=anna+b&password=hunter2%21&csrf_token=zzz".to_vec();
    let preflight = exchange("OPTIONS", "/api", &Value::Null, 204, &Value::Null);
    let cookie = with(page.clone(), "cookie", "session=abc");
    let made = workflow("x", &service(), &[cookie, picture, preflight, form, upload]);
    let file: Value = serde_yaml_ng::from_str(&made.text).expect("YAML");
    assert_eq!(file["steps"][0]["expect"]["body"]["contains"], json!(["<title>Notes</title>"]));
    assert_eq!(
        file["steps"][1]["request"]["form"],
        json!({ "user": "anna b", "password": "{{env.APP_PASSWORD}}", "csrf_token": "{{env.APP_CSRF_TOKEN}}" })
    );
    assert_eq!((made.steps, made.notes.len()), (3, 4), "{:?}", made.notes);
    assert!(!made.text.contains("session=abc") && !made.text.contains("hunter2"), "{}", made.text);
    Workflow::parse("x.yaml", &made.text).expect("a workflow");
}

#[test]
fn har_files_of_browsers_are_read() {
    let har = json!({ "log": { "version": "1.2", "entries": [
        { "request": { "method": "get", "url": "http://localhost:8000/a?b=1#c", "headers": [
            { "name": ":authority", "value": "x" }, { "name": "Accept", "value": "application/json" } ] },
          "response": { "status": 200, "content": { "mimeType": "application/json; charset=utf-8", "text": "{}" } } },
        { "request": { "method": "POST", "url": "http://LOCALHOST:8000/f", "headers": [],
            "postData": { "mimeType": "application/x-www-form-urlencoded", "params": [{ "name": "a", "value": "b" }] } },
          "response": { "status": 302, "content": { "mimeType": "", "text": "QQ==", "encoding": "base64" } } },
        { "request": { "method": "GET", "url": "https://cdn.example.org:443/x.js", "headers": [] },
          "response": { "status": 200, "content": {} } },
        { "request": { "method": "GET", "url": "data:text/plain,x", "headers": [] }, "response": { "status": 0 } }
    ] } });
    let found = parse_har(&har.to_string(), None).expect("reads");
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].method.as_str(), found[0].target.as_str()), ("GET", "/a?b=1"));
    assert_eq!(found[0].headers, [("accept".to_owned(), "application/json".to_owned())]);
    assert_eq!((found[0].answer_type.as_str(), found[0].answer.as_slice()), ("application/json", &b"{}"[..]));
    assert_eq!((found[1].body.as_slice(), found[1].answer.len()), (&b"a=b"[..], 0));
    assert_eq!(parse_har(&har.to_string(), Some("https://cdn.example.org/")).expect("reads").len(), 1);
    let other = parse_har(&har.to_string(), Some("http://nowhere")).expect_err("none");
    assert!(other.to_string().contains("http://localhost:8000, https://cdn.example.org"), "{other}");
    assert!(matches!(parse_har("{}", None), Err(HarError::Format(_))));
    assert_eq!(parse_har(r#"{"log":{"entries":[]}}"#, None), Err(HarError::Empty));
}
