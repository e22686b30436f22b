use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A small notes application: login with a cookie, notes as JSON, a job that is done on the third look.
#[derive(Default)]
struct App {
    notes: Mutex<Vec<Value>>,
    looks: AtomicU32,
    last: Mutex<String>,
}

impl App {
    fn start() -> (Arc<Self>, u16) {
        let app = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let shared = Arc::clone(&app);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let app = Arc::clone(&shared);
                std::thread::spawn(move || app.serve(stream));
            }
        });
        (app, port)
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).expect("nodelay");
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        loop {
            let mut head = String::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().expect("length");
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("body");
            let body = String::from_utf8_lossy(&body).into_owned();
            let (status, extra, answer) = self.answer(&head, &body);
            *self.last.lock().expect("lock") = format!("{head}\n{body}");
            let text = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: &str, body: &str) -> (u16, &'static str, String) {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match (method, path.split('?').next().unwrap_or("")) {
            ("POST", "/login") if body == "password=hunter%2F22&user=a" => {
                (302, "set-cookie: sid=s3ss10n; Path=/; HttpOnly\r\nlocation: /me\r\n", String::new())
            }
            ("GET", "/me") if head.contains("sid=s3ss10n") => (200, "", r#"{"user":"a"}"#.into()),
            ("POST", "/api/notes") => {
                let mut note: Value = serde_json::from_str(body).expect("json");
                let mut notes = self.notes.lock().expect("lock");
                note["id"] = Value::from(notes.len() + 1);
                notes.push(note.clone());
                (201, "", note.to_string())
            }
            ("GET", path) if path.starts_with("/api/notes/") => {
                let id: usize = path[11..].parse().unwrap_or(0);
                match self.notes.lock().expect("lock").get(id.wrapping_sub(1)) {
                    Some(note) => (200, "", note.to_string()),
                    None => (404, "", "{}".into()),
                }
            }
            ("GET", "/job") => {
                let done = self.looks.fetch_add(1, Ordering::SeqCst) >= 2;
                (200, "", format!(r#"{{"done":{done}}}"#))
            }
            ("POST", "/upload") => (200, "", "{}".into()),
            ("GET", "/slow") => {
                std::thread::sleep(Duration::from_secs(3));
                (200, "", "{}".into())
            }
            _ => (500, "", "it broke, token hunter/22".into()),
        }
    }
}

fn context(port: u16) -> WorkflowContext<'static> {
    WorkflowContext {
        environment: "candidate".into(),
        endpoints: BTreeMap::from([(
            ServiceName::new("app").expect("name"),
            Endpoint::new("127.0.0.1", port),
        )]),
        run_id: "run-1".into(),
        env: &|name| (name == "PASSWORD").then(|| "hunter/22".to_owned()),
        redactor: Redactor::new(),
        base_dir: PathBuf::from("."),
        sql: None,
        sent: None,
        cancel: &|| false,
    }
}

fn parse(text: &str) -> Workflow {
    Workflow::parse("checks/notes.yaml", text).expect("valid")
}

const JOURNEY: &str = r#"
vars: { title: "hello {{run.id}}" }
steps:
  - name: log in
    request:
      method: POST
      url: "{{app.url}}/login"
      form: { user: a, password: "{{env.PASSWORD}}" }
      follow_redirects: true
    expect: { status: 200, json: { $.user: a } }
    capture: { session: { cookie: sid } }
  - name: create
    request: { method: POST, url: "{{app.url}}/api/notes", json: { title: "{{title}}", n: 1 } }
    expect: { status: 201, json: { $.title: "{{title}}" } }
    capture: { id: { json: $.id } }
  - name: read back
    request: { url: "{{app.url}}/api/notes/{{id}}" }
    expect: { json: { $.id: "{{id}}", $.title: "hello run-1", $.n: { type: integer } }, max: 2s }
  - wait: 10ms
  - name: job
    request: { url: "{{app.url}}/job" }
    expect: { json: { $.done: true } }
    retry: { times: 5, every: 10ms }
  - name: row
    sql: { store: db, sql: "select count(*) from notes where id = {{id}}", expect: 1 }
