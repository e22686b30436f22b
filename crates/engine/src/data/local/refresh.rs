//! Bringing clones on this host to production's present state.
//!
//! Owns the way for each kind of store: trees in passes, with a record in the instance's folder; databases page by page.
//! It must never touch anything outside of the instance's folder but to read production's stores.

use super::{leave_out, source};
use crate::data::Work;
use crate::error::EngineError;
use crate::home::create_dir;
use crate::runtime::Placement;
use crate::scratch::Scratch;
use crate::store::{self, SyncStats, Writers};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::data::{CopyStats, StoreKind};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;

/// Passes over a tree that is in use: what changes during each of them is told after the last one.
const PASSES: u32 = 5;

/// How a note begins that names files which were written to while they were copied.
const TORN: &str = "torn: ";

/// One store and its clone.
struct Pair<'a> {
    kind: StoreKind,
    src: &'a Path,
    dst: &'a Path,
    /// The folder of the record of passes.
    record: PathBuf,
    /// Paths below it that a copy of what runs does not get.
    leave_out: &'a [String],
}

/// The folder of the record of a store's passes.
pub(super) fn record_of(at: &Placement<'_>, store: &StoreName) -> PathBuf {
    at.home.instance_dir(at.instance).join("passes").join(store.as_str())
}

pub(super) fn refresh(
    from: &Placement<'_>,
    to: &Placement<'_>,
    mode: CloneMode,
    scratch: &Scratch,
    work: &Work<'_>,
) -> Result<Output, EngineError> {
    let mut output = Output::default();
    for (name, place) in &from.instance.stores {
        let Some(clone) = to.instance.stores.get(name) else { continue };
        let record = record_of(to, name);
        let (src, dst) = (Path::new(&place.path), Path::new(&clone.path));
        let leave_out = from.config.stores.get(name).map_or(&[][..], |s| &s.leave_out[..]);
        let pair = Pair { kind: place.kind, src, dst, record, leave_out };
        if let Some(parent) = dst.parent() {
            create_dir(parent)?;
        }
        if !src.exists() {
            remove(&pair, scratch)?;
            output.notes.push(format!("{name}: {} does not exist yet; nothing to clone", src.display()));
            continue;
        }
        (work.stage.say)(&format!("bringing the clone of {name} up to date"));
        let stats = one(&pair, mode, scratch, work)?;
        tell(&mut output, name, stats);
        (work.stage.midway)();
    }
    if from.instance.stores.is_empty() {
        (work.stage.midway)();
    }
    Ok(output)
}

fn one(
    pair: &Pair<'_>,
    mode: CloneMode,
    scratch: &Scratch,
    work: &Work<'_>,
) -> Result<CopyStats, EngineError> {
    // A folder or a link in the place of a database, or a second name of it, is staging's doing.
    let usable = match pair.kind {
        StoreKind::Sqlite => pair.dst.symlink_metadata().is_ok_and(|m| m.is_file() && m.nlink() == 1),
        StoreKind::Files => true,
        StoreKind::Postgres | StoreKind::Mysql => false,
    };
    let shared = match (pair.src.parent(), pair.dst.parent()) {
        (Some(from), Some(to)) => store::can_reflink(from, to),
        _ => false,
    };
    if shared || !usable {
        remove(pair, scratch)?;
        return Ok(match mode {
            CloneMode::Live => {
                let mut stats = store::clone_live(pair.kind, pair.src, pair.dst, work.progress)?;
                leave_out((pair.kind, pair.dst), pair.leave_out, &mut stats)?;
                stats
            }
            CloneMode::Cold => store::clone_cold(pair.kind, pair.src, pair.dst, work.progress)?,
        });
    }
    Ok(match pair.kind {
        StoreKind::Files => tree(pair, mode, work)?,
        _ => store::refresh_sqlite(source(pair.src, mode, work.temp), pair.dst, work.progress)?,
    })
}

/// Removes a clone with what lies beside it and with its record.
fn remove(pair: &Pair<'_>, scratch: &Scratch) -> Result<(), EngineError> {
    let suffixes: &[&str] =
        if pair.kind == StoreKind::Sqlite { &["", "-wal", "-shm", "-journal"] } else { &[""] };
    for suffix in suffixes {
        let mut path = OsString::from(pair.dst);
        path.push(suffix);
        scratch.remove_part(Path::new(&path))?;
    }
    scratch.remove_part(&pair.record)
}

