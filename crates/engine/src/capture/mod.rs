//! Keeping which rows are written to while a trial lasts, in the folder of its generation.
//!
//! Owns the files below `generations/N/capture`: the spool of each store, what its server is started with, and how far it is.

mod spool;

pub use spool::{Entry, Position, Sealed, Spool, Start, Table};

use crate::error::EngineError;
use crate::home::{Home, create_dir, read_json, write_json, write_json_volatile};
use crate::runtime::Placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::release::Instance;

fn folder(home: &Home, instance: &Instance) -> PathBuf {
    home.instance_dir(instance).join("capture")
}

/// The spool of a store.
pub fn spool_file(home: &Home, instance: &Instance, store: &StoreName) -> PathBuf {
    folder(home, instance).join(format!("{store}.spool"))
}

fn commands_file(at: &Placement<'_>) -> PathBuf {
    folder(at.home, at.instance).join("commands.json")
}

/// The commands that a generation's servers run with, so that they log rows.
pub fn commands(at: &Placement<'_>) -> Result<BTreeMap<ServiceName, Vec<String>>, EngineError> {
    let file = commands_file(at);
    if file.exists() { read_json(&file) } else { Ok(BTreeMap::new()) }
}

/// Keeps them.
pub fn set_commands(
    at: &Placement<'_>,
    commands: &BTreeMap<ServiceName, Vec<String>>,
) -> Result<(), EngineError> {
    let file = commands_file(at);
    if commands.is_empty() {
        return match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(crate::error::io("remove", &file)(e)),
            _ => Ok(()),
        };
    }
    create_dir(&folder(at.home, at.instance))?;
    write_json(&file, commands)
}

/// How far the capture of a store is, as it was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When it was looked at; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// Changes of rows that were read.
    pub changes: u64,
    /// Bytes of the spool.
    pub spooled_bytes: u64,
    /// Up to where in the server's log it was read, of the database that was written to last, as the server writes it.
    pub position: String,
    /// Bytes of its log that the server keeps for what is not safe yet.
    pub behind_bytes: u64,
    /// Why nothing is captured any more, or for the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Tables that are compared as a whole, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<String>,
    /// Whether it is over.
    pub ended: bool,
}

fn progress_file(home: &Home, instance: &Instance, store: &StoreName) -> PathBuf {
    folder(home, instance).join(format!("{store}.json"))
}

/// Tells how far it is.
pub fn tell(home: &Home, instance: &Instance, store: &StoreName, progress: &Progress) {
    // It is only looked at.
    let _ = write_json_volatile(&progress_file(home, instance, store), progress);
}

/// How far the capture of each store of an instance is; nothing where nothing is captured.
pub fn progress(home: &Home, instance: &Instance) -> BTreeMap<StoreName, Progress> {
    let all = instance.stores.keys();
    all.filter_map(|name| Some((name.clone(), read_json(&progress_file(home, instance, name)).ok()?)))
        .collect()
}

/// Stores of an instance for which a server may still keep its log.
pub fn open_spools(home: &Home, instance: &Instance) -> Vec<StoreName> {
    let begun = instance.stores.keys().filter(|name| spool_file(home, instance, name).exists());
    let known = progress(home, instance);
    begun.filter(|name| !known.get(*name).is_some_and(|p| p.ended)).cloned().collect()
}

/// A place in a server's log as it writes it itself.
pub fn shown(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}
