//! What a service of a staging copy mounts.

use super::super::model::{mapping, section};
use super::super::pins::{Placement, key_for, target_of};
use super::super::service::{MountKind, mount};
use super::super::{Model, MountUse, below, escape};
use super::{StagingFacts, Told, labels};
use crate::ids::ServiceName;
use crate::release::MountSource;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Folders of the host that a copy never sees, not even to read: the engine's, and what is no files at all.
const HOST: [&str; 8] =
    ["/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/var/lib/docker", "/var/lib/containerd"];

/// Files of the host that only describe it.
const HARMLESS: [&str; 7] = [
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/zoneinfo",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// What becomes of a bind mount of the host.
enum Fate {
    Stays,
    ReadOnly,
    Empty,
    Gone(&'static str),
}

/// Replaces the bind mounts that are not pinned; the keys of volumes that were added are put into `added`.
pub(super) fn isolate(
    model: &Model,
    root: &mut Map<String, Value>,
    facts: &StagingFacts,
    placement: &Placement,
    name: &ServiceName,
    added: &mut BTreeSet<String>,
    told: &mut Told,
) {
    let uses = model.mounts();
    let service = mapping(section(root, "services").entry(name.as_str()).or_insert(Value::Null));
    let Some(entries) = service.get_mut("volumes").and_then(Value::as_array_mut) else { return };
    let mut volumes = Vec::new();
    entries.retain_mut(|entry| {
        let Some(used) = mount(name, entry) else { return false };
        if placement.places(name, &used.target) {
            return true;
        }
        let target = &used.target;
        match (&used.source, used.kind) {
            (MountSource::Bind(source), _) => match fate(source, &used, &uses, facts) {
                Fate::Stays => {
                    never_made(entry);
                    true
                }
                Fate::ReadOnly => {
                    told.say(
                        Some(name),
                        format!("{target} is read-only"),
                        "it is a file of the host, and a copy writes to none",
                    );
                    mapping(entry).insert("read_only".to_owned(), Value::Bool(true));
                    never_made(entry);
                    true
                }
                Fate::Empty => {
                    told.say(
                        Some(name),
                        format!("{target} is an empty volume instead of {source}"),
                        "a copy does not touch folders of the host that are not cloned",
                    );
                    let key = key_for(&used.source);
                    *entry = json!({ "type": "volume", "source": key, "target": escape(target) });
                    volumes.push(key);
                    true
                }
                Fate::Gone(why) => {
                    told.say(Some(name), format!("{target} is not mounted ({source})"), why);
                    false
                }
            },
            (_, MountKind::Npipe | MountKind::Cluster) => {
                told.say(Some(name), format!("{target} is not mounted"), "it is shared with production");
                false
            }
            (MountSource::Volume(volume), MountKind::Volume)
                if used.subpath.is_some() && !placement.volumes.contains_key(volume) =>
            {
                // An empty volume has no folder to mount: the folder becomes a volume of its own.
                let part = format!("{volume}/{}", used.subpath.as_deref().unwrap_or_default());
                told.say(
                    Some(name),
                    format!("{target} is a volume of its own and starts empty"),
                    "its data is not cloned",
                );
                let key = key_for(&MountSource::Bind(part));
                *entry = json!({ "type": "volume", "source": key, "target": escape(target) });
                if used.read_only {
                    mapping(entry).insert("read_only".to_owned(), Value::Bool(true));
                }
                volumes.push(key);
                true
            }
            (_, MountKind::Volume | MountKind::Bind | MountKind::Tmpfs | MountKind::Image) => true,
        }
    });
    debug_assert!(entries.iter().all(|e| target_of(e).is_some()), "only entries with a target are kept");
    for key in volumes {
        let own = json!({ "name": format!("{}_{key}", facts.project), "labels": labels(facts) });
        section(root, "volumes").insert(key.clone(), own);
        added.insert(key);
    }
}

/// What is missing on the host is an error: a copy makes nothing there.
fn never_made(entry: &mut Value) {
    let options = mapping(mapping(entry).entry("bind").or_insert(Value::Null));
    options.insert("create_host_path".to_owned(), Value::Bool(false));
}

fn fate(source: &str, used: &MountUse, uses: &[MountUse], facts: &StagingFacts) -> Fate {
    let under = |folder: &&str| below(source, folder).is_some();
    let climbs = source.split('/').any(|part| part == "..");
    if source.trim_matches('/').is_empty() || climbs {
        return Fate::Gone("it is the whole host");
    }
    let last = source.rsplit('/').next().unwrap_or_default();
    if last.ends_with(".sock") || last.ends_with(".socket") {
        return Fate::Gone("through a socket the copy would act on the host");
    }
    if HOST.iter().any(|folder| below(source, folder).is_some()) {
        return Fate::Gone("it belongs to the host itself");
    }
    if HARMLESS.iter().any(under) {
        return if used.read_only { Fate::Stays } else { Fate::ReadOnly };
    }
    let inside = !facts.stack_dir.is_empty() && below(source, &facts.stack_dir).is_some();
    let file = facts.files.contains(source);
    // What one service only reads, another one may write: then it is data.
    let written = uses.iter().any(|u| u.source == used.source && !u.read_only);
    match (inside, file, written) {
        (true, _, false) => Fate::Stays,
        (true, true, true) => Fate::ReadOnly,
        (false, true, _) => Fate::Gone("it is a file outside the stack's folder"),
        (_, false, _) => Fate::Empty,
    }
}
