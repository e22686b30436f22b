//! The helper's side: does what it is asked, on what is mounted.
//!
//! Owns the hidden command of the program. It must never remove anything but below a scratch volume or a marked
//! folder.

use super::marks::{check_mark, mark, remove, remove_marked};
use super::wire::{Entry, Failure, Line, Request, Room, SCRATCH, Turn, VOLUMES};
use super::{marks, mask};
use crate::check::sql::sqlite_value;
use crate::store::{self, Progress, StoreError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use switchback_core::data::{CopyStats, StoreKind};

/// The hidden command.
pub const STORE_VERB: &str = "__store";

/// A request is a few paths, a query, or the names of what an upgrade touches.
const LONGEST_REQUEST: u64 = 1 << 26;
/// A folder with more entries is not listed.
const MOST_ENTRIES: usize = 100_000;
/// How many entries are looked at, and files tried, to find out whether blocks can be shared.
const REFLINK_LOOK: usize = 10_000;
const REFLINK_TRIES: usize = 8;
/// The name of an unfinished clone in the root of a volume.
const UNFINISHED: &str = ".switchback-clone";

/// Reads one request, does it, and answers. Returns the exit code: 0 if there was an answer, good or bad.
pub fn serve(stdin: impl Read + Send, stdout: impl Write + Send) -> u8 {
    let mut input = BufReader::new(stdin);
    let mut text = String::new();
    let request = match input.by_ref().take(LONGEST_REQUEST).read_line(&mut text) {
        Ok(_) => serde_json::from_str::<Request>(&text),
        Err(_) => return 2,
    };
    let Ok(request) = request else { return 2 };
    let export = matches!(request, Request::Export { .. });
    let out = Mutex::new(BufWriter::new(stdout));
    let broken = AtomicBool::new(false);
    let say = |line: &Line| {
        let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let said = serde_json::to_writer(&mut *out, line).map_err(io::Error::from);
        if said.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
            broken.store(true, Ordering::Relaxed);
        }
    };
    // Nobody listens any more: stop.
    let cancel = || broken.load(Ordering::Relaxed);
    let report = |done, total| say(&Line::Progress(done, total));
    let progress = Progress { cancel: &cancel, report: &report };
    let answer = match request {
        Request::Cut { jobs, share, mode } => {
            super::cut::perform(&jobs, share, mode, &progress, &mut |turn| {
                say(&Line::Turn(turn));
                let mut word = String::new();
                match input.by_ref().take(16).read_line(&mut word) {
                    Ok(n) if n > 0 => Ok(()),
                    // Nobody is there any more.
                    _ => Err(StoreError::Cancelled),
                }
            })
        }
        Request::Watch { path } => {
            super::watch::perform(Path::new(&path), &mut input, || say(&Line::Turn(Turn::Ready)))
        }
        other => perform(other, &progress),
    };
    let good = answer.is_ok();
    say(&answer.map_or_else(|e| Line::Failed(Failure::from(e)), Line::Done));
    if broken.load(Ordering::Relaxed) {
        return 3;
    }
    if export && good {
        let mut out = out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if archive(&mut out).is_err() {
            return 4;
        }
    }
    0
}

fn exported() -> PathBuf {
    Path::new(SCRATCH).join("export")
}

fn archive(out: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    archive.append_dir_all(".", exported())?;
    archive.into_inner()?.flush()
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::NoSpace { path, detail: format!("{doing}: {source}") }
        }
        _ => StoreError::Io { doing, path, source },
    }
}

pub(super) fn refused(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Unsupported { path: path.to_owned(), why: why.into() }
}

fn room(path: &Path) -> store::Result<Room> {
    let device = fs::metadata(path).map_err(io_error("look at", path))?.dev();
    let found = rustix::fs::statvfs(path).map_err(|e| io_error("ask for free space on", path)(e.into()))?;
    Ok(Room { device, free_bytes: found.f_bavail.saturating_mul(found.f_frsize) })
}

