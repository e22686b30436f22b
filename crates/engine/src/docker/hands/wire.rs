//! What is said between the program and its helper: one request, lines of progress, one answer.
//!
//! Owns the form of both, and the way of a [`StoreError`] through it: kind and text arrive as they were. Both
//! ends are the same build of the same program, so the form needs no version.

use super::cut::Sharing;
use crate::backup::vault::{Task, Vault};
use crate::store::{Access, Source, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use switchback_core::anonymise::Mask;
use switchback_core::carry::Rules;
use switchback_core::data::StoreKind;
use switchback_core::prove::Damage;

/// The folder for private copies and results in a helper: a volume that goes with it.
pub(super) const SCRATCH: &str = "/scratch";
/// Where volumes are mounted in a helper, by name.
pub(super) const VOLUMES: &str = "/volume";
/// Where directories of the engine's host are mounted in a helper, by path.
pub(super) const DIRS: &str = "/dir";
/// The file that marks a folder as removable; its content is the id of the stack.
pub(super) const MARK: &str = ".switchback-scratch";

/// A store in a helper, and whether it is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct At {
    pub path: String,
    pub live: bool,
}

impl At {
    pub(super) fn source(&self) -> Source<'_> {
        let access = if self.live { Access::Live } else { Access::Cold { scratch: Path::new(SCRATCH) } };
        Source { path: Path::new(&self.path), access }
    }
}

/// Room on the file system of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The same for mounts on one file system, as long as nothing is mounted anew.
    pub device: u64,
    /// What may still be written, in bytes.
    pub free_bytes: u64,
}

/// What a helper is asked to do. All paths are absolute paths in the helper. Further operations on stores
/// (incremental copies, cloning a tree by sharing blocks only) belong here, and in `serve.rs` and `client.rs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    SizeBytes {
        kind: StoreKind,
        path: String,
    },
    ToCopy {
        from: String,
        to: String,
    },
    Room {
        path: String,
    },
    CloneLive {
        kind: StoreKind,
        from: String,
        to: String,
    },
    CloneCold {
        kind: StoreKind,
        from: String,
        to: String,
    },
    Fingerprint {
        kind: StoreKind,
        at: At,
    },
    /// The content of a copy that has a record of passes.
    ContentOfCopy {
        at: At,
        /// The file of digests in the folder of the record.
        memo: String,
    },
    Integrity {
        kind: StoreKind,
        at: At,
    },
    Diff {
        kind: StoreKind,
        before: At,
        after: At,
    },
    /// The result follows as a tar archive after the answer.
    Export {
        kind: StoreKind,
        before: At,
        after: At,
    },
    /// A conversation: it ends with a line.
    Watch {
        path: String,
    },
    CanReflink {
        from: String,
        to: String,
    },
    Sql {
        path: String,
        query: String,
        values: Vec<serde_json::Value>,
    },
    /// Masks a SQLite database at `path`, strictly below `root`; see `Remove` for `stack`.
    Mask {
        root: String,
        path: String,
        stack: Option<String>,
        rules: BTreeMap<String, Mask>,
        key: super::mask::Hidden,
    },
    /// Damages a SQLite database at `path`, below `root`, on purpose; see `Remove` for `stack`.
    Damage {
        root: String,
        path: String,
        stack: Option<String>,
        damage: Damage,
        not: Vec<String>,
    },
    /// Removes rows of a SQLite database at `path`, below `root`, until a share of them is left; see `Remove` for `stack`.
    Shrink {
        root: String,
        path: String,
        stack: Option<String>,
        percent: u8,
        not: Vec<String>,
    },
    /// Carries writes into a store at `path`, below `root`; see `Remove` for `stack`.
    Carry {
        kind: StoreKind,
        before: At,
        after: At,
        root: String,
        path: String,
        stack: Option<String>,
        rules: Rules,
    },
    Samples {
        at: At,
        each: u32,
    },
    /// Removes the files in folders below `root`; see `Remove` for `stack`.
    EmptyFolders {
        root: String,
        stack: Option<String>,
        folders: Vec<String>,
    },
    Exists {
        path: String,
    },
    MakeDir {
        path: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    List {
        path: String,
    },
    ReadFile {
        path: String,
        limit: u64,
    },
    /// What kinds of data lie below a path; see [`super::look`].
    Survey {
        path: String,
    },
    /// Removes what is at `path`, strictly below `root`. `stack` is the content of the mark that the root must
    /// carry, or absent for a volume, whose label was looked at.
    Remove {
        root: String,
        path: String,
        stack: Option<String>,
    },
    /// Clones mounts at one moment; see [`super::cut`]. A conversation: the helper takes turns.
    Cut {
        jobs: Vec<CutJob>,
        share: Sharing,
        mode: super::cut::CutMode,
    },
    /// Makes a folder with a mark.
    Mark {
        path: String,
        stack: String,
    },
    /// Makes the folder above, if it is not there, and in it a folder with a mark.
    MarkIn {
        beside: String,
        path: String,
        stack: String,
    },
    /// Marks a folder that exists.
    Retire {
        path: String,
        stack: String,
    },
    /// Whether a folder is there; without the right mark this fails.
    Marked {
        path: String,
        stack: String,
    },
    /// Work on the repository of backups.
    Vault {
        vault: Vault,
        task: Task,
    },
    /// Takes the mark off.
    Unmark {
        path: String,
        stack: String,
    },
    /// Removes a marked folder, the mark last.
    RemoveMarked {
        path: String,
        stack: String,
    },
}

