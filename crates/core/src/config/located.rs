//! Errors that say where in the file, what is wrong, and what was probably meant.

use std::fmt;

/// A mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: {}", self.file, self.line, self.message)
        } else {
            write!(f, "{}: {}", self.file, self.message)
        }
    }
}

/// Turns an error of the YAML reader into ours, with a suggestion for a misspelt key.
pub(super) fn from_serde(error: &serde_yaml_ng::Error, text: &str, file: &str) -> ConfigError {
    let full = error.to_string();
    let mut line = error.location().map_or(0, |l| l.line());
    // serde_yaml_ng ends its text with " at line L column C"; the line is reported separately.
    let message = match full.rfind(" at line ") {
        Some(at) if line > 0 => full.get(..at).unwrap_or(&full).to_owned(),
        _ => full,
    };
    let mut message = message;
    let mut hint = None;
    if let Some((unknown, expected)) = unknown_field(&message) {
        let path = message.split(": unknown").next().filter(|p| !p.contains(' ')).unwrap_or("").to_owned();
        if let Some(found) = line_of_key(text, &path, &unknown) {
            line = found;
        }
        hint = Some(match suggest(&unknown, expected.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("allowed here: {}", expected.join(", ")),
        });
        let kind = if message.contains("unknown variant") { "value" } else { "key" };
        let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
        message = format!("unknown {kind} {unknown:?}{place}");
    } else if let Some(missing) = message.split("missing field `").nth(1).and_then(|r| r.split('`').next()) {
        let path = message.split(": missing").next().filter(|p| !p.contains(' ')).unwrap_or("");
        let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in {path}") };
        hint = Some(format!("add `{missing}:`; `switchback schema` prints every key"));
        message = format!("the key {missing:?} is missing {place}");
    }
    ConfigError { file: file.to_owned(), line, message, hint }
}

/// Reads "unknown field `x`, expected one of `a`, `b`" (or "expected `a` or `b`").
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let at = message.find("unknown field `").or_else(|| message.find("unknown variant `"))?;
    let mut quoted = message.get(at..)?.split('`').skip(1).step_by(2).map(str::to_owned);
    let unknown = quoted.next()?;
    Some((unknown, quoted.collect()))
}

/// The closest of the allowed words, if it is close enough to be a slip.
pub fn suggest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    allowed
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        // 0.8: "comand"/"command" is 0.97, "helth"/"health" 0.95, unrelated keys stay below 0.7.
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn line_of_key(text: &str, path: &str, key: &str) -> Option<usize> {
    let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    line_of(text, &full)
}

/// Whether the text has a key at a dotted path (without list indexes).
pub(super) fn has_key(text: &str, path: &str) -> bool {
    let Ok(root) = marked_yaml::parse_yaml(0, text) else { return false };
    let mut node = &root;
    for part in path.split('.') {
        let Some((_, next)) = node.as_mapping().and_then(|m| m.iter().find(|(k, _)| k.as_str() == part))
        else {
            return false;
        };
        node = next;
    }
    true
}

/// The line (from 1) of the key or list element that a dotted path names (`services.hub.ports.http`,
/// `checks.invariants[0]`), or of its closest existing parent.
pub fn line_of(text: &str, path: &str) -> Option<usize> {
    let root = marked_yaml::parse_yaml(0, text).ok()?;
    let mut node = &root;
    let mut line = node.span().start().map(marked_yaml::Marker::line);
    for part in path.replace('[', ".[").split('.').filter(|p| !p.is_empty()) {
        if let Some(index) = part.strip_prefix('[').and_then(|p| p.strip_suffix(']')) {
            let Some(next) = node.as_sequence().and_then(|s| s.get(index.parse::<usize>().ok()?)) else {
                break;
            };
            node = next;
            line = node.span().start().map(marked_yaml::Marker::line).or(line);
        } else {
            let found = node.as_mapping().and_then(|m| m.iter().find(|(k, _)| k.as_str() == part));
            let Some((key, next)) = found else { break };
            line = key.span().start().map(marked_yaml::Marker::line).or(line);
            node = next;
        }
    }
    line
}
