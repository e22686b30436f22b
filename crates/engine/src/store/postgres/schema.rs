//! The shape of databases and of the cluster, as objects with canonical definitions.
//!
//! Owns what is read from the catalogues. It must never take over a password, a connection string or
//! the value of a setting except as a digest.

use super::lines::Texts;
use super::names::{ident, large_objects, part};
use super::{PgError, Result};
use std::collections::BTreeMap;
use switchback_core::ids::Digest;

/// Describes one database; see the head of the file for the lines.
pub(super) const SCHEMA_SQL: &str = include_str!("schema.sql");
/// Describes the cluster.
pub(super) const GLOBALS_SQL: &str = include_str!("globals.sql");

/// Something that is defined: kind and name are the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Object {
    /// The relation it belongs to, if it comes and goes with one.
    pub parent: Option<String>,
    pub definition: String,
}

/// Objects by kind and name.
pub(in crate::store) type Objects = BTreeMap<(String, String), Object>;

/// A stored column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// As `format_type` writes it.
    pub decl: String,
    /// Name of the type; of the base type for a domain.
    pub base: String,
    pub default: Option<String>,
    /// Whether the default is the same for each row and can be evaluated without effect.
    pub constant: bool,
}

impl Column {
    /// How `format_type` writes an integer type, if it is one; a domain is written otherwise.
    pub(super) fn base_decl(&self) -> Option<&'static str> {
        match self.base.as_str() {
            "int2" => Some("smallint"),
            "int4" => Some("integer"),
            "int8" => Some("bigint"),
            _ => None,
        }
    }
}

/// What a [`Table`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Unlogged,
    MaterializedView,
    /// All large objects of a database, one row each.
    LargeObjects,
}

/// Something that has rows: a table, a leaf partition, a materialized view, the large objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub schema: String,
    pub name: String,
    pub kind: Kind,
    /// False where reading is an error: a materialized view that was never filled, an unlogged table of a
    /// standby.
    pub populated: bool,
    /// Size on disk in bytes, without indexes.
    pub bytes: u64,
    /// Size of its indexes in bytes.
    pub index_bytes: u64,
    /// Dead rows, as far as the server has counted them.
    pub dead: u64,
    /// Stored columns in their order; no generated ones.
    pub columns: Vec<Column>,
    /// Primary key columns in key order; empty if none.
    pub key: Vec<String>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// What follows FROM; its rows are called `t`.
    pub(super) fn from(&self) -> String {
        match self.kind {
            Kind::LargeObjects => format!("{LARGE_OBJECTS} AS t"),
            Kind::MaterializedView => format!("{}.{} AS t", ident(&self.schema), ident(&self.name)),
            Kind::Table | Kind::Unlogged => {
                format!("ONLY {}.{} AS t", ident(&self.schema), ident(&self.name))
            }
        }
    }

    /// The name of its part.
    pub(super) fn part(&self, database: &str) -> String {
        match self.kind {
            Kind::LargeObjects => large_objects(database),
            _ => part(database, &self.schema, &self.name),
        }
    }

    fn large_objects() -> Self {
        let column = |name: &str, decl: &str| Column {
            name: name.to_owned(),
            decl: decl.to_owned(),
            base: decl.to_owned(),
            default: None,
            constant: false,
        };
        Self {
            schema: String::new(),
            name: String::new(),
            kind: Kind::LargeObjects,
            populated: true,
            bytes: 0,
            index_bytes: 0,
            dead: 0,
            columns: vec![
                column("oid", "int8"),
                column("owner", "text"),
                column("privileges", "text"),
                column("bytes", "int8"),
                column("content", "text"),
            ],
            key: vec!["oid".to_owned()],
        }
    }
}

/// Large objects as rows: pages are hashed with their number; empty ones have no page.
const LARGE_OBJECTS: &str = "(SELECT m.oid::int8 AS oid, pg_get_userbyid(m.lomowner)::text AS owner, \
    m.lomacl::text AS privileges, coalesce(p.bytes, 0) AS bytes, coalesce(p.content, '') AS content \
    FROM pg_largeobject_metadata m LEFT JOIN (SELECT loid, max(pageno::int8 * (current_setting('block_size')::int8 / 4) + octet_length(data)) AS bytes, \
    sum(hashtextextended(r, 1))::text || ':' || sum(hashtextextended(r, 2))::text AS content \
    FROM (SELECT loid, pageno, data, ROW(pageno, data)::text COLLATE \"C\" AS r FROM pg_largeobject OFFSET 0) q \
    GROUP BY loid) p ON p.loid = m.oid)";

