//! The difference of two clusters.
//!
//! Owns which tables are read row by row, counting, and the choice of examples. Both servers should be
//! free of writers: shape, sums and rows are read in one snapshot each, not all in the same.

use super::super::Progress;
use super::super::progress::Meter;
use super::compare::{Pair, Side};
use super::fingerprint::{Position, globals, load, position, sequence_part, sequence_query};
use super::merge::{Matched, Sides, Task, merge};
use super::orphans::{ORPHANS_SQL, Orphans};
use super::quick::Seed;
use super::ranges::{self, Ends, Range};
use super::represent::same_value;
use super::schema::{Kind, Schema, Table};
use super::scope::{Rows, Scope, keys_of};
use super::sums::{self, Buckets, in_buckets};
use super::{PgError, Psql, Result, bloat, names, session, words};
use std::collections::{BTreeMap, BTreeSet};
use switchback_core::data::{PartChange, PartDiff, RowOp, StoreDiff};

/// Examples kept per table and kind of change.
const EXAMPLES: usize = 5;

/// Largest advance, in steps, that a sequence makes without any use: what is logged ahead of use.
const LOGGED_AHEAD: u64 = 33;

/// One database on both servers.
pub(super) struct States {
    pub database: String,
    pub before: Schema,
    pub after: Schema,
    /// Where the servers' own hash is enough for a first look.
    seed: Option<Seed>,
    /// Where keys are cut into ranges, by number of the pair.
    ranges: BTreeMap<usize, Range>,
    /// Where it is known which rows may differ, by number of the pair.
    keys: BTreeMap<usize, Vec<Vec<String>>>,
    /// By number of the pair.
    sums: (BTreeMap<usize, Buckets>, BTreeMap<usize, Buckets>),
    /// By part name.
    pub sequences: (BTreeMap<String, Position>, BTreeMap<String, Position>),
    orphans: (Orphans, Orphans),
}

/// Runs one thing on both servers at the same time.
fn both<T: Send>(
    before: impl FnOnce() -> Result<T> + Send,
    after: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, T)> {
    std::thread::scope(|scope| {
        let old = scope.spawn(before);
        let new = after();
        let old = old.join().unwrap_or_else(|_| Err(PgError::protocol("", "its reader failed")));
        Ok((old?, new?))
    })
}

/// What one server says about sums, sequences and orphans.
#[derive(Default)]
struct Answers {
    sums: BTreeMap<usize, Buckets>,
    sequences: BTreeMap<String, Position>,
    orphans: Orphans,
}

fn ask(
    psql: &dyn Psql,
    database: &str,
    sql: &str,
    schema: &Schema,
    progress: &Progress<'_>,
) -> Result<Answers> {
    let names: Vec<&String> = schema.sequences.keys().collect();
    let mut answers = Answers::default();
    session::each_line(psql, database, sql, &session::cancel(progress), |line| {
        match line.tag() {
            "s" => {
                let (number, bucket, sum) = sums::take(&line)?;
                answers.sums.entry(number).or_default().insert(bucket, sum);
            }
            "q" => {
                let (number, position) = position(&line)?;
                if let Some(name) = names.get(number) {
                    answers.sequences.insert((*name).clone(), position);
                }
            }
            "f" => answers.orphans.take(&line)?,
            other => return Err(PgError::protocol(database, format!("line {other:?}"))),
        }
        Ok(())
    })?;
    Ok(answers)
}

impl States {
    /// Reads shape, sums, sequences and orphans of a database on both servers. Of tables in the scope it is known which rows may
    /// differ: they are not summed up; where there are such, orphans are not looked for.
    pub(super) fn read(
        psql: (&dyn Psql, &dyn Psql),
        database: &str,
        scope: Option<&Scope>,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        let cancel = || (progress.cancel)();
        let (before, after) = both(|| load(psql.0, database, &cancel), || load(psql.1, database, &cancel))?;
        sums::require_same_encoding(database, &before, &after)?;
        let mut states = Self {
            database: database.to_owned(),
            seed: Seed::of(before.major, after.major),
            ranges: BTreeMap::new(),
            keys: BTreeMap::new(),
            before,
            after,
            sums: Default::default(),
            sequences: Default::default(),
            orphans: Default::default(),
        };
        if let Some(scope) = scope {
            let pairs = states.pairs().into_iter().enumerate();
            let keys = pairs
                .filter(|(_, (_, old, new))| *old && *new)
                .filter_map(|(number, (pair, ..))| Some((number, keys_of(&pair, scope)?)));
            states.keys = keys.collect();
        }
        states.ranges = states.cut(psql, progress)?;
        let orphans = if scope.is_some() { "" } else { ORPHANS_SQL };
        let scripts = (states.script(Side::Before, orphans), states.script(Side::After, orphans));
        let (old, new) = both(
            || ask(psql.0, database, &scripts.0, &states.before, progress),
            || ask(psql.1, database, &scripts.1, &states.after, progress),
        )?;
        states.sums = (old.sums, new.sums);
        states.sequences = (old.sequences, new.sequences);
        states.orphans = (old.orphans, new.orphans);
        Ok(states)
    }

