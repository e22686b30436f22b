//! Staging environments of Compose stacks that a person keeps, on a real engine.

mod common;

use common::docker::{DB_PASSWORD, Example, Stack, docker, full};
use common::upgrade::{Bystander, assert_no_secret_is_told, containers, derived_image, id, staging_left};
use serde_json::Value;
use std::collections::BTreeSet;

fn up(example: Example) -> Stack {
    let stack = Stack::compose(example);
    // For a machine that does other things as well.
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 10s");
    stack.edit("switchback.yaml", "start: 20s", "start: 2m");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn environment(stack: &Stack) -> Value {
    stack.run(&["staging", "status", "--json"]).json()
}

/// Asks the bank of the environment, as a person on this host does.
fn audit(environment: &Value) -> Value {
    let address = environment["addresses"]["bank"]["http"].as_str().expect("an address");
    let mut answer = ureq::get(format!("http://{address}/audit")).call().expect("answers");
    serde_json::from_str(&answer.body_mut().read_to_string().expect("reads")).expect("JSON")
}

fn inside(stack: &Stack, service: &str, program: &[&str]) -> String {
    stack.run(&[&["staging", "exec", service, "--"], program].concat()).expect(0).stdout
}

const TRANSFER: &str = "from urllib.request import *; \
     urlopen(Request('http://127.0.0.1:8080/transfer', data=b'{\"from\": 5, \"to\": 6, \"amount\": 1}', method='POST')).read()";

#[test]
fn an_environment_of_a_compose_stack_lives_beside_production_and_is_brought_up_to_date() {
    let stack = up(Example::Bank);
    let path = stack.root.join("switchback.yaml");
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text + "\nstaging: { limits: { memory_mib: 200, cpus: 1.5 } }\n").expect("writes");
    let bystander = Bystander::start(&stack);
    let running = containers(&stack);
    for _ in 0..3 {
        stack.transfer();
    }
    stack.run(&["staging", "up"]).expect(0);
    let made = environment(&stack);
    assert_eq!((&made["now"]["well"], &made["data"]["compared"]), (&true.into(), &true.into()), "{made}");
    assert_eq!(audit(&made)["transfers"], stack.bank()["transfers"]);

    // No more of this machine than it was given; production has what it had.
    let project = made["instance"]["project"].as_str().expect("a project");
    let filter = format!("label=com.docker.compose.project={project}");
    let own = docker(&["ps", "-q", "--filter", &filter, "--filter", "label=com.docker.compose.service=bank"]);
    let of = |id: &str| {
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}";
        docker(&["inspect", "--format", format, id]).expect(0).stdout.trim().to_owned()
    };
    assert_eq!(of(own.expect(0).stdout.trim()), "209715200 1500000000");
    assert_eq!(of(&stack.container("bank").expect("runs")), "0 0");
    let diff = stack.run(&["staging", "diff"]).expect(0).stdout;
    assert!(diff.contains("at most 200.0 MiB of memory"), "{diff}");

    // What is done in it stays in it; what it sends is kept.
    let before = stack.bank();
    inside(&stack, "bank", &["python3", "-c", TRANSFER]);
    let send = "import urllib.request as u; u.urlopen(u.Request('http://hooks.example.com/paid', data=b'x', method='POST'))";
    inside(&stack, "bank", &["python3", "-c", send]);
    assert_eq!(
        audit(&environment(&stack))["transfers"].as_u64(),
        before["transfers"].as_u64().map(|n| n + 1)
    );
    assert_eq!(stack.bank(), before, "production saw what was done in staging");
    let sent = stack.run(&["staging", "sent"]).expect(0).stdout;
    assert!(sent.contains("hooks.example.com") && sent.contains("POST /paid"), "{sent}");

    stack.run(&["staging", "reset", "--yes"]).expect(0);
    assert_eq!(audit(&environment(&stack))["transfers"], before["transfers"]);
    inside(&stack, "bank", &["python3", "-c", TRANSFER]);
    for _ in 0..4 {
        stack.transfer();
    }
    stack.run(&["staging", "sync", "--yes"]).expect(0);
    let synced = environment(&stack);
    let seen = audit(&synced);
    assert_eq!((&seen["transfers"], &seen["ok"]), (&stack.bank()["transfers"], &true.into()), "{seen}");
    assert_eq!(synced["addresses"], made["addresses"]);
    assert_eq!(containers(&stack), running, "production was restarted");

    // A rehearsal and a promotion go on beside it; `gc` leaves it alone.
    stack.run(&["rehearse", "bank=2"]).expect(0);
    stack.run(&["gc", "--yes"]).expect(0);
    let found = environment(&stack);
    assert_eq!(found["now"]["well"], true);
    assert_eq!(audit(&found)["ok"], true, "it can still be reached");
    // Nor does another environment stand in its way, and its own health check is not all that is asked.
    stack.run(&["staging", "up", "other"]).expect(0);
    assert_eq!(audit(&environment(&stack))["ok"], true, "it can still be reached");
    let gateway = format!("{project}.gateway");
    docker(&["stop", &gateway]).expect(0);
    let cut = stack.run(&["staging", "status", "--json"]).json();
    assert_eq!(cut["now"]["well"], false, "{cut}");
    stack.run(&["staging", "up"]).expect(0);
    assert_eq!(audit(&environment(&stack))["ok"], true);
    stack.run(&["staging", "down", "other", "--yes"]).expect(0);
    let diff = stack.run(&["staging", "diff"]).expect(0).stdout;
    assert!(diff.contains("gateway"), "{diff}");
    stack.run(&["staging", "down", "--yes"]).expect(0);
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    bystander.assert_untouched();
    assert_no_secret_is_told(&stack, &[DB_PASSWORD]);
}

