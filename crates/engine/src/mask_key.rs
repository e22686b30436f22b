//! The key that personal data is masked with.
//!
//! Owns `.switchback/mask.key`. It must never be printed, nor reach an argument, a journal or a report.

use crate::error::{EngineError, io};
use crate::home::{Home, make_secret};
use std::fs;
use std::path::PathBuf;
use switchback_core::anonymise::Key;

/// Where it lies.
pub fn path(home: &Home) -> PathBuf {
    home.state().join("mask.key")
}

/// The key of a stack; made the first time. The same key masks the same value in the same way, in every environment and at
/// every sync; who removes the file gets another one.
pub fn get(home: &Home) -> Result<Key, EngineError> {
    let path = path(home);
    match fs::read_to_string(&path) {
        Ok(text) => Key::from_hex(&text).ok_or_else(|| EngineError::Damaged {
            what: path,
            detail: "it is no key; remove it, and another one is made: values are masked differently then"
                .to_owned(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Key::new(make_secret(&path)?)),
        Err(e) => Err(io("read", &path)(e)),
    }
}