/// What is asked for, as JSON.
fn perform(request: Request, progress: &Progress<'_>) -> store::Result<Value> {
    match request {
        Request::SizeBytes { kind, path } => json(store::size_bytes(kind, Path::new(&path))?),
        Request::ToCopy { from, to } => {
            let (from, to) = (Path::new(&from), Path::new(&to));
            let size = || store::size_bytes(StoreKind::Files, from);
            json((!can_reflink(from, to)).then(size).transpose()?)
        }
        Request::Room { path } => json(room(Path::new(&path))?),
        Request::CloneLive { kind, from, to } => {
            clone(store::clone_live, kind, Path::new(&from), Path::new(&to), progress)
        }
        Request::CloneCold { kind, from, to } => {
            clone(store::clone_cold, kind, Path::new(&from), Path::new(&to), progress)
        }
        Request::Fingerprint { kind, at } => json(store::fingerprint(kind, at.source(), progress)?),
        Request::ContentOfCopy { at, memo } => {
            json(store::content_of_copy(at.source(), Path::new(&memo), progress)?)
        }
        Request::Integrity { kind, at } => json(store::integrity(kind, at.source())?),
        Request::Diff { kind, before, after } => {
            json(store::diff(kind, before.source(), after.source(), progress)?)
        }
        Request::Export { kind, before, after } => {
            json(store::export(kind, before.source(), after.source(), &exported(), progress)?)
        }
        Request::CanReflink { from, to } => json(can_reflink(Path::new(&from), Path::new(&to))),
        Request::Sql { path, query, values } => {
            sqlite_value(Path::new(&path), &query, &values).map_err(|why| refused(Path::new(&path), why))
        }
        Request::Vault { vault, task } => crate::backup::vault::perform(&vault, &task, progress),
        Request::Mask { root, path, stack, rules, key } => {
            mask::mask((Path::new(&root), Path::new(&path), stack.as_deref()), &rules, &key, progress)
        }
        Request::Damage { root, path, stack, damage, not } => {
            let path = mask::at_or_within(Path::new(&root), Path::new(&path), stack.as_deref())?;
            json(store::damage_sqlite(&path, damage, &not)?)
        }
        Request::Shrink { root, path, stack, percent, not } => {
            let path = mask::at_or_within(Path::new(&root), Path::new(&path), stack.as_deref())?;
            json(store::shrink_sqlite(&path, percent, &not, progress)?)
        }
        Request::Carry { kind, before, after, root, path, stack, rules } => {
            let path = mask::at_or_within(Path::new(&root), Path::new(&path), stack.as_deref())?;
            json(store::carry_writes(kind, before.source(), after.source(), &path, &rules, progress)?)
        }
        Request::Samples { at, each } => json(store::sample_sqlite(at.source(), each)?),
        Request::EmptyFolders { root, stack, folders } => {
            mask::empty_folders(Path::new(&root), stack.as_deref(), &folders)
        }
        Request::Cut { .. } | Request::Watch { .. } => {
            Err(refused(Path::new(VOLUMES), "this is a conversation"))
        }
        Request::Exists { path } => json(Path::new(&path).symlink_metadata().is_ok()),
        Request::MakeDir { path, mode, uid, gid } => make_dir(Path::new(&path), mode, uid, gid),
        Request::List { path } => list(Path::new(&path)),
        Request::ReadFile { path, limit } => read_file(Path::new(&path), limit),
        Request::Survey { path } => json(super::look::survey(Path::new(&path))),
        Request::Remove { root, path, stack } => remove(Path::new(&root), Path::new(&path), stack.as_deref()),
        Request::Mark { path, stack } => mark(Path::new(&path), &stack),
        Request::MarkIn { beside, path, stack } => {
            make_dir(Path::new(&beside), 0o700, 0, 0)?;
            mark(Path::new(&path), &stack)
        }
        Request::Marked { path, stack } => {
            let path = Path::new(&path);
            json(path.symlink_metadata().is_ok() && check_mark(path, &stack).map(|()| true)?)
        }
        Request::Unmark { path, stack } => marks::unmark(Path::new(&path), &stack),
        Request::Retire { path, stack } => marks::retire(Path::new(&path), &stack),
        Request::RemoveMarked { path, stack } => remove_marked(Path::new(&path), &stack),
    }
}

pub(super) fn json(value: impl Serialize) -> store::Result<Value> {
    serde_json::to_value(value).map_err(|e| refused(Path::new(""), e.to_string()))
}

pub(super) fn sync_dir(path: &Path) -> store::Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("fsync", path))
}

