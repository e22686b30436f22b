//! Bringing an export from a helper to this host, also from a remote engine.
//!
//! Owns the folder that the export becomes: a temporary sibling first, durable, then renamed.

use super::client::{Below, Hands, HandsError, Mounts, Result, parsed};
use super::wire::Request;
use crate::store::{Progress, StoreError};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use switchback_core::data::{ExportStats, StoreKind};

impl Hands<'_> {
    /// Writes everything that differs between two states to the folder `out_dir` on this host, which must not exist.
    pub fn export(
        &self,
        kind: StoreKind,
        before: Below<'_>,
        after: Below<'_>,
        out_dir: &Path,
        progress: &Progress<'_>,
    ) -> Result<ExportStats> {
        let mut mounts = Mounts::default();
        let before = mounts.store(kind, before, false)?;
        let after = mounts.store(kind, after, false)?;
        let request = Request::Export { kind, before, after };
        let unfinished = Unfinished::create(out_dir)?;
        let stats = std::thread::scope(|scope| {
            let (reader, mut writer) = io::pipe().map_err(failed("make a pipe for", out_dir))?;
            let folder = unfinished.temp.clone();
            let unpacked = scope.spawn(move || unpack(reader, &folder));
            let answer = self.call(mounts, &request, progress, Some(&mut writer));
            // The end of the archive.
            drop(writer);
            let unpacked = unpacked.join().unwrap_or_else(|_| Err(io::Error::other("unpacking panicked")));
            match (answer, unpacked) {
                // The helper's own error, unless it only says that nobody took its output.
                (Err(error @ (HandsError::Store(_) | HandsError::Broken { .. })), _)
                | (Err(error), Ok(())) => Err(error),
                (_, Err(e)) => Err(failed("unpack the export to", out_dir)(e).into()),
                (Ok(answer), Ok(())) => parsed(answer),
            }
        })?;
        unfinished.finish(out_dir)?;
        Ok(stats)
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::NoSpace { path, detail: format!("{doing}: {source}") }
        }
        _ => StoreError::Io { doing, path, source },
    }
}

/// Unpacks below `folder`; names that lead out of it are left out by the library.
fn unpack(from: impl io::Read, folder: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.unpack(folder)?;
    // Padding after the last block would otherwise break the pipe of the writer.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

/// A folder beside the destination that goes away unless it is finished.
struct Unfinished {
    temp: PathBuf,
}

impl Unfinished {
    fn create(out_dir: &Path) -> std::result::Result<Self, StoreError> {
        let (Some(parent), Some(file_name)) = (out_dir.parent(), out_dir.file_name()) else {
            return Err(StoreError::NotFound { path: out_dir.to_owned() });
        };
        if out_dir.symlink_metadata().is_ok() {
            return Err(StoreError::DstExists { path: out_dir.to_owned() });
        }
        if !parent.is_dir() {
            return Err(StoreError::NotFound { path: parent.to_owned() });
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(file_name);
        name.push(".switchback-partial");
        let temp = parent.join(name);
        if temp.symlink_metadata().is_ok() {
            fs::remove_dir_all(&temp).map_err(failed("remove", &temp))?;
        }
        DirBuilder::new().mode(0o700).create(&temp).map_err(failed("create", &temp))?;
        Ok(Self { temp })
    }

    fn finish(self, out_dir: &Path) -> std::result::Result<(), StoreError> {
        for entry in walkdir::WalkDir::new(&self.temp).contents_first(true) {
            let entry = entry.map_err(|e| failed("list", &self.temp)(e.into()))?;
            if entry.file_type().is_file() || entry.file_type().is_dir() {
                let sync = File::open(entry.path()).and_then(|f| f.sync_all());
                sync.map_err(failed("fsync", entry.path()))?;
            }
        }
        fs::rename(&self.temp, out_dir).map_err(failed("rename", &self.temp))?;
        let parent = out_dir.parent().unwrap_or(out_dir);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("fsync", parent))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` it is gone; the error that led here otherwise is the one to report.
        let _ = fs::remove_dir_all(&self.temp);
    }
}
