//! Bringing a stack back on a machine that has nothing of it: from the repository and its key alone.

use super::vault::{Location, Task, Vault, keep_key, key_file};
use super::{Held, Keys, child, choose, manifest, occupied, parsed, read_manifest, wal};
use crate::data::Work;
use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::fault;
use crate::gather;
use crate::home::{CONFIG_FILE, Home, STATE_DIR, create_dir, read_json, sync_dir, write_json};
use crate::lock::Lock;
use crate::ops::differing;
use crate::runtime::{Placement, Stage};
use crate::scratch::Scratch;
use crate::session::Session;
use crate::store::Progress;
use crate::world::{self, World};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::backup::{EXPORTS, HISTORY, Manifest, Part, RELEASE, STACK, Snapshot};
use switchback_core::config::Config;
use switchback_core::ids::StoreName;
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::{self, Procedure};
use switchback_core::release::{FORMAT, Generation, Instance, PRODUCTION, Pointer, Release, Shared};
use switchback_core::wal::Way;

/// What is asked for.
pub struct Request<'a> {
    /// The repository and its key.
    pub vault: &'a Vault,
    /// `latest`, or the beginning of an id.
    pub snapshot: &'a str,
    /// The moment that archived logs are replayed to, if any: then the backup before it is taken.
    pub at_ms: Option<i64>,
    /// The stack, where the repository has backups of several.
    pub stack: Option<&'a str>,
    /// The folder that the stack gets; empty (but for the `lost+found` of a new disk), or not there.
    pub into: &'a Path,
    /// Whether everything may be removed first that is in a folder where an attempt was killed.
    pub start_over: bool,
    /// Told of the steps, asked whether to stop.
    pub stage: Stage<'a>,
    /// Told how far it is.
    pub progress: &'a Progress<'a>,
}

/// What came back.
pub struct Restored {
    /// The stack.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// What it was brought back from.
    pub snapshot: Snapshot,
    /// What the snapshot held.
    pub manifest: Manifest,
    /// Bytes of data.
    pub bytes: u64,
    /// What was replayed, in words.
    pub replayed: Vec<String>,
}

/// Brings it back; nothing is started.
pub fn bare(request: &Request<'_>) -> Result<Restored, EngineError> {
    let Request { vault, into, stage, progress, .. } = request;
    begin(into, request.start_over)?;
    if let Location::Folder(path) = &vault.location
        && !Path::new(path).is_dir()
    {
        return Err(EngineError::refused(
            format!("there is no repository at {path}"),
            "mount the disk it lies on",
        ));
    }
    (stage.say)("looking for the backup");
    let vault = &Keys::default().open(vault, progress)?;
    let all: Vec<Snapshot> = parsed(child::perform(vault, &Task::List, progress)?)?;
    let stack = one_stack(&all, request.stack)?;
    let way = match request.at_ms {
        Some(at_ms) => Some(way_on_a_bare_machine(vault, &all, &stack, at_ms, progress)?),
        None => None,
    };
    let wanted = way.as_ref().map_or(request.snapshot, |w| w.base.as_str());
    let snapshot = choose(all.clone(), &stack, wanted)?;
    let text: String = parsed(child::perform(vault, &read_manifest(&snapshot.id), progress)?)?;
    create_dir(into)?;
    let root = into.canonicalize().map_err(io("open", into))?;
    let manifest = manifest(&text, &snapshot.id)?.moved_to(&root.to_string_lossy());
    // First of all, so that the next attempt knows what was begun here.
    create_dir(&root.join(STATE_DIR))?;
    let _own = Lock::take(&root.join(STATE_DIR).join("restore.lock"), "restore", Duration::ZERO)?;
    write_json(&unfinished(&root), &manifest)?;
    crash("restore-begun");
    let request = Request { vault, ..*request };
    let brought = bring(&request, &root, snapshot, manifest, way.as_ref()).inspect_err(|_| give_up(&root))?;
    crash("restore-done");
    let marker = unfinished(&root);
    fs::remove_file(&marker).map_err(io("remove", &marker))?;
    sync_dir(&root.join(STATE_DIR))?;
    Ok(brought)
}

