//! Secrets that a staging copy never gets.
//!
//! A value is replaced wherever it stands in what containers are told: the same value by the same generated one, so that
//! what has to agree still agrees. Nothing here ever names a value.

use super::super::model::section;
use super::super::{escape, unescape};
use super::Told;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Shorter values are replaced in their own variable only: elsewhere they would be found in ordinary text.
const FOUND_ELSEWHERE: usize = 8;
/// The length of a generated value whose original is not known.
const UNKNOWN: usize = 32;
/// Parts of a service that can hold values.
const PLACES: [&str; 6] = ["environment", "command", "entrypoint", "healthcheck", "annotations", "labels"];

/// What is replaced, and by what.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Replacements {
    /// Names of variables and of Compose secrets.
    pub names: BTreeSet<String>,
    /// What generated values are derived with; random, and kept as long as the environment.
    pub key: String,
    /// Per Compose secret: the file that its replacement stands in, and what it is.
    pub files: BTreeMap<String, Replaced>,
}

/// A Compose secret that is replaced.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The file with the generated value.
    pub path: String,
    /// The original; empty where it cannot be read.
    pub original: String,
}

impl Replacements {
    /// The generated value for an original: of the same length, and equal for equal originals.
    pub fn generated(&self, name: &str, original: &str) -> String {
        let (seed, length) = match original.chars().count() {
            0 => (format!("name:{name}"), UNKNOWN),
            n => (format!("value:{original}"), n),
        };
        let mut hasher = blake3::Hasher::new_derive_key("switchback staging secret");
        hasher.update(self.key.as_bytes()).update(&[0]).update(seed.as_bytes());
        let mut bytes = vec![0; length];
        hasher.finalize_xof().fill(&mut bytes);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        bytes.iter().map(|b| char::from(letters[usize::from(*b) % letters.len()])).collect()
    }
}

/// Replaces the values in every service, and the files of secrets.
pub(super) fn replace(root: &mut Map<String, Value>, wanted: &Replacements, told: &mut Told) {
    if wanted.names.is_empty() {
        return;
    }
    let mut found: BTreeSet<&String> = BTreeSet::new();
    // Longest first, so that a value inside another is not replaced in its middle.
    let mut values: Vec<(String, String)> = Vec::new();
    let mut known = |name: &String, original: &str| {
        if original.chars().count() >= FOUND_ELSEWHERE {
            let new = wanted.generated(name, original);
            values.push((original.to_owned(), new.clone()));
            let encoded = crate::workflow::percent_encoded(original);
            if encoded != original {
                values.push((encoded, new));
            }
        }
    };
    for (_, service) in section(root, "services") {
        let Some(environment) = service.get_mut("environment").and_then(Value::as_object_mut) else {
            continue;
        };
        for name in &wanted.names {
            let Some(value) = environment.get_mut(name) else { continue };
            let original = match &*value {
                Value::String(text) => unescape(text),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            found.insert(name);
            if original.is_empty() {
                continue;
            }
            known(name, &original);
            *value = Value::from(wanted.generated(name, &original));
        }
    }
    for (name, file) in &wanted.files {
        if wanted.names.contains(name) {
            known(name, file.original.trim_end_matches(['\r', '\n']));
        }
    }
    values.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
    values.dedup();
    let values: Vec<(String, String)> = values.into_iter().map(|(old, new)| (escape(&old), new)).collect();
    for (_, service) in section(root, "services") {
        for place in PLACES {
            if let Some(part) = service.get_mut(place) {
                in_texts(part, &values);
            }
        }
    }
    for (_, config) in section(root, "configs") {
        if let Some(content) = config.get_mut("content") {
            in_texts(content, &values);
        }
    }
    for (key, secret) in section(root, "secrets") {
        let Some((name, file)) = wanted.files.get_key_value(key).filter(|(n, _)| wanted.names.contains(*n))
        else {
            continue;
        };
        found.insert(name);
        *secret = json!({ "name": key, "file": escape(&file.path) });
    }
    for section in ["configs", "secrets"] {
        if root.get(section).and_then(Value::as_object).is_some_and(Map::is_empty) {
            root.shift_remove(section);
        }
    }
    for name in &wanted.names {
        let (what, why) = if found.contains(name) {
            (
                format!("{name} has a generated value, wherever its own stood"),
                "staging.replace_secrets names it",
            )
        } else {
            (format!("{name} was to be replaced, and nothing has it"), "staging.replace_secrets names it")
        };
        told.say(None, what, why);
    }
}

fn in_texts(value: &mut Value, values: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (old, new) in values {
                if text.contains(old.as_str()) {
                    *text = text.replace(old.as_str(), new);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| in_texts(v, values)),
        Value::Object(map) => map.iter_mut().for_each(|(_, v)| in_texts(v, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
