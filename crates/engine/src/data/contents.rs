//! The content of several stores at once.

use super::{Data, Work};
use crate::error::{EngineError, joined};
use crate::runtime::{Placement, Stage};
use crate::store::Progress;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::data::Fingerprint;
use switchback_core::ids::StoreName;

/// The content of those of the stores that are there; nothing runs on them. All are read at once: where helpers read, starting them is
/// most of it.
pub fn contents<'a>(
    data: &dyn Data,
    at: &Placement<'_>,
    names: impl IntoIterator<Item = &'a StoreName>,
    progress: &Progress<'_>,
    temp: &Path,
) -> Result<BTreeMap<StoreName, Fingerprint>, EngineError> {
    let one = |name: &StoreName| {
        let there = data.exists(at, name)?;
        let work = Work { stage: Stage::quiet(), progress, temp };
        there.then(|| data.content(at, name, &work)).transpose()
    };
    let read = std::thread::scope(|scope| {
        let one = &one;
        let begun: Vec<_> = names.into_iter().map(|name| (name, scope.spawn(move || one(name)))).collect();
        begun.into_iter().map(|(name, read)| (name, joined(read))).collect::<Vec<_>>()
    });
    let mut found = BTreeMap::new();
    for (name, content) in read {
        if let Some(content) = content? {
            found.insert(name.clone(), content);
        }
    }
    Ok(found)
}
