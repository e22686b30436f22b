//! The record of earlier passes: a small file outside the copy.
//!
//! Owns what is known about a copy, and when that is nothing. It must never claim that an entry of the
//! copy is as recorded while it is being changed: that is withdrawn first, by a line at the end of
//! the file. After a restart of the machine nothing is known, so the record itself is not synced.

use super::super::super::{Result, StoreError};
use super::plan::{Entry, Look};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// First bytes of every record; the number is the version of the format.
const MAGIC: &[u8] = b"switchback sync 1\n";
const SUM: usize = 32;
/// Numbers per entry, 8 bytes each: certainty and the nine of [`Look`].
const NUMBERS: usize = 10;

/// What is known about an entry of the copy, from the most certain to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Certainty {
    /// It is what the source was when it looked as recorded, and a later write shows in its attributes.
    Sure,
    /// It is what the source was, but a later write may not show.
    Unsettled,
    /// Something may be there.
    Unknown,
}

impl Certainty {
    /// The less certain of two.
    pub(super) fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

/// What is known about each entry, by relative path.
type Entries = HashMap<Box<[u8]>, (Look, Certainty)>;

/// What is known about the copy.
#[derive(Default)]
pub(super) struct Known {
    /// What was recorded.
    pub entries: Entries,
    /// Whether nothing is known though the copy exists: all of it has to be compared.
    pub doubtful: bool,
    /// Whether no pass ended before this one.
    pub first: bool,
}

/// The file.
pub(super) struct Record {
    path: PathBuf,
    file: Option<File>,
}

impl Record {
    /// Reads what is known about the copy `dst` of `src`.
    ///
    /// A copy without a record is not ours and is refused. The first pass writes an empty one.
    pub(super) fn open(path: &Path, src: &Path, dst: &Path) -> Result<(Self, Known)> {
        let exists = dst.symlink_metadata().is_ok();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(StoreError::io("read", path, e)),
        };
        let mut record = Self { path: path.to_owned(), file: None };
        let Some(bytes) = bytes else {
            if exists {
                return Err(StoreError::DstExists { path: dst.to_owned() });
            }
            record.replace(MAGIC)?;
            // A copy must not outlive the record that says whose it is.
            let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
            file.sync_all().map_err(|e| StoreError::io("fsync", path, e))?;
            super::super::super::place::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
            return Ok((record, Known { first: true, ..Known::default() }));
        };
        // Empty after a loss of power.
        if !bytes.is_empty() && !bytes.starts_with(MAGIC) {
            let detail = "it is no record of an incremental copy of this version".to_owned();
            return Err(StoreError::Damaged { path: path.to_owned(), detail });
        }
        let header = header(src, dst)?;
        let entries = exists.then(|| header.and_then(|h| decode(&bytes, &h))).flatten();
        let Some((entries, whole)) = entries else {
            record.replace(MAGIC)?;
            return Ok((record, Known { doubtful: exists, first: true, ..Known::default() }));
        };
        let file = File::options().append(true).open(path).map_err(|e| StoreError::io("open", path, e))?;
        file.set_len(whole).map_err(|e| StoreError::io("truncate", path, e))?;
        record.file = Some(file);
        Ok((record, Known { entries, doubtful: false, first: false }))
    }

    /// Whether there is anything on record that can be withdrawn.
    pub(super) fn holds(&self) -> bool {
        self.file.is_some()
    }

