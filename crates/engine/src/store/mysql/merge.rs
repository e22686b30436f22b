//! The rows of a table in two states, side by side.
//!
//! Owns the order: by the digest of the key, which every server sorts alike. Rows are streamed; memory does not grow with them.

use super::names::table as quoted;
use super::represent::{digest, shown};
use super::schema::{Column, Table};
use super::{Client, MyError, Result, session};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Rows handed over at a time.
const BATCH: usize = 256;
/// Batches that may wait.
const WAITING: usize = 16;

/// One row: the digest of its key, the digest of its content, its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub key: String,
    pub content: String,
    pub values: Vec<String>,
}

/// A table as both states have it.
pub(super) struct Pair<'a> {
    pub database: &'a str,
    pub name: &'a str,
    pub before: &'a Table,
    pub after: &'a Table,
}

/// Columns of two states by the same names.
pub(super) type Columns<'a> = (Vec<&'a Column>, Vec<&'a Column>);

impl<'a> Pair<'a> {
    /// Columns that both have, as each has them; those that are computed in both say nothing new.
    pub(super) fn common(&self) -> Columns<'a> {
        let (before, after) = (self.before, self.after);
        let both = before.columns.iter().filter_map(|old| {
            after.column(&old.name).filter(|new| old.stored || new.stored).map(|new| (old, new))
        });
        both.unzip()
    }

    /// Columns that only the new state has.
    pub(super) fn added(&self) -> Vec<&'a Column> {
        self.after.columns.iter().filter(|c| self.before.column(&c.name).is_none()).collect()
    }

    /// Columns that only the old state has.
    pub(super) fn removed(&self) -> Vec<&'a Column> {
        self.before.columns.iter().filter(|c| self.after.column(&c.name).is_none()).collect()
    }

    /// The columns of the primary key, if both states have the same one.
    pub(super) fn key(&self) -> Option<Columns<'a>> {
        if self.before.key.is_empty() || self.before.key != self.after.key {
            return None;
        }
        let columns =
            |table: &'a Table| table.key.iter().map(|name| table.column(name)).collect::<Option<_>>();
        Some((columns(self.before)?, columns(self.after)?))
    }
}

/// Two states of a table in which columns that are of another kind in the other state are told as text.
pub(super) fn harmonised(before: &Table, after: &Table) -> (Table, Table) {
    let told = |own: &Table, other: &Table| {
        let mut own = own.clone();
        for column in &mut own.columns {
            column.mixed = other.column(&column.name).is_some_and(|o| o.class != column.class);
        }
        own
    };
    (told(before, after), told(after, before))
}

/// The statement that tells the rows of one side: the digests of key and content, then values.
pub(super) fn rows(
    (database, name): (&str, &str),
    key: Option<&[&Column]>,
    content: &str,
    values: &[&Column],
    only: Option<&str>,
) -> String {
    let key = key.map_or_else(|| content.to_owned(), digest);
    let told: String = values.iter().enumerate().map(|(n, c)| format!(", {} AS v{n}", shown(c))).collect();
    let names: String = (0..values.len()).map(|n| format!(", v{n}")).collect();
    let only = only.map_or_else(String::new, |keys| format!(" WHERE k IN ({keys})"));
    format!(
        "SELECT 'r', k, h{names} FROM (SELECT {key} AS k, {content} AS h{told} FROM {}) q{only} ORDER BY k, h;\n",
        quoted(database, name)
    )
}

/// The content of a row by some of its columns.
pub(super) fn content(columns: &[&Column]) -> String {
    if columns.is_empty() { "MD5('')".to_owned() } else { digest(columns) }
}

/// Reads the rows that a statement tells.
pub(super) fn each_row(
    client: &dyn Client,
    database: &str,
    sql: &str,
    cancel: &dyn Fn() -> bool,
    mut each: impl FnMut(Line) -> Result<()>,
) -> Result<()> {
    session::each_line(client, database, &session::reading(sql), cancel, |row| {
        let (key, content) = (row.text(1)?, row.text(2)?);
        if key == "NULL" || content == "NULL" {
            return Err(MyError::Unsupported {
                what: format!("database {database:?}"),
                why: "a value is too large to be compared; raise `max_allowed_packet` of the server"
                    .to_owned(),
            });
        }
        each(Line {
            key: key.to_owned(),
            content: content.to_owned(),
            values: row.rest(3).iter().map(|v| (*v).to_owned()).collect(),
        })
    })
}

fn send(
    client: &dyn Client,
    database: &str,
    sql: &str,
    cancel: &(dyn Fn() -> bool + Sync),
    to: &SyncSender<Vec<Line>>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    // Whoever takes them has ended, and says why.
    let gone = |_| MyError::Cancelled;
    each_row(client, database, sql, cancel, |line| {
        batch.push(line);
        if batch.len() < BATCH {
            return Ok(());
        }
        to.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).map_err(gone)
    })?;
    to.send(batch).map_err(gone)
}

/// A row of either state, or of both by the same key.
pub(super) enum Matched {
    Before(Line),
    After(Line),
    Both(Line, Line),
}

fn walk(
    before: Receiver<Vec<Line>>,
    after: Receiver<Vec<Line>>,
    each: &mut dyn FnMut(Matched) -> Result<()>,
) -> Result<()> {
    let (mut old, mut new) =
        (before.into_iter().flatten().peekable(), after.into_iter().flatten().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.key.cmp(&b.key),
        };
        let matched = match order {
            std::cmp::Ordering::Less => old.next().map(Matched::Before),
            std::cmp::Ordering::Greater => new.next().map(Matched::After),
            std::cmp::Ordering::Equal => old.next().zip(new.next()).map(|(a, b)| Matched::Both(a, b)),
        };
        if let Some(matched) = matched {
            each(matched)?;
        }
    }
}

/// Reads both sides at once and hands over every row. What was handed over counts only if this succeeds.
pub(super) fn merge(
    (before, before_sql): (&dyn Client, &str),
    (after, after_sql): (&dyn Client, &str),
    database: &str,
    cancel: &(dyn Fn() -> bool + Sync),
    each: &mut dyn FnMut(Matched) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (old_out, old_in) = sync_channel(WAITING);
        let (new_out, new_in) = sync_channel(WAITING);
        let old = scope.spawn(move || send(before, database, before_sql, cancel, &old_out));
        let new = scope.spawn(move || send(after, database, after_sql, cancel, &new_out));
        let walked = walk(old_in, new_in, each);
        let ended = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(MyError::protocol(database, "reading it panicked")))
        };
        let (old, new) = (ended(old), ended(new));
        match walked {
            Err(e) => Err(e),
            Ok(()) => old.and(new),
        }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn rows_meet_by_their_keys_and_equal_ones_as_often_as_both_have_them() {
        let line = |key: &str| Line { key: key.to_owned(), content: key.to_owned(), values: Vec::new() };
        let (a, before) = sync_channel(4);
        let (b, after) = sync_channel(4);
        a.send(vec![line("1"), line("2")]).unwrap();
        a.send(vec![line("2"), line("4")]).unwrap();
        b.send(vec![line("2"), line("3")]).unwrap();
        b.send(vec![line("4"), line("5")]).unwrap();
        drop((a, b));
        let mut seen = Vec::new();
        walk(before, after, &mut |m| {
            seen.push(match m {
                Matched::Before(l) => format!("-{}", l.key),
                Matched::After(l) => format!("+{}", l.key),
                Matched::Both(l, _) => l.key,
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["-1", "2", "-2", "+3", "4", "+5"]);
    }
}
