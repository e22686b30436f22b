//! Trouble as the user sees it: what, whether production was touched, what to do; and the exit codes.

use super::Output;
use console::Style;
use serde_json::json;
use switchback_core::journal::{ErrorKind, Outcome};
use switchback_engine::error::EngineError;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// A bug or an unexpected state of the host.
    Internal,
    /// Usage or configuration.
    Usage,
    /// A check failed, or a condition does not hold.
    Refused,
    /// The upgrade failed; production is safe on the previous generation.
    RolledBack,
    /// A person is needed.
    NeedsOperator,
    /// It could not be judged.
    Inconclusive,
    /// The rollback took longer than its budget.
    OverBudget,
    /// Another run holds the lock.
    Busy,
    /// Interrupted by Ctrl-C (128 + SIGINT, as shells do).
    Interrupted,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::Refused,
        Self::RolledBack,
        Self::NeedsOperator,
        Self::Inconclusive,
        Self::OverBudget,
        Self::Busy,
        Self::Interrupted,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::RolledBack => 4,
            Self::NeedsOperator => 5,
            Self::Inconclusive => 6,
            Self::OverBudget => 7,
            Self::Busy => 8,
            Self::Interrupted => 130,
        }
    }

    /// The code for the way a run ended.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::Inconclusive { .. } => Self::Inconclusive,
            Outcome::Undone { .. } => Self::RolledBack,
            Outcome::NeedsOperator { .. } => Self::NeedsOperator,
        }
    }
}

/// Something that ends the program early.
#[derive(Debug)]
pub struct Trouble {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Trouble {
    /// Something that does not hold, with what to do about it.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, message: message.into(), hint: Some(hint.into()) }
    }

    /// Wrong input.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: Some(hint.into()) }
    }

    /// Writes it to standard error, or as JSON to standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            let value =
                json!({ "error": { "code": self.exit.code(), "message": self.message, "hint": self.hint } });
            let _ = Output::new(true).json(&value);
            return;
        }
        let (red, dim) = (Style::new().for_stderr().red().bold(), Style::new().for_stderr().dim());
        let term = console::Term::stderr();
        let _ = term.write_line(&format!("{} {}", red.apply_to("error:"), self.message));
        if let Some(hint) = &self.hint {
            let _ = term.write_line(&format!("{} {hint}", dim.apply_to("  try:")));
        }
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        let exit = match (&error, error.kind()) {
            (EngineError::Busy { .. }, _) => Exit::Busy,
            (_, ErrorKind::Usage) => Exit::Usage,
            (_, ErrorKind::Refused) => Exit::Refused,
            // A full or read-only disk, damaged or newer state: nothing that another try would change.
            (_, ErrorKind::Host) | (EngineError::NewerFormat { .. } | EngineError::Damaged { .. }, _) => {
                Exit::NeedsOperator
            }
            _ => Exit::Internal,
        };
        Self { exit, hint: error.hint(), message: error.to_string() }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self { exit: Exit::Internal, message: format!("cannot write the answer: {error}"), hint: None }
    }
}
