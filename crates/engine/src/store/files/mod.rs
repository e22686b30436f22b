//! The files store: a directory tree or a single file.
//!
//! Owns cloning, fingerprints, differences and exports of trees. It must never write to a source,
//! not even an access time where the system allows to avoid it.

mod carry;
mod census;
mod clone;
mod content;
mod diff;
mod export;
mod meta;
mod remove;
mod sync;
mod walk;

pub(super) use carry::carry_writes;
pub(super) use census::{fingerprint, integrity};
pub(super) use clone::{clone, reflink_tree};
pub(super) use content::Copier;
pub(super) use diff::diff;
pub(super) use export::export;
pub(super) use meta::carry;
pub(super) use remove::{leave_out, remove};
pub(super) use sync::patch_file;
pub use sync::{SyncStats, sync_begin, sync_pass, sync_seal};

use super::{Access, Result};
use std::fmt::Write as _;
use std::path::Path;

/// Whether somebody may change the tree while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Changes are expected and dealt with.
    Running,
    /// They are stopped, or paused: a change is an error.
    Stopped,
}

impl From<Access<'_>> for Writers {
    fn from(access: Access<'_>) -> Self {
        match access {
            Access::Live => Self::Running,
            Access::Cold { .. } => Self::Stopped,
        }
    }
}

/// Apparent size of all files in bytes, hard links counted once.
pub(super) fn size_bytes(path: &Path) -> Result<u64> {
    Ok(clone::Scan::run(path)?.bytes)
}

/// A path as text without loss: control characters, `\` and bytes that are no UTF-8 as `\xNN`.
pub(crate) fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut utf8 = [0; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
