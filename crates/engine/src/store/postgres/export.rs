//! Exporting everything that differs between two clusters.
//!
//! Owns the export's layout and the rule for when a row counts as unchanged: all common columns are
//! identical, byte by byte, and every added column holds exactly its declared default.

use super::super::Progress;
use super::super::jsonl::{Lines, manifest};
use super::super::place::{Place, sync_dir};
use super::super::progress::Meter;
use super::super::{StoreError, StoreError as E};
use super::diff::{Databases, States, in_words};
use super::fingerprint::{Position, globals, sequence_part};
use super::merge::{Matched, Sides, Task, merge};
use super::schema::{Kind, digest};
use super::scope::{Rows, Scopes};
use super::value::unhex;
use super::{PgError, Psql, Result, names, session, words};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::data::{ExportPart, ExportStats, RowOp};

/// Large objects asked for at a time: keeps statements short.
const OBJECTS_PER_QUERY: usize = 1000;

/// Folder of the large objects.
const OBJECTS: &str = "large-objects";

/// One table's file, made when the first row needs it.
struct Out {
    path: PathBuf,
    lines: Option<Lines>,
    part: ExportPart,
}

impl Out {
    fn new(dir: &Path, name: &str) -> Self {
        let file = names::file(name) + ".jsonl";
        Self { path: dir.join(&file), lines: None, part: ExportPart { file, ..ExportPart::default() } }
    }

    fn push(&mut self, matched: &Matched<'_>, task: &Task<'_>) -> Result<()> {
        let Some(change) = matched.change(&task.pair) else { return Ok(()) };
        match change.op {
            RowOp::Insert => self.part.inserted += 1,
            RowOp::Update => self.part.updated += 1,
            RowOp::Delete => self.part.deleted += 1,
        }
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => self.lines.insert(Lines::create(&self.path)?),
        };
        lines.push(&change)?;
        Ok(())
    }
}

/// What an export holds besides rows; becomes the manifest.
#[derive(Default)]
struct Found {
    parts: BTreeMap<String, ExportPart>,
    dropped_tables: Vec<String>,
    sequences: Vec<Value>,
    large_objects: Vec<Value>,
    schema_changes: Vec<String>,
}

/// Writes every row that differs between two running servers to `out_dir`, exactly.
///
/// `out_dir` must not exist, its parent must. Per table one file of JSON Lines; large objects that are
/// new or changed as files `large-objects/DATABASE/OID`; sequences and changes of the schema are in
/// `manifest.json`, which is written last. All is made durable before the folder gets its name.
pub fn export(
    before: &dyn Psql,
    after: &dyn Psql,
    databases: &[String],
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    export_within((before, after), databases, &Scopes::new(), out_dir, progress)
}

/// The same, where it is known for some tables which rows may differ: only those are looked at.
pub fn export_within(
    (before, after): (&dyn Psql, &dyn Psql),
    databases: &[String],
    scopes: &Scopes,
    out_dir: &Path,
    progress: &Progress<'_>,
) -> Result<ExportStats> {
    let started = Instant::now();
    let place = Place::prepare(out_dir)?;
    place.make_dir()?;
    let dir = place.temp().to_owned();
    let chosen = Databases::read((before, after), databases)?;
    let cancel = session::cancel(progress);
    let (old, new) = (globals(before, &cancel)?, globals(after, &cancel)?);
    let mut found = Found { schema_changes: words::changes("", None, &old, &new), ..Found::default() };
    let mut shapes = (BTreeMap::new(), BTreeMap::new());
    for database in &chosen.both {
        let states = States::read((before, after), database, scopes.get(database), progress)?;
        one(before, after, &states, &dir, progress, &mut found)?;
        let changes = words::changes(database, None, &states.before.objects, &states.after.objects);
        found.schema_changes.extend(changes);
        shapes.0.insert(database.clone(), states.before.objects);
        shapes.1.insert(database.clone(), states.after.objects);
    }
    for database in &chosen.added {
        let states = States::added(after, database, progress)?;
        one(after, after, &states, &dir, progress, &mut found)?;
        shapes.1.insert(database.clone(), states.after.objects);
    }
    manifest(
        &dir,
        &json!({
            "format": "switchback-export", "version": 1, "kind": "postgres",
            "parts": found.parts,
            "dropped_tables": found.dropped_tables,
            "dropped_databases": in_words(&chosen.dropped),
            "added_databases": in_words(&chosen.added),
            "sequences": found.sequences,
            "large_objects": found.large_objects,
            "schema_changes": found.schema_changes,
            "before_schema": digest(&shapes.0, &old),
            "after_schema": digest(&shapes.1, &new),
        }),
    )?;
    place.commit(&dir)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ExportStats { parts: found.parts, took_ms })
}

