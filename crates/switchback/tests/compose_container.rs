//! Switchback in a container of its own, with nothing but the engine's socket and the stack's folder.

mod common;

use common::Ran;
use common::docker::{Example, Stack, docker, full};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The image, gone with the test.
struct Image(String);

impl Image {
    fn build() -> Self {
        let context = tempfile::tempdir().expect("a folder");
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/container/Dockerfile");
        fs::copy(recipe, context.path().join("Dockerfile")).expect("copies");
        fs::copy(env!("CARGO_BIN_EXE_switchback"), context.path().join("switchback")).expect("copies");
        let image = Self(format!("sbt-container-{}", std::process::id()));
        let folder = context.path().to_str().expect("text");
        // Debian 13, as the recipe's own base.
        let args = ["build", "-q", "-t", &image.0, "--build-arg", "BASE=sbt/postgres:17", folder];
        let done =
            Command::new("docker").args(args).env("DOCKER_BUILDKIT", "0").output().expect("docker runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        image
    }

    /// A command in it, as its page says.
    fn run(&self, stack: &Stack, args: &[&str]) -> Ran {
        let root = stack.root.to_str().expect("text");
        let folder = format!("{root}:{root}");
        let socket = "/var/run/docker.sock:/var/run/docker.sock";
        let fixed = ["run", "--rm", "--network", "host", "-v", socket, "-v", &folder, "-w", root, &self.0];
        docker(&[&fixed[..], args].concat())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "-f", &self.0]);
    }
}

#[test]
fn a_stack_is_taken_over_upgraded_and_rolled_back_from_within_a_container() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let image = Image::build();
    let stack = Stack::compose(Example::Bank);
    stack.up();
    let run = |args: &[&str]| image.run(&stack, args);
    assert!(run(&["--version"]).expect(0).stdout.starts_with("switchback "));
    run(&["up", "--yes"]).expect(0);
    run(&["rehearse", "bank=2"]).expect(0);
    // It stays until the trial is over.
    run(&["promote", "bank=2", "--yes"]).expect(0);
    // The host sees the same.
    let status = stack.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["generation"], &status["trial"]), (&2.into(), &serde_json::Value::Null), "{status}");
    assert_eq!(stack.bank()["release"], 2);
    run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.bank()["release"], 1);
    let doctor = run(&["doctor"]);
    assert!(doctor.all().contains("engine"), "{}", doctor.all());
    stack.wait_until("nothing is left over", Duration::from_secs(30), || {
        stack.run(&["status", "--json"]).expect(0).json()["unfinished"].is_null()
    });
}
