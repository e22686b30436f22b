//! From what a server recorded to a [`Trace`].

use super::words::{effect, locked_by_text, without_values};
use super::{
    DdlEvent, Existence, FailedStatement, Lock, LogLine, MOST_STATEMENTS, Raw, RawTable, Statement,
    TableTrace, Trace,
};
use std::collections::{BTreeMap, BTreeSet};

/// The log's times are cut to milliseconds, and a line is written a little after its statement ended (µs).
const SLACK_US: i64 = 3_000;
/// So much of a text is enough to recognise a statement by, in characters.
const BEGINNING: usize = 200;

/// A lock from its taking to the end of the transaction.
struct Held {
    table: String,
    lock: Lock,
    from: i64,
    to: i64,
}

/// A statement in time, before those of one form are put together.
struct Timed {
    began: i64,
    ended: i64,
    released: i64,
    statement: Statement,
}

/// Puts together what a server recorded. The log's lines must be in the order in which they were written.
pub fn assemble(raw: Raw) -> Trace {
    let tables = Tables::new(&raw.tables);
    let sessions = sessions(&raw.lines);
    let (inside, alone) = assigned(&raw.events, &sessions);
    let mut held = Vec::new();
    let mut timed = Vec::new();
    let released: BTreeMap<i64, Vec<i64>> = sessions.iter().map(|(pid, l)| (*pid, releases(l))).collect();
    let release = |pid: i64, at: usize| released.get(&pid).and_then(|r| r.get(at)).copied();
    for (pid, lines) in &sessions {
        for (at, line) in lines.iter().enumerate() {
            let events = inside.get(&(*pid, at)).map_or(&[][..], Vec::as_slice);
            if !is_kept(&line.tag, &line.text) && events.is_empty() {
                continue;
            }
            let mut line = (*line).clone();
            if let Some(event) = events.first().filter(|_| line.tag == "SELECT") {
                line.text.clone_from(&event.text);
            }
            let began = began(&line);
            let released = release(*pid, at).unwrap_or(line.ended_us);
            timed.push(statement(&tables, &line, events, (began, released), &mut held));
        }
    }
    for event in alone {
        let line = LogLine {
            database: event.database.clone(),
            pid: event.pid,
            ended_us: event.ended_us,
            took_us: u64::try_from(event.ended_us - event.began_us).unwrap_or(0),
            tag: event.tag.clone(),
            transaction: String::new(),
            text: event.text.clone(),
        };
        let next = sessions.get(&event.pid).and_then(|l| l.iter().position(|l| l.ended_us >= event.ended_us));
        let released = next.and_then(|at| release(event.pid, at)).unwrap_or(event.ended_us);
        timed.push(statement(&tables, &line, &[event], (event.began_us, released), &mut held));
    }
    timed.sort_by_key(|t| (t.began, t.ended));
    let first = timed.first().map_or(0, |t| t.began);
    let last = timed.iter().map(|t| t.released).max().unwrap_or(first);
    let (statements, left_out) = grouped(timed, first);
    Trace {
        statements,
        left_out,
        tables: tables.traced(&held),
        reads: raw.reads.0,
        reads_us: raw.reads.1,
        errors: raw
            .errors
            .into_iter()
            // A failed statement may be any: its values are replaced whatever it is.
            .map(|e| FailedStatement { text: without_values("SELECT", &e.text), ..e })
            .collect(),
        span_us: us(last - first),
        wal_bytes: raw.wal_bytes,
        bytes_before: raw.bytes.0,
        bytes_after: raw.bytes.1,
        timed: raw.timed,
        file: None,
        notes: raw.notes,
    }
}

fn us(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

fn began(line: &LogLine) -> i64 {
    line.ended_us - i64::try_from(line.took_us).unwrap_or(i64::MAX)
}

/// Events by the session and number of the line that they belong to.
type Inside<'r> = BTreeMap<(i64, usize), Vec<&'r DdlEvent>>;

/// Which statement each event took place in; and those of sessions whose lines are missing, or where there is no log.
fn assigned<'r>(
    events: &'r [DdlEvent],
    sessions: &BTreeMap<i64, Vec<&LogLine>>,
) -> (Inside<'r>, Vec<&'r DdlEvent>) {
    let mut inside = Inside::new();
    let mut alone = Vec::new();
    for event in events {
        let lines = sessions.get(&event.pid).map_or(&[][..], Vec::as_slice);
        // A session's lines are in the order of their ends: only those around the event are looked at.
        let first = lines.partition_point(|l| l.ended_us + SLACK_US < event.ended_us);
        let around = lines.get(first..).unwrap_or(&[]);
        let near = || around.iter().take_while(|l| began(l) - SLACK_US <= event.ended_us);
        let own = |line: &LogLine| line.database == event.database;
        // Short statements follow one another faster than the log counts: their texts tell them apart.
        let beginning: String = event.text.chars().take(BEGINNING).collect();
        let same = |line: &LogLine| line.text.chars().take(BEGINNING).eq(beginning.chars());
        let found = near().position(|l| own(l) && same(l)).or_else(|| near().position(|l| own(l)));
        match found {
            Some(at) => inside.entry((event.pid, first + at)).or_default().push(event),
            None => alone.push(event),
        }
    }
    (inside, alone)
}