/// Brings everything back: the folder, what is known of the release, the data, the generation.
fn bring(
    request: &Request<'_>,
    root: &Path,
    snapshot: Snapshot,
    manifest: Manifest,
    way: Option<&Way>,
) -> Result<Restored, EngineError> {
    let Request { vault, stage, progress, .. } = request;
    (stage.say)("bringing back the stack's folder");
    let part = |real: &Path, logical: &str| vec![Part::new(real.to_string_lossy(), logical)];
    let fetch = |parts: Vec<Part>| {
        child::perform(vault, &Task::Restore { snapshot: snapshot.id.clone(), parts }, progress)
    };
    fetch(part(root, STACK))?;
    if !root.join(CONFIG_FILE).is_file() {
        return Err(EngineError::refused(
            format!("snapshot {} has no {CONFIG_FILE}", snapshot.id),
            "its files can be restored with restic",
        ));
    }
    crash("restore-folder");
    let home = Home::open(root)?;
    home.create_state()?;
    let id = manifest.release.id();
    let dir = home.release_dir(&id);
    create_dir(&dir)?;
    fetch(part(&dir, RELEASE))?;
    fs::remove_file(dir.join("release.json")).map_err(io("remove", &dir))?;
    write_json(&dir.join("release.json"), &manifest.release)?;
    if manifest.history {
        // What was done to the stack that is gone; the journal of this one begins with the restore.
        let before = home.before();
        create_dir(&before)?;
        fetch(part(&before, HISTORY))?;
        create_dir(&before.join("exports"))?;
        fetch(part(&before.join("exports"), EXPORTS))?;
    }
    let config = world::config(&home)?;
    if let Some(backup) = &config.backup
        && !key_file(&home, backup).exists()
    {
        keep_key(&key_file(&home, backup), &vault.key)?;
        // Whoever restored from it has it elsewhere.
        super::confirm_key(&home, &vault.key)?;
    }
    let world = World::open(&config)?;
    let (bytes, replayed) = data(&home, &config, &world, request, (&snapshot, &manifest), way)?;
    Ok(Restored { home, config, snapshot, manifest, bytes, replayed })
}

/// The mark of an attempt that has not ended, and what it was bringing back.
fn unfinished(root: &Path) -> PathBuf {
    root.join(STATE_DIR).join("restoring.json")
}

/// Dies there, in a test.
fn crash(point: &str) {
    fault::point(fault::Way::Do, point, fault::At::During);
}

/// Confirms that nothing is in the folder, or removes what a killed attempt left there.
fn begin(into: &Path, start_over: bool) -> Result<(), EngineError> {
    if !into.exists() || first_in(into)?.is_none() {
        return Ok(());
    }
    let marker = unfinished(into);
    if !marker.is_file() {
        return Err(occupied(&format!("something in {}", into.display())));
    }
    // Not while it goes on.
    let lock = into.join(STATE_DIR).join("restore.lock");
    let _own = Lock::take(&lock, "restore", Duration::ZERO)?;
    let home = Home::open(into);
    if let Ok(home) = &home
        && home.pointer()?.is_some()
    {
        // It was killed when all that was left to do was to remove the mark.
        fs::remove_file(&marker).map_err(io("remove", &marker))?;
        return Err(EngineError::refused(
            format!("the restore into {} was done already", into.display()),
            format!("`switchback -C {} up` starts it", into.display()),
        ));
    }
    if !start_over {
        return Err(EngineError::refused(
            format!("an earlier restore into {} did not end", into.display()),
            "--start-over removes everything in the folder, and begins anew",
        ));
    }
    discard(into)?;
    empty(into);
    match first_in(into)? {
        None => Ok(()),
        Some(stays) => Err(occupied(&stays.display().to_string())),
    }
}

/// Something in a folder that counts as something.
fn first_in(folder: &Path) -> Result<Option<PathBuf>, EngineError> {
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if !is_of_disk(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The folder that a new ext4 file system has for what a repair finds: empty, or for its owner's eyes only.
fn is_of_disk(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "lost+found")
        && path.symlink_metadata().is_ok_and(|m| m.is_dir())
        && match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
        }
}

