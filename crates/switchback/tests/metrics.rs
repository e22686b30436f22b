//! Numbers for a monitoring system: well-formed, and what `status` and `history` say.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

/// Samples by name with labels; panics where the text is not in the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut found, mut typed, mut last) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').expect("HELP or TYPE");
            let (name, _) = rest.split_once(' ').expect("a name and a text");
            assert!(what == "HELP" || what == "TYPE", "{line}");
            assert!(what != "TYPE" || typed.insert(name.to_owned()), "{name} is described twice");
            name.clone_into(&mut last);
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let (metric, labels) = name.split_once('{').expect("labels");
        assert_eq!(metric, last, "samples of one metric stand together");
        assert!(labels.ends_with('}') && labels.starts_with("stack=\"assistant\""), "{line}");
        let value: f64 = value.parse().expect("a number");
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} is there twice");
    }
    found
}

#[test]
fn the_numbers_are_those_of_status_and_history() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    stack.configure("watch: 2s", "watch: 1h");
    let before = samples(&stack.run(&["metrics"]).expect(0).stdout);
    assert_eq!(before["switchback_generation{stack=\"assistant\"}"], 0.0);
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.1.0"]).expect(3);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes", "--detach"]).expect(0);
    stack.write_note("later");
    let trial = samples(&stack.run(&["metrics"]).expect(0).stdout);
    let own =
        |all: &BTreeMap<String, f64>, name: &str| all.get(&format!("{name}{{stack=\"assistant\"}}")).copied();
    assert_eq!(own(&trial, "switchback_trial"), Some(1.0));
    assert_eq!(own(&trial, "switchback_trial_watched"), Some(1.0));
    assert_eq!(own(&trial, "switchback_rollback_ready"), Some(1.0));
    stack.run(&["rollback", "--yes"]).expect(0);
    let file = stack.root.join("switchback.prom");
    stack.run(&["metrics", "--output", file.to_str().expect("text")]).expect(0);
    let after = samples(&fs::read_to_string(&file).expect("reads"));
    assert_eq!(own(&after, "switchback_generation"), Some(1.0));
    assert_eq!(own(&after, "switchback_uncarried_writes"), Some(1.0));
    assert_eq!(own(&after, "switchback_trial"), Some(0.0));
    assert_eq!(own(&after, "switchback_change_failure_ratio"), Some(1.0));
    assert_eq!(after["switchback_rehearsals_total{stack=\"assistant\",result=\"refused\"}"], 1.0);
    assert_eq!(after["switchback_rehearsals_total{stack=\"assistant\",result=\"passed\"}"], 1.0);
    assert_eq!(
        after["switchback_service_running{stack=\"assistant\",service=\"app\",version=\"1.0.0\"}"],
        1.0
    );
    assert!(after["switchback_restore_seconds{stack=\"assistant\",of=\"median\"}"] > 0.0);
    assert!(after.keys().any(|k| k.starts_with("switchback_prevented_total")), "{after:?}");
}

/// The head of an answer, and its body.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn prometheus_can_fetch_them() {
    let stack = Stack::new(&[]);
    stack.run(&["up"]).expect(0);
    let mut command = stack.command(&["metrics", "--listen", "127.0.0.1:0"]);
    let mut server = command.stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
    let address = line.split("http://").nth(1).and_then(|l| l.split('/').next()).expect("an address");
    // One that says nothing holds nobody up for long, nor does one that says anything else.
    let silent = TcpStream::connect(address).expect("connects");
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /../journal.db HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("\u{1}\u{2}\r\n\r\n", "405"),
    ] {
        assert!(ask(address, request).0.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}");
    }
    drop(silent);
    let (head, body) = ask(address, "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("version=0.0.4"), "{head}");
    assert_eq!(samples(&body)["switchback_generation{stack=\"assistant\"}"], 1.0);
    // What happens meanwhile is in the next answer.
    stack.run(&["down", "--yes"]).expect(0);
    let later = samples(&ask(address, "GET /metrics HTTP/1.0\r\n\r\n").1);
    assert_eq!(
        later["switchback_service_running{stack=\"assistant\",service=\"app\",version=\"1.0.0\"}"],
        0.0
    );
    let taken = stack.run(&["metrics", "--listen", address]).expect(3);
    assert!(taken.all().contains("cannot listen"), "{}", taken.all());
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(server.id()).expect("a process")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ends it");
    assert!(server.wait().expect("ends").success());
}
