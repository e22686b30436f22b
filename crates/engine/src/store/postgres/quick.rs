//! Sums of a table's rows by the server's own hash, three times as fast as those of their texts.
//!
//! Owns when they say as much: both servers have one major version, and a value counts by itself only where two equal values are the
//! same value. 1.0 and 1.00 are equal to the server, so are texts of some collations and arrays with other bounds; such
//! columns count as text. Where the sums differ, rows are compared as ever.

use super::compare::{Key, Pair, Side};
use super::names::ident;
use super::schema::Column;
use super::sums;
use std::hash::{BuildHasher as _, RandomState};

/// The first version with `hash_record_extended`.
const MAJOR: u32 = 14;

/// Types, as `format_type` writes them, of which two equal values are the same value.
const EXACT: [&str; 12] = [
    "bigint",
    "boolean",
    "bytea",
    "character varying",
    "date",
    "integer",
    "oid",
    "smallint",
    "text",
    "timestamp with time zone",
    "timestamp without time zone",
    "uuid",
];

/// What the hashes begin with: another number each time, so that no data is made to look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(i64);

impl Seed {
    /// A new one, if servers of these versions hash alike.
    pub(super) fn of(before: u32, after: u32) -> Option<Self> {
        (before == after && before >= MAJOR).then(|| Self(RandomState::new().hash_one(()).cast_signed() >> 1))
    }
}

/// Whether a type's values are equal only if they are the same. A number with a declared scale has no other form.
fn exact(column: &Column) -> bool {
    let decl = column.decl.as_str();
    let plain = match (decl.find('('), decl.find(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &decl[..open], &decl[close + 1..]),
        _ => decl.to_owned(),
    };
    EXACT.contains(&plain.as_str()) || (plain == "numeric" && plain.len() < decl.len())
}

fn has_collation(column: &Column) -> bool {
    column.decl == "text" || column.decl.starts_with("character varying")
}

/// A column of both sides as it can be hashed; `None` if only its text can.
fn value(pair: &Pair<'_>, name: &str) -> Option<String> {
    let (before, after) = (pair.before.column(name)?, pair.after.column(name)?);
    (before.decl == after.decl && exact(after)).then(|| {
        let collation = if has_collation(after) { " COLLATE \"C\"" } else { "" };
        format!("t.{}{collation}", ident(name))
    })
}

/// The hash of a row. The server's own hash of a record adds up those of its values, in which two rows that exchange a value
/// would cancel out: it is hashed once more.
fn row(pair: &Pair<'_>, Seed(seed): Seed) -> String {
    let mut values = Vec::new();
    let mut texts = Vec::new();
    for name in &pair.common {
        match value(pair, name) {
            Some(sql) => values.push(sql),
            None => texts.push(name.clone()),
        }
    }
    if !texts.is_empty() {
        values.push(sums::row_text(&texts));
    }
    format!("hashint8extended(hash_record_extended(ROW({}), {seed}), {seed})", values.join(","))
}

/// The hash of one column of a key, by the function of its type: half of the time would go into making a record of it.
fn hash(pair: &Pair<'_>, name: &str, place: usize) -> Option<String> {
    let value = value(pair, name)?;
    let function = match pair.after.column(name)?.decl.as_str() {
        "bigint" => "hashint8extended",
        "integer" => "hashint4extended",
        "smallint" => "hashint2extended",
        "uuid" => "uuid_hash_extended",
        decl if decl == "text" || decl.starts_with("character varying") => "hashtextextended",
        _ => return Some(format!("hash_record_extended(ROW({value}), {place})")),
    };
    Some(format!("{function}({value}, {place})"))
}

/// By what the rows of a large table are cut into buckets.
pub(super) fn key(pair: &Pair<'_>, seed: Seed) -> String {
    match &pair.key {
        Key::Values => row(pair, seed),
        Key::Primary(columns) => {
            let named = columns.iter().enumerate();
            let hashes: Option<Vec<String>> =
                named.map(|(place, (name, _))| hash(pair, name, place)).collect();
            match hashes {
                Some(hashes) => format!("({})", hashes.join(" # ")),
                None => format!("hashtextextended({}, 0)", pair.key_text()),
            }
        }
    }
}

/// A query whose lines are: s, number of the pair, bucket, rows, sum, nothing.
pub(super) fn query(number: usize, pair: &Pair<'_>, side: Side, seed: Seed) -> String {
    let table = pair.table(side);
    if !table.populated {
        return String::new();
    }
    format!(
        "COPY (SELECT 's', {number}, {}, count(*), sum({}), '' FROM {} GROUP BY 3) TO STDOUT;\n",
        sums::bucket(pair),
        row(pair, seed),
        table.from(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_whose_equal_values_are_the_same_count_by_themselves() {
        let column = |decl: &str| Column {
            name: "c".into(),
            decl: decl.into(),
            base: decl.into(),
            default: None,
            constant: false,
        };
        for decl in
            ["bigint", "text", "character varying(20)", "numeric(12,2)", "timestamp(3) with time zone"]
        {
            assert!(exact(&column(decl)), "{decl}");
        }
        for decl in [
            "numeric",
            "double precision",
            "jsonb",
            "interval",
            "character(3)",
            "integer[]",
            "numeric(12,2)[]",
            "citext",
            "public.text",
        ] {
            assert!(!exact(&column(decl)), "{decl}");
        }
    }

    #[test]
    fn servers_of_other_or_old_versions_are_summed_up_as_text() {
        assert!(Seed::of(15, 17).is_none() && Seed::of(13, 13).is_none());
        let (one, other) = (Seed::of(17, 17), Seed::of(17, 17));
        assert!(one.is_some() && one != other);
    }
}
