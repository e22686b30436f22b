//! Removing what is no longer needed.
//!
//! Kept: the current generation, the one a rollback needs, the configured number besides, everything on
//! trial or unfinished, every generation that was left and whose writes are not exported (`left` in the engine says which), and
//! data that lies where the user put it (never deleted, whatever is asked).

use super::consent::confirm;
use super::run::journal;
use super::upgrade::open;
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use switchback_core::duration::human_bytes;
use switchback_core::ids::{Digest, GenerationId, RunId};
use switchback_core::release::{Instance, MountPlace, Release};
use switchback_engine::environments;
use switchback_engine::home::Home;
use switchback_engine::left;
use switchback_engine::scratch;
use switchback_engine::session::Session;
use switchback_engine::verify;
use switchback_engine::world::World;

/// Options of gc.
#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Show what would be removed and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also remove this generation although its later writes are not exported; they are lost then
    #[arg(long, value_name = "GENERATION")]
    pub lose_writes_of: Option<u32>,
}

#[derive(Debug, Default, Serialize)]
struct Found {
    generations: Vec<GenerationId>,
    /// Volumes and folders that go with a generation; Compose only.
    data: BTreeMap<GenerationId, Vec<String>>,
    staging: Vec<String>,
    runs: Vec<RunId>,
    releases: Vec<String>,
    /// What is left of staging outside the state folder, in words.
    elsewhere: Vec<String>,
    /// Sandboxes that a killed `verify` left.
    sandboxes: Vec<String>,
    /// Images of earlier versions' helpers that were removed; Compose only.
    helpers: usize,
    /// Names that kept images for generations that are gone; Compose only.
    images: usize,
    bytes: u64,
    /// A generation that stays, and whose later writes are not asked for any more.
    #[serde(skip)]
    given_up: Option<GenerationId>,
    kept: Vec<Kept>,
    removed: bool,
}

#[derive(Debug, Serialize)]
struct Kept {
    generation: GenerationId,
    why: String,
}

/// Removes.
pub fn gc(global: &Global, args: &GcArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let session = Session::open(&home, "gc", global.wait())?;
    session.require_settled()?;
    let lose = args.lose_writes_of.map(GenerationId);
    let world = World::open(&config)?;
    if !args.dry_run {
        world.data.end_leftovers(&home)?;
        session.end_capture(&config, &world)?;
    }
    let mut found = look(&home, &world, config.retention.generations, config.retention.runs, lose)?;
    let out = Output::new(global.json);
    let nothing = found.generations.is_empty()
        && found.staging.is_empty()
        && found.runs.is_empty()
        && found.releases.is_empty()
        && found.elsewhere.is_empty()
        && found.sandboxes.is_empty()
        && found.given_up.is_none();
    if !args.dry_run && !nothing {
        let mut question = format!(
            "Remove {} generations, {} leftovers of staging and {} runs ({})?",
            found.generations.len(),
            found.staging.len() + found.elsewhere.len() + found.sandboxes.len(),
            found.runs.len(),
            human_bytes(found.bytes)
        );
        if let Some(id) = lose {
            question = format!("{question} The writes to generation {id} since its promotion are LOST.");
        }
        if !confirm(global, &question)? {
            return Err(Trouble {
                exit: Exit::Usage,
                message: "not confirmed; nothing was done".to_owned(),
                hint: None,
            });
        }
        if !found.sandboxes.is_empty() {
            verify::remove_leftovers(&home, &config)?;
        }
        remove(&home, &world, &found)?;
        if let Some(id) = found.given_up {
            left::give_up(&home, id)?;
        }
        found.removed = true;
    }
    if !args.dry_run {
        found.helpers = world.data.tidy()?;
        found.images = world.runtime.forget(&home, &releases(&home)?)?;
    }
    if out.is_json() {
        out.json(&found)?;
        return Ok(Exit::Done);
    }
    let verb = if found.removed { "removed" } else { "would remove" };
    for id in &found.generations {
        let data = found.data.get(id).map_or_else(String::new, |d| format!(" with {}", d.join(", ")));
        out.line(&format!("{verb} generation {id}{data}"))?;
    }
    for dir in &found.staging {
        out.line(&format!("{verb} leftovers of staging {dir}"))?;
    }
    for what in &found.elsewhere {
        out.line(&format!("{verb} {what}, left of staging"))?;
    }
    for name in &found.sandboxes {
        out.line(&format!("{verb} the sandbox {name} of a verify that was killed"))?;
    }
    for run in &found.runs {
        out.line(&format!("{verb} files of run {run}"))?;
    }
    for release in &found.releases {
        out.line(&format!("{verb} release {}", release.get(..12).unwrap_or(release)))?;
    }
    if found.helpers > 0 {
        out.line(&format!("removed {} helper images of other versions of Switchback", found.helpers))?;
    }
    if found.images > 0 {
        out.line(&format!("let go of {} images that no generation needs any more", found.images))?;
    }
    if let Some(id) = found.given_up {
        let verb = if found.removed { "gave" } else { "would give" };
        out.line(&format!("{verb} the later writes of generation {id} up; its data stays"))?;
    }
    for kept in &found.kept {
        out.line(&format!("kept generation {}: {}", kept.generation, kept.why))?;
    }
    out.line(&if nothing {
        "Nothing to remove.".to_owned()
    } else {
        format!("{}: {}", if found.removed { "Freed" } else { "Would free" }, human_bytes(found.bytes))
    })?;
    Ok(Exit::Done)
}

