//! The data: what lies on each mount, and which mounts are no stores.

use super::{ComposeStack, DataAt, FoundData, Shared};
use crate::docker::hands::{Hands, HandsError, Survey};
use crate::docker::{Container, Docker, DockerError, helper};
use crate::error::EngineError;
use crate::home::Home;
use std::collections::BTreeSet;
use std::path::Path;
use switchback_core::compose::{DetectedStore, Model, MountKind, Software};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::release::{MountPlace, MountSource};

/// Folders of one volume that get a store of their own; with more, the volume is better divided by a person.
const FOLDERS: usize = 8;

/// Finds the stores, and what is none.
pub fn look(
    home: &Home,
    docker: Option<&Docker>,
    model: &Model,
    detected: &[DetectedStore],
    containers: &[(String, Container)],
    stack: &mut ComposeStack,
) -> Result<(), EngineError> {
    let image = docker.map(|d| helper::ensure(d, &helper::this_program()));
    let hands = match (docker, image) {
        (Some(docker), Some(Ok(image))) => Some(Hands::new(docker, image, home.id()?)),
        (_, Some(Err(e))) => {
            stack.unseen.push(format!("{e}. Not seen: SQLite databases inside volumes"));
            None
        }
        _ => None,
    };
    let mut used = BTreeSet::new();
    for store in detected {
        if let Some(why) = no_store(home, store, model) {
            stack.shared.push(Shared { what: shown(home, &store.mount), why });
            continue;
        }
        let place = place(model, store, containers);
        let survey = match (docker, &hands, &place) {
            (Some(docker), Some(hands), Some(place)) => {
                survey(docker, hands, place, store, &mut stack.unseen)?
            }
            _ => Survey::default(),
        };
        if survey.is_file {
            let why = "a single file that the service may write to; with :ro in the Compose file it is \
                       configuration, which belongs to the release";
            stack.shared.push(Shared { what: shown(home, &store.mount), why: why.to_owned() });
            continue;
        }
        let mut found = divide(home, store, &survey);
        for one in &mut found {
            one.name = unique(&one.name, &mut used);
        }
        if survey.postgres && !store.kind.has_server() {
            stack.warnings.push(format!(
                "{} holds a Postgres cluster, and no service was recognised as its server. Name it: kind: postgres, service: NAME",
                shown(home, &store.mount)
            ));
        }
        if survey.unnamed > 0 {
            stack.warnings.push(format!(
                "{}: {} SQLite databases have names that are not UTF-8. Rename them to make them stores",
                shown(home, &store.mount),
                survey.unnamed
            ));
        }
        if survey.more {
            stack.unseen.push(format!("{}: too much to look through all of it", shown(home, &store.mount)));
        }
        stack.stores.append(&mut found);
    }
    hosts(home, model, detected, stack);
    stack.shared.sort();
    stack.shared.dedup_by(|a, b| a.what == b.what);
    Ok(())
}

/// Why a mount cannot be a store.
fn no_store(home: &Home, store: &DetectedStore, model: &Model) -> Option<String> {
    match &store.mount {
        MountSource::Bind(path) if home.root().starts_with(path) => {
            Some("it holds the stack's folder itself; give the data a folder of its own".to_owned())
        }
        MountSource::Bind(path) if Path::new(path).is_file() => Some(
            "a single file that the service may write to; with :ro in the Compose file it is configuration, which belongs to the release"
                .to_owned(),
        ),
        MountSource::Volume(key) => {
            let volume = model.volume(key)?;
            let kind = volume.driver_opts.get("type").map(String::as_str).unwrap_or_default();
            let network = matches!(kind, "nfs" | "nfs4" | "cifs" | "tmpfs");
            let plugin = volume.driver.as_deref().filter(|d| *d != "local");
            match plugin {
                Some(driver) => Some(format!("its driver is {driver}: a clone would lie on this engine instead")),
                None if network => Some(format!("it is mounted as {kind}: a clone would lie on this engine instead")),
                None => None,
            }
        }
        MountSource::Bind(_) | MountSource::Anonymous { .. } => None,
    }
}

/// Mounts of the host that services may write to.
fn hosts(home: &Home, model: &Model, detected: &[DetectedStore], stack: &mut ComposeStack) {
    for mount in model.mounts() {
        let data = matches!(mount.kind, MountKind::Volume | MountKind::Bind) && !mount.read_only;
        if data && !detected.iter().any(|d| d.mount == mount.source) {
            let what = shown(home, &mount.source);
            let why = if what.ends_with(".sock") {
                "a socket; staging does not get it"
            } else {
                "it belongs to the host; every generation uses the same one"
            };
            stack.shared.push(Shared { what, why: why.to_owned() });
        }
    }
}

