//! Tracing what a migration does while it runs: event triggers in every database, and the server's own log of statements.
//!
//! Owns what is put into a clone for that, and taking it out again. It must only be used on clones: it changes settings of
//! the server, which count from its next start on.

use super::super::Progress;
use super::lines::Texts;
use super::{PgError, Psql, Result, session};
use std::collections::BTreeMap;
use switchback_core::trace::{DdlEvent, Dropped, FailedStatement, Lock, LogLine, Raw, RawTable};

const ARM: &str = include_str!("arm.sql");
const DISARM: &str = include_str!("disarm.sql");
const READ: &str = include_str!("read.sql");
const LOG: &str = include_str!("log.sql");

/// Settings of the clone's server while it is traced. A setting on its command line wins over them; then statements are not
/// timed, and the trace says so. The values of parameters are not logged.
const SETTINGS: [(&str, &str); 14] = [
    ("logging_collector", "on"),
    ("log_destination", "csvlog"),
    ("log_directory", "switchback_trace"),
    ("log_filename", "trace.log"),
    ("log_rotation_age", "0"),
    ("log_rotation_size", "0"),
    ("log_min_duration_statement", "0"),
    ("log_min_messages", "warning"),
    ("log_min_error_statement", "error"),
    ("log_duration", "off"),
    ("log_statement", "none"),
    ("log_error_verbosity", "default"),
    ("log_timezone", "UTC"),
    ("log_parameter_max_length", "0"),
];

/// Lines of the log that are read.
const MOST_LINES: usize = 200_000;

/// Settings that servers before this version do not know.
const NEWER: [(&str, u32); 1] = [("log_parameter_max_length", 130_000)];

/// Whether the role may trace, and the version of the server.
const WHO: &str = "COPY (SELECT 'w', rolsuper, current_setting('server_version_num'), \
    current_setting('logging_collector') = 'on' AND current_setting('log_destination') LIKE '%csvlog%' \
    AND current_setting('log_directory') = 'switchback_trace' AND current_setting('log_min_duration_statement') = '0' \
    FROM pg_roles WHERE rolname = current_user) TO STDOUT;";

struct Who {
    superuser: bool,
    version: u32,
    /// Whether statements are logged for the trace.
    logging: bool,
}

fn who(psql: &dyn Psql) -> Result<Who> {
    let lines = session::cluster_lines(psql, &session::reading(WHO), &|| false)?;
    let line = lines.first().ok_or_else(|| PgError::protocol("postgres", "the role is not there"))?;
    Ok(Who { superuser: line.flag(1)?, version: line.number(2)?, logging: line.flag(3)? })
}

/// Prepares a clone for being traced from its next start on. `Err` of the inner result says why it cannot be; the clone is
/// then as before. Safe to repeat.
pub fn arm(psql: &dyn Psql) -> Result<std::result::Result<(), String>> {
    let who = who(psql)?;
    if !who.superuser {
        return Ok(Err("only a superuser can trace; set `user` of the store".to_owned()));
    }
    for database in session::databases(psql)? {
        if let Err(why) = session::lines(psql, &database, &session::writing(ARM), &|| false) {
            forget(psql, who.version)?;
            return Ok(Err(why.to_string()));
        }
    }
    let known = |name: &str| NEWER.iter().all(|(n, since)| *n != name || who.version >= *since);
    let mut sql = String::new();
    for (name, value) in SETTINGS.iter().filter(|(name, _)| known(name)) {
        sql.push_str(&format!("ALTER SYSTEM SET {name} = '{value}';\n"));
    }
    if let Err(why) = session::cluster_lines(psql, &session::writing(&sql), &|| false) {
        forget(psql, who.version)?;
        return Ok(Err(why.to_string()));
    }
    Ok(Ok(()))
}

/// Reads what was recorded since [`arm`], and removes everything that was put into the clone; `None` if it was not armed.
pub fn read(psql: &dyn Psql, progress: &Progress<'_>) -> Result<Option<Raw>> {
    let cancel = session::cancel(progress);
    let who = who(psql)?;
    let mut raw = Raw::default();
    let mut armed = false;
    for database in session::databases(psql)? {
        let there = "COPY (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname = 'switchback_trace' AND c.relname = 'start') TO STDOUT;";
        let found = session::lines(psql, &database, &session::reading(there), &cancel)?;
        if found.first().is_none_or(|l| l.tag() != "1") {
            if armed || who.logging {
                raw.notes.push(format!("database {database} is new; of it there are only statements"));
            }
            continue;
        }
        armed = true;
        // No statement after this one is recorded, so that what follows sees all of it.
        session::lines(psql, &database, &session::writing(DISARM), &cancel)?;
        let lines = session::lines(psql, &database, &session::reading(READ), &cancel)?;
        databases(&database, &lines, &mut raw)?;
    }
    if !armed {
        return Ok(None);
    }
    if who.logging {
        settle(psql, who.version)?;
        match log(psql, &mut raw, &cancel) {
            Ok(()) => raw.timed = true,
            Err(PgError::Cancelled) => return Err(PgError::Cancelled),
            Err(why) => raw.notes.push(format!("statements were not timed: {why}")),
        }
    } else {
        raw.notes.push(
            "statements were not timed: settings on the server's command line keep its log from being written"
                .to_owned(),
        );
    }
    forget(psql, who.version)?;
    Ok(Some(raw))
}