"#;

#[test]
fn a_journey_passes_step_by_step() {
    let (_, port) = App::start();
    let mut context = context(port);
    let sql = |store: &StoreName, sql: &str, values: &[Value]| {
        assert_eq!((store.as_str(), values), ("db", &[Value::from(1)][..]));
        assert_eq!(sql, "select count(*) from notes where id = ?1");
        Ok(Value::from(1))
    };
    context.sql = Some(&sql);
    let result = run(&parse(JOURNEY), &context);
    assert_eq!(result.verdict, Verdict::Pass);
    assert_eq!(result.id, "workflow/notes");
    let seen: Vec<_> = result.steps.iter().map(|s| s.seen.as_str()).collect();
    assert_eq!(
        seen,
        [
            "POST /login -> 200",
            "POST /api/notes -> 201",
            "GET /api/notes/1 -> 200",
            "waited 10ms",
            "GET /job -> 200 (3 tries)",
            "db -> 1"
        ]
    );
    assert_eq!(result.measured["requests"], "6");
    assert!(result.measured.contains_key("step 02 create"), "{:?}", result.measured);
}

#[test]
fn a_failing_step_ends_the_workflow_and_hides_secrets() {
    let (_, port) = App::start();
    let text = r#"
steps:
  - name: break
    request: { method: PUT, url: "{{app.url}}/x", headers: { X-Key: "{{env.PASSWORD}}" }, query: { k: "{{env.PASSWORD}}" } }
  - request: { url: "{{app.url}}/job" }
"#;
    let result = run(&parse(text), &context(port));
    let Verdict::Fail { reasons } = &result.verdict else { panic!("{:?}", result.verdict) };
    assert_eq!(reasons[0].got.as_deref(), Some("500: it broke, token ***"));
    assert_eq!(
        reasons[0].reproduce.as_deref(),
        Some(&*format!(
            "curl -sS -X PUT -H 'X-Key: '\"$PASSWORD\" 'http://127.0.0.1:{port}/x?k='\"$PASSWORD\""
        ))
    );
    assert_eq!(result.steps.len(), 1);
    assert_eq!((result.steps[0].ok, result.steps[0].seen.as_str()), (false, "PUT /x?k=*** -> 500"));
    assert!(!serde_json::to_string(&result).expect("json").contains("hunter"));
}

#[test]
fn trouble_of_our_own_is_inconclusive_and_happens_before_any_request() {
    let (app, port) = App::start();
    let mut no_env = context(port);
    no_env.env = &|_| None;
    let first_request = "steps: [{ request: { url: '{{app.url}}/api/notes', method: POST, json: {} } }, \
                         { request: { url: '{{other.url}}/{{env.PASSWORD}}' } }]";
    let result = run(&parse(first_request), &no_env);
    let why =
        "the environment variable PASSWORD is not set; there is no service \"other\" in this environment";
    assert_eq!(result.verdict, Verdict::Inconclusive { why: why.into() });
    let result = run(&parse(JOURNEY), &context(port));
    assert_eq!(result.verdict, Verdict::Inconclusive { why: "the store \"db\" cannot be asked here".into() });
    let mut cancelled = context(port);
    cancelled.cancel = &|| true;
    assert_eq!(run(&parse("steps: [{ wait: 9s }]"), &cancelled).verdict.word(), "inconclusive");
    let mut production = context(port);
    production.environment = PRODUCTION.into();
    let writes = "steps: [{ request: { url: '{{app.url}}/api/notes', method: POST, json: {} } }]";
    assert_eq!(run(&parse(writes), &production).verdict.word(), "not run");
    assert!(app.notes.lock().expect("lock").is_empty());
}

