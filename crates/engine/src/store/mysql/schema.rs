//! The shape of databases, as objects with definitions, and of what has rows in them.
//!
//! Owns what is read from `information_schema`.

use super::super::Progress;
use super::super::postgres::schema::{Object, Objects};
use super::names::is;
use super::orphans::ForeignKey;
use super::session::{self, Row};
use super::{Client, MyError, Result};
use std::collections::BTreeMap;

/// How values of a column are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Integer,
    Float,
    Bits,
    Text,
    Bytes,
    Shape,
    /// DECIMAL, and times with a fraction: zeros at the end of it mean nothing.
    Fraction,
    /// Whose text says all: dates, UUID and so on.
    Other,
}

impl Class {
    fn of(data_type: &str, characters: bool) -> Self {
        match data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Self::Integer,
            "float" | "double" => Self::Float,
            "bit" => Self::Bits,
            "decimal" | "time" | "datetime" | "timestamp" => Self::Fraction,
            "json" => Self::Text,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector" => {
                Self::Bytes
            }
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Self::Shape,
            _ if characters => Self::Text,
            _ => Self::Other,
        }
    }
}

/// What rows have in a column that was just added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// NULL.
    Null,
    /// Its declared default.
    Default,
    /// Zero, or nothing: it has no default and may not be NULL.
    Zero,
    /// Something of their own: a number that counts up.
    Own,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub class: Class,
    /// False where it is computed from others.
    pub stored: bool,
    /// Whether it is of another kind in the state that it is compared with: both are told as text then.
    pub mixed: bool,
    /// What rows have in it if it was added to them.
    pub fresh: Fresh,
}

/// Something that has rows: a table, a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Size on disk in bytes, with indexes, as the server estimates it.
    pub bytes: u64,
    pub columns: Vec<Column>,
    /// Columns of the primary key in its order; empty if there is none.
    pub key: Vec<String>,
    /// InnoDB's number of it, which another one takes where the table is written anew.
    pub number: Option<u64>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Columns that hold something of their own.
    pub(super) fn stored(&self) -> Vec<&Column> {
        self.columns.iter().filter(|c| c.stored).collect()
    }
}

/// What a database is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Schema {
    pub tables: BTreeMap<String, Table>,
    pub objects: Objects,
    pub foreign: Vec<ForeignKey>,
}

/// Which of the two servers it is: some of their catalogues differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour {
    pub maria: bool,
    /// Whether InnoDB's own catalogue can be read: 5.7 and MariaDB have it under one name, 8 under another.
    numbers: Option<&'static str>,
}

/// Asks which server it is.
pub(super) fn flavour(client: &dyn Client) -> Result<Flavour> {
    let sql = "SELECT 'v', VERSION();\n\
        SELECT 'i', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME IN ('INNODB_SYS_TABLES', 'INNODB_TABLES');";
    let mut found = Flavour { maria: false, numbers: None };
    session::each_line(client, "", &session::reading(sql), &|| false, |row| {
        match (row.tag(), row.text(1)?) {
            ("v", version) => found.maria = version.contains("MariaDB"),
            (_, "INNODB_TABLES") => found.numbers = Some("INNODB_TABLES"),
            _ => found.numbers = Some("INNODB_SYS_TABLES"),
        }
        Ok(())
    })?;
    Ok(found)
}

