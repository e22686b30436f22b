//! What two models differ in besides their images, for people. Values are not told: they may be secrets.

use super::{Model, Service};
use crate::ids::ServiceName;
use crate::settings::{VARIABLE, by_service, named};
use std::collections::BTreeMap;

/// Told elsewhere (the version), or of no meaning to what a service does.
const LEFT_OUT: [&str; 5] = ["image", "build", "pull_policy", "labels", "environment"];

/// What the services, volumes and networks of two models differ in.
pub fn changes(old: &Model, new: &Model) -> Vec<String> {
    by_service(&services(old), &services(new), |a, b| {
        let mut found = named(VARIABLE, &a.environment(), &b.environment());
        found.extend(named(("", "differs"), &plain(*a), &plain(*b)));
        found
    })
}

fn services(model: &Model) -> BTreeMap<&ServiceName, Service<'_>> {
    model.services().map(|s| (s.name(), s)).collect()
}

/// The keys of a service, each with its value as text; mounts by their place.
fn plain(service: Service<'_>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = service
        .body()
        .iter()
        .filter(|(key, value)| !LEFT_OUT.contains(&key.as_str()) && *key != "volumes" && !value.is_null())
        .map(|(key, value)| (format!("`{key}`"), value.to_string()))
        .collect();
    all.extend(
        service.mounts().into_iter().map(|m| (format!("what is mounted at {}", m.target), format!("{m:?}"))),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(services: &str) -> Model {
        serde_json::from_str(&format!(
            "{{\"name\":\"s\",\"volumes\":{{\"data\":{{}}}},\"services\":{services}}}"
        ))
        .expect("a model")
    }

    #[test]
    fn what_differs_is_named_without_values_and_images_do_not_count() {
        let old = model(
            r#"{"app":{"image":"a:1","environment":{"KEEP":"1","GONE":"s3cret","OTHER":"old"},"command":["run"],
                "volumes":[{"type":"volume","source":"data","target":"/data"}],"restart":"always"},"worker":{"image":"w:1"}}"#,
        );
        let new = model(
            r#"{"app":{"image":"a:2","environment":{"KEEP":"1","OTHER":"new","MORE":"x"},"command":["run","-v"],
                "volumes":[{"type":"volume","source":"data","target":"/data","read_only":true}],"user":"1000"},"cache":{"image":"c:1"}}"#,
        );
        assert_eq!(
            changes(&old, &new),
            [
                "app: the variable GONE is gone",
                "app: the variable OTHER has another value",
                "app: the variable MORE is new",
                "app: `command` differs",
                "app: `restart` is gone",
                "app: what is mounted at /data differs",
                "app: `user` is new",
                "the service worker is gone",
                "the service cache is new",
            ]
        );
        assert!(changes(&old, &old).is_empty());
    }
}
