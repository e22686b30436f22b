//! Newer images, with a real registry: they are found, rehearsed, promoted as far as the policy allows, and written into the
//! configuration.

mod common;

use common::docker::{Example, Stack, docker, free_port, ran};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry on this host, gone with the test.
struct Registry {
    child: Child,
    port: u16,
    pushed: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n",
            dir.path().join("data").display()
        );
        fs::write(&config, text).expect("writes");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed; scripts/test prepares it");
        let registry = Self { child, port, pushed: Vec::new(), _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry did not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    fn image(&self) -> String {
        format!("127.0.0.1:{}/shop/bank", self.port)
    }

    /// Pushes an image with a mark of its own, so that no two tags are the same.
    fn push(&mut self, base: &str, tag: &str) {
        let name = format!("{}:{tag}", self.image());
        let mut build = Command::new("docker")
            .args(["build", "-q", "-t", &name, "-"])
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker is installed");
        let recipe = format!("FROM {base}\nLABEL tag={tag}\n");
        build.stdin.take().expect("an input").write_all(recipe.as_bytes()).expect("writes");
        let built = build.wait_with_output().expect("ends");
        assert!(built.status.success(), "{}", ran(&built).stderr);
        docker(&["push", "-q", &name]).expect(0);
        self.pushed.push(name);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for name in &self.pushed {
            docker(&["image", "rm", "-f", name]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn only(found: &Value) -> &Value {
    let list = found["services"].as_array().expect("services");
    assert_eq!(list.len(), 1, "{found}");
    &list[0]
}

#[test]
fn newer_images_are_found_tried_and_promoted_as_far_as_they_are_followed() {
    let mut registry = Registry::start();
    registry.push("sbt/bank:1", "1.0.0");
    let stack = Stack::compose(Example::Bank);
    stack.set("BANK_IMAGE", &registry.image());
    stack.set_version("1.0.0");
    assert!(stack.run(&["outdated"]).expect(3).all().contains("switchback up"));
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);

    assert!(stack.run(&["outdated"]).expect(0).stdout.contains("nothing newer"));
    for (base, tag) in [("sbt/bank:2", "1.1.0"), ("sbt/bank:2", "2.0.0"), ("sbt/bank:2", "1.2.0-rc.1")] {
        registry.push(base, tag);
    }
    let found = stack.run(&["outdated", "--json"]).expect(0).json();
    assert_eq!(only(&found)["newer"], json!({ "minor": "1.1.0", "major": "2.0.0" }), "{found}");
    let shown = stack.run(&["outdated", "bank"]).expect(0).stdout;
    assert!(shown.contains("switchback rehearse bank=1.1.0"), "{shown}");
    assert!(stack.run(&["outdated", "nobody"]).expect(2).all().contains("services: bank"));

    // Nothing is followed: nothing is tried.
    let auto = |code: i32| stack.run(&["auto", "--json"]).expect(code).json();
    assert!(auto(0)["why"].as_str().expect("why").contains("exactly what switchback.yaml says"));
    let policy = |text: &str| {
        let path = stack.root.join("switchback.yaml");
        let now = fs::read_to_string(&path).expect("reads");
        let kept: Vec<&str> = now.lines().filter(|l| !l.starts_with("promotion:")).collect();
        fs::write(&path, format!("{}\npromotion: {text}\n", kept.join("\n"))).expect("writes");
    };
    policy("{ auto: always, follow: { nobody: minor } }");
    assert!(stack.run(&["auto"]).expect(2).all().contains("promotion.follow.nobody"));
    policy("{ auto: always, follow: { bank: patch } }");
    assert!(auto(0)["why"].as_str().expect("why").contains("nothing that it follows is newer"));
    policy("{ auto: always, follow: { bank: minor } }");
    let done = auto(0);
    assert_eq!(done["procedure"], "promote", "{done}");
    stack.wait_until("the trial is over", Duration::from_secs(60), || {
        stack.run(&["status", "--json"]).expect(0).json()["trial"].is_null()
    });
    let env = fs::read_to_string(stack.root.join(".env")).expect("reads");
    assert!(env.contains("BANK_VERSION=1.1.0"), "{env}");
    assert_eq!(stack.inspect("bank", "{{.Config.Labels.tag}}"), "1.1.0");
    // The next one is further away than is followed.
    assert!(auto(0)["why"].as_str().expect("why").contains("nothing that it follows is newer"));

    // A registry that is away is no reason to believe that nothing is newer.
    registry.child.kill().expect("kills");
    registry.child.wait().expect("ends");
    let away = stack.run(&["outdated", "--json"]).expect(6).json();
    assert!(only(&away)["problem"].is_string(), "{away}");
}

#[test]
fn a_demanded_stop_is_tried_before_what_is_followed_and_tags_are_the_stops_that_may_be_found() {
    let mut registry = Registry::start();
    registry.push("sbt/bank:1", "1.0.0");
    let stack = Stack::compose(Example::Bank);
    stack.set("BANK_IMAGE", &registry.image());
    stack.set_version("1.0.0");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    for (base, tag) in [("sbt/bank:1", "1.0.1"), ("sbt/bank:2", "1.1.0"), ("sbt/bank:2", "2.0.0")] {
        registry.push(base, tag);
    }
    let found = stack.run(&["path", "--find", "bank=2.0.0", "--json"]).expect(0);
    assert!(found.stderr.contains("known between: 1.0.1, 1.1.0"), "{}", found.all());
    assert_eq!(found.json()["holds"], json!(["2.0.0"]), "the direct way holds");

    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let rules = "paths: [{ service: bank, before: \"2.0.0\", through: \"1.1.0\" }]\npromotion: { auto: ask, follow: { bank: major } }";
    fs::write(&path, format!("{text}\n{rules}\n")).expect("writes");
    assert!(stack.run(&["rehearse", "bank=2.0.0"]).expect(3).all().contains("1.1.0 comes before 2.0.0"));
    stack.run(&["auto"]).expect(0);
    assert_eq!(stack.report()["to"]["bank"], "1.1.0", "{}", stack.report());
}
