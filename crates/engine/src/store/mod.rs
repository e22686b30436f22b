//! Stores: cloning, fingerprinting, comparing and exporting the data of a service.
//!
//! Owns everything that reads or copies a store. It must never write to a source: not to the data,
//! not to its attributes, and for a cold store not even a lock or `-shm` file beside it. It writes
//! only to a destination that did not exist before, and to the scratch folder it is given. It must
//! never fall back from sharing blocks to copying while it holds up the writers of a source.

mod error;
mod files;
mod jsonl;
pub mod mysql;
mod place;
pub mod postgres;
mod progress;
mod sqlite;
mod thinning;

pub use error::StoreError;
pub(crate) use files::escape;
pub use files::{SyncStats, Writers, sync_begin, sync_pass, sync_seal};
pub use place::can_reflink;
pub use progress::Progress;

use std::path::Path;
use switchback_core::anonymise::{Key, MaskedStore, Rule, Sample};
use switchback_core::carry::{Outcome, Rules};
use switchback_core::data::{CopyStats, ExportStats, Fingerprint, StoreDiff, StoreKind};
use switchback_core::prove::Damage;
use switchback_core::scaling::Shrunk;
use switchback_core::trace::{Trace, assemble_file};

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Whether somebody may have the store open while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access<'a> {
    /// A service may be writing. SQLite is read in one read transaction and through its own locks,
    /// so that it may create its `-shm` and `-wal` beside the database as any reader does.
    Live,
    /// Nobody has it open. Nothing is written to or beside the store.
    Cold {
        /// An existing folder for a private copy, needed where a SQLite database has a `-wal` or a
        /// hot journal left behind (these cannot be read without writing). Best on the file system
        /// of the store, so that the copy shares its blocks. The copy is removed afterwards.
        scratch: &'a Path,
    },
}

/// A store to be read, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// Where it is: the database file, or the root of the tree (which may be a symlink to it).
    pub path: &'a Path,
    /// Whether it is in use.
    pub access: Access<'a>,
}

impl<'a> Source<'a> {
    /// A store that a service may be using.
    pub fn live(path: &'a Path) -> Self {
        Self { path, access: Access::Live }
    }

    /// A store that nobody has open.
    pub fn cold(path: &'a Path, scratch: &'a Path) -> Self {
        Self { path, access: Access::Cold { scratch } }
    }
}

