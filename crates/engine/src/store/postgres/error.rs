//! Why an operation on a Postgres store failed, in terms an operator can act on.
//!
//! Owns reading what psql says on standard error. It must never repeat a password or a connection
//! string; psql prints neither.

use super::super::StoreError;

/// Longest message kept: the first lines say what is wrong.
const MESSAGE_BYTES: usize = 2000;

/// Why an operation on a Postgres store failed.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The server, or psql on the way to it, refused.
    #[error("database {database:?}: {message}{}", hint(sqlstate, message))]
    Server {
        /// The database that was asked.
        database: String,
        /// SQLSTATE; empty where psql got no answer from the server.
        sqlstate: String,
        /// The message, with detail and hint if there are any.
        message: String,
    },
    /// psql could not be run.
    #[error("cannot run psql: {0}")]
    Start(String),
    /// Whoever takes the output refused it.
    #[error("cannot take the output of psql: {0}")]
    Output(std::io::Error),
    /// The output ended early or is not what was asked for.
    #[error("database {database:?}: unexpected output of psql: {detail}")]
    Protocol {
        /// The database that was asked.
        database: String,
        /// What was unexpected.
        detail: String,
    },
    /// The cluster cannot be treated faithfully.
    #[error("{what}: {why}")]
    Unsupported {
        /// What it concerns.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Files of an export could not be written, or the caller cancelled.
    #[error("{0}")]
    Store(StoreError),
}

impl From<StoreError> for PgError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cancelled => Self::Cancelled,
            other => Self::Store(other),
        }
    }
}

impl PgError {
    /// Makes the error from what psql wrote to standard error.
    pub fn from_stderr(database: &str, stderr: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stderr);
        let mut sqlstate = String::new();
        let mut kept = Vec::new();
        for line in text.lines() {
            if line.starts_with("LOCATION:") || line.trim().is_empty() {
                continue;
            }
            let line = strip_position(line);
            let message = match line.split_once(":  ") {
                Some((severity, rest)) if is_severity(severity) => match rest.split_once(": ") {
                    Some((code, rest)) if is_sqlstate(code) => {
                        if sqlstate.is_empty() {
                            code.clone_into(&mut sqlstate);
                        }
                        rest
                    }
                    _ => rest,
                },
                _ => line,
            };
            kept.push(message.to_owned());
        }
        let mut message = kept.join("; ");
        if message.is_empty() {
            "psql failed and said nothing".clone_into(&mut message);
        }
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
            message.truncate(end);
        }
        Self::Server { database: database.to_owned(), sqlstate, message }
    }

    /// The SQLSTATE of the server's answer, if there was one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } if !sqlstate.is_empty() => Some(sqlstate),
            _ => None,
        }
    }

    /// Whether the server let nobody in: wrong password, no such role, no rule. Before a session there is no SQLSTATE.
    pub fn is_denied(&self) -> bool {
        let Self::Server { sqlstate, message, .. } = self else { return false };
        let says = |text: &str| message.contains(text);
        matches!(sqlstate.as_str(), "28P01" | "28000")
            || sqlstate.is_empty()
                && (says("authentication failed")
                    || says("no password supplied")
                    || says("no pg_hba.conf entry")
                    || says("is not permitted to log in")
                    || says("role \"") && says("does not exist"))
    }

    pub(super) fn protocol(database: &str, detail: impl Into<String>) -> Self {
        Self::Protocol { database: database.to_owned(), detail: detail.into() }
    }
}

/// Cuts "psql:<stdin>:12: " and "psql: error: " off.
fn strip_position(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("psql:") else { return line };
    if let Some(rest) = rest.strip_prefix(" error: ") {
        return rest;
    }
    match rest.split_once(": ") {
        Some((place, message)) if place.contains(':') => message,
        _ => line,
    }
}

fn is_severity(word: &str) -> bool {
    // Severities are translated where the server speaks another language; they are one upper-case word.
    !word.is_empty() && word.chars().all(char::is_uppercase)
}

fn is_sqlstate(word: &str) -> bool {
    word.len() == 5 && word.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

fn hint(sqlstate: &str, message: &str) -> &'static str {
    let says = |text: &str| message.contains(text);
    match sqlstate {
        "42501" => {
            ". Reading a whole cluster exactly needs a superuser: give the store the role that the image was set up with"
        }
        "53100" => ". The disk of the server is full; sorting and hashing need room for temporary files",
        "55P03" => ". Another session, perhaps a migration, holds a lock for long; wait for its end",
        "57014" => ". The statement was cancelled by somebody else",
        "40001" | "40P01" => ". Another session was in the way; try again",
        "" if says("password") && (says("authentication failed") || says("no password supplied")) => {
            ". Check the user and the password of the store"
        }
        "" if says("role \"") && says("does not exist") => {
            ". Name an existing role as the user of the store (the image's POSTGRES_USER)"
        }
        "" if says("database \"") && says("does not exist") => ". Check the databases of the store",
        "" if says("starting up") || says("shutting down") || says("No such file or directory") => {
            ". The server does not accept connections (yet)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_psql_says_becomes_a_message_with_its_state_and_a_hint() {
        let text =
            b"psql:<stdin>:7: ERROR:  42501: permission denied for table t\nLOCATION:  aclcheck_error, aclchk.c:3650\n";
        let error = PgError::from_stderr("app", text);
        assert_eq!(error.sqlstate(), Some("42501"));
        let shown = error.to_string();
        assert!(shown.starts_with("database \"app\": permission denied for table t. Reading"), "{shown}");
    }

    #[test]
    fn a_refused_connection_has_a_hint_without_a_state() {
        let text = b"psql: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  role \"nobody\" does not exist\n";
        let error = PgError::from_stderr("app", text);
        assert_eq!(error.sqlstate(), None);
        assert!(error.to_string().contains("Name an existing role"), "{error}");
        assert!(
            error.is_denied()
                && !PgError::from_stderr("a", b"psql: error: the database system is starting up").is_denied()
        );
    }

    #[test]
    fn silence_is_said() {
        assert!(PgError::from_stderr("a", b"").to_string().contains("said nothing"));
    }
}
