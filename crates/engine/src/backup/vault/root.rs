//! The folder that a part is: the library takes what lies in a folder, and not the folder itself.
//!
//! Without it an empty folder would not be in the snapshot, and any other would come back with another owner and other permissions.

use crate::store::{self, StoreError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Bits of a mode in the form of the Go language, which the format has, and in that of Unix: setuid, setgid and sticky.
const BITS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
/// A folder, in the form of Go.
const GO_DIR: u32 = 1 << 31;

/// A folder as the snapshot has it, under another name; `None` if this is none.
pub(super) fn node(real: &Path, name: &OsStr) -> io::Result<Option<Node>> {
    let found = fs::symlink_metadata(real)?;
    if !found.is_dir() {
        return Ok(None);
    }
    // Its type has no name outside of the library.
    let attributes = serde_json::from_value(attributes(real)?).map_err(io::Error::other)?;
    let time = |seconds, nanos: i64| Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok();
    let changed = time(found.mtime(), found.mtime_nsec());
    let meta = Metadata {
        mode: Some(go_mode(found.mode())),
        mtime: changed,
        // As of everything else in it.
        atime: changed,
        ctime: time(found.ctime(), found.ctime_nsec()),
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        inode: found.ino(),
        extended_attributes: attributes,
        ..Metadata::default()
    };
    Ok(Some(Node::new_node(name, NodeType::Dir, meta)))
}

/// Extended attributes in the form of the repository: a list of names with values in base64.
fn attributes(path: &Path) -> io::Result<serde_json::Value> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut all = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0; 64 * 1024];
        match rustix::fs::lgetxattr(path, name, &mut value) {
            Ok(length) => all.push(serde_json::json!({
                "name": name.to_string_lossy(),
                "value": BASE64_STANDARD.encode(&value[..length]),
            })),
            // It went meanwhile.
            Err(rustix::io::Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all.into())
}

/// Gives a folder the owner and mode that it had: the library only logs when it cannot.
pub(super) fn restore(node: &Node, path: &Path) -> store::Result<()> {
    let failed = |source| StoreError::Io { doing: "set owner and mode of", path: path.to_owned(), source };
    // Only root may give files away; another user has made its own.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, node.meta.uid, node.meta.gid).map_err(failed)?;
    }
    if let Some(mode) = node.meta.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(unix_mode(mode))).map_err(failed)?;
    }
    Ok(())
}

fn unix_mode(mode: u32) -> u32 {
    BITS.iter().fold(mode & 0o777, |all, (go, unix)| if mode & go == 0 { all } else { all | unix })
}

fn go_mode(mode: u32) -> u32 {
    BITS.iter().fold(GO_DIR | (mode & 0o777), |all, (go, unix)| if mode & unix == 0 { all } else { all | go })
}

#[cfg(test)]
mod tests {
    use super::{go_mode, node, unix_mode};
    use std::ffi::OsStr;

    #[test]
    fn special_bits_are_in_another_place() {
        for (go, unix) in [
            (0o755 | 1 << 31, 0o755),
            (0o770 | 1 << 22 | 1 << 31, 0o2770),
            (0o777 | 1 << 20 | 1 << 31, 0o1777),
            (0o700 | 1 << 23 | 1 << 31, 0o4700),
        ] {
            assert_eq!(unix_mode(go), unix);
            assert_eq!(go_mode(0o040_000 | unix), go);
        }
    }

    #[test]
    fn attributes_of_a_folder_are_taken() {
        let dir = tempfile::tempdir().expect("tempdir");
        let set = rustix::fs::setxattr(dir.path(), c"user.note", b"a\0b", rustix::fs::XattrFlags::empty());
        if set == Err(rustix::io::Errno::NOTSUP) {
            // Such a file system has nothing to take.
            return;
        }
        set.expect("sets");
        let node = node(dir.path(), OsStr::new("store")).expect("reads").expect("a folder");
        let found: Vec<_> =
            node.meta.extended_attributes.iter().map(|a| (&*a.name, a.value.as_deref())).collect();
        assert!(found.contains(&("user.note", Some(&b"a\0b"[..]))), "{found:?}");
    }
}