/// Statements that are shown although no event tells of them.
fn is_kept(tag: &str, text: &str) -> bool {
    const ROWS: [&str; 12] = [
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "TRUNCATE TABLE",
        "LOCK TABLE",
        "CLUSTER",
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "CALL",
        "DO",
    ];
    const DEFINE: [&str; 7] = ["CREATE ", "ALTER ", "DROP ", "GRANT", "REVOKE", "COMMENT", "REFRESH "];
    ROWS.contains(&tag)
        || tag == "COPY" && locked_by_text(tag, text).is_some()
        || DEFINE.iter().any(|d| tag.starts_with(d))
}

fn sessions(lines: &[LogLine]) -> BTreeMap<i64, Vec<&LogLine>> {
    let mut found: BTreeMap<i64, Vec<&LogLine>> = BTreeMap::new();
    for line in lines {
        found.entry(line.pid).or_default().push(line);
    }
    found
}

/// When the transaction of each line of a session ended: with a `COMMIT` right after its last line, else with that line.
fn releases(lines: &[&LogLine]) -> Vec<i64> {
    let mut ends: Vec<i64> = lines.iter().map(|l| l.ended_us).collect();
    // From the end, so that a long transaction is gone through once.
    for (at, pair) in lines.windows(2).enumerate().rev() {
        let [own, next] = pair else { continue };
        if own.transaction.is_empty() {
            continue;
        }
        let commits = matches!(next.tag.as_str(), "COMMIT" | "ROLLBACK" | "COMMIT PREPARED");
        let after = ends.get(at + 1).copied();
        if let (Some(end), Some(after)) = (ends.get_mut(at), after)
            && (next.transaction == own.transaction || commits && next.transaction.is_empty())
        {
            *end = after;
        }
    }
    ends
}

fn statement(
    tables: &Tables<'_>,
    line: &LogLine,
    events: &[&DdlEvent],
    (began, released): (i64, i64),
    held: &mut Vec<Held>,
) -> Timed {
    let database = &line.database;
    let mut own: BTreeMap<String, Lock> = BTreeMap::new();
    let mut lock = |held: &mut Vec<Held>, name: &str, lock: Lock, from: i64| {
        let Some(table) = tables.existing(database, name) else { return };
        held.push(Held { table: table.clone(), lock, from, to: released });
        own.entry(table).and_modify(|l| *l = (*l).max(lock)).or_insert(lock);
    };
    let (mut objects, mut dropped, mut rewrote, mut reasons) = (Vec::new(), Vec::new(), BTreeSet::new(), 0);
    for event in events {
        for (mode, name) in &event.locks {
            lock(held, name, *mode, event.began_us.max(began));
        }
        objects.extend(event.objects.iter().cloned());
        dropped.extend(event.dropped.iter().cloned());
        for (name, reason) in &event.rewrote {
            rewrote.insert(name.clone());
            reasons |= reason;
        }
    }
    if let Some((mode, names)) = locked_by_text(&line.tag, &line.text) {
        for name in names {
            lock(held, &name, mode, began);
        }
    }
    // A table that was removed has no row in the catalogue when the event looks at its locks.
    for gone in dropped.iter().filter(|d| d.kind == "table" || d.kind == "materialized view") {
        lock(held, &gone.name, Lock::AccessExclusive, began);
    }
    let strongest = own.values().max().copied();
    objects.sort();
    objects.dedup();
    Timed {
        began,
        ended: line.ended_us,
        released: released.max(line.ended_us),
        statement: Statement {
            database: database.clone(),
            at_us: 0,
            tag: line.tag.clone(),
            text: without_values(&line.tag, &line.text),
            calls: 1,
            took_us: line.took_us,
            held_us: us(released.max(line.ended_us) - began),
            lock: strongest,
            locked: own.into_iter().filter(|(_, l)| Some(*l) == strongest).map(|(t, _)| t).collect(),
            objects,
            effect: effect(&line.tag, &line.text, &dropped, reasons),
            dropped: dropped
                .iter()
                .filter(|d| d.original)
                .map(|d| format!("{} {}", d.kind, d.name))
                .collect(),
            rewrote: rewrote.into_iter().collect(),
        },
    }
}