type Clone = fn(StoreKind, &Path, &Path, &Progress<'_>) -> store::Result<CopyStats>;

/// Clones to a new path, or a tree into the empty root of a volume.
fn clone(
    how: Clone,
    kind: StoreKind,
    from: &Path,
    to: &Path,
    progress: &Progress<'_>,
) -> store::Result<Value> {
    let root = kind == StoreKind::Files && from.is_dir() && is_volume_root(to);
    if !root {
        return json(how(kind, from, to, progress)?);
    }
    let unfinished = to.join(UNFINISHED);
    for entry in fs::read_dir(to).map_err(io_error("list", to))? {
        let entry = entry.map_err(io_error("list", to))?;
        if entry.path() != unfinished {
            return Err(StoreError::DstExists { path: entry.path() });
        }
        fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
    }
    let stats = how(kind, from, &unfinished, progress)?;
    raise(&unfinished, to)?;
    json(stats)
}

/// Whether a path is the root of a volume: it was made before and cannot be renamed.
pub(super) fn is_volume_root(path: &Path) -> bool {
    path.parent() == Some(Path::new(VOLUMES))
}

/// Moves everything in a folder to the folder above it, which gets its attributes.
pub(super) fn raise(from: &Path, to: &Path) -> store::Result<()> {
    let meta = from.metadata().map_err(io_error("stat", from))?;
    let mut attributes = Vec::new();
    for name in xattr::list(from).into_iter().flatten() {
        if let Some(value) = xattr::get(from, &name).map_err(io_error("read attributes of", from))? {
            attributes.push((name, value));
        }
    }
    for entry in fs::read_dir(from).map_err(io_error("list", from))? {
        let entry = entry.map_err(io_error("list", from))?;
        let dst = to.join(entry.file_name());
        fs::rename(entry.path(), &dst).map_err(io_error("rename", &entry.path()))?;
    }
    fs::remove_dir(from).map_err(io_error("remove", from))?;
    let dir = File::open(to).map_err(io_error("open", to))?;
    let doing = "set the attributes of";
    let apply = || -> io::Result<()> {
        rustix::fs::fchown(&dir, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(meta.mode() & 0o7777))?;
        for (name, value) in &attributes {
            xattr::set(to, name, value)?;
        }
        let at = |tv_sec, nsec| Timespec { tv_sec, tv_nsec: nsec };
        rustix::fs::futimens(
            &dir,
            &Timestamps {
                last_access: at(meta.atime(), meta.atime_nsec()),
                last_modification: at(meta.mtime(), meta.mtime_nsec()),
            },
        )?;
        dir.sync_all()
    };
    apply().map_err(io_error(doing, to))
}

/// Whether files below `from` can share their blocks with files in `to`, found out by doing it once.
///
/// Unlike [`store::can_reflink`] this needs no file of its own in the source, which is mounted read-only.
pub(super) fn can_reflink(from: &Path, to: &Path) -> bool {
    let probe = to.join(format!(".switchback-reflink-{}", ulid::Ulid::generate()));
    let attempt = |source: &Path| -> io::Result<()> {
        let source = File::open(source)?;
        rustix::fs::ioctl_ficlone(&File::create(&probe)?, &source)?;
        Ok(())
    };
    // A file may refuse by itself (`nodatacow`): several are tried.
    let some = walkdir::WalkDir::new(from).into_iter().take(REFLINK_LOOK).flatten();
    let files = some.filter(|e| e.file_type().is_file() && e.metadata().is_ok_and(|m| m.len() > 0));
    let files: Vec<_> = files.take(REFLINK_TRIES).collect();
    let found = if files.is_empty() {
        // Nothing to try it with: it must not be the one store that makes all others be copied.
        same_device(from, to) && attempt_within(to).is_ok()
    } else {
        files.iter().any(|e| attempt(e.path()).is_ok())
    };
    let _ = fs::remove_file(&probe);
    found
}

fn same_device(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

/// Shares a block of a file made for it.
fn attempt_within(folder: &Path) -> io::Result<()> {
    let made = folder.join(format!(".switchback-reflink-{}", ulid::Ulid::generate()));
    let second = made.with_extension("2");
    let attempt = || -> io::Result<()> {
        fs::write(&made, [1; 4096])?;
        rustix::fs::ioctl_ficlone(&File::create(&second)?, &File::open(&made)?)?;
        Ok(())
    };
    let result = attempt();
    for path in [&made, &second] {
        let _ = fs::remove_file(path);
    }
    result
}

fn make_dir(path: &Path, mode: u32, uid: u32, gid: u32) -> store::Result<Value> {
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        // An empty volume is as good as none.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            is_volume_root(path) && fs::read_dir(path).map_err(io_error("list", path))?.next().is_none()
        }
        Err(e) => return Err(io_error("create", path)(e)),
    };
    if made {
        let own = || -> io::Result<()> {
            let dir = File::open(path)?;
            rustix::fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode & 0o7777))?;
            dir.sync_all()
        };
        own().map_err(io_error("create", path))?;
        path.parent().map(sync_dir).transpose()?;
    }
    json(made)
}

fn list(path: &Path) -> store::Result<Value> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let entry = entry.map_err(io_error("list", path))?;
        if all.len() == MOST_ENTRIES {
            return Err(refused(path, format!("it has more than {MOST_ENTRIES} entries")));
        }
        // Gone meanwhile is as good as never there.
        let Ok(meta) = entry.metadata() else { continue };
        let kind = match meta.file_type() {
            t if t.is_file() => "file",
            t if t.is_dir() => "folder",
            t if t.is_symlink() => "link",
            _ => "other",
        };
        all.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind: kind.to_owned(),
            size_bytes: meta.len(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    json(all)
}

fn read_file(path: &Path, limit: u64) -> store::Result<Value> {
    let meta = path.metadata().map_err(io_error("stat", path))?;
    if !meta.is_file() || meta.len() > limit {
        return Err(refused(path, format!("it is no file of at most {limit} bytes")));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(io_error("read", path))?;
    json(BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_none_is_refused_and_failures_are_answers() {
        let ask = |text: &str| {
            let mut out = Vec::new();
            let code = serve(text.as_bytes(), &mut out);
            (code, String::from_utf8(out).expect("text"))
        };
        assert_eq!(ask("rm -rf /"), (2, String::new()));
        let (code, answer) = ask(r#"{"size_bytes":{"kind":"files","path":"/nonexistent"}}"#);
        assert_eq!(code, 0);
        assert!(answer.starts_with(r#"{"failed":{"kind":"not_found""#), "{answer}");
    }
}
