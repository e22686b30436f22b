//! Containers of a release's own image that run a script on data as its owner: programs of a server refuse to run as root, and images
//! differ in who that is. They have no network and no rights.

use crate::docker::{BoundMount, HELPER_LABEL, NetworkMode, RunSpec, STACK_LABEL};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::DIR_LABEL;
use std::collections::BTreeMap;
use switchback_core::release::{MountPlace, Server};

/// What such a container is made of. `owner` is `UID:GID`; the arguments are `$0`, `$1` … of the script.
pub(super) fn script(
    at: &Placement<'_>,
    reached: &Server,
    (mount, owner): (&MountPlace, &str),
    script: &str,
    arguments: Vec<String>,
) -> Result<RunSpec, EngineError> {
    let image = at.release.services.get(&reached.service).and_then(|s| s.image.as_ref());
    let image =
        image.ok_or_else(|| EngineError::Internal { detail: format!("{} has no image", reached.service) })?;
    Ok(RunSpec {
        image: image.id.clone(),
        entrypoint: Some(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]),
        argv: arguments,
        user: Some(owner.to_owned()),
        mounts: vec![BoundMount { place: mount.clone(), target: reached.target.clone(), read_only: false }],
        network: NetworkMode::None,
        cap_drop_all: true,
        labels: BTreeMap::from([
            (STACK_LABEL.to_owned(), at.home.id()?),
            (HELPER_LABEL.to_owned(), "server".to_owned()),
            (DIR_LABEL.to_owned(), at.instance.dir.clone()),
        ]),
        unlabelled: true,
        ..RunSpec::default()
    })
}
