//! Where a repository lies, and the key that opens it.

use crate::error::{EngineError, io};
use crate::home::{Home, create_dir, sync_dir, write_atomic};
use crate::notify::resolve;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use switchback_core::config::Backup;

/// The key of a repository. It is sent, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Words of a new key: 160 random bits, in groups that can be copied by hand.
const GROUPS: usize = 8;
/// Letters and digits that are not taken for each other.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl Key {
    /// A new one.
    pub fn generate() -> Result<Self, EngineError> {
        let mut bytes = [0_u8; GROUPS * 4];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        if got.ok() != Some(bytes.len()) {
            return Err(EngineError::Internal { detail: "the system gave too few random bytes".to_owned() });
        }
        let groups: Vec<String> = bytes
            .chunks(4)
            .map(|c| c.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect())
            .collect();
        Ok(Self(groups.join("-")))
    }

    /// The one that somebody typed or a file holds; `None` if there is none.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.len() <= 1024 && !text.contains('\n')).then(|| Self(text.to_owned()))
    }

    /// The text: for its owner, and for the repository.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where a repository lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A folder: an absolute path.
    Folder(String),
    /// A REST server: `http://...`. It may hold a password.
    Rest(Key),
}

impl Location {
    /// Reads what is written: a folder, `rest:URL`.
    pub fn of(text: &str, root: &Path) -> Self {
        match text.strip_prefix("rest:") {
            Some(url) => Self::Rest(Key(url.to_owned())),
            None => {
                let path: PathBuf = root.join(text).components().collect();
                Self::Folder(path.to_string_lossy().into_owned())
            }
        }
    }

    /// For people: without user and password.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Rest(url) => {
                let url = url.reveal();
                match (url.find("://"), url.find('@')) {
                    (Some(scheme), Some(at)) if at > scheme => {
                        format!("rest:{}{}", &url[..scheme + 3], &url[at + 1..])
                    }
                    _ => format!("rest:{url}"),
                }
            }
        }
    }
}

/// A repository and its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vault {
    /// Where it lies.
    pub location: Location,
    /// What opens it.
    pub key: Key,
}

/// The file that holds the key of a stack's backups.
pub fn key_file(home: &Home, backup: &Backup) -> PathBuf {
    match &backup.key_file {
        Some(path) => home.root().join(path),
        None => home.state().join("backup.key"),
    }
}

impl Vault {
    /// The one of a stack; refused where it has no key yet.
    pub fn of_stack(home: &Home, backup: &Backup) -> Result<Self, EngineError> {
        let location = Self::location(home, backup)?;
        let file = key_file(home, backup);
        let key = match std::fs::read_to_string(&file) {
            Ok(text) => Key::of(&text).ok_or_else(|| EngineError::Damaged {
                what: file.clone(),
                detail: "it holds no key: one line of text is expected".to_owned(),
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::refused(
                    format!("there is no key for the backups ({})", file.display()),
                    "`switchback backup init` makes repository and key; or put the key of a repository that exists into that file",
                ));
            }
            Err(e) => return Err(io("read", &file)(e)),
        };
        Ok(Self { location, key })
    }

    /// Where the repository of a stack lies.
    pub fn location(home: &Home, backup: &Backup) -> Result<Location, EngineError> {
        let text = resolve(home, &backup.repository).map_err(|why| {
            EngineError::refused(format!("backup.repository: {why}"), "see switchback.yaml")
        })?;
        Ok(Location::of(text.trim(), home.root()))
    }
}

/// Keeps a new key, for its owner's eyes only. Refuses to replace one.
pub fn keep_key(file: &Path, key: &Key) -> Result<(), EngineError> {
    if file.exists() {
        return Err(EngineError::refused(
            format!("{} exists already", file.display()),
            "what it opens would be lost with it; move it away yourself",
        ));
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    create_dir(folder)?;
    write_atomic(file, format!("{}\n", key.reveal()).as_bytes())?;
    rustix::fs::chmod(file, Mode::from_raw_mode(0o600)).map_err(|e| io("set the mode of", file)(e.into()))?;
    sync_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password_and_a_key_not_at_all() {
        let at = |text| Location::of(text, Path::new("/srv/stack"));
        assert_eq!(at("../backup"), Location::Folder("/srv/stack/../backup".into()));
        assert_eq!(at("/b").shown(), "/b");
        let secret = at("rest:http://me:pw@host:8000/x/");
        assert_eq!(secret.shown(), "rest:http://host:8000/x/");
        assert!(!format!("{secret:?}").contains("pw"));
        let key = Key::generate().expect("random");
        assert_eq!((key.reveal().len(), key.reveal().matches('-').count()), (39, 7));
        assert_ne!(Key::generate().expect("random"), key);
        assert_eq!(format!("{key:?}"), "(hidden)");
        assert_eq!(Key::of(&format!("  {}\n", key.reveal())), Some(key));
        assert_eq!(Key::of(" \n"), None);
    }
}
