//! Whether somebody proved to have the key of the backups elsewhere than on this machine.
//!
//! Owns the file that says so, and of which key. It must never hold anything that the key could be found by.

use super::vault::{Key, Vault};
use crate::error::EngineError;
use crate::home::{Home, write_atomic};
use std::path::PathBuf;
use switchback_core::config::Backup;

/// What the digest is for; it fits nothing else.
const CONTEXT: &str = "switchback 2026-12 a copy of the backups' key exists";

/// What a backup must say as long as nobody did.
pub const UNCONFIRMED: &str = "the key lies on this machine only, as far as is known: who loses the machine loses the backups. Copy it, then `switchback backup key --confirm`";

fn file(home: &Home) -> PathBuf {
    home.state().join("backup.confirmed")
}

/// Derived from the key, which has 160 random bits; nothing leads back.
fn digest(key: &Key) -> String {
    blake3::Hash::from_bytes(blake3::derive_key(CONTEXT, key.reveal().as_bytes())).to_hex().to_string()
}

/// Whether somebody proved to have the key that the stack uses now elsewhere than on this machine. Of a key that cannot be read
/// nobody did.
pub fn key_confirmed(home: &Home, backup: &Backup) -> bool {
    let Ok(key) = Vault::kept_key(home, backup) else { return false };
    // Earlier versions kept an empty file, which says nothing of the key.
    std::fs::read_to_string(file(home)).is_ok_and(|of| of.trim() == digest(&key))
}

/// Records it of this key.
pub fn confirm_key(home: &Home, key: &Key) -> Result<(), EngineError> {
    write_atomic(&file(home), format!("{}\n", digest(key)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::vault::keep_key;

    #[test]
    fn a_confirmation_is_of_one_key_and_does_not_tell_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("makes");
        let backup: Backup = serde_json::from_str(r#"{"repository": "/nowhere"}"#).expect("parses");
        let (key, place) = (Key::generate().expect("random"), home.state().join("backup.key"));
        assert!(!key_confirmed(&home, &backup), "there is no key");
        keep_key(&place, &key).expect("keeps");
        assert!(!key_confirmed(&home, &backup));
        // What an earlier version wrote.
        std::fs::write(file(&home), "").expect("writes");
        assert!(!key_confirmed(&home, &backup));
        confirm_key(&home, &key).expect("records");
        assert!(key_confirmed(&home, &backup));
        let text = std::fs::read_to_string(file(&home)).expect("reads");
        assert!(!text.contains(key.reveal()) && text.trim().len() == 64, "{text}");

        let moved = home.state().join("moved.key");
        std::fs::rename(&place, &moved).expect("moves");
        assert!(!key_confirmed(&home, &backup), "it is gone");
        let other = Backup { key_file: Some(".switchback/moved.key".into()), ..backup.clone() };
        assert!(key_confirmed(&home, &other), "it is the same key elsewhere");
        keep_key(&place, &Key::generate().expect("random")).expect("keeps");
        assert!(!key_confirmed(&home, &backup), "it is another key");
    }
}
