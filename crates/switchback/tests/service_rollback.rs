//! Returning one service of two to the generation before, with its data, while the other goes on.

mod common;

use assistant::ReleaseKind;
use common::runbook::Runbook;
use common::{Stack, TOKEN};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Two services with a database and files each.
struct Two {
    stack: Stack,
    other: u16,
}

const PROMOTE: [&str; 8] = [
    "promote",
    "app=2.0.0",
    "other=2.0.0",
    "--yes",
    "--detach",
    "--without-certificate",
    "--reason",
    "test of single services",
];
const BACK: [&str; 4] = ["rollback", "--service", "app", "--yes"];

impl Two {
    fn new() -> Self {
        let stack = Stack::new(&[ReleaseKind::V2]);
        let other = (stack.port + 1..32_000)
            .find(|p| std::net::TcpListener::bind(("127.0.0.1", *p)).is_ok())
            .expect("a free port");
        assistant::seed(&stack.root.join("data/other.db"), &stack.root.join("data/other"), 25, 2, 11)
            .expect("seeds");
        let service = format!(
            "    stop: {{ grace: 5s }}\n  other:\n    version: 1.0.0\n    release: releases/{{version}}\n    \
             command: [\"{{release}}/bin/assistant\", \"serve\", \"--release\", \"{{release}}\", \"--db\", \"{{store.db2}}\", \
             \"--uploads\", \"{{store.uploads2}}\", \"--listen\", \"127.0.0.1:{{port.http}}\"]\n    \
             migrate: [\"{{release}}/bin/assistant\", \"migrate\", \"--release\", \"{{release}}\", \"--db\", \"{{store.db2}}\"]\n    \
             migrate_deadline: 30s\n    env_file: assistant.env\n    ports: {{ http: {other} }}\n    \
             health: {{ http: /health, stable: 100ms, start: 10s }}\n    stop: {{ grace: 5s }}\n"
        );
        stack.configure("    stop: { grace: 5s }\n", &service);
        stack.configure(
            "  uploads: { kind: files, path: data/uploads }\n",
            "  uploads: { kind: files, path: data/uploads }\n  db2: { kind: sqlite, path: data/other.db }\n  \
             uploads2: { kind: files, path: data/other }\n",
        );
        stack.configure("watch: 2s", "watch: 1h");
        Self { stack, other }
    }

    /// At generation 2, both on the new version, the trial over.
    fn upgraded() -> Self {
        let two = Self::new();
        two.stack.run(&["up"]).expect(0);
        two.promote();
        two
    }

    fn promote(&self) {
        self.stack.run(&PROMOTE).expect(0);
        self.stack.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
        self.stack.wait_until("the trial is over", std::time::Duration::from_secs(30), || {
            self.stack.status()["trial"].is_null()
        });
    }

