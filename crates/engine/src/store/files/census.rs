//! Reading a tree into comparable values: attributes and content digests.
//!
//! Owns what counts as content (mode, owner, target, xattrs, bytes) and what does not (times, hard
//! link structure, sockets).

use super::super::progress::{Meter, Progress};
use super::super::{Result, Source, StoreError};
use super::clone::{Scan, open_file, refuse_device};
use super::meta::{Xattrs, xattrs};
use super::sync::Memo;
use super::walk::{Found, Visit, shown, walk};
use super::{Writers, escape};
use rustix::fs::{FileType, Stat, readlinkat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use switchback_core::data::{Fingerprint, Part};
use switchback_core::ids::Digest;

/// Larger trees get no digest per file (see [`Fingerprint::parts`]).
const MAX_PARTS: usize = 10_000;
/// Read size for hashing.
const BUFFER: usize = 1 << 20;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub kind: FileType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of a regular file, else 0.
    pub size: u64,
    pub target: Vec<u8>,
    pub xattrs: Xattrs,
    /// Content of a regular file, where it was asked for.
    pub content: Option<blake3::Hash>,
}

impl Item {
    /// Digest of everything that counts.
    fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(kind_name(self.kind).as_bytes());
        field(&self.mode.to_le_bytes());
        field(&self.uid.to_le_bytes());
        field(&self.gid.to_le_bytes());
        field(&self.target);
        field(self.content.as_ref().map_or(&[][..], |h| h.as_bytes()));
        for (name, value) in &self.xattrs {
            field(name);
            field(value);
        }
        hasher.finalize()
    }
}

/// The kind of an entry in a word.
pub(super) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "folder",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "unknown",
    }
}

/// Whether the bytes of files are read as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Attributes only.
    Attributes,
    /// Everything.
    Content,
}

/// Collects the entries of a tree by relative path.
pub(super) struct Census<'p, 'm> {
    root: PathBuf,
    writers: Writers,
    depth: Depth,
    meter: &'m mut Meter<'p>,
    buffer: Vec<u8>,
    pub(super) items: BTreeMap<Vec<u8>, Item>,
    /// Entries that could not be read, where that is what is asked for.
    unreadable: Option<Vec<String>>,
    /// Digests that are known from an earlier reading.
    memo: Option<Memo>,
}

impl<'p, 'm> Census<'p, 'm> {
    pub(super) fn take(
        source: Source<'_>,
        depth: Depth,
        meter: &'m mut Meter<'p>,
    ) -> Result<BTreeMap<Vec<u8>, Item>> {
        let mut census = Self::new(source, depth, meter);
        walk(source.path, &mut census)?;
        Ok(census.items)
    }

    fn new(source: Source<'_>, depth: Depth, meter: &'m mut Meter<'p>) -> Self {
        Census {
            root: source.path.to_owned(),
            writers: source.access.into(),
            depth,
            meter,
            buffer: vec![0; BUFFER],
            items: BTreeMap::new(),
            unreadable: None,
            memo: None,
        }
    }

    /// The digest of a file's bytes.
    fn digest(&mut self, found: &Found<'_>, file: BorrowedFd<'_>) -> Result<blake3::Hash> {
        if let Some(known) = self.memo.as_ref().and_then(|memo| memo.recall(found)) {
            self.meter.add(u64::try_from(found.stat.st_size).unwrap_or(0))?;
            if let Some(memo) = &mut self.memo {
                memo.keep(found, known);
            }
            return Ok(known);
        }
        let mut hasher = blake3::Hasher::new();
        loop {
            match rustix::io::read(file, &mut self.buffer[..]) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&self.buffer[..n]);
                    self.meter.add(n as u64)?;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(StoreError::io("read", &shown(&self.root, found.rel), e)),
            }
        }
        let digest = hasher.finalize();
        if let Some(memo) = &mut self.memo {
            memo.keep(found, digest);
        }
        Ok(digest)
    }

    fn item(&mut self, found: &Found<'_>) -> Result<Option<Item>> {
        let mut item = Item {
            kind: found.kind(),
            mode: found.stat.st_mode & 0o7777,
            uid: found.stat.st_uid,
            gid: found.stat.st_gid,
            size: 0,
            target: Vec::new(),
            xattrs: Xattrs::new(),
            content: None,
        };
        let path = shown(&self.root, found.rel);
        match item.kind {
            FileType::RegularFile => {
                let Some(fd) = open_file(found).map_err(|e| StoreError::io("open", &path, e))? else {
                    return Ok(None);
                };
                item.size = u64::try_from(found.stat.st_size).unwrap_or(0);
                item.xattrs = xattrs(fd.as_fd(), &path)?;
                if self.depth == Depth::Content {
                    item.content = Some(self.digest(found, fd.as_fd())?);
                }
            }
            FileType::Symlink => match readlinkat(found.dir, found.name, Vec::new()) {
                Ok(target) => item.target = target.into_bytes(),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(e) => return Err(StoreError::io("read the symlink", &path, e)),
            },
            _ => refuse_device(&self.root, found)?,
        }
        Ok(Some(item))
    }
}

