//! What a migration did to a database while it ran: its statements, their locks, and whom they would have blocked.
//!
//! Owns the result as a value, and how it is put together from what a server recorded. It never asks a server: the
//! engine does.

mod assemble;
mod file;
mod lock;
mod raw;
#[cfg(test)]
mod tests;
mod words;

pub use assemble::assemble;
pub use file::{Definition, Definitions, FileSeen, FileUse, assemble_file};
pub use lock::Lock;
pub use raw::{DdlEvent, Dropped, LogLine, Raw, RawTable};
pub use words::{effect, without_values};

use serde::{Deserialize, Serialize};

/// Statements that are kept one by one; the longest ones.
pub const MOST_STATEMENTS: usize = 300;

/// What was recorded of a store between the end of its cloning and the moment the new version was healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Statements that wrote or changed definitions, by the time they began.
    pub statements: Vec<Statement>,
    /// Statements that are not in the list because there were too many: the shortest ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// Tables that were changed, rewritten or locked, by name.
    pub tables: Vec<TableTrace>,
    /// Statements that only read.
    pub reads: u64,
    /// Their time together in microseconds.
    pub reads_us: u64,
    /// Statements that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FailedStatement>,
    /// From the beginning of the first statement in the list to the end of the last transaction, in microseconds.
    pub span_us: u64,
    /// Bytes of write-ahead log that were written meanwhile.
    pub wal_bytes: u64,
    /// Bytes of all databases before.
    pub bytes_before: u64,
    /// Bytes of all databases after.
    pub bytes_after: u64,
    /// Whether statements were timed: without that there are only changes of definitions, with the time each took in the end.
    pub timed: bool,
    /// Of a database that is a file: how it was used. Of such a one statements are changes of definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileUse>,
    /// What could not be traced and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A statement, or several of the same form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Its database.
    pub database: String,
    /// When the first began, in microseconds after the first of the trace.
    pub at_us: u64,
    /// What it is, as the server calls it: `ALTER TABLE`, `UPDATE`.
    pub tag: String,
    /// Its text. Values are replaced by `?`, except in definitions.
    pub text: String,
    /// How many statements of this form there were.
    pub calls: u64,
    /// How long it took; all of them together.
    pub took_us: u64,
    /// From its beginning to the end of its transaction: so long its locks were held. The longest.
    pub held_us: u64,
    /// The strongest lock that it took on a table that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Tables that were there before and that it locked with that lock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locked: Vec<String>,
    /// What it made or altered: `table public.orders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// What it removed, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Tables whose every row it wrote anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrote: Vec<String>,
    /// What becomes of what was there.
    pub effect: Effect,
}

/// What a statement means for going back without a copy of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It only adds, or changes nothing that counts; a later statement can take it back.
    Adds,
    /// It removes or replaces definitions; somebody must know what they were.
    Redefines,
    /// It removes or alters data: nothing in the database brings it back.
    Destroys,
}

impl Effect {
    /// The word that reports show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adds => "adds",
            Self::Redefines => "redefines",
            Self::Destroys => "destroys",
        }
    }
}

/// What happened to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTrace {
    /// `database.schema.table`.
    pub name: String,
    /// The strongest lock on it; none for a new one, which nobody could have used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// How long nobody else could have read it, in microseconds.
    pub reads_blocked_us: u64,
    /// How long nobody else could have written to it, in microseconds.
    pub writes_blocked_us: u64,
    /// Rows inserted, as the server counted them.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Whether its file was replaced: rewritten or truncated.
    pub rewritten: bool,
    /// Bytes with indexes before; 0 for a new one.
    pub bytes_before: u64,
    /// Bytes with indexes after; 0 for one that is gone.
    pub bytes_after: u64,
    /// Whether it came or went.
    pub existence: Existence,
}

/// Whether a table came or went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// It was there before and is there now.
    #[default]
    Kept,
    /// It is new.
    New,
    /// It is gone.
    Gone,
}

/// A statement that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStatement {
    /// Its database.
    pub database: String,
    /// The server's code for the error.
    pub sqlstate: String,
    /// What the server said.
    pub message: String,
    /// The statement, as in [`Statement::text`].
    pub text: String,
}

impl Trace {
    /// Whether nothing was written, defined or refused.
    pub fn is_empty(&self) -> bool {
        let untouched = self.file.is_none_or(|f| f.transactions == 0);
        self.statements.is_empty() && self.tables.is_empty() && self.errors.is_empty() && untouched
    }

    /// The longest times that others could not have read, and not have written, any one table, in microseconds.
    pub fn blocked_us(&self) -> (u64, u64) {
        if let Some(file) = self.file {
            return (file.readers_blocked_us, file.writers_blocked_us);
        }
        let longest = |of: fn(&TableTrace) -> u64| self.tables.iter().map(of).max().unwrap_or(0);
        (longest(|t| t.reads_blocked_us), longest(|t| t.writes_blocked_us))
    }

    /// Statements together, those of the same form counted each.
    pub fn calls(&self) -> u64 {
        self.left_out + self.statements.iter().map(|s| s.calls).sum::<u64>()
    }

    /// The strongest effect of any statement.
    pub fn effect(&self) -> Option<Effect> {
        self.statements.iter().map(|s| s.effect).max()
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