/// A sequence's place and step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub schema: String,
    pub name: String,
    pub increment: i64,
}

/// The shape of one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Schema {
    pub encoding: String,
    /// The server's major version: it decides how definitions are printed.
    pub major: u32,
    pub objects: Objects,
    /// By part name.
    pub tables: BTreeMap<String, Table>,
    /// By part name.
    pub sequences: BTreeMap<String, Sequence>,
}

/// Takes an `o` line over. Two objects of one name (overloads that print alike) are joined.
pub(super) fn object(objects: &mut Objects, line: &Texts) -> Result<()> {
    let definition = line.optional(4).unwrap_or("").to_owned();
    let parent = line.optional(3).map(str::to_owned);
    objects
        .entry((line.owned(1)?, line.owned(2)?))
        .and_modify(|o| {
            o.definition.push('\n');
            o.definition.push_str(&definition);
        })
        .or_insert(Object { parent, definition });
    Ok(())
}

impl Schema {
    /// Takes a line of [`SCHEMA_SQL`] over. Returns whether it was one.
    pub(super) fn take(&mut self, database: &str, line: &Texts) -> Result<bool> {
        match line.tag() {
            "E" => (self.encoding, self.major) = (line.owned(1)?, line.number(2)?),
            "L" => {
                if line.number::<u64>(1)? > 0 {
                    self.tables.insert(large_objects(database), Table::large_objects());
                }
            }
            "T" => {
                let table = Table {
                    schema: line.owned(1)?,
                    name: line.owned(2)?,
                    kind: match (line.text(3)?, line.flag(4)?) {
                        ("m", _) => Kind::MaterializedView,
                        (_, true) => Kind::Unlogged,
                        _ => Kind::Table,
                    },
                    bytes: line.optional(5).and_then(|b| b.parse().ok()).unwrap_or(0),
                    populated: line.flag(6)?,
                    index_bytes: line.optional(7).and_then(|b| b.parse().ok()).unwrap_or(0),
                    dead: line.optional(8).and_then(|b| b.parse().ok()).unwrap_or(0),
                    columns: Vec::new(),
                    key: Vec::new(),
                };
                self.tables.insert(table.part(database), table);
            }
            "C" => {
                let column = Column {
                    name: line.owned(3)?,
                    decl: line.owned(4)?,
                    base: line.owned(5)?,
                    default: line.optional(6).map(str::to_owned),
                    constant: line.flag(7)?,
                };
                self.table(database, line)?.columns.push(column);
            }
            "K" => {
                let name = line.owned(3)?;
                self.table(database, line)?.key.push(name);
            }
            "S" => {
                let (schema, name) = (line.owned(1)?, line.owned(2)?);
                let sequence = Sequence { increment: line.number(3)?, schema, name };
                self.sequences.insert(part(database, &sequence.schema, &sequence.name), sequence);
            }
            "o" => object(&mut self.objects, line)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn table(&mut self, database: &str, line: &Texts) -> Result<&mut Table> {
        let name = part(database, line.text(1)?, line.text(2)?);
        self.tables
            .get_mut(&name)
            .ok_or_else(|| PgError::protocol(database, format!("{name} came and went while it was read")))
    }

    /// Whether row hashes of the two can be compared: they are over bytes in the server's encoding.
    pub(super) fn bytes_are_utf8(&self) -> bool {
        self.encoding == "UTF8" || self.encoding == "SQL_ASCII"
    }
}

/// Digest over objects, in their order.
pub(in crate::store) fn digest(databases: &BTreeMap<String, Objects>, globals: &Objects) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut field = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for (name, objects) in databases.iter().map(|(n, o)| (n.as_str(), o)).chain([("", globals)]) {
        field(name);
        field(&objects.len().to_string());
        for ((kind, name), object) in objects {
            field(kind);
            field(name);
            field(object.parent.as_deref().unwrap_or(""));
            field(&object.definition);
        }
    }
    Digest::from(hasher.finalize().to_hex().to_string())
}
