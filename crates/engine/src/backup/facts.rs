//! The facts of backups, drills and restores.

use super::vault::{Task, Vault};
use super::{ask, choose, configured, manifest, read_manifest};
use crate::data::Cost;
use crate::error::{EngineError, io};
use crate::gather::{self, free_ports_like};
use crate::home::{Home, create_dir, write_json};
use crate::store::Progress;
use crate::world::World;
use switchback_core::backup::Manifest;
use switchback_core::backup::{RELEASE, Snapshot};
use switchback_core::config::{CloneKept, Config};
use switchback_core::environment::BACKUP_COPY;
use switchback_core::plan::{ArchiveFacts, BackupCopy, FetchFacts};
use switchback_core::release::Instance;

/// Facts of a backup.
pub fn archive_facts(home: &Home, config: &Config, world: &World) -> Result<ArchiveFacts, EngineError> {
    let (_, production) = gather::production(home, config, world)?;
    // Before anything is cloned: is there a key?
    Vault::kept_key(home, configured(config)?)?;
    let kept = home.state().join(BACKUP_COPY).exists();
    let Cost { bytes, shared } = match configured(config)?.clone {
        // It was made because blocks are not shared, and what has grown since is not known.
        CloneKept::Keep if kept => Cost { bytes: 0, shared: false },
        _ => world.data.cost(home, &production)?,
    };
    let images = if configured(config)?.images {
        super::images::bytes_beside_data(home, world, &home.release(&production.release)?)?
    } else {
        0
    };
    let facts = gather::beside(home, config, world, production, if shared { 0 } else { bytes })?;
    let copy = match (configured(config)?.clone, shared, kept) {
        (CloneKept::Remove, ..) | (_, true, _) => BackupCopy::Passing,
        (CloneKept::Keep, false, false) => BackupCopy::First,
        (CloneKept::Keep, false, true) => BackupCopy::Kept,
    };
    // What is kept free anyway is for what has grown since.
    let need_bytes = if copy == BackupCopy::Kept { 0 } else { facts.need_bytes };
    let need_bytes = need_bytes.saturating_add(images);
    Ok(ArchiveFacts { archived: super::wal::wanted(config).is_some(), copy, need_bytes, ..facts })
}

/// Facts of a drill or a restore of a snapshot: `latest`, or the beginning of an id. The record of its release is brought
/// back, if it is not known here any more.
pub fn fetch_facts(
    home: &Home,
    config: &Config,
    world: &World,
    wanted: &str,
    at_ms: Option<i64>,
) -> Result<(FetchFacts, Snapshot, Manifest), EngineError> {
    let vault = Vault::of_stack(home, configured(config)?)?;
    let none = Progress::none();
    let all: Vec<Snapshot> = ask(home, world, &vault, &Task::List, &none)?;
    let base = at_ms.map(|at| super::wal::find(home, config, world, &vault, at)).transpose()?;
    let wanted = base.as_ref().map_or(wanted, |way| way.base.as_str());
    let snapshot = choose(all, config.stack.as_str(), wanted)?;
    let text: String = ask(home, world, &vault, &read_manifest(&snapshot.id), &none)?;
    let manifest = manifest(&text, &snapshot.id)?.moved_to(&home.root().to_string_lossy());
    know_release(home, &vault, &snapshot.id, &manifest)?;
    let mut common = archive_facts(home, config, world)?;
    // Compressed and shared as it may be, it is written out whole.
    common.need_bytes = snapshot.bytes;
    let pointer = home.pointer()?;
    let current = common.production.generation;
    let mut was = manifest.instance.clone();
    was.release = manifest.release.id();
    was.stores.retain(|name, _| config.stores.contains_key(name));
    let facts = FetchFacts {
        common,
        snapshot: snapshot.id.clone(),
        at_ms,
        images: super::images::missing(world, &manifest)?,
        ports: free_ports_like(&was.ports)?,
        was,
        next: home.next_generation(current)?,
        previous: pointer.and_then(|p| p.previous),
        watch_ms: config.rollback.watch.as_millis(),
    };
    Ok((facts, snapshot, manifest))
}

/// Facts of a drill: where logs are archived and go on from the snapshot, they are replayed to the last moment that they reach.
pub fn drill_facts(
    home: &Home,
    config: &Config,
    world: &World,
    wanted: &str,
) -> Result<FetchFacts, EngineError> {
    let mut facts = fetch_facts(home, config, world, wanted, None)?.0;
    if super::wal::wanted(config).is_some() {
        let vault = Vault::of_stack(home, configured(config)?)?;
        if let Some(at_ms) = super::wal::newest(home, config, world, &vault)?
            && super::wal::find(home, config, world, &vault, at_ms)?.base == facts.snapshot
        {
            facts.at_ms = Some(at_ms);
        }
    }
    Ok(facts)
}

/// Has the record of a snapshot's release, and of what it was made from.
pub fn know_release(
    home: &Home,
    vault: &Vault,
    snapshot: &str,
    manifest: &Manifest,
) -> Result<(), EngineError> {
    let id = manifest.release.id();
    if home.release(&id).is_ok() {
        return Ok(());
    }
    let dir = home.release_dir(&id);
    create_dir(&dir)?;
    let part = switchback_core::backup::Part::new(dir.to_string_lossy(), RELEASE);
    let task = Task::Restore { snapshot: snapshot.to_owned(), parts: vec![part] };
    // Small files of the state: they are written by this user.
    super::child::perform(vault, &task, &Progress::none())?;
    // Paths in it may have led elsewhere.
    let file = dir.join("release.json");
    if file.exists() {
        std::fs::remove_file(&file).map_err(io("remove", &file))?;
    }
    write_json(&file, &manifest.release)
}

/// Production as it was, on what it was made of.
pub fn describe(was: &Instance) -> String {
    format!("generation {} ({})", was.generation, switchback_core::release::describe(&was.versions))
}
