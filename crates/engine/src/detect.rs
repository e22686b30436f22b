//! Finding out what a stack consists of, from a running process or from a folder.
//!
//! Only looks (but for the probe of [`host`]): it reads `/proc`, file headers and folder listings, and sends GET requests to the
//! service. It must never signal a process, run its program, or write anything.

pub mod compose;
mod describe;
pub mod host;
mod places;
mod process;
mod scan;
mod sockets;
mod substitute;
mod variables;
mod words;

pub use describe::{Description, FoundStore, HealthGuess, Wishes, describe};
pub use process::{Running, Which, inspect};
pub use scan::{Installed, Scan, is_sqlite, scan};
pub use substitute::{Mention, mentions};
pub use variables::{external_server, secret_value};
pub use words::split_line;

/// Why a stack could not be described. Always the input's fault: nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DetectError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl DetectError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}
