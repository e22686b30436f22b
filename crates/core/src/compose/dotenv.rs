//! Edits of `.env`: the variable that names the lock file, and versions of images.
//!
//! Everything that is not edited stays byte for byte. The reader follows Compose's: `export`, quotes over several
//! lines, comments after values; the last assignment of a name counts.

use super::ModelError;
use std::ops::Range;

/// The comment above a line that Switchback added.
const MARK: &str = "# Added by Switchback: the lock file below pins images and data of this stack.";

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The name.
    pub(super) name: String,
    /// The value, without quotes.
    pub(super) value: String,
    /// Where the value is in the text, with its quotes.
    pub(super) at: Range<usize>,
    /// Whether Compose replaces variables in it.
    pub(super) expands: bool,
}

/// The assignments of a file, in order.
pub(super) fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut at = text.len() - text.trim_start_matches('\u{feff}').len();
    while at < text.len() {
        let line_end = text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |n| at + n + 1);
        let line = text.get(at..line_end).unwrap_or_default();
        match assignment(text, at, line) {
            Some(assignment) => {
                let after = assignment.at.end;
                at = text.get(after..).and_then(|t| t.find('\n')).map_or(text.len(), |n| after + n + 1);
                found.push(assignment);
            }
            None => at = line_end,
        }
    }
    found
}

fn assignment(text: &str, line_at: usize, line: &str) -> Option<Assignment> {
    let mut head = line.trim_start();
    if let Some(rest) = head.strip_prefix("export") {
        head = if rest.starts_with([' ', '\t']) { rest.trim_start() } else { head };
    }
    let equals = head.find(['=', ':'])?;
    let name = head.get(..equals)?.trim_end();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    if name.is_empty() || !name.chars().all(allowed) {
        return None;
    }
    let rest = head.get(equals + 1..)?;
    let value_part = rest.trim_start_matches([' ', '\t']);
    let start = line_at + (line.len() - value_part.len());
    let make = |value: String, end: usize, expands: bool| Assignment {
        name: name.to_owned(),
        expands: expands && value.contains('$'),
        value,
        at: start..end,
    };
    let quote = value_part.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let mut escaped = false;
        for (offset, c) in text.get(start + 1..)?.char_indices() {
            if c == quote && !escaped {
                let end = start + 1 + offset;
                return Some(make(text.get(start + 1..end)?.to_owned(), end + 1, quote == '"'));
            }
            escaped = c == '\\' && !escaped;
        }
        // A quote that is never closed belongs to the value.
    }
    let content = value_part.trim_end_matches(['\n', '\r']);
    let content = if content.starts_with('#') { "" } else { content };
    let comment = [" #", "\t#"].iter().filter_map(|m| content.find(m)).min();
    let content = comment.and_then(|at| content.get(..at)).unwrap_or(content).trim_end();
    Some(make(content.to_owned(), start + content.len(), true))
}

/// The assignment of a name that counts.
pub(super) fn find(text: &str, name: &str) -> Option<Assignment> {
    assignments(text).into_iter().rfind(|a| a.name == name)
}

/// The text with a variable set to a value that needs no quotes.
pub(super) fn set(text: &str, name: &str, value: &str) -> String {
    let mut out = text.to_owned();
    match find(text, name) {
        Some(old) => {
            let quote =
                text.get(old.at.clone()).and_then(|t| t.chars().next()).filter(|c| "\"'".contains(*c));
            let quote = quote.filter(|_| old.at.len() > 1).map(String::from).unwrap_or_default();
            out.replace_range(old.at, &format!("{quote}{value}{quote}"));
        }
        None => {
            let end = ending(text);
            if !out.is_empty() && !out.ends_with('\n') {
                out.push_str(end);
            }
            out.push_str(&format!("{name}={value}{end}"));
        }
    }
    out
}

fn ending(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn separator(text: &str) -> String {
    find(text, "COMPOSE_PATH_SEPARATOR")
        .map(|a| a.value)
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| ":".to_owned())
}

/// `./a` and `a` are one file.
fn plain(file: &str) -> &str {
    file.trim().trim_start_matches("./")
}

