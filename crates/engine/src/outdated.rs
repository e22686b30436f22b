//! Which services' images have newer tags in their registries.
//!
//! It only asks. What comes of it is decided by whoever asked, and tried by a rehearsal like every other version.

use crate::error::EngineError;
use crate::gather;
use crate::home::{Home, read_json, write_json};
use crate::registry;
use crate::runtime::Stage;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use switchback_core::compose::ImageName;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::tags::{self, Level};

/// How long an answer serves a timer: registries are not asked each quarter of an hour.
const SERVES_MS: i64 = 6 * 3_600_000;

/// What is known about one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The service.
    pub service: ServiceName,
    /// Registry and path of its image, as the stack names it.
    pub image: String,
    /// The tag that the stack names.
    pub tag: String,
    /// The newest tag of each level that is newer.
    pub newer: BTreeMap<Level, String>,
    /// Why its registry was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Why its registry gave no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Asks about all services with an image, or those that are named.
pub fn look(
    home: &Home,
    config: &Config,
    world: &World,
    only: &BTreeSet<ServiceName>,
    stage: &Stage<'_>,
) -> Result<Vec<Known>, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    let release = home.release(&production.release)?;
    let desired = world.runtime.desired(home, config)?.unwrap_or_default();
    let mut asked: BTreeMap<String, Result<Vec<String>, String>> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, service) in &release.services {
        if !only.is_empty() && !only.contains(name) {
            continue;
        }
        let Some(image) = &service.image else { continue };
        let parsed = ImageName::parse(&image.reference)
            .map_err(|e| EngineError::Internal { detail: format!("{}: {e}", image.reference) })?;
        let tag = desired.get(name).cloned().unwrap_or_else(|| parsed.version().to_owned());
        let mut known = Known {
            service: name.clone(),
            image: parsed.repository.clone(),
            tag,
            newer: BTreeMap::new(),
            left_out: None,
            problem: None,
        };
        if !tags::is_version(&known.tag) {
            known.left_out = Some(format!("{:?} is no version that could have a newer one", known.tag));
        } else if image.digest.is_none() && !only.contains(name) {
            known.left_out = Some("its image was built or loaded here".to_owned());
        } else {
            let answer = asked.entry(parsed.repository.clone()).or_insert_with(|| {
                (stage.say)(&format!("asking for the tags of {}", parsed.repository));
                registry::tags(&parsed, stage.cancelled)
            });
            match answer {
                Ok(all) => known.newer = tags::newer(&known.tag, all.iter().map(String::as_str)),
                Err(why) => known.problem = Some(why.clone()),
            }
        }
        found.push(known);
    }
    Ok(found)
}

/// The tags of a service's image in its registry.
pub fn tags_of(
    home: &Home,
    config: &Config,
    world: &World,
    name: &ServiceName,
    stage: &Stage<'_>,
) -> Result<Vec<String>, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    let release = home.release(&production.release)?;
    let Some(image) = release.services.get(name).and_then(|s| s.image.as_ref()) else {
        return Err(EngineError::refused(
            format!("no versions of {name} are known"),
            "name some: --among 1.5.0,1.9.0",
        ));
    };
    let parsed = ImageName::parse(&image.reference)
        .map_err(|e| EngineError::Internal { detail: format!("{}: {e}", image.reference) })?;
    (stage.say)(&format!("asking for the tags of {}", parsed.repository));
    registry::tags(&parsed, stage.cancelled).map_err(|why| {
        EngineError::refused(
            format!("the registry of {name} gave no answer: {why}"),
            "name versions to try: --among 1.5.0,1.9.0",
        )
    })
}

/// What a timer goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    at_ms: i64,
    /// What production and the configuration said then: after a change of either it is asked again.
    basis: String,
    versions: BTreeMap<ServiceName, String>,
    problems: Vec<String>,
}

fn file(home: &Home) -> PathBuf {
    home.state().join("outdated.json")
}

/// Newer versions of the services that `promotion.follow` names, and registries that gave no answer. Asked at most every six hours.
pub fn followed(
    home: &Home,
    config: &Config,
    world: &World,
    stage: &Stage<'_>,
) -> Result<(BTreeMap<ServiceName, String>, Vec<String>), EngineError> {
    let follow = &config.promotion.follow;
    if follow.is_empty() {
        return Ok(Default::default());
    }
    let (_, production) = gather::production(home, config, world)?;
    let basis = format!("{} {follow:?}", production.release);
    let path = file(home);
    let now = crate::engine::now_ms();
    let kept: Kept = if path.exists() { read_json(&path)? } else { Kept::default() };
    if kept.basis == basis && (0..SERVES_MS).contains(&(now - kept.at_ms)) {
        return Ok((kept.versions, kept.problems));
    }
    let mut new = Kept { at_ms: now, basis, ..Kept::default() };
    for known in look(home, config, world, &follow.keys().cloned().collect(), stage)? {
        let most = follow.get(&known.service).copied().unwrap_or(Level::Patch);
        if let Some(tag) = tags::within(&known.newer, most) {
            new.versions.insert(known.service.clone(), tag.clone());
        }
        if let Some(why) = known.problem.or(known.left_out) {
            new.problems.push(format!("{}: {why}", known.service));
        }
    }
    // A registry that did not answer is asked again at the next tick.
    if new.problems.is_empty() {
        write_json(&path, &new)?;
    }
    Ok((new.versions, new.problems))
}