fn look(
    home: &Home,
    world: &World,
    keep_generations: u32,
    keep_runs: u32,
    lose: Option<GenerationId>,
) -> Result<Found, Trouble> {
    let mut found = Found::default();
    for sandbox in verify::leftovers(home)? {
        found.bytes += size(&sandbox);
        found.sandboxes.extend(sandbox.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    let Some(pointer) = home.pointer()? else { return Ok(found) };
    let unexported: BTreeSet<GenerationId> = left::unexported(home)?.into_iter().collect();
    let mut spare = keep_generations;
    let mut used_releases = BTreeSet::new();
    let mut needed = BTreeSet::new();
    // From the newest: what one needs is older.
    for id in home.generation_ids()?.into_iter().rev() {
        let generation = home.generation(id)?;
        let why = if id == pointer.current {
            Some("production runs it".to_owned())
        } else if Some(id) == pointer.previous {
            Some("a rollback returns to it".to_owned())
        } else if needed.contains(&id) {
            Some("services and data of a later generation are in it".to_owned())
        } else if generation.adopted {
            Some("its data lies where you put it".to_owned())
        } else if unexported.contains(&id) && lose != Some(id) {
            Some(format!(
                "its later writes are not exported (`export {id}` does it, `gc --lose-writes-of {id}` gives them up)"
            ))
        } else if !world.runtime.running(home, &generation.instance)?.is_empty() {
            Some("something of it is running".to_owned())
        } else if spare > 0 && lose != Some(id) {
            spare -= 1;
            Some("retention.generations".to_owned())
        } else {
            None
        };
        match why {
            Some(why) => {
                used_releases.insert(generation.instance.release.0.clone());
                needed.extend(generation.instance.shared.generations());
                if lose == Some(id) && unexported.contains(&id) {
                    found.given_up = lose;
                }
                found.kept.push(Kept { generation: id, why });
            }
            None => {
                found.bytes += size(&home.instance_dir(&generation.instance));
                let places = mounts(&generation.instance);
                if !places.is_empty() {
                    // Blocks that are shared with another generation are not freed.
                    found.bytes += world.data.cost(home, &generation.instance)?.bytes;
                    found.data.insert(id, places);
                }
                found.generations.push(id);
            }
        }
    }
    let environments = environments::list(home)?;
    used_releases.extend(environments.iter().map(|e| e.instance.release.0.clone()));
    let kept = environments::dirs(home)?;
    for name in list(&home.state().join("staging")) {
        if kept.contains(&format!("staging/{name}")) {
            continue;
        }
        found.bytes += size(&home.state().join("staging").join(&name));
        found.staging.push(name);
    }
    // Of a run whose folder is gone, something may still be left with the Docker engine.
    found.elsewhere = world.runtime.left_below(home, "staging/", &kept)?;
    let journal = journal(home)?;
    let known = journal.map(|j| j.runs(usize::MAX >> 1)).transpose()?.unwrap_or_default();
    let recent: BTreeSet<&str> = known.iter().take(keep_runs as usize).map(RunId::as_str).collect();
    for name in list(&home.state().join("runs")) {
        let makes_kept = found
            .kept
            .iter()
            .any(|k| home.generation(k.generation).is_ok_and(|g| g.created_by.as_str() == name));
        if !recent.contains(name.as_str()) && !makes_kept {
            found.bytes += size(&home.state().join("runs").join(&name));
            found.runs.push(name.into());
        }
    }
    for name in list(&home.state().join("releases")) {
        // A young release may belong to a plan that was shown a moment ago.
        if !used_releases.contains(&name) && !certified(home, &name)? {
            found.bytes += size(&home.state().join("releases").join(&name));
            found.releases.push(name);
        }
    }
    Ok(found)
}

/// Every release that is there.
fn releases(home: &Home) -> Result<Vec<Release>, Trouble> {
    let names = list(&home.state().join("releases"));
    Ok(names.into_iter().map(|name| home.release(&Digest(name))).collect::<Result<_, _>>()?)
}

/// Where the data of an instance lies outside its folder, in words.
fn mounts(instance: &Instance) -> Vec<String> {
    let all = instance.stores.values().filter_map(|s| s.mount.as_ref());
    let places: BTreeSet<&MountPlace> = all.map(|m| &m.at).collect();
    places
        .into_iter()
        .map(|place| match place {
            MountPlace::Volume(name) => format!("the volume {name}"),
            MountPlace::Dir(path) => path.clone(),
        })
        .collect()
}

fn certified(home: &Home, release: &str) -> Result<bool, Trouble> {
    let now = switchback_engine::engine::now_ms();
    let Some(journal) = journal(home)? else { return Ok(false) };
    let all = switchback_engine::certificate::certificates(&journal)?;
    Ok(all.iter().any(|c| c.to.0 == release && c.expires_at_ms > now))
}

fn remove(home: &Home, world: &World, found: &Found) -> Result<(), Trouble> {
    for id in &found.generations {
        let generation = home.generation(*id)?;
        let scratch = scratch::retire(home, &generation.instance.dir)?;
        world.data.retire(home, &generation.instance)?;
        world.data.discard(home, &generation.instance, &scratch)?;
        scratch.remove()?;
    }
    for name in &found.staging {
        world.runtime.kill_below(home, &format!("staging/{name}/"), &[])?;
    }
    if !found.elsewhere.is_empty() {
        world.runtime.kill_below(home, "staging/", &environments::dirs(home)?)?;
    }
    let folders = found
        .staging
        .iter()
        .map(|n| home.state().join("staging").join(n))
        .chain(found.runs.iter().map(|r| home.run_dir(r)))
        .chain(found.releases.iter().map(|r| home.state().join("releases").join(r)));
    for folder in folders {
        std::fs::remove_dir_all(&folder).map_err(|e| Trouble {
            exit: Exit::Internal,
            message: format!("cannot remove {}: {e}", folder.display()),
            hint: None,
        })?;
    }
    Ok(())
}

fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Allocated bytes of a tree (blocks shared by reflink count in full; what is really freed may be less).
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => size(&e.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
