//! One table in two states: which columns they share, what their rows are matched by.
//!
//! Owns the choice of the key and the SQL that reads a side in the order of that key. Both servers must
//! sort alike whatever their collations, so everything but integers and UUIDs is sorted as bytes.

use super::names::{ident, literal};
use super::quick::Seed;
use super::ranges::Range;
use super::schema::{Column, Table};
use super::scope::{Rows, by_keys};
use super::sums::row_text;

/// How rows of two states belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// By the primary key that both have, in key order.
    Primary(Vec<(String, Sort)>),
    /// By nothing but their values: equal rows belong together, whatever is left is gone or new.
    Values,
}

/// How a key column is sorted and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// As an integer.
    Integer,
    /// As a number without trailing zeros, by its text.
    Number,
    /// As a UUID, whose order is that of its text.
    Uuid,
    /// As text, byte by byte.
    Text,
    /// By the bytes of what the type's output function writes.
    Output,
}

fn is_integer(column: &Column) -> bool {
    matches!(column.base.as_str(), "int2" | "int4" | "int8")
}

fn is_text(column: &Column) -> bool {
    matches!(column.decl.as_str(), "text" | "character varying")
        || column.decl.starts_with("character varying(")
}

fn sort(before: &Column, after: &Column) -> Sort {
    let both = |test: &dyn Fn(&Column) -> bool| test(before) && test(after);
    if both(&is_integer) {
        Sort::Integer
    } else if both(&|c| is_integer(c) || c.base == "numeric") {
        Sort::Number
    } else if both(&|c| c.decl == "uuid") {
        Sort::Uuid
    } else if both(&is_text) {
        Sort::Text
    } else {
        Sort::Output
    }
}

