//! Keeping which rows of Postgres stores are written to, and what follows from it when they are compared.
//!
//! Owns the order: what was read is on the disk before the server is told to forget it; what is taken for complete was read to the
//! end of the log of a server that nobody can write to any more. In doubt everything is compared.

use super::server::{Server, engine_error};
use super::{ComposeData, Work, place};
use crate::capture::{self, Entry, Position, Progress, Sealed, Spool, Start, Table, shown, spool_file};
use crate::data::Capturing;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::postgres::capture::{self as log, Batch, Known, Looked, Marks};
use crate::store::postgres::{self, PgError, Scopes};
use std::collections::BTreeMap;
use std::time::Duration;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;

/// Changes that are read at a time: memory does not grow with what was written.
const AT_ONCE: u32 = 20_000;
/// A watchdog that is just writing is done by then.
const WAIT: Duration = Duration::from_secs(60);
/// Tables that are named.
const TOLD: usize = 8;
/// Where a server keeps its slots.
const SLOTS: &str = "pg_replslot";
/// Why a spool is of no use.
const GAP: &str = "something else read from the server's slot";
/// Why a spool is of no use.
const OVER: &str = "the trial is over";

/// What is known when two states are compared: which rows, and what a person should know.
type Within = (Scopes, Vec<String>);

impl ComposeData {
    /// Which rows of a store may differ from what they were when its generation started, as far as it was captured. `server` runs
    /// on its data, and nobody else does.
    pub(super) fn within(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        server: &Server<'_>,
        work: &Work<'_>,
    ) -> Result<Within, PgError> {
        let path = spool_file(at.home, at.instance, store);
        if !path.exists() {
            return Ok(Within::default());
        }
        (work.stage.say)("reading which rows were written to");
        let changes = capture::progress(at.home, at.instance).remove(store).map_or(0, |p| p.changes);
        let mut progress = Progress { at_ms: now_ms(), changes, ended: true, ..Progress::default() };
        let found = sealed(&path, server, work, &mut progress);
        let within = match found {
            Ok(Ok(within)) => within,
            // Whatever is wrong with it: comparing everything is right.
            Ok(Err(why)) => {
                progress.trouble = Some(why.clone());
                let note = format!("which rows were written to is not known ({why}); everything is compared");
                (Scopes::new(), vec![note])
            }
            Err(PgError::Cancelled) => return Err(PgError::Cancelled),
            Err(e) => {
                progress.trouble = Some(e.to_string());
                progress.ended = false;
                let note = format!("which rows were written to is not known ({e}); everything is compared");
                (Scopes::new(), vec![note])
            }
        };
        capture::tell(at.home, at.instance, store, &progress);
        Ok(within)
    }
}