/// Puts statements on rows that have the same form together, and keeps the longest and those that define something.
fn grouped(timed: Vec<Timed>, first: i64) -> (Vec<Statement>, u64) {
    let mut all: Vec<Statement> = Vec::new();
    let mut forms: BTreeMap<(String, String), usize> = BTreeMap::new();
    for one in timed {
        let mut statement = one.statement;
        statement.at_us = us(one.began - first);
        let rows =
            statement.objects.is_empty() && statement.dropped.is_empty() && statement.rewrote.is_empty();
        let form = (statement.database.clone(), statement.text.clone());
        if let Some(known) = forms.get(&form).and_then(|i| all.get_mut(*i)).filter(|_| rows) {
            known.calls += 1;
            known.took_us += statement.took_us;
            known.held_us = known.held_us.max(statement.held_us);
            known.lock = known.lock.max(statement.lock);
        } else {
            if rows {
                forms.insert(form, all.len());
            }
            all.push(statement);
        }
    }
    if all.len() <= MOST_STATEMENTS {
        return (all, 0);
    }
    // Those that took longest; definitions before rows.
    let mut order: Vec<usize> = (0..all.len()).collect();
    let weight = |i: &usize| all.get(*i).map(|s| (!s.objects.is_empty() || !s.dropped.is_empty(), s.took_us));
    order.sort_by_key(|i| std::cmp::Reverse(weight(i)));
    let kept: BTreeSet<usize> = order.into_iter().take(MOST_STATEMENTS).collect();
    let mut left_out = 0;
    let mut index = 0;
    all.retain(|s| {
        let keep = kept.contains(&index);
        index += 1;
        if !keep {
            left_out += s.calls;
        }
        keep
    });
    (all, left_out)
}

/// The tables of all databases.
struct Tables<'r> {
    raw: &'r [RawTable],
    /// By database and name with schema.
    by_name: BTreeMap<(&'r str, &'r str), &'r RawTable>,
    /// By database and name without schema, where that is clear.
    by_short: BTreeMap<(&'r str, &'r str), Option<&'r RawTable>>,
}

impl<'r> Tables<'r> {
    fn new(raw: &'r [RawTable]) -> Self {
        let mut by_name = BTreeMap::new();
        let mut by_short = BTreeMap::new();
        for table in raw {
            for name in [Some(&table.name), table.was.as_ref()].into_iter().flatten() {
                by_name.entry((table.database.as_str(), name.as_str())).or_insert(table);
                let short = name.rsplit_once('.').map_or(name.as_str(), |(_, short)| short);
                by_short
                    .entry((table.database.as_str(), short))
                    .and_modify(|known| *known = None)
                    .or_insert(Some(table));
            }
        }
        Self { raw, by_name, by_short }
    }

    /// The full name of a table that was there before.
    fn existing(&self, database: &str, name: &str) -> Option<String> {
        let found = self
            .by_name
            .get(&(database, name))
            .copied()
            .or_else(|| self.by_short.get(&(database, name)).copied().flatten())?;
        found.before.map(|_| full(found))
    }

    fn traced(&self, held: &[Held]) -> Vec<TableTrace> {
        let mut locks: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
        for one in held {
            locks.entry(&one.table).or_default().push(one);
        }
        let mut found = Vec::new();
        for table in self.raw {
            let name = full(table);
            let own = locks.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            let blocked = |blocks: fn(Lock) -> bool| {
                union(own.iter().filter(|h| blocks(h.lock)).map(|h| (h.from, h.to)).collect())
            };
            let (inserted, updated, deleted) = table.rows;
            let traced = TableTrace {
                lock: own.iter().map(|h| h.lock).max(),
                reads_blocked_us: blocked(Lock::blocks_reads),
                writes_blocked_us: blocked(Lock::blocks_writes),
                inserted,
                updated,
                deleted,
                rewritten: matches!((table.before, table.after), (Some((a, _)), Some((b, _))) if a != b),
                bytes_before: table.before.map_or(0, |(_, bytes)| bytes),
                bytes_after: table.after.map_or(0, |(_, bytes)| bytes),
                existence: match (table.before, table.after) {
                    (None, _) => Existence::New,
                    (_, None) => Existence::Gone,
                    _ => Existence::Kept,
                },
                name,
            };
            let quiet = traced.lock.is_none_or(|l| l <= Lock::RowExclusive)
                && inserted + updated + deleted == 0
                && !traced.rewritten
                && traced.existence == Existence::Kept;
            if !quiet {
                found.push(traced);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

fn full(table: &RawTable) -> String {
    format!("{}.{}", table.database, table.name)
}

/// The length of intervals together, what they share counted once.
fn union(mut intervals: Vec<(i64, i64)>) -> u64 {
    intervals.sort_unstable();
    let (mut total, mut reached) = (0, i64::MIN);
    for (from, to) in intervals {
        let from = from.max(reached);
        if to > from {
            total += to - from;
            reached = to;
        }
    }
    us(total)
}
