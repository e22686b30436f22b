use super::super::{ImageName, Model, ModelError};
use super::{kitchen, model, name, parse};
use crate::release::MountSource;
use proptest::prelude::*;

#[test]
fn a_model_is_kept_whole_and_in_its_order() {
    let text = include_str!("../fixtures/kitchen.json");
    let before: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_string(&kitchen()).expect("JSON"), before.to_string());
    let again: Model = serde_json::from_str(text).expect("a model");
    assert_eq!(again, kitchen());
}

#[test]
fn accessors_give_plain_text() {
    let kitchen = kitchen();
    let db = name("db");
    let db = kitchen.service(&db).expect("there");
    assert_eq!(db.environment()["RAW"], "a$b${c}");
    assert_eq!(db.environment()["POSTGRES_PASSWORD"], "hunter2$x");
    assert!(!db.environment().contains_key("EMPTY"), "a variable without a value is not set");
    assert_eq!(db.healthcheck().expect("has one").test, ["CMD-SHELL", "pg_isready -U $POSTGRES_USER"]);
    assert_eq!((db.container_name(), db.stop_grace()), (Some("kitchen-db"), Some("1m30s")));
    assert_eq!((db.restart(), db.networks()), (Some("unless-stopped"), vec!["back"]));
}

#[test]
fn every_form_of_a_definition_is_seen() {
    let kitchen = kitchen();
    let (app, cache) = (name("app"), name("cache"));
    let app = kitchen.service(&app).expect("there");
    assert!(app.has_build() && app.privileged());
    let ports: Vec<String> = app
        .ports()
        .iter()
        .map(|p| format!("{:?} {:?} {}/{}", p.host_ip, p.published, p.container, p.protocol))
        .collect();
    insta::assert_snapshot!(ports.join("\n"), @r#"
    None Some("8080") 80/tcp
    Some("127.0.0.1") Some("8443") 443/tcp
    None Some("3000") 3000/udp
    None Some("3001") 3001/udp
    None None 9000/tcp
    "#);
    let mounts: Vec<String> = app
        .mounts()
        .iter()
        .map(|m| {
            format!(
                "{:?} {} <- {:?} ro={} nocopy={} {:?}",
                m.kind, m.target, m.source, m.read_only, m.nocopy, m.subpath
            )
        })
        .collect();
    insta::assert_snapshot!(mounts.join("\n"), @r#"
    Bind /etc/app.conf <- Bind("/stack/conf/app.conf") ro=true nocopy=false None
    Bind /media <- Bind("/srv/media") ro=false nocopy=false None
    Bind /var/run/docker.sock <- Bind("/var/run/docker.sock") ro=false nocopy=false None
    Volume /anon <- Anonymous { service: ServiceName("app"), target: "/anon" } ro=false nocopy=false None
    Tmpfs /run/x <- Anonymous { service: ServiceName("app"), target: "/run/x" } ro=false nocopy=false None
    Volume /shared <- Volume("shared") ro=false nocopy=true Some("sub")
    "#);
    assert_eq!(app.devices(), ["/dev/fuse"]);
    assert_eq!(
        (app.cap_add(), app.extra_hosts()),
        (vec!["NET_ADMIN".into()], vec!["host.docker.internal=host-gateway".into()])
    );
    let needs: Vec<String> =
        app.depends_on().iter().map(|d| format!("{} {} {}", d.service, d.condition, d.required)).collect();
    assert_eq!(needs, ["cache service_started false", "db service_healthy true"]);
    let cache = kitchen.service(&cache).expect("there");
    assert!(cache.healthcheck().expect("says something").disabled);
    assert_eq!(
        (cache.network_mode(), cache.pid(), cache.ipc()),
        (Some("service:db"), Some("host"), Some("host"))
    );
    let volume = kitchen.volume("cache").expect("defined");
    assert_eq!(
        (volume.driver.as_deref(), volume.driver_opts["device"].as_str()),
        (Some("local"), "/srv/cache")
    );
    assert!(kitchen.volume("shared").expect("defined").external);
}

#[test]
fn a_health_check_that_says_none_is_switched_off() {
    let model =
        model(r#"{"a":{"healthcheck":{"test":["NONE"]}},"b":{"healthcheck":{"interval":"5s"}},"c":{}}"#);
    let check = |n: &str| model.service(&name(n)).expect("there").healthcheck();
    assert!(check("a").expect("says so").disabled);
    let kept = check("b").expect("says something");
    assert!(!kept.disabled && kept.test.is_empty(), "the image's own test is kept");
    assert_eq!(check("c"), None);
}

#[test]
fn hostile_models_are_refused_with_the_place() {
    let cases = [
        (r#"{"a/b":{}}"#, "a/b"),
        (r#"{"a.b":{}}"#, "rename the service"),
        (r#"{}"#, "services is missing or empty"),
        (r#"{"a":1}"#, "services.a is not a mapping"),
        (r#"{"a":{"image":["x"]}}"#, "services.a.image is not a text"),
        (r#"{"a":{"environment":["A=b"]}}"#, "services.a.environment is not a mapping"),
        (r#"{"a":{"environment":{"A":{"b":1}}}}"#, "services.a.environment.A"),
        (r#"{"a":{"ports":[{"target":70000}]}}"#, "services.a.ports"),
        (r#"{"a":{"ports":["80:80"]}}"#, "services.a.ports"),
        (r#"{"a":{"ports":[{"target":0}]}}"#, "port 0"),
        (r#"{"a":{"volumes":["v:/x"]}}"#, "services.a.volumes[0]"),
        (r#"{"a":{"volumes":[{"type":"odd","target":"/x"}]}}"#, "a type that is not known"),
        (r#"{"a":{"volumes":[{"type":"bind","target":"/x"}]}}"#, "binds nothing"),
        (r#"{"a":{"volumes":[{"type":"bind","source":"x","target":"/x"}]}}"#, "not absolute"),
        (r#"{"a":{"volumes":[{"type":"volume","source":"v","target":"x"}]}}"#, "not an absolute path"),
        (r#"{"a":{"volumes":[{"type":"volume","source":"zz","target":"/x"}]}}"#, "does not define"),
        (
            r#"{"a":{"volumes":[{"type":"volume","source":"v","target":"/x"},{"type":"tmpfs","target":"/x/"}]}}"#,
            "services.a.volumes[1] has the same target",
        ),
    ];
    for (services, part) in cases {
        let error = parse(services).expect_err(services).to_string();
        assert!(error.contains(part), "{services}: {error}");
    }
    for bad in ["", "[]", "{", r#"{"services":{"a":{}}}"#, r#"{"name":"../x","services":{"a":{}}}"#] {
        Model::parse(bad).expect_err(bad);
    }
    let bad = r#"{"name":"p","services":{"a":{}},"volumes":{"x y":{}}}"#;
    assert!(matches!(Model::parse(bad), Err(ModelError::Shape { .. })));
}

#[test]
fn neither_debug_nor_errors_show_values() {
    let kitchen = kitchen();
    let shown = format!("{kitchen:?} {:?}", kitchen.services().collect::<Vec<_>>());
    assert!(shown.contains("kitchen") && shown.contains("db") && !shown.contains("hunter2"), "{shown}");
    for bad in [
        r#"{"name":"p","services":{"a":{"environment":{"PASSWORD":["hunter2"]}}}}"#,
        r#"{"name":"p","services":{"a":{"environment":["PASSWORD=hunter2"]}}}"#,
        r#"{"name":"p","services":{"a":{"environment":{"PASSWORD":"hunter2"}}"#,
        r#"{"name":"p","services":{"a":{"environment":{"PASSWORD":"hunter2"},"volumes":[{"type":"hunter2"}]}}}"#,
    ] {
        let error = Model::parse(bad).expect_err(bad);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let error = serde_json::from_str::<Model>(bad).expect_err(bad).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn secrets_are_found_wherever_a_model_has_them() {
    let secrets = kitchen().secrets();
    for value in ["hunter2$x", "hunter2$$x", "tok-123$5", "abc$1", "pw"] {
        assert!(secrets.iter().any(|s| s == value), "{value} is missing in {secrets:?}");
    }
    let model = model(
        r#"{"a":{"environment":{"SIGNING_KEY":"k1-long","DATABASE_URL":"mysql://u:p%40ss@h/d","SECRET_ENABLED":"true",
            "DB_PASSWORD_FILE":"/run/secrets/db","SENTRY_DSN":"https://abc@sentry/1","TOKEN_TTL":"3600","MONKEY_NAME":"joe",
            "REDIS_PASS":"rp-long"},
            "command":["redis-server","--requirepass","rq$$long"],"healthcheck":{"test":["CMD-SHELL","curl -u x --token tt-long http://u:up-long@h"]},
            "labels":{"traefik.http.middlewares.m.basicauth.users":"joe:$$apr1$$xyz"}}}"#,
    );
    let secrets = model.secrets();
    for value in [
        "k1-long",
        "p%40ss",
        "p@ss",
        "https://abc@sentry/1",
        "rp-long",
        "rq$long",
        "tt-long",
        "up-long",
        "joe:$apr1$xyz",
    ] {
        assert!(secrets.iter().any(|s| s == value), "{value} is missing in {secrets:?}");
    }
    for value in ["true", "3600", "joe", "/run/secrets/db"] {
        assert!(!secrets.iter().any(|s| s == value), "{value} would blank out ordinary text");
    }
}

#[test]
fn the_configuration_digest_ignores_images_names_and_places_only() {
    let text = include_str!("../fixtures/kitchen.json");
    let digest = |text: &str, dir: &str| Model::parse(text).expect("a model").config_digest(dir);
    let own = digest(text, "/stack");
    let elsewhere = text.replace("/stack", "/home/me/stack");
    assert_eq!(digest(&elsewhere, "/home/me/stack/"), own, "where the folder lies");
    assert_ne!(digest(&elsewhere, "/stack"), own);
    assert_eq!(
        digest(
            &text.replace("kitchen_", "k2_").replace("\"name\": \"kitchen\"", "\"name\": \"k2\""),
            "/stack"
        ),
        own
    );
    assert_eq!(digest(&text.replace("postgres:15", "postgres:16"), "/stack"), own);
    for (from, to) in [
        ("hunter2", "hunter3"),
        ("\"/srv/media\"", "\"/srv/media2\""),
        ("pg_isready", "true"),
        ("\"traefik_web\"", "\"other_web\""),
        ("\"/srv/cache\"", "\"/srv/cache2\""),
    ] {
        assert_ne!(digest(&text.replace(from, to), "/stack"), own, "{from} is configuration");
    }
}

#[test]
fn names_of_images_are_taken_apart() {
    let sha = format!("sha256:{}", "0a".repeat(32));
    for (text, repository, tag, version) in [
        ("postgres".to_owned(), "postgres", None, "latest"),
        ("localhost:5000/a/b:1.2".to_owned(), "localhost:5000/a/b", Some("1.2"), "1.2"),
        ("localhost:5000/a".to_owned(), "localhost:5000/a", None, "latest"),
        (format!("ghcr.io/x/y:v1@{sha}"), "ghcr.io/x/y", Some("v1"), "v1"),
        (format!("x@{sha}"), "x", None, "sha256:0a0a0a0a0a0a"),
    ] {
        let name = ImageName::parse(&text).expect(&text);
        assert_eq!(
            (name.repository.as_str(), name.tag.as_deref(), name.version()),
            (repository, tag, version)
        );
        assert_eq!(name.to_string(), text);
        assert_eq!(name.with_tag("2").expect("a tag").to_string(), format!("{repository}:2"));
    }
    for bad in ["", ":1", "a:", "a b:1", "a@sha256:1", "a:1@", "a//b", "/a", "a:${X}", "a:-1", "a\n:1"] {
        assert!(ImageName::parse(bad).is_err(), "{bad:?} was accepted");
    }
    assert!(ImageName::parse("a").expect("valid").with_tag("a b").is_err());
}

proptest! {
    #[test]
    fn a_name_of_an_image_is_written_as_it_was_read(
        host in "([a-z]{1,5}(:[0-9]{1,4})?/)?", path in "[a-z][a-z0-9_.-]{0,8}(/[a-z0-9]{1,5}){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"), digest in proptest::bool::ANY,
    ) {
        let tag_text = tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let digest = if digest { format!("@sha256:{}", "5".repeat(64)) } else { String::new() };
        let text = format!("{host}{path}{tag_text}{digest}");
        let name = ImageName::parse(&text).expect("valid");
        prop_assert_eq!(name.to_string(), text);
        prop_assert_eq!(name.tag, tag);
    }

    #[test]
    fn no_text_makes_the_reader_of_names_panic(text in "\\PC{0,40}") {
        let _ = ImageName::parse(&text);
    }
}

#[test]
fn an_escaped_path_is_the_plain_path() {
    let model = model(r#"{"a":{"volumes":[{"type":"bind","source":"/srv/$$x","target":"/t"}]}}"#);
    assert_eq!(model.mounts()[0].source, MountSource::Bind("/srv/$x".into()));
}