/// The statements that describe a database. Every line begins with a letter for its kind; names and definitions are in hexadecimal
/// digits. Lines `o` are: kind, name, what it belongs to, definition.
fn script(database: &str, flavour: Flavour) -> String {
    let at = |column: &str| is(column, database);
    let mut sql = format!(
        "SELECT 't', HEX(TABLE_NAME), IFNULL(DATA_LENGTH, 0) + IFNULL(INDEX_LENGTH, 0), HEX(CONCAT_WS(' ', TABLE_TYPE, ENGINE, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT)) \
FROM information_schema.TABLES WHERE {t} AND TABLE_TYPE NOT LIKE '%VIEW%' ORDER BY TABLE_NAME;
SELECT 'c', HEX(TABLE_NAME), HEX(COLUMN_NAME), LOWER(DATA_TYPE), CHARACTER_SET_NAME IS NOT NULL, \
CASE WHEN EXTRA LIKE '%auto_increment%' THEN 'own' WHEN COLUMN_DEFAULT IS NOT NULL AND UPPER(COLUMN_DEFAULT) <> 'NULL' THEN 'default' WHEN IS_NULLABLE = 'YES' THEN 'null' ELSE 'zero' END, \
EXTRA LIKE '%VIRTUAL%' OR EXTRA LIKE '%STORED%' OR EXTRA LIKE '%PERSISTENT%', \
HEX(CONCAT_WS(' ', COLUMN_TYPE, COLLATION_NAME, IF(IS_NULLABLE = 'YES', NULL, 'not null'), CONCAT('default ', COLUMN_DEFAULT), NULLIF(EXTRA, ''), NULLIF(GENERATION_EXPRESSION, ''))) \
FROM information_schema.COLUMNS WHERE {t} ORDER BY TABLE_NAME, ORDINAL_POSITION;
SELECT 'k', HEX(TABLE_NAME), HEX(COLUMN_NAME) FROM information_schema.STATISTICS WHERE {t} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX;
SELECT 'o', 'index', HEX(CONCAT(TABLE_NAME, '.', INDEX_NAME)), HEX(TABLE_NAME), \
HEX(CONCAT(IF(MAX(NON_UNIQUE) = 0, 'unique ', ''), MAX(INDEX_TYPE), ' (', GROUP_CONCAT(IFNULL(COLUMN_NAME, {expression}), IFNULL(CONCAT('(', SUB_PART, ')'), ''), IF(COLLATION = 'D', ' desc', '') ORDER BY SEQ_IN_INDEX SEPARATOR ', '), ')')) \
FROM information_schema.STATISTICS WHERE {t} GROUP BY BINARY TABLE_NAME, BINARY INDEX_NAME;
SELECT 'f', HEX(k.TABLE_NAME), HEX(k.CONSTRAINT_NAME), HEX(k.REFERENCED_TABLE_SCHEMA), HEX(k.REFERENCED_TABLE_NAME), HEX(k.COLUMN_NAME), HEX(k.REFERENCED_COLUMN_NAME) \
FROM information_schema.KEY_COLUMN_USAGE k WHERE {k} AND k.REFERENCED_TABLE_NAME IS NOT NULL ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION;
SELECT 'o', 'constraint', HEX(CONCAT(TABLE_NAME, '.', CONSTRAINT_NAME)), HEX(TABLE_NAME), HEX(CONCAT('foreign key to ', REFERENCED_TABLE_NAME, ' on update ', UPDATE_RULE, ' on delete ', DELETE_RULE)) \
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE {cs};
SELECT 'o', 'view', HEX(TABLE_NAME), '', HEX(CONCAT(VIEW_DEFINITION, ' ', CHECK_OPTION, ' ', SECURITY_TYPE)) FROM information_schema.VIEWS WHERE {t};
SELECT 'o', 'trigger', HEX(TRIGGER_NAME), HEX(EVENT_OBJECT_TABLE), HEX(CONCAT(ACTION_TIMING, ' ', EVENT_MANIPULATION, ' ', ACTION_ORDER, ' ', ACTION_STATEMENT)) \
FROM information_schema.TRIGGERS WHERE {tr};
SELECT 'o', LOWER(r.ROUTINE_TYPE), HEX(r.ROUTINE_NAME), '', HEX(CONCAT_WS(' ', r.DTD_IDENTIFIER, r.SECURITY_TYPE, r.SQL_DATA_ACCESS, r.ROUTINE_DEFINITION, \
(SELECT GROUP_CONCAT(CONCAT_WS(' ', p.PARAMETER_MODE, p.PARAMETER_NAME, p.DTD_IDENTIFIER) ORDER BY p.ORDINAL_POSITION SEPARATOR ', ') FROM information_schema.PARAMETERS p \
WHERE p.SPECIFIC_SCHEMA = r.ROUTINE_SCHEMA AND p.SPECIFIC_NAME = r.SPECIFIC_NAME AND p.ROUTINE_TYPE = r.ROUTINE_TYPE))) FROM information_schema.ROUTINES r WHERE {r};
",
        t = at("TABLE_SCHEMA"),
        k = at("k.TABLE_SCHEMA"),
        cs = at("CONSTRAINT_SCHEMA"),
        tr = at("TRIGGER_SCHEMA"),
        r = at("r.ROUTINE_SCHEMA"),
        // Indexes on expressions are MySQL's.
        expression = if flavour.maria { "'expression'" } else { "EXPRESSION" },
    );
    // MySQL's catalogue of checks does not say which table they are of; their names are unique in a database there.
    sql.push_str(&if flavour.maria {
        format!(
            "SELECT 'o', 'constraint', HEX(CONCAT(TABLE_NAME, '.', CONSTRAINT_NAME)), HEX(TABLE_NAME), HEX(CONCAT('check ', CHECK_CLAUSE)) \
             FROM information_schema.CHECK_CONSTRAINTS WHERE {};\n",
            at("CONSTRAINT_SCHEMA")
        )
    } else {
        format!(
            "SELECT 'o', 'constraint', HEX(CONCAT(t.TABLE_NAME, '.', t.CONSTRAINT_NAME)), HEX(t.TABLE_NAME), HEX(CONCAT('check ', c.CHECK_CLAUSE)) \
             FROM information_schema.TABLE_CONSTRAINTS t JOIN information_schema.CHECK_CONSTRAINTS c USING (CONSTRAINT_SCHEMA, CONSTRAINT_NAME) WHERE {};\n",
            at("t.CONSTRAINT_SCHEMA")
        )
    });
    sql
}

