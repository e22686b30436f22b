//! The models that Switchback makes, read by the real Docker Compose. No engine is needed.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use switchback_core::compose::{
    LockHeader, Model, Pins, StagingFacts, env_with_lock, env_without_lock, lock_file, production, staging,
};
use switchback_core::ids::ServiceName;
use switchback_core::release::{ImageRef, Mount, MountPlace, MountSource};

const LOCK: &str = "switchback.lock.yaml";

/// A stack with most of what Compose files can say, in a folder of its own.
struct Kitchen {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Kitchen {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("exists").join("kitchen");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose/kitchen"), &root);
        Self { _dir: dir, root }
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// What Compose prints; it must accept the files.
    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> String {
        let mut command = compose_program();
        command.current_dir(&self.root).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", std::env::var_os("HOME").unwrap_or_default());
        let out = command.args(arguments).output().expect("Compose starts");
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "docker compose {arguments:?}: {errors}");
        String::from_utf8(out.stdout).expect("text")
    }

    fn config(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["config", "--format", "json"]).collect();
        let mut value = serde_json::from_str(&self.compose(&all)).expect("JSON");
        forget_defaults(&mut value);
        value
    }

    fn model(&self) -> Model {
        Model::parse(&self.compose(&["config", "--format", "json"])).expect("a model")
    }

    /// Configuration hashes by service, as `up` compares them with those of containers.
    fn hashes(&self, arguments: &[&str]) -> BTreeMap<String, String> {
        let all: Vec<&str> = arguments.iter().copied().chain(["config", "--hash", "*"]).collect();
        let text = self.compose(&all);
        text.lines().filter_map(|l| l.split_once(' ')).map(|(n, h)| (n.to_owned(), h.to_owned())).collect()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.root.join(name);
        fs::write(&path, text).expect("writes");
        path.display().to_string()
    }

    /// Pins of every kind.
    fn pins(&self, model: &Model) -> Pins {
        let image = |service: &ServiceName| ImageRef {
            reference: format!("example/{service}:1"),
            id: format!("sha256:{}", "1".repeat(64)),
            digest: Some(format!("example/{service}@sha256:{}", "2".repeat(64))),
        };
        let mount = |source, at| Mount { source, at, beside: None };
        let volume = |name: &str| MountPlace::Volume(name.to_owned());
        let anonymous = |service, target: &str| MountSource::Anonymous {
            service: name(service),
            target: target.to_owned(),
        };
        Pins {
            images: model.services().map(|s| (s.name().clone(), image(s.name()))).collect(),
            mounts: vec![
                mount(MountSource::Volume("db-data".into()), volume("kitchen_db-data.g7")),
                mount(MountSource::Volume("cache".into()), volume("kitchen_cache.g7")),
                mount(MountSource::Volume("shared".into()), MountPlace::Dir("/gen/$7/shared".into())),
                mount(MountSource::Bind("/srv/media".into()), MountPlace::Dir("/gen/7/media".into())),
                mount(MountSource::Bind(self.path("inc/data")), volume("kitchen_data.g7")),
                mount(anonymous("app", "/anon"), volume("kitchen_anon.g7")),
                mount(anonymous("plain", "/of/image"), MountPlace::Dir("/gen/7/of-image".into())),
            ],
            config_binds: BTreeMap::from([(self.path("conf/app.conf"), "/gen/7/config/app.conf".to_owned())]),
            commands: BTreeMap::from([(
                name("app"),
                ["serve", "-c", "a=$b: \"x\""].map(str::to_owned).to_vec(),
            )]),
        }
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("valid")
}

fn compose_program() -> Command {
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).arg("version").output().is_ok_and(|o| o.status.success())
    };
    if works("docker", &["compose"]) {
        let mut command = Command::new("docker");
        command.arg("compose");
        return command;
    }
    assert!(
        works("docker-compose", &[]),
        "these tests need Docker Compose 2.24 or newer: install its plugin"
    );
    Command::new("docker-compose")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Removes what means the same as nothing; versions of Compose differ in whether they write it.
fn forget_defaults(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, v| !(key == "create_host_path" && *v == Value::Bool(false)));
            map.retain(|key, v| !(key == "ipam" && v.as_object().is_some_and(serde_json::Map::is_empty)));
            map.values_mut().for_each(forget_defaults);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_defaults),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[track_caller]
fn same(left: &Value, right: &Value) {
    let text = |v: &Value| serde_json::to_string_pretty(v).expect("JSON");
    let (left_text, right_text) = (text(left), text(right));
    let only = |a: &str, b: &str| {
        let b: BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|l| !b.contains(l)).collect::<Vec<_>>().join("\n")
    };
    assert!(
        left == right,
        "left only:\n{}\nright only:\n{}",
        only(&left_text, &right_text),
        only(&right_text, &left_text)
    );
}

