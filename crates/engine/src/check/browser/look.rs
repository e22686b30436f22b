//! Comparing how pages look, old and new, and keeping what shows it.

use super::picture::Picture;
use super::{Shot, tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use switchback_core::check::{Artefact, Failure};
use switchback_core::journey::{Journey, LookRule};
use switchback_core::look::Look;

/// A picture of a failure shows a page that the other side has not.
const FAILURE: &str = "failure";

/// Compares the pictures that both sides have; those that show what differs are kept beside the others. What cannot be compared
/// is an error: it is not as before.
pub fn compare(
    before: &[(Shot, String)],
    after: &[(Shot, String)],
    (folder, run_dir): (&Path, &Path),
    artefacts: &mut Vec<Artefact>,
    approved: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Look>, String> {
    let mut looks = Vec::new();
    for (new, new_path) in after.iter().filter(|(s, _)| s.name != FAILURE) {
        let Some((old, old_path)) = before.iter().find(|(s, _)| s.name == new.name) else { continue };
        let not_compared = |e: String| format!("the pictures {} cannot be compared: {e}", new.name);
        let was = Picture::decode(&old.png).map_err(not_compared)?;
        let is = Picture::decode(&new.png).map_err(not_compared)?;
        let (gone, fresh) = tree::compare(&old.tree, &new.tree);
        let mut look = Look {
            name: new.name.clone(),
            digest: digest(&is, &new.tree),
            pictures: vec![old_path.clone(), new_path.clone()],
            gone,
            fresh,
            ..Look::default()
        };
        if let Some(difference) = was.difference(&is).map_err(not_compared)? {
            look.changed_ppm = difference.ppm;
            look.places = difference.places as u64;
            let path = folder.join(format!("{}.difference.png", new.name));
            fs::write(&path, &difference.png).map_err(|e| format!("{}: {e}", path.display()))?;
            let shown = path.strip_prefix(run_dir).unwrap_or(&path).to_string_lossy().into_owned();
            artefacts.push(Artefact {
                title: format!("{}: what differs", new.name),
                path: shown.clone(),
                blake3: blake3::hash(&difference.png).to_hex().to_string(),
                bytes: difference.png.len() as u64,
            });
            look.pictures.push(shown);
        }
        look.approved = look.differs() && approved(&look.name, &look.digest);
        looks.push(look);
    }
    Ok(looks)
}

fn digest(picture: &Picture, tree: &tree::Tree) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(picture.digest().as_bytes());
    for (line, count) in tree {
        hasher.update(format!("{line} {count}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Tells how pages look, and fails those that must look as before and do not.
pub fn judge(
    looks: &[Look],
    journey: &Journey,
    measured: &mut BTreeMap<String, String>,
    reasons: &mut Vec<Failure>,
) {
    for look in looks {
        let approved = if look.approved { " (approved)" } else { "" };
        measured.insert(format!("look of {}", look.name), format!("{}{approved}", look.words()));
        if journey.look == LookRule::Same && look.differs() && !look.approved {
            reasons.push(Failure {
                at: format!("{}, picture {}", journey.name, look.name),
                what: format!("the page looks otherwise: {}", look.words()),
                expected: Some("the look of the old version".to_owned()),
                reproduce: Some("switchback check approve".to_owned()),
                ..Failure::default()
            });
        }
    }
}
