//! Anonymising copies of production's data: rules, and which columns they mean.
//!
//! Owns the masks, the form of rules and their assignment to columns. What a masked value looks like is `value`'s; SQL is
//! the engine's. A rule that means no column, or one that its mask does not fit, is an error: a mask that is not applied
//! must never go unnoticed.

mod find;
mod value;
mod words;

pub use find::{Finding, Likelihood, Sample, propose, redacted};
pub use value::{Key, days, masked, shifted};
pub use words::{CITIES, FIRST_NAMES, LAST_NAMES, LOREM, STREETS};

use crate::ids::StoreName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What becomes of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// An address at `example.invalid`, which nobody has.
    Email,
    /// A first and a last name.
    Name,
    /// A number in the country code 999, which is nobody's.
    Phone,
    /// A street with a number, and a town.
    Address,
    /// As many characters of nonsense. In JSON: every text in it; numbers and keys stay.
    Text,
    /// As many hexadecimal digits.
    Token,
    /// A date or time, moved by the same number of days for all.
    DateShift,
    /// A digest: a number for numbers, a UUID for UUIDs, hexadecimal digits for texts.
    Hash,
    /// Nothing.
    Null,
    /// As it is; says that somebody looked.
    Keep,
}

impl Mask {
    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Name => "name",
            Self::Phone => "phone",
            Self::Address => "address",
            Self::Text => "text",
            Self::Token => "token",
            Self::DateShift => "date_shift",
            Self::Hash => "hash",
            Self::Null => "null",
            Self::Keep => "keep",
        }
    }
}

/// What values a column holds, as far as masks care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Texts.
    Text,
    /// `json` and `jsonb`.
    Json,
    /// Whole numbers of so many bytes.
    Integer(u8),
    /// Decimal numbers.
    Decimal,
    /// UUIDs.
    Uuid,
    /// Bytes.
    Bytes,
    /// Dates, and times with a date.
    Date,
    /// SQLite: each value has a type of its own.
    Any,
    /// Anything else: truth values, enumerations, geometry.
    Other,
}

/// The fewest characters that a masked e-mail address takes: `u`, six digits, `@example.invalid`.
pub const SHORTEST_EMAIL: u32 = 23;

impl Family {
    /// Why a mask does not fit, if it does not.
    fn refuses(self, mask: Mask) -> Option<&'static str> {
        let fits = match mask {
            Mask::Keep | Mask::Null => true,
            Mask::Email | Mask::Name | Mask::Phone | Mask::Address | Mask::Token => {
                matches!(self, Self::Text | Self::Any)
            }
            Mask::Text => matches!(self, Self::Text | Self::Json | Self::Any),
            Mask::DateShift => matches!(self, Self::Date | Self::Any),
            Mask::Hash => !matches!(self, Self::Json | Self::Date | Self::Other),
        };
        (!fits).then_some(match mask {
            Mask::DateShift => "it holds no dates",
            Mask::Hash => "its type has no digest; `null` or `text` may do",
            _ => "it holds no texts; `hash` or `null` may do",
        })
    }
}

/// A column of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Database; empty for SQLite.
    pub database: String,
    /// Schema; empty for SQLite.
    pub schema: String,
    /// Table.
    pub table: String,
    /// Column.
    pub name: String,
    /// What it holds.
    pub family: Family,
    /// Its type, as SQL.
    pub sql_type: String,
    /// Whether each value is a list of them.
    pub array: bool,
    /// The most characters.
    pub limit: Option<u32>,
    /// Whether it must have a value.
    pub required: bool,
    /// Whether the database computes it from others.
    pub computed: bool,
}

impl Column {
    /// How it is written in rules and reports, without the store.
    pub fn path(&self) -> String {
        let parts = [&self.database, &self.schema, &self.table, &self.name];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).map(|p| quoted(p)).collect();
        parts.join(".")
    }

    fn same_table(&self, other: &Self) -> bool {
        (&self.database, &self.schema, &self.table) == (&other.database, &other.schema, &other.table)
    }
}

fn quoted(part: &str) -> String {
    if part.contains(['.', '"']) { format!("\"{}\"", part.replace('"', "\"\"")) } else { part.to_owned() }
}

/// A rule: which columns, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// As written.
    pub text: String,
    /// The store.
    pub store: StoreName,
    /// Database, schema, table, column; at least the last two.
    path: Vec<String>,
    /// The mask.
    pub mask: Mask,
}

/// Reads the rules of a configuration.
pub fn rules(all: &BTreeMap<String, Mask>) -> Result<Vec<Rule>, (String, String)> {
    all.iter().map(|(text, mask)| rule(text, *mask).map_err(|why| (text.clone(), why))).collect()
}