/// `.env` edited so that `COMPOSE_FILE` lists the base files and, last, the lock file.
///
/// `base_files` are named as in `COMPOSE_FILE`: relative to the stack's folder, or absolute. Doing it again changes
/// nothing.
pub fn env_with_lock(env: &str, base_files: &[String], lock: &str) -> Result<String, ModelError> {
    let refuse = |text: String| Err(ModelError::Env(text));
    if base_files.is_empty() {
        return refuse("the stack has no Compose files".to_owned());
    }
    let separator = separator(env);
    for file in base_files.iter().map(String::as_str).chain([lock]) {
        if file.contains(&separator)
            || file.chars().any(|c| c.is_control() || c == '\'')
            || file.trim().is_empty()
        {
            return refuse(format!(
                "{file:?} cannot be listed in COMPOSE_FILE (separator {separator:?}); rename the file"
            ));
        }
    }
    let Some(old) = find(env, "COMPOSE_FILE") else {
        let files: Vec<&str> = base_files.iter().map(String::as_str).chain([lock]).collect();
        let value = quoted(&files.join(&separator), "");
        // At the top, so that taking it away again leaves the rest as it was, whatever its last line ends with.
        let bom = env.len() - env.trim_start_matches('\u{feff}').len();
        let (mark, rest) = env.split_at(bom);
        let end = ending(env);
        return Ok(format!("{mark}{MARK}{end}COMPOSE_FILE={value}{end}{rest}"));
    };
    if old.expands {
        return refuse(
            "COMPOSE_FILE is made of other variables there; write the files' names out".to_owned(),
        );
    }
    let listed: Vec<&str> = old.value.split(&separator).filter(|f| !f.trim().is_empty()).collect();
    let others: Vec<&str> = listed.iter().copied().filter(|f| plain(f) != plain(lock)).collect();
    let same =
        others.len() == base_files.len() && others.iter().zip(base_files).all(|(a, b)| plain(a) == plain(b));
    if !others.is_empty() && !same {
        return refuse(format!(
            "COMPOSE_FILE lists {} there, but the stack is made of {}; make them agree",
            others.join(", "),
            base_files.join(", ")
        ));
    }
    if listed.len() == others.len() + 1 && listed.last().is_some_and(|f| plain(f) == plain(lock)) && same {
        return Ok(env.to_owned());
    }
    let value = match (others.is_empty(), listed.len() == others.len()) {
        (true, _) => base_files.iter().map(String::as_str).chain([lock]).collect::<Vec<_>>().join(&separator),
        // Appended, so that taking it away again gives the old text.
        (false, true) => format!("{}{separator}{lock}", old.value),
        (false, false) => others.into_iter().chain([lock]).collect::<Vec<_>>().join(&separator),
    };
    let mut out = env.to_owned();
    let value = quoted(&value, env.get(old.at.clone()).unwrap_or_default());
    out.replace_range(old.at, &value);
    Ok(out)
}

/// `.env` without the lock file in `COMPOSE_FILE`: what it was before [`env_with_lock`].
pub fn env_without_lock(env: &str, lock: &str) -> String {
    let Some(old) = find(env, "COMPOSE_FILE") else { return env.to_owned() };
    let separator = separator(env);
    let listed: Vec<&str> = old.value.split(&separator).collect();
    let others: Vec<&str> = listed.iter().copied().filter(|f| plain(f) != plain(lock)).collect();
    if others.len() == listed.len() {
        return env.to_owned();
    }
    for end in ["\r\n", "\n"] {
        let head = format!("{MARK}{end}COMPOSE_FILE=");
        if let Some(at) = env.find(&head)
            && at + head.len() == old.at.start
        {
            let line_end =
                env.get(old.at.end..).and_then(|t| t.find('\n')).map_or(env.len(), |n| old.at.end + n + 1);
            return format!(
                "{}{}",
                env.get(..at).unwrap_or_default(),
                env.get(line_end..).unwrap_or_default()
            );
        }
    }
    let mut out = env.to_owned();
    let value = quoted(&others.join(&separator), env.get(old.at.clone()).unwrap_or_default());
    out.replace_range(old.at, &value);
    out
}

/// A value in the quotes that the old one had, or in single quotes if it needs some.
fn quoted(value: &str, old: &str) -> String {
    let quote = old.chars().next().filter(|c| old.len() > 1 && matches!(c, '"' | '\'') && old.ends_with(*c));
    let bare = |c: char| c.is_ascii_alphanumeric() || "_./-:,;+@%~".contains(c) || !c.is_ascii();
    match quote {
        Some(quote) => format!("{quote}{value}{quote}"),
        None if value.chars().all(bare) || value == old => value.to_owned(),
        // An unquoted value with spaces was accepted before; it stays as it was written.
        None if !old.is_empty() && value.starts_with(old) || old.starts_with(value) => value.to_owned(),
        None => format!("'{value}'"),
    }
}