    fn ask(&self, port: u16, path: &str, body: Option<&str>) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let url = format!("http://127.0.0.1:{port}{path}");
        let bearer = format!("Bearer {TOKEN}");
        let mut response = match body {
            None => agent.get(&url).header("Authorization", bearer).call(),
            Some(body) => agent
                .post(&url)
                .header("Authorization", bearer)
                .header("Content-Type", "application/json")
                .send(body),
        }
        .unwrap_or_else(|e| panic!("{url}: {e}"));
        response.body_mut().read_to_string().expect("answers")
    }

    fn write(&self, port: u16, title: &str) {
        self.ask(port, "/api/notes", Some(&serde_json::json!({ "title": title }).to_string()));
    }

    fn version(&self, port: u16) -> String {
        let body = self.ask(port, "/health", None);
        serde_json::from_str::<Value>(&body).expect("JSON")["version"].as_str().expect("a version").to_owned()
    }

    fn versions(&self) -> (String, String) {
        (self.version(self.stack.port), self.version(self.other))
    }

    fn file(&self, generation: u32, store: &str) -> PathBuf {
        let name = if store == "db" { "assistant.db" } else { "other.db" };
        match generation {
            1 => self.stack.root.join("data").join(name),
            n => self.stack.state().join(format!("generations/{n}/stores/{store}/{name}")),
        }
    }

    fn notes(&self, generation: u32, store: &str) -> Vec<String> {
        titles(&self.file(generation, store))
    }

    /// The process ids of a service, shim included, by its marker.
    fn pids(&self, marker: &str) -> Vec<i32> {
        let id = fs::read_to_string(self.stack.state().join("id")).expect("an id");
        let needle = format!("SWITCHBACK_INSTANCE={}-", id.trim());
        let mut found: Vec<i32> = fs::read_dir("/proc")
            .expect("lists")
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let alive =
                    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
                alive
                    && String::from_utf8_lossy(&environ)
                        .split('\0')
                        .any(|e| e.starts_with(&needle) && e.ends_with(&format!(":{marker}")))
            })
            .collect();
        found.sort_unstable();
        found
    }

    fn exported(&self, generation: u32) -> BTreeMap<String, u64> {
        let path = self.stack.state().join(format!("exports/generation-{generation}/complete.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let stores: Value = serde_json::from_str(&text).expect("JSON");
        let total = |v: &Value| {
            let parts = v["parts"].as_object().map(|p| p.values().cloned().collect::<Vec<_>>());
            let sum = |v: &Value| -> u64 {
                ["inserted", "updated", "deleted", "added", "changed", "removed"]
                    .iter()
                    .filter_map(|k| v[*k].as_u64())
                    .sum()
            };
            parts.map_or_else(|| sum(v), |p| p.iter().map(sum).sum())
        };
        stores.as_object().expect("stores").iter().map(|(k, v)| (k.clone(), total(v))).collect()
    }
}

fn titles(path: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut statement = connection.prepare("select title from notes order by id").expect("prepares");
    let found = statement.query_map([], |row| row.get::<_, String>(0)).expect("asks");
    found.map(|t| t.expect("a title")).collect()
}

#[test]
fn one_service_goes_back_with_its_data_and_the_other_goes_on() {
    let two = Two::new();
    let stack = &two.stack;
    stack.run(&["up"]).expect(0);
    let before = (two.notes(1, "db"), two.notes(1, "db2"));
    two.promote();
    two.write(stack.port, "later, app");
    two.write(two.other, "later, other");
    let other = two.pids("generations/2:other");
    assert_eq!(other.len(), 2, "shim and service");

    let planned = stack.run(&["rollback", "--service", "app", "--dry-run"]).expect(0).stdout;
    assert!(
        planned.contains("Stop app of generation 2") && planned.contains("Nothing was done."),
        "{planned}"
    );
    assert_eq!(two.versions(), ("2.0.0".into(), "2.0.0".into()));
    let ran = stack.run(&[&BACK[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&ran["procedure"], &ran["conclusion"]), (&"service_rollback".into(), &"pass".into()));
    assert!(ran["times"]["rollback_ms"].as_u64().expect("measured") < 10_000, "{}", ran["times"]);

    // The version and the data of before; the other service was not touched and has what was written since.
    assert_eq!(two.versions(), ("1.0.0".into(), "2.0.0".into()));
    assert_eq!(two.notes(3, "db"), before.0);
    assert_eq!(two.pids("generations/2:other"), other, "the other service was restarted");
    assert_eq!(two.notes(2, "db2").last().map(String::as_str), Some("later, other"));
    let marked = stack.processes();
    assert_eq!(marked.keys().collect::<Vec<_>>(), ["generations/2:other", "generations/3:app"]);
    let status = stack.status();
    assert_eq!((&status["generation"], &status["versions"]["app"]), (&3.into(), &"1.0.0".into()));
    assert_eq!(two.exported(2), BTreeMap::from([("db".into(), 1), ("uploads".into(), 0)]));
    assert_eq!((two.notes(1, "db"), two.notes(1, "db2")), before, "the generation before was written to");

    // It goes on like any generation: written to, stopped, started, looked after.
    two.write(stack.port, "after, app");
    two.write(two.other, "after, other");
    stack.run(&["gc", "--yes"]).expect(0);
    stack.run(&["down", "--yes"]).expect(0);
    assert!(stack.processes().is_empty());
    stack.run(&["up"]).expect(0);
    assert_eq!(two.versions(), ("1.0.0".into(), "2.0.0".into()));
    assert_eq!(two.notes(3, "db").last().map(String::as_str), Some("after, app"));
    assert_eq!(two.notes(2, "db2").last().map(String::as_str), Some("after, other"));

    // Where the other service's data goes on, there is no way back to.
    let refused = stack.run(&["rollback", "--to", "2", "--yes"]).expect(3).all();
    assert!(refused.contains("has the store db2 in common with generation 3"), "{refused}");
    // The whole stack can return still, and every later write of both is exported.
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(two.versions(), ("1.0.0".into(), "1.0.0".into()));
    assert_eq!((two.notes(1, "db"), two.notes(1, "db2")), before);
    let exported = two.exported(3);
    assert_eq!((exported["db"], exported["db2"]), (1, 2), "{exported:?}");
    assert_eq!(stack.status()["generation"], 1);
}

#[test]
fn a_service_that_went_back_can_be_brought_forward_and_the_other_one_can_follow_it() {
    let two = Two::upgraded();
    let stack = &two.stack;
    two.write(two.other, "later, other");
    stack.run(&BACK).expect(0);
    // Nothing is changed twice.
    assert!(stack.run(&BACK).expect(3).all().contains("app 1.0.0 is the same in generation 1"));
    stack.run(&["rollback", "--service", "other", "--yes"]).expect(0);
    assert_eq!(two.versions(), ("1.0.0".into(), "1.0.0".into()));
    assert!(!two.notes(4, "db2").contains(&"later, other".to_owned()));
    let marked = stack.processes();
    assert_eq!(marked.keys().collect::<Vec<_>>(), ["generations/3:app", "generations/4:other"]);
    assert_eq!(two.exported(3)["db2"], 1);
    // Forward again: a promotion of everything, from where each is.
    two.write(stack.port, "before the second upgrade");
    two.promote();
    assert_eq!(two.versions(), ("2.0.0".into(), "2.0.0".into()));
    assert_eq!(two.notes(5, "db").last().map(String::as_str), Some("before the second upgrade"));
    // And back to the generation that was made of others'.
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.status()["generation"], 4);
    assert_eq!(two.versions(), ("1.0.0".into(), "1.0.0".into()));
    assert_eq!(two.notes(3, "db").last().map(String::as_str), Some("before the second upgrade"));
}

#[test]
fn the_later_writes_of_the_service_can_be_carried_and_those_of_the_other_are_not_doubled() {
    let two = Two::upgraded();
    let stack = &two.stack;
    two.write(stack.port, "later, app");
    two.write(two.other, "later, other");
    stack.run(&BACK).expect(0);
    assert!(!two.notes(3, "db").contains(&"later, app".to_owned()));
    stack.run(&["carry", "--yes", "--detach"]).expect(0);
    assert_eq!(two.versions(), ("1.0.0".into(), "2.0.0".into()));
    let count = |store: &str, title: &str| two.notes(4, store).iter().filter(|t| *t == title).count();
    assert_eq!((count("db", "later, app"), count("db2", "later, other")), (1, 1));
}

/// No promotion made the generation that a single service's return leads to.
#[test]
fn later_writes_that_cannot_be_carried_are_told_of_and_not_tried_again_by_anybody() {
    let two = Two::new();
    two.stack.configure("rollback: {", "rollback: { writes: carry,");
    two.stack.run(&["up"]).expect(0);
    two.promote();
    two.stack.run(&BACK).expect(0);
    two.write(two.stack.port, "later");
    let said = two.stack.run(&["rollback", "--yes"]).expect(0).all();
    assert!(said.contains("The later writes are not carried: no promotion made generation 3"), "{said}");
    assert_eq!(two.exported(3)["db"], 1);
    assert!(two.stack.state().join("exports/generation-3/not-carried").exists());
    // Whoever looks for what is left to do finds nothing.
    two.stack.run(&["watch"]).expect(0);
    assert_eq!(two.stack.status()["generation"], 1);
}

#[test]
fn a_trial_goes_on_for_the_service_that_stays() {
    let two = Two::new();
    let stack = &two.stack;
    stack.run(&["up"]).expect(0);
    stack.run(&PROMOTE).expect(0);
    stack.run(&BACK).expect(0);
    let trial = stack.status()["trial"].clone();
    assert_eq!(trial["generation"], 3, "{trial}");
    // What was true before the promotion does not count now either.
    let runs = stack.run(&["history", "--json"]).expect(0).json();
    let before = |i: usize| {
        let dir = stack.state().join("runs").join(runs[i]["run"].as_str().expect("a run"));
        fs::read(dir.join("before.json")).expect("reads")
    };
    assert_eq!(before(0), before(1));
    // What stays fails: everything returns.
    let shims = two.pids("generations/2:other");
    for pid in shims {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    stack.wait_until("everything is back", std::time::Duration::from_secs(40), || {
        stack.status()["generation"] == 1 && stack.status()["unfinished"].is_null()
    });
    assert_eq!(two.versions(), ("1.0.0".into(), "1.0.0".into()));
}

#[test]
fn a_trial_goes_on_where_the_rollback_that_ended_it_is_undone() {
    let two = Two::new();
    let stack = &two.stack;
    stack.run(&["up"]).expect(0);
    stack.run(&PROMOTE).expect(0);
    stack.run_with(&BACK, &[("SWITCHBACK_FAULT_FAIL", "do:flip")]).expect(3);
    let status = stack.status();
    assert_eq!((&status["generation"], &status["trial"]["generation"]), (&2.into(), &2.into()), "{status}");
    // Somebody watches, and rolls back.
    for pid in two.pids("generations/2:app") {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    stack.wait_until("everything is back", std::time::Duration::from_secs(40), || {
        stack.status()["generation"] == 1 && stack.status()["unfinished"].is_null()
    });
    assert_eq!(two.versions(), ("1.0.0".into(), "1.0.0".into()));
    stack.run(&["status", "--why"]).expect(0);
}

#[test]
fn it_is_refused_with_the_reason_where_something_else_depends_on_it() {
    let refused = |edit: &dyn Fn(&Two), args: &[&str]| {
        let two = Two::new();
        edit(&two);
        two.stack.run(&["up"]).expect(0);
        two.promote();
        let before = (two.stack.processes(), two.versions());
        let all = two.stack.run(&[&["rollback", "--yes"], args].concat()).expect(3).all();
        assert_eq!((two.stack.processes(), two.versions()), before, "{all}");
        assert_eq!(two.stack.status()["generation"], 2);
        all
    };
    let app = ["--service", "app"];
    // A line more in the definition of the other service.
    let with = |line: &'static str| {
        move |two: &Two| {
            let own = "    env_file: assistant.env\n    ports: { http: ";
            let port = format!("{own}{}", two.other);
            two.stack.configure(&port, &format!("    {line}\n{port}"));
        }
    };
    let needs = refused(&with("needs: [app]"), &app);
    assert!(needs.contains("app cannot go back alone: other is tied to app: `needs` names it"), "{needs}");
    assert!(needs.contains("`switchback rollback` returns the whole stack"), "{needs}");
    let shared = refused(&with("env: { SEES: '{store.uploads}' }"), &app);
    assert!(shared.contains("other uses the store uploads as well"), "{shared}");
    let port = refused(&with("env: { ASKS: 'http://127.0.0.1:{port.app.http}/' }"), &app);
    assert!(port.contains("other is tied to app: it uses {port.app.http}"), "{port}");
    let both = refused(&|_| {}, &["--service", "app", "--service", "other"]);
    assert!(both.contains("app, other are all services"), "{both}");
    let unknown = refused(&|_| {}, &["--service", "ap"]);
    assert!(unknown.contains("no service \"ap\"") && unknown.contains("did you mean \"app\"?"), "{unknown}");
}

#[test]
fn a_configuration_file_that_both_have_forbids_it_only_if_the_release_changed_it() {
    let two = Two::new();
    let stack = &two.stack;
    stack.run(&["up"]).expect(0);
    fs::write(stack.root.join("assistant.env"), format!("ASSISTANT_TOKEN={TOKEN}\nMORE=1\n"))
        .expect("writes");
    two.promote();
    let refused = stack.run(&BACK).expect(3).all();
    assert!(
        refused.contains(
            "app and other both have the configuration file assistant.env, which the release changed"
        ),
        "{refused}"
    );
    // There is nothing to return to before a promotion.
    let fresh = Two::new();
    fresh.stack.run(&["up"]).expect(0);
    assert!(fresh.stack.run(&BACK).expect(3).all().contains("no previous generation"));
}

#[cfg(feature = "faults")]
mod crashes {
    use super::*;

    fn steps(reversible: bool) -> Vec<String> {
        let two = Two::upgraded();
        let plan = two.stack.run(&["rollback", "--service", "app", "--dry-run", "--json"]).expect(0).json();
        let steps = plan["steps"].as_array().expect("steps").clone();
        let wanted = steps.iter().filter(|s| !reversible || s["undo"] == "reverse");
        wanted.map(|s| s["id"].as_str().expect("an id").to_owned()).collect()
    }

    struct Before {
        old: (Vec<String>, Vec<String>),
        new: Vec<String>,
    }

    fn ready() -> (Two, Before) {
        let two = Two::new();
        two.stack.run(&["up"]).expect(0);
        let old = (two.notes(1, "db"), two.notes(1, "db2"));
        two.promote();
        two.write(two.other, "later, other");
        let new = two.notes(2, "db");
        (two, Before { old, new })
    }

    /// Either the service is back or it is not; the other one has never stopped, and no data is anything else than it should be.
    fn assert_sound(two: &Two, before: &Before, other: &[i32], case: &str) -> u64 {
        let status = two.stack.status();
        assert!(status["unfinished"].is_null(), "{case}: {status}");
        let generation = status["generation"].as_u64().expect("a generation");
        assert_eq!((two.notes(1, "db"), two.notes(1, "db2")), before.old, "{case}: the generation before");
        assert_eq!(two.notes(2, "db"), before.new, "{case}: the generation that was left");
        assert_eq!(two.pids("generations/2:other"), other, "{case}: the other service was restarted");
        assert_eq!(two.notes(2, "db2").last().map(String::as_str), Some("later, other"), "{case}");
        let marked: Vec<String> = two.stack.processes().into_keys().collect();
        match generation {
            2 => {
                assert_eq!(marked, ["generations/2:app", "generations/2:other"], "{case}");
                assert_eq!(two.versions(), ("2.0.0".into(), "2.0.0".into()), "{case}");
                assert!(!two.stack.state().join("generations/3").exists(), "{case}: a generation is left");
            }
            3 => {
                assert_eq!(marked, ["generations/2:other", "generations/3:app"], "{case}");
                assert_eq!(two.versions(), ("1.0.0".into(), "2.0.0".into()), "{case}");
                assert_eq!(two.notes(3, "db"), before.old.0, "{case}");
            }
            other => panic!("{case}: generation {other}"),
        }
        for name in fs::read_dir(two.stack.state()).expect("lists").flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            assert!(!name.contains(".tmp-") && !name.contains("partial"), "{case}: {name} is left");
        }
        generation
    }

    fn crash(env: &[(&str, &str)], case: &str, ends_on: u64) {
        let (two, before) = ready();
        let other = two.pids("generations/2:other");
        let crashed = two.stack.run_with(&BACK, env);
        assert_eq!(crashed.code, None, "{case}: the fault did not fire: {}", crashed.all());
        let resumed = two.stack.run(&["resume", "--wait", "30s"]);
        assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{case}: {:?} {}", resumed.code, resumed.all());
        assert_eq!(assert_sound(&two, &before, &other, case), ends_on, "{case}");
    }

    #[test]
    fn a_rollback_of_one_service_killed_at_any_point_ends_on_one_generation() {
        for step in steps(false) {
            for at in ["before", "during", "after"] {
                let case = format!("do:{step}:{at}");
                crash(&[("SWITCHBACK_FAULT", &case)], &case, 3);
            }
        }
    }

    #[test]
    fn a_rollback_of_one_service_killed_while_it_is_undone_ends_on_one_generation() {
        for step in steps(true) {
            for at in ["before", "during", "after"] {
                let case = format!("undo:{step}:{at}");
                crash(&[("SWITCHBACK_FAULT", &case), ("SWITCHBACK_FAULT_FAIL", "do:flip")], &case, 2);
            }
        }
    }

    #[test]
    fn every_step_of_it_can_be_repeated() {
        let (two, before) = ready();
        let other = two.pids("generations/2:other");
        let twice = ("SWITCHBACK_FAULT_REPEAT", "1");
        two.stack.run_with(&BACK, &[twice, ("SWITCHBACK_FAULT_FAIL", "do:flip")]).expect(3);
        assert_eq!(assert_sound(&two, &before, &other, "undone twice"), 2);
        two.stack.run_with(&BACK, &[twice]).expect(0);
        assert_eq!(assert_sound(&two, &before, &other, "done twice"), 3);
    }
}

#[test]
fn the_runbook_of_one_bad_service_is_as_the_page_says() {
    let mut book = Runbook::of("One service is bad, the others are good");
    let two = Two::upgraded();
    let named = [("NAME", "app")];
    let root = &two.stack.root;
    let planned = book.types(root, "switchback rollback --service NAME --dry-run", &named).expect(0).stdout;
    assert!(planned.contains("Nothing was done."), "{planned}");
    assert_eq!(two.versions(), ("2.0.0".into(), "2.0.0".into()));
    book.types(root, "switchback rollback --service NAME", &named).expect(0);
    assert_eq!(two.versions(), ("1.0.0".into(), "2.0.0".into()));
    book.ends();
}
