//! Copying configuration files into a sandbox.

use crate::error::{EngineError, io};
use crate::home::create_dir;
use std::fs;
use std::path::Path;

/// Copies files, named relative to both folders, where they are there. What is in their place is replaced.
pub fn files<'a>(names: impl Iterator<Item = &'a str>, from: &Path, to: &Path) -> Result<(), EngineError> {
    for relative in names {
        let (source, target) = (from.join(relative), to.join(relative));
        if let Some(parent) = target.parent() {
            create_dir(parent)?;
        }
        if source.is_file() {
            // A link to production's file must not be written through.
            let _ = fs::remove_file(&target);
            fs::copy(&source, &target).map_err(io("copy", &source))?;
        }
    }
    Ok(())
}
