//! Tests on models that the real Compose (2.26) printed; see `crates/switchback/tests/compose_model.rs` for the rest.

mod detect;
mod edits;
mod model;
mod pins;
mod staging;

use super::{Model, Pins};
use crate::ids::ServiceName;
use crate::release::{ImageRef, Mount, MountPlace, MountSource};

/// A stack with most of what Compose files can say; its folder is `/stack`.
fn kitchen() -> Model {
    Model::parse(include_str!("../fixtures/kitchen.json")).expect("a model")
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("valid")
}

/// A small model around some services.
fn model(services: &str) -> Model {
    parse(services).expect("a model")
}

fn parse(services: &str) -> Result<Model, super::ModelError> {
    Model::parse(&format!(
        r#"{{"name":"p","services":{services},"volumes":{{"v":{{"name":"p_v"}},"w":{{"name":"p_w"}}}}}}"#
    ))
}

/// Images for every service, and the mounts.
fn pins(model: &Model, mounts: &[(MountSource, MountPlace)]) -> Pins {
    let image = |service: &ServiceName| ImageRef {
        reference: format!("{service}:1"),
        id: format!("sha256:{}", "ab".repeat(32)),
        digest: None,
    };
    Pins {
        images: model.services().map(|s| (s.name().clone(), image(s.name()))).collect(),
        mounts: mounts
            .iter()
            .map(|(source, at)| Mount { source: source.clone(), at: at.clone(), beside: None })
            .collect(),
        ..Pins::default()
    }
}

fn bind(path: &str) -> MountSource {
    MountSource::Bind(path.to_owned())
}

fn dir(path: &str) -> MountPlace {
    MountPlace::Dir(path.to_owned())
}

fn volume(name: &str) -> MountPlace {
    MountPlace::Volume(name.to_owned())
}
