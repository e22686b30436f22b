//! Which rows a comparison has to look at.
//!
//! Owns looking rows up by keys that are known from elsewhere. The keys must come in the order in which rows are merged, and be
//! written as the server writes them.

use super::compare::{Key, Pair, Side, Sort};
use super::names::literal;
use super::schema::Kind;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Keys that are looked up in one statement.
const AT_ONCE: usize = 10_000;

/// The keys of the rows of one table that were written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The columns.
    pub columns: Vec<String>,
    /// Their values as text, each key once.
    pub rows: Vec<Vec<String>>,
}

/// The tables of one database of which it is known which rows were written to; all others are compared as a whole.
pub type Scope = BTreeMap<(String, String), Keys>;

/// Scopes by database; one that is missing is compared as a whole.
pub type Scopes = BTreeMap<String, Scope>;

/// Which rows of a table are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    /// All.
    All,
    /// Those of these buckets.
    Buckets(Vec<u32>),
    /// Those with these keys, in order.
    Keys(Vec<Vec<String>>),
}

/// The keys of a pair in the order of its rows, if it can be read by them.
pub(super) fn keys_of(pair: &Pair<'_>, scope: &Scope) -> Option<Vec<Vec<String>>> {
    let keys = scope.get(&(pair.after.schema.clone(), pair.after.name.clone()))?;
    if pair.before.kind != Kind::Table || pair.after.kind != Kind::Table {
        return None;
    }
    if keys.rows.is_empty() {
        return Some(Vec::new());
    }
    let Key::Primary(columns) = &pair.key else { return None };
    let same = |name: &String| {
        let both = pair.before.column(name).zip(pair.after.column(name));
        both.is_some_and(|(before, after)| before.decl == after.decl)
    };
    if columns.len() != keys.columns.len()
        || columns.iter().any(|(name, sort)| *sort == Sort::Number || !same(name))
    {
        return None;
    }
    let places: Option<Vec<usize>> =
        columns.iter().map(|(name, _)| keys.columns.iter().position(|c| c == name)).collect();
    let places = places?;
    let ordered = |row: &Vec<String>| -> Option<Vec<String>> {
        places.iter().map(|at| row.get(*at).cloned()).collect()
    };
    let mut rows = keys.rows.iter().map(ordered).collect::<Option<Vec<_>>>()?;
    let integers = pair.integers();
    // A number that is none would be sorted anywhere.
    let is_number = |row: &Vec<String>| {
        row.iter().zip(&integers).all(|(value, integer)| !integer || value.parse::<i64>().is_ok())
    };
    if !rows.iter().all(is_number) {
        return None;
    }
    rows.sort_unstable_by(|a, b| order(a, b, &integers));
    rows.dedup();
    Some(rows)
}

fn order(a: &[String], b: &[String], integers: &[bool]) -> Ordering {
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    let mut columns = a.iter().zip(b).zip(integers);
    columns
        .find_map(|((a, b), integer)| {
            let order = if *integer { number(a).cmp(&number(b)) } else { a.as_bytes().cmp(b.as_bytes()) };
            order.is_ne().then_some(order)
        })
        .unwrap_or(Ordering::Equal)
}

/// The statements that read the rows with these keys, in order; `query` makes one of a condition.
pub(super) fn by_keys(
    pair: &Pair<'_>,
    side: Side,
    rows: &[Vec<String>],
    query: impl Fn(&str) -> String,
) -> String {
    let Key::Primary(columns) = &pair.key else { return String::new() };
    let table = pair.table(side);
    let names: Vec<String> = columns.iter().map(|(n, _)| format!("t.{}", super::names::ident(n))).collect();
    let values: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, (name, _))| format!("k.k{i}::{}", table.column(name).map_or("text", |c| c.decl.as_str())))
        .collect();
    let given: Vec<String> = (0..columns.len()).map(|i| format!("k{i}")).collect();
    let mut out = String::new();
    for some in rows.chunks(AT_ONCE) {
        let arrays: Vec<String> = (0..columns.len())
            .map(|i| format!("{}::text[]", literal(&array(some.iter().filter_map(|row| row.get(i))))))
            .collect();
        out.push_str(&query(&format!(
            " WHERE ({}) IN (SELECT {} FROM unnest({}) AS k({}))",
            names.join(","),
            values.join(","),
            arrays.join(","),
            given.join(",")
        )));
    }
    if out.is_empty() {
        return out;
    }
    // Each row by the index of its key, however small the table is thought to be.
    format!("{BY_INDEX}{out}{AS_EVER}")
}

const BY_INDEX: &str =
    "SET LOCAL enable_seqscan = off;\nSET LOCAL enable_hashjoin = off;\nSET LOCAL enable_mergejoin = off;\n";
const AS_EVER: &str =
    "SET LOCAL enable_seqscan = on;\nSET LOCAL enable_hashjoin = on;\nSET LOCAL enable_mergejoin = on;\n";

/// A text array as the server reads it.
fn array<'a>(values: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::from("{");
    for (number, value) in values.enumerate() {
        if number > 0 {
            text.push(',');
        }
        text.push('"');
        for c in value.chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_as_rows_are_merged() {
        let row = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut rows = vec![row(&["10", "a"]), row(&["9", "b"]), row(&["-1", "z"]), row(&["9", "B"])];
        rows.sort_by(|a, b| order(a, b, &[true, false]));
        assert_eq!(rows, [row(&["-1", "z"]), row(&["9", "B"]), row(&["9", "b"]), row(&["10", "a"])]);
    }

    #[test]
    fn any_text_is_one_element_of_an_array() {
        let values = ["a,b".to_owned(), "\"q\"\\ {}".to_owned(), String::new(), "NULL".to_owned()];
        assert_eq!(array(values.iter()), "{\"a,b\",\"\\\"q\\\"\\\\ {}\",\"\",\"NULL\"}");
    }
}
