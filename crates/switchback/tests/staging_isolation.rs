//! The isolation of staging environments whose services are local processes, with the real program.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

fn stack(staging: &str) -> Stack {
    let stack = Stack::new(&[ReleaseKind::V1, ReleaseKind::V2]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, format!("{text}\nstaging:\n{staging}")).expect("writes");
    stack.run(&["up"]).expect(0);
    stack
}

fn inside(stack: &Stack, script: &str) -> String {
    let ran = stack.run(&["staging", "exec", "app", "--", "bash", "-c", script]);
    ran.stdout.clone() + &ran.stderr
}

/// An address of this host that is not its loopback.
fn address() -> IpAddr {
    let output = Command::new("hostname").arg("-I").output().expect("runs hostname");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut all = text.split_whitespace().filter_map(|a| a.parse::<IpAddr>().ok());
    all.find(IpAddr::is_ipv4).expect("this host has an address besides its loopback (docker0 is one)")
}

/// Says something to a host through bash's own sockets, and prints the answer.
fn say(host: &str, port: u16, text: &str) -> String {
    format!("exec 3<>/dev/tcp/{host}/{port} && printf '{text}' >&3 && timeout 5 cat <&3; ")
}

fn cells(stack: &Stack) -> Vec<Value> {
    let pattern = stack.state().join("staging");
    let mut found = Vec::new();
    for environment in fs::read_dir(pattern).into_iter().flatten().flatten() {
        for instance in fs::read_dir(environment.path()).into_iter().flatten().flatten() {
            if let Ok(text) = fs::read_to_string(instance.path().join("cell/cell.json")) {
                found.push(serde_json::from_str(&text).expect("JSON"));
            }
        }
    }
    found
}

