//! What is known about the data of a store: fingerprints, differences, copies, exports.
//!
//! These are results as values. The engine's stores produce them; judges and reports read them.

use crate::ids::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The kinds of store that can be cloned and compared.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One SQLite database file.
    Sqlite,
    /// A directory tree or a single file.
    Files,
    /// The databases of a Postgres server.
    Postgres,
    /// The databases of a MySQL or MariaDB server.
    #[serde(alias = "mariadb")]
    Mysql,
}

impl StoreKind {
    /// Whether it is read through a server of its own.
    pub fn has_server(self) -> bool {
        matches!(self, Self::Postgres | Self::Mysql)
    }

    /// As the configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Files => "files",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }
}

/// The exact content of a store, in a form that two copies can be compared by.
///
/// `parts` maps a table (SQLite) or a path relative to the root (files) to its content. Equal digests mean equal content;
/// page layout, free pages and row order do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// BLAKE3 over everything below.
    pub digest: Digest,
    /// Digest of the schema (SQLite: `sqlite_schema` in a fixed order, `user_version`,
    /// `application_id`); for files a digest of the empty text.
    pub schema: Digest,
    /// Rows (SQLite) or files (files) in total.
    pub items: u64,
    /// Size of the store in bytes.
    pub bytes: u64,
    /// Per table or file: count of rows (1 for a file) and content digest. For trees of more than
    /// 10,000 files the map is empty and only `digest` counts.
    pub parts: BTreeMap<String, Part>,
}

impl Fingerprint {
    /// Whether a copy has all of this, but for paths that copies do not get (and what lies below these). `None` if only
    /// sums over everything are known.
    pub fn equals_copy_without(&self, copy: &Self, left_out: &[String]) -> Option<bool> {
        if self.digest == copy.digest || left_out.is_empty() {
            return Some(self.digest == copy.digest);
        }
        if self.parts.is_empty() || copy.parts.is_empty() {
            return None;
        }
        let out = |path: &str| {
            let below = |of: &String| {
                let of = of.trim_start_matches("./").trim_end_matches('/');
                path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            left_out.iter().any(below)
        };
        let rest = self.parts.iter().filter(|(path, _)| !out(path));
        Some(self.schema == copy.schema && rest.eq(copy.parts.iter()))
    }
}

/// One table or file within a [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Rows, or 1 for a file.
    pub items: u64,
    /// Content digest.
    pub digest: Digest,
}

/// What happened to a table or file between two states of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartChange {
    /// Same content, same shape.
    Unchanged,
    /// All old columns and rows are as before; columns were added.
    ColumnsAdded,
    /// Rows were added, removed or changed, or a file's content or attributes changed.
    Changed,
    /// New table or file.
    Added,
    /// The table or file is gone.
    Dropped,
}

/// The exact difference of one table or file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartDiff {
    /// Table name or relative path.
    pub name: String,
    /// The summary.
    pub change: PartChange,
    /// Rows before (0 for a new table); size in bytes for files.
    pub before: u64,
    /// Rows after; size in bytes for files.
    pub after: u64,
    /// Rows only in the new state; 1 for a new file.
    pub rows_added: u64,
    /// Rows only in the old state, also where the whole table was dropped; 1 for a file that is gone.
    pub rows_removed: u64,
    /// Rows with the same key and another value in a column that both states have; 1 for a file
    /// whose content or attributes differ.
    pub rows_changed: u64,
    /// Columns only in the new state.
    pub columns_added: Vec<String>,
    /// Columns only in the old state.
    pub columns_removed: Vec<String>,
    /// A few of the differing rows, at most five of each kind.
    pub examples: Vec<RowChange>,
    /// For files: what changed, in words ("mode 644 -> 600", "content").
    pub notes: Vec<String>,
}

/// One changed row, with values as JSON (blobs as `{"$blob": base64}`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// insert, update or delete, seen from the old state.
    pub op: RowOp,
    /// The key columns (primary key, else `rowid`).
    pub key: Map<String, Value>,
    /// The row in the new state; absent for a delete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub row: Option<Map<String, Value>>,
    /// The row in the old state; absent for an insert.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Map<String, Value>>,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOp {
    /// Only in the new state.
    Insert,
    /// In both, with other values.
    Update,
    /// Only in the old state.
    Delete,
}

/// The exact difference between two states of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDiff {
    /// Tables or files that differ in any way, plus (SQLite only) the unchanged tables.
    pub parts: Vec<PartDiff>,
    /// Schema objects that were added, removed or redefined, in words ("index idx_a added").
    pub schema_changes: Vec<String>,
    /// Orphaned foreign keys in the new state that the old state did not have ("note.user_id: 3 rows").
    pub new_orphans: Vec<String>,
    /// Tables or files that are equal in both.
    pub unchanged: u64,
}