fn tree(pair: &Pair<'_>, mode: CloneMode, work: &Work<'_>) -> Result<CopyStats, EngineError> {
    let began = Instant::now();
    let had = pair.dst.symlink_metadata().is_ok();
    create_dir(&pair.record)?;
    let state = pair.record.join("record");
    store::sync_begin(&state)?;
    let pass = |writers| store::sync_pass(pair.src, pair.dst, &state, writers, None, work.progress);
    let mut stats = CopyStats::default();
    let mut last;
    let mut passes = 0;
    loop {
        last = pass(Writers::Running)?;
        add(&mut stats, &last);
        passes += 1;
        if mode == CloneMode::Cold || last.left == 0 || passes == PASSES {
            break;
        }
    }
    match mode {
        CloneMode::Live if last.left > 0 => {
            let named = last.left_named.join(", ");
            let note = format!("{TORN}{} file(s) kept changing while being copied: {named}", last.left);
            stats.notes.push(note);
        }
        CloneMode::Live => {}
        CloneMode::Cold => {
            last = pass(Writers::Stopped)?;
            add(&mut stats, &last);
        }
    }
    if mode == CloneMode::Live {
        leave_out((pair.kind, pair.dst), pair.leave_out, &mut stats)?;
    }
    store::sync_seal(pair.src, pair.dst, &state)?;
    stats.bytes = last.bytes;
    stats.files = last.files;
    stats.bytes_saved = if had { last.bytes.saturating_sub(stats.bytes_written) } else { 0 };
    stats.bytes_read = if had { stats.bytes_read } else { 0 };
    stats.notes.append(&mut last.notes);
    stats.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

fn add(stats: &mut CopyStats, pass: &SyncStats) {
    stats.bytes_written += pass.written;
    stats.bytes_read += pass.read + pass.compared;
}

fn tell(output: &mut Output, name: &StoreName, stats: CopyStats) {
    let (moved, all, took) =
        (human_bytes(stats.bytes_written), human_bytes(stats.bytes), human_ms(stats.took_ms));
    output.notes.push(if stats.reflinked > 0 && stats.bytes_written == 0 {
        format!("{name}: {all} in {took}, blocks shared (reflink)")
    } else if stats.bytes_saved > 0 {
        format!("{name}: moved {moved} of {all} in {took}, {} read to compare", human_bytes(stats.bytes_read))
    } else {
        format!("{name}: {all} in {took}")
    });
    warn(output, name, &stats);
    output.copies.insert(name.clone(), stats);
}

/// Says it where everybody sees it that files of a copy are torn.
pub(super) fn warn(output: &mut Output, name: &StoreName, stats: &CopyStats) {
    let torn = stats.notes.iter().filter(|n| n.starts_with(TORN));
    output.notes.extend(torn.map(|note| format!("WARNING: {name}: {note}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_files_are_told_with_the_step_and_other_notes_are_not() {
        let torn = "torn: 2 file(s) kept changing while being copied: log, cache/x".to_owned();
        let stats = CopyStats { notes: vec!["1 socket(s) left out".to_owned(), torn], ..Default::default() };
        let mut output = Output::default();
        tell(&mut output, &StoreName::new("uploads").expect("a name"), stats);
        let warnings: Vec<&String> = output.notes.iter().filter(|n| n.starts_with("WARNING")).collect();
        let expected = "WARNING: uploads: torn: 2 file(s) kept changing while being copied: log, cache/x";
        assert_eq!(warnings, [expected]);
    }

    /// A file that is written to all the time: whatever the copy has of it, it is named.
    #[test]
    fn a_file_that_keeps_changing_while_a_tree_is_copied_is_named() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().expect("tempdir");
        let (src, dst, state) = (dir.path().join("src"), dir.path().join("dst"), dir.path().join("state"));
        std::fs::create_dir(&src).expect("makes");
        std::fs::write(src.join("quiet"), "quiet").expect("writes");
        std::fs::write(src.join("busy"), vec![1; 16 << 20]).expect("writes");
        let ends = AtomicBool::new(false);
        let last = std::thread::scope(|scope| {
            scope.spawn(|| {
                let busy = std::fs::File::options().write(true).open(src.join("busy")).expect("opens");
                let mut n: u64 = 0;
                while !ends.load(Ordering::Relaxed) {
                    use std::os::unix::fs::FileExt as _;
                    busy.write_all_at(&n.to_le_bytes(), (n * 4096) % (16 << 20)).expect("writes");
                    n += 1;
                }
            });
            // A pass may find a moment at which nothing is written.
            let found = (0..200).find_map(|_| {
                let progress = store::Progress::none();
                let pass = store::sync_pass(&src, &dst, &state, Writers::Running, None, &progress);
                pass.ok().filter(|pass| pass.left > 0)
            });
            ends.store(true, Ordering::Relaxed);
            found.expect("a pass during which the file changed")
        });
        assert_eq!((last.left, last.left_named), (1, vec!["busy".to_owned()]));
    }
}
