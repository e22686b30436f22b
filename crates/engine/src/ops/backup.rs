//! Writing a clone into the repository of backups, and bringing one back.

use super::data::{differing, must_be_cold, scratch_of, with_progress, working};
use super::{Context, Failed, wal};
use crate::backup::vault::{Location, Retained, Task, Vault, key_file};
use crate::backup::{
    Held, UNCONFIRMED, ask, below, configured, images, key_confirmed, manifest, read_manifest,
};
use crate::data;
use crate::engine::now_ms;
use crate::home::{create_dir, write_json};
use crate::journal::Journal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use switchback_core::backup::{
    Archived, EXPORTS, HISTORY, IMAGES, MANIFEST, Manifest, Note, Part, RELEASE, SCHEMA, STACK, Snapshot,
    Stamp,
};
use switchback_core::data::CopyStats;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::{StepId, StoreName};
use switchback_core::journal::{ErrorKind, Event, Output, StepError};
use switchback_core::release::{Instance, MountPlace};
use switchback_core::wal::Bases;

/// Takes the content of the clone that a backup is made of.
pub fn contents(context: &Context<'_>, key: &str, source: &str) -> Result<Output, Failed> {
    let (instance, production) = (context.instance(key)?, context.instance(source)?);
    must_be_cold(context, instance)?;
    let release = context.release(production)?;
    let at = context.placement(instance, &release);
    super::capture::forget(context, production, &at)?;
    let temp = super::data::temp_dir(context)?;
    let read = with_progress(context, "reading the clone", |progress| {
        data::contents(context.world.data.as_ref(), &at, instance.stores.keys(), progress, &temp)
    })?;
    context.midway();
    let notes =
        read.iter().map(|(name, is)| format!("{name}: {}, {}", human_bytes(is.bytes), is.digest.short()));
    Ok(Output { notes: notes.collect(), fingerprints: read, ..Output::default() })
}

/// Writes a clone of production, the stack's folder and the record of its release into the repository.
pub fn archive(context: &Context<'_>, key: &str, source: &str) -> Result<Output, Failed> {
    let (instance, production) = (context.instance(key)?, context.instance(source)?);
    must_be_cold(context, instance)?;
    let backup = configured(context.config)?;
    let vault = Vault::of_stack(context.home, backup)?;
    let release = context.release(production)?;
    let at = context.placement(instance, &release);
    let at_ms = cut_at(context);
    let contents =
        context.state.output(&StepId::from("contents")).map(|o| o.fingerprints.clone()).unwrap_or_default();
    let parts = context.world.data.parts(&at)?;
    let folder = super::data::temp_dir(context)?.join("images");
    let images = if backup.images {
        working(context, "saving images", |w| {
            images::save(context.world, &release, &folder, &w.stage, w.progress)
        })?
    } else {
        BTreeMap::new()
    };
    let made = Manifest {
        schema: SCHEMA.to_owned(),
        program: concat!("switchback ", env!("CARGO_PKG_VERSION")).to_owned(),
        stack: context.config.stack.clone(),
        at_ms,
        root: context.home.root().to_string_lossy().into_owned(),
        instance: production.clone(),
        release: release.clone(),
        parts,
        fingerprints: BTreeMap::new(),
        contents,
        images,
        history: true,
        torn: torn(context),
    };
    let history = history(context)?;
    let file = super::data::temp_dir(context)?.join("switchback.json");
    write_json(&file, &made)?;
    context.midway();
    let stack = Part {
        real: made.root.clone(),
        logical: STACK.to_owned(),
        except: left_out(context, production, &vault, &key_file(context.home, backup)),
        live: true,
        ..Part::new("", "")
    };
    let mut beside = vec![
        Part::new(file.to_string_lossy(), MANIFEST),
        Part::new(context.home.release_dir(&production.release).to_string_lossy(), RELEASE),
        stack,
    ];
    beside.push(Part::new(history.to_string_lossy(), HISTORY));
    let exports = context.home.state().join("exports");
    beside.push(Part { live: true, ..Part::new(exports.to_string_lossy(), EXPORTS) });
    if !made.images.is_empty() {
        beside.push(Part::new(folder.to_string_lossy(), IMAGES));
    }
    let mut stamp = Stamp::new(context.plan.stack.to_string(), at_ms);
    // A backup that nothing can be replayed on is one nevertheless.
    let (bases, unbased) = match crate::backup::wal::bases(&at, context.world, production.generation) {
        Ok(found) => found,
        Err(e) => (Bases::new(), vec![format!("nothing can be replayed on this backup: {e}")]),
    };
    stamp.note = (!bases.is_empty()).then_some(Note::Bases(bases));
    let done: Archived = working(context, "writing the backup", |w| {
        let vault = context.world.keys.open(&vault, w.progress)?;
        context.world.data.archive(&at, &vault, (beside, &made.contents), &stamp, w)
    })?;
    crate::backup::wal::based(context.home, &done.snapshot.bases, at_ms)?;
    let _ = std::fs::remove_dir_all(&folder);
    let _ = std::fs::remove_dir_all(&history);
    let mut output = Output::default();
    output.notes.push(format!(
        "snapshot {} in {}: {} files, {}; {} were new",
        short(&done.snapshot),
        vault.location.shown(),
        done.snapshot.files,
        human_bytes(done.snapshot.bytes),
        human_bytes(done.snapshot.added)
    ));
    output.notes.extend(wal::described(&done));
    output.notes.extend(unbased);
    output.notes.extend(done.left_out.iter().map(|l| format!("left out: {l}")));
    if !key_confirmed(context.home, backup) {
        output.notes.push(format!("WARNING: {UNCONFIRMED}"));
    }
    output.backup = Some(done);
    Ok(output)
}

