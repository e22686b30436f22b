//! The record of earlier passes: a small file outside the copy.
//!
//! Owns what is known about a copy, and when that is nothing. It must never claim that an entry of the
//! copy is as recorded while it is being changed: that is withdrawn first, by a line at the end of
//! the file. After a restart of the machine nothing is known, so the record itself is not synced.
//!
//! A record is *open* while passes work, which nobody else does meanwhile. A *sealed* one (`seal`) has the look of
//! the copy as well, so that others may write to the copy; the first pass that finds it opens it.

use super::super::super::{Result, StoreError};
use super::plan::{Entry, Look};
use super::seal;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// First bytes of every open record; the number is the version of the format.
pub(super) const OPEN: &[u8] = b"switchback sync 1\n";
/// First bytes of every sealed record.
pub(super) const SEALED: &[u8] = b"switchback sealed 1\n";
const SUM: usize = 32;
/// Numbers of a [`Look`], 8 bytes each.
pub(super) const LOOK: usize = 9;
/// Numbers per entry of an open record: certainty and the look of the source.
pub(super) const NUMBERS: usize = 1 + LOOK;

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

impl Certainty {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Sure => 0,
            Self::Unsettled => 1,
            Self::Unknown => 2,
        }
    }

    pub(super) fn of(number: u64) -> Self {
        match number {
            0 => Self::Sure,
            1 => Self::Unsettled,
            _ => Self::Unknown,
        }
    }
}

/// What is known about each entry, by relative path.
pub(super) type Entries = HashMap<Box<[u8]>, (Look, Certainty)>;

/// What is known about the copy.
#[derive(Default)]
pub(super) struct Known {
    /// What was recorded.
    pub entries: Entries,
    /// Whether nothing is known though the copy exists: all of it has to be compared.
    pub doubtful: bool,
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
            record.replace(OPEN)?;
            // A copy must not outlive the record that says whose it is.
            let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
            file.sync_all().map_err(|e| StoreError::io("fsync", path, e))?;
            super::super::super::place::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
            return Ok((record, Known::default()));
        };
        // Empty after a loss of power.
        let sealed = bytes.starts_with(SEALED);
        if !bytes.is_empty() && !bytes.starts_with(OPEN) && !sealed {
            let detail = "it is no record of an incremental copy of this version".to_owned();
            return Err(StoreError::Damaged { path: path.to_owned(), detail });
        }
        let header = header(src, dst)?.filter(|_| exists);
        if sealed
            && let Some(header) = &header
            && let Some(entries) = seal::reopen(&bytes, header, dst)?
        {
            record.rewrite(header, &entries)?;
            return Ok((record, Known { entries, doubtful: false }));
        }
        let Some((entries, whole)) = header.and_then(|h| open_entries(&bytes, &h)) else {
            record.replace(OPEN)?;
            return Ok((record, Known { doubtful: exists, ..Known::default() }));
        };
        let file = File::options().append(true).open(path).map_err(|e| StoreError::io("open", path, e))?;
        file.set_len(whole).map_err(|e| StoreError::io("truncate", path, e))?;
        record.file = Some(file);
        Ok((record, Known { entries, doubtful: false }))
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
            return self.replace(OPEN);
        };
        let entries = entries.map(|(entry, certainty)| (&*entry.rel, numbers(certainty, &entry.look)));
        self.replace(&encode(OPEN, &header, entries))
    }

    /// Opens a sealed record: what holds still can be withdrawn from now on.
    fn rewrite(&mut self, header: &[u8], entries: &Entries) -> Result<()> {
        let all = entries.iter().map(|(rel, (look, certainty))| (&**rel, numbers(*certainty, look)));
        self.replace(&encode(OPEN, header, all))?;
        let file = File::options().append(true).open(&self.path);
        self.file = Some(file.map_err(|e| StoreError::io("open", &self.path, e))?);
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<()> {
        self.file = None;
        write(&self.path, bytes)
    }
}

/// Replaces a record.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(&temp)?);
        out.write_all(bytes)?;
        out.into_inner()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|e| StoreError::io("write", path, e))
}

/// What must be the same for a record to hold: this start of the machine, this source and this copy.
/// None where a folder that was removed and made again could not be told apart.
pub(super) fn header(src: &Path, dst: &Path) -> Result<Option<Vec<u8>>> {
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

fn numbers(certainty: Certainty, look: &Look) -> [u64; NUMBERS] {
    let mut numbers = [0; NUMBERS];
    numbers[0] = certainty.number();
    numbers[1..].copy_from_slice(&numbers_of(look));
    numbers
}

/// A look as numbers.
pub(super) fn numbers_of(look: &Look) -> [u64; LOOK] {
    [
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

/// A look from its numbers.
pub(super) fn look_of(n: &[u64; LOOK]) -> Option<Look> {
    let small = |n: u64| u32::try_from(n).ok();
    Some(Look {
        dev: n[0],
        ino: n[1],
        nlink: n[2],
        mode: small(n[3])?,
        uid: small(n[4])?,
        gid: small(n[5])?,
        size: n[6],
        mtime_ns: n[7].cast_signed(),
        ctime_ns: n[8].cast_signed(),
    })
}

/// A whole record: what it is about, and so many numbers per entry.
pub(super) fn encode<'e, const N: usize>(
    magic: &[u8],
    header: &[u8],
    entries: impl Iterator<Item = (&'e [u8], [u64; N])>,
) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(header);
    let count_at = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    let mut count: u64 = 0;
    for (rel, numbers) in entries {
        count += 1;
        bytes.extend_from_slice(&u32::try_from(rel.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(rel);
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
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

/// Hands each entry of a record to `each`. What follows the record, or nothing if it is not whole or about something
/// else.
pub(super) fn decode<'b, const N: usize>(
    magic: &[u8],
    bytes: &'b [u8],
    header: &[u8],
    mut each: impl FnMut(&'b [u8], &[u64; N]) -> Option<()>,
) -> Option<&'b [u8]> {
    let mut rest = bytes.strip_prefix(magic)?;
    if take(&mut rest, header.len())? != header {
        return None;
    }
    for _ in 0..take_number(&mut rest)? {
        let rel = take_path(&mut rest)?;
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = take_number(&mut rest)?;
        }
        each(rel, &numbers)?;
    }
    let body = bytes.len() - rest.len();
    (take(&mut rest, SUM)? == blake3::hash(&bytes[..body]).as_bytes()).then_some(rest)
}

/// The look that begins at one of an entry's numbers.
pub(super) fn look_at<const N: usize>(numbers: &[u64; N], at: usize) -> Option<Look> {
    look_of(numbers.get(at..at + LOOK)?.try_into().ok()?)
}

/// The entries of an open record and its length in bytes without a torn last line, or nothing if it is not
/// whole or about something else.
pub(super) fn open_entries(bytes: &[u8], header: &[u8]) -> Option<(Entries, u64)> {
    let mut entries = Entries::new();
    let mut rest = decode::<NUMBERS>(OPEN, bytes, header, |rel, n| {
        entries.insert(rel.into(), (look_at(n, 1)?, Certainty::of(n[0])));
        Some(())
    })?;
    // A torn last line belongs to a change that did not begin.
    let mut whole = bytes.len() - rest.len();
    while let Some(rel) = take_path(&mut rest) {
        entries.insert(rel.into(), (Look::default(), Certainty::Unknown));
        whole = bytes.len() - rest.len();
    }
    Some((entries, u64::try_from(whole).ok()?))
}
