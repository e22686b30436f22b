//! What this host can do. The only thing written is a probe file, which is removed again.

use rustix::fs::Access;
use rustix::process::{PidfdFlags, getpid, pidfd_open, set_child_subreaper};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Enough that a disk's cache does not answer for the disk, little enough to take a second at 32 MB/s.
pub const PROBE_BYTES: u64 = 32 << 20;

/// Whether processes can be held on to by descriptor.
pub fn pidfd() -> io::Result<()> {
    Ok(pidfd_open(getpid(), PidfdFlags::empty()).map(drop)?)
}

/// Whether a process can become the reaper of its descendants; the caller is one afterwards.
pub fn subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Whether this user may write to a file, or into a folder.
pub fn writable(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, Access::WRITE_OK)?)
}

/// Whether this user is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of a file system that should not hold a stack, and why; `None` for any other.
pub fn doubtful_file_system(path: &Path) -> Option<(&'static str, &'static str)> {
    // The field is signed on some machines; its number has 32 bits on all.
    file_system(u64::from(rustix::fs::statfs(path).ok()?.f_type as u32))
}

/// Kinds of file system by their number in `statfs` (statfs(2), linux/magic.h).
fn file_system(magic: u64) -> Option<(&'static str, &'static str)> {
    let remote = "locks and fsync depend on the server; put the stack on a local disk";
    Some(match magic {
        0x6969 => ("NFS", remote),
        0x517B => ("SMB", remote),
        0xFF53_4D42 => ("CIFS", remote),
        0xFE53_4D42 => ("SMB2", remote),
        0x0102_1997 => ("9p", remote),
        0x00C3_6400 => ("Ceph", remote),
        0x6573_5546 => ("FUSE", "whether it keeps what it confirms depends on the program behind it"),
        0x794C_7630 => ("overlay", "it is lost with its container; mount a volume for the stack"),
        0x0102_1994 => ("tmpfs", "it is lost at a reboot; put the stack on a disk"),
        0x4D44 => ("FAT", "it has no permissions and no links; put the stack on another file system"),
        _ => return None,
    })
}

/// Files that are removed whatever happens.
struct Probe(Vec<PathBuf>);

impl Drop for Probe {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Bytes per second of copying a file within a folder and making it durable.
pub fn copy_bytes_per_s(place: &Path) -> io::Result<u64> {
    let name = |n: u8| place.join(format!(".switchback-probe-{}-{n}", std::process::id()));
    let probe = Probe(vec![name(1), name(2)]);
    let mut noise: u64 = 0x9E37_79B9_7F4A_7C15;
    // Noise, so that no file system compresses it away.
    let block: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise.to_le_bytes()
    })
    .take((1 << 20) / 8)
    .flatten()
    .collect();
    let mut file = File::create_new(&probe.0[0])?;
    for _ in 0..PROBE_BYTES / block.len() as u64 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    drop(file);
    let began = Instant::now();
    let (mut from, mut to) = (File::open(&probe.0[0])?, File::create_new(&probe.0[1])?);
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    let micros = began.elapsed().as_micros().max(1);
    Ok(u64::try_from(u128::from(PROBE_BYTES) * 1_000_000 / micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(copy_bytes_per_s(dir.path()).expect("measures") > 0);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
        assert!(copy_bytes_per_s(&dir.path().join("missing")).is_err());
    }
}