    /// A database that only the new server has: compared with nothing, all its tables are new.
    pub(super) fn added(after: &dyn Psql, database: &str, progress: &Progress<'_>) -> Result<Self> {
        let schema = load(after, database, &session::cancel(progress))?;
        let before = Schema { encoding: schema.encoding.clone(), major: schema.major, ..Schema::default() };
        let mut states = Self {
            database: database.to_owned(),
            seed: None,
            ranges: BTreeMap::new(),
            keys: BTreeMap::new(),
            before,
            after: schema,
            sums: Default::default(),
            sequences: Default::default(),
            orphans: Default::default(),
        };
        states.sequences.1 =
            ask(after, database, &states.script(Side::After, ORPHANS_SQL), &states.after, progress)?
                .sequences;
        Ok(states)
    }

    /// Tables of either state by part name. One that has the name in only one state stands for both.
    pub(super) fn pairs(&self) -> Vec<(Pair<'_>, bool, bool)> {
        let names: BTreeSet<&String> = self.before.tables.keys().chain(self.after.tables.keys()).collect();
        let pair = |(number, name): (usize, &String)| {
            let (old, new) = (self.before.tables.get(name), self.after.tables.get(name));
            let (before, after) = (old.or(new)?, new.or(old)?);
            let pair = Pair::new(name, before, after, self.after.bytes_are_utf8()).quickly(self.seed);
            let pair = pair.ranged(self.ranges.get(&number).copied());
            Some((pair, old.is_some(), new.is_some()))
        };
        names.into_iter().enumerate().filter_map(pair).collect()
    }

    /// Asks for the ends of the keys of large tables, and cuts those that are dense.
    fn cut(&self, psql: (&dyn Psql, &dyn Psql), progress: &Progress<'_>) -> Result<BTreeMap<usize, Range>> {
        let pairs = self.pairs();
        let large = || {
            let numbered = pairs.iter().enumerate();
            let summed = numbered.filter(|(number, _)| !self.keys.contains_key(number));
            summed.filter(|(_, (pair, old, new))| *old && *new && pair.quick.is_some() && in_buckets(pair))
        };
        let script = |side| -> String {
            large().map(|(number, (pair, ..))| ranges::query(number, pair, side)).collect()
        };
        let scripts = (script(Side::Before), script(Side::After));
        if scripts.0.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ends = |psql: &dyn Psql, sql: &str| -> Result<Ends> {
            let mut ends = Ends::default();
            session::each_line(
                psql,
                &self.database,
                &session::reading(sql),
                &session::cancel(progress),
                |line| ends.take(&line),
            )?;
            Ok(ends)
        };
        let (mut all, new) = both(|| ends(psql.0, &scripts.0), || ends(psql.1, &scripts.1))?;
        all.join(&new);
        let cut = large().filter_map(|(number, (pair, ..))| {
            Some((number, all.range(number, pair.before.bytes.min(pair.after.bytes))?))
        });
        Ok(cut.collect())
    }

    fn script(&self, side: Side, orphans: &str) -> String {
        let mut body = String::new();
        for (number, (pair, old, new)) in self.pairs().iter().enumerate() {
            if self.keys.contains_key(&number) {
                continue;
            }
            if (side == Side::Before && *old) || (side == Side::After && *new) {
                body.push_str(&sums::of_pair(number, pair, side));
            }
        }
        let schema = if side == Side::Before { &self.before } else { &self.after };
        for (number, sequence) in schema.sequences.values().enumerate() {
            body.push_str(&sequence_query(number, sequence));
        }
        body.push_str(orphans);
        session::reading(&body)
    }

    /// Rows before and after, and the buckets that differ.
    pub(super) fn counts(&self, number: usize) -> (u64, u64, Vec<u32>) {
        let none = Buckets::new();
        let old = self.sums.0.get(&number).unwrap_or(&none);
        let new = self.sums.1.get(&number).unwrap_or(&none);
        (sums::rows(old), sums::rows(new), sums::differing(old, new))
    }

    /// Which rows of a table that both sides have may differ, besides those that differ in an added column alone; `None` if none.
    pub(super) fn rows(&self, number: usize) -> Option<Rows> {
        if let Some(keys) = self.keys.get(&number) {
            return (!keys.is_empty()).then(|| Rows::Keys(keys.clone()));
        }
        let (_, _, buckets) = self.counts(number);
        (!buckets.is_empty()).then_some(Rows::Buckets(buckets))
    }