fn place(model: &Model, store: &DetectedStore, containers: &[(String, Container)]) -> Option<MountPlace> {
    match &store.mount {
        MountSource::Volume(key) => model.volume(key).map(|v| MountPlace::Volume(v.name)),
        MountSource::Bind(path) => Some(MountPlace::Dir(path.clone())),
        MountSource::Anonymous { service, target } => {
            let own = containers.iter().filter(|(s, _)| s == service.as_str());
            let mut mounts = own.flat_map(|(_, c)| &c.mounts);
            let mounted = mounts.find(|m| m.destination == *target && !m.name.is_empty())?;
            Some(MountPlace::Volume(mounted.name.clone()))
        }
    }
}

fn survey(
    docker: &Docker,
    hands: &Hands<'_>,
    place: &MountPlace,
    store: &DetectedStore,
    unseen: &mut Vec<String>,
) -> Result<Survey, EngineError> {
    if let MountPlace::Volume(name) = place {
        // The engine would make a volume that is mounted and does not exist.
        if docker.volume(name)?.is_none() {
            unseen.push(format!("{}: the volume {name} does not exist yet", store.name));
            return Ok(Survey::default());
        }
    }
    // What a server or a database owns is not looked through: it is known what it is.
    if store.kind.has_server() || store.software.is_some() {
        return Ok(Survey::default());
    }
    match hands.survey((place, "")) {
        Ok(survey) => Ok(survey),
        Err(HandsError::Docker(DockerError::NoSuch { .. } | DockerError::Other { .. })) => {
            unseen.push(format!("{}: it does not exist yet", store.name));
            Ok(Survey::default())
        }
        Err(e) => Err(e.into()),
    }
}

/// A mount as the configuration names it.
fn shown(home: &Home, source: &MountSource) -> String {
    match source {
        MountSource::Volume(key) => key.clone(),
        MountSource::Bind(path) => relative(home, path),
        MountSource::Anonymous { target, .. } => target.clone(),
    }
}

fn relative(home: &Home, path: &str) -> String {
    match Path::new(path).strip_prefix(home.root()) {
        Ok(below) if !below.as_os_str().is_empty() => format!("./{}", below.to_string_lossy()),
        _ => path.to_owned(),
    }
}

/// The stores of a mount: its databases, and the folders beside them; or the mount as a whole.
fn divide(home: &Home, store: &DetectedStore, survey: &Survey) -> Vec<FoundData> {
    let at = match &store.mount {
        MountSource::Volume(key) => DataAt::Volume(key.clone()),
        MountSource::Bind(path) => DataAt::Bind(relative(home, path)),
        MountSource::Anonymous { service, target } => {
            DataAt::Anonymous { service: service.clone(), target: target.clone() }
        }
    };
    let whole = |note: Option<String>| FoundData {
        name: store.name.to_string(),
        kind: StoreKind::Files,
        at: at.clone(),
        path: String::new(),
        note,
        rewritten: false,
    };
    if let Some(server) = store.server.as_ref().filter(|_| store.kind.has_server()) {
        return vec![FoundData {
            kind: store.kind,
            at: DataAt::Server(server.service.clone()),
            ..whole(None)
        }];
    }
    if let Some(software) = store.software {
        let note = format!(
            "{}: cloned as files while its service is paused, as after a loss of power; not compared",
            name_of(software)
        );
        return vec![FoundData { rewritten: true, ..whole(Some(note)) }];
    }
    if survey.databases.is_empty() {
        return vec![whole(None)];
    }
    let single = survey.databases.len() == 1;
    let folders = beside(survey);
    let mut found: Vec<FoundData> = survey
        .databases
        .iter()
        .map(|path| FoundData {
            name: if single { store.name.to_string() } else { joined(&store.name, path) },
            kind: StoreKind::Sqlite,
            path: path.clone(),
            ..whole(None)
        })
        .collect();
    if folders.len() <= FOLDERS {
        found.extend(folders.iter().map(|path| FoundData {
            name: joined(&store.name, path),
            path: (*path).to_owned(),
            ..whole(None)
        }));
    }
    if let Some(first) = found.first_mut()
        && (survey.loose_files > 0 || folders.len() > FOLDERS)
    {
        first.note =
            Some("other files beside it are cloned and rolled back with it, and not compared".to_owned());
    }
    found
}