impl Schema {
    fn take(&mut self, database: &str, row: &Row<'_>) -> Result<()> {
        let object = |parent: String, definition: String| Object {
            parent: Some(parent).filter(|p| !p.is_empty()),
            definition,
        };
        match row.tag() {
            "t" => {
                let name = row.name(1)?;
                self.objects.insert(("table".to_owned(), name.clone()), object(name.clone(), row.name(3)?));
                self.tables.insert(name, Table { bytes: row.number(2)?, ..Table::default() });
            }
            "c" => {
                let (table, name) = (row.name(1)?, row.name(2)?);
                // The columns of views are part of their definition.
                let Some(found) = self.tables.get_mut(&table) else { return Ok(()) };
                found.columns.push(Column {
                    name: name.clone(),
                    class: Class::of(row.text(3)?, row.text(4)? == "1"),
                    stored: row.text(6)? == "0",
                    mixed: false,
                    fresh: match row.text(5)? {
                        "null" => Fresh::Null,
                        "default" => Fresh::Default,
                        "zero" => Fresh::Zero,
                        _ => Fresh::Own,
                    },
                });
                self.objects
                    .insert(("column".to_owned(), format!("{table}.{name}")), object(table, row.name(7)?));
            }
            "k" => {
                if let Some(table) = self.tables.get_mut(&row.name(1)?) {
                    table.key.push(row.name(2)?);
                }
            }
            "f" => ForeignKey::take(&mut self.foreign, row)?,
            "o" => {
                let key = (row.text(1)?.to_owned(), row.name(2)?);
                self.objects.insert(key, object(row.name(3)?, row.name(4)?));
            }
            other => return Err(MyError::protocol(database, format!("line {other:?}"))),
        }
        Ok(())
    }
}

/// Reads what a database is made of.
pub(super) fn read(
    client: &dyn Client,
    database: &str,
    flavour: Flavour,
    progress: &Progress<'_>,
) -> Result<Schema> {
    let mut schema = Schema::default();
    let cancel = session::cancel(progress);
    session::each_line(client, database, &session::reading(&script(database, flavour)), &cancel, |row| {
        schema.take(database, row)
    })?;
    events(client, database, flavour, &mut schema, &cancel)?;
    numbers(client, database, flavour, &mut schema, &cancel)?;
    Ok(schema)
}

/// Events; who may not read them knows less. MariaDB shows none where nobody is asked for a password, but has them in a table.
fn events(
    client: &dyn Client,
    database: &str,
    flavour: Flavour,
    schema: &mut Schema,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    let sql = if flavour.maria {
        format!(
            "SELECT 'o', 'event', HEX(name), '', HEX(CONCAT_WS(' ', execute_at, interval_value, interval_field, status, body)) FROM mysql.event WHERE BINARY db = {};",
            super::names::bytes(database)
        )
    } else {
        format!(
            "SELECT 'o', 'event', HEX(EVENT_NAME), '', HEX(CONCAT_WS(' ', EVENT_TYPE, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD, STATUS, EVENT_DEFINITION)) FROM information_schema.EVENTS WHERE {};",
            is("EVENT_SCHEMA", database)
        )
    };
    let read = session::each_line(client, database, &session::reading(&sql), cancel, |row| {
        schema.take(database, row)
    });
    match read {
        Err(e) if e.is_denied() => Ok(()),
        other => other,
    }
}

/// The numbers that InnoDB has for tables; who may not read them knows less.
fn numbers(
    client: &dyn Client,
    database: &str,
    flavour: Flavour,
    schema: &mut Schema,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    let Some(catalogue) = flavour.numbers else { return Ok(()) };
    let sql = format!("SELECT 'n', HEX(NAME), TABLE_ID FROM information_schema.{catalogue};");
    let read = session::each_line(client, database, &session::reading(&sql), cancel, |row| {
        let name = row.name(1)?;
        // Characters outside of ASCII letters and digits are encoded in it; such tables have no number here.
        let table = name.strip_prefix(database).and_then(|rest| rest.strip_prefix('/'));
        if let Some(table) = table.and_then(|t| schema.tables.get_mut(t)) {
            table.number = Some(row.number(2)?);
        }
        Ok(())
    });
    match read {
        Err(e) if e.is_denied() => Ok(()),
        other => other,
    }
}
