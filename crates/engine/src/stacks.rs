//! The stacks below a folder.

use crate::error::{EngineError, io};
use crate::gather::{self, Target};
use crate::home::{CONFIG_FILE, Home};
use crate::runtime::Stage;
use crate::world::{self, World};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::config::Config;
use switchback_core::ids::StackName;
use switchback_core::release::describe_change;
use switchback_core::stacks::order;

/// How deep below the folder stacks are looked for, and how many folders are looked into.
const DEPTH: usize = 2;
const FOLDERS: usize = 2_000;

/// A stack that was found.
pub struct Found {
    /// Its folder.
    pub home: Home,
    /// What it is to be.
    pub config: Config,
}

/// What there is to do with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// It runs what its configuration says.
    Nothing,
    /// It was never started by Switchback.
    NotStarted,
    /// A change, in words.
    Change(String),
}

fn folders(root: &Path, depth: usize, found: &mut Vec<PathBuf>, seen: &mut usize) -> Result<(), EngineError> {
    if root.join(CONFIG_FILE).is_file() {
        found.push(root.to_owned());
        // What lies below a stack is the stack's own.
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        // Folders of others are none of ours.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        Err(e) => return Err(io("read", root)(e)),
    };
    let mut below: Vec<PathBuf> = entries
        .flatten()
        // Links are not followed: two ways to one stack would be two stacks.
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.'))
        .map(|e| e.path())
        .collect();
    below.sort();
    for path in below {
        *seen += 1;
        if *seen > FOLDERS {
            return Err(EngineError::refused(
                format!("there are more than {FOLDERS} folders below {}", root.display()),
                "name the folder that has the stacks: `-C DIR`",
            ));
        }
        folders(&path, depth - 1, found, seen)?;
    }
    Ok(())
}

/// The stacks in a folder and at most two levels below it, each after those that its `after` names.
pub fn find(root: &Path) -> Result<Vec<Found>, EngineError> {
    let mut paths = Vec::new();
    folders(root, DEPTH, &mut paths, &mut 0)?;
    let mut all: BTreeMap<StackName, Found> = BTreeMap::new();
    for path in paths {
        let home = Home::open(&path)?;
        let config = world::config(&home)?;
        if let Some(other) = all.get(&config.stack) {
            return Err(EngineError::refused(
                format!(
                    "two stacks are called {}: in {} and in {}",
                    config.stack,
                    other.home.root().display(),
                    path.display()
                ),
                "give one of them another name (`stack`)",
            ));
        }
        all.insert(config.stack.clone(), Found { home, config });
    }
    if all.is_empty() {
        return Err(EngineError::refused(
            format!("there is no {CONFIG_FILE} in {} or at most two folders below it", root.display()),
            "`switchback init` writes one in the folder of a stack",
        ));
    }
    let after = all.iter().map(|(name, found)| (name.clone(), found.config.after.clone())).collect();
    let ordered = order(&after)
        .map_err(|e| EngineError::misconfigured(CONFIG_FILE, e.to_string(), "see the key `after`"))?;
    Ok(ordered.iter().filter_map(|name| all.remove(name)).collect())
}

/// What there is to do with a stack.
pub fn due(found: &Found, stage: &Stage<'_>) -> Result<Due, EngineError> {
    let (home, config) = (&found.home, &found.config);
    if home.pointer()?.is_none() {
        return Ok(Due::NotStarted);
    }
    let world = World::open(config)?;
    let (_, production) = gather::production(home, config, &world)?;
    let (id, release) = world.runtime.release(home, config, &Target::default().versions, stage)?;
    if id == production.release {
        return Ok(Due::Nothing);
    }
    let now = home.release(&production.release)?;
    Ok(Due::Change(describe_change(&now.versions(), &release.versions())))
}
