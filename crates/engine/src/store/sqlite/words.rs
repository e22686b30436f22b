//! Schema changes in words.
//!
//! Owns the wording. It must mention every object whose SQL differs.

use super::schema::{Column, Schema, Table};
use std::collections::BTreeSet;

/// Names everything that differs in the shape of two states.
pub(super) fn schema_changes(before: &Schema, after: &Schema) -> Vec<String> {
    let mut words = Vec::new();
    for (what, a, b) in [
        ("user_version", before.user_version, after.user_version),
        ("application_id", before.application_id, after.application_id),
    ] {
        if a != b {
            words.push(format!("{what} {a} -> {b}"));
        }
    }
    if before.encoding != after.encoding {
        words.push(format!("encoding {} -> {}", before.encoding, after.encoding));
    }
    let keys: BTreeSet<_> = before.objects.keys().chain(after.objects.keys()).collect();
    for key in keys {
        let (kind, name) = key;
        match (before.objects.get(key), after.objects.get(key)) {
            // SQLite's own indexes come and go with their tables.
            (old, new) if old.or(new).is_some_and(|o| o.sql.is_none()) => {}
            (None, Some(_)) => words.push(format!("{kind} {name} added")),
            (Some(_), None) => words.push(format!("{kind} {name} removed")),
            (Some(old), Some(new)) if old != new => {
                let columns = match (before.tables.get(name), after.tables.get(name)) {
                    (Some(old), Some(new)) if kind == "table" => column_changes(old, new),
                    _ => Vec::new(),
                };
                if columns.is_empty() {
                    words.push(format!("{kind} {name} redefined"));
                }
                words.extend(columns);
            }
            _ => {}
        }
    }
    words
}

fn described(column: &Column) -> String {
    let mut text = if column.decl.is_empty() { "no type".to_owned() } else { column.decl.clone() };
    if column.notnull {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(" DEFAULT ");
        text.push_str(default);
    }
    text
}

fn column_changes(before: &Table, after: &Table) -> Vec<String> {
    let table = &after.name;
    let mut words = Vec::new();
    for new in &after.columns {
        let name = &new.name;
        let Some(old) = before.column(name) else {
            words.push(format!("table {table}: column {name} added ({})", described(new)));
            continue;
        };
        if old.decl != new.decl {
            words.push(format!("table {table}: column {name} type {:?} -> {:?}", old.decl, new.decl));
        }
        if old.notnull != new.notnull {
            words.push(format!(
                "table {table}: column {name} {} NOT NULL",
                if new.notnull { "became" } else { "is no longer" }
            ));
        }
        if old.default != new.default {
            let show = |d: &Option<String>| d.clone().unwrap_or_else(|| "none".to_owned());
            words.push(format!(
                "table {table}: column {name} default {} -> {}",
                show(&old.default),
                show(&new.default)
            ));
        }
    }
    for old in before.columns.iter().filter(|c| after.column(&c.name).is_none()) {
        words.push(format!("table {table}: column {} removed ({})", old.name, described(old)));
    }
    if before.key != after.key {
        words.push(format!(
            "table {table}: primary key ({}) -> ({})",
            before.key.join(", "),
            after.key.join(", ")
        ));
    }
    if before.rowid.is_some() != after.rowid.is_some() {
        words.push(format!(
            "table {table}: {} rowid",
            if after.rowid.is_some() { "has a" } else { "lost its" }
        ));
    }
    if before.strict != after.strict {
        words.push(format!("table {table}: {} STRICT", if after.strict { "became" } else { "is no longer" }));
    }
    words
}