fn rule(text: &str, mask: Mask) -> Result<Rule, String> {
    let mut parts = split(text)?;
    if !(3..=5).contains(&parts.len()) {
        return Err("a rule is STORE.TABLE.COLUMN (Postgres also STORE.SCHEMA.TABLE.COLUMN, STORE.DATABASE.SCHEMA.TABLE.COLUMN)".to_owned());
    }
    let store = StoreName::new(parts.remove(0)).map_err(|e| e.to_string())?;
    Ok(Rule { text: text.to_owned(), store, path: parts, mask })
}

/// Splits at dots that are not in double quotes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut parts, mut part, mut within) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if within && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => within = !within,
            '.' if !within => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    if within {
        return Err("a double quote is not closed".to_owned());
    }
    if parts.iter().any(String::is_empty) {
        return Err("a part between two dots is empty".to_owned());
    }
    Ok(parts)
}

impl Rule {
    fn means(&self, column: &Column) -> bool {
        let all = [&column.database, &column.schema, &column.table, &column.name];
        self.path.iter().rev().zip(all.into_iter().rev()).all(|(wanted, is)| wanted == is)
    }
}

/// The mask of each column that has a rule. The more parts a rule names, the more it counts.
///
/// `references` are pairs of columns of which the first holds values of the second. Errors name every rule that cannot
/// be carried out.
pub fn assign(
    rules: &[Rule],
    columns: &[Column],
    references: &[(usize, usize)],
) -> Result<BTreeMap<usize, Mask>, Vec<String>> {
    let mut errors = Vec::new();
    let mut found: BTreeMap<usize, &Rule> = BTreeMap::new();
    for rule in rules {
        let meant: Vec<usize> = (0..columns.len()).filter(|i| rule.means(&columns[*i])).collect();
        if meant.is_empty() {
            let tables = columns.iter().filter(|c| rule.path.get(rule.path.len() - 2) == Some(&c.table));
            let names: Vec<&str> = tables.map(|c| c.name.as_str()).take(12).collect();
            errors.push(if names.is_empty() {
                format!("{}: there is no such table", rule.text)
            } else {
                format!("{}: there is no such column; the table has {}", rule.text, names.join(", "))
            });
        }
        for index in meant {
            let before = found.entry(index).or_insert(rule);
            if before.path.len() < rule.path.len() {
                *before = rule;
            }
        }
    }
    for (index, rule) in &found {
        if let Some(why) = unfit(&columns[*index], rule.mask) {
            errors.push(format!(
                "{}: {} cannot be masked by `{}`: {why}",
                rule.text,
                columns[*index].path(),
                rule.mask.as_str()
            ));
        }
    }
    let mask = |index: usize| found.get(&index).map(|r| r.mask).filter(|m| *m != Mask::Keep);
    for (from, to) in references {
        if mask(*from) != mask(*to) && mask(*from) != Some(Mask::Null) {
            let word = |index: usize| mask(index).map_or("nothing", Mask::as_str);
            errors.push(format!(
                "{} refers to {}: both need the same mask, not `{}` and `{}`",
                columns[*from].path(),
                columns[*to].path(),
                word(*from),
                word(*to)
            ));
        }
    }
    errors.sort();
    errors.dedup();
    if errors.is_empty() { Ok(found.iter().map(|(i, r)| (*i, r.mask)).collect()) } else { Err(errors) }
}

fn unfit(column: &Column, mask: Mask) -> Option<String> {
    if mask == Mask::Keep {
        return None;
    }
    if column.computed {
        return Some("the database computes it from other columns: mask those".to_owned());
    }
    if mask == Mask::Null {
        return column.required.then(|| "it must have a value".to_owned());
    }
    if column.array && column.family != Family::Text {
        return Some("it holds lists of something else than texts; `null` may do".to_owned());
    }
    if mask == Mask::Email && column.limit.is_some_and(|l| l < SHORTEST_EMAIL) {
        return Some(format!("a masked address has at least {SHORTEST_EMAIL} characters"));
    }
    column.family.refuses(mask).map(str::to_owned)
}

/// The columns of each table that are masked, in order; columns that are kept are left out.
pub fn by_table(columns: &[Column], masks: &BTreeMap<usize, Mask>) -> Vec<Vec<(usize, Mask)>> {
    let mut tables: Vec<Vec<(usize, Mask)>> = Vec::new();
    for (index, mask) in masks.iter().filter(|(_, m)| **m != Mask::Keep) {
        match tables.iter_mut().find(|t| columns[t[0].0].same_table(&columns[*index])) {
            Some(table) => table.push((*index, *mask)),
            None => tables.push(vec![(*index, *mask)]),
        }
    }
    tables
}

/// A column that was masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedColumn {
    /// `table.column`, for Postgres with database and schema.
    pub column: String,
    /// The mask.
    pub mask: Mask,
    /// Values that it replaced.
    pub values: u64,
}

/// What was masked in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedStore {
    /// The columns, in order.
    pub columns: Vec<MaskedColumn>,
    /// Milliseconds.
    pub took_ms: u64,
    /// What a person should know: what no rule can reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests;
