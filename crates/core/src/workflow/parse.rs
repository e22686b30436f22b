//! Reading a workflow file, with errors that say where and what to do.

use super::locate::{Map, Place, Seg};
use super::model::Workflow;
use super::validate::{Problem, validate};
use serde::Deserialize;

/// A workflow of more text than this is a mistake (a database dump, a log).
const MAX_BYTES: usize = 1 << 20;

/// Why a workflow file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct WorkflowError {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Workflow {
    /// Reads and checks a workflow file; `file` is only used for messages and the id.
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkflowError> {
        let error = |place: Place, message: String, hint: Option<String>| WorkflowError {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message,
            hint,
        };
        if text.len() > MAX_BYTES {
            return Err(error(Place::START, "the file is larger than 1 MiB".into(), None));
        }
        if let Some(line) = too_deep(text) {
            let place = Place { line, column: 1 };
            return Err(error(place, "nested too deeply".into(), None));
        }
        // First as a plain value: this finds syntax errors and repeated keys, and bounds the depth,
        // so that looking for places afterwards cannot run away.
        let plain =
            serde_yaml_ng::Value::deserialize(serde_yaml_ng::Deserializer::from_str(text)).map_err(|e| {
                let (message, hint) = explain(&e.to_string());
                error(place_of(&e).unwrap_or(Place::START), message, hint)
            })?;
        if !plain.is_mapping() {
            let hint = "a workflow starts with `steps:`".to_owned();
            return Err(error(Place::START, "the file is not a map".into(), Some(hint)));
        }
        let map = Map::read(text);
        let mut workflow: Self = serde_yaml_ng::from_str(text).map_err(|e| {
            let raw = e.to_string();
            let from = place_of(&e).unwrap_or(Place::START);
            let place = unknown_key(&raw).and_then(|(name, _)| map.key(name, from)).unwrap_or(from);
            let (message, hint) = explain(&raw);
            error(place, message, hint)
        })?;
        workflow.id = file_stem(file);
        workflow.references = validate(&workflow, &map).map_err(|Problem { path, message, hint }| {
            error(map.place(&path), with_path(&path, &message), hint)
        })?;
        Ok(workflow)
    }

    /// Refuses a workflow that refers to services or stores the stack does not have.
    pub fn check_names(&self, file: &str, services: &[&str], stores: &[&str]) -> Result<(), WorkflowError> {
        for reference in &self.references {
            let (what, known) = match reference.kind {
                super::ReferenceKind::Service => ("service", services),
                super::ReferenceKind::Store => ("store", stores),
                super::ReferenceKind::Env => continue,
            };
            if !known.contains(&reference.name.as_str()) {
                return Err(WorkflowError {
                    file: file.to_owned(),
                    line: reference.line,
                    column: reference.column,
                    message: format!("there is no {what} {:?} in the stack", reference.name),
                    hint: suggest(&reference.name, known.iter().copied())
                        .or_else(|| Some(format!("{what}s: {}", known.join(", ")))),
                });
            }
        }
        Ok(())
    }
}

/// The first line nested deeper than any reader accepts.
///
/// The YAML scanner takes quadratic time on open brackets (100,000 of them: minutes), before it
/// gets to its own limit of 128 levels. Brackets in quotes are counted too; they balance.
fn too_deep(text: &str) -> Option<usize> {
    const MAX: usize = 200;
    let mut open = 0usize;
    for (i, line) in text.lines().enumerate() {
        let mut markers = 0;
        let mut leading = true;
        for c in line.bytes() {
            match c {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                b'-' | b'?' if leading => markers += 1,
                _ => {}
            }
            leading &= matches!(c, b'-' | b'?' | b' ');
            if open > MAX || markers > MAX {
                return Some(i + 1);
            }
        }
    }
    None
}

/// The file's name without folder and extension.
pub fn file_stem(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name);
    stem.to_owned()
}

fn place_of(error: &serde_yaml_ng::Error) -> Option<Place> {
    error.location().map(|l| Place { line: l.line(), column: l.column() })
}

/// The unknown key in serde's "unknown field `x`, expected one of `a`, `b`", and the known ones.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((name, known))
}

/// Turns a message of the YAML reader into ours: without the place, with a suggestion.
fn explain(raw: &str) -> (String, Option<String>) {
    let text = match raw.rfind(" at line ") {
        Some(at) if raw[at..].contains(" column ") => &raw[..at],
        _ => raw,
    };
    let Some((name, known)) = unknown_key(text) else {
        let hint = if text.contains("missing field `steps`") {
            Some("a workflow needs a list `steps:`".to_owned())
        } else {
            None
        };
        return (text.to_owned(), hint);
    };
    let path = text.split(": unknown field").next().filter(|p| *p != text && !p.contains('`'));
    let message = match path {
        Some(path) => format!("unknown key `{name}` in {path}"),
        None => format!("unknown key `{name}`"),
    };
    let hint = suggest(name, known.iter().copied())
        .or_else(|| (!known.is_empty()).then(|| format!("known keys: {}", known.join(", "))));
    (message, hint)
}

/// "did you mean ...?" for the nearest known name, if any is near.
pub(super) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Jaro-Winkler 0.8: accepts a swapped or missing letter, refuses unrelated words.
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&name.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| format!("did you mean `{k}`?"))
}

/// Puts the path in front of a message: `steps[0].request.url: ...`.
fn with_path(path: &[Seg], message: &str) -> String {
    let mut out = String::new();
    for seg in path {
        match seg {
            Seg::Key(key) if out.is_empty() => out.push_str(key),
            Seg::Key(key) => out.push_str(&format!(".{key}")),
            Seg::Index(i) => out.push_str(&format!("[{i}]")),
        }
    }
    if out.is_empty() { message.to_owned() } else { format!("{out}: {message}") }
}
