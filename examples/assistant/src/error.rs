//! Owns the errors of commands: what was being done, and why it did not work.

use std::io;
use std::path::{Path, PathBuf};

/// A command that did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the environment makes no sense.
    #[error("{0}\n(`assistant --help` lists the commands and options)")]
    Usage(String),
    /// The file system or the network refused.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done, as an infinitive.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("could not {doing}: {source}")]
    Sql {
        /// What was being done, as an infinitive.
        doing: String,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The release directory is incomplete or damaged.
    #[error("release file {}: {reason}", path.display())]
    Release {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The database is older than the release.
    #[error(
        "schema mismatch: database {} has schema {found}, release {version} needs schema {needed}; \
         run `assistant migrate` of release {version} first",
        db.display()
    )]
    SchemaTooOld {
        /// The database.
        db: PathBuf,
        /// The schema it has; 0 for a missing or empty database.
        found: u32,
        /// The schema the release needs.
        needed: u32,
        /// The version of the release.
        version: String,
    },
    /// The database is newer than the release.
    #[error(
        "schema mismatch: database {} has schema {found}, release {version} knows only schema {needed}; \
         start the newer release, or restore the database from before its migration",
        db.display()
    )]
    SchemaTooNew {
        /// The database.
        db: PathBuf,
        /// The schema it has.
        found: u32,
        /// The schema the release knows.
        needed: u32,
        /// The version of the release.
        version: String,
    },
    /// A migration failed and everything it did was rolled back.
    #[error("migration {name} failed, and was rolled back: {reason}")]
    Migration {
        /// The migration's file name.
        name: String,
        /// What SQLite said.
        reason: String,
    },
}

impl Error {
    /// Wraps a system error; for `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Wraps an SQLite error; for `map_err`.
    pub(crate) fn sql(doing: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Sql { doing, source }
    }

    /// Says what is wrong with a file of a release.
    pub(crate) fn release(path: &Path, reason: impl Into<String>) -> Self {
        Self::Release { path: path.to_path_buf(), reason: reason.into() }
    }
}
