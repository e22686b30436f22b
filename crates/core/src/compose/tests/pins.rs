use super::super::{LockHeader, Pins, lock_file, production};
use super::{bind, dir, kitchen, model, name, pins, volume};
use crate::release::{MountPlace, MountSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn json_of(model: &super::Model) -> Value {
    serde_json::to_value(model).expect("JSON")
}

fn kitchen_pins() -> Pins {
    let anonymous = MountSource::Anonymous { service: name("app"), target: "/anon".into() };
    let mut pins = pins(
        &kitchen(),
        &[
            (MountSource::Volume("db-data".into()), volume("kitchen_db-data.g7")),
            (MountSource::Volume("cache".into()), volume("kitchen_cache.g7")),
            (MountSource::Volume("shared".into()), dir("/gen/7/shared")),
            (bind("/srv/media"), dir("/gen/7/media")),
            (anonymous, volume("kitchen_anon.g7")),
        ],
    );
    pins.config_binds = BTreeMap::from([("/stack/conf/app.conf".to_owned(), "/gen/7/app.conf".to_owned())]);
    pins.commands = BTreeMap::from([(name("app"), vec!["run".to_owned(), "a=$b".to_owned()])]);
    pins
}

#[test]
fn production_pins_images_and_mounts_and_leaves_the_rest() {
    let before = json_of(&kitchen());
    let after = json_of(&production(&kitchen(), &kitchen_pins()).expect("pins fit"));
    let app = &after["services"]["app"];
    assert_eq!(app["command"], json!(["run", "a=$$b"]));
    assert_eq!(app["image"], format!("sha256:{}", "ab".repeat(32)));
    assert_eq!((&app["pull_policy"], app.get("build")), (&json!("never"), None));
    let sources: Vec<&str> =
        app["volumes"].as_array().expect("a list").iter().filter_map(|v| v["source"].as_str()).collect();
    let anonymous = sources[3];
    assert!(anonymous.starts_with("app-"), "{anonymous}");
    assert_eq!(
        sources,
        ["/gen/7/app.conf", "/gen/7/media", "/var/run/docker.sock", anonymous, "/gen/7/shared/sub"]
    );
    assert_eq!(app["volumes"][0]["read_only"], true, "stays read-only");
    assert_eq!(app["volumes"][1]["bind"]["create_host_path"], false);
    assert_eq!(after["volumes"]["db-data"], json!({"name": "kitchen_db-data.g7", "external": true}));
    assert_eq!(
        after["volumes"]["cache"],
        json!({"name": "kitchen_cache.g7", "external": true}),
        "no driver options"
    );
    assert_eq!(after["volumes"].get("shared"), None, "`down -v` would remove what nobody mounts any more");
    for key in ["environment", "ports", "networks", "healthcheck", "depends_on", "secrets", "configs"] {
        assert_eq!(app[key], before["services"]["app"][key], "{key}");
    }
    for key in ["networks", "secrets", "configs", "x-common", "name"] {
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn a_volume_of_an_image_becomes_a_mount_of_its_own() {
    let model = model(r#"{"a":{"image":"x"}}"#);
    let source = MountSource::Anonymous { service: name("a"), target: "/data".into() };
    for (place, kind) in [(volume("p_a.g2"), "volume"), (dir("/gen/2/a"), "bind")] {
        let after =
            json_of(&production(&model, &pins(&model, &[(source.clone(), place)])).expect("pins fit"));
        let entry = &after["services"]["a"]["volumes"][0];
        assert_eq!((&entry["type"], &entry["target"]), (&json!(kind), &json!("/data")));
    }
}

#[test]
fn binds_below_a_pinned_folder_move_with_it() {
    let model = model(
        r#"{"a":{"volumes":[{"type":"bind","source":"/d","target":"/d"}]},
            "b":{"volumes":[{"type":"bind","source":"/d/sub","target":"/s","read_only":true},
                            {"type":"bind","source":"/data","target":"/other"},
                            {"type":"bind","source":"/d/own","target":"/own"}]}}"#,
    );
    let all = [(bind("/d/own"), dir("/g/own")), (bind("/d"), dir("/g/d"))];
    let after = json_of(&production(&model, &pins(&model, &all)).expect("pins fit"));
    let b = &after["services"]["b"]["volumes"];
    assert_eq!((&b[0]["source"], &b[0]["read_only"]), (&json!("/g/d/sub"), &json!(true)));
    assert_eq!(b[1]["source"], "/data", "another folder");
    assert_eq!(b[2]["source"], "/g/own", "pinned by itself");
    let error = production(&model, &pins(&model, &[(bind("/d"), volume("p_d.g2"))])).expect_err("cannot");
    assert!(error.to_string().contains("clone /d to a directory"), "{error}");
}

#[test]
fn dollars_in_paths_stay_doubled_in_the_model() {
    let model = model(r#"{"a":{"volumes":[{"type":"bind","source":"/srv/$$x","target":"/t$$"}]}}"#);
    let pins = pins(&model, &[(bind("/srv/$x"), dir("/g/$y"))]);
    let after = production(&model, &pins).expect("pins fit");
    assert_eq!(json_of(&after)["services"]["a"]["volumes"][0]["source"], "/g/$$y");
    assert_eq!(
        json_of(&after)["services"]["a"]["volumes"].as_array().expect("a list").len(),
        1,
        "same target"
    );
    assert_eq!(after.mounts()[0].source, bind("/g/$y"));
}

#[test]
fn pins_that_do_not_fit_are_refused() {
    let model = model(r#"{"a":{"volumes":[{"type":"volume","source":"v","target":"/v"}]},"b":{}}"#);
    let unknown = MountSource::Anonymous { service: name("zz"), target: "/x".into() };
    let named = MountSource::Anonymous { service: name("a"), target: "/v".into() };
    let key = MountSource::Volume("v".into());
    let cases: [(&[(MountSource, MountPlace)], &str); 9] = [
        (&[(MountSource::Volume("zz".into()), volume("p_zz"))], "no volume zz"),
        (&[(bind("/zz"), dir("/g"))], "no service binds /zz"),
        (&[(unknown, volume("p_x"))], "no service zz"),
        (&[(named, volume("p_x"))], "something else"),
        (&[(key.clone(), volume("p_v")), (key.clone(), dir("/g"))], "pinned twice"),
        (&[(key.clone(), volume("../x"))], "not the name of a volume"),
        (&[(key.clone(), dir("relative"))], "not an absolute path"),
        (&[(key.clone(), dir("/a/../b"))], "not an absolute path"),
        (&[(key.clone(), dir("/a\n/b"))], "not an absolute path"),
    ];
    for (mounts, part) in cases {
        let error = production(&model, &pins(&model, mounts)).expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut missing = pins(&model, &[]);
    missing.images.remove("b");
    assert!(
        production(&model, &missing)
            .expect_err("unpinned")
            .to_string()
            .contains("no image is recorded for the service b")
    );
    let mut more = pins(&model, &[]);
    let image = more.images["a"].clone();
    more.images.insert(name("tool"), image);
    assert!(production(&model, &more).expect_err("not there").to_string().contains("profile"));
    let mut tag = pins(&model, &[]);
    tag.images.get_mut("a").expect("there").id = "postgres:15".into();
    assert!(production(&model, &tag).expect_err("no id").to_string().contains("sha256"));
    let mut config = pins(&model, &[]);
    config.config_binds.insert("/etc/x".into(), "/g/x".into());
    assert!(production(&model, &config).expect_err("not bound").to_string().contains("/etc/x"));
}

#[test]
fn the_lock_file_is_sorted_readable_and_stable() {
    let header = LockHeader {
        stack: "kitchen\nservices: {}".into(),
        generation: "7".into(),
        run: "01J".into(),
        date: "2026-11-23 10:00 UTC".into(),
    };
    let mut pins = kitchen_pins();
    pins.images.get_mut("db").expect("there").digest = Some(format!("postgres@sha256:{}", "c".repeat(64)));
    let text = lock_file(&kitchen(), &pins, &header).expect("pins fit");
    assert_eq!(text, lock_file(&kitchen(), &pins, &header).expect("pins fit"));
    assert!(!text.contains("hunter2"), "no environment");
    insta::assert_snapshot!(text.replace(&"ab".repeat(32), "AB").replace(&"c".repeat(64), "C"));
    // Every YAML reader agrees (the tags are Compose's).
    let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
    assert_eq!(yaml["services"].as_mapping().expect("a mapping").len(), 5);
}

#[test]
fn hostile_paths_stay_one_text_in_the_lock_file() {
    let model = model(r#"{"a":{"volumes":[{"type":"bind","source":"/d","target":"/t: \"x\" # {y}"}]}}"#);
    let pins = pins(&model, &[(bind("/d"), dir("/g/'a' \"b\" \\ : # \u{2028}${HOME}"))]);
    let header = LockHeader { stack: "s".into(), generation: "1".into(), run: "r".into(), date: "d".into() };
    let text = lock_file(&model, &pins, &header).expect("pins fit");
    let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let entry = &yaml["services"]["a"]["volumes"][0];
    assert_eq!(entry["source"].as_str(), Some("/g/'a' \"b\" \\ : # \u{2028}$${HOME}"));
    assert_eq!(entry["target"].as_str(), Some("/t: \"x\" # {y}"));
}