/// One table in two states. For an added or dropped table both are the same.
pub(super) struct Pair<'a> {
    pub name: String,
    pub before: &'a Table,
    pub after: &'a Table,
    pub key: Key,
    /// Columns of both states, in the new order.
    pub common: Vec<String>,
    pub added: Vec<&'a Column>,
    pub removed: Vec<&'a Column>,
    /// Whether the server's encoding sorts as UTF-8 does.
    pub utf8: bool,
    /// Where the servers' own hash is enough for a first look.
    pub quick: Option<Seed>,
    /// Where the key is cut into ranges.
    pub range: Option<Range>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(name: &str, before: &'a Table, after: &'a Table, utf8: bool) -> Self {
        let key = if !before.key.is_empty() && before.key == after.key {
            let column = |k: &String| {
                let sort = before.column(k).zip(after.column(k)).map_or(Sort::Output, |(a, b)| sort(a, b));
                (k.clone(), sort)
            };
            Key::Primary(before.key.iter().map(column).collect())
        } else {
            Key::Values
        };
        Self {
            name: name.to_owned(),
            before,
            after,
            key,
            common: after
                .columns
                .iter()
                .filter(|c| before.column(&c.name).is_some())
                .map(|c| c.name.clone())
                .collect(),
            added: after.columns.iter().filter(|c| before.column(&c.name).is_none()).collect(),
            removed: before.columns.iter().filter(|c| after.column(&c.name).is_none()).collect(),
            utf8,
            quick: None,
            range: None,
        }
    }

    /// The same, with its key cut into ranges.
    #[must_use]
    pub(super) fn ranged(mut self, range: Option<Range>) -> Self {
        self.range = range;
        self
    }

    /// The same, looked at by the servers' own hash first, if there is a seed and something to hash.
    #[must_use]
    pub(super) fn quickly(mut self, seed: Option<Seed>) -> Self {
        self.quick = seed.filter(|_| !self.common.is_empty());
        self
    }

    /// The values of the key, as SQL: what is compared.
    fn keys(&self) -> Vec<(String, bool)> {
        match &self.key {
            Key::Primary(columns) => columns
                .iter()
                .map(|(name, sort)| {
                    let column = format!("t.{}", ident(name));
                    match sort {
                        Sort::Integer | Sort::Uuid => (column, true),
                        Sort::Number => (format!("trim_scale({column}::numeric)::text"), false),
                        Sort::Text => (format!("{column}::text"), false),
                        Sort::Output => (format!("format('%s', {column})"), false),
                    }
                })
                .collect(),
            Key::Values => {
                let row = row_text(&self.common);
                vec![
                    (format!("hashtextextended({row}, 1)"), true),
                    (format!("hashtextextended({row}, 2)"), true),
                ]
            }
        }
    }

    /// Which of the key's values are integers; the others are bytes.
    pub(super) fn integers(&self) -> Vec<bool> {
        match &self.key {
            Key::Primary(columns) => columns.iter().map(|(_, s)| *s == Sort::Integer).collect(),
            Key::Values => vec![true, true],
        }
    }

    /// One text for the key's values.
    pub(super) fn key_text(&self) -> String {
        let list: Vec<String> = self.keys().into_iter().map(|(sql, _)| sql).collect();
        format!("ROW({})::text COLLATE \"C\"", list.join(","))
    }

    /// Columns of one side in the order in which they are read: the common ones, then its own.
    pub(super) fn read_columns(&self, side: Side) -> Vec<&'a Column> {
        let table = self.table(side);
        let own = match side {
            Side::Before => &self.removed,
            Side::After => &self.added,
        };
        self.common.iter().filter_map(|c| table.column(c)).chain(own.iter().copied()).collect()
    }

    pub(super) fn table(&self, side: Side) -> &'a Table {
        match side {
            Side::Before => self.before,
            Side::After => self.after,
        }
    }

    /// Whether all added columns hold their default, as SQL; `false` where that cannot be told.
    fn untouched(&self) -> String {
        if self.added.iter().any(|c| !c.constant) {
            return "false".to_owned();
        }
        let columns: Vec<String> = self.added.iter().map(|c| format!("t.{}", ident(&c.name))).collect();
        // The default is text of the server's own that `constant` vouches for; the type is from
        // `format_type`, which quotes.
        let defaults: Vec<String> = self
            .added
            .iter()
            .map(|c| format!("({})::{}", c.default.as_deref().unwrap_or("NULL"), c.decl))
            .collect();
        format!("ROW({})::text = ROW({})::text", columns.join(","), defaults.join(","))
    }

    /// A query whose lines are: r, untouched, the key's values, the columns.
    pub(super) fn query(&self, side: Side, rows: &Rows) -> String {
        if !self.table(side).populated {
            return String::new();
        }
        match rows {
            Rows::All => self.copy(side, ""),
            Rows::Buckets(buckets) if self.range.is_some() => {
                let filter = self.range.map(|r| r.filter(self, buckets)).unwrap_or_default();
                self.copy(side, &format!(" WHERE {filter}"))
            }
            Rows::Buckets(buckets) => {
                let list: Vec<String> = buckets.iter().map(u32::to_string).collect();
                self.copy(side, &format!(" WHERE ({}) IN ({})", super::sums::bucket(self), list.join(",")))
            }
            Rows::Keys(keys) => by_keys(self, side, keys, |filter| self.copy(side, filter)),
        }
    }

    fn copy(&self, side: Side, filter: &str) -> String {
        let table = self.table(side);
        let keys = self.keys();
        let untouched =
            if side == Side::After && !self.added.is_empty() { self.untouched() } else { "true".to_owned() };
        let columns = self.read_columns(side).into_iter().map(|c| format!("t.{}", ident(&c.name)));
        let list: Vec<String> = [literal("r"), untouched]
            .into_iter()
            .chain(keys.iter().map(|(sql, _)| sql.clone()))
            .chain(columns)
            .collect();
        let order: Vec<String> = keys
            .iter()
            .map(|(sql, native)| match (native, self.utf8) {
                (true, _) => sql.clone(),
                (false, true) => format!("{sql} COLLATE \"C\""),
                (false, false) => format!("convert_to({sql}, 'UTF8')"),
            })
            .collect();
        format!(
            "COPY (SELECT {} FROM {}{filter} ORDER BY {}) TO STDOUT;\n",
            list.join(","),
            table.from(),
            order.join(",")
        )
    }
}

/// Which of the two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}
