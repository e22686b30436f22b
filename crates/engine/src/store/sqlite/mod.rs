//! The SQLite store: one database file with whatever `-wal` or `-journal` lies beside it.
//!
//! Owns every connection to users' databases. It must never open a cold source for writing or
//! through SQLite's locks, and never close a plain descriptor of a database that this process has
//! a connection to (POSIX would drop the connection's locks; see [`handles`]).

mod carry;
mod carry_row;
mod compare;
mod copy;
mod damage;
mod diff;
mod export;
mod fingerprint;
mod handles;
mod mask;
mod open;
mod orphans;
mod refresh;
mod schema;
mod shrink;
mod value;
mod watch;
mod words;

pub(super) use carry::carry_writes;
pub(super) use copy::{clone_cold, clone_live};
pub(super) use damage::damage;
pub(super) use diff::diff;
pub(super) use export::export;
pub(super) use fingerprint::fingerprint;
pub(super) use mask::{mask, samples};
pub(super) use orphans::integrity;
pub(super) use refresh::refresh;
pub(super) use shrink::shrink;
pub(super) use watch::watch;

use super::{Result, StoreError};
use rusqlite::ErrorCode;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The path of a companion file: "-wal", "-shm", "-journal".
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn len_or_zero(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}

/// Bytes of the database with its `-wal` and `-journal`.
pub(super) fn size_bytes(path: &Path) -> Result<u64> {
    let main = path.metadata().map_err(|e| StoreError::read("stat", path, e))?;
    Ok(main.len() + len_or_zero(&beside(path, "-wal")) + len_or_zero(&beside(path, "-journal")))
}

/// A name as an SQL identifier, whatever it contains.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQLITE_IOERR_SHORT_READ: the file ends in the middle of a page.
const SHORT_READ: i32 = 522;

/// Translates SQLite's answer.
fn sql_error(doing: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let code = source.sqlite_error().map(|e| (e.code, e.extended_code));
    match code {
        Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) | Some((_, SHORT_READ)) => {
            StoreError::Damaged { path, detail: format!("{doing}: {source}") }
        }
        Some((ErrorCode::DiskFull, _)) => StoreError::NoSpace { path, detail: format!("{doing}: {source}") },
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => StoreError::Busy { doing, path },
        Some((ErrorCode::CannotOpen, _)) if !path.exists() => StoreError::NotFound { path },
        _ => StoreError::Sqlite { doing, path, source },
    }
}
