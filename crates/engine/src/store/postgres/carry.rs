//! Carrying later writes into another state of a cluster, row by row.
//!
//! Owns the order (rows whose parents come later are tried again, deletes come last), that no trigger of the user runs (what
//! it wrote is among the writes itself), and what becomes of sequences. References are kept by the server itself.

use super::super::Progress;
use super::super::progress::Meter;
use super::carry_sql::{Plain, Target, applying, followers, plain_types, sequence, triggers};
use super::compare::{Pair, Side};
use super::diff::{Databases, States};
use super::fingerprint::load;
use super::merge::{Matched, Row, Sides, Task, merge};
use super::schema::{Kind, Schema};
use super::scope::{Rows, Scope, Scopes};
use super::{PgError, Psql, Result, names, session};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::str::Utf8Error;
use std::time::Instant;
use switchback_core::carry::{
    Care, DIFFERS, GONE, LARGE_OBJECT, NO_TABLE, ORPHAN, Outcome, REWRITTEN, Rules, TAKEN,
};
use switchback_core::data::RowOp;

/// Rows that are sent at a time.
const ROWS: usize = 2000;
/// Bytes that are sent at a time.
const BYTES: usize = 8 << 20;

/// A write on its way.
struct Write {
    op: RowOp,
    /// As a line for COPY, without its number.
    line: String,
    key: Map<String, Value>,
}

/// The three states of a database.
struct Three<'a> {
    before: &'a dyn Psql,
    after: &'a dyn Psql,
    target: &'a dyn Psql,
    database: &'a str,
}

/// Carries what differs between two running servers into a third, whose cluster is scratch.
pub fn carry_writes(
    servers: (&dyn Psql, &dyn Psql, &dyn Psql),
    databases: &[String],
    rules: &Rules,
    progress: &Progress<'_>,
) -> Result<Outcome> {
    carry_within(servers, databases, &Scopes::new(), rules, progress)
}

