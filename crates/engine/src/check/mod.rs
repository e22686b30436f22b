//! Runs checks and turns what was observed into results.
//!
//! A check sees an environment only through endpoints and store handles. Whatever a server sends
//! or a command prints is hostile: bounded in size and time, redacted, never trusted.

pub mod api;
pub mod browser;
pub mod command;
pub mod http;
pub mod hurl;
pub mod junit;
mod mcp;
mod multipart;
mod parallel;
pub mod performance;
pub mod sql;
pub mod workflow;
