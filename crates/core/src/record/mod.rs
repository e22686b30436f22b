//! Workflows from recordings: what a browser or a proxy saw becomes the steps of a workflow file.
//!
//! Pure. Secrets of the recording become variables of the environment; values that the service made up (ids, tokens) become
//! captures, so that the workflow also runs on other data.

mod har;
mod steps;

pub use har::{HarError, parse_har};

use crate::ids::ServiceName;
use std::collections::BTreeMap;

/// One request with its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// In capitals.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// Headers of the request, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Content of the request.
    pub body: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// The answer's media type, without parameters, in lower case.
    pub answer_type: String,
    /// Content of the answer.
    pub answer: Vec<u8>,
}

impl Exchange {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether it only brings what a page is drawn with.
    fn is_asset(&self) -> bool {
        const TYPES: [&str; 7] =
            ["image/", "font/", "audio/", "video/", "text/css", "text/javascript", "application/javascript"];
        const ENDS: [&str; 12] =
            ["css", "js", "mjs", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "woff", "woff2"];
        let end = self.path().rsplit('/').next().and_then(|f| f.rsplit_once('.')).map(|(_, end)| end);
        TYPES.iter().any(|t| self.answer_type.starts_with(t))
            || (self.method == "GET" && end.is_some_and(|e| ENDS.contains(&e)))
    }
}

/// What came of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The workflow file.
    pub text: String,
    /// Steps in it.
    pub steps: usize,
    /// Variables that have to be set where it runs, and what each stands for.
    pub variables: BTreeMap<String, String>,
    /// What was left out and why, and what a person should look at.
    pub notes: Vec<String>,
}

/// The most steps of a workflow.
const STEPS: usize = 500;

/// Makes a workflow of what was recorded of one service.
pub fn workflow(name: &str, service: &ServiceName, all: &[Exchange]) -> Recorded {
    let mut notes = Vec::new();
    let assets = all.iter().filter(|e| e.is_asset()).count();
    if assets > 0 {
        notes.push(format!("{assets} requests for scripts, styles, pictures and fonts are left out"));
    }
    let other = |e: &Exchange| e.method == "OPTIONS" || e.method == "CONNECT" || e.status < 200;
    let odd = all.iter().filter(|e| !e.is_asset() && other(e)).count();
    if odd > 0 {
        notes.push(format!("{odd} requests are left out: preflights, web sockets, or without an answer"));
    }
    let mut kept: Vec<&Exchange> = all.iter().filter(|e| !e.is_asset() && !other(e)).collect();
    if kept.len() > STEPS {
        notes.push(format!("only the first {STEPS} of {} requests are kept", kept.len()));
        kept.truncate(STEPS);
    }
    steps::build(name, service, &kept, notes)
}

#[cfg(test)]
mod tests;
