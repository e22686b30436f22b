//! The engine and Docker Compose: missing, too old, forbidden, gone.

use super::proxy::proxy;
use super::{Ran, adopted, made_for, nothing_left, production, program, run};
use crate::common::PROGRAM;
use crate::common::docker::{Example, Stack};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn without_an_engine_every_command_says_where_it_was_looked_for() {
    let stack = adopted();
    let (before, books) = (production(&stack), stack.bank());
    for args in [&["rehearse", "bank=2"][..], &["promote", "bank=2", "--yes"], &["up", "--yes"]] {
        let mut command = program(&stack, args);
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        run(command).says(
            5,
            &[
                "the Docker engine at unix:///nonexistent/docker.sock cannot be reached",
                "start the Docker engine",
            ],
        );
    }
    assert_eq!((production(&stack), stack.bank()), (before, books));
    stack.run(&["status"]).expect(0);
}

/// Runs the program with nothing but these programs in its path, and without Docker's plugins.
fn without_plugins(stack: &Stack, path: &Path, args: &[&str]) -> Option<Ran> {
    let script = "for d in /usr/local/lib/docker/cli-plugins /usr/local/libexec/docker/cli-plugins \
                  /usr/lib/docker/cli-plugins /usr/libexec/docker/cli-plugins; do \
                  [ ! -d $d ] || mount -t tmpfs none $d || exit 99; done; \
                  PATH=$FAKES; export PATH; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, "sh", PROGRAM, "-C"]).arg(&stack.root).args(args);
    command.env("FAKES", path).env("DOCKER_CONFIG", path).env("NO_COLOR", "1").stdin(Stdio::null());
    let tried = Command::new("unshare").args(["-rm", "true"]).status();
    if !tried.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: this host lets nobody make a mount namespace");
        return None;
    }
    Some(run(command)).filter(|ran| ran.code != Some(99))
}

#[test]
fn compose_that_is_missing_or_of_the_first_version_is_named_with_what_to_install() {
    let stack = Stack::compose(Example::Bank);
    let fakes = tempfile::tempdir().expect("folder");
    let Some(ran) = without_plugins(&stack, fakes.path(), &["up", "--yes"]) else { return };
    ran.says(5, &["Docker Compose v2 is not installed", "docker-compose-plugin", "2.24.4 or newer"]);

    let fake = |name: &str, text: &str| {
        let path = fakes.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    };
    fake("docker", "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1");
    fake("docker-compose", "echo 1.29.2");
    let ran = without_plugins(&stack, fakes.path(), &["up", "--yes"]).expect("as before");
    ran.says(5, &["Docker Compose 1.29.2 is too old: 2.24.4 or newer is needed"]);
    assert!(stack.container("bank").is_none());
}

#[test]
fn a_proxy_that_forbids_what_a_run_needs_is_told_before_anything_is_done() {
    let stack = adopted();
    let (before, books) = (production(&stack), stack.bank());
    let proxy =
        proxy(|line| !line.starts_with("GET") && !line.starts_with("HEAD") || line.contains("/exec/"));
    let mut command = program(&stack, &["rehearse", "bank=2"]);
    command.env("DOCKER_HOST", &proxy.address);
    let ran = run(command);
    ran.says(5, &[&proxy.address, "POST", "in the proxy before the Docker socket"]);
    assert_eq!((production(&stack), stack.bank()), (before, books));
    nothing_left(&stack);
}

#[test]
fn an_engine_that_goes_away_in_the_middle_is_told_and_the_run_is_resumed_when_it_is_back() {
    let stack = adopted();
    let (before, books) = (production(&stack), stack.bank());
    let proxy = proxy(|_| false);
    let mut command = program(&stack, &["rehearse", "bank=2"]);
    command.env("DOCKER_HOST", &proxy.address).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    let staged =
        || made_for(&stack).iter().any(|name| name.contains("baseline") || name.contains("candidate"));
    stack.wait_until("staging runs", Duration::from_secs(500), staged);
    proxy.off.store(true, Ordering::Relaxed);
    let output = child.wait_with_output().expect("ends");
    let ran = Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    ran.says(5, &["cannot be reached", "switchback resume"]);
    assert_eq!((production(&stack), stack.bank()), (before.clone(), books.clone()));
    // The engine is back: the run is ended, and nothing of it is left.
    let ended = stack.run(&["resume", "--abort"]);
    assert!(matches!(ended.code, Some(0 | 3 | 6)), "{}", ended.all());
    assert_eq!((production(&stack), stack.bank()), (before, books));
    nothing_left(&stack);
}