/// Removes data that a restore which did not end has brought outside of the folder: volumes carry the mark of scratch.
fn discard(root: &Path) -> Result<(), EngineError> {
    // Before there is a configuration there is nothing but the folder.
    let Ok(home) = Home::open(root) else { return Ok(()) };
    let manifest: Manifest = read_json(&unfinished(root))?;
    let instance = Instance { environment: PRODUCTION.to_owned(), ..alone(&manifest.instance) };
    // What is no scratch any more is whole; volumes of it are in the way of the next attempt, which names them.
    let Ok(Some(scratch)) = Scratch::open(&home, &instance.dir) else { return Ok(()) };
    World::open(&world::config(&home)?)?.data.discard(&home, &instance, &scratch)
}

/// Removes everything that can be removed.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_of_disk(&path) {
            continue;
        }
        let _ = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
}

/// Removes what a failed attempt made, as far as it can: the folder was empty before. What is in the way afterwards is named by
/// the next attempt.
fn give_up(root: &Path) {
    if Home::open(root).is_ok_and(|home| !matches!(home.pointer(), Ok(None))) {
        return; // it is production's already
    }
    let _ = discard(root);
    empty(root);
}

/// An instance on a machine on which there are no others.
fn alone(instance: &Instance) -> Instance {
    Instance { shared: Shared::default(), ..instance.clone() }
}

fn one_stack(all: &[Snapshot], wanted: Option<&str>) -> Result<String, EngineError> {
    if let Some(wanted) = wanted {
        return Ok(wanted.to_owned());
    }
    let mut names: Vec<&str> = all.iter().map(|s| s.stack.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(EngineError::refused("the repository has no backup", "is it the right one?")),
        several => Err(EngineError::refused(
            format!("the repository has backups of several stacks: {}", several.join(", ")),
            "name one: --stack NAME",
        )),
    }
}

/// The data and the generation.
fn data(
    home: &Home,
    config: &Config,
    world: &World,
    request: &Request<'_>,
    (snapshot, manifest): (&Snapshot, &Manifest),
    way: Option<&Way>,
) -> Result<(u64, Vec<String>), EngineError> {
    let stage = &request.stage;
    let mut instance = Instance {
        environment: PRODUCTION.to_owned(),
        release: manifest.release.id(),
        ..alone(&manifest.instance)
    };
    super::images::load(home, world, request.vault, (&snapshot.id, manifest), stage, request.progress)?;
    let release = release(home, config, world, &mut instance, &manifest.release, stage)?;
    let at = Placement { home, config, instance: &instance, release: &release };
    let scratch = Scratch::create(home, &instance.dir)?;
    world.runtime.prepare(&at, &scratch, stage)?;
    (stage.say)("bringing back the data");
    let temp = home.state().join("runs/restore-tmp");
    create_dir(&temp)?;
    let work = Work { stage: *stage, progress: request.progress, temp: &temp };
    let mut bytes = world.data.fetch(&at, request.vault, (&snapshot.id, &manifest.parts), None, &work)?;
    crash("restore-data");
    let mut replayed = Vec::new();
    (stage.say)("comparing it with what was backed up");
    let logged = way.map(|w| w.pieces.keys().cloned().collect()).unwrap_or_default();
    let held = Held::of(manifest, |_| true, &logged);
    let differing = differing(&held.expected, &held.read(&at, world, &work)?);
    if !differing.is_empty() {
        return Err(EngineError::refused(
            format!("what came back is not what was backed up: {}", differing.join(", ")),
            "look for damage with `restic check --read-data`; try an older snapshot (--snapshot)",
        ));
    }
    if let (Some(way), Some(at_ms), Some(logs)) = (way, request.at_ms, world.data.logs()) {
        for (store, pieces) in &way.pieces {
            let began = std::time::Instant::now();
            let (more, last) = logs.replay(&at, store, request.vault, pieces, at_ms, &work)?;
            bytes += more;
            let segments = pieces.iter().map(|p| p.names.len()).sum();
            let took = crate::exec::elapsed_ms(began);
            replayed.push(crate::ops::replayed(store.as_str(), segments, last, at_ms, took));
        }
        let others: Vec<&str> =
            instance.stores.keys().filter(|s| !way.pieces.contains_key(*s)).map(StoreName::as_str).collect();
        if !others.is_empty() {
            let at = switchback_core::times::utc(way.base_ms);
            replayed.push(format!("as of the backup ({at}): {}", others.join(", ")));
        }
    }
    let _ = fs::remove_dir_all(&temp);
    crash("restore-compared");
    // From here on it is production's.
    world.data.keep(home, &instance)?;
    scratch.keep()?;
    let current = instance.generation;
    let run = gather::new_run();
    let mut plan = plan::up(
        run.clone(),
        config.stack.clone(),
        now_ms(),
        config.rollback.budget.as_millis(),
        &instance,
        false,
    );
    plan.procedure = Procedure::Restore;
    plan.from_generation = None;
    plan.reason = Some(format!("snapshot {} of {}", snapshot.id, request.vault.location.shown()));
    plan.steps.clear();
    // The journal begins with where everything came from.
    let mut session = Session::open(home, "restore", Duration::ZERO)?;
    session.keep(&run, config)?;
    let planned = Event::Planned { plan: Box::new(plan) };
    let ended = Event::Ended { outcome: Outcome::Done };
    session.journal.append_all(&run, &[(now_ms(), &planned), (now_ms(), &ended)])?;
    home.save_generation(&Generation {
        format: FORMAT,
        adopted: current.0 == 1,
        created_by: run,
        created_at_ms: now_ms(),
        previous: None,
        instance: instance.clone(),
    })?;
    crash("restore-recorded");
    home.set_pointer(Some(&Pointer { format: FORMAT, current, previous: None }))?;
    world.runtime.activated(&at)?;
    Ok((bytes, replayed))
}

