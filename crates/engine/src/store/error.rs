//! Why a store operation failed, in terms an operator can act on.
//!
//! Owns the error type and the translation of operating system errors. It must never hide which path
//! was concerned.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system of `path` is full, or would be.
    #[error("no space left for {}: {detail}", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// Bytes needed and free, or where it ran out.
        detail: String,
    },
    /// The store itself is broken.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The broken file.
        path: PathBuf,
        /// What SQLite or the check says.
        detail: String,
    },
    /// The caller asked to stop; nothing is left behind.
    #[error("cancelled")]
    Cancelled,
    /// An operating system call failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The action, as in "open".
        doing: &'static str,
        /// The path it concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite refused something.
    #[error("{doing} {}: {source}", path.display())]
    Sqlite {
        /// The action.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// Another process kept the database locked for longer than the limit.
    #[error("{} stayed locked by another process while trying to {doing}", path.display())]
    Busy {
        /// The action that needed the lock.
        doing: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The store or a folder does not exist.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The missing path.
        path: PathBuf,
    },
    /// The destination exists already; it is never overwritten.
    #[error("{} exists already and is never overwritten", path.display())]
    DstExists {
        /// The destination.
        path: PathBuf,
    },
    /// Source and destination lie within each other.
    #[error("{} lies inside {}: a copy would contain itself", dst.display(), src.display())]
    Nested {
        /// The source.
        src: PathBuf,
        /// The destination.
        dst: PathBuf,
    },
    /// A store that nobody should have open changed while it was read.
    #[error("{} changed while it was read, though nobody should have it open", path.display())]
    Changed {
        /// The file that changed.
        path: PathBuf,
    },
    /// A file cannot share its blocks with a copy, and copying was not allowed.
    #[error("{} cannot share its blocks with a copy: {why}", path.display())]
    CannotShare {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A pass took longer than its writers may wait; the copy is a valid base for the next pass.
    #[error("the pass over {} did not end within {budget_ms} ms: {done_bytes} bytes were compared", path.display())]
    OverBudget {
        /// The source.
        path: PathBuf,
        /// The time it was given.
        budget_ms: u64,
        /// What was done by then.
        done_bytes: u64,
    },
    /// A repository of backups cannot be used as it was asked for.
    #[error("{at}: {why}")]
    Repository {
        /// Where it lies, without a password.
        at: String,
        /// Why.
        why: String,
    },
    /// Something that cannot be cloned or compared faithfully.
    #[error("{}: {why}", path.display())]
    Unsupported {
        /// What it concerns.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    /// Translates the failure of a system call; a full disk or quota becomes [`StoreError::NoSpace`].
    pub(super) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), detail: format!("{doing}: {source}") }
            }
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    /// Like [`Self::io`], for reading a source: a missing file becomes [`StoreError::NotFound`].
    pub(super) fn read(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if source.kind() == io::ErrorKind::NotFound {
            return Self::NotFound { path: path.to_owned() };
        }
        Self::io(doing, path, source)
    }
}
