//! A rollback that is tried on clones.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// A stack at generation 2, on trial for so long.
fn upgraded(watch: &str) -> Stack {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s", &format!("watch: {watch}"));
    stack.run(&["up"]).expect(0);
    let target = format!("app={}", ReleaseKind::V2.version());
    stack.run(&["rehearse", &target]).expect(0);
    stack.run(&["promote", &target, "--yes", "--detach"]).expect(0);
    stack
}

#[test]
fn the_way_back_is_tried_and_certified() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    assert!(stack.run(&["drill", "rollback"]).expect(3).all().contains("no generation to return to"));
    drop(stack);

    let stack = upgraded("1h");
    let rehearsed = certificate(&stack, "rehearse");
    stack.write_note("written since");
    let (before, old, new) = (stack.processes(), stack.rows(1), stack.rows(2));
    assert!(stack.run(&["drill", "rollback", "--dry-run"]).expect(0).stdout.contains("rollback-start"));
    let ran = stack.run(&["drill", "rollback"]).expect(0);
    assert!(ran.all().contains("production can be returned"), "{}", ran.all());
    let report = stack.report();
    assert_eq!((&report["procedure"], &report["conclusion"]), (&"rollback_drill".into(), &"pass".into()));
    let took = report["times"]["rollback_ms"].as_u64().expect("measured");
    let renewed = &report["certificate"];
    assert_eq!(renewed["rollback_ms"].as_u64(), Some(took));
    for kept in ["from", "to", "downtime_ms", "coverage"] {
        assert_eq!(renewed[kept], rehearsed[kept], "{kept}");
    }
    assert!(renewed["issued_at_ms"].as_i64() > rehearsed["issued_at_ms"].as_i64());
    assert_eq!((&renewed["drilled"], &rehearsed["drilled"]), (&true.into(), &Value::Null));
    assert!(
        stack.status()["rollback"]["text"].as_str().is_some_and(|t| t.contains("drilled")),
        "{}",
        stack.status()
    );

    // Nothing is touched and nothing is left.
    assert_eq!((stack.processes(), stack.rows(1), stack.rows(2)), (before, old, new));
    assert_eq!(stack.status()["generation"], 2);
    let staging = stack.root.join(".switchback/staging");
    let left: Vec<_> =
        fs::read_dir(&staging).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    assert!(
        left.iter().all(|p: &std::path::PathBuf| fs::read_dir(p).is_ok_and(|mut d| d.next().is_none())),
        "{left:?}"
    );
    // The page of it is one of its own.
    let page = stack.run(&["report", "--format", "html"]).expect(0).stdout;
    assert!(page.contains("Rollback drill") && !page.contains("downtime on production"), "{page}");
}

#[test]
fn a_way_back_that_is_gone_is_found() {
    let stack = upgraded("1h");
    let v1 = stack.root.join("releases").join(ReleaseKind::V1.version());
    let hidden = stack.root.join("hidden");
    fs::rename(&v1, &hidden).expect("moves");
    let ran = stack.run(&["drill", "rollback"]);
    assert_eq!(ran.code, Some(3), "{}", ran.all());
    fs::rename(&hidden, &v1).expect("moves");
    assert_eq!(stack.status()["generation"], 2);
}

#[test]
fn a_drill_is_made_by_the_clock_but_not_beside_a_trial() {
    let stack = upgraded("1h");
    stack.configure("watch: 1h", "watch: 1h, drill: 1h");
    let due = || stack.run(&["backup", "--if-due", "--json"]);
    let drills = || {
        let history = stack.run(&["history", "--json"]).expect(0).json();
        let runs = history.as_array().expect("runs").clone();
        runs.iter().filter(|r| r["procedure"] == "rollback_drill").count()
    };
    due();
    assert_eq!(drills(), 0, "the trial runs");
    stack.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(30), || stack.status()["trial"].is_null());
    due();
    due();
    assert_eq!(drills(), 1);
}