#[test]
fn a_start_that_fails_or_is_killed_leaves_nothing() {
    let stack = up(Example::Bank);
    let running = containers(&stack);
    stack.run_with(&["staging", "up"], &[("SWITCHBACK_FAULT_FAIL", "do:read-back")]).expect(3);
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    for step in ["snapshot", "start"] {
        let fault = format!("do:{step}:during");
        let ran = stack.run_with(&["staging", "up"], &[("SWITCHBACK_FAULT", fault.as_str())]);
        assert_ne!(ran.code, Some(0), "{}", ran.all());
        let ran = stack.run(&["resume", "--abort"]);
        assert_eq!(ran.code, Some(3), "{}", ran.all());
        assert_eq!(staging_left(&stack), Vec::<String>::new(), "{step}");
    }
    assert_eq!(containers(&stack), running);
}

/// An image may declare a volume that the Compose file does not mount; Compose hands it on when it makes a container again, and then it
/// is no longer the container's own to the engine.
#[test]
fn volumes_that_only_the_image_declares_go_with_staging_and_production_keeps_its_own() {
    derived_image("sbt/bank-spare:1", "FROM sbt/bank:1\nVOLUME /spare\n");
    let stack = Stack::compose(Example::Bank);
    stack.set("BANK_IMAGE", "sbt/bank-spare");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    let nameless = |container: &str| -> String {
        let format = "{{range .Mounts}}{{if eq .Destination \"/spare\"}}{{.Name}}{{end}}{{end}}";
        let name = docker(&["inspect", "--format", format, container]).expect(0).stdout.trim().to_owned();
        assert_eq!(name.len(), 64, "{name:?}");
        name
    };
    let production = nameless(&stack.container("bank").expect("it runs"));
    stack.run(&["staging", "up"]).expect(0);
    let label = format!("label=dev.switchback.stack={}", id(&stack));
    let container = || -> String {
        let service = ["--filter", &label, "--filter", "label=com.docker.compose.service=bank"];
        docker(&[&["ps", "-q"][..], &service].concat()).expect(0).stdout.trim().to_owned()
    };
    let first = container();
    let staging = nameless(&first);
    assert_ne!(staging, production);
    let project =
        docker(&["inspect", "--format", "{{index .Config.Labels \"com.docker.compose.project\"}}", &first]);
    let project = project.expect(0).stdout;
    let model = stack.root.join(".switchback/staging/env-staging/g1/compose.json");
    docker(&[
        "compose",
        "-p",
        project.trim(),
        "-f",
        model.to_str().expect("text"),
        "up",
        "-d",
        "--force-recreate",
    ])
    .expect(0);
    assert!(container() != first && nameless(&container()) == staging, "it is handed on");
    stack.run(&["staging", "down", "--yes"]).expect(0);
    let there = |volume: &str| docker(&["volume", "inspect", volume]).code == Some(0);
    assert!(!there(&staging) && there(&production));
}

/// A hundred with the long runs.
#[test]
fn cycles_of_up_and_down_on_compose_leave_nothing() {
    let stack = up(Example::Bank);
    // Other stacks of this engine, such as those of other tests, come and go meanwhile.
    let everything = || -> BTreeSet<String> {
        let own = id(&stack);
        let lists = [
            ("container", &["ps", "-a"][..], "{{.Names}}"),
            ("volume", &["volume", "ls"], "{{.Name}}"),
            ("network", &["network", "ls"], "{{.Name}}"),
        ];
        let mut found = BTreeSet::new();
        for (kind, list, name) in lists {
            let format = format!("{name} {{{{.Label \"dev.switchback.stack\"}}}}");
            let lines = docker(&[list, &["--format", &format]].concat()).expect(0).stdout;
            for (name, label) in lines.lines().filter_map(|l| l.split_once(' ')) {
                let another = name.starts_with("sbt-") && !name.starts_with(&stack.project);
                if !another && (label.trim().is_empty() || label.trim() == own) {
                    found.insert(format!("{kind} {name}"));
                }
            }
        }
        found
    };
    let before = everything();
    for _ in 0..if full() { 100 } else { 3 } {
        stack.run(&["staging", "up", "--quiet"]).expect(0);
        stack.run(&["staging", "down", "--yes", "--quiet"]).expect(0);
    }
    let new: Vec<String> = everything().difference(&before).cloned().collect();
    assert_eq!(new, Vec::<String>::new());
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}