#[test]
fn what_a_process_of_staging_sends_stays_inside_and_is_told() {
    let real = TcpListener::bind((address(), 0)).expect("listens");
    let outside = real.local_addr().expect("an address");
    let asked = thread::spawn(move || {
        let (mut stream, _) = real.accept().expect("a connection");
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).expect("reads");
        stream.write_all(b"from the real one").expect("writes");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let stack = stack(&format!(
        "  isolation: required\n  egress:\n    allow: ['{}:{}']\n    stubs:\n      - {{ host: llm.example.com, path: '/v1/*', method: POST, body: 'canned' }}\n",
        outside.ip(),
        outside.port(),
    ));
    stack.run(&["staging", "up"]).expect(0);
    let script: String = (0..30)
        .map(|n| {
            let mail = say(
                "mail.example.com",
                25,
                &format!(
                    "EHLO me\\r\\nMAIL FROM:<me@example.com>\\r\\nRCPT TO:<person{n}@example.com>\\r\\nDATA\\r\\nSubject: hello\\r\\n\\r\\nbody\\r\\n.\\r\\nQUIT\\r\\n"
                ),
            );
            let hook = say(
                "hooks.example.com",
                80,
                &format!("POST /hook/{n}?token=abc HTTP/1.1\\r\\nHost: hooks.example.com\\r\\nContent-Length: 2\\r\\n\\r\\nhi"),
            );
            format!("{mail}{hook}")
        })
        .collect();
    let said = inside(&stack, &script);
    assert!(said.matches("250 ").count() >= 30, "{said}");
    assert_eq!(said.matches("202 ").count(), 30, "{said}");
    let said = inside(
        &stack,
        &say(
            "llm.example.com",
            80,
            "POST /v1/x HTTP/1.1\\r\\nHost: llm.example.com\\r\\nContent-Length: 0\\r\\n\\r\\n",
        ),
    );
    assert!(said.contains("canned"), "{said}");
    let said = inside(&stack, &say("whatever.example.com", outside.port(), "hello"));
    assert!(said.contains("from the real one"), "{said}");
    assert_eq!(asked.join().expect("the real one was asked"), "hello");
    let said = inside(&stack, "exec 3<>/dev/tcp/1.1.1.1/443");
    assert!(said.contains("unreachable"), "{said}");

    stack.run(&["staging", "down", "--yes"]).expect(0);
    let report = stack.report();
    let egress = &report["egress"][0];
    let records = egress["records"].as_array().unwrap_or_else(|| panic!("records in {egress}"));
    let of = |kind: &str| records.iter().filter(|r| r["kind"] == kind).collect::<Vec<_>>();
    let recipients: Vec<&str> = of("smtp").iter().filter_map(|r| r["recipients"][0].as_str()).collect();
    for n in 0..30 {
        assert!(recipients.contains(&format!("person{n}@example.com").as_str()), "{n}: {recipients:?}");
    }
    let hooks = of("http").into_iter().filter(|r| r["host"] == "hooks.example.com").count();
    assert_eq!(hooks, 30, "{records:?}");
    let text = report.to_string();
    assert!(!text.contains("token=abc"), "a value of a query was recorded");
    assert!(records.iter().any(|r| r["outcome"] == "allowed"), "{records:?}");
    assert!(records.iter().any(|r| r["outcome"] == "stubbed"), "{records:?}");
}

#[test]
fn a_process_of_staging_does_not_see_production() {
    let stack = stack("  isolation: required\n");
    let host = TcpListener::bind((address(), 0)).expect("listens");
    let at = host.local_addr().expect("an address");
    stack.run(&["staging", "up"]).expect(0);
    let report = stack.report();
    let attack = report["checks"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["id"] == "isolation/attack"))
        .unwrap_or_else(|| panic!("an attack in {report}"));
    assert_eq!(attack["verdict"], "pass", "{attack}");
    let steps = attack["steps"].as_array().expect("steps");
    for word in [
        "production's app at 127.0.0.1",
        "production's data db",
        "this host at",
        "metadata",
        "1.1.1.1",
        "docker.sock",
    ] {
        assert!(
            steps.iter().any(|s| s["name"].as_str().is_some_and(|n| n.contains(word))),
            "{word}: {steps:?}"
        );
    }
    let production = stack.status()["services"]["app"]["endpoints"]["http"]
        .as_str()
        .map(|e| e.rsplit(':').next().unwrap_or_default().to_owned());
    if let Some(port) = production {
        let said = inside(&stack, &format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
        assert!(said.contains("refused"), "{said}");
    }
    let said = inside(&stack, &format!("exec 3<>/dev/tcp/{}/{}", at.ip(), at.port()));
    assert!(said.contains("unreachable"), "{said}");
    let data = stack.root.join("data/assistant.db");
    let said = inside(
        &stack,
        &format!(
            "wc -c < {}; ls {}; ls -A /run; umount /run; echo done",
            data.display(),
            stack.state().join("generations").display()
        ),
    );
    assert!(said.starts_with("0\n") && said.contains("done"), "{said}");
    assert!(!said.contains("generation"), "{said}");
    assert!(stack.run(&["staging", "diff"]).expect(0).stdout.contains("network of their own"));
    // Outside nothing changed.
    assert!(data.metadata().expect("the file is there").len() > 0);
    assert!(stack.version().is_some(), "production answers");
    stack.run(&["staging", "down", "--yes"]).expect(0);
    assert!(stack.processes().keys().all(|m| !m.contains("#gateway")), "{:?}", stack.processes());
}

#[test]
fn what_cannot_be_hidden_fails_the_attack_and_refuses_the_certificate() {
    // Its releases lie in this store: hiding it would take the program away.
    let stack = Stack::new(&[ReleaseKind::V1, ReleaseKind::V2]);
    stack.configure(
        "  uploads: { kind: files, path: data/uploads }",
        "  uploads: { kind: files, path: data/uploads }\n  programs: { kind: files, path: releases }",
    );
    stack.configure("    stop:", "    env: { PROGRAMS: \"{store.programs}\" }\n    stop:");
    stack.run(&["up"]).expect(0);
    let ran = stack.run(&["staging", "up"]).expect(3);
    assert!(ran.all().contains("isolation/attack"), "{}", ran.all());
    stack.run(&["rehearse", "app=2.0.0", "--yes"]).expect(3);
    let report = stack.report();
    assert_eq!(report["certificate"], Value::Null, "{report}");
}

#[test]
fn without_isolation_everything_works_and_says_so() {
    let stack = stack("  isolation: off\n");
    stack.run(&["staging", "up"]).expect(0);
    assert!(
        stack.run(&["staging", "diff"]).expect(0).stdout.contains("not isolated: staging.isolation is `off`")
    );
    assert!(cells(&stack).is_empty());
    stack.run(&["staging", "down", "--yes"]).expect(0);
}

#[test]
fn a_killed_gateway_leaves_nothing_open_and_starting_again_mends_it() {
    let stack = stack("  isolation: required\n");
    stack.run(&["staging", "up"]).expect(0);
    let before = cells(&stack)[0]["pid"].as_i64().expect("a process");
    kill(before);
    stack.wait_until("the gateway is gone", Duration::from_secs(10), || {
        fs::read_to_string(format!("/proc/{before}/stat")).is_ok_and(|s| s.contains(") Z"))
            || !std::path::Path::new(&format!("/proc/{before}")).exists()
    });
    let ran = stack.run(&["staging", "exec", "app", "--", "true"]);
    assert!(ran.all().contains("does not run"), "{}", ran.all());
    stack.run(&["staging", "down", "--yes"]).expect(0);
    stack.run(&["staging", "up"]).expect(0);
    assert!(inside(&stack, "echo inside").contains("inside"));
    stack.run(&["staging", "down", "--yes"]).expect(0);
}

#[test]
fn a_service_with_a_tcp_health_check_is_seen_through_its_gateway() {
    let stack = Stack::new(&[ReleaseKind::V1, ReleaseKind::V2]);
    stack.configure("health: { http: /health", "health: { tcp: http");
    stack.run(&["up"]).expect(0);
    stack.run(&["staging", "up"]).expect(0);
    stack.run(&["staging", "down", "--yes"]).expect(0);
}

fn kill(pid: i64) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
}
