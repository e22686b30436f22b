//! What an environment gets instead of `staging.replace_secrets`.

use crate::error::{EngineError, io};
use crate::runtime::Placement;
use crate::runtime::compose::release;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::compose::{Replaced, Replacements};

/// The most of a secret's file that is read: what is longer is replaced as if it were not known.
const LONGEST: u64 = 64 * 1024;

/// The replacements of an environment; writes the files of Compose secrets.
pub fn replacements(at: &Placement<'_>) -> Result<Replacements, EngineError> {
    let names = &at.config.staging.replace_secrets;
    if names.is_empty() {
        return Ok(Replacements::default());
    }
    let dir = at.home.instance_dir(at.instance);
    let model = release::kept_model(at.home, &at.instance.release)?;
    let mut wanted = Replacements {
        names: names.iter().cloned().collect(),
        key: key(&dir.join("secrets.key"))?,
        files: BTreeMap::new(),
    };
    let folder = dir.join("secrets");
    for (name, source) in model.secret_files() {
        if !wanted.names.contains(&name) {
            continue;
        }
        let original = source.as_deref().map(Path::new).and_then(read).unwrap_or_default();
        crate::home::create_dir(&folder)?;
        let path = folder.join(&name);
        let trimmed = original.trim_end_matches(['\r', '\n']);
        let rest = original.get(trimmed.len()..).unwrap_or_default();
        let text = format!("{}{rest}", wanted.generated(&name, trimmed));
        std::fs::write(&path, text).map_err(io("write", &path))?;
        wanted.files.insert(name, Replaced { path: path.to_string_lossy().into_owned(), original });
    }
    Ok(wanted)
}

fn read(path: &Path) -> Option<String> {
    let long = std::fs::metadata(path).ok()?.len() > LONGEST;
    if long { None } else { std::fs::read_to_string(path).ok() }
}

/// What generated values are derived with: random, made once for an environment.
fn key(path: &Path) -> Result<String, EngineError> {
    if let Ok(key) = std::fs::read_to_string(path) {
        return Ok(key);
    }
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| io("make random bytes for", path)(e.into()))?;
    let key = blake3::hash(&bytes).to_hex().to_string();
    std::fs::write(path, &key).map_err(io("write", path))?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| io("set the mode of", path)(e.into()))?;
    Ok(key)
}