/// A copy of the journal, which is written to while a backup is made.
fn history(context: &Context<'_>) -> Result<PathBuf, Failed> {
    let folder = super::data::temp_dir(context)?.join("history");
    // What an earlier attempt left.
    let _ = std::fs::remove_dir_all(&folder);
    create_dir(&folder)?;
    if let Some(journal) = Journal::open_read(&context.home.state().join("journal.db"))? {
        journal.copy_to(&folder.join("journal.db"))?;
    }
    Ok(folder)
}

/// What the clone has torn, as the step that made it found.
fn torn(context: &Context<'_>) -> Vec<String> {
    let made = context.state.output(&StepId::from("snapshot")).map(|o| o.copies.clone()).unwrap_or_default();
    let torn = |(name, copy): (&StoreName, &CopyStats)| {
        let notes = copy.notes.iter().filter(|n| n.starts_with("torn: "));
        notes.map(|note| format!("{name}: {note}")).collect::<Vec<_>>()
    };
    made.iter().flat_map(torn).collect()
}

pub(super) fn short(snapshot: &Snapshot) -> &str {
    snapshot.id.get(..8).unwrap_or(&snapshot.id)
}

/// The moment at which the clone was cut.
pub(super) fn cut_at(context: &Context<'_>) -> i64 {
    let cut = context.records.iter().find_map(|r| match &r.event {
        Event::Finished { step, .. } if step.as_str() == "snapshot" => Some(r.at_ms),
        _ => None,
    });
    cut.unwrap_or_else(now_ms)
}

/// What of the stack's folder does not belong into the snapshot: the state, the live data, the repository, its key.
fn left_out(context: &Context<'_>, production: &Instance, vault: &Vault, key: &Path) -> Vec<String> {
    let root = context.home.root();
    let mut found = vec![context.home.state(), key.to_owned()];
    if let Location::Folder(path) = &vault.location {
        found.push(PathBuf::from(path));
    }
    for place in production.stores.values() {
        match &place.mount {
            None => {
                found.push(PathBuf::from(&place.path));
                // A database may have files beside it.
                found.extend(
                    ["-wal", "-shm", "-journal"].map(|s| PathBuf::from(format!("{}{s}", place.path))),
                );
            }
            Some(mount) => {
                if let MountPlace::Dir(path) = &mount.at {
                    found.push(PathBuf::from(path));
                }
                found.extend(mount.beside.as_ref().map(PathBuf::from));
            }
        }
    }
    // The first generation's data stays where it lay, also when production has gone on from it.
    for store in context.config.stores.values().filter(|s| !s.path.is_empty() && s.volume.is_none()) {
        found.push(root.join(&store.path).components().collect());
    }
    found.iter().filter(|p| below(p, root)).map(|p| p.to_string_lossy().into_owned()).collect()
}