/// Ends the logging.
fn settle(psql: &dyn Psql, version: u32) -> Result<()> {
    let mut sql = String::new();
    for (name, _) in SETTINGS {
        if NEWER.iter().all(|(n, since)| *n != name || version >= *since) {
            sql.push_str(&format!("ALTER SYSTEM RESET {name};\n"));
        }
    }
    // The collector writes what the others sent it a moment ago.
    sql.push_str("COPY (SELECT pg_reload_conf()) TO STDOUT;\nCOPY (SELECT pg_sleep(0.3)) TO STDOUT;");
    session::cluster_lines(psql, &session::writing(&sql), &|| false)?;
    Ok(())
}

/// Removes what [`arm`] made.
fn forget(psql: &dyn Psql, version: u32) -> Result<()> {
    for database in session::databases(psql)? {
        let sql = format!("{DISARM}DROP SCHEMA IF EXISTS switchback_trace CASCADE;\n");
        session::lines(psql, &database, &session::writing(&sql), &|| false)?;
    }
    settle(psql, version)
}

/// Takes over what one database recorded.
fn databases(database: &str, lines: &[Texts], raw: &mut Raw) -> Result<()> {
    // Events by session and transaction, as indices: what was dropped and rewritten belongs to the first that ended afterwards.
    let mut known: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
    for line in lines {
        match line.tag() {
            "e" => {
                known.entry((line.number(1)?, line.number(2)?)).or_default().push(raw.events.len());
                raw.events.push(DdlEvent {
                    database: database.to_owned(),
                    pid: line.number(1)?,
                    began_us: line.number(3)?,
                    ended_us: line.number(4)?,
                    tag: line.owned(5)?,
                    text: line.optional(6).unwrap_or("").to_owned(),
                    objects: list(database, line.text(7)?)?,
                    locks: list(database, line.text(8)?)?
                        .iter()
                        .filter_map(|l| l.split_once(' '))
                        .filter_map(|(mode, table)| Some((Lock::parse(mode)?, table.to_owned())))
                        .collect(),
                    ..DdlEvent::default()
                });
            }
            "d" | "r" => {
                let at: i64 = line.number(3)?;
                let of = known.get(&(line.number(1)?, line.number(2)?)).map_or(&[][..], Vec::as_slice);
                let event =
                    of.iter().find(|i| raw.events.get(**i).is_some_and(|e| e.ended_us >= at)).copied();
                let Some(event) = event.and_then(|i| raw.events.get_mut(i)) else { continue };
                if line.tag() == "d" {
                    let (kind, name, original) = (line.owned(4)?, line.owned(5)?, line.flag(6)?);
                    event.dropped.push(Dropped { kind, name, original });
                } else {
                    event.rewrote.push((line.owned(4)?, line.number(5)?));
                }
            }
            "t" => {
                let (before, after) = (line.optional(1), line.optional(2));
                let place = |file: usize, bytes: usize| -> Result<Option<(u64, u64)>> {
                    line.optional(file).map(|_| Ok((line.number(file)?, line.number(bytes)?))).transpose()
                };
                raw.tables.push(RawTable {
                    database: database.to_owned(),
                    name: after.or(before).unwrap_or("").to_owned(),
                    was: before.filter(|b| after.is_some_and(|a| a != *b)).map(str::to_owned),
                    before: place(3, 4)?,
                    after: place(5, 6)?,
                    rows: (line.number(7)?, line.number(8)?, line.number(9)?),
                });
            }
            "b" => {
                // The log of writes is one for the server: every database saw the same length of it.
                raw.wal_bytes = raw.wal_bytes.max(line.number(1)?);
                raw.bytes.0 += line.number::<u64>(2)?;
                raw.bytes.1 += line.number::<u64>(3)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn list(database: &str, json: &str) -> Result<Vec<String>> {
    serde_json::from_str(json).map_err(|e| PgError::protocol(database, format!("a list: {e}")))
}

/// Takes over what the server logged.
fn log(psql: &dyn Psql, raw: &mut Raw, cancel: &dyn Fn() -> bool) -> Result<()> {
    let ask = |encoding: &str| {
        let sql = session::writing(&format!("\\set encoding {encoding}\n\\set most {MOST_LINES}\n{LOG}"));
        session::cluster_lines(psql, &sql, cancel)
    };
    let lines = match ask("UTF8") {
        // Statements of clients that use another encoding; as Latin-1 every byte is a character.
        Err(e) if matches!(e.sqlstate(), Some("22021")) => ask("LATIN1")?,
        other => other?,
    };
    for line in &lines {
        match line.tag() {
            "l" => raw.lines.push(LogLine {
                database: line.owned(1)?,
                pid: line.number(2)?,
                ended_us: line.number(3)?,
                took_us: line.number(4)?,
                tag: line.owned(5)?,
                transaction: line.optional(6).unwrap_or("").to_owned(),
                text: line.optional(7).unwrap_or("").to_owned(),
            }),
            "s" => raw.reads = (line.number(1)?, line.number(2)?),
            "x" => raw.errors.push(FailedStatement {
                database: line.owned(1)?,
                sqlstate: line.owned(2)?,
                message: line.owned(3)?,
                text: line.owned(4)?,
            }),
            _ => {}
        }
    }
    if raw.lines.len() >= MOST_LINES {
        raw.notes.push(format!(
            "more than {MOST_LINES} statements were logged; those of later sessions are left out"
        ));
    }
    Ok(())
}