/// The same, where it is known for some tables which rows may differ: only those are looked at.
pub fn carry_within(
    (before, after, target): (&dyn Psql, &dyn Psql, &dyn Psql),
    databases: &[String],
    scopes: &Scopes,
    rules: &Rules,
    progress: &Progress<'_>,
) -> Result<Outcome> {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let chosen = Databases::read((before, after), databases)?;
    let there = session::databases(target)?;
    for name in &chosen.added {
        let note = format!("the database {} exists only in the other version", names::database(name));
        outcome.carried.notes.push(note);
    }
    for database in &chosen.both {
        if !there.contains(database) {
            let note = format!("this version has no database {}", names::database(database));
            outcome.carried.notes.push(note);
            continue;
        }
        let three = Three { before, after, target, database };
        one(&three, scopes.get(database), rules, progress, &mut outcome)?;
    }
    outcome.carried.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

fn one(
    three: &Three<'_>,
    scope: Option<&Scope>,
    rules: &Rules,
    progress: &Progress<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    let cancel = session::cancel(progress);
    let database = three.database;
    let states = States::read((three.before, three.after), database, scope, progress)?;
    let own = load(three.target, database, &cancel)?;
    let tasks = tasks(&states);
    let compared: BTreeSet<&str> = tasks
        .iter()
        .filter(|t| t.sides == Sides::Both && rules.part(&t.pair.name) == Care::Compare)
        .map(|t| t.pair.name.as_str())
        .collect();
    let mut rewritten = rewritten(three, &states, &own, &compared, progress)?;
    let mut follow = followers(three.target, database, &cancel)?;
    let plain = plain_types(three.target, database, &cancel)?;
    let (off, on) = triggers(three.target, database, &cancel)?;
    run(three, &off, &cancel)?;
    let targets: Vec<Option<Target>> = tasks
        .iter()
        .map(|t| {
            let table =
                own.tables.get(&t.pair.name).filter(|o| matches!(o.kind, Kind::Table | Kind::Unlogged))?;
            let name = (table.schema.clone(), table.name.clone());
            let followers = follow.remove(&name).unwrap_or_default();
            let rewritten = rewritten.remove(&t.pair.name).unwrap_or_default();
            Some(Target::new(table, &t.pair, rewritten, followers, &plain))
        })
        .collect();
    let mut meter = Meter::new(progress, states.bytes());
    let mut later: Vec<(usize, Write)> = Vec::new();
    let mut batch: (usize, Vec<Write>, usize) = (0, Vec::new(), 0);
    merge(three.before, three.after, database, &tasks, progress, &mut meter, |number, matched| {
        if matched.same && matched.untouched() {
            return Ok(());
        }
        let (Some(task), Some(target)) = (tasks.get(number), targets.get(number)) else { return Ok(()) };
        let Some(write) = take(task, target.as_ref(), rules, matched, outcome) else { return Ok(()) };
        if write.op == RowOp::Delete {
            // What others refer to goes last.
            later.push((number, write));
            return Ok(());
        }
        if batch.0 != number || batch.1.len() >= ROWS || batch.2 >= BYTES {
            flush(three, &targets, &mut batch, &mut later, outcome, &cancel)?;
            batch.0 = number;
        }
        batch.2 += write.line.len();
        batch.1.push(write);
        Ok(())
    })?;
    flush(three, &targets, &mut batch, &mut later, outcome, &cancel)?;
    settle(three, &targets, later, outcome, &cancel)?;
    for target in targets.iter().flatten() {
        if outcome.carried.parts.contains_key(&target.part) {
            outcome.part(&target.part).left_out.clone_from(&target.left_out);
        }
    }
    sequences(three, &states, &own, &cancel)?;
    run(three, &on, &cancel)?;
    meter.finish();
    Ok(())
}

/// Tables that may have later writes.
fn tasks(states: &States) -> Vec<Task<'_>> {
    let mut tasks = Vec::new();
    for (number, (pair, old, new)) in states.pairs().into_iter().enumerate() {
        // What a view holds is computed.
        if !new || pair.after.kind == Kind::MaterializedView {
            continue;
        }
        if !old {
            tasks.push(Task { pair, rows: Rows::All, sides: Sides::AfterOnly });
        } else if !pair.added.is_empty() && !states.is_known(number) {
            tasks.push(Task { pair, rows: Rows::All, sides: Sides::Both });
        } else if let Some(rows) = states.rows(number) {
            tasks.push(Task { pair, rows, sides: Sides::Both });
        }
    }
    tasks
}

/// Columns that differ between the state after the upgrade and the target, in rows that both have.
fn rewritten(
    three: &Three<'_>,
    states: &States,
    own: &Schema,
    compared: &BTreeSet<&str>,
    progress: &Progress<'_>,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let utf8 = own.bytes_are_utf8();
    let tasks: Vec<Task<'_>> = compared
        .iter()
        .filter_map(|name| {
            let (old, own) = (states.before.tables.get(*name)?, own.tables.get(*name)?);
            Some(Task { pair: Pair::new(name, old, own, utf8), rows: Rows::All, sides: Sides::Both })
        })
        .collect();
    let silent = Progress { cancel: progress.cancel, report: &|_, _| () };
    let mut meter = Meter::new(&silent, 0);
    merge(three.before, three.target, three.database, &tasks, &silent, &mut meter, |number, matched| {
        let (Some(task), Some(a), Some(b)) = (tasks.get(number), &matched.before, &matched.after) else {
            return Ok(());
        };
        if !matched.same {
            let differing = (0..task.pair.common.len()).filter(|i| a.get(*i).1 != b.get(*i).1);
            let names = differing.filter_map(|i| task.pair.common.get(i).cloned());
            found.entry(task.pair.name.clone()).or_default().extend(names);
        }
        Ok(())
    })?;
    Ok(found)
}

