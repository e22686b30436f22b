//! One table's difference: counts, and some of the rows.
//!
//! Owns which rows are examples: the first of each kind by the digest of their key.

use super::merge::{Line, Matched, Pair, content, each_row, merge, rows};
use super::schema::Column;
use super::{Client, Result, names, value};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use switchback_core::data::{PartChange, PartDiff, RowChange, RowOp};

/// Examples of each kind.
const EXAMPLES: usize = 5;

/// Which rows differ.
#[derive(Default)]
struct Found {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    counts: (u64, u64, u64),
}

impl Found {
    fn take(&mut self, matched: Matched) {
        let (list, count, line) = match matched {
            Matched::Before(line) => (&mut self.removed, &mut self.counts.1, line),
            Matched::After(line) => (&mut self.added, &mut self.counts.0, line),
            Matched::Both(old, new) if old.content != new.content => {
                (&mut self.changed, &mut self.counts.2, new)
            }
            Matched::Both(..) => return,
        };
        *count += 1;
        if list.len() < EXAMPLES && list.last() != Some(&line.key) {
            list.push(line.key);
        }
    }
}

/// A table that both states have, with other rows.
pub(super) fn changed(
    (before, after): (&dyn Client, &dyn Client),
    pair: &Pair<'_>,
    counts: (u64, u64),
    cancel: &(dyn Fn() -> bool + Sync),
) -> Result<PartDiff> {
    let at = (pair.database, pair.name);
    let (old_common, new_common) = pair.common();
    let (old_content, new_content) = (content(&old_common), content(&new_common));
    let key = pair.key();
    let (old_key, new_key) = (key.as_ref().map(|k| k.0.as_slice()), key.as_ref().map(|k| k.1.as_slice()));
    let old_sql = rows(at, old_key, &old_content, &[], None);
    let new_sql = rows(at, new_key, &new_content, &[], None);
    let mut found = Found::default();
    merge((before, &old_sql), (after, &new_sql), pair.database, cancel, &mut |matched| {
        found.take(matched);
        Ok(())
    })?;
    let (old_columns, new_columns) = (pair.before.stored(), pair.after.stored());
    let gone = |keys: &[&str]| {
        let values = (old_columns.as_slice(), old_key, old_content.as_str());
        some(before, at, values, keys, cancel)
    };
    let come = |keys: &[&str]| {
        let values = (new_columns.as_slice(), new_key, new_content.as_str());
        some(after, at, values, keys, cancel)
    };
    let list = |all: [&Vec<String>; 2]| -> Vec<String> { all.into_iter().flatten().cloned().collect() };
    let (olds, news) = (list([&found.removed, &found.changed]), list([&found.added, &found.changed]));
    let olds = gone(&olds.iter().map(String::as_str).collect::<Vec<_>>())?;
    let news = come(&news.iter().map(String::as_str).collect::<Vec<_>>())?;
    let named = |row: &Map<String, Value>| -> Map<String, Value> {
        let names = key.as_ref().map(|k| k.1.iter().map(|c| c.name.clone()).collect::<Vec<_>>());
        let names = names.unwrap_or_default();
        names.into_iter().filter_map(|n| row.get(&n).map(|v| (n.clone(), v.clone()))).collect()
    };
    let mut examples = Vec::new();
    for (op, keys) in
        [(RowOp::Insert, &found.added), (RowOp::Update, &found.changed), (RowOp::Delete, &found.removed)]
    {
        for digest in keys {
            let (before, row) = (olds.get(digest).cloned(), news.get(digest).cloned());
            let before = if op == RowOp::Insert { None } else { before };
            let row = if op == RowOp::Delete { None } else { row };
            let Some(shown) = row.as_ref().or(before.as_ref()) else { continue };
            examples.push(RowChange { op, key: named(shown), row, before });
        }
    }
    Ok(PartDiff {
        name: names::part(pair.database, pair.name),
        change: PartChange::Changed,
        before: counts.0,
        after: counts.1,
        rows_added: found.counts.0,
        rows_removed: found.counts.1,
        rows_changed: found.counts.2,
        columns_added: pair.added().iter().map(|c| c.name.clone()).collect(),
        columns_removed: pair.removed().iter().map(|c| c.name.clone()).collect(),
        examples,
        notes: Vec::new(),
    })
}

/// Some rows by the digests of their keys.
fn some(
    client: &dyn Client,
    at: (&str, &str),
    (values, key, content): (&[&Column], Option<&[&Column]>, &str),
    keys: &[&str],
    cancel: &dyn Fn() -> bool,
) -> Result<BTreeMap<String, Map<String, Value>>> {
    let mut found = BTreeMap::new();
    if keys.is_empty() {
        return Ok(found);
    }
    // Digests, made by the server.
    let list: Vec<String> = keys.iter().map(|k| names::literal(k)).collect();
    let sql = rows(at, key, content, values, Some(&list.join(", ")));
    each_row(client, at.0, &sql, cancel, |Line { key, values: told, .. }| {
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        found.insert(key, value::shown(values, &told));
        Ok(())
    })?;
    Ok(found)
}
