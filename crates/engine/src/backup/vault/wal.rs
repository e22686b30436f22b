//! Segments of write-ahead logs in the repository, and snapshots that become one.

use super::location::Vault;
use super::progress::Meter;
use super::work::{described, found, open, refused, told};
use crate::store::{self, StoreError};
use rustic_core::repofile::{SnapshotFile, SnapshotId};
use rustic_core::{
    IndexedFullStatus, LocalDestination, LsOptions, OpenStatus, Repository, RestoreOptions, RusticError,
    RusticResult,
};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use switchback_core::backup::{Note, Part, Snapshot, TAG_PART};
use switchback_core::wal::{self, Bases, Begin, Kept, Piece};

/// The folder below the data folder that segments are brought into.
pub const SEGMENTS: &str = "switchback-wal";
/// What makes Postgres (12 and later) replay an archive.
const SIGNAL: &str = "recovery.signal";

fn note(snapshot: &SnapshotFile) -> Option<Note> {
    // What others wrote there is none of ours.
    serde_json::from_str(snapshot.description.as_ref()?).ok()
}

/// Where a backup stands in logs.
pub(super) fn bases(snapshot: &SnapshotFile) -> Bases {
    match note(snapshot) {
        Some(Note::Bases(bases)) => bases,
        _ => Bases::new(),
    }
}

/// The snapshots with segments, oldest first.
pub(super) fn kept(repository: &Repository<OpenStatus>) -> RusticResult<Vec<Kept>> {
    let of = |s: &SnapshotFile| match note(s) {
        Some(Note::Stretch(stretch)) if s.tags.contains(wal::TAG) => {
            Some(Kept { snapshot: id(s), stack: s.hostname.clone(), stretch })
        }
        _ => None,
    };
    let mut all: Vec<Kept> = repository.get_all_snapshots()?.iter().filter_map(of).collect();
    all.sort_by_key(|k| (k.stretch.until_ms, k.stretch.first));
    Ok(all)
}

fn id(snapshot: &SnapshotFile) -> String {
    snapshot.id.to_hex().as_str().to_owned()
}

/// What may go when these backups stay: segments that none of them needs, and parts of backups that never became one.
pub(super) fn useless(
    repository: &Repository<OpenStatus>,
    stack: &str,
    stay: &[Snapshot],
    keep_ms: Option<i64>,
) -> RusticResult<Vec<SnapshotId>> {
    let begins: Vec<Begin<'_>> =
        stay.iter().map(|s| Begin { snapshot: &s.id, at_ms: s.at_ms, bases: &s.bases }).collect();
    let own: Vec<Kept> = kept(repository)?.into_iter().filter(|k| k.stack == stack).collect();
    let gone = wal::useless(&begins, &own, crate::engine::now_ms(), keep_ms);
    let all = repository.get_all_snapshots()?.into_iter().filter(|s| s.hostname == stack);
    let goes = |s: &SnapshotFile| s.tags.contains(TAG_PART) || gone.contains(&id(s));
    Ok(all.filter(goes).map(|s| s.id).collect())
}

/// Makes one snapshot of two, and removes both.
pub(super) fn merged(
    repository: &Repository<IndexedFullStatus>,
    with: &str,
    saved: SnapshotFile,
    mut snapshot: SnapshotFile,
) -> RusticResult<Snapshot> {
    let first = found(repository, with)?;
    let (a, b) = (described(&first), described(&saved));
    let both = [first, saved];
    // Of two files of one name, that of the second.
    let newer =
        |x: &rustic_core::repofile::Node, y: &rustic_core::repofile::Node| x.meta.mtime.cmp(&y.meta.mtime);
    let mut summary = both[1].summary.clone().unwrap_or_default();
    summary.total_bytes_processed = a.bytes + b.bytes;
    summary.total_files_processed = a.files + b.files;
    summary.data_added_packed = a.added + b.added;
    snapshot.summary = Some(summary);
    let made = repository.merge_snapshots(&both, &newer, snapshot)?;
    let gone: Vec<SnapshotId> = both.iter().map(|s| s.id).collect();
    repository.delete_snapshots(&gone)?;
    Ok(Snapshot {
        bytes: a.bytes + b.bytes,
        files: a.files + b.files,
        added: a.added + b.added,
        ..described(&made)
    })
}

/// Brings segments into a data folder, and has its server replay them when it starts.
pub(super) fn segments(vault: &Vault, meter: &Meter, pieces: &[Piece], parts: &[Part]) -> store::Result<u64> {
    let fails = |e: Box<RusticError>| told(vault, &e);
    let Some(part) = parts.first() else { return Err(refused(vault, "no data folder was named")) };
    let data = Path::new(&part.real);
    let at = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| StoreError::Io { doing, path, source }
    };
    let owner = fs::metadata(data.join("PG_VERSION")).map_err(at("look at", &data.join("PG_VERSION")))?;
    let folder = data.join(SEGMENTS);
    if folder.symlink_metadata().is_ok() {
        fs::remove_dir_all(&folder).map_err(at("remove", &folder))?;
    }
    fs::create_dir(&folder).map_err(at("make", &folder))?;
    let own = |path: &Path, mode: u32| {
        chown(path, Some(owner.uid()), Some(owner.gid())).map_err(at("give away", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at("set the mode of", path))
    };
    let repository = open(vault, meter).and_then(Repository::to_indexed).map_err(fails)?;
    let mut options = RestoreOptions::default();
    options.numeric_id = true;
    let mut bytes = 0;
    for piece in pieces {
        let snapshot = found(&repository, &piece.snapshot).map_err(fails)?;
        for name in &piece.names {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refused(vault, format!("{name} is no name of a segment")));
            }
            let path = format!("{}/{name}", piece.folder);
            let Ok(node) = repository.node_from_snapshot_and_path(&snapshot, &path) else {
                return Err(refused(
                    vault,
                    format!("segment {name} is missing in snapshot {}", piece.snapshot),
                ));
            };
            if !node.is_file() {
                return Err(refused(vault, format!("segment {name} is no file")));
            }
            let real = folder.join(name);
            let to = LocalDestination::new(&real.to_string_lossy(), true, true).map_err(fails)?;
            let entries = repository.ls(&node, &LsOptions::default()).map_err(fails)?;
            let plan = repository.prepare_restore(&options, entries.clone(), &to, false).map_err(fails)?;
            bytes += plan.restore_size;
            repository.restore(plan, &options, entries, &to).map_err(fails)?;
            let size = fs::metadata(&real).map_err(at("look at", &real))?.len();
            if size != node.meta.size {
                return Err(refused(vault, format!("segment {name} came back with {size} bytes")));
            }
            own(&real, 0o600)?;
        }
    }
    own(&folder, 0o700)?;
    let signal = data.join(SIGNAL);
    File::create(&signal).and_then(|f| f.sync_all()).map_err(at("make", &signal))?;
    own(&signal, 0o600)?;
    File::open(data).and_then(|f| rustix::fs::syncfs(&f).map_err(Into::into)).map_err(at("sync", data))?;
    Ok(bytes)
}
