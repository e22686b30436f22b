//! The MySQL and MariaDB store: the databases of one server, read through its own client program.
//!
//! Owns every SQL text that is run against such servers. It never links a client library and never opens a connection: SQL goes
//! through [`Client`], which runs `mariadb` or `mysql` of the user's image. Reading happens in read-only transactions with one
//! snapshot, which InnoDB keeps and other engines do not; only [`damage`] and [`shrink`] write, and are for clones. Nothing here may put a name
//! into SQL except quoted by `names`.

mod change;
mod counts;
mod damage;
mod diff;
mod error;
mod export;
mod fingerprint;
mod globals;
mod integrity;
mod merge;
mod names;
mod orphans;
mod represent;
mod schema;
mod session;
mod shrink;
mod sums;
pub mod trace;
mod value;

pub use counts::counts;
pub use damage::damage;
pub use diff::diff;
pub use error::MyError;
pub use export::export;
pub use fingerprint::fingerprint;
pub use integrity::{Pages, integrity};
pub use session::databases;
pub use shrink::shrink;
pub use value::asked;

/// Result of an operation on a MySQL or MariaDB store.
pub type Result<T> = std::result::Result<T, MyError>;

/// What a server on data at rest is started with besides the release's own command: no connections from outside, nobody is
/// asked for a password, and nothing acts on the world or on the data by itself. `loose`: the two servers do not know the same ones.
/// The binary log stays as it is: what was prepared when a clone was cut is decided by it.
pub const HARMLESS: [&str; 7] = [
    "--skip-grant-tables",
    "--skip-networking",
    "--max-allowed-packet=1G",
    "--loose-wsrep-on=OFF",
    QUIET[0],
    QUIET[1],
    QUIET[2],
];

/// What a server of a staging environment is started with besides: neither replication nor events act by themselves.
pub const QUIET: [&str; 3] =
    ["--loose-skip-slave-start", "--loose-skip-replica-start", "--loose-event-scheduler=OFF"];

/// Runs the client program against one server.
///
/// SQL goes in by standard input, never in arguments; a password, if any, by environment. The arguments are
/// `--batch --skip-column-names --quick --default-character-set=utf8mb4 --max-allowed-packet=1G`.
pub trait Client: Sync {
    /// Runs a script; standard output is streamed to `out`. `about` is the database it is about, for messages only.
    ///
    /// A failing write to `out` must stop the program and come back as [`MyError::Output`]; `cancel` is asked every few
    /// milliseconds, and `true` stops it with [`MyError::Cancelled`]. Any other failure is made from the standard error by
    /// [`MyError::from_stderr`].
    fn script(
        &self,
        about: &str,
        sql: &str,
        out: &mut dyn std::io::Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<()>;
}
