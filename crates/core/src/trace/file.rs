//! What a migration did to a database that is a file, as somebody sees it who only watches the file.
//!
//! Nobody tells the statements. What can be seen is when the file was locked, and what its definitions were after each transaction.

use super::{Effect, Statement, Trace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the file was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUse {
    /// Transactions that wrote.
    pub transactions: u64,
    /// How long nobody else could have written, in microseconds.
    pub writers_blocked_us: u64,
    /// The longest of these times.
    pub longest_write_us: u64,
    /// How long nobody else could have read, in microseconds.
    pub readers_blocked_us: u64,
    /// Whether it had a write-ahead log in the end.
    pub wal: bool,
}

/// A definition in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The table that it belongs to.
    pub table: String,
    /// Its SQL.
    pub sql: String,
    /// Where its rows begin; 0 for none.
    pub root: i64,
}

/// Definitions by kind (`table`, `index`, `view`, `trigger`) and name.
pub type Definitions = BTreeMap<(String, String), Definition>;

/// What was seen of a file. Times in microseconds since the beginning.
#[derive(Debug, Clone, Default)]
pub struct FileSeen {
    /// When somebody held the right to write.
    pub writes: Vec<(u64, u64)>,
    /// When nobody could read.
    pub unread: Vec<(u64, u64)>,
    /// Transactions that wrote, as the file itself counts them.
    pub transactions: u64,
    /// What the definitions were, in the order of time; the first are those of the beginning.
    pub definitions: Vec<(u64, Definitions)>,
    /// Bytes before and after, with what lies beside the file.
    pub bytes: (u64, u64),
    /// The most that was in the write-ahead log.
    pub wal_bytes: u64,
    /// Whether there was such a log in the end.
    pub wal: bool,
    /// What could not be seen.
    pub notes: Vec<String>,
}

fn length(all: &[(u64, u64)]) -> u64 {
    all.iter().map(|(from, to)| to.saturating_sub(*from)).sum()
}

/// Puts together what was seen of a file.
pub fn assemble_file(database: &str, seen: FileSeen) -> Trace {
    let longest = seen.writes.iter().map(|(from, to)| to.saturating_sub(*from)).max();
    let file = FileUse {
        // Of a log that was begun anew between two looks, transactions are not counted.
        transactions: seen.transactions.max(seen.writes.len() as u64),
        writers_blocked_us: length(&seen.writes),
        longest_write_us: longest.unwrap_or(0),
        readers_blocked_us: length(&seen.unread),
        wal: seen.wal,
    };
    let mut statements = Vec::new();
    for pair in seen.definitions.windows(2) {
        let [(_, before), (at, after)] = pair else { continue };
        // The transaction that ended last before it was seen.
        let within = seen.writes.iter().rev().find(|(from, _)| from <= at);
        let (from, took) = within.map_or((*at, 0), |(from, to)| (*from, to.min(at).saturating_sub(*from)));
        for (tag, text, effect, objects, dropped, rewrote) in changes(before, after) {
            statements.push(Statement {
                database: database.to_owned(),
                at_us: from,
                tag,
                text,
                calls: 1,
                took_us: took,
                held_us: took,
                lock: None,
                locked: Vec::new(),
                objects,
                dropped,
                rewrote,
                effect,
            });
        }
    }
    let left_out = statements.len().saturating_sub(super::MOST_STATEMENTS) as u64;
    statements.truncate(super::MOST_STATEMENTS);
    let began = seen
        .writes
        .first()
        .map(|(from, _)| *from)
        .into_iter()
        .chain(statements.first().map(|s| s.at_us))
        .min();
    let began = began.unwrap_or(0);
    for statement in &mut statements {
        statement.at_us = statement.at_us.saturating_sub(began);
    }
    let last = seen.writes.last().map(|(_, to)| *to).unwrap_or(began);
    Trace {
        statements,
        left_out,
        span_us: last.saturating_sub(began),
        wal_bytes: seen.wal_bytes,
        bytes_before: seen.bytes.0,
        bytes_after: seen.bytes.1,
        file: Some(file),
        notes: seen.notes,
        ..Trace::default()
    }
}

type Change = (String, String, Effect, Vec<String>, Vec<String>, Vec<String>);

