//! Differences of shape in words.
//!
//! Owns the wording. It must mention every object whose definition differs, and never show the digest
//! that stands for something secret.

use super::names;
use super::schema::{Object, Objects, Schema};
use std::collections::BTreeSet;

/// Definitions longer than this are not quoted.
const SHOWN: usize = 160;

/// Kinds whose definition is a digest of something secret.
const SECRET: [&str; 4] = ["password", "setting", "user mapping", "foreign server"];

fn shown<'a>(kind: &str, object: &'a Object) -> Option<&'a str> {
    let text = object.definition.as_str();
    (!SECRET.contains(&kind) && !text.is_empty() && text.len() <= SHOWN && !text.contains('\n'))
        .then_some(text)
}

/// A name without control characters.
fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Kinds whose definition the server prints from its parsed form: another major version may print the same one otherwise.
const PRINTED: [&str; 4] = ["view", "materialized view", "rule", "constraint"];

/// The new major version, where two servers may print the same definition in two ways.
pub(super) fn printed_otherwise(before: &Schema, after: &Schema) -> Option<u32> {
    (before.major != after.major).then_some(after.major)
}

/// Names everything that differs between two sets of objects. `database` is empty for the cluster; `printed_by` is
/// [`printed_otherwise`].
pub(in crate::store) fn changes(
    database: &str,
    printed_by: Option<u32>,
    before: &Objects,
    after: &Objects,
) -> Vec<String> {
    let place = if database.is_empty() { String::new() } else { format!("{}: ", names::database(database)) };
    let relations = |objects: &Objects| -> BTreeSet<String> {
        objects.values().filter_map(|o| o.parent.clone()).collect()
    };
    let (old_relations, new_relations) = (relations(before), relations(after));
    // What belongs to a table comes and goes with it; the table itself is mentioned.
    let comes_along = |name: &str, object: &Object| {
        object
            .parent
            .as_ref()
            .is_some_and(|p| p != name && !(old_relations.contains(p) && new_relations.contains(p)))
    };
    let mut words = Vec::new();
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (kind, name) = key;
        let shown_name = printable(name);
        let head = format!("{place}{kind} {shown_name}");
        match (before.get(key), after.get(key)) {
            (None, Some(new)) if !comes_along(name, new) => words.push(match shown(kind, new) {
                Some(text) => format!("{head} added ({text})"),
                None => format!("{head} added"),
            }),
            (Some(old), None) if !comes_along(name, old) => words.push(format!("{head} removed")),
            (Some(old), Some(new)) if old != new => words.push(match (shown(kind, old), shown(kind, new)) {
                (Some(a), Some(b)) => format!("{head}: {a} -> {b}"),
                _ if SECRET.contains(&kind.as_str()) => format!("{head} changed"),
                _ => match printed_by.filter(|_| PRINTED.contains(&kind.as_str())) {
                    Some(major) => format!("{head} redefined, or printed otherwise by Postgres {major}"),
                    None => format!("{head} redefined"),
                },
            }),
            _ => {}
        }
    }
    words
}