/// What leads to a moment: nothing but the repository knows whose logs are archived.
fn way_on_a_bare_machine(
    vault: &Vault,
    all: &[Snapshot],
    stack: &str,
    at_ms: i64,
    progress: &Progress<'_>,
) -> Result<Way, EngineError> {
    let logs = wal::kept(parsed(child::perform(vault, &Task::Logs, progress)?)?, stack);
    let backups: Vec<Snapshot> = all.iter().filter(|s| s.stack == stack).cloned().collect();
    // Those of the newest backup before it: a store may be archived since, or no more.
    let before = backups.iter().filter(|s| s.at_ms <= at_ms && !s.bases.is_empty()).max_by_key(|s| s.at_ms);
    let stores = before.map(|s| s.bases.keys().cloned().collect()).unwrap_or_default();
    wal::way_to(&stores, &backups, &logs, at_ms)
}

/// What runs: as it was, if its images are here; else what the Compose files name is pulled or built again.
fn release(
    home: &Home,
    config: &Config,
    world: &World,
    instance: &mut Instance,
    was: &Release,
    stage: &Stage<'_>,
) -> Result<Release, EngineError> {
    let at = Placement { home, config, instance, release: was };
    let missing = world.runtime.missing(&at)?;
    if missing.is_empty() {
        return Ok(was.clone());
    }
    (stage.say)(&format!("{} not here; pulled or built again", missing.join(", ")));
    let (id, made) = world.runtime.release(home, config, &was.versions(), stage)?;
    instance.release = id;
    instance.versions = made.versions();
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lost_and_found_of_a_new_disk_is_nothing_and_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (into, lost) = (dir.path(), dir.path().join("lost+found"));
        fs::create_dir(&lost).expect("makes");
        begin(into, false).expect("it counts as empty");
        // With the mark of an attempt that was killed, and whatever else came there since.
        create_dir(&into.join(STATE_DIR)).expect("makes");
        fs::write(unfinished(into), "{}").expect("writes");
        fs::write(into.join("note"), "somebody's").expect("writes");
        let refused = begin(into, false).expect_err("it did not end");
        assert!(refused.hint().is_some_and(|h| h.contains("everything in the folder")), "{refused}");
        begin(into, true).expect("begins anew");
        let left: Vec<PathBuf> = fs::read_dir(into).expect("lists").flatten().map(|e| e.path()).collect();
        assert_eq!(left, std::slice::from_ref(&lost));
        // What a repair found is somebody's.
        fs::write(lost.join("#12"), "a file").expect("writes");
        assert!(begin(into, true).is_err());
        fs::remove_dir_all(&lost).expect("removes");
        fs::write(&lost, "a file of that name").expect("writes");
        assert!(begin(into, false).is_err());
    }
}
