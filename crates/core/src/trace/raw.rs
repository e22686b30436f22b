//! What a server recorded, before it is put together. Times are microseconds since 1970.

use super::Lock;

/// Everything that was recorded in one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    /// Changes of definitions, as event triggers saw them.
    pub events: Vec<DdlEvent>,
    /// Ends of statements, as the server logged them; of each session in their order.
    pub lines: Vec<LogLine>,
    /// Whether there was such a log.
    pub timed: bool,
    /// Tables, before and after.
    pub tables: Vec<RawTable>,
    /// Statements that only read, and their time in microseconds.
    pub reads: (u64, u64),
    /// Statements that failed; their texts are as they were written.
    pub errors: Vec<super::FailedStatement>,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Bytes of all databases, before and after.
    pub bytes: (u64, u64),
    /// What could not be traced.
    pub notes: Vec<String>,
}

/// The end of a statement that changed definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DdlEvent {
    /// Its database.
    pub database: String,
    /// The session's process.
    pub pid: i64,
    /// When it began; the end, where that is not known.
    pub began_us: i64,
    /// When it ended.
    pub ended_us: i64,
    /// `ALTER TABLE` and so on.
    pub tag: String,
    /// What the client sent; perhaps several statements.
    pub text: String,
    /// What it made or altered: `table public.orders`.
    pub objects: Vec<String>,
    /// What it removed.
    pub dropped: Vec<Dropped>,
    /// All locks that the transaction held then on tables, as `schema.table`.
    pub locks: Vec<(Lock, String)>,
    /// Tables that it wrote anew, and the server's reason (bits: 1 persistence, 2 default, 4 type, 8 access method).
    pub rewrote: Vec<(String, u32)>,
}

/// Something that was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// `table`, `table column`, `index` and so on.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it was asked for, not removed along with something else.
    pub original: bool,
}

/// The end of a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogLine {
    /// Its database.
    pub database: String,
    /// The session's process.
    pub pid: i64,
    /// When it ended, to the millisecond.
    pub ended_us: i64,
    /// How long it took.
    pub took_us: u64,
    /// `UPDATE` and so on.
    pub tag: String,
    /// Its transaction within the session; empty after the transaction has ended.
    pub transaction: String,
    /// What the client sent; of a statement that only reads, its beginning.
    pub text: String,
}

/// A table before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawTable {
    /// Its database.
    pub database: String,
    /// `schema.table`, as it is called in the end.
    pub name: String,
    /// What it was called before, if that is something else.
    pub was: Option<String>,
    /// The number of its file and its bytes with indexes, before; none for a new table.
    pub before: Option<(u64, u64)>,
    /// The same after; none for one that is gone.
    pub after: Option<(u64, u64)>,
    /// Rows inserted, updated, deleted meanwhile.
    pub rows: (u64, u64, u64),
}
