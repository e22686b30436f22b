//! The secret values that a model holds, for removing them from everything that is shown or kept.

use super::{Model, escape, unescape};
use crate::workflow::is_secret_name;
use serde_json::Value;
use std::collections::BTreeSet;

impl Model {
    /// The values that must not be shown: of variables, options and labels with the name of a secret, and passwords in
    /// addresses.
    ///
    /// Both plain and with `$` doubled. Truth values, small numbers and paths are no secrets.
    pub fn secrets(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        walk(&Value::Object(self.root().clone()), &mut found);
        let escaped: Vec<String> = found.iter().map(|s| escape(s)).collect();
        found.extend(escaped);
        found.into_iter().collect()
    }
}

fn walk(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if is_secret(name) => add(&unescape(text), found),
                    Value::Number(number) if is_secret(name) => add(&number.to_string(), found),
                    _ => {}
                }
                walk(value, found);
            }
        }
        Value::Array(list) => {
            let texts: Vec<Option<String>> = list.iter().map(|v| v.as_str().map(unescape)).collect();
            for pair in texts.windows(2) {
                // `--password VALUE`: two arguments.
                if let [Some(option), Some(value)] = pair
                    && option.starts_with('-')
                    && !option.contains('=')
                    && is_secret(option.trim_start_matches('-'))
                {
                    add(value, found);
                }
            }
            list.iter().for_each(|v| walk(v, found));
        }
        Value::String(text) => text_of(&unescape(text), found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Secrets inside a text: `NAME=value`, `--option=value`, `--option value`, `scheme://user:password@host`.
fn text_of(text: &str, found: &mut BTreeSet<String>) {
    if let Some((name, value)) = text.split_once('=')
        && !name.contains(char::is_whitespace)
        && is_secret(name.trim_start_matches('-'))
    {
        add(value, found);
    }
    let words: Vec<&str> = text.split_whitespace().map(|w| w.trim_matches(['"', '\''])).collect();
    for (index, word) in words.iter().enumerate() {
        match word.split_once('=') {
            Some((name, value)) if is_secret(name.trim_start_matches('-')) => {
                add(value.trim_matches(['"', '\'']), found);
            }
            None if word.starts_with('-') && is_secret(word.trim_start_matches('-')) => {
                if let Some(value) = words.get(index + 1) {
                    add(value, found);
                }
            }
            _ => {}
        }
    }
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        rest = rest.get(at + 3..).unwrap_or_default();
        let authority = rest.split(['/', '?', '#', '"', '\'']).next().unwrap_or_default();
        let authority = authority.split(char::is_whitespace).next().unwrap_or_default();
        // Passwords with a '/' of their own: up to the '@' of the whole address.
        let whole = rest.split(char::is_whitespace).next().unwrap_or_default();
        let user = authority.rsplit_once('@').or_else(|| whole.rsplit_once('@')).map(|(user, _)| user);
        if let Some((_, password)) = user.and_then(|u| u.split_once(':')) {
            add(password, found);
            add(&percent_decoded(password), found);
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.filter(|_| *first == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether something of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
    // A variable that names the file of a secret is none.
    if name.ends_with("_file") || name.ends_with("_path") || name.ends_with("_dir") {
        return false;
    }
    let words = ["key", "keys", "pass", "pwd", "pw", "dsn", "auth", "salt", "pat"];
    is_secret_name(&name)
        || name.ends_with("pass")
        || name.ends_with("key")
        || name.contains("basicauth")
        || name.split('_').any(|word| words.contains(&word))
}

fn add(value: &str, found: &mut BTreeSet<String>) {
    let value = value.trim();
    let small = value.len() <= 5 && value.chars().all(|c| c.is_ascii_digit());
    let word = matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "true" | "false" | "yes" | "no" | "on" | "off" | "none" | "null"
    );
    if !small && !word && !value.starts_with("/run/secrets/") {
        found.insert(value.to_owned());
    }
}
