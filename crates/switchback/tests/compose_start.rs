//! How long a service may take to start, where it has to wait for others first.

mod common;

use common::docker::{Example, Stack};

/// Healthy after 25 s, which is more than the bank has; the bank waits for it.
const SLOW: &str = r#"
  slow:
    image: sbt/python:3.11
    command: [sh, -c, "sleep 25; touch /tmp/ready; exec sleep infinity"]
    init: true
    stop_grace_period: 1s
    healthcheck: { test: [CMD, test, -e, /tmp/ready], interval: 1s, timeout: 10s, retries: 120 }

volumes:
"#;

/// The bank, waiting for another service.
fn with(service: &str) -> Stack {
    let stack = Stack::compose(Example::Bank);
    // It has data, and is then stopped.
    stack.up();
    stack.docker_compose(&["down"]).expect(0);
    stack.edit("compose.yaml", "\nvolumes:\n  books:", &format!("{service}  books:"));
    stack.edit(
        "compose.yaml",
        "    init: true\n    stop_grace_period: 10s",
        "    init: true\n    depends_on: { slow: { condition: service_healthy } }",
    );
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 30s");
    stack
}

#[test]
fn the_time_that_a_service_has_begins_when_those_are_healthy_that_it_waits_for() {
    let stack = with(SLOW);
    let ran = stack.run(&["up", "--yes"]).expect(0);
    assert!(ran.all().contains("slow"), "{}", ran.all());
    assert_eq!(stack.bank()["ok"], true);
}

#[test]
fn what_a_service_said_that_ended_while_others_waited_for_it_is_told() {
    let stack =
        with(&SLOW.replace("sleep 25; touch /tmp/ready; exec sleep infinity", "echo no such luck; exit 3"));
    let ran = stack.run(&["up", "--yes"]);
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    assert!(ran.all().contains("slow: no such luck"), "{}", ran.all());
}