fn certificate(stack: &Stack, procedure: &str) -> Value {
    let history = stack.run(&["history", "--json"]).expect(0).json();
    let runs = history.as_array().expect("runs");
    let run = runs.iter().find(|r| r["procedure"] == procedure).expect("a run")["run"].clone();
    let report = stack.run(&["report", run.as_str().expect("text"), "--format", "json"]).expect(0).json();
    report["certificate"].clone()
}

/// A client that writes all the time and remembers what was acknowledged, until it is told to stop.
fn writing(stack: &Stack, stop: &std::sync::atomic::AtomicBool) -> (Vec<i64>, u32) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(true)
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .into();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let answer = agent
            .post(format!("http://127.0.0.1:{}/api/notes", stack.port))
            .header("Authorization", format!("Bearer {}", common::TOKEN))
            .header("Content-Type", "application/json")
            .send(r#"{"title": "written during the drill"}"#);
        let text = answer.and_then(|mut a| a.body_mut().read_to_string());
        match text.ok().and_then(|t| serde_json::from_str::<Value>(&t).ok()?["id"].as_i64()) {
            Some(id) => acknowledged.push(id),
            None => refused += 1,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (acknowledged, refused)
}

#[test]
fn production_itself_is_switched_and_returns_as_it_was_and_no_write_is_lost() {
    let stack = upgraded("1h");
    let drill = ["drill", "rollback", "--production", "--yes"];
    assert!(stack.run(&drill).expect(3).all().contains("generation 2 is on trial"));
    stack.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(30), || stack.status()["trial"].is_null());

    // Who asks, asks with the time that it will take.
    assert_eq!(stack.run(&["drill", "rollback", "--production"]).code, Some(2));
    let planned = stack.run(&["drill", "rollback", "--production", "--dry-run"]).expect(0).stdout;
    assert!(
        planned.contains("a copy that no client can reach") && planned.contains("flip-back"),
        "{planned}"
    );

    let files = stack.files(2);
    let generations = || -> Vec<String> {
        let all = fs::read_dir(stack.state().join("generations")).expect("lists").flatten();
        let mut all: Vec<String> = all.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    };
    let pointer = fs::read_to_string(stack.state().join("current.json")).expect("reads");
    let before = (generations(), stack.rows(1), stack.processes());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (ran, (acknowledged, refused)) = std::thread::scope(|scope| {
        let client = scope.spawn(|| writing(&stack, &stop));
        std::thread::sleep(Duration::from_millis(300));
        let ran = stack.run(&[&drill[..], &["--json"]].concat());
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (ran, client.join().expect("ends"))
    });
    let report = ran.expect(0).json();
    assert_eq!((&report["procedure"], &report["conclusion"]), (&"production_drill".into(), &"pass".into()));
    // Production was away, and the client saw it; everything that was acknowledged is there.
    assert!(refused > 0 && acknowledged.len() > 20, "{refused} refused, {} acknowledged", acknowledged.len());
    let database = stack.state().join("generations/2/stores/db/assistant.db");
    let connection =
        rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .expect("opens");
    let mut statement = connection
        .prepare("select id from notes where title = 'written during the drill' order by id")
        .expect("prepares");
    let kept: Vec<i64> =
        statement.query_map([], |r| r.get(0)).expect("asks").map(|id| id.expect("an id")).collect();
    let lost: Vec<&i64> = acknowledged.iter().filter(|id| !kept.contains(id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    // And production is as it was: generation, pointer, processes, what is beside it.
    assert_eq!(fs::read_to_string(stack.state().join("current.json")).expect("reads"), pointer);
    assert_eq!((generations(), stack.rows(1), stack.processes()), before);
    assert_eq!(stack.files(2), files);
    assert!(!stack.state().join("exports/generation-3").exists(), "nothing was written to the copy");

    // It was measured, and the certificate says so.
    let (rollback, away) = (report["times"]["rollback_ms"].as_u64(), report["times"]["downtime_ms"].as_u64());
    assert!(rollback.is_some() && away > rollback, "{}", report["times"]);
    let certificate = &report["certificate"];
    assert_eq!(certificate["rollback_ms"].as_u64(), rollback);
    assert_eq!((&certificate["from"], &certificate["drilled"]), (&certificate["to"], &true.into()));
    assert!(certificate["signature"]["value"].is_string());
    // It permits no promotion of what it does not name, and the next question knows the time.
    let page = stack.run(&["report", "--format", "html"]).expect(0).stdout;
    assert!(page.contains("Rollback drill on production"), "{page}");
}

#[test]
fn a_drill_on_production_waits_for_its_window_and_is_made_by_the_clock_within_it() {
    let stack = Stack::new(&[]);
    stack.configure("watch: 2s", "watch: 1h, drill_production: 1h");
    let why = stack.run(&["status"]).expect(2).all();
    assert!(why.contains("rollback.drill_production needs promotion.windows"), "{why}");
    // Two hours from now, wherever the day ends.
    let now = jiff::Zoned::now();
    let window = |from: i64, to: i64| {
        let at =
            |hours: i64| now.checked_add(jiff::Span::new().hours(hours)).expect("a time").strftime("%H:00");
        format!("promotion: {{ windows: [\"{}-{}\"] }}\nrollback: {{ budget: 5m", at(from), at(to))
    };
    stack.configure("rollback: { budget: 5m", &window(2, 4));
    stack.run(&["up"]).expect(0);
    let drill = ["drill", "rollback", "--production", "--yes"];
    let refused = stack.run(&drill).expect(3).all();
    assert!(refused.contains("outside of promotion.windows") && refused.contains("--any-time"), "{refused}");
    let drills = || {
        let history = stack.run(&["history", "--json"]).expect(0).json();
        let runs = history.as_array().expect("runs").clone();
        runs.iter().filter(|r| r["procedure"] == "production_drill").count()
    };
    stack.run(&["backup", "--if-due"]).expect(0);
    assert_eq!(drills(), 0, "outside of the window");
    stack.configure(&window(2, 4), &window(-1, 2));
    stack.run(&["backup", "--if-due"]);
    assert_eq!(drills(), 1);
    stack.run(&["backup", "--if-due"]);
    assert_eq!(drills(), 1, "it is not due again");
    assert_eq!(stack.status()["generation"], 1);
    // At any time, where somebody wants it; what it takes is known by now.
    stack.run(&[&drill[..], &["--any-time"]].concat()).expect(0);
    assert_eq!(drills(), 2);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

#[test]
fn a_drill_on_production_that_fails_leaves_production_as_it_was() {
    let stack = upgraded("1h");
    stack.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    stack.wait_until("the trial is over", Duration::from_secs(30), || stack.status()["trial"].is_null());
    stack.write_note("before the drill");
    let before = (stack.rows(2), stack.processes());
    // The artefact was changed since: the copy would not be what runs.
    let program = stack.root.join("releases").join(ReleaseKind::V2.version()).join("marker");
    fs::write(&program, "x").expect("writes");
    let drill = ["drill", "rollback", "--production", "--yes"];
    let ran = stack.run(&drill);
    assert!(matches!(ran.code, Some(3 | 4)), "{:?} {}", ran.code, ran.all());
    fs::remove_file(&program).expect("removes");
    assert_eq!((stack.rows(2), stack.processes()), before);
    // Something outside of the stack writes to production's data meanwhile.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = stack.state().join("generations/2/stores/uploads/uploads");
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                fs::write(folder.join("from-outside"), n.to_string()).expect("writes");
                std::thread::sleep(Duration::from_millis(10));
            }
            fs::remove_file(folder.join("from-outside")).expect("removes");
        });
        let ran = stack.run(&drill);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        ran
    });
    assert!(
        ran.all().contains("production's data changed while nothing ran on it: uploads"),
        "{}",
        ran.all()
    );
    assert_eq!((ran.code, stack.rows(2), stack.processes()), (Some(3), before.0.clone(), before.1.clone()));
    assert!(!stack.state().join("generations/3").exists(), "the copy is left");
    // A budget that the return does not keep: production is as before, and nothing is certified.
    stack.configure("budget: 5m", "budget: 1ms");
    let over = stack.run(&drill).expect(3).all();
    assert!(over.contains("the budget is 1 ms") && over.contains("production is as before"), "{over}");
    assert!(stack.report()["certificate"].is_null());
    assert_eq!((stack.rows(2), stack.processes()), before);
}
