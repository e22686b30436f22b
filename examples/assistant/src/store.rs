//! Owns the SQL of notes, tags, reminders and the list of uploads.
//!
//! Knows nothing of HTTP. A missing row is `None` or `false`, never an error.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params, params};
use serde::{Deserialize, Serialize};

use crate::release::{Feature, Manifest};

/// A note as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Note {
    pub id: i64,
    pub title: String,
    pub body: String,
    pub created_at: String,
    pub tags: Vec<String>,
    /// From 0 (none) to 3 (high); absent before 2.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Absent before 2.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
}

/// What a client says about a note; what it leaves out stays as it is.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NoteChange {
    pub title: Option<String>,
    pub body: Option<String>,
    pub tags: Option<Vec<String>>,
    pub priority: Option<i64>,
    pub done: Option<bool>,
}

/// A reminder of a note.
#[derive(Debug, Serialize)]
pub(crate) struct Reminder {
    pub id: i64,
    pub note_id: i64,
    pub title: String,
    pub at: String,
}

/// An uploaded file, without its bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Upload {
    pub id: i64,
    pub name: String,
    pub bytes: i64,
    pub created_at: String,
    /// The file's name in the uploads folder.
    #[serde(skip)]
    pub stored_as: String,
}

/// How much there is.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    pub notes: i64,
    pub uploads: i64,
    /// The size of all uploads together.
    pub bytes: i64,
    /// Notes that are not done; absent before 2.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<i64>,
    /// Absent before 2.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reminders: Option<i64>,
}

/// The present time in UTC, as columns hold it: RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// Formats a time as columns hold it.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Separates tags in a row; cannot be typed.
const TAG_SEPARATOR: char = '\u{1f}';

fn select_notes(manifest: &Manifest, rest: &str) -> String {
    let extra = if manifest.has(Feature::Priorities) { "priority, done" } else { "null, null" };
    format!(
        "select id, title, body, created_at,
            (select group_concat(name, char(31)) from (
                select name from note_tags join tags on tags.id = tag_id
                where note_id = notes.id order by name)),
            {extra}
         from notes {rest}"
    )
}

fn note_of(row: &Row<'_>) -> rusqlite::Result<Note> {
    let tags: Option<String> = row.get(4)?;
    Ok(Note {
        id: row.get(0)?,
        title: row.get(1)?,
        body: row.get(2)?,
        created_at: row.get(3)?,
        tags: tags.map(|tags| tags.split(TAG_SEPARATOR).map(str::to_owned).collect()).unwrap_or_default(),
        priority: row.get(5)?,
        done: row.get(6)?,
    })
}

/// Lists notes, newest first.
pub(crate) fn notes(conn: &Connection, manifest: &Manifest, limit: u32) -> rusqlite::Result<Vec<Note>> {
    conn.prepare_cached(&select_notes(manifest, "order by id desc limit ?1"))?
        .query_map([limit], note_of)?
        .collect()
}

/// Finds a note.
pub(crate) fn note(conn: &Connection, manifest: &Manifest, id: i64) -> rusqlite::Result<Option<Note>> {
    conn.prepare_cached(&select_notes(manifest, "where id = ?1"))?.query_row([id], note_of).optional()
}

/// Adds a note, whose title must have been checked to be there.
pub(crate) fn add_note(
    conn: &mut Connection,
    manifest: &Manifest,
    new: &NoteChange,
) -> rusqlite::Result<Option<Note>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("insert into notes (title, body, created_at) values (?1, '', ?2)", params![new.title, now()])?;
    let id = tx.last_insert_rowid();
    apply(&tx, manifest, id, new)?;
    let added = note(&tx, manifest, id)?;
    tx.commit()?;
    Ok(added)
}

/// Changes a note; `None` when there is no such note.
pub(crate) fn change_note(
    conn: &mut Connection,
    manifest: &Manifest,
    id: i64,
    change: &NoteChange,
) -> rusqlite::Result<Option<Note>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if note(&tx, manifest, id)?.is_none() {
        return Ok(None);
    }
    apply(&tx, manifest, id, change)?;
    let changed = note(&tx, manifest, id)?;
    tx.commit()?;
    Ok(changed)
}