#[test]
fn an_unreachable_or_slow_service_fails() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
    let get = "timeout: 300ms\nsteps: [{ request: { url: '{{app.url}}/slow' } }]";
    let Verdict::Fail { reasons } = run(&parse(get), &context(closed)).verdict else { panic!("fail") };
    assert_eq!(reasons[0].what, format!("connection refused by 127.0.0.1:{closed}"));
    let (_, port) = App::start();
    let began = Instant::now();
    let Verdict::Fail { reasons } = run(&parse(get), &context(port)).verdict else { panic!("fail") };
    assert!(reasons[0].what.starts_with("no complete response"), "{reasons:?}");
    assert!(began.elapsed() < Duration::from_millis(900));
    let wait = "timeout: 100ms\nsteps: [{ wait: 20s }]";
    let Verdict::Fail { reasons } = run(&parse(wait), &context(port)).verdict else { panic!("fail") };
    assert_eq!(reasons[0].what, "the workflow took too long");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn files_are_uploaded_but_only_from_the_folder() {
    let (app, port) = App::start();
    let folder = tempfile::tempdir().expect("folder");
    let outside = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(folder.path().join("x.png"), b"PNG!").expect("write");
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("link");
    let mut context = context(port);
    context.base_dir = folder.path().to_owned();
    let upload = |path: &str| {
        format!(
            "steps: [{{ request: {{ method: POST, url: '{{{{app.url}}}}/upload', \
             multipart: {{ f: {{ path: {path}, content_type: image/png }}, note: hi }} }} }}]"
        )
    };
    assert_eq!(run(&parse(&upload("x.png")), &context).verdict, Verdict::Pass);
    let last = app.last.lock().expect("lock").clone();
    assert!(
        last.contains("name=\"f\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\nPNG!\r\n"),
        "{last}"
    );
    assert!(last.contains("name=\"note\"\r\n\r\nhi\r\n"), "{last}");
    let Verdict::Inconclusive { why } = run(&parse(&upload("link")), &context).verdict else {
        panic!("refused")
    };
    assert_eq!(why, "\"link\" is outside the workflow's folder");
}

/// Prints what the runner costs per request; run with `--release --run-ignored all --no-capture`.
#[test]
#[ignore = "a measurement, not a test"]
fn overhead_per_request() {
    let (_, port) = App::start();
    let url = format!("http://127.0.0.1:{port}/me?sid=s3ss10n");
    let step = "  - { request: { url: '{{app.url}}/me?sid=s3ss10n' }, expect: { json: { $.user: a } } }\n";
    let workflow = parse(&format!("steps:\n{}", step.repeat(400)));
    let mut samples = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let fresh: ureq::Agent = ureq::Agent::config_builder().max_idle_connections(0).build().into();
    let reused = ureq::Agent::new_with_defaults();
    let client = HttpClient::new(Limits::default(), []);
    let request = HttpRequest {
        method: "GET".into(),
        url: url.clone(),
        headers: Vec::new(),
        body: None,
        redirects: Redirects::Return,
        timeout: Duration::from_secs(10),
    };
    for _ in 0..10 {
        let plain = |agent: &ureq::Agent| {
            let began = Instant::now();
            for _ in 0..400 {
                let text = agent.get(&url).call().expect("ok").body_mut().read_to_string().expect("body");
                assert!(text.contains("user"));
            }
            began.elapsed() / 400
        };
        samples[0].push(plain(&reused));
        samples[1].push(plain(&fresh));
        let began = Instant::now();
        (0..400).for_each(|_| drop(client.send(&request).expect("ok")));
        samples[2].push(began.elapsed() / 400);
        let began = Instant::now();
        assert_eq!(run(&workflow, &context(port)).verdict, Verdict::Pass);
        samples[3].push(began.elapsed() / 400);
    }
    samples.iter_mut().for_each(|s| s.sort());
    let [reused, fresh, client, workflow] = samples.map(|s| s[5]);
    eprintln!(
        "per request: ureq reusing a connection {reused:?}, ureq connecting {fresh:?}, \
         our client {client:?}, workflow {workflow:?}"
    );
    assert!(workflow < fresh * 3 + Duration::from_millis(1));
}