    /// Whether only some rows of a table may differ, in whatever column.
    pub(super) fn is_known(&self, number: usize) -> bool {
        self.keys.contains_key(&number)
    }

    /// Size of all tables on both sides, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let size = |s: &Schema| s.tables.values().map(|t| t.bytes).sum::<u64>();
        size(&self.before) + size(&self.after)
    }
}

/// Databases of two servers: in both, only before, only after.
pub(super) struct Databases {
    pub both: Vec<String>,
    pub dropped: Vec<String>,
    pub added: Vec<String>,
}

impl Databases {
    pub(super) fn read(psql: (&dyn Psql, &dyn Psql), wanted: &[String]) -> Result<Self> {
        let (old, new) = both(|| session::databases(psql.0), || session::databases(psql.1))?;
        let pick = |list: Vec<String>| -> BTreeSet<String> {
            list.into_iter().filter(|d| wanted.is_empty() || wanted.contains(d)).collect()
        };
        let (old, new) = (pick(old), pick(new));
        if let Some(missing) = wanted.iter().find(|d| !old.contains(*d) && !new.contains(*d)) {
            return Err(PgError::Unsupported {
                what: format!("database {missing:?}"),
                why: "neither server has such a database that can be read".to_owned(),
            });
        }
        Ok(Self {
            both: old.intersection(&new).cloned().collect(),
            dropped: old.difference(&new).cloned().collect(),
            added: new.difference(&old).cloned().collect(),
        })
    }
}

pub(super) fn empty(name: &str, change: PartChange) -> PartDiff {
    PartDiff {
        name: name.to_owned(),
        change,
        before: 0,
        after: 0,
        rows_added: 0,
        rows_removed: 0,
        rows_changed: 0,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        examples: Vec::new(),
        notes: Vec::new(),
    }
}

/// Parts of a database that only one server has.
fn alone(
    psql: &dyn Psql,
    database: &str,
    change: PartChange,
    progress: &Progress<'_>,
) -> Result<Vec<PartDiff>> {
    let print = super::fingerprint(psql, &[database.to_owned()], progress)?;
    let part = |(name, part): (String, switchback_core::data::Part)| {
        let rows = part.items;
        if change == PartChange::Added {
            PartDiff { after: rows, rows_added: rows, ..empty(&name, change) }
        } else {
            PartDiff { before: rows, rows_removed: rows, ..empty(&name, change) }
        }
    };
    Ok(print.parts.into_iter().map(part).collect())
}

/// Compares two running servers exactly.
///
/// `databases`: those to compare; all if empty. Rows are matched by the primary key if both have the same,
/// else as a multiset; two values are equal only if their text is. Memory does not grow with the rows.
pub fn diff(
    before: &dyn Psql,
    after: &dyn Psql,
    databases: &[String],
    progress: &Progress<'_>,
) -> Result<StoreDiff> {
    let psql = (before, after);
    let chosen = Databases::read(psql, databases)?;
    let cancel = || (progress.cancel)();
    let (old, new) = both(|| globals(before, &cancel), || globals(after, &cancel))?;
    let mut schema_changes = words::changes("", None, &old, &new);
    let mut parts = Vec::new();
    let mut new_orphans = Vec::new();
    for database in &chosen.both {
        let states = States::read(psql, database, None, progress)?;
        let mut meter = Meter::new(progress, states.bytes());
        parts.extend(compare(psql, &states, progress, &mut meter)?);
        parts.extend(sequences(&states));
        schema_changes.extend(words::changes(
            database,
            words::printed_otherwise(&states.before, &states.after),
            &states.before.objects,
            &states.after.objects,
        ));
        new_orphans.extend(states.orphans.0.new_in(database, &states.orphans.1));
        meter.finish();
    }
    for database in &chosen.dropped {
        parts.extend(alone(before, database, PartChange::Dropped, progress)?);
    }
    for database in &chosen.added {
        parts.extend(alone(after, database, PartChange::Added, progress)?);
    }
    let unchanged = parts.iter().filter(|p| p.change == PartChange::Unchanged).count() as u64;
    Ok(StoreDiff { parts, schema_changes, new_orphans, unchanged })
}