/// A difference as a write; counted already if it cannot be carried.
fn take(
    task: &Task<'_>,
    target: Option<&Target>,
    rules: &Rules,
    matched: &Matched<'_>,
    outcome: &mut Outcome,
) -> Option<Write> {
    let name = &task.pair.name;
    let change = matched.change(&task.pair)?;
    let refused = match (target, rules.part(name)) {
        _ if task.pair.after.kind == Kind::LargeObjects => Some(LARGE_OBJECT),
        (None, _) => Some(NO_TABLE),
        (_, Care::Quarantine(why)) => Some(why),
        (Some(target), _) if !target.same_key => {
            Some("this version names the rows of this table by another key")
        }
        (Some(target), _) if change.op == RowOp::Insert && !target.rewritten.is_empty() => Some(REWRITTEN),
        _ => None,
    };
    let (Some(target), None) = (target, refused) else {
        outcome.quarantine(name, change.op, change.key, refused.unwrap_or(NO_TABLE));
        return None;
    };
    let mut line = String::from(match change.op {
        RowOp::Insert => "i",
        RowOp::Update => "u",
        RowOp::Delete => "d",
    });
    let mut changed = false;
    for column in &target.columns {
        let (before, after) =
            (text(matched.before.as_ref(), column.before), text(matched.after.as_ref(), column.after));
        let (Ok(before), Ok(after)) = (before.transpose(), after.transpose()) else {
            outcome.quarantine(name, change.op, change.key, "its text is not UTF-8");
            return None;
        };
        let before = if change.op == RowOp::Update { before.or(after) } else { before };
        if change.op == RowOp::Update && before != after {
            if target.rewritten.contains(&column.name) {
                outcome.quarantine(name, change.op, change.key, REWRITTEN);
                return None;
            }
            changed = true;
        }
        for text in [before, after] {
            line.push('\t');
            line.push_str(text.unwrap_or("\\N"));
        }
    }
    if change.op == RowOp::Update && !changed {
        outcome.part(name).newer_columns_only += 1;
        return None;
    }
    Some(Write { op: change.op, line, key: change.key })
}

/// A field, still escaped.
fn text<'r>(row: Option<&Row<'r>>, at: Option<usize>) -> Option<std::result::Result<&'r str, Utf8Error>> {
    row.zip(at).map(|(r, i)| std::str::from_utf8(r.get(i).1))
}

/// Sends what was collected; what has to wait is put aside.
fn flush(
    three: &Three<'_>,
    targets: &[Option<Target>],
    batch: &mut (usize, Vec<Write>, usize),
    later: &mut Vec<(usize, Write)>,
    outcome: &mut Outcome,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    let writes = std::mem::take(&mut batch.1);
    batch.2 = 0;
    let Some(Some(target)) = targets.get(batch.0) else { return Ok(()) };
    for (write, said) in apply(three, target, writes, cancel)? {
        match said {
            Said::Later => later.push((batch.0, write)),
            said => count(outcome, target, write, said),
        }
    }
    Ok(())
}

/// What became of a write.
enum Said {
    Done,
    Already,
    Later,
    Not(String),
}

fn count(outcome: &mut Outcome, target: &Target, write: Write, said: Said) {
    match said {
        Said::Done => outcome.done(&target.part, write.op),
        Said::Already => outcome.part(&target.part).already += 1,
        Said::Later => outcome.quarantine(&target.part, write.op, write.key, ORPHAN),
        Said::Not(why) => outcome.quarantine(&target.part, write.op, write.key, why),
    }
}