/// A mount to be cloned: paths in the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CutJob {
    pub from: String,
    pub to: String,
    /// The folder of a record that survives.
    pub record: Option<String>,
    /// Paths below it that a copy of what runs does not get.
    pub leave_out: Vec<String>,
}

/// What a helper says before it waits for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Turn {
    /// The writers must stop now.
    Ready,
    /// The writers may go on.
    Cut,
}

/// A line of a helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Bytes done and in total.
    Progress(u64, u64),
    /// It waits for a line.
    Turn(Turn),
    /// The answer.
    Done(serde_json::Value),
    /// Why there is none.
    Failed(Failure),
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// `file`, `folder`, `link` or `other`.
    pub kind: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A [`StoreError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Failure {
    NoSpace { path: Vec<u8>, detail: String },
    Damaged { path: Vec<u8>, detail: String },
    Cancelled,
    Io { doing: String, path: Vec<u8>, errno: Option<i32>, text: String },
    Sqlite { doing: String, path: Vec<u8>, code: i32, text: String },
    Busy { doing: String, path: Vec<u8> },
    NotFound { path: Vec<u8> },
    DstExists { path: Vec<u8> },
    Nested { src: Vec<u8>, dst: Vec<u8> },
    Changed { path: Vec<u8> },
    Repository { at: String, why: String },
    Unsupported { path: Vec<u8>, why: String },
    CannotShare { path: Vec<u8>, why: String },
    OverBudget { path: Vec<u8>, budget_ms: u64, done_bytes: u64 },
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// A path of the helper as a path that means something outside: of the engine's host, or `/volume/NAME/...`.
fn outside(path: Vec<u8>) -> PathBuf {
    let path = PathBuf::from(OsString::from_vec(path));
    match path.strip_prefix(DIRS) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path,
    }
}

/// The actions that errors speak of are constants of this program; a second copy of each is kept here.
fn constant(word: String) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(word.as_str()) {
        return found;
    }
    let kept: &'static str = Box::leak(word.into_boxed_str());
    known.insert(kept);
    kept
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { path, detail } => Self::NoSpace { path: bytes(&path), detail },
            StoreError::Damaged { path, detail } => Self::Damaged { path: bytes(&path), detail },
            StoreError::Cancelled => Self::Cancelled,
            StoreError::Io { doing, path, source } => Self::Io {
                doing: doing.to_owned(),
                path: bytes(&path),
                errno: source.raw_os_error(),
                text: source.to_string(),
            },
            StoreError::Sqlite { doing, path, source } => Self::Sqlite {
                doing: doing.to_owned(),
                path: bytes(&path),
                code: source.sqlite_error().map_or(rusqlite::ffi::SQLITE_ERROR, |e| e.extended_code),
                text: source.to_string(),
            },
            StoreError::Busy { doing, path } => Self::Busy { doing: doing.to_owned(), path: bytes(&path) },
            StoreError::NotFound { path } => Self::NotFound { path: bytes(&path) },
            StoreError::DstExists { path } => Self::DstExists { path: bytes(&path) },
            StoreError::Nested { src, dst } => Self::Nested { src: bytes(&src), dst: bytes(&dst) },
            StoreError::Changed { path } => Self::Changed { path: bytes(&path) },
            StoreError::Repository { at, why } => Self::Repository { at, why },
            StoreError::Unsupported { path, why } => Self::Unsupported { path: bytes(&path), why },
            StoreError::CannotShare { path, why } => Self::CannotShare { path: bytes(&path), why },
            StoreError::OverBudget { path, budget_ms, done_bytes } => {
                Self::OverBudget { path: bytes(&path), budget_ms, done_bytes }
            }
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSpace { path, detail } => Self::NoSpace { path: outside(path), detail },
            Failure::Damaged { path, detail } => Self::Damaged { path: outside(path), detail },
            Failure::Cancelled => Self::Cancelled,
            Failure::Io { doing, path, errno, text } => Self::Io {
                doing: constant(doing),
                path: outside(path),
                source: errno.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error),
            },
            Failure::Sqlite { doing, path, code, text } => Self::Sqlite {
                doing: constant(doing),
                path: outside(path),
                source: rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(text)),
            },
            Failure::Busy { doing, path } => Self::Busy { doing: constant(doing), path: outside(path) },
            Failure::NotFound { path } => Self::NotFound { path: outside(path) },
            Failure::DstExists { path } => Self::DstExists { path: outside(path) },
            Failure::Nested { src, dst } => Self::Nested { src: outside(src), dst: outside(dst) },
            Failure::Changed { path } => Self::Changed { path: outside(path) },
            // In a helper a folder has another name.
            Failure::Repository { at, why } => {
                Self::Repository { at: at.strip_prefix(DIRS).map_or(at.clone(), str::to_owned), why }
            }
            Failure::Unsupported { path, why } => Self::Unsupported { path: outside(path), why },
            Failure::CannotShare { path, why } => Self::CannotShare { path: outside(path), why },
            Failure::OverBudget { path, budget_ms, done_bytes } => {
                Self::OverBudget { path: outside(path), budget_ms, done_bytes }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travelled(error: StoreError) -> StoreError {
        let text = serde_json::to_string(&Failure::from(error)).expect("goes");
        serde_json::from_str::<Failure>(&text).expect("arrives").into()
    }

    #[test]
    fn an_error_arrives_with_its_kind_its_text_and_the_path_outside() {
        let at = |p: &str| PathBuf::from(p);
        let sqlite =
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(2570), Some("gone wrong".into()));
        let all = [
            StoreError::NoSpace { path: at("/volume/a/x"), detail: "needs 5".into() },
            StoreError::Damaged { path: at("/volume/a/x"), detail: "torn".into() },
            StoreError::Cancelled,
            StoreError::Io { doing: "open", path: at("/volume/a"), source: io::Error::from_raw_os_error(13) },
            StoreError::Io { doing: "encode", path: at("/volume/a"), source: io::Error::other("odd") },
            StoreError::Sqlite { doing: "read", path: at("/volume/a"), source: sqlite },
            StoreError::Busy { doing: "copy", path: at("/volume/a") },
            StoreError::NotFound { path: at("/volume/a") },
            StoreError::DstExists { path: at("/volume/a") },
            StoreError::Nested { src: at("/volume/a"), dst: at("/volume/a/b") },
            StoreError::Changed { path: at("/volume/a") },
            StoreError::Unsupported { path: at("/volume/a"), why: "odd".into() },
        ];
        for error in all {
            let (text, kind) = (error.to_string(), std::mem::discriminant(&error));
            let arrived = travelled(error);
            assert_eq!((arrived.to_string(), std::mem::discriminant(&arrived)), (text, kind));
        }
        let arrived = travelled(StoreError::NotFound { path: at("/dir/srv/data") });
        assert_eq!(arrived.to_string(), "/srv/data does not exist");
        let odd = PathBuf::from(OsString::from_vec(b"/dir/\xff".to_vec()));
        assert!(matches!(travelled(StoreError::Changed { path: odd }),
            StoreError::Changed { path } if path.as_os_str().as_bytes() == b"/\xff"));
    }
}
