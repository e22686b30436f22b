//! Digests of a copy's files, kept from one reading of it to the next.
//!
//! Owns when a file need not be read again. It must never give the digest of a file that somebody may have written to since
//! it was taken.
//!
//! # When a digest holds
//!
//! All attributes of its file are those that it was taken with, the change time included, which no program can set. The
//! rest is as for a [seal](super::seal): nobody works on the copy while it is read; its pages were written out before,
//! so that the next store through a mapping moves the change time; the file had been left alone for more than a tick of
//! file times by then; the machine was not restarted, and the folder is the same one (the file's header); and the file
//! system is one whose change times can be relied on, and that of the folder itself, not one that is mounted inside.
//! Elsewhere nothing is kept, and everything is read.

use super::super::super::{Result, StoreError};
use super::super::walk::Found;
use super::plan::{Look, is_trusted};
use super::record::{LOOK, decode, encode, header, look_at, numbers_of, write};
use super::seal::{due, now_ns};
use rustix::fs::syncfs;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// First bytes of the file; the number is the version of the format.
const DIGESTS: &[u8] = b"switchback digests 1\n";
/// Numbers per entry: the look of the file, and its digest.
const NUMBERS: usize = LOOK + 4;

/// What is known about the files of a copy.
pub(in super::super) struct Memo {
    path: PathBuf,
    /// What it is about. None where nothing can be kept.
    header: Option<Vec<u8>>,
    /// Of its root. Nothing is known about what is mounted inside.
    device: u64,
    began_ns: i64,
    known: HashMap<Box<[u8]>, (Look, blake3::Hash)>,
    kept: Vec<(Box<[u8]>, Look, blake3::Hash)>,
}

impl Memo {
    /// Reads what is known about the copy at `root`, on which nobody works.
    pub(in super::super) fn open(root: &Path, path: &Path) -> Result<Self> {
        let began_ns = now_ns();
        let copy = File::open(root).map_err(|e| StoreError::read("open", root, e))?;
        let device = copy.metadata().map_err(|e| StoreError::read("stat", root, e))?.dev();
        let header = if is_trusted(root)? { header(root, root)? } else { None };
        let mut known = HashMap::new();
        if let Some(header) = &header {
            syncfs(&copy).map_err(|e| StoreError::io("sync", root, e))?;
            let bytes = std::fs::read(path).unwrap_or_default();
            let whole = decode::<NUMBERS>(DIGESTS, &bytes, header, |rel, numbers| {
                known.insert(rel.into(), (look_at(numbers, 0)?, digest_of(numbers)?));
                Some(())
            });
            if whole.is_none() {
                known.clear();
            }
        }
        Ok(Self { path: path.to_owned(), header, device, began_ns, known, kept: Vec::new() })
    }

    /// The digest of a file that is as it was.
    pub(in super::super) fn recall(&self, found: &Found<'_>) -> Option<blake3::Hash> {
        let (look, digest) = self.known.get(found.rel)?;
        (look.dev == self.device && *look == Look::of(found.stat)).then_some(*digest)
    }

    /// Keeps the digest of a file that looked like this before it was read.
    pub(in super::super) fn keep(&mut self, found: &Found<'_>, digest: blake3::Hash) {
        let look = Look::of(found.stat);
        if look.dev == self.device && due(&look) <= self.began_ns {
            self.kept.push((found.rel.into(), look, digest));
        }
    }

    /// Writes down what was kept. That it cannot be written costs the next reading time, and nothing else.
    pub(in super::super) fn save(self) {
        let Some(header) = &self.header else { return };
        let entries = self.kept.iter().map(|(rel, look, digest)| (&**rel, numbers(look, digest)));
        let _ = write(&self.path, &encode(DIGESTS, header, entries));
    }
}

fn numbers(look: &Look, digest: &blake3::Hash) -> [u64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    numbers[..LOOK].copy_from_slice(&numbers_of(look));
    for (number, bytes) in numbers[LOOK..].iter_mut().zip(digest.as_bytes().as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    numbers
}

fn digest_of(numbers: &[u64; NUMBERS]) -> Option<blake3::Hash> {
    let bytes: Vec<u8> = numbers[LOOK..].iter().flat_map(|n| n.to_le_bytes()).collect();
    Some(blake3::Hash::from_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Stat, stat};
    use std::os::fd::AsFd as _;

    fn found<'a>(dir: &'a File, stat: &'a Stat) -> Found<'a> {
        Found { dir: dir.as_fd(), name: c"a", rel: b"a", stat }
    }

    #[test]
    fn nothing_is_known_of_what_is_mounted_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("copy");
        std::fs::create_dir(&root).expect("makes");
        std::fs::write(root.join("a"), "a").expect("writes");
        let folder = File::open(&root).expect("opens");
        let own = stat(root.join("a")).expect("there");
        let mut mounted = own;
        mounted.st_dev += 1;
        let digest = blake3::hash(b"a");
        let mut memo = Memo::open(&root, &dir.path().join("digests")).expect("opens");
        assert_eq!(memo.device, stat(&root).expect("there").st_dev);
        // Whatever the clock says, and on an overlay, where files have devices of their own.
        (memo.began_ns, memo.device) = (i64::MAX, own.st_dev);
        for (stat, known) in [(mounted, false), (own, true)] {
            memo.keep(&found(&folder, &stat), digest);
            assert_eq!(memo.kept.len(), usize::from(known));
            memo.known.insert(b"a".as_slice().into(), (Look::of(&stat), digest));
            assert_eq!(memo.recall(&found(&folder, &stat)).is_some(), known);
        }
    }
}
