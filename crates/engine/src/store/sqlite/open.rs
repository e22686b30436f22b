//! Opening databases for reading: live through SQLite's locks, cold without touching anything.
//!
//! Owns the choice between the two and the private copy of a cold database with work left in its
//! `-wal` or `-journal`.

use super::super::files::Copier;
use super::super::place::Place;
use super::super::progress::{Meter, Progress};
use super::super::{Access, Result, Source, StoreError};
use super::{beside, handles, len_or_zero, sql_error};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::trace::{Definition, Definitions};

/// How long another process may hold a lock before we give up; applications themselves commonly
/// wait 5 s, so a healthy one lets us in well before this.
pub(super) const BUSY: Duration = Duration::from_secs(15);
/// Page cache in KiB (negative by SQLite's rules): large enough for index-ordered scans.
const CACHE: &str = "PRAGMA cache_size=-16384; PRAGMA cell_size_check=ON;";
/// First bytes of every non-empty database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// An open database; reads see one state from [`Db::reader`] until it is dropped.
pub(super) struct Db {
    // Order matters: the connection closes before its guard lets descriptors go, and before the
    // private copy is removed.
    pub conn: Connection,
    /// The path the user knows.
    pub path: PathBuf,
    _guard: handles::Guard,
    _private: Option<Private>,
}

/// A folder for a private copy, removed when dropped.
struct Private {
    _place: Place,
}

fn flags(write: bool) -> OpenFlags {
    let access = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn connect(path: &Path, name: &Path, flags: OpenFlags) -> Result<Connection> {
    let err = |e| sql_error("open", path, e);
    let conn = Connection::open_with_flags(name, flags).map_err(err)?;
    conn.busy_timeout(BUSY).map_err(err)?;
    // A schema may call functions; those of a foreign database are not to be trusted.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(err)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(err)?;
    conn.execute_batch(CACHE).map_err(err)?;
    Ok(conn)
}

impl Db {
    /// Opens a database for writing, or for the locks of a writer.
    pub(super) fn writer(path: &Path) -> Result<Self> {
        let path = absolute(path)?;
        let guard = handles::connection(&path);
        let conn = connect(&path, &path, flags(true))?;
        Ok(Self { conn, path, _guard: guard, _private: None })
    }

    /// Opens a store for reading and fixes the state that is read.
    pub(super) fn reader(source: Source<'_>) -> Result<Self> {
        let db = match source.access {
            Access::Live => Self::live(source.path)?,
            Access::Cold { scratch } => Self::cold(source.path, scratch)?,
        };
        let err = |e| sql_error("read", &db.path, e);
        db.conn.execute_batch("PRAGMA query_only=ON; BEGIN").map_err(err)?;
        // The transaction gets its state with the first read.
        db.conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(err)?;
        Ok(db)
    }

    fn live(path: &Path) -> Result<Self> {
        let path = absolute(path)?;
        if !path.exists() {
            return Err(StoreError::NotFound { path });
        }
        let guard = handles::connection(&path);
        let conn = connect(&path, &path, flags(false))?;
        match conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
            Ok(()) => Ok(Self { conn, path, _guard: guard, _private: None }),
            // A hot journal or an unfinished -wal can only be recovered by a writer.
            Err(e) if matches!(e.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
                drop(conn);
                let conn = connect(&path, &path, flags(true))?;
                Ok(Self { conn, path, _guard: guard, _private: None })
            }
            Err(e) => Err(sql_error("read", &path, e)),
        }
    }

    fn cold(path: &Path, scratch: &Path) -> Result<Self> {
        let path = absolute(path)?;
        check_header(&path)?;
        let guard = handles::connection(&path);
        if !has_leftovers(&path)? {
            let conn =
                connect(&path, Path::new(&immutable_uri(&path)), flags(false) | OpenFlags::SQLITE_OPEN_URI)?;
            return Ok(Self { conn, path, _guard: guard, _private: None });
        }
        let place = Place::prepare(&scratch.join(format!("read-{}", ulid::Ulid::generate())))?;
        place.make_dir()?;
        let copy = place.temp().join("db");
        let silent = Progress::none();
        copy_cold(&path, &copy, &mut Meter::new(&silent, 0))?;
        let conn = connect(&path, &copy, flags(true))?;
        Ok(Self { conn, path, _guard: guard, _private: Some(Private { _place: place }) })
    }
}

