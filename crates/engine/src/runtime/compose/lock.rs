//! The lock file: what makes plain `docker compose up -d` start the right generation.

use super::instance::pins;
use super::project::{LOCK_FILE, base_files, dot_env};
use super::release::kept_model;
use crate::error::EngineError;
use crate::home::write_atomic;
use crate::runtime::Placement;
use switchback_core::compose::{LockHeader, env_with_lock, lock_file};

/// Writes the lock file of an instance and names it in `.env`.
pub fn write(at: &Placement<'_>) -> Result<(), EngineError> {
    let model = kept_model(at.home, &at.instance.release)?;
    let generation = at.home.generation(at.instance.generation)?;
    let date = jiff::Timestamp::from_millisecond(generation.created_at_ms)
        .map(|t| t.strftime("%Y-%m-%d %H:%M UTC").to_string())
        .unwrap_or_default();
    let header = LockHeader {
        stack: at.config.stack.to_string(),
        generation: at.instance.generation.to_string(),
        run: generation.created_by.to_string(),
        date,
    };
    let refused =
        |e: switchback_core::compose::ModelError| EngineError::refused(e.to_string(), "see the Compose file");
    let text = lock_file(&model, &pins(at)?, &header).map_err(refused)?;
    write_if_other(&at.home.root().join(LOCK_FILE), &text, 0o644)?;
    let env = dot_env(at.home)?;
    let edited = env_with_lock(&env, &base_files(at.home, at.config)?, LOCK_FILE).map_err(refused)?;
    write_if_other(&at.home.root().join(".env"), &edited, 0o600)
}

/// Replaces a file of the user's, keeping its mode; not at all where it says the same.
fn write_if_other(path: &std::path::Path, text: &str, mode: u32) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt as _;
    let before = std::fs::read_to_string(path).ok();
    if before.as_deref() == Some(text) {
        return Ok(());
    }
    let mode = std::fs::metadata(path).map_or(mode, |m| m.permissions().mode() & 0o7777);
    write_atomic(path, text.as_bytes())?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(crate::error::io("set the mode of", path))
}