fn apply(conn: &Connection, manifest: &Manifest, id: i64, change: &NoteChange) -> rusqlite::Result<()> {
    conn.execute(
        "update notes set title = coalesce(:title, title), body = coalesce(:body, body) where id = :id",
        named_params! {":id": id, ":title": change.title, ":body": change.body},
    )?;
    if manifest.has(Feature::Priorities) {
        conn.execute(
            "update notes set priority = coalesce(:priority, priority), done = coalesce(:done, done) where id = :id",
            named_params! {":id": id, ":priority": change.priority, ":done": change.done},
        )?;
    }
    if let Some(tags) = &change.tags {
        conn.execute("delete from note_tags where note_id = ?1", [id])?;
        for tag in tags {
            conn.execute("insert or ignore into tags (name) values (?1)", [tag])?;
            conn.execute(
                "insert or ignore into note_tags (note_id, tag_id) select ?1, id from tags where name = ?2",
                params![id, tag],
            )?;
        }
    }
    Ok(())
}

/// Deletes a note with its tags and reminders; false when there is no such note.
pub(crate) fn delete_note(conn: &Connection, id: i64) -> rusqlite::Result<bool> {
    Ok(conn.execute("delete from notes where id = ?1", [id])? > 0)
}

/// Lists reminders, next first.
pub(crate) fn reminders(conn: &Connection, limit: u32) -> rusqlite::Result<Vec<Reminder>> {
    conn.prepare_cached(
        "select reminders.id, note_id, title, at from reminders join notes on notes.id = note_id
         order by at, reminders.id limit ?1",
    )?
    .query_map([limit], |row| {
        Ok(Reminder { id: row.get(0)?, note_id: row.get(1)?, title: row.get(2)?, at: row.get(3)? })
    })?
    .collect()
}

/// Adds a reminder; `None` when there is no such note.
pub(crate) fn add_reminder(
    conn: &mut Connection,
    note_id: i64,
    at: &str,
) -> rusqlite::Result<Option<Reminder>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let title: Option<String> =
        tx.query_row("select title from notes where id = ?1", [note_id], |row| row.get(0)).optional()?;
    let Some(title) = title else { return Ok(None) };
    tx.execute("insert into reminders (note_id, at) values (?1, ?2)", params![note_id, at])?;
    let id = tx.last_insert_rowid();
    tx.commit()?;
    Ok(Some(Reminder { id, note_id, title, at: at.to_owned() }))
}

/// Deletes a reminder; false when there is no such reminder.
pub(crate) fn delete_reminder(conn: &Connection, id: i64) -> rusqlite::Result<bool> {
    Ok(conn.execute("delete from reminders where id = ?1", [id])? > 0)
}

const SELECT_UPLOADS: &str = "select id, name, bytes, created_at, stored_as from uploads";

fn upload_of(row: &Row<'_>) -> rusqlite::Result<Upload> {
    Ok(Upload {
        id: row.get(0)?,
        name: row.get(1)?,
        bytes: row.get(2)?,
        created_at: row.get(3)?,
        stored_as: row.get(4)?,
    })
}

/// Lists uploads, newest first.
pub(crate) fn uploads(conn: &Connection, limit: u32) -> rusqlite::Result<Vec<Upload>> {
    conn.prepare_cached(&format!("{SELECT_UPLOADS} order by id desc limit ?1"))?
        .query_map([limit], upload_of)?
        .collect()
}

/// Finds an upload.
pub(crate) fn upload(conn: &Connection, id: i64) -> rusqlite::Result<Option<Upload>> {
    conn.prepare_cached(&format!("{SELECT_UPLOADS} where id = ?1"))?.query_row([id], upload_of).optional()
}

/// Adds an upload whose bytes are already in the uploads folder.
pub(crate) fn add_upload(
    conn: &Connection,
    name: &str,
    bytes: i64,
    stored_as: &str,
    created_at: &str,
) -> rusqlite::Result<Upload> {
    conn.prepare_cached("insert into uploads (name, bytes, stored_as, created_at) values (?1, ?2, ?3, ?4)")?
        .execute(params![name, bytes, stored_as, created_at])?;
    Ok(Upload {
        id: conn.last_insert_rowid(),
        name: name.to_owned(),
        bytes,
        created_at: created_at.to_owned(),
        stored_as: stored_as.to_owned(),
    })
}

/// Counts what there is.
pub(crate) fn stats(conn: &Connection, manifest: &Manifest) -> rusqlite::Result<Stats> {
    let count = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get(0));
    let feature = |feature, sql: &str| manifest.has(feature).then(|| count(sql)).transpose();
    Ok(Stats {
        notes: count("select count(*) from notes")?,
        uploads: count("select count(*) from uploads")?,
        bytes: count("select coalesce(sum(bytes), 0) from uploads")?,
        open: feature(Feature::Priorities, "select count(*) from open_notes")?,
        reminders: feature(Feature::Reminders, "select count(*) from reminders")?,
    })
}