fn header() -> LockHeader {
    LockHeader { stack: "kitchen".into(), generation: "7".into(), run: "R".into(), date: "2026-11-23".into() }
}

#[test]
fn a_model_read_back_by_compose_is_the_same_model() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let file = kitchen.write("model.json", &model.to_json());
    let mut written = serde_json::to_value(&model).expect("JSON");
    forget_defaults(&mut written);
    same(&kitchen.config(&["-f", &file]), &written);
}

#[test]
fn compose_accepts_the_production_model_as_it_is() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let pinned = production(&model, &kitchen.pins(&model)).expect("pins fit");
    let file = kitchen.write("production.json", &pinned.to_json());
    let mut written = serde_json::to_value(&pinned).expect("JSON");
    forget_defaults(&mut written);
    same(&kitchen.config(&["-f", &file]), &written);
}

#[test]
fn plain_compose_with_the_lock_file_starts_what_switchback_started() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let pins = kitchen.pins(&model);
    let file = kitchen.write("production.json", &production(&model, &pins).expect("pins fit").to_json());
    let lock = lock_file(&model, &pins, &header()).expect("pins fit");
    kitchen.write(LOCK, &lock);
    let before = fs::read_to_string(kitchen.root.join(".env")).expect("reads");
    let env = env_with_lock(&before, &["compose.yaml".to_owned()], LOCK).expect("edits");
    kitchen.write(".env", &env);

    same(&kitchen.config(&[]), &kitchen.config(&["-f", &file]));
    let (mut plain, mut ours) = (kitchen.hashes(&[]), kitchen.hashes(&["-f", &file]));
    // `config --hash` counts env_file, `up` (tried with an engine) does not; the values are the same, see above.
    assert!(plain.remove("app").is_some() && ours.remove("app").is_some());
    assert_eq!(plain, ours);
    assert_eq!(env_without_lock(&env, LOCK), before);
}

#[test]
fn another_generation_is_another_configuration_for_compose() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let mut pins = kitchen.pins(&model);
    let seventh = kitchen.write("7.json", &production(&model, &pins).expect("pins fit").to_json());
    for mount in &mut pins.mounts {
        if let MountPlace::Volume(name) = &mut mount.at {
            *name = name.replace(".g7", ".g8");
        }
    }
    let eighth = kitchen.write("8.json", &production(&model, &pins).expect("pins fit").to_json());
    let (seventh, eighth) = (kitchen.hashes(&["-f", &seventh]), kitchen.hashes(&["-f", &eighth]));
    for service in ["app", "cache", "db", "included"] {
        assert_ne!(seventh[service], eighth[service], "{service} would keep running on the old data");
    }
    assert_eq!(seventh["plain"], eighth["plain"], "its data did not move");
}

#[test]
fn compose_finds_the_lock_file_with_another_path_separator() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let pins = kitchen.pins(&model);
    kitchen.write(LOCK, &lock_file(&model, &pins, &header()).expect("pins fit"));
    let before = format!(
        "{}COMPOSE_PATH_SEPARATOR=,\nCOMPOSE_FILE=\"compose.yaml\" # mine",
        fs::read_to_string(kitchen.root.join(".env")).expect("reads")
    );
    let env = env_with_lock(&before, &["compose.yaml".to_owned()], LOCK).expect("edits");
    kitchen.write(".env", &env);
    assert_eq!(kitchen.config(&[])["services"]["db"]["pull_policy"], "never");
    assert_eq!(env_without_lock(&env, LOCK), before);
}

#[test]
fn compose_accepts_the_staging_model_as_it_is() {
    let kitchen = Kitchen::new();
    let model = kitchen.model();
    let facts = StagingFacts {
        project: "kitchen-staging".into(),
        pins: kitchen.pins(&model),
        stack_dir: kitchen.root.display().to_string(),
        files: BTreeSet::new(),
        ports: BTreeMap::from([(name("app"), BTreeMap::from([(80, 28_080)]))]),
        env: BTreeMap::from([("PUBLIC_URL".to_owned(), "http://x/$y".to_owned())]),
        labels: BTreeMap::from([("dev.switchback.stack".to_owned(), "kitchen".to_owned())]),
        ..StagingFacts::default()
    };
    let (copy, _) = staging(&model, &facts).expect("a copy");
    let file = kitchen.write("staging.json", &copy.to_json());
    let mut written = serde_json::to_value(&copy).expect("JSON");
    forget_defaults(&mut written);
    same(&kitchen.config(&["-f", &file]), &written);
    let app = copy.service(&name("app")).expect("there").environment().remove("PUBLIC_URL");
    assert_eq!(app.as_deref(), Some("http://x/$y"));
}
