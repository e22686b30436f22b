//! Standard output: the answer, as text or JSON. Nothing else of the program writes there.

use serde::Serialize;
use std::io::{self, Write as _};

/// Writes answers.
pub struct Output {
    json: bool,
}

impl Output {
    /// As JSON, or as text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a value as JSON.
    pub fn json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        Self::write(&text)
    }

    /// Writes a line of text.
    pub fn line(&self, text: &str) -> io::Result<()> {
        Self::write(&format!("{text}\n"))
    }

    /// Writes text as it is.
    pub fn text(&self, text: &str) -> io::Result<()> {
        Self::write(text)
    }

    fn write(text: &str) -> io::Result<()> {
        match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
            // The reader has seen enough (`switchback history | head`).
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => other,
        }
    }
}

/// File names may hold anything; a terminal must not obey them.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
