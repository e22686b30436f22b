//! The key that personal data is masked with.
//!
//! Owns `.switchback/mask.key`. It must never be printed, nor reach an argument, a journal or a report.

use crate::error::{EngineError, io};
use crate::home::{Home, sync_dir, write_atomic};
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
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
            if got.map_err(|e| io("make random bytes for", &path)(e.into()))? != bytes.len() {
                return Err(EngineError::Internal {
                    detail: "the system gave too few random bytes".to_owned(),
                });
            }
            let key = Key::new(bytes);
            // The state folder is its owner's alone; the mode is for copies of it.
            write_atomic(&path, key.to_hex().as_bytes())?;
            rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o600))
                .map_err(|e| io("set the mode of", &path)(e.into()))?;
            sync_dir(&home.state())?;
            Ok(key)
        }
        Err(e) => Err(io("read", &path)(e)),
    }
}
