//! Why an operation on a MySQL or MariaDB store failed, in terms an operator can act on.
//!
//! Owns reading what the client program says on standard error. It must never repeat a password; the program prints none.

use super::super::StoreError;

/// Longest message kept: the first lines say what is wrong.
const MESSAGE_BYTES: usize = 2000;
/// Codes of errors that say that somebody was not let in, or may not do it.
const DENIED: [u32; 6] = [1044, 1045, 1142, 1143, 1227, 1698];
/// Codes of errors that say that something was altered or dropped while it was read.
const ALTERED: [u32; 5] = [1049, 1051, 1054, 1146, 1412];

/// Why an operation on a MySQL or MariaDB store failed.
#[derive(Debug, thiserror::Error)]
pub enum MyError {
    /// The server, or the program on the way to it, refused.
    #[error("database {database:?}: {message}{}", hint(*code))]
    Server {
        /// The database that was asked; empty for the server.
        database: String,
        /// The number of the error; 0 where there is none.
        code: u32,
        /// The message.
        message: String,
    },
    /// The client program could not be run.
    #[error("cannot run the client of MariaDB or MySQL: {0}")]
    Start(String),
    /// Whoever takes the output refused it.
    #[error("cannot take the output of the client: {0}")]
    Output(std::io::Error),
    /// The output ended early or is not what was asked for.
    #[error("database {database:?}: unexpected output of the client: {detail}")]
    Protocol {
        /// The database that was asked.
        database: String,
        /// What was unexpected.
        detail: String,
    },
    /// The data cannot be treated faithfully.
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

impl From<StoreError> for MyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cancelled => Self::Cancelled,
            other => Self::Store(other),
        }
    }
}

impl MyError {
    /// Makes the error from what the program wrote to standard error.
    pub fn from_stderr(database: &str, stderr: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stderr);
        let mut code = 0;
        let mut kept = Vec::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            // `ERROR 1146 (42S02) at line 3: Table 'a.b' doesn't exist`
            let told = line.strip_prefix("ERROR ").and_then(|rest| rest.split_once(": "));
            let Some((head, message)) = told else {
                kept.push(line.to_owned());
                continue;
            };
            let number = head.split_whitespace().next().and_then(|n| n.parse().ok());
            if code == 0 {
                code = number.unwrap_or(0);
            }
            kept.push(message.to_owned());
        }
        let mut message = kept.join("; ");
        if message.is_empty() {
            "the client failed and said nothing".clone_into(&mut message);
        }
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
            message.truncate(end);
        }
        Self::Server { database: database.to_owned(), code, message }
    }

    /// The number of the server's error, if there was one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Server { code, .. } if *code != 0 => Some(*code),
            _ => None,
        }
    }

    /// Whether the server let nobody in, or the role may not do it.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(|c| DENIED.contains(&c))
    }

    /// Whether something was altered or dropped while it was read.
    pub(super) fn is_altered(&self) -> bool {
        self.code().is_some_and(|c| ALTERED.contains(&c))
    }

    pub(super) fn protocol(database: &str, detail: impl Into<String>) -> Self {
        Self::Protocol { database: database.to_owned(), detail: detail.into() }
    }
}

fn hint(code: u32) -> &'static str {
    match code {
        1044 | 1142 | 1143 | 1227 => {
            ". Reading a whole server exactly needs all privileges: give the store the role `root`"
        }
        1045 | 1698 => ". Check `user` and `password_env` of the store",
        1021 | 1114 => ". The disk of the server is full; sorting needs room for temporary files",
        1205 => ". Another session, perhaps a migration, holds a lock for long; wait for its end",
        1153 | 1301 => ". A value is too large: raise `max_allowed_packet` of the server",
        2002 | 2003 | 2013 => ". The server does not accept connections (yet)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_becomes_a_message_with_its_number_and_a_hint() {
        let text = b"ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)\n";
        let error = MyError::from_stderr("app", text);
        assert!(error.is_denied() && error.code() == Some(1045));
        assert!(
            error.to_string().contains("Access denied") && error.to_string().contains("password_env"),
            "{error}"
        );
        let gone =
            MyError::from_stderr("app", b"ERROR 1146 (42S02) at line 3: Table 'app.t' doesn't exist\n");
        assert!(gone.is_altered() && !gone.is_denied(), "{gone}");
        assert_eq!(gone.to_string(), "database \"app\": Table 'app.t' doesn't exist");
    }

    #[test]
    fn silence_is_said() {
        assert!(MyError::from_stderr("a", b"").to_string().contains("said nothing"));
    }
}
