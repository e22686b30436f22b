//! The MySQL and MariaDB store against real servers that the tests make themselves.
//!
//! Needs MariaDB's programs (Debian: `mariadb-server-core`, `mariadb-client-core`); without them the tests fail.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod content;
mod on_purpose;
mod random;
mod server;
mod shrink;
