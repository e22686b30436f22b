use super::super::{Detected, HealthSource, ImageFacts, Software, detect};
use super::{kitchen, model, name};
use crate::data::StoreKind;
use crate::release::MountSource;
use std::collections::BTreeMap;

fn summary(found: &Detected) -> String {
    let services = found
        .services
        .iter()
        .map(|s| format!("{} {:?} {:?} {:?} {:?}", s.name, s.version, s.software, s.port, s.health));
    let stores = found.stores.iter().map(|s| {
        let services: Vec<&str> = s.services.iter().map(crate::ids::ServiceName::as_str).collect();
        format!(
            "{} {:?} {:?} path={:?} by {} stop={}",
            s.name,
            s.kind,
            s.software,
            s.path,
            services.join(","),
            s.stop_to_copy
        )
    });
    let warnings = found
        .warnings
        .iter()
        .map(|w| format!("{}: {}", w.service.as_ref().map_or("*", |s| s.as_str()), w.what));
    services
        .chain(["--".into()])
        .chain(stores)
        .chain(["--".into()])
        .chain(warnings)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_full_stack_is_described() {
    let images = BTreeMap::from([
        (
            name("plain"),
            ImageFacts {
                volumes: vec!["/of/image".into()],
                exposed: vec![9000, 80],
                ..ImageFacts::default()
            },
        ),
        (
            name("included"),
            ImageFacts { has_healthcheck: true, volumes: vec!["/data".into()], ..ImageFacts::default() },
        ),
    ]);
    insta::assert_snapshot!(summary(&detect(&kitchen(), &images, "/stack")));
}

#[test]
fn a_postgres_server_is_recognised_by_its_image_and_its_folder_is_found() {
    let model = model(
        r#"{"db":{"image":"supabase/odd:1","environment":{"POSTGRES_USER":"me"},
                  "volumes":[{"type":"volume","source":"v","target":"/var/lib/postgresql"},
                             {"type":"bind","source":"/stack/init","target":"/docker-entrypoint-initdb.d"}]},
            "app":{"image":"app:1","environment":{"POSTGRES_PASSWORD":"x"},"volumes":[{"type":"volume","source":"w","target":"/d"}]},
            "exp":{"image":"x/postgres-exporter:1"}}"#,
    );
    let env = BTreeMap::from([("PGDATA".to_owned(), "/var/lib/postgresql/18/docker".to_owned())]);
    let images = BTreeMap::from([(name("db"), ImageFacts { env, ..ImageFacts::default() })]);
    let found = detect(&model, &images, "/stack");
    let store = found.stores.iter().find(|s| s.mount == MountSource::Volume("v".into())).expect("found");
    assert_eq!((store.kind, store.path.as_str()), (StoreKind::Postgres, "18/docker"));
    let server = store.server.as_ref().expect("known");
    assert_eq!((server.user.as_str(), server.target.as_str()), ("me", "/var/lib/postgresql"));
    assert_eq!(found.stores.iter().filter(|s| s.kind == StoreKind::Postgres).count(), 1);
    let software: Vec<Option<Software>> = found.services.iter().map(|s| s.software).collect();
    assert_eq!(software, [Some(Software::Postgres), None, None]);
}

#[test]
fn databases_that_must_be_stopped_to_be_copied_are_known() {
    let model = model(
        r#"{"r":{"image":"valkey/valkey:8","volumes":[{"type":"volume","source":"v","target":"/data"}]},
            "n":{"image":"neo4j:5","volumes":[{"type":"volume","source":"w","target":"/data"}]},
            "m":{"image":"mariadb:11"},"g":{"image":"mongo:7"},"e":{"image":"mongo-express:1"}}"#,
    );
    let volumes = |v: &str| ImageFacts { volumes: vec![v.to_owned()], ..ImageFacts::default() };
    let images = BTreeMap::from([(name("m"), volumes("/var/lib/mysql")), (name("g"), volumes("/data/db"))]);
    let found = detect(&model, &images, "");
    let stop: Vec<(String, Option<Software>)> =
        found.stores.iter().filter(|s| s.stop_to_copy).map(|s| (s.name.to_string(), s.software)).collect();
    assert_eq!(stop.len(), 3, "{stop:?}");
    assert_eq!(found.services[4].software, None);
    let mysql = found.stores.iter().find(|s| s.name.as_str() == "m-mysql").expect("found");
    assert_eq!((mysql.kind, mysql.stop_to_copy), (StoreKind::Mysql, false));
    let server = mysql.server.as_ref().expect("known");
    assert_eq!((server.service.as_str(), server.user.as_str()), ("m", "root"));
}

#[test]
fn a_health_check_counts_wherever_it_is_but_not_when_switched_off() {
    let model = model(
        r#"{"a":{"healthcheck":{"disable":true}},"b":{"healthcheck":{"interval":"1s"}},"c":{"healthcheck":{"test":["CMD","x"]}}}"#,
    );
    let image = ImageFacts { has_healthcheck: true, ..ImageFacts::default() };
    let images = BTreeMap::from([(name("a"), image.clone()), (name("b"), image)]);
    let health: Vec<HealthSource> = detect(&model, &images, "").services.iter().map(|s| s.health).collect();
    assert_eq!(health, [HealthSource::None, HealthSource::Image, HealthSource::Compose]);
}

#[test]
fn names_of_stores_are_allowed_and_different() {
    let model = model(
        r#"{"a":{"volumes":[{"type":"bind","source":"/stack/a/data","target":"/1"},{"type":"bind","source":"/x/data","target":"/2"},
            {"type":"bind","source":"/y/data","target":"/3"},{"type":"bind","source":"/y/ü","target":"/4"}]}}"#,
    );
    let found = detect(&model, &BTreeMap::new(), "/stack");
    let names: Vec<&str> = found.stores.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["a-data", "data", "data-2", "data-3"]);
}