fn apply(
    three: &Three<'_>,
    target: &Target,
    writes: Vec<Write>,
    cancel: &dyn Fn() -> bool,
) -> Result<Vec<(Write, Said)>> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let mut data = String::with_capacity(writes.iter().map(|w| w.line.len() + 12).sum());
    for (number, write) in writes.iter().enumerate() {
        data.push_str(&format!("{number}\t{}\n", write.line));
    }
    let script = session::writing(&applying(target, &data));
    let mut said: BTreeMap<usize, Said> = BTreeMap::new();
    session::each_line(three.target, three.database, &script, cancel, |line| {
        let why = || line.optional(3).unwrap_or_default().to_owned();
        let what = match line.text(2)? {
            "done" => Said::Done,
            "already" => Said::Already,
            "later" => Said::Later,
            "gone" => Said::Not(GONE.to_owned()),
            "differs" => Said::Not(DIFFERS.to_owned()),
            "taken" => Said::Not(TAKEN.to_owned()),
            _ => Said::Not(format!("the database refuses it: {}", why())),
        };
        said.insert(line.number(1)?, what);
        Ok(())
    })?;
    let missing = || PgError::protocol(three.database, "no answer about a row");
    let pair = |(number, write)| Ok((write, said.remove(&number).ok_or_else(missing)?));
    writes.into_iter().enumerate().map(pair).collect()
}

/// Tries what had to wait until nothing more goes.
fn settle(
    three: &Three<'_>,
    targets: &[Option<Target>],
    mut later: Vec<(usize, Write)>,
    outcome: &mut Outcome,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    loop {
        let before = later.len();
        let mut by_table: BTreeMap<usize, Vec<Write>> = BTreeMap::new();
        for (number, write) in later {
            by_table.entry(number).or_default().push(write);
        }
        let mut still = Vec::new();
        for (number, mut writes) in by_table {
            let Some(Some(target)) = targets.get(number) else { continue };
            while !writes.is_empty() {
                let rest = writes.split_off(writes.len().min(ROWS));
                for (write, said) in apply(three, target, writes, cancel)? {
                    match said {
                        Said::Later => still.push((number, write)),
                        said => count(outcome, target, write, said),
                    }
                }
                writes = rest;
            }
        }
        if still.len() == before || still.is_empty() {
            for (number, write) in still {
                if let Some(Some(target)) = targets.get(number) {
                    count(outcome, target, write, Said::Later);
                }
            }
            return Ok(());
        }
        later = still;
    }
}

/// Sequences never give a number twice.
fn sequences(three: &Three<'_>, states: &States, own: &Schema, cancel: &dyn Fn() -> bool) -> Result<()> {
    let mut script = String::new();
    for (name, after) in &states.sequences.1 {
        if states.sequences.0.get(name) == Some(after) {
            continue;
        }
        if let Some(sequence_of) = own.sequences.get(name) {
            script.push_str(&sequence(sequence_of, *after));
        }
    }
    run(three, &script, cancel)
}

fn run(three: &Three<'_>, script: &str, cancel: &dyn Fn() -> bool) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    session::lines(three.target, three.database, &session::writing(script), cancel).map(drop)
}

impl Target {
    fn new(
        table: &super::schema::Table,
        pair: &Pair<'_>,
        rewritten: BTreeSet<String>,
        followers: Vec<String>,
        plain: &Plain,
    ) -> Self {
        let plain =
            |column: &str| plain.get(&(table.schema.clone(), table.name.clone(), column.to_owned())).cloned();
        let (old, new) = (pair.read_columns(Side::Before), pair.read_columns(Side::After));
        let at = |list: &[&super::schema::Column], name: &str| list.iter().position(|c| c.name == name);
        let keyed = matches!(pair.key, super::compare::Key::Primary(_));
        let key = if keyed { table.key.clone() } else { Vec::new() };
        Self {
            part: pair.name.clone(),
            schema: table.schema.clone(),
            name: table.name.clone(),
            same_key: !keyed || table.key == pair.after.key,
            columns: table
                .columns
                .iter()
                .map(|c| super::carry_sql::Column {
                    name: c.name.clone(),
                    decl: c.decl.clone(),
                    plain: plain(&c.name).unwrap_or_else(|| c.decl.clone()),
                    before: at(&old, &c.name),
                    after: at(&new, &c.name),
                })
                .filter(|c| c.before.is_some() || c.after.is_some())
                .collect(),
            left_out: new
                .iter()
                .filter(|c| table.column(&c.name).is_none())
                .map(|c| c.name.clone())
                .collect(),
            key,
            rewritten,
            followers,
        }
    }
}
