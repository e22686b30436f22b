use super::*;
use crate::check::Failure;
use crate::ids::ServiceName;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const FULL: &str = r#"
name: write a note and read it back
timeout: 30s
vars: { title: "hello {{run.id}}" }
steps:
  - name: create
    request:
      method: POST
      url: "{{app.url}}/api/notes"
      headers: { Authorization: "Bearer {{env.ASSISTANT_TOKEN}}" }
      query: { limit: 5 }
      json: { title: "{{title}}" }
      follow_redirects: false
      timeout: 10s
    expect:
      status: 201
      headers: { content-type: "~ json" }
      json: { "$.id": exists, "$.title": "{{title}}", "$.items": {length: 3}, "$.n": {">=": 1},
              "$.s": {matches: "^a"}, "$.x": {type: string}, "$.gone": absent }
      body: { contains: ["id"], not_contains: ["error"], matches: "tit.e" }
      max: 2s
    capture: { id: { json: "$.id" }, csrf: { regex: 'name="csrf" value="([^"]+)"' }, loc: { header: location }, st: status, sess: {cookie: name} }
    retry: { times: 5, every: 200ms }
  - wait: 500ms
  - name: row
    sql: { store: db, sql: "select count(*) from notes where id = {{id}}", expect: 1 }
  - name: upload
    request:
      method: POST
      url: "{{app.url}}/files/{{id}}"
      multipart: { file: { path: x.png, content_type: image/png }, note: "for {{title}}" }
    expect: { status: "2xx" }
"#;

fn refused(text: &str) -> (usize, String, Option<String>) {
    let e = Workflow::parse("checks/notes.yaml", text).expect_err("refused");
    (e.line, e.message, e.hint)
}

#[test]
fn the_whole_format_is_read() {
    let w = Workflow::parse("checks/notes.yaml", FULL).expect("valid");
    assert_eq!((w.id.as_str(), w.steps.len()), ("notes", 4));
    assert!(!w.runs_on_production());
    let names: Vec<_> = w.references.iter().map(|r| (r.kind, r.name.as_str(), r.line)).collect();
    assert_eq!(
        names,
        [
            (ReferenceKind::Service, "app", 9),
            (ReferenceKind::Env, "ASSISTANT_TOKEN", 10),
            (ReferenceKind::Store, "db", 26),
            (ReferenceKind::Service, "app", 30),
        ]
    );
    let e = w.check_names("n.yaml", &["ap"], &["db"]).expect_err("no such service");
    assert_eq!(e.to_string(), "n.yaml:9:7: there is no service \"app\" in the stack");
    assert_eq!(e.hint.as_deref(), Some("did you mean `ap`?"));
}

#[test]
fn a_mistake_is_reported_with_its_line_and_a_suggestion() {
    let (line, message, hint) =
        refused("steps:\n  - request:\n      metod: GET\n      url: '{{app.url}}/'\n");
    assert_eq!((line, message.as_str()), (3, "unknown key `metod` in steps[0].request"));
    assert_eq!(hint.as_deref(), Some("did you mean `method`?"));

    let (line, message, hint) = refused(
        "steps:\n  - request: { url: '{{app.url}}/' }\n    expect:\n      json:\n        $.a: { lenght: 3 }\n",
    );
    assert_eq!(line, 5, "{message}");
    assert!(message.starts_with("unknown key `lenght`"), "{message}");
    assert_eq!(hint.as_deref(), Some("did you mean `length`?"));

    let (line, message, hint) = refused(
        "vars: { title: x }\nsteps:\n  - request:\n      url: '{{app.url}}/'\n      json:\n        t: '{{titel}}'\n",
    );
    assert_eq!(line, 6);
    assert_eq!(message, "steps[0].request.json.t: the variable `titel` has no value here");
    assert_eq!(hint.as_deref(), Some("did you mean `title`?"));

    for (text, line, part) in [
        ("steps: []\n", 1, "without steps"),
        ("name: x\n", 1, "missing field `steps`"),
        ("- a\n", 1, "not a map"),
        ("", 1, "not a map"),
        ("steps: [\n", 2, "did not find expected"),
        ("steps:\n  - name: x\n", 2, "exactly one of"),
        ("steps:\n  - wait: soon\n", 2, "not a duration"),
        ("steps:\n  - request: { url: /api }\n", 2, "not absolute"),
        ("steps:\n  - request: { url: '{{app.ur}}' }\n", 2, "has .url, .host"),
        ("steps:\n  - request: { url: '{{app.url' }\n", 2, "without `}}`"),
        ("steps:\n  - request: { url: '{{app.url}}', method: post }\n", 2, "not a method"),
        ("steps:\n  - request: { url: '{{app.url}}' }\n    expect: { status: 99 }\n", 3, "not a status"),
        (
            "steps:\n  - request: { url: '{{app.url}}' }\n    expect:\n      json: { 'id': 1 }\n",
            4,
            "not a JSONPath",
        ),
        (
            "steps:\n  - request: { url: '{{app.url}}' }\n    expect:\n      body:\n        matches: '(a'\n",
            5,
            "not a regular expression",
        ),
        (
            "steps:\n  - request: { url: '{{app.url}}' }\n    capture:\n      a: { regex: '[' }\n",
            4,
            "not a regular expression",
        ),
        (
            "steps:\n  - request: { url: '{{app.url}}' }\n    capture: { a: status }\n  - request: { url: '{{app.url}}' }\n    capture: { a: status }\n",
            5,
            "already has a value from \"step 1\"",
        ),
        ("steps:\n  - request: { url: '{{app.url}}' }\n    retry: { times: 0 }\n", 3, "0 tries"),
        ("steps:\n  - sql: { store: db, sql: \"select '{{run.id}}'\" }\n", 2, "inside quotes"),
        ("steps:\n  - wait: 1s\n    capture: { a: status }\n", 3, "nothing"),
        (
            "steps:\n  - request: { url: '{{app.url}}', multipart: { f: { path: ../../etc/passwd } } }\n",
            2,
            "outside",
        ),
        ("steps:\n  - wait: 1s\n    wait: 2s\n", 2, "duplicate"),
    ] {
        let (got_line, message, _) = refused(text);
        let mentions = message.contains(part) || (part == "nothing" && message.contains("capture"));
        assert!(mentions, "{text}\n-> {message}");
        assert_eq!(got_line, line, "{text}\n-> {message}");
    }
}