/// Measures a store in bytes (apparent size; for SQLite with its `-wal` and `-journal`).
pub fn size_bytes(kind: StoreKind, path: &Path) -> Result<u64> {
    match kind {
        StoreKind::Sqlite => sqlite::size_bytes(path),
        StoreKind::Files => files::size_bytes(path),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Clones a store whose writers are running.
///
/// `dst` must not exist, its parent must. The copy is made under a temporary sibling name, made
/// durable, and renamed; after an error nothing is left. SQLite: the copy is one consistent state and
/// a single self-contained file. Files: each file is consistent in itself or named in the notes as
/// torn; files that vanish meanwhile are left out.
pub fn clone_live(kind: StoreKind, src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    match kind {
        StoreKind::Sqlite => sqlite::clone_live(src, dst, progress),
        StoreKind::Files => files::clone(src, dst, Writers::Running, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Clones a store that nobody has open; otherwise like [`clone_live`].
///
/// A file that changes meanwhile is an error ([`StoreError::Changed`]). SQLite: a `-wal` or hot
/// journal left behind is folded into the copy; the source stays as it is, byte for byte.
pub fn clone_cold(kind: StoreKind, src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    match kind {
        StoreKind::Sqlite => sqlite::clone_cold(src, dst, progress),
        StoreKind::Files => files::clone(src, dst, Writers::Stopped, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Brings a clone of a SQLite database, which others have written to since, to the database's present state.
///
/// `dst` is a file of its own, on which nobody works now; what was left beside it is removed. The database is read as in
/// a clone, into a private copy beside `dst` that is removed afterwards; only pages that differ from it are written.
/// Durable afterwards. After an error `dst` is of no moment until this is repeated.
pub fn refresh_sqlite(source: Source<'_>, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    sqlite::refresh(source, dst, progress)
}

/// Clones a whole mount, whatever is in it, by sharing blocks; never by copying.
///
/// The caller has paused all writers, and may let them go on as soon as this returns. A file that
/// cannot share its blocks (another file system, nodatacow, no support) is [`StoreError::CannotShare`];
/// after any error nothing is left. `dst` must not exist, its parent must. Kept are owner, mode, times,
/// extended attributes, hard links, symlinks, fifos and holes; sockets are left out. Durable only after
/// [`make_durable`]. Sharing writes out the dirty pages of each file, so call [`make_durable`] on the
/// source as well, and [`clear_unfinished`], just before pausing.
pub fn reflink_tree(src: &Path, dst: &Path, progress: &Progress<'_>) -> Result<CopyStats> {
    files::reflink_tree(src, dst, progress)
}

/// Removes what a crashed clone to `dst` left under its temporary name.
///
/// Every clone does so itself; before a pause it saves the time while writers wait.
pub fn clear_unfinished(dst: &Path) -> Result<()> {
    place::clear(dst)
}

/// Removes paths below a finished copy that nobody writes to, and returns those that were there. Nothing outside of it is reached,
/// whatever links it has in it.
pub fn leave_out(root: &Path, paths: &[String]) -> Result<Vec<String>> {
    files::leave_out(root, paths)
}

/// Writes everything of the file system that holds `path`, and the name of `path`, to the disk.
pub fn make_durable(path: &Path) -> Result<()> {
    place::make_durable(path)
}

/// Computes the exact content of a store in a comparable form.
///
/// SQLite: 128-bit sums of BLAKE3 row hashes per table, independent of row order and page layout.
/// Virtual tables are left out, their shadow tables and `sqlite_sequence` are in, `sqlite_stat*` and
/// generated columns are out. A live database in rollback-journal mode keeps its writers waiting
/// meanwhile: fingerprint a clone instead. Files: content, mode, owner, symlink target and xattrs;
/// not times, hard link structure and sockets.
pub fn fingerprint(kind: StoreKind, source: Source<'_>, progress: &Progress<'_>) -> Result<Fingerprint> {
    match kind {
        StoreKind::Sqlite => sqlite::fingerprint(source, progress),
        StoreKind::Files => files::fingerprint(source, None, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// The content of a copy made in passes, as [`fingerprint`] has it for files. Nobody works on it. A file that looks exactly as
/// it did when its digest was taken last is not read again; `memo`, outside of the copy, holds these digests.
pub fn content_of_copy(source: Source<'_>, memo: &Path, progress: &Progress<'_>) -> Result<Fingerprint> {
    files::fingerprint(source, Some(memo), progress)
}

/// Lists what is wrong inside a store; empty means sound.
///
/// SQLite: `integrity_check` and `foreign_key_check`. Files: entries that cannot be read to the end.
pub fn integrity(kind: StoreKind, source: Source<'_>) -> Result<Vec<String>> {
    match kind {
        StoreKind::Sqlite => sqlite::integrity(source),
        StoreKind::Files => files::integrity(source),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Compares two states of a store exactly.
///
/// SQLite rows are matched by the primary key if both states have the same one, else by rowid, else as
/// a multiset; values are equal only if type and bytes are. Memory use does not grow with the rows.
pub fn diff(
    kind: StoreKind,
    before: Source<'_>,
    after: Source<'_>,
    progress: &Progress<'_>,
) -> Result<StoreDiff> {
    match kind {
        StoreKind::Sqlite => sqlite::diff(before, after, progress),
        StoreKind::Files => files::diff(before, after, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Writes every row or file that differs between two states to `out_dir`, exactly.
///
/// `out_dir` must not exist, its parent must. A row counts as unchanged only if all common columns are
/// identical and every added column holds its declared default. `manifest.json` is written last;
/// everything is made durable before the folder gets its name.
pub fn export(
    kind: StoreKind,
    before: Source<'_>,
    after: Source<'_>,
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    match kind {
        StoreKind::Sqlite => sqlite::export(before, after, out_dir, progress),
        StoreKind::Files => files::export(before, after, out_dir, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Carries every write between two states into a third, which is scratch and which nobody has open: only where that still has
/// what was there before. After an error it is of no use.
pub fn carry_writes(
    kind: StoreKind,
    before: Source<'_>,
    after: Source<'_>,
    target: &Path,
    rules: &Rules,
    progress: &Progress<'_>,
) -> Result<Outcome> {
    match kind {
        StoreKind::Sqlite => sqlite::carry_writes(before, after, target, rules, progress),
        StoreKind::Files => files::carry_writes(before, after, target, rules, progress),
        StoreKind::Postgres | StoreKind::Mysql => Err(needs_server()),
    }
}

/// Masks columns of a SQLite database that is scratch and that nobody has open. Afterwards it is one file without anything of the
/// old values; after an error it is of no use.
pub fn mask_sqlite(path: &Path, rules: &[Rule], key: &Key, progress: &Progress<'_>) -> Result<MaskedStore> {
    sqlite::mask(path, rules, key, progress)
}

/// Damages a SQLite database on purpose. It must be scratch; see [`Damage`].
pub fn damage_sqlite(path: &Path, damage: Damage, not: &[String]) -> Result<u64> {
    sqlite::damage(path, damage, not)
}

/// Removes rows of the large tables of a SQLite database, so that a share (in percent) of them is left; tables named in `not` are kept
/// whole. It must be scratch, and nobody may have it open. At 100 it is only measured.
pub fn shrink_sqlite(path: &Path, percent: u8, not: &[String], progress: &Progress<'_>) -> Result<Shrunk> {
    sqlite::shrink(path, percent, not, progress)
}

/// Watches a SQLite database while somebody else works on it, until `stop` says so; `ready` is called once it sees. It takes no part:
/// nobody waits for it.
pub fn watch_sqlite(path: &Path, stop: &dyn Fn() -> bool, ready: &mut dyn FnMut()) -> Result<Trace> {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok(assemble_file(&name, sqlite::watch(path, stop, ready)?))
}

/// The columns of a SQLite database, with some values of each.
pub fn sample_sqlite(source: Source<'_>, each: u32) -> Result<Vec<Sample>> {
    sqlite::samples(source, each)
}

/// Such a store is not a file: `store::postgres` and `store::mysql` ask its server.
fn needs_server() -> StoreError {
    StoreError::Unsupported {
        path: std::path::PathBuf::new(),
        why: "the databases of a server are read through it".to_owned(),
    }
}