    /// Withdraws what is known about an entry, before it is changed.
    pub(super) fn withdraw(&mut self, rel: &[u8]) -> Result<()> {
        // Without a file nothing is known anyway.
        if let Some(file) = &mut self.file {
            let mut line = u32::try_from(rel.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
            line.extend_from_slice(rel);
            file.write_all(&line).map_err(|e| StoreError::io("write", &self.path, e))?;
        }
        Ok(())
    }

    /// Replaces the record after a pass.
    pub(super) fn save<'e>(
        mut self,
        src: &Path,
        dst: &Path,
        entries: impl Iterator<Item = (&'e Entry, Certainty)>,
    ) -> Result<()> {
        let Some(header) = header(src, dst)? else {
            return self.replace(MAGIC);
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&header);
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        let mut count: u64 = 0;
        for (entry, certainty) in entries {
            count += 1;
            bytes.extend_from_slice(&u32::try_from(entry.rel.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(&entry.rel);
            for number in numbers(&entry.look, certainty) {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        self.replace(&bytes)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<()> {
        self.file = None;
        let mut temp = self.path.as_os_str().to_owned();
        temp.push(".new");
        let temp = PathBuf::from(temp);
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&temp)?);
            out.write_all(bytes)?;
            out.into_inner()?;
            std::fs::rename(&temp, &self.path)
        };
        write().map_err(|e| StoreError::io("write", &self.path, e))
    }
}

/// What must be the same for a record to hold: this start of the machine, this source and this copy.
/// None where a folder that was removed and made again could not be told apart.
fn header(src: &Path, dst: &Path) -> Result<Option<Vec<u8>>> {
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot = std::fs::read(boot).map_err(|e| StoreError::io("read", Path::new(boot), e))?;
    let mut header = blake3::Hasher::new();
    header.update(&boot);
    for path in [src, dst] {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)
            .map_err(|e| StoreError::read("stat", path, e));
        let stat = match stat {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        if !StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) && path == dst {
            return Ok(None);
        }
        for number in [
            u64::from(stat.stx_dev_major),
            u64::from(stat.stx_dev_minor),
            stat.stx_ino,
            stat.stx_btime.tv_sec.cast_unsigned(),
            u64::from(stat.stx_btime.tv_nsec),
        ] {
            header.update(&number.to_le_bytes());
        }
    }
    Ok(Some(header.finalize().as_bytes().to_vec()))
}

fn numbers(look: &Look, certainty: Certainty) -> [u64; NUMBERS] {
    let certainty = match certainty {
        Certainty::Sure => 0,
        Certainty::Unsettled => 1,
        Certainty::Unknown => 2,
    };
    [
        certainty,
        look.dev,
        look.ino,
        look.nlink,
        u64::from(look.mode),
        u64::from(look.uid),
        u64::from(look.gid),
        look.size,
        look.mtime_ns.cast_unsigned(),
        look.ctime_ns.cast_unsigned(),
    ]
}

/// Takes bytes off the front.
fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn take_path<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, usize::try_from(len).ok()?)
}

/// The entries of a record and its length in bytes without a torn last line, or nothing if it is not
/// whole or about something else.
fn decode(bytes: &[u8], header: &[u8]) -> Option<(Entries, u64)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    if take(&mut rest, header.len())? != header {
        return None;
    }
    let count = take_number(&mut rest)?;
    let mut entries = HashMap::with_capacity(usize::try_from(count).ok()?.min(bytes.len() / 84));
    for _ in 0..count {
        let rel = take_path(&mut rest)?;
        let mut n = [0; NUMBERS];
        for number in &mut n {
            *number = take_number(&mut rest)?;
        }
        let certainty = match n[0] {
            0 => Certainty::Sure,
            1 => Certainty::Unsettled,
            _ => Certainty::Unknown,
        };
        let small = |n: u64| u32::try_from(n).ok();
        let look = Look {
            dev: n[1],
            ino: n[2],
            nlink: n[3],
            mode: small(n[4])?,
            uid: small(n[5])?,
            gid: small(n[6])?,
            size: n[7],
            mtime_ns: n[8].cast_signed(),
            ctime_ns: n[9].cast_signed(),
        };
        entries.insert(rel.into(), (look, certainty));
    }
    let body = bytes.len() - rest.len();
    if take(&mut rest, SUM)? != blake3::hash(&bytes[..body]).as_bytes() {
        return None;
    }
    // A torn last line belongs to a change that did not begin.
    let mut whole = bytes.len() - rest.len();
    while let Some(rel) = take_path(&mut rest) {
        entries.insert(rel.into(), (Look::default(), Certainty::Unknown));
        whole = bytes.len() - rest.len();
    }
    Some((entries, u64::try_from(whole).ok()?))
}