fn one(
    before: &dyn Psql,
    after: &dyn Psql,
    states: &States,
    dir: &Path,
    progress: &Progress<'_>,
    found: &mut Found,
) -> Result<()> {
    let mut meter = Meter::new(progress, states.bytes());
    let mut tasks = Vec::new();
    for (number, (pair, old, new)) in states.pairs().into_iter().enumerate() {
        match (old, new) {
            (true, false) => found.dropped_tables.push(pair.name.clone()),
            (false, _) => tasks.push(Task { pair, rows: Rows::All, sides: Sides::AfterOnly }),
            // A row may differ in an added column alone.
            (true, true) if !pair.added.is_empty() && !states.is_known(number) => {
                tasks.push(Task { pair, rows: Rows::All, sides: Sides::Both });
            }
            (true, true) => {
                if let Some(rows) = states.rows(number) {
                    tasks.push(Task { pair, rows, sides: Sides::Both });
                }
            }
        }
    }
    let mut outs: Vec<Out> = tasks.iter().map(|t| Out::new(dir, &t.pair.name)).collect();
    let mut objects = BTreeSet::new();
    merge(before, after, &states.database, &tasks, progress, &mut meter, |number, matched| {
        if matched.same && matched.untouched() {
            return Ok(());
        }
        if let Some(row) =
            matched.after.as_ref().filter(|_| tasks[number].pair.after.kind == Kind::LargeObjects)
        {
            let oid = std::str::from_utf8(row.get(0).1).ok().and_then(|t| t.parse::<u32>().ok());
            objects.extend(oid);
        }
        outs[number].push(matched, &tasks[number])
    })?;
    for (mut out, task) in outs.into_iter().zip(&tasks) {
        if let Some(lines) = out.lines.take() {
            out.part.digest = lines.finish()?;
            found.parts.insert(task.pair.name.clone(), out.part);
        }
    }
    let (old, new) = &states.sequences;
    let shown = |p: Option<&Position>| p.map(|p| json!({ "last_value": p.last, "is_called": p.called }));
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (a, b) = (old.get(name), new.get(name));
        if a != b {
            found
                .sequences
                .push(json!({ "name": sequence_part(name), "before": shown(a), "after": shown(b) }));
        }
    }
    if !objects.is_empty() {
        let list: Vec<u32> = objects.into_iter().collect();
        found.large_objects.push(large_objects(after, &states.database, &list, dir, progress)?);
    }
    meter.finish();
    Ok(())
}

/// Writes the contents of large objects, each to a file named after its number.
fn large_objects(
    psql: &dyn Psql,
    database: &str,
    oids: &[u32],
    dir: &Path,
    progress: &Progress<'_>,
) -> Result<Value> {
    let all = dir.join(OBJECTS);
    let name = names::file(database);
    let folder = all.join(&name);
    std::fs::create_dir_all(&folder).map_err(|e| E::io("create", &folder, e))?;
    let mut bytes = 0u64;
    for some in oids.chunks(OBJECTS_PER_QUERY) {
        let list: Vec<String> = some.iter().map(u32::to_string).collect();
        let sql = session::reading(&format!(
            "COPY (SELECT m.oid, p.pageno::int8 * (current_setting('block_size')::int8 / 4), encode(p.data, 'hex') FROM pg_largeobject_metadata m \
             LEFT JOIN pg_largeobject p ON p.loid = m.oid WHERE m.oid IN ({}) ORDER BY m.oid, p.pageno) TO STDOUT;",
            list.join(",")
        ));
        let mut open: Option<(u32, Object)> = None;
        session::each_line(psql, database, &sql, &session::cancel(progress), |line| {
            let oid: u32 = line.number(0)?;
            if open.as_ref().is_none_or(|(o, _)| *o != oid) {
                if let Some((_, done)) = open.take() {
                    done.finish()?;
                }
                open = Some((oid, Object::create(&folder.join(oid.to_string()))?));
            }
            // An empty one has no page.
            if let (Some((_, object)), Some(offset)) = (&mut open, line.optional(1)) {
                let data = line.optional(2).and_then(unhex);
                let (Ok(offset), Some(data)) = (offset.parse::<u64>(), data) else {
                    return Err(PgError::protocol(database, "a page of a large object is malformed"));
                };
                bytes += object.page(offset, &data)?;
            }
            Ok(())
        })?;
        if let Some((_, done)) = open {
            done.finish()?;
        }
    }
    for folder in [&folder, &all] {
        sync_dir(folder)?;
    }
    Ok(
        json!({ "database": names::database(database), "folder": format!("{OBJECTS}/{name}"), "files": oids.len(), "bytes": bytes }),
    )
}

/// A large object being written.
struct Object {
    path: PathBuf,
    out: BufWriter<File>,
    at: u64,
}

impl Object {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| E::io("create", path, e))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::with_capacity(1 << 17, file), at: 0 })
    }

    /// Pages that are missing read as zeros, as the server has it. Returns the bytes written.
    fn page(&mut self, offset: u64, data: &[u8]) -> Result<u64> {
        let from = self.at;
        let io = |e| E::io("write", &self.path, e);
        let gap = offset.saturating_sub(self.at);
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), gap), &mut self.out).map_err(io)?;
        self.out.write_all(data).map_err(io)?;
        self.at += gap + data.len() as u64;
        Ok(self.at - from)
    }

    fn finish(self) -> Result<()> {
        let Self { path, out, .. } = self;
        let file = out.into_inner().map_err(|e| StoreError::io("write", &path, e.into_error()))?;
        Ok(file.sync_all().map_err(|e| E::io("fsync", &path, e))?)
    }
}
