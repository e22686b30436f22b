//! A response as it was observed.

use serde_json::Value;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::time::Duration;

/// What came back, and how long it took.
#[derive(Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers in order, names in lower case, invalid UTF-8 replaced.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// From sending to the last byte.
    pub elapsed: Duration,
    /// Cookies that are set for the URL after this response: name to value.
    pub cookies: Vec<(String, String)>,
    json: OnceCell<Result<Value, String>>,
}

impl Response {
    /// Makes a response without cookies.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: Vec<u8>, elapsed: Duration) -> Self {
        Self { status, headers, body, elapsed, ..Self::default() }
    }
    /// All values of a header.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
    /// The body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
    /// The body as JSON, parsed once.
    pub fn json(&self) -> Result<&Value, &str> {
        self.json
            .get_or_init(|| serde_json::from_slice(&self.body).map_err(|e| e.to_string()))
            .as_ref()
            .map_err(String::as_str)
    }
}

/// Cuts a text for a report: at most 200 characters, control characters made visible.
pub fn shorten(text: &str) -> String {
    // 200 characters: two or three lines in a terminal, enough to recognise an error page.
    const MAX: usize = 200;
    let mut out = String::new();
    for (i, c) in text.trim().chars().enumerate() {
        if i == MAX {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