impl Visit for Census<'_, '_> {
    fn enter(&mut self, found: &Found<'_>, opened: BorrowedFd<'_>) -> Result<()> {
        if let Some(mut item) = self.item(found)? {
            item.xattrs = xattrs(opened, &shown(&self.root, found.rel))?;
            self.items.insert(found.rel.to_vec(), item);
        }
        Ok(())
    }
    fn leaf(&mut self, found: &Found<'_>) -> Result<()> {
        self.meter.add(0)?;
        if found.kind() == FileType::Socket {
            return Ok(());
        }
        match self.item(found) {
            Ok(Some(item)) => {
                self.items.insert(found.rel.to_vec(), item);
                Ok(())
            }
            Ok(None) => self.vanished(found.rel),
            Err(e @ StoreError::Io { .. }) => match &mut self.unreadable {
                Some(list) => {
                    list.push(format!("{}: {e}", escape(found.rel)));
                    Ok(())
                }
                None => Err(e),
            },
            Err(e) => Err(e),
        }
    }
    fn leave(&mut self, _: BorrowedFd<'_>, _: &[u8], _: &Stat) -> Result<()> {
        Ok(())
    }
    fn vanished(&mut self, rel: &[u8]) -> Result<()> {
        match self.writers {
            Writers::Running => Ok(()),
            Writers::Stopped => Err(StoreError::Changed { path: shown(&self.root, rel) }),
        }
    }
}

/// The content of a tree as digests. `memo` is a file with those of an earlier reading, for a copy on which nobody works.
pub(in super::super) fn fingerprint(
    source: Source<'_>,
    memo: Option<&Path>,
    progress: &Progress<'_>,
) -> Result<Fingerprint> {
    let bytes = Scan::run(source.path)?.bytes;
    let mut meter = Meter::new(progress, bytes);
    let mut census = Census::new(source, Depth::Content, &mut meter);
    census.memo = memo.map(|memo| Memo::open(source.path, memo)).transpose()?;
    walk(source.path, &mut census)?;
    let Census { items, memo, .. } = census;
    if let Some(memo) = memo {
        memo.save();
    }
    meter.finish();
    let mut hasher = blake3::Hasher::new();
    let mut parts = BTreeMap::new();
    let mut files = 0;
    let keep = items.len() <= MAX_PARTS;
    for (rel, item) in &items {
        let digest = item.digest();
        hasher.update(&(rel.len() as u64).to_le_bytes());
        hasher.update(rel);
        hasher.update(digest.as_bytes());
        let count = u64::from(item.kind != FileType::Directory);
        files += count;
        if keep {
            parts.insert(
                escape(rel),
                Part { items: count, digest: Digest::from(digest.to_hex().to_string()) },
            );
        }
    }
    Ok(Fingerprint {
        digest: Digest::from(hasher.finalize().to_hex().to_string()),
        schema: Digest::of(b""),
        items: files,
        bytes,
        parts,
    })
}

/// Names the entries that cannot be read to the end.
pub(in super::super) fn integrity(source: Source<'_>) -> Result<Vec<String>> {
    let silent = Progress::none();
    let mut meter = Meter::new(&silent, 0);
    let mut census = Census::new(source, Depth::Content, &mut meter);
    census.unreadable = Some(Vec::new());
    walk(source.path, &mut census)?;
    Ok(census.unreadable.unwrap_or_default())
}