/// Removes backups that no rule keeps.
pub fn retain(context: &Context<'_>) -> Result<Output, Failed> {
    let backup = configured(context.config)?;
    let vault = Vault::of_stack(context.home, backup)?;
    let stack = context.config.stack.to_string();
    let task = Task::Forget {
        stack,
        keep: backup.keep,
        wal_keep_ms: crate::backup::wal::keep_ms(backup),
        dry_run: false,
    };
    context.midway();
    let done: Retained = working(context, "removing old backups", |w| {
        let vault = context.world.keys.open(&vault, w.progress)?;
        ask(context.home, context.world, &vault, &task, w.progress)
    })?;
    let note = format!("kept: {}, removed: {}", done.kept.len(), done.removed.len());
    Ok(Output { notes: vec![note], ..Output::default() })
}

/// Brings back those images of a snapshot's release that are gone.
pub fn images(context: &Context<'_>, snapshot: &str) -> Result<Output, Failed> {
    let vault = Vault::of_stack(context.home, configured(context.config)?)?;
    let brought = working(context, "bringing back images", |w| {
        let vault = context.world.keys.open(&vault, w.progress)?;
        let text: String = ask(context.home, context.world, &vault, &read_manifest(snapshot), w.progress)?;
        let said = manifest(&text, snapshot)?;
        images::load(context.home, context.world, &vault, (snapshot, &said), &w.stage, w.progress)
    })?;
    context.midway();
    Ok(Output { notes: brought.into_iter().map(|i| format!("{i} is back")).collect(), ..Output::default() })
}

/// Brings the data of a snapshot into an instance, and compares it with what was read when the snapshot was made.
pub fn fetch(context: &Context<'_>, key: &str, snapshot: &str, replay: bool) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    must_be_cold(context, instance)?;
    let vault = Vault::of_stack(context.home, configured(context.config)?)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let scratch = scratch_of(context, instance)?;
    let began = std::time::Instant::now();
    let (said, bytes) = working(context, "bringing the backup back", |w| {
        let vault = context.world.keys.open(&vault, w.progress)?;
        let text: String = ask(context.home, context.world, &vault, &read_manifest(snapshot), w.progress)?;
        let said = manifest(&text, snapshot)?;
        let bytes = context.world.data.fetch(&at, &vault, (snapshot, &said.parts), Some(&scratch), w)?;
        Ok((said, bytes))
    })?;
    let took_ms = crate::exec::elapsed_ms(began);
    context.midway();
    let mut output = Output::default();
    let replayed = if replay { context.config.archived() } else { Default::default() };
    let held = Held::of(&said, |name| instance.stores.contains_key(name), &replayed);
    let found = working(context, "reading what came back", |w| held.read(&at, context.world, w))?;
    output.notes.extend(
        held.uncompared.iter().map(|n| format!("{n}: not compared, because its log is replayed on it")),
    );
    output.notes.extend(
        found.iter().map(|(name, is)| format!("{name}: {}, {}", human_bytes(is.bytes), is.digest.short())),
    );
    output.fingerprints.clone_from(&found);
    output.notes.push(format!(
        "snapshot {} of {}: {} in {}",
        snapshot.get(..8).unwrap_or(snapshot),
        switchback_core::times::utc(said.at_ms),
        human_bytes(bytes),
        human_ms(took_ms)
    ));
    output.backup = Some(Archived {
        snapshot: Snapshot {
            id: snapshot.to_owned(),
            stack: said.stack.to_string(),
            at_ms: said.at_ms,
            bytes,
            files: 0,
            added: 0,
            bases: BTreeMap::new(),
        },
        took_ms,
        moment_ms: None,
        left_out: Vec::new(),
    });
    let differing = differing(&held.expected, &found);
    if differing.is_empty() {
        output.notes.push("equal to what was read when the backup was made".to_owned());
        return Ok(output);
    }
    let error = StepError {
        kind: ErrorKind::Refused,
        message: format!("what came back is not what was backed up: {}", differing.join(", ")),
        hint: Some(
            "`switchback backup check --read-data` looks for damage; try an older snapshot".to_owned(),
        ),
        details: Vec::new(),
    };
    Err(Failed { error, output: Box::new(output) })
}
