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
    let (text, env) = texts(at)?;
    write_if_other(&at.home.root().join(LOCK_FILE), &text, 0o644)?;
    write_if_other(&at.home.root().join(".env"), &env, 0o600)
}

/// The lock file of an instance, and `.env` with it in it.
fn texts(at: &Placement<'_>) -> Result<(String, String), EngineError> {
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
    let env =
        env_with_lock(&dot_env(at.home)?, &base_files(at.home, at.config)?, LOCK_FILE).map_err(refused)?;
    Ok((text, env))
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

/// How lock file and `.env` differ from what belongs to an instance, in words; empty if plain `docker compose up`
/// would start exactly this instance.
pub fn drift(at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
    let mut found = Vec::new();
    let (text, env) = texts(at)?;
    match std::fs::read_to_string(at.home.root().join(LOCK_FILE)) {
        Ok(now) if now == text => {}
        Ok(_) => found.push(format!("{LOCK_FILE} is not the one of generation {}", at.instance.generation)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => found.push(format!("{LOCK_FILE} is gone")),
        Err(e) => found.push(format!("{LOCK_FILE} cannot be read: {e}")),
    }
    if dot_env(at.home)? != env {
        found.push(format!("COMPOSE_FILE in .env does not name the Compose files and {LOCK_FILE}"));
    }
    Ok(found)
}