/// Folders without a database in them, each the highest of its kind.
fn beside(survey: &Survey) -> Vec<&str> {
    let holds = |folder: &str| survey.databases.iter().any(|d| d.starts_with(&format!("{folder}/")));
    let mut found: Vec<&str> = Vec::new();
    for folder in &survey.folders {
        let inside = found.iter().any(|f| folder.starts_with(&format!("{f}/")));
        if !inside && !holds(folder) {
            found.push(folder);
        }
    }
    found
}

fn name_of(software: Software) -> &'static str {
    match software {
        Software::Postgres => "Postgres",
        Software::Redis => "Redis",
        Software::Neo4j => "Neo4j",
        Software::Mysql => "MySQL",
        Software::Mongo => "MongoDB",
    }
}

/// A store's name and the last part of a path, without its ending.
fn joined(store: &StoreName, path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or(path);
    let stem = last.split_once('.').map_or(last, |(stem, _)| stem);
    let stem: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let stem = stem.trim_matches(['-', '_']);
    let stem = if stem.is_empty() { "data" } else { stem };
    let text: String = format!("{store}-{stem}").chars().take(56).collect();
    text.trim_end_matches(['-', '_']).to_owned()
}

fn unique(name: &str, used: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while !used.insert(candidate.clone()) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_core::ids::ServiceName;

    fn volume() -> DetectedStore {
        DetectedStore {
            name: StoreName::new("data").expect("valid"),
            kind: StoreKind::Files,
            mount: MountSource::Volume("data".into()),
            path: String::new(),
            services: BTreeSet::from([ServiceName::new("app").expect("valid")]),
            software: None,
            server: None,
            stop_to_copy: false,
        }
    }

    fn divided(store: &DetectedStore, survey: &Survey) -> Vec<(String, StoreKind, String)> {
        let dir = tempfile::tempdir().expect("folder");
        let home = Home::future(dir.path()).expect("a folder");
        divide(&home, store, survey).into_iter().map(|d| (d.name, d.kind, d.path)).collect()
    }

    #[test]
    fn a_volume_without_databases_is_one_store() {
        let survey = Survey { folders: BTreeSet::from(["a".into(), "a/b".into()]), ..Survey::default() };
        assert_eq!(divided(&volume(), &survey), [("data".into(), StoreKind::Files, String::new())]);
    }

    #[test]
    fn databases_become_stores_and_so_do_the_folders_beside_them() {
        let survey = Survey {
            databases: vec!["app/main.sqlite3".into(), "weird name!.db".into()],
            folders: ["app", "app/uploads", "app/uploads/x", "media"].map(str::to_owned).into(),
            ..Survey::default()
        };
        let found = divided(&volume(), &survey);
        assert_eq!(
            found,
            [
                ("data-main".to_owned(), StoreKind::Sqlite, "app/main.sqlite3".to_owned()),
                ("data-weird-name".to_owned(), StoreKind::Sqlite, "weird name!.db".to_owned()),
                ("data-uploads".to_owned(), StoreKind::Files, "app/uploads".to_owned()),
                ("data-media".to_owned(), StoreKind::Files, "media".to_owned()),
            ]
        );
        let one = Survey { databases: vec!["bank.db".into()], loose_files: 3, ..Survey::default() };
        assert_eq!(divided(&volume(), &one), [("data".into(), StoreKind::Sqlite, "bank.db".into())]);
    }

    #[test]
    fn a_database_that_is_not_read_is_not_compared() {
        let store = DetectedStore { software: Some(Software::Redis), ..volume() };
        let dir = tempfile::tempdir().expect("folder");
        let home = Home::future(dir.path()).expect("a folder");
        let found = divide(&home, &store, &Survey::default());
        assert!(found[0].rewritten && found[0].kind == StoreKind::Files);
    }

    #[test]
    fn names_are_allowed_and_different() {
        let mut used = BTreeSet::new();
        let name = StoreName::new("a".repeat(60)).expect("valid");
        for path in ["x.db", "y/x.db", "ü", "..."] {
            let name = unique(&joined(&name, path), &mut used);
            assert!(StoreName::new(name.as_str()).is_ok(), "{name}");
        }
        assert_eq!(used.len(), 4);
    }
}