/// Reads the spool, and the rest of the server's log into it; seals it. The inner error: why it is of no use.
fn sealed(
    path: &std::path::Path,
    server: &Server<'_>,
    work: &Work<'_>,
    progress: &mut Progress,
) -> Result<Result<Within, String>, PgError> {
    let cancel = || (work.progress.cancel)();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let opened = Spool::open(path, WAIT, |entry| {
        if let Some((database, batch)) = entry.batch() {
            known.entry(database).or_default().add(batch);
        }
    });
    let mut spool = match opened {
        Ok(Some(spool)) => spool,
        Ok(None) => return Ok(Err("its spool is gone".to_owned())),
        Err(e) => return Ok(Err(e.to_string())),
    };
    progress.spooled_bytes = spool.bytes();
    if let Some(why) = spool.given_up().map(str::to_owned) {
        log::drop_slots(server, &cancel)?;
        return Ok(Err(why));
    }
    let there = postgres::databases(server)?;
    let databases = spool.start().databases.clone();
    if let Some(gone) = databases.keys().find(|d| !there.contains(d)) {
        return Ok(Err(format!("there is no database {gone} any more")));
    }
    let Some(any) = databases.keys().next() else { return Ok(Err("nothing is captured".to_owned())) };
    let next = log::next_transaction(server, any, &cancel)?;
    let seal = match spool.sealed() {
        Some(seal) if seal.next_transaction == next => {
            let seal = seal.clone();
            log::drop_slots(server, &cancel)?;
            seal
        }
        Some(_) => return Ok(Err("it was written to since".to_owned())),
        None => {
            let mut seal = Sealed { ends: BTreeMap::new(), whole: BTreeMap::new(), next_transaction: next };
            for (database, marks) in &databases {
                let mut all = known.remove(database).unwrap_or_default();
                let mut add = |batch: &Batch| all.add(copy(batch));
                let looked = match read(server, (database, marks), &mut spool, None, &mut add, &cancel)? {
                    Ok((looked, changes)) => {
                        progress.changes += changes;
                        looked
                    }
                    Err(why) => return Ok(Err(why)),
                };
                let finished = log::compare(server, database, marks, &cancel)?;
                seal.ends.insert(database.clone(), looked.end);
                let (_, whole) = all.scope(marks, finished);
                let table =
                    |((schema, table), why)| Table { schema, table, rows: Vec::new(), whole: Some(why) };
                seal.whole.insert(database.clone(), whole.into_iter().map(table).collect());
            }
            stored(spool.append(&Entry::Sealed(seal.clone())))?;
            // Once more from the file: what is used is what was kept.
            drop(spool);
            known.clear();
            let opened = Spool::open(path, WAIT, |entry| {
                if let Some((database, batch)) = entry.batch() {
                    known.entry(database).or_default().add(batch);
                }
            });
            drop(stored(opened)?);
            log::drop_slots(server, &cancel)?;
            seal
        }
    };
    progress.position = seal.ends.values().max().map_or_else(String::new, |end| shown(*end));
    let mut scopes = Scopes::new();
    let mut told = Vec::new();
    for (database, marks) in &databases {
        let whole = seal.whole.get(database).into_iter().flatten();
        let named = |t: &Table| ((t.schema.clone(), t.table.clone()), t.whole.clone().unwrap_or_default());
        let whole: BTreeMap<_, _> = whole.map(named).collect();
        told.extend(whole.iter().map(|((schema, table), why)| format!("{schema}.{table}: {why}")));
        let finished = log::Finished { whole, everything: None };
        scopes.insert(database.clone(), known.remove(database).unwrap_or_default().scope(marks, finished).0);
    }
    let rows: usize = scopes.values().flat_map(|s| s.values()).map(|k| k.rows.len()).sum();
    let mut notes =
        vec![format!("{rows} rows that were written to are compared, up to {}", progress.position)];
    let more = told.len().saturating_sub(TOLD);
    notes.extend(told.iter().take(TOLD).map(|t| format!("compared as a whole: {t}")));
    if more > 0 {
        notes.push(format!("compared as a whole: {more} more tables"));
    }
    progress.whole = told.into_iter().take(TOLD).collect();
    Ok(Ok((scopes, notes)))
}

fn copy(batch: &Batch) -> Batch {
    Batch { tables: batch.tables.clone(), everything: batch.everything.clone(), ..Batch::default() }
}

/// An error of the spool, on the way through the reader of a server.
fn stored<T>(result: Result<T, EngineError>) -> Result<T, PgError> {
    result.map_err(|e| PgError::Output(std::io::Error::other(e.to_string())))
}

/// Reads what is new of one database into the spool. The inner error: it is of no use any more, which is recorded in it.
fn read(
    server: &Server<'_>,
    (database, marks): (&str, &Marks),
    spool: &mut Spool,
    most: Option<u32>,
    add: &mut dyn FnMut(&Batch),
    cancel: &dyn Fn() -> bool,
) -> Result<Result<(Looked, u64), String>, PgError> {
    let mut changes = 0;
    let mut each = |batch: Batch| -> Result<(), PgError> {
        add(&batch);
        changes += batch.changes;
        match Entry::of(database, batch) {
            Some(entry) => stored(spool.append(&entry)),
            None => Ok(()),
        }
    };
    let looked = log::look(server, database, marks, most, &mut each, cancel)?;
    let why = match looked {
        Ok(looked) if looked.from > spool.read_to(database) => GAP.to_owned(),
        Ok(looked) => {
            // Without a limit everything up to the end was read, whatever was committed there.
            let to = if most.is_none() { Some(looked.end.max(looked.to.unwrap_or(0))) } else { looked.to };
            if let Some(to) = to {
                let position = Position { database: database.to_owned(), from: looked.from, to };
                stored(spool.append(&Entry::Read(position)))?;
            }
            return Ok(Ok((looked, changes)));
        }
        Err(why) => why,
    };
    stored(spool.append(&Entry::GivenUp { why: why.clone() }))?;
    log::drop_slots(server, cancel)?;
    Ok(Err(why))
}

