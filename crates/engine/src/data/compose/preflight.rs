//! Before production's data is cloned: room for the clones, and whether a clone is the whole of a database.
//!
//! It only looks: at free space, and at a running server through its own `psql`.

use super::mounts::mounts;
use super::server::{Server, engine_error};
use super::{ComposeData, convert, place};
use crate::error::EngineError;
use crate::gather::{enough, free_bytes};
use crate::runtime::Placement;
use crate::runtime::compose::{container_of, shown};
use crate::store::postgres::{ServerFacts, server_facts};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{Mount, MountPlace, Server as Reached};

/// Looks at everything that would make a clone fail late, or be less than it seems.
pub fn preflight(
    data: &ComposeData,
    from: &Placement<'_>,
    to: &Placement<'_>,
    need_bytes: u64,
) -> Result<Vec<String>, EngineError> {
    let mut notes = room(data, from, need_bytes)?;
    for (name, store) in &from.instance.stores {
        if let (StoreKind::Postgres, Some(reached)) = (store.kind, &store.server) {
            notes.extend(postgres(data, from, to, name, reached)?);
        }
    }
    Ok(notes)
}

/// Room on the file systems of bind mounts, beside whose data the clones go. The engine's own disk is the runtime's.
fn room(data: &ComposeData, from: &Placement<'_>, need_bytes: u64) -> Result<Vec<String>, EngineError> {
    let all: Vec<Mount> = mounts(from.instance).into_keys().collect();
    if !data.docker.is_local() {
        return room_there(data, from, &all, need_bytes);
    }
    if all.iter().all(|m| m.beside.is_none()) {
        return Ok(Vec::new());
    }
    let mut wanted: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (mount, share) in all.iter().zip(shares(data, from, &all, need_bytes)?) {
        let folder = match &mount.beside {
            Some(beside) => Path::new(beside).parent().unwrap_or(Path::new("/")).to_owned(),
            None => PathBuf::from(data.docker.info()?.root_dir),
        };
        // Not every path of the engine's host is one of ours, even where it is local.
        let Ok(device) = std::fs::metadata(&folder).map(|m| m.dev()) else { continue };
        wanted.entry(device).or_insert((folder, 0)).1 += share;
    }
    let mut notes = Vec::new();
    for (folder, need) in wanted.into_values() {
        notes.push(enough(&format!(" at {}", folder.display()), need, free_bytes(&folder)?)?);
    }
    Ok(notes)
}

/// The same where this host sees none of the file systems: helpers on the mounts are asked.
fn room_there(
    data: &ComposeData,
    from: &Placement<'_>,
    all: &[Mount],
    need_bytes: u64,
) -> Result<Vec<String>, EngineError> {
    let hands = data.hands(from.home)?;
    let mut wanted: BTreeMap<u64, (String, u64, u64)> = BTreeMap::new();
    for (mount, share) in all.iter().zip(shares(data, from, all, need_bytes)?) {
        if !data.mount_exists(from.home, &mount.at)? {
            continue;
        }
        let room = hands.room((&mount.at, ""))?;
        let name = match &mount.at {
            MountPlace::Volume(name) | MountPlace::Dir(name) => name.clone(),
        };
        wanted.entry(room.device).or_insert((name, room.free_bytes, 0)).2 += share;
    }
    wanted.into_values().map(|(name, free, need)| enough(&format!(" at {name}"), need, free)).collect()
}

/// What of the need falls on each mount, by their sizes.
fn shares(
    data: &ComposeData,
    from: &Placement<'_>,
    all: &[Mount],
    need_bytes: u64,
) -> Result<Vec<u64>, EngineError> {
    let sizes = if all.len() == 1 || need_bytes == 0 { vec![1; all.len()] } else { sizes(data, from, all)? };
    let total = u128::from(sizes.iter().sum::<u64>().max(1));
    let share = |size| u64::try_from(u128::from(need_bytes) * u128::from(size) / total).unwrap_or(u64::MAX);
    Ok(sizes.into_iter().map(share).collect())
}

fn sizes(data: &ComposeData, from: &Placement<'_>, all: &[Mount]) -> Result<Vec<u64>, EngineError> {
    let hands = data.hands(from.home)?;
    all.iter()
        .map(|m| {
            let there = data.mount_exists(from.home, &m.at)?;
            Ok(if there { hands.size_bytes(StoreKind::Files, (&m.at, ""))? } else { 0 })
        })
        .collect()
}

fn postgres(
    data: &ComposeData,
    from: &Placement<'_>,
    to: &Placement<'_>,
    name: &StoreName,
    reached: &Reached,
) -> Result<Vec<String>, EngineError> {
    let container = container_of(&data.docker, from.instance, &reached.service)?;
    if !container.is_some_and(|c| c.state.running) {
        return Ok(vec![format!(
            "{name}: {} does not run, so it was not asked about itself",
            reached.service
        )]);
    }
    let (_, mount) = place(from, name)?;
    let server = Server::open(data, from, name, mount, CloneMode::Live)?;
    let facts = match server_facts(&server) {
        Ok(facts) => facts,
        Err(e) => {
            let error = engine_error(e);
            let hint = error.hint().unwrap_or_default();
            return Err(EngineError::refused(format!("stores.{name}: {error}"), hint));
        }
    };
    if let Some(elsewhere) = facts.tablespaces.first() {
        return Err(EngineError::refused(
            format!(
                "stores.{name}: the tablespace {} lies outside of the data directory, at {}: a clone of {} alone is not the whole database",
                elsewhere.name,
                elsewhere.location,
                shown(mount)
            ),
            "move its tables back (ALTER TABLE ... SET TABLESPACE pg_default; ALTER DATABASE ... for a whole database) and drop it",
        ));
    }
    majors(data, to, name, reached, &facts)?;
    Ok(facts.warnings().into_iter().map(|w| format!("{name}: {w}")).collect())
}

/// Refuses an image of another major version than the one that made the data.
fn majors(
    data: &ComposeData,
    to: &Placement<'_>,
    name: &StoreName,
    reached: &Reached,
    facts: &ServerFacts,
) -> Result<(), EngineError> {
    let Some(said) = convert::said(data, to, reached)? else { return Ok(()) };
    let own = facts.major();
    if said.major == own || convert::is_allowed(to, name, own, said.major) {
        return Ok(());
    }
    Err(convert::refusal(name, &said.image, own, said.major))
}