fn compare(
    psql: (&dyn Psql, &dyn Psql),
    states: &States,
    progress: &Progress<'_>,
    meter: &mut Meter<'_>,
) -> Result<Vec<PartDiff>> {
    let mut parts = Vec::new();
    let mut tasks = Vec::new();
    let mut numbers = Vec::new();
    for (number, (pair, old, new)) in states.pairs().into_iter().enumerate() {
        let (rows_before, rows_after, buckets) = states.counts(number);
        let mut part = empty(&pair.name, PartChange::Unchanged);
        (part.before, part.after) = (rows_before, rows_after);
        if !new {
            (part.change, part.rows_removed) = (PartChange::Dropped, rows_before);
        } else if !old {
            (part.change, part.rows_added) = (PartChange::Added, rows_after);
        } else {
            part.columns_added = pair.added.iter().map(|c| c.name.clone()).collect();
            part.columns_removed = pair.removed.iter().map(|c| c.name.clone()).collect();
        }
        part.notes = notes(pair.before, pair.after);
        if old && new {
            part.notes.extend(bloat::notes(pair.before, pair.after, (rows_before, rows_after)));
        }
        if old && new && !buckets.is_empty() {
            numbers.push(parts.len());
            tasks.push(Task { pair, rows: Rows::Buckets(buckets), sides: Sides::Both });
        }
        parts.push(part);
    }
    let mut same_values: BTreeMap<usize, u64> = BTreeMap::new();
    merge(psql.0, psql.1, &states.database, &tasks, progress, meter, |task, matched| {
        if matched.same {
            return Ok(());
        }
        if only_representation(&tasks[task].pair, matched) {
            *same_values.entry(numbers[task]).or_default() += 1;
            return Ok(());
        }
        let part = &mut parts[numbers[task]];
        let (count, op) = match (&matched.before, &matched.after) {
            (Some(_), Some(_)) => (&mut part.rows_changed, RowOp::Update),
            (None, _) => (&mut part.rows_added, RowOp::Insert),
            (_, None) => (&mut part.rows_removed, RowOp::Delete),
        };
        *count += 1;
        if part.examples.iter().filter(|e| e.op == op).count() < EXAMPLES {
            part.examples.extend(matched.change(&tasks[task].pair));
        }
        Ok(())
    })?;
    for (at, rows) in same_values {
        parts[at].notes.push(format!(
            "{rows} {} the same values in another representation (such as 1.0 and 1.00)",
            if rows == 1 { "row holds" } else { "rows hold" }
        ));
    }
    for part in parts.iter_mut().filter(|p| p.change == PartChange::Unchanged) {
        let rows = part.rows_added + part.rows_removed + part.rows_changed;
        if rows > 0 || !part.columns_removed.is_empty() {
            part.change = PartChange::Changed;
        } else if !part.columns_added.is_empty() {
            part.change = PartChange::ColumnsAdded;
        }
    }
    Ok(parts)
}

fn notes(before: &Table, after: &Table) -> Vec<String> {
    if before.kind == Kind::Unlogged || after.kind == Kind::Unlogged {
        return vec![
            "unlogged: a crash of the server, and so a clone of a running one, empties it".to_owned(),
        ];
    }
    Vec::new()
}

/// Whether all common columns that differ hold the same value.
fn only_representation(pair: &Pair<'_>, matched: &Matched<'_>) -> bool {
    let (Some(old), Some(new)) = (&matched.before, &matched.after) else { return false };
    (0..pair.common.len()).all(|i| {
        let (a, b) = (old.get(i), new.get(i));
        a.1 == b.1 || same_value(a, b)
    })
}

/// Compares where sequences stand. One that went back counts as a changed row: it would hand out numbers
/// that are in use.
fn sequences(states: &States) -> Vec<PartDiff> {
    let (old, new) = &states.sequences;
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut parts = Vec::new();
    for name in names {
        let mut part = empty(&sequence_part(name), PartChange::Unchanged);
        (part.before, part.after) = (u64::from(old.contains_key(name)), u64::from(new.contains_key(name)));
        match (old.get(name), new.get(name)) {
            (Some(a), Some(b)) if a != b => {
                part.change = PartChange::Changed;
                let increment = states.after.sequences.get(name).map_or(1, |s| s.increment);
                let next =
                    |p: &Position| i128::from(p.last) + if p.called { i128::from(increment) } else { 0 };
                let ahead = (next(b) - next(a)) * i128::from(increment.signum());
                part.rows_changed = u64::from(ahead < 0);
                let mut note = format!("last value {} -> {}", a.last, b.last);
                if ahead < 0 {
                    note.push_str(": it went back and would hand out numbers again");
                } else if ahead.unsigned_abs()
                    <= u128::from(LOGGED_AHEAD) * u128::from(increment.unsigned_abs())
                {
                    note.push_str(" (a crash or the promotion of a standby alone can do this)");
                }
                part.notes.push(note);
            }
            (Some(_), None) => (part.change, part.rows_removed) = (PartChange::Dropped, 1),
            (None, Some(_)) => (part.change, part.rows_added) = (PartChange::Added, 1),
            _ => {}
        }
        parts.push(part);
    }
    parts
}

/// Names of databases in words, for a manifest.
pub(super) fn in_words(databases: &[String]) -> Vec<String> {
    databases.iter().map(|d| names::database(d)).collect()
}