impl StoreDiff {
    /// Whether the two states are equal in every respect.
    pub fn is_empty(&self) -> bool {
        self.schema_changes.is_empty() && self.parts.iter().all(|p| p.change == PartChange::Unchanged)
    }
    /// Rows (or files) of the old state that are gone or altered: what a person calls data loss.
    pub fn lost_or_altered(&self) -> u64 {
        self.parts
            .iter()
            .map(|p| match p.change {
                // `before` is a size for files; an empty dropped table still is a loss.
                PartChange::Dropped => p.rows_removed.max(1),
                _ => p.rows_removed + p.rows_changed,
            })
            .sum()
    }
}

/// How a copy of a store was made and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStats {
    /// Bytes of the copy (apparent size).
    pub bytes: u64,
    /// Bytes that were really written (0 where every file was reflinked; holes do not count).
    pub bytes_written: u64,
    /// Bytes read to find out what has changed, of the source and of an earlier copy together; 0 where all of the
    /// source was copied or shared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_read: u64,
    /// Bytes that an earlier copy had already, and that were not written again; 0 where there was none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_saved: u64,
    /// Files copied.
    pub files: u64,
    /// Files whose blocks are shared with the source.
    pub reflinked: u64,
    /// Wall time in milliseconds.
    pub took_ms: u64,
    /// The longest time writers of the source had to wait because of the copy, in milliseconds.
    pub writers_waited_ms: u64,
    /// What a person should know: sockets left out, files torn by writers, hard links not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl CopyStats {
    /// Adds another copy to this one (times add up, the longest wait is kept).
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.bytes_written += other.bytes_written;
        self.bytes_read += other.bytes_read;
        self.bytes_saved += other.bytes_saved;
        self.files += other.files;
        self.reflinked += other.reflinked;
        self.took_ms += other.took_ms;
        self.writers_waited_ms = self.writers_waited_ms.max(other.writers_waited_ms);
        self.notes.extend(other.notes.iter().cloned());
    }
}

/// What an export of later writes holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportStats {
    /// Per table (or `files`): rows (files) written since, of each kind.
    pub parts: BTreeMap<String, ExportPart>,
    /// Wall time in milliseconds.
    pub took_ms: u64,
}

/// One exported table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPart {
    /// New rows or files.
    pub inserted: u64,
    /// Changed rows or files.
    pub updated: u64,
    /// Deleted rows or files.
    pub deleted: u64,
    /// The file that holds them, relative to the export folder.
    pub file: String,
    /// BLAKE3 of that file.
    pub digest: Digest,
}

impl Default for Digest {
    fn default() -> Self {
        Self::of(b"")
    }
}

impl ExportStats {
    /// All rows and files together.
    pub fn total(&self) -> u64 {
        self.parts.values().map(|p| p.inserted + p.updated + p.deleted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Fingerprint {
        let part = |content: &str| Part { items: 1, digest: Digest::of(content.as_bytes()) };
        Fingerprint {
            digest: Digest::of(format!("{files:?}").as_bytes()),
            schema: Digest::of(b""),
            items: files.len() as u64,
            bytes: 1,
            parts: files.iter().map(|(path, content)| ((*path).to_owned(), part(content))).collect(),
        }
    }

    #[test]
    fn a_copy_is_equal_without_what_copies_do_not_get_and_only_without_that() {
        let left_out = ["crash.journal".to_owned(), "./tmp/".to_owned()];
        let source = of(&[("config", "a"), ("crash.journal", ""), ("tmp/lock", "1"), ("tmpx", "2")]);
        let same = |copy: &[(&str, &str)]| source.equals_copy_without(&of(copy), &left_out);
        assert_eq!(same(&[("config", "a"), ("tmpx", "2")]), Some(true));
        assert_eq!(same(&[("config", "b"), ("tmpx", "2")]), Some(false), "another content");
        assert_eq!(same(&[("config", "a")]), Some(false), "more is missing");
        assert_eq!(same(&[("config", "a"), ("more", ""), ("tmpx", "2")]), Some(false), "more is there");
        assert_eq!(source.equals_copy_without(&of(&[("config", "a")]), &[]), Some(false));
        let large = Fingerprint { parts: BTreeMap::new(), ..source.clone() };
        assert_eq!(large.equals_copy_without(&of(&[("config", "a")]), &left_out), None);
        assert_eq!(large.equals_copy_without(&source, &left_out), Some(true), "the sums are equal");
    }
}