#[test]
fn production_is_only_touched_by_steps_that_read() {
    let parse = |text: &str| Workflow::parse("a.yaml", text).expect("valid").runs_on_production();
    let get = "steps: [{ request: { url: '{{app.url}}/' } }, { sql: { store: db, sql: select 1 } }]";
    let post = "steps: [{ request: { url: '{{app.url}}/', method: POST } }]";
    assert!(parse(get));
    assert!(!parse(post));
    assert!(parse(&format!("production: always\n{post}")));
    assert!(!parse(&format!("production: never\n{get}")));
    assert!(!parse("steps: [{ sql: { store: db, sql: delete from a } }]"));
}

fn endpoints() -> BTreeMap<ServiceName, Endpoint> {
    BTreeMap::from([(ServiceName::new("app").expect("name"), Endpoint::new("127.0.0.1", 8080))])
}

fn with_scope<T>(vars: &[(&str, Value)], run: impl FnOnce(&Scope<'_>) -> T) -> T {
    let endpoints = endpoints();
    let env = |name: &str| (name == "TOKEN").then(|| "s3cr3t 'value'".to_owned());
    let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    run(&Scope { run_id: "r1", endpoints: &endpoints, env: &env, vars })
}

#[test]
fn values_keep_their_type_when_a_string_is_only_a_placeholder() {
    with_scope(&[("n", json!(7)), ("o", json!({"a": [1]}))], |scope| {
        let value = json!({"a": "{{n}}", "b": "no. {{n}}", "c": ["{{ o }}"], "d": "\\{{n}}"});
        assert_eq!(
            scope.render_value(&value).expect("rendered"),
            json!({"a": 7, "b": "no. 7", "c": [{"a": [1]}], "d": "{{n}}"})
        );
        let missing = Template::parse("{{env.NOPE}}").expect("valid").render(scope);
        assert_eq!(missing, Err(RenderError::MissingEnv("NOPE".into())));
    });
}

#[test]
fn sql_values_are_bound_and_never_pasted() {
    let w = Workflow::parse("w.yaml", FULL).expect("valid");
    let Some(StepKind::Sql(sql)) = w.steps[2].kind() else { panic!("sql") };
    with_scope(&[("id", json!("1; drop table notes"))], |scope| {
        let (text, values) = prepare_sql(sql, scope).expect("prepared");
        assert_eq!(text, "select count(*) from notes where id = ?1");
        assert_eq!(values, [json!("1; drop table notes")]);
    });
}

fn judge(expect: &str, status: u16, body: &str) -> Vec<Failure> {
    let expect: Expect = serde_yaml_ng::from_str(expect).expect("valid");
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let response = Response::new(status, headers, body.into(), Duration::from_millis(5));
    let redactor = Redactor::from_values(["topsecret"]);
    with_scope(&[("t", json!("x"))], |scope| {
        evaluate(&expect, &response, scope, &redactor, "create").expect("judged")
    })
}

#[test]
fn a_right_response_has_no_failures() {
    let body = r#"{"id":1,"s":"abc","l":[{"k":1},{"k":2}],"t":"x","f":2.0,"null":null}"#;
    let expect = r#"
status: [201, "2xx"]
headers: { Content-Type: "~ ^application/(json|x)$" }
json:
  $.id: 1
  $.f: 2
  $.s: { matches: "^a", length: 3, not: abd, contains: b }
  $.l: { length: { ">=": 2, "<": 3 }, type: array }
  $.l[*].k: [1, 2]
  $.l[?@.k == 2]: { length: 1 }
  $.null: exists
  $.t: "{{t}}"
  $.gone: absent
  $.also: { exists: false }
body: { contains: ['"id"'], not_contains: [error], matches: '"t":"{{t}}"' }
max: 1s
"#;
    assert_eq!(judge(expect, 200, body), []);
}

#[test]
fn a_wrong_response_is_explained() {
    let lines = |expect: &str, status, body: &str| -> Vec<String> {
        judge(expect, status, body)
            .into_iter()
            .map(|f| {
                format!("{} | {} | {}", f.what, f.expected.unwrap_or_default(), f.got.unwrap_or_default())
            })
            .collect()
    };
    assert_eq!(lines("{}", 500, "oh topsecret no"), ["wrong status | 2xx or 3xx | 500: oh *** no"]);
    assert_eq!(lines("status: 201", 200, ""), ["wrong status | 201 | 200"]);
    assert_eq!(
        lines("json: { $.n: 5 }", 200, r#"{"n":"5"}"#),
        [r#"wrong value at $.n | 5 | "5""#],
        "a number that became a string is caught"
    );
    assert_eq!(
        lines("json: { $.n: { type: integer } }", 200, r#"{"n":1.5}"#),
        ["wrong value at $.n | integer | number (1.5)"]
    );
    assert_eq!(
        lines("json: { $.n: exists }", 200, "{}"),
        ["wrong value at $.n | something there | nothing there"]
    );
    assert_eq!(lines("json: { $.n: absent }", 200, r#"{"n":1}"#), ["wrong value at $.n | nothing there | 1"]);
    assert_eq!(
        lines("json: { $.n: { length: 2 } }", 200, r#"{"n":[1]}"#),
        ["wrong value at $.n | length 2 | length 1 ([1])"]
    );
    assert_eq!(
        lines("json: { $.n: { '>': 1 } }", 200, r#"{"n":"9"}"#),
        [r#"wrong value at $.n | > 1 | "9""#]
    );
    let not_json = lines("json: { $.n: 1 }", 200, "<html>");
    assert!(not_json[0].starts_with("the body is not JSON | JSON | expected value"), "{not_json:?}");
    assert_eq!(lines("headers: { x: a }", 200, ""), ["wrong header x | a | no such header"]);
    assert_eq!(lines("max: 1ms", 200, ""), ["too slow | at most 1 ms | 5 ms"]);
    let long = lines("body: { contains: [zzz] }", 200, &"é".repeat(5000));
    assert!(long[0].chars().count() < 260 && long[0].ends_with('…'), "{long:?}");
}

#[test]
fn values_are_captured() {
    let mut response = Response::new(
        200,
        vec![("location".into(), "/n/1".into())],
        br#"{"id":1,"h":"name=\"csrf\" v"}"#.to_vec(),
        Duration::ZERO,
    );
    response.cookies.push(("sid".into(), "abc".into()));
    let redactor = Redactor::new();
    let take =
        |c: Capture| capture("v", &c, &response, "s", &redactor).map_err(|f| f.got.unwrap_or_default());
    assert_eq!(take(Capture::Json("$.id".into())), Ok(json!(1)));
    assert_eq!(take(Capture::Regex(r"(\d)".into())), Ok(json!("1")));
    assert_eq!(take(Capture::Header("Location".into())), Ok(json!("/n/1")));
    assert_eq!(take(Capture::Status), Ok(json!(200)));
    assert_eq!(take(Capture::Cookie("sid".into())), Ok(json!("abc")));
    assert_eq!(take(Capture::Cookie("x".into())), Err("cookies: [sid]".into()));
    assert!(take(Capture::Json("$.no".into())).is_err());
}

#[test]
fn the_reproduce_command_quotes_and_hides() {
    let text = r#"
steps:
  - request:
      method: POST
      url: "{{app.url}}/a b"
      headers: { Authorization: "Bearer {{env.TOKEN}}" }
      query: { q: "{{env.TOKEN}}&x" }
      json: { it's: "{{env.TOKEN}}" }
"#;
    let w = Workflow::parse("w.yaml", text).expect("valid");
    let Some(StepKind::Request(request)) = w.steps[0].kind() else { panic!("request") };
    with_scope(&[], |scope| {
        let prepared = prepare(request, scope).expect("prepared");
        let mut redactor = Redactor::new();
        redactor.add_named("TOKEN", "s3cr3t 'value'");
        assert_eq!(
            curl_command(&prepared, &redactor),
            "curl -sS -X POST -H 'Authorization: Bearer '\"$TOKEN\" -H 'content-type: application/json' \
             --data-raw '{\"it'\\''s\":\"'\"$TOKEN\"'\"}' \
             'http://127.0.0.1:8080/a%20b?q='\"$TOKEN\"%26x"
        );
    });
}

#[test]
fn secrets_are_replaced_in_every_form() {
    let mut redactor = Redactor::from_values(["abc", "pass\"word", "pass\"word-longer", "a/b+c"]);
    redactor.add("");
    assert_eq!(redactor.redact("abc pass\"word-longer pass\\\"word a%2Fb%2Bc"), "abc *** *** ***");
}

#[test]
fn the_format_has_a_schema() {
    let schema = serde_json::to_value(schemars::schema_for!(Workflow)).expect("schema");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert!(schema["properties"].get("references").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Workflow::parse("x.yaml", &text);
    }

    #[test]
    fn no_damage_to_a_workflow_makes_the_parser_panic(
        at in 0..FULL.len(), cut in 0usize..40, insert in "[-{}\\[\\]:,'\"&*!|> \\n\\ta-z$.]{0,6}"
    ) {
        let end = (at + cut).min(FULL.len());
        let text = format!("{}{insert}{}", &FULL[..at], &FULL[end..]);
        if let Err(e) = Workflow::parse("x.yaml", &text) {
            prop_assert!(e.line >= 1 && e.line <= text.lines().count() + 1, "{e}");
        }
    }

    #[test]
    fn no_body_makes_the_judge_panic(body in proptest::collection::vec(any::<u8>(), 0..300), status in any::<u16>()) {
        let w = Workflow::parse("x.yaml", FULL).expect("valid");
        let response = Response::new(status, Vec::new(), body, Duration::from_secs(9));
        let redactor = Redactor::from_values(["\u{fffd}\u{fffd}\u{fffd}\u{fffd}"]);
        with_scope(&[("title", json!("t"))], |scope| {
            let failures = evaluate(&w.steps[0].expect, &response, scope, &redactor, "s").expect("judged");
            prop_assert!(!failures.is_empty());
            for (name, what) in &w.steps[0].capture {
                let _ = capture(name, what, &response, "s", &redactor);
            }
            Ok(())
        })?;
    }
}

#[test]
fn deep_nesting_is_refused_not_a_crash() {
    for open in ["[", "{a: ", "- "] {
        assert!(Workflow::parse("x.yaml", &format!("steps: {}", open.repeat(100_000))).is_err());
    }
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\nsteps: []\n";
    assert!(Workflow::parse("x.yaml", bomb).is_err());
}

#[test]
fn rows_workers_and_rules_on_what_was_sent_have_rules_of_their_own() {
    let with = |head: &str, step: &str| refused(&format!("{head}\nsteps:\n  - {step}\n")).1;
    let get = "request: { url: \"{{app.url}}/{{a}}\" }";
    assert!(Workflow::parse("f", &format!("rows: [{{ a: 1 }}, {{ a: 2 }}]\nsteps:\n  - {get}\n")).is_ok());
    assert!(with("rows: [{ a: 1 }, { b: 2 }]", get).contains("same names"));
    assert!(with("vars: { a: 0 }\nrows: [{ a: 1 }]", get).contains("already has a value from vars"));
    assert!(with("parallel: 0", "wait: 1s").contains("between 1 and 100"));
    assert!(with("parallel: 2", "sent: { kind: smtp }").contains("not possible in parallel"));
    assert!(with("", "sent: { kind: smtp, to: \"~ (\" }").contains('('));
    assert!(with("", "{ sent: { kind: smtp }, wait: 1s }").contains("exactly one of"));
    assert!(with("", "sent: { kind: pigeon }").contains("pigeon"));
}