#[test]
fn rows_are_taken_one_after_the_other_each_with_its_own_values() {
    let (_, port) = App::start();
    let text = r#"
rows: [{ title: one, n: 1 }, { title: two, n: 2 }, { title: three, n: 3 }]
steps:
  - name: create
    request: { method: POST, url: "{{app.url}}/api/notes", json: { title: "{{title}}", n: "{{n}}" } }
    expect: { status: 201, json: { $.title: "{{title}}", $.n: "{{n}}" } }
    capture: { id: { json: $.id } }
  - name: read
    request: { url: "{{app.url}}/api/notes/{{id}}" }
    expect: { json: { $.title: "{{title}}" } }
"#;
    let result = run(&parse(text), &context(port));
    assert_eq!(result.verdict, Verdict::Pass, "{result:?}");
    assert_eq!((result.steps.len(), result.steps[5].name.as_str()), (6, "row 3: read"));
    let bad = text
        .replace("title: two", "title: \"two\\n\"")
        .replace("$.title: \"{{title}}\", $.n", "$.title: {matches: \"^[a-z]+$\"}, $.n");
    let result = run(&parse(&bad), &context(port));
    let Verdict::Fail { reasons } = result.verdict else { panic!("{:?}", result.verdict) };
    assert!(reasons[0].at.starts_with("row 2: create"), "{reasons:?}");
}

#[test]
fn fifty_workers_do_it_at_the_same_time() {
    let (server, port) = App::start();
    let text = r#"
parallel: 50
steps:
  - request: { method: POST, url: "{{app.url}}/api/notes", json: { title: "{{run.id}} {{worker}}" } }
    expect: { status: 201 }
    capture: { id: { json: $.id } }
  - request: { url: "{{app.url}}/api/notes/{{id}}" }
    expect: { json: { $.title: "{{run.id}} {{worker}}" } }
"#;
    let result = run(&parse(text), &context(port));
    assert_eq!(result.verdict, Verdict::Pass, "{result:?}");
    assert_eq!(
        (result.measured["workers that passed"].as_str(), result.measured["requests"].as_str()),
        ("50", "100")
    );
    let titles: std::collections::BTreeSet<String> =
        server.notes.lock().expect("lock").iter().map(|n| n["title"].to_string()).collect();
    assert_eq!(titles.len(), 50);
    let broken = text.replace("$.title: \"{{run.id}} {{worker}}\"", "$.title: \"~\"");
    let Verdict::Fail { reasons } = run(&parse(&broken), &context(port)).verdict else { panic!("passes") };
    assert!(reasons.len() == 5 && reasons[0].at.starts_with("worker "), "{reasons:?}");
}

#[test]
fn what_was_sent_is_waited_for_and_told_apart() {
    use switchback_core::egress::{Kind, Sent};
    let (_, port) = App::start();
    let looks = AtomicU32::new(0);
    let sent = || {
        let mut old = Sent::new(Kind::Smtp, "app", "mail.example.com", 25);
        old.recipients = vec!["anna@example.com".into()];
        let mut new = old.clone();
        new.at_ms = i64::MAX;
        new.subject = Some("Order 17".into());
        Ok(if looks.fetch_add(1, Ordering::SeqCst) < 2 { vec![old] } else { vec![old, new] })
    };
    let with = |text: &str, sent: Option<SentCallback<'_>>| {
        let mut own = context(port);
        own.sent = sent;
        run(&parse(text), &own).verdict
    };
    let text = r#"
steps:
  - sent: { kind: smtp, to: anna@example.com, subject: "~ ^Order \\d+$", times: 1 }
    retry: { times: 10, every: 1ms }
"#;
    assert_eq!(with(text, Some(&sent)), Verdict::Pass);
    assert!(looks.load(Ordering::SeqCst) >= 3, "it was waited for");
    let Verdict::Fail { reasons } = with(&text.replace("anna@", "ben@"), Some(&sent)) else {
        panic!("passes")
    };
    assert!(reasons[0].got.as_deref().is_some_and(|g| g.contains("mail to mail.example.com")), "{reasons:?}");
    assert!(matches!(with(text, None), Verdict::Inconclusive { .. }));
    assert!(!parse(text).runs_on_production());
}
