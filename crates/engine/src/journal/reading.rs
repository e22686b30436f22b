//! Opening the journal only to read it: in a folder that cannot be written, and on a full disk.

use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where a copy lies while it is opened: in memory.
const MEMORY: &str = "/dev/shm";

/// The connection, and whether it reads a copy, to which nothing is added any more.
pub(super) fn open(path: &Path) -> rusqlite::Result<(Connection, bool)> {
    // A log left by a crash must be read back, which needs write access to the folder.
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let usable = |c: Connection| {
        c.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).map(|_| c)
    };
    let first = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(usable);
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    match first {
        // In a folder that cannot be written nobody else writes either; without a log the file is complete.
        Err(e)
            if matches!(
                e.sqlite_error_code(),
                Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
            ) && !wal.exists() =>
        {
            let name: String = path
                .as_os_str()
                .as_encoded_bytes()
                .iter()
                .map(|b| match b {
                    b'/' | b'.' | b'-' | b'_' => char::from(*b).to_string(),
                    b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
                    b => format!("%{b:02x}"),
                })
                .collect();
            Connection::open_with_flags(
                format!("file:{name}?immutable=1"),
                flags | OpenFlags::SQLITE_OPEN_READ_ONLY,
            )
            .and_then(usable)
            .map(|c| (c, false))
        }
        // The index of a log needs room of its own.
        Err(e)
            if wal.exists()
                && matches!(
                    e.sqlite_error_code(),
                    Some(
                        rusqlite::ErrorCode::DiskFull
                            | rusqlite::ErrorCode::SystemIoFailure
                            | rusqlite::ErrorCode::CannotOpen
                    )
                ) =>
        {
            copied(path, &wal).and_then(usable).map(|c| (c, true)).map_err(|_| e)
        }
        other => other.map(|c| (c, false)),
    }
}

/// A copy in memory. It is gone again as soon as it is open: its files are read all the same.
fn copied(path: &Path, wal: &Path) -> rusqlite::Result<Connection> {
    let broke = |_| rusqlite::Error::InvalidPath(path.to_owned());
    let dir = Path::new(MEMORY).join(format!("switchback-{}-{:x}", std::process::id(), nanos()));
    fs::DirBuilder::new().mode(0o700).create(&dir).map_err(broke)?;
    let copy = dir.join("journal.db");
    let opened = fs::copy(path, &copy)
        .and_then(|_| fs::copy(wal, dir.join("journal.db-wal")))
        .map_err(broke)
        .and_then(|_| Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE))
        // Reads the log, while its name is still there.
        .and_then(|c| c.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map(|()| c));
    let _ = fs::remove_dir_all(&dir);
    opened
}

fn nanos() -> u128 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos())
}
