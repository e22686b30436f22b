//! What goes wrong with a Compose stack is said plainly, has its exit code, and leaves production as it was.

#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod data;
mod engine;
mod postgres;
#[path = "../engine/proxy.rs"]
mod proxy;

use common::docker::{Example, Stack, docker};
use common::{PROGRAM, Ran};
use std::process::{Command, Stdio};
use switchback_engine::docker::STACK_LABEL;

/// The bank, with time enough on a machine that has much to do.
fn bank() -> Stack {
    let stack = Stack::compose(Example::Bank);
    stack.edit("switchback.yaml", "start: 20s", "start: 3m");
    stack.edit("compose.yaml", "timeout: 3s\n      retries: 10", "timeout: 20s\n      retries: 30");
    stack
}

/// A bank that Switchback has taken over.
#[track_caller]
fn adopted() -> Stack {
    let stack = bank();
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn program(stack: &Stack, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("-C").arg(&stack.root).args(args).env("NO_COLOR", "1").env_remove("SWITCHBACK_FAULT");
    command.stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Ran {
    let output = command.output().expect("runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    /// The exit code, and everything that must be said.
    #[track_caller]
    fn says(self, code: i32, parts: &[&str]) -> Self {
        let ran = self.expect(code);
        let all = ran.all();
        for part in parts {
            assert!(all.contains(part), "{part:?} is not said:\n{all}");
        }
        ran
    }
}

/// Every container of production: which, since when, in what state.
#[track_caller]
fn production(stack: &Stack) -> String {
    let filter = format!("label=com.docker.compose.project={}", stack.project);
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).expect(0).stdout;
    let mut ids: Vec<&str> = ids.lines().collect();
    ids.sort_unstable();
    assert!(!ids.is_empty(), "{} has no containers", stack.project);
    let format = "{{.Id}} {{.State.StartedAt}} {{.State.Status}} {{.RestartCount}}";
    docker(&[&["inspect", "--format", format], &ids[..]].concat()).expect(0).stdout
}

/// Fails if anything but production is left in the engine.
#[track_caller]
fn nothing_left(stack: &Stack) {
    let Ok(id) = std::fs::read_to_string(stack.root.join(".switchback/id")) else { return };
    let filter = format!("label={STACK_LABEL}={}", id.trim());
    for list in [&["ps", "-aq"][..], &["network", "ls", "-q"], &["volume", "ls", "-q"]] {
        let left = docker(&[list, &["--filter", &filter]].concat()).expect(0).stdout;
        assert!(left.trim().is_empty(), "left behind: docker {list:?}: {left}");
    }
}