/// What is defined in a database that somebody else may be writing to: without waiting, and without locks where there is no log.
pub(super) fn definitions(path: &Path) -> Result<Definitions> {
    let _guard = handles::connection(path);
    let conn = if len_or_zero(&beside(path, "-wal")) > 0 {
        connect(path, path, flags(false))?
    } else {
        connect(path, Path::new(&immutable_uri(path)), flags(false) | OpenFlags::SQLITE_OPEN_URI)?
    };
    let err = |e| sql_error("read", path, e);
    conn.busy_timeout(Duration::ZERO).map_err(err)?;
    let mut all = conn
        .prepare(
            "SELECT type, name, tbl_name, coalesce(sql, ''), coalesce(rootpage, 0) FROM sqlite_schema \
             WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )
        .map_err(err)?;
    let rows = all
        .query_map([], |row| {
            let definition = Definition { table: row.get(2)?, sql: row.get(3)?, root: row.get(4)? };
            Ok(((row.get(0)?, row.get(1)?), definition))
        })
        .map_err(err)?;
    rows.collect::<std::result::Result<_, _>>().map_err(err)
}

/// The absolute path, which SQLite cannot mistake for a URI.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| StoreError::io("resolve", path, e))
}

/// The URI that makes SQLite read a file without locks and without files beside it.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Refuses a file that is no SQLite database. An empty file is an empty database.
pub(super) fn check_header(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|e| StoreError::read("open", path, e))?;
    let file = handles::Plain::new(file);
    let mut head = Vec::new();
    file.file().take(100).read_to_end(&mut head).map_err(|e| StoreError::io("read", path, e))?;
    let damaged =
        |detail: &str| Err(StoreError::Damaged { path: path.to_owned(), detail: detail.to_owned() });
    match head.len() {
        0 => Ok(()),
        100 if head.starts_with(MAGIC) => Ok(()),
        100 => damaged("it does not start with the header of a SQLite database (or it is encrypted)"),
        n => damaged(&format!("it ends after {n} bytes, within the header")),
    }
}

/// Whether a `-wal` or `-journal` holds something that the main file lacks or must undo.
pub(super) fn has_leftovers(path: &Path) -> Result<bool> {
    if len_or_zero(&beside(path, "-wal")) > 0 {
        return Ok(true);
    }
    let journal = beside(path, "-journal");
    match File::open(&journal) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("open", &journal, e)),
        Ok(mut file) => {
            // A journal that is kept (PERSIST) has its header overwritten with zeros: nothing to undo.
            let mut first = [0; 1];
            let n = file.read(&mut first).map_err(|e| StoreError::io("read", &journal, e))?;
            Ok(n == 1 && first[0] != 0)
        }
    }
}

/// What copying the files of a cold database cost.
pub(super) struct ColdCopy {
    pub written: u64,
    pub reflinked: bool,
}

/// Copies main file, `-wal` and `-journal` of a cold database and folds them into one at `to`.
pub(super) fn copy_cold(path: &Path, to: &Path, meter: &mut Meter<'_>) -> Result<ColdCopy> {
    let mut copier = Copier::new();
    if let Some(dir) = to.parent() {
        copier.require = Some((dir.to_owned(), super::size_bytes(path)?));
    }
    let mut result = ColdCopy { written: 0, reflinked: false };
    for suffix in ["", "-wal", "-journal"] {
        let from_path = beside(path, suffix);
        let from = match File::open(&from_path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => continue,
            other => handles::Plain::new(other.map_err(|e| StoreError::read("open", &from_path, e))?),
        };
        let before = stamp(from.file(), &from_path)?;
        let to_path = beside(to, suffix);
        let target = File::create_new(&to_path).map_err(|e| StoreError::io("create", &to_path, e))?;
        let copied = copier.copy(from.file().as_fd(), target.as_fd(), &from_path, meter)?;
        if stamp(from.file(), &from_path)? != before {
            return Err(StoreError::Changed { path: from_path });
        }
        result.written += copied.written;
        if suffix.is_empty() {
            result.reflinked = copied.reflinked;
        }
    }
    fold(path, to)?;
    Ok(result)
}

fn stamp(file: &File, path: &Path) -> Result<(u64, Option<std::time::SystemTime>, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = file.metadata().map_err(|e| StoreError::io("stat", path, e))?;
    Ok((meta.len(), meta.modified().ok(), meta.ctime(), meta.ctime_nsec()))
}

/// Makes a copied database one self-contained file: recovers its `-wal` or journal. The journal
/// mode stays as it was.
pub(super) fn fold(path: &Path, copy: &Path) -> Result<()> {
    let err = |e| sql_error("recover the copy of", path, e);
    check_header(copy)?;
    let wal = len_or_zero(&beside(copy, "-wal")) > 0;
    let conn = connect(path, copy, flags(true))?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(err)?;
    if wal {
        let busy: i64 =
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(err)?;
        if busy != 0 {
            return Err(StoreError::Busy { doing: "recover the copy", path: path.to_owned() });
        }
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(err)?;
    conn.close().map_err(|(_, e)| err(e))?;
    for suffix in ["-wal", "-shm", "-journal"] {
        let left = beside(copy, suffix);
        // The checkpoint emptied the -wal; a journal that was not hot has nothing to say.
        if suffix == "-wal" && len_or_zero(&left) > 0 {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                detail: "its -wal could not be folded into the copy".to_owned(),
            });
        }
        match std::fs::remove_file(&left) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &left, e));
            }
            _ => {}
        }
    }
    Ok(())
}
