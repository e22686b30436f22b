//! Twelve bad releases on a Compose stack, each rolled back by the trigger that is there for it, and twenty good ones under noise, of
//! which none is. About twenty minutes.

mod common;

use common::docker::{Example, Stack, docker, full, psql_in};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Releases that go wrong by themselves: which, what ends their trial, and what it says.
const BAD: [(&str, &str, &str); 10] = [
    ("workflow", "", "probes in a row failed"),
    ("health", "", "probes in a row failed"),
    ("restarts", "restarts", "was started again 2 times"),
    ("out-of-memory", "restarts", "bank "),
    ("errors", "errors", "workflow/audit failed"),
    ("latency", "latency", "workflow/audit takes"),
    ("complains", "logs", "the books cannot be opened"),
    ("panics", "logs", "panic: ledger out of balance"),
    ("memory", "memory", "that it may use"),
    ("disk", "disk", "are free"),
];
const GOOD: usize = 20;

/// Images of one test, gone with it.
struct Images {
    repository: String,
    tags: Vec<String>,
}

impl Images {
    fn new() -> Self {
        let repository = format!("sbt-releases-{}/bank", std::process::id());
        docker(&["tag", "sbt/bank:1", &format!("{repository}:1")]).expect(0);
        Self { repository, tags: vec!["1".to_owned()] }
    }

