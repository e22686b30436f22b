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

/// What Switchback made in the engine for a stack: the images of containers, the names of networks and volumes.
fn made_for(stack: &Stack) -> Vec<String> {
    let Ok(id) = std::fs::read_to_string(stack.root.join(".switchback/id")) else { return Vec::new() };
    let mut found = Vec::new();
    for (list, name) in [
        (&["ps", "-a"][..], "{{.Image}}"),
        (&["network", "ls"], "{{.Name}}"),
        (&["volume", "ls"], "{{.Name}}"),
    ] {
        // The label begins with the id of the state; what follows is the folder's.
        let format = format!("{{{{.Label \"{STACK_LABEL}\"}}}} {name}");
        let filter = format!("label={STACK_LABEL}");
        let all = docker(&[list, &["--filter", &filter, "--format", &format]].concat()).expect(0).stdout;
        let own = all.lines().filter(|l| l.starts_with(id.trim()));
        found.extend(own.map(|l| l.split_once(' ').map_or(l, |(_, name)| name).to_owned()));
    }
    found
}

/// Fails if anything but production is left in the engine.
#[track_caller]
fn nothing_left(stack: &Stack) {
    assert_eq!(made_for(stack), Vec::<String>::new(), "left behind");
}
