//! The Postgres store against real clusters that the tests make themselves.
//!
//! Needs the server's programs (Debian: `postgresql`, or `SWITCHBACK_TEST_PG_BIN`); without them the tests
//! fail. As root they run the server as the user `postgres`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod broken;
mod capture;
mod carry;
mod changes;
mod checks;
mod cluster;
mod content;
mod convert;
mod damage;
mod export;
mod mask;
mod on_purpose;
mod queries;
mod random;
mod schema;
mod shrink;
mod standby;
mod trace;