    fn build(&mut self, tag: &str, arguments: &[&str], folder: &Path) {
        let name = format!("{}:{tag}", self.repository);
        let folder = folder.to_str().expect("text");
        let args = [&["build", "-q", "-t", &name], arguments, &[folder]].concat();
        let mut build = Command::new("docker");
        let done = build.args(args).env("DOCKER_BUILDKIT", "0").output().expect("docker is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.tags.push(tag.to_owned());
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        for tag in &self.tags {
            docker(&["image", "rm", "-f", &format!("{}:{tag}", self.repository)]);
        }
    }
}

/// A session of the database, for as long as this lives.
struct Session(Child);

impl Session {
    fn start(stack: &Stack, sql: &str) -> Self {
        let container = stack.container("db").expect("it runs");
        let mut command = Command::new("docker");
        command.args(["exec", &container, "psql", "-U", "ledger", "-d", "ledger", "-c", sql]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stack(images: &Images, rollback: &str) -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    stack.set("BANK_IMAGE", &images.repository);
    stack.edit("compose.yaml", "  bank:\n", "  bank:\n    mem_limit: 96m\n");
    stack.edit(
        "compose.yaml",
        "  db:\n    image:",
        "  db:\n    command: [postgres, -c, max_connections=20]\n    image:",
    );
    stack.edit("switchback.yaml", "rollback: { watch: 1h, every: 1s }", &format!("rollback: {rollback}"));
    stack.up();
    stack.psql("create table entries (id int primary key)");
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn promote(stack: &Stack, version: &str) {
    let to = format!("bank={version}");
    let args = ["promote", &to, "--yes", "--detach", "--again", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
}

fn why(stack: &Stack) -> Value {
    stack.run(&["status", "--why", "--json"]).expect(0).json()
}

/// Waits for the rollback; by what it was, and how long the way back took, in milliseconds.
fn rolled_back(stack: &Stack, kind: &str, trigger: &str, says: &str) -> u64 {
    let back = || {
        let status = stack.run(&["status", "--json"]).expect(0).json();
        status["generation"] == 1 && status["unfinished"].is_null() && status["busy"].is_null()
    };
    stack.wait_until(&format!("{kind}: production is back"), Duration::from_secs(240), back);
    let why = why(stack);
    let decisions = why["decisions"].as_array().expect("a list");
    let fired: Vec<&Value> =
        decisions.iter().filter(|d| d["standing"] == "fired" && d["action"] == "rollback").collect();
    let text = |d: &Value| d["what"].as_str().unwrap_or_default().to_owned();
    if trigger.is_empty() {
        assert!(fired.is_empty(), "{kind}: {fired:#?}");
        assert!(decisions.iter().any(|d| text(d).contains(says)), "{kind}: {decisions:#?}");
    } else {
        let one: Vec<(&Value, String)> = fired.iter().map(|d| (&d["trigger"], text(d))).collect();
        assert!(one.len() == 1 && *one[0].0 == trigger && one[0].1.contains(says), "{kind}: {one:?}");
    }
    assert_eq!(why["same_again"], true, "{kind}: {why:#}");
    assert_eq!(stack.bank()["release"], 1, "{kind}");
    let failed = decisions.iter().find(|d| text(d).starts_with("failed, rolled back"));
    let failed_ms = failed.and_then(|d| d["at_ms"].as_u64()).expect("the trial failed");
    let rollback = stack.report();
    assert_eq!(rollback["procedure"], "rollback", "{kind}");
    let times = &rollback["times"];
    let total = times["rollback_ms"].as_u64().or(times["total_ms"].as_u64()).expect("a time");
    assert!(failed_ms > 0 && total < 60_000, "{kind}: {times}");
    total
}

#[test]
fn twelve_bad_releases_are_rolled_back_each_by_its_trigger() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let mut images = Images::new();
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/upgrade-infrastructure/images/bank-bad");
    for (kind, ..) in BAD {
        images.build(
            kind,
            &[
                "--build-arg",
                "BASE=sbt/bank:2",
                "--build-arg",
                &format!("BAD={kind}"),
                "--build-arg",
                "ON=/tmp/on",
            ],
            &folder,
        );
    }
    let triggers = "{ logs: { action: rollback }, memory: { percent: 70 }, latency: { above: 200ms }, \
                    database: { lock_wait: 2s }, disk: { action: rollback, free_mib: 1 } }";
    let stack = stack(&images, &format!("{{ watch: 1h, every: 500ms, failures: 8, triggers: {triggers} }}"));
    let mut times = Vec::new();
    for (kind, trigger, says) in BAD {
        if kind == "disk" {
            let free = stack.run(&["status", "--json"]).expect(0).json();
            assert!(free.is_object());
            let now =
                docker(&["run", "--rm", "--entrypoint", "df", "sbt/bank:1", "-m", "/"]).expect(0).stdout;
            let words: Vec<&str> = now.lines().last().expect("a line").split_whitespace().collect();
            let free: u64 = words[3].parse().expect("a number");
            stack.edit("switchback.yaml", "free_mib: 1 ", &format!("free_mib: {} ", free - 800));
        }
        promote(&stack, kind);
        docker(&["exec", &stack.container("bank").expect("it runs"), "touch", "/tmp/on"]).expect(0);
        times.push((kind, rolled_back(&stack, kind, trigger, says)));
        if kind == "disk" {
            let text = std::fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
            let at = text.find("free_mib: ").expect("is there");
            let end = at + text[at..].find(" }").expect("its end");
            std::fs::write(
                stack.root.join("switchback.yaml"),
                format!("{}free_mib: 1 {}", &text[..at], &text[end..]),
            )
            .expect("writes");
        }
    }
    // A release whose sessions hold locks, and one whose sessions use up the connections.
    images.build("plain", &["--build-arg", "BASE=sbt/bank:2", "--build-arg", "BAD=nothing"], &folder);
    promote(&stack, "plain");
    let holds = Session::start(&stack, "begin; lock table entries; select pg_sleep(600)");
    std::thread::sleep(Duration::from_secs(1));
    let waits = Session::start(&stack, "select count(*) from entries");
    times.push(("locks", rolled_back(&stack, "locks", "database", "has waited for a lock")));
    drop((holds, waits));
    promote(&stack, "plain");
    let many: Vec<Session> = (0..18).map(|_| Session::start(&stack, "select pg_sleep(600)")).collect();
    times.push((
        "connections",
        rolled_back(&stack, "connections", "database", "connections to db are in use"),
    ));
    drop(many);
    assert_eq!(times.len(), 12);
    eprintln!("MEASURED rollbacks by trigger, in milliseconds: {times:?}");
}

/// Uses the processors for moments, as neighbours do.
struct Noise(Arc<AtomicBool>);

impl Noise {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for offset in 0..2u64 {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut n = offset;
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let until = Instant::now() + Duration::from_millis((n >> 33) % 400);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    std::thread::sleep(Duration::from_millis((n >> 43) % 600));
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn twenty_good_releases_pass_their_trials_under_noise() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let mut images = Images::new();
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/upgrade-infrastructure/images/bank-bad");
    let stack = stack(&images, "{ watch: 15s, every: 500ms, triggers: { logs: { action: rollback } } }");
    let noise = Noise::start();
    for number in 1..=GOOD {
        let (tag, label) = (format!("good-{number}"), format!("tests.release={number}"));
        images.build(
            &tag,
            &["--build-arg", "BASE=sbt/bank:2", "--build-arg", "BAD=nothing", "--label", &label],
            &folder,
        );
        promote(&stack, &tag);
        stack.wait_until("the trial is over", Duration::from_secs(120), || {
            stack.run(&["status", "--json"]).expect(0).json()["trial"].is_null()
        });
        let why = why(&stack);
        assert_eq!(why["state"], "confirmed", "release {number}: {why:#}");
        let status = stack.run(&["status", "--json"]).expect(0).json();
        assert_eq!(status["generation"], number + 1, "{status}");
    }
    drop(noise);
    let db = stack.container("db").expect("it runs");
    assert_eq!(psql_in(&db, "ledger", "select count(*) from entries"), "0");
}
