//! Backups: what a snapshot holds, how long it is kept, and what a run reports about it.

use crate::data::Fingerprint;
use crate::ids::{StackName, StoreName};
use crate::release::{Instance, Release};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the manifest's format.
pub const SCHEMA: &str = "switchback.backup/1";
/// The tag that every snapshot of this program carries.
pub const TAG: &str = "switchback";
/// Where the manifest lies in a snapshot.
pub const MANIFEST: &str = "/switchback.json";
/// Where the stack's folder lies in a snapshot.
pub const STACK: &str = "/stack";
/// Where the record of the release lies in a snapshot.
pub const RELEASE: &str = "/release";
/// Where the stores lie in a snapshot, each in a folder with its name.
pub const STORES: &str = "/stores";

/// On snapshots that hold only a part of a backup, until the rest of it is there.
pub const TAG_PART: &str = "switchback-part";

/// Where the journal lies in a snapshot: what was done to the stack until then.
pub const HISTORY: &str = "/history";
/// Where the exports of later writes lie in a snapshot.
pub const EXPORTS: &str = "/exports";

/// Where images lie in a snapshot, if it has any.
pub const IMAGES: &str = "/images";

/// What a snapshot holds, as it is written into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that made it.
    pub program: String,
    /// The stack.
    pub stack: StackName,
    /// The moment that all stores were cut at, or the last one of those that were cloned one after the other; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// Where the stack's folder lay.
    pub root: String,
    /// Production as it was.
    pub instance: Instance,
    /// What ran.
    pub release: Release,
    /// Where the data lies in the snapshot, by store; several stores may lie at one place, which is named by the first.
    pub parts: BTreeMap<StoreName, String>,
    /// What the stores held, row by row: only in backups of versions before there was `contents`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fingerprints: BTreeMap<StoreName, Fingerprint>,
    /// What the stores held: of database servers file by file, so that none has to be started to look.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<StoreName, Fingerprint>,
    /// Where the images of the release lie in the snapshot, by their ids; none if they are not in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Whether the journal and the exports of later writes are in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
    /// What was written to while it was cloned, so that it may be of no one moment: files, by store, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub torn: Vec<String>,
}

impl Manifest {
    /// What speaks against using it with this program; `None` if nothing does.
    pub fn refused(&self) -> Option<String> {
        (self.schema != SCHEMA)
            .then(|| format!("its manifest has the format {:?}; this program reads {SCHEMA:?}", self.schema))
    }

    /// The same, for a stack whose folder is another one: absolute paths below the old folder lead below the new one.
    pub fn moved_to(&self, root: &str) -> Self {
        let mut moved = self.clone();
        let old = self.root.trim_end_matches('/');
        let lead = |path: &mut String| {
            if let Some(below) = path.strip_prefix(old).filter(|b| b.is_empty() || b.starts_with('/')) {
                *path = format!("{}{below}", root.trim_end_matches('/'));
            }
        };
        root.clone_into(&mut moved.root);
        for place in moved.instance.stores.values_mut() {
            lead(&mut place.path);
            if let Some(mount) = &mut place.mount {
                if let crate::release::MountPlace::Dir(path) = &mut mount.at {
                    lead(path);
                }
                if let crate::release::MountSource::Bind(path) = &mut mount.source {
                    lead(path);
                }
                if let Some(beside) = &mut mount.beside {
                    lead(beside);
                }
            }
        }
        for service in moved.release.services.values_mut() {
            if let Some(artefact) = &mut service.artefact {
                lead(&mut artefact.path);
            }
        }
        moved
    }
}

/// Which snapshots stay; those that none of the rules keeps are removed. Counted per stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest so many.
    pub last: u32,
    /// The last one of each of so many days.
    pub daily: u32,
    /// The last one of each of so many weeks.
    pub weekly: u32,
    /// The last one of each of so many months.
    pub monthly: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 3, daily: 7, weekly: 4, monthly: 12 }
    }
}

/// A snapshot in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The repository's id of it.
    pub id: String,
    /// The stack, which stands where other programs write the host.
    pub stack: String,
    /// The moment of its data; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// Bytes of what it holds.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Bytes that it added to the repository, compressed.
    pub added: u64,
    /// Where it stands in the logs of stores that are archived, if it can be replayed from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: crate::wal::Bases,
}

/// What a snapshot says of itself, beside what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Of a backup: where it stands in the logs of stores.
    Bases(crate::wal::Bases),
    /// Of segments of a log: which.
    Stretch(crate::wal::Stretch),
}

/// What kind of snapshot is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A backup.
    #[default]
    Whole,
    /// The data of one, to which the rest is added.
    Part,
    /// Segments of a log.
    Wal,
}

impl Kind {
    /// The tag on it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Whole => TAG,
            Self::Part => TAG_PART,
            Self::Wal => crate::wal::TAG,
        }
    }
}

/// What is said of a snapshot that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The stack.
    pub stack: String,
    /// The moment of the data; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// What it says of itself.
    #[serde(default)]
    pub note: Option<Note>,
    /// A snapshot that becomes a part of it: the whole id.
    #[serde(default)]
    pub with: Option<String>,
}

impl Stamp {
    /// That of a whole backup.
    pub fn new(stack: impl Into<String>, at_ms: i64) -> Self {
        Self { stack: stack.into(), at_ms, kind: Kind::Whole, note: None, with: None }
    }
}

/// What a run wrote into a repository, or brought back from one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// How long writing or reading took, in milliseconds.
    pub took_ms: u64,
    /// The moment that archived logs were replayed to after it; UTC, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment_ms: Option<i64>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Whether a word may name a snapshot: `latest`, or 6 to 64 hexadecimal digits.
pub fn names_snapshot(text: &str) -> bool {
    text == "latest"
        || ((6..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// The folder of a store in a snapshot.
pub fn part(name: &StoreName) -> String {
    format!("{STORES}/{name}")
}

/// Where data is read from for a snapshot, or written to from one: a path of this host or of a helper, and the path in the
/// snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Outside.
    pub real: String,
    /// In the snapshot.
    pub logical: String,
    /// What below `real` is left out, as paths outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Whether something may change or vanish while it is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// Of files whose content is known: a number that is another one for another content, by their path below `real`, as it is
    /// written in fingerprints. What has the number that it had in the backup before is not read again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, u64>,
}

impl Part {
    /// One whose content does not change.
    pub fn new(real: impl Into<String>, logical: impl Into<String>) -> Self {
        Self {
            real: real.into(),
            logical: logical.into(),
            except: Vec::new(),
            live: false,
            marks: BTreeMap::new(),
        }
    }

    /// Marks the files of a store that lies at a path below this place, by a fingerprint that was taken file by file.
    pub fn mark(&mut self, below: &str, content: &Fingerprint) {
        for (file, part) in &content.parts {
            let number = part.digest.as_str().get(..16).and_then(|d| u64::from_str_radix(d, 16).ok());
            let path = if below.is_empty() { file.clone() } else { format!("{below}/{file}") };
            self.marks.extend(number.map(|n| (path, n)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::names_snapshot;

    #[test]
    fn only_what_can_be_an_id_names_a_snapshot() {
        for good in ["latest", "0a1b2c", &"f".repeat(64)] {
            assert!(names_snapshot(good), "{good}");
        }
        for bad in ["", "newest", "../../x", "0a1b2", "0A1B2C", &"f".repeat(65), "--help"] {
            assert!(!names_snapshot(bad), "{bad}");
        }
    }
}