impl Capturing for ComposeData {
    fn begin(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Option<Result<(), String>>, EngineError> {
        let (found, mount) = place(at, store)?;
        let path = spool_file(at.home, at.instance, store);
        if path.exists() {
            // Of an attempt that was interrupted.
            std::fs::remove_file(&path).map_err(crate::error::io("remove", &path))?;
        }
        let Some(reached) = found.server.as_ref().filter(|_| found.kind == StoreKind::Postgres) else {
            return Ok(None);
        };
        if !capture::commands(at)?.contains_key(&reached.service) {
            return Ok(Some(Err(format!("{} has a command of its own", reached.service))));
        }
        let cancel = || (work.progress.cancel)();
        let server = Server::open(self, at, store, mount, CloneMode::Cold)?;
        let begun = || -> Result<Result<Start, String>, PgError> {
            let names = match server.databases() {
                [] => postgres::databases(&server)?,
                some => some.to_vec(),
            };
            let mut databases = BTreeMap::new();
            for name in names {
                match log::begin(&server, &name, &format!("g{}", at.instance.generation), &cancel)? {
                    Ok(marks) => _ = databases.insert(name, marks),
                    Err(why) => {
                        log::drop_slots(&server, &cancel)?;
                        return Ok(Err(why));
                    }
                }
            }
            Ok(Ok(Start { databases }))
        };
        let begun = begun();
        match server.close(begun)? {
            Err(why) => Ok(Some(Err(why))),
            Ok(start) => {
                drop(Spool::create(&path, start)?);
                let progress = Progress { at_ms: now_ms(), ..Progress::default() };
                capture::tell(at.home, at.instance, store, &progress);
                Ok(Some(Ok(())))
            }
        }
    }

    fn drain(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        spool: &mut Spool,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Progress, EngineError> {
        let (_, mount) = place(at, store)?;
        let mut progress = Progress { at_ms: now_ms(), ..Progress::default() };
        let over = |progress: Progress, why: &str| Progress {
            trouble: Some(why.to_owned()),
            ended: true,
            behind_bytes: 0,
            ..progress
        };
        if let Some(why) = spool.given_up() {
            return Ok(over(progress, why));
        }
        let server = Server::open(self, at, store, mount, CloneMode::Live)?;
        let databases = spool.start().databases.clone();
        let mut position = 0;
        for (database, marks) in &databases {
            loop {
                if let Err((why, for_good)) = spool.room() {
                    if for_good {
                        spool.append(&Entry::GivenUp { why: why.clone() })?;
                        log::drop_slots(&server, cancel).map_err(engine_error)?;
                        return Ok(over(progress, &why));
                    }
                    return Ok(Progress { trouble: Some(why), ..progress });
                }
                let part = (database.as_str(), marks);
                let read = read(&server, part, spool, Some(AT_ONCE), &mut |_| (), cancel);
                let (looked, changes) = match read.map_err(engine_error)? {
                    Ok(looked) => looked,
                    Err(why) => return Ok(over(progress, &why)),
                };
                progress.changes += changes;
                progress.behind_bytes = progress.behind_bytes.max(looked.kept);
                match looked.to {
                    Some(to) => log::advance(&server, database, marks, to, cancel).map_err(engine_error)?,
                    None => _ = log::nudge(&server, database, &looked, cancel).map_err(engine_error)?,
                }
                if looked.to.is_none() || changes < u64::from(AT_ONCE) / 2 {
                    break;
                }
            }
            // Of the database that was written to last; the others have nothing newer.
            position = position.max(spool.read_to(database));
        }
        progress.spooled_bytes = spool.bytes();
        progress.position = shown(position);
        Ok(progress)
    }

    fn end(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError> {
        let (_, mount) = place(at, store)?;
        let path = spool_file(at.home, at.instance, store);
        match Spool::open(&path, WAIT, drop) {
            Ok(Some(mut spool)) if spool.given_up().is_none() => {
                spool.append(&Entry::GivenUp { why: OVER.to_owned() })?;
            }
            Ok(_) => {}
            // It is of no use as it is.
            Err(_) => std::fs::remove_file(&path).map_err(crate::error::io("remove", &path))?,
        }
        let server = Server::open(self, at, store, mount, CloneMode::Live)?;
        let dropped = log::drop_slots(&server, &|| false);
        server.close(dropped)?;
        let known = capture::progress(at.home, at.instance).remove(store).unwrap_or_default();
        let progress = Progress { at_ms: now_ms(), ended: true, behind_bytes: 0, trouble: None, ..known };
        capture::tell(at.home, at.instance, store, &progress);
        Ok(())
    }

    fn forget(&self, at: &Placement<'_>, store: &StoreName) -> Result<(), EngineError> {
        let (found, mount) = place(at, store)?;
        if found.kind != StoreKind::Postgres {
            return Ok(());
        }
        // As `pg_basebackup` leaves them out: a server that only starts already goes another way than a log that is archived.
        let hands = self.hands(at.home)?;
        let scratch = self.scratch_place(at.home, &hands, mount)?;
        let folder = if found.path.is_empty() { SLOTS.to_owned() } else { format!("{}/{SLOTS}", found.path) };
        for slot in hands.list((mount, &folder))? {
            let slot = scratch.below(&format!("{folder}/{}", slot.name));
            hands.remove(scratch.scratch(), &slot, &crate::store::Progress::none())?;
        }
        Ok(())
    }
}
