//! What the services of a cell do not see: production's data, and sockets of the host's services.
//!
//! In a mount namespace of its own, so that nothing changes for anybody else (mount_namespaces(7)). What is hidden cannot
//! be uncovered from inside: services have no right to mount.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where services of a host keep their sockets; hidden as a whole.
const RUN: [&str; 2] = ["/run", "/var/run"];
/// Sockets outside of these that are hidden one by one.
const SOCKETS: usize = 256;

/// Makes mounts of this process unseen by others, and those of others unseen by it.
pub fn private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Hides folders and files, the run folders and the sockets of the host. `spared` is what must stay seen.
pub fn hide(paths: &[PathBuf], spared: &[PathBuf], empty: &Path) -> io::Result<()> {
    let kept: Vec<PathBuf> = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().collect();
    for path in paths {
        cover(path, spared, empty)?;
    }
    for socket in sockets().into_iter().take(SOCKETS) {
        if !RUN.iter().any(|r| socket.starts_with(r)) {
            // One that went away meanwhile is no more in the way.
            let _ = cover(&socket, spared, empty);
        }
    }
    for folder in RUN {
        let folder = Path::new(folder);
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        if real.is_dir() && !spared.iter().any(|s| s.starts_with(&real)) {
            tmpfs(&real)?;
        }
    }
    for folder in kept.iter().filter(|f| RUN.iter().any(|r| f.starts_with(r))) {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

fn tmpfs(at: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("switchback", at, "tmpfs", flags, Some(c"mode=0755,size=16m"))?)
}

/// Puts something empty over a path. What the instance itself lies in cannot be covered.
fn cover(path: &Path, spared: &[PathBuf], empty: &Path) -> io::Result<()> {
    if spared.iter().any(|s| s.starts_with(path) || path.starts_with(s)) {
        return Ok(());
    }
    let Ok(kind) = fs::symlink_metadata(path) else { return Ok(()) };
    if kind.is_symlink() {
        // A link leads to what is hidden under its own name, if it is named; covering the link covers that.
        let Ok(real) = fs::canonicalize(path) else { return Ok(()) };
        return cover(&real, spared, empty);
    }
    if kind.is_dir() { tmpfs(path) } else { Ok(mount_bind(empty, path)?) }
}

/// Puts this file in the place of the one that says who knows names.
pub fn names(file: &Path) -> io::Result<()> {
    let known = Path::new("/etc/resolv.conf");
    // Often a link into a folder that was hidden just now.
    let real = match fs::read_link(known) {
        Ok(to) => Path::new("/etc").join(to),
        Err(_) => known.to_owned(),
    };
    if !real.exists() {
        if let Some(parent) = real.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&real, "")?;
    }
    Ok(mount_bind(file, fs::canonicalize(&real)?)?)
}

/// Sockets that programs of this host listen on, by path (unix(7): names of others begin with `@`).
fn sockets() -> BTreeSet<PathBuf> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    listening(&text)
}

fn listening(text: &str) -> BTreeSet<PathBuf> {
    // Num RefCount Protocol Flags Type St Inode Path; __SO_ACCEPTCON (0x10000) marks those that listen.
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let flags = u64::from_str_radix(fields.nth(3)?, 16).ok()?;
            let path = fields.nth(3)?;
            (flags & 0x10000 != 0 && path.starts_with('/')).then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_are_listened_on_are_found_by_path() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17 /tmp/.s.PGSQL.5432\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 18 /tmp/connected\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 20\n";
        assert_eq!(listening(text), BTreeSet::from([PathBuf::from("/tmp/.s.PGSQL.5432")]));
    }
}