/// What became of the definitions between two looks.
fn changes(before: &Definitions, after: &Definitions) -> Vec<Change> {
    let mut found = Vec::new();
    let one = |kind: &str, name: &str| vec![format!("{kind} {name}")];
    let mut gone: Vec<_> = before.iter().filter(|(key, _)| !after.contains_key(*key)).collect();
    for ((kind, name), new) in after {
        match before.get(&(kind.clone(), name.clone())) {
            Some(old) if old == new => {}
            Some(old) => {
                let rewrote = kind == "table" && old.root != new.root;
                let tag = if kind == "table" {
                    "ALTER TABLE".to_owned()
                } else {
                    format!("CREATE {}", kind.to_uppercase())
                };
                // The same text at another place: the rows were written anew (VACUUM, or copied to a new table).
                let text =
                    if old.sql == new.sql { format!("{name} was written anew") } else { new.sql.clone() };
                if old.sql == new.sql && !rewrote {
                    continue;
                }
                let effect = if old.sql == new.sql { Effect::Adds } else { Effect::Redefines };
                let rewritten = if rewrote { vec![name.clone()] } else { Vec::new() };
                found.push((tag, text, effect, one(kind, name), Vec::new(), rewritten));
            }
            None => {
                // A table whose rows are where another one's were has only another name.
                let was = gone
                    .iter()
                    .position(|((k, _), old)| k == kind && kind == "table" && old.root == new.root);
                if let Some(((_, old), _)) = was.map(|at| gone.remove(at)) {
                    let text = format!("alter table {old} rename to {name}");
                    found.push((
                        "ALTER TABLE".to_owned(),
                        text,
                        Effect::Redefines,
                        one(kind, name),
                        one(kind, old),
                        Vec::new(),
                    ));
                } else {
                    let tag = format!("CREATE {}", kind.to_uppercase());
                    found.push((tag, new.sql.clone(), Effect::Adds, one(kind, name), Vec::new(), Vec::new()));
                }
            }
        }
    }
    for ((kind, name), _) in gone {
        let effect = if kind == "table" { Effect::Destroys } else { Effect::Redefines };
        let tag = format!("DROP {}", kind.to_uppercase());
        found.push((tag, format!("drop {kind} {name}"), effect, Vec::new(), one(kind, name), Vec::new()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(all: &[(&str, &str, &str, i64)]) -> Definitions {
        let one = |(kind, name, sql, root): &(&str, &str, &str, i64)| {
            let definition = Definition { table: (*name).to_owned(), sql: (*sql).to_owned(), root: *root };
            (((*kind).to_owned(), (*name).to_owned()), definition)
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_change_of_definitions_belongs_to_the_transaction_in_which_it_was_made() {
        let seen = FileSeen {
            writes: vec![(1_000, 4_000), (10_000, 90_000), (95_000, 96_000)],
            unread: vec![(88_000, 90_000)],
            transactions: 7,
            definitions: vec![
                (
                    0,
                    definitions(&[
                        ("table", "a", "create table a (x)", 2),
                        ("table", "old", "create table old (x)", 3),
                    ]),
                ),
                (
                    4_100,
                    definitions(&[
                        ("table", "a", "create table a (x, y)", 2),
                        ("table", "old", "create table old (x)", 3),
                    ]),
                ),
                (
                    90_200,
                    definitions(&[
                        ("table", "a", "create table a (x, y)", 9),
                        ("table", "new", "create table new (x)", 3),
                        ("index", "by_x", "create index by_x on a (x)", 4),
                    ]),
                ),
            ],
            bytes: (4096, 12_288),
            ..FileSeen::default()
        };
        let trace = assemble_file("books.db", seen);
        let told: Vec<_> =
            trace.statements.iter().map(|s| (s.at_us, s.took_us, s.text.as_str(), s.effect)).collect();
        assert_eq!(
            told,
            [
                (0, 3_000, "create table a (x, y)", Effect::Redefines),
                (9_000, 80_000, "create index by_x on a (x)", Effect::Adds),
                (9_000, 80_000, "a was written anew", Effect::Adds),
                (9_000, 80_000, "alter table old rename to new", Effect::Redefines),
            ]
        );
        assert_eq!(trace.statements[2].rewrote, ["a"]);
        let file = trace.file.expect("a file");
        assert_eq!((file.transactions, file.writers_blocked_us, file.longest_write_us), (7, 84_000, 80_000));
        assert_eq!((trace.blocked_us(), trace.span_us), ((2_000, 84_000), 95_000));
    }

    #[test]
    fn what_is_gone_is_told_and_nothing_seen_is_nothing() {
        let before = definitions(&[
            ("table", "a", "create table a (x)", 2),
            ("index", "i", "create index i on a (x)", 3),
        ]);
        let seen =
            FileSeen { definitions: vec![(0, before), (50, Definitions::new())], ..FileSeen::default() };
        let trace = assemble_file("books.db", seen);
        let told: Vec<_> = trace.statements.iter().map(|s| (s.text.as_str(), s.effect, s.took_us)).collect();
        assert_eq!(told, [("drop index i", Effect::Redefines, 0), ("drop table a", Effect::Destroys, 0)]);
        assert!(assemble_file("books.db", FileSeen::default()).is_empty());
    }
}
