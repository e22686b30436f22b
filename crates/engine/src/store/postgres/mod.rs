//! The Postgres store: the databases of one cluster, read through its own server.
//!
//! Owns every SQL text that is run against users' servers. It never links a client library and never
//! opens a connection: SQL goes through [`Psql`], which runs `psql` of the user's image. Reading
//! happens in read-only transactions; only [`make_harmless`], [`capture`], [`mask`], [`carry_writes`], [`damage`], [`shrink`], [`trace`] and, if it is allowed to,
//! [`integrity`] write, and all but [`capture`] are for clones. Nothing here may put a name into SQL except quoted
//! by the server or by `names`, nor print a password, a connection string or a setting's value.

mod bloat;
pub mod capture;
mod carry;
mod carry_sql;
mod compare;
pub mod convert;
mod counts;
mod damage;
mod diff;
mod error;
mod export;
mod facts;
mod fingerprint;
mod harmless;
mod integrity;
pub(super) mod lines;
mod mask;
mod mask_sql;
mod merge;
pub(super) mod names;
mod orphans;
mod pgdata;
pub mod queries;
mod quick;
mod ranges;
mod represent;
pub(super) mod schema;
mod scope;
mod session;
mod shrink;
pub mod standby;
mod sums;
pub mod trace;
pub(super) mod value;
pub mod wal;
pub(super) mod words;

pub use carry::{carry_within, carry_writes};
pub use counts::counts;
pub use damage::damage;
pub use diff::diff;
pub use error::PgError;
pub use export::{export, export_within};
pub use facts::{CollationFact, DatabaseFacts, HbaRule, ServerFacts, SlotFact, TablespaceFact, server_facts};
pub use fingerprint::{Difference, compare as compare_fingerprints, fingerprint};
pub use harmless::{
    ABSENT_FILES, ActingLibrary, Subscriptions, acting_libraries, harmless_settings, logging_settings,
    make_harmless,
};
pub use integrity::{Amcheck, integrity};
pub use mask::{LEFT_BEHIND, mask, samples};
pub use pgdata::{find_pgdata, major_version};
pub use scope::{Keys, Scope, Scopes};
pub use session::{SESSIONS, TRANSACTIONS, databases};
pub use shrink::shrink;

/// Result of an operation on a Postgres store.
pub type Result<T> = std::result::Result<T, PgError>;

/// Runs `psql` against one server.
///
/// SQL goes in by standard input, never in arguments; a password, if any, by environment. The
/// arguments are `-X -q -A -t -v ON_ERROR_STOP=1`; the text contains psql's own commands (`\set`,
/// `\gexec`), so it must reach psql unchanged.
pub trait Psql: Sync {
    /// Runs a script in a database; standard output is streamed to `out`.
    ///
    /// A failing write to `out` must stop psql and come back as [`PgError::Output`]; `cancel` is asked
    /// every few milliseconds, and `true` stops psql with [`PgError::Cancelled`]. Any other failure is
    /// made from the standard error by [`PgError::from_stderr`].
    fn script(
        &self,
        database: &str,
        sql: &str,
        out: &mut dyn std::io::Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<()>;
}
