//! Removal of secret values from everything that is shown or kept.

use std::collections::BTreeMap;

/// What a secret is replaced by.
const MASK: &str = "***";

/// Shorter values are not masked: they would blank out ordinary text without hiding anything.
const MIN_SECRET_CHARS: usize = 4;

/// Knows secret values and replaces them in text.
///
/// Besides the value itself, its percent-encoded and JSON-escaped forms are replaced.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redactor {
    /// Value to the name it is known by (empty when it has none).
    known: BTreeMap<String, String>,
    /// The same, longest value first, so that a secret inside another is never left half visible.
    ordered: Vec<(String, String)>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} values)", self.known.len())
    }
}

impl Redactor {
    /// Makes one that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one from values without names.
    pub fn from_values<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        let mut redactor = Self::new();
        for value in values {
            redactor.add(value.into());
        }
        redactor
    }

    /// Adds a secret without a name.
    pub fn add(&mut self, value: impl Into<String>) {
        self.add_named("", value);
    }

    /// Adds a secret that reproduce commands can show as `$NAME`.
    pub fn add_named(&mut self, name: &str, value: impl Into<String>) {
        let value: String = value.into();
        if value.chars().count() < MIN_SECRET_CHARS || value.trim().is_empty() {
            return;
        }
        let percent = super::request::percent_encode(&value);
        let json = serde_json::Value::from(value.as_str()).to_string();
        let json = json.get(1..json.len() - 1).unwrap_or_default().to_owned();
        for form in [value, percent, json] {
            if form.chars().count() >= MIN_SECRET_CHARS {
                self.known.entry(form).or_insert_with(|| name.to_owned());
            }
        }
        self.ordered = self.known.iter().map(|(v, n)| (v.clone(), n.clone())).collect();
        self.ordered.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// The length in bytes of the longest known value.
    pub fn longest(&self) -> usize {
        self.ordered.first().map_or(0, |(v, _)| v.len())
    }

    /// Replaces every known value by `***`.
    pub fn redact(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        self.split(text, |piece| match piece {
            Piece::Text(t) => out.push_str(t),
            Piece::Secret(_) => out.push_str(MASK),
        });
        out
    }

    /// A text for a report: secrets removed, then shortened.
    pub fn show(&self, text: &str) -> String {
        // Only the beginning is shown, so only the beginning (and a secret across its end) is read.
        let mut end = text.len().min(4096 + 4 * self.longest());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        super::shorten(&self.redact(&text[..end]))
    }

    /// Walks over the text, telling ordinary parts and secrets (by name) apart.
    pub(super) fn split<'t>(&'t self, text: &'t str, mut each: impl FnMut(Piece<'t>)) {
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            match self.ordered.iter().find(|(v, _)| rest.starts_with(v.as_str())) {
                Some((value, name)) => {
                    if start < at {
                        each(Piece::Text(&text[start..at]));
                    }
                    each(Piece::Secret(name));
                    at += value.len();
                    start = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        if start < text.len() {
            each(Piece::Text(&text[start..]));
        }
    }
}

/// A part of a text.
pub(super) enum Piece<'t> {
    /// Nothing to hide.
    Text(&'t str),
    /// A secret, by its name (may be empty).
    Secret(&'t str),
}

/// Whether a variable, header or option of this name usually holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    const HINTS: [&str; 12] = [
        "token",
        "secret",
        "passw",
        "passphrase",
        "session",
        "csrf",
        "xsrf",
        "apikey",
        "api_key",
        "private",
        "credential",
        "authorization",
    ];
    const ENDS: [&str; 2] = ["_key", "_pw"];
    let name = name.to_ascii_lowercase().replace('-', "_");
    matches!(name.as_str(), "cookie" | "set_cookie" | "jwt")
        || HINTS.iter().any(|h| name.contains(h))
        || ENDS.iter().any(|e| name.ends_with(e))
}
