//! What is to be known about a server before it is cloned or upgraded.
//!
//! Owns the questions and the answers as values. It must never take over a command, a connection string
//! or a password: whether one is set is enough.

use super::lines::Texts;
use super::{PgError, Psql, Result, session};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FACTS_SQL: &str = include_str!("facts.sql");
pub(super) const DATABASE_SQL: &str = include_str!("database_facts.sql");

/// What is known about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// As in 150004.
    pub version_num: u32,
    /// As in "15.4 (Debian ...)".
    pub version: String,
    /// The role that was asked as.
    pub role: String,
    /// Whether that role is a superuser.
    pub superuser: bool,
    /// Whether that role may replicate.
    pub replication: bool,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// `minimal`, `replica` or `logical`.
    pub wal_level: String,
    /// Most connections that may stream WAL.
    pub max_wal_senders: u32,
    /// Connections that stream WAL now.
    pub wal_senders: u32,
    /// Most replication slots.
    pub max_replication_slots: u32,
    /// As the server prints it; `-1` is without limit.
    pub max_slot_wal_keep_size: String,
    /// `off`, `on` or `always`.
    pub archive_mode: String,
    /// Whether a command or library to archive with is set; the command itself may hold secrets.
    pub archives: bool,
    /// `shared_preload_libraries`, where the role may see it.
    pub preload: Option<String>,
    /// Tablespaces beside the default one.
    pub tablespaces: Vec<TablespaceFact>,
    /// Replication slots.
    pub slots: Vec<SlotFact>,
    /// Prepared transactions: they hold locks on a clone too.
    pub prepared_transactions: u64,
    /// Databases that allow no connection, and so cannot be compared.
    pub unreadable_databases: Vec<String>,
    /// Rules of `pg_hba.conf` about replication; absent where the role may not see them.
    #[serde(default)]
    pub hba: Option<Vec<HbaRule>>,
    /// The databases with content.
    #[serde(default)]
    pub databases: Vec<DatabaseFacts>,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceFact {
    /// Its name.
    pub name: String,
    /// Its folder, as the server sees it.
    pub location: String,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFact {
    /// Its name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// Whether somebody streams from it.
    pub active: bool,
    /// WAL that it keeps from being removed, in bytes.
    pub retained_bytes: Option<i64>,
}

/// A line of `pg_hba.conf` about replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HbaRule {
    /// Line in the file.
    pub line: i64,
    /// `local`, `host`, `hostssl` ...
    pub kind: String,
    /// Roles; `all`, `+group`.
    pub users: Vec<String>,
    /// Address or `all`; absent for `local`.
    pub address: Option<String>,
    /// Netmask, if written apart.
    pub netmask: Option<String>,
    /// `trust`, `scram-sha-256`, `reject` ...
    pub method: String,
}

/// What is known about one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// As in `UTF8`.
    pub encoding: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// The locale of ICU or the built-in provider.
    pub locale: Option<String>,
    /// Version of the collation when the database was made; Postgres 15 and later.
    #[serde(default)]
    pub collation_recorded: Option<String>,
    /// Version of the collation that the operating system has now.
    #[serde(default)]
    pub collation_actual: Option<String>,
    /// Collations in use that have a version.
    pub collations: Vec<CollationFact>,
    /// Extensions with their versions.
    pub extensions: BTreeMap<String, String>,
    /// Unlogged tables.
    pub unlogged: Vec<String>,
    /// Large objects.
    pub large_objects: u64,
    /// Publications.
    pub publications: Vec<String>,
    /// Subscriptions: on a clone they would fetch from the world.
    pub subscriptions: Vec<String>,
    /// Foreign servers: queries reach out to them.
    pub foreign_servers: Vec<String>,
    /// Foreign tables; their rows are elsewhere and are not part of the store.
    pub foreign_tables: u64,
    /// Tablespaces in use beside the default one.
    pub tablespaces: Vec<String>,
}

/// A collation with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollationFact {
    /// Its name.
    pub name: String,
    /// Version when it was made or last refreshed.
    pub recorded: Option<String>,
    /// Version that the operating system or ICU has now.
    pub actual: Option<String>,
}

impl DatabaseFacts {
    /// Collations whose version changed under the data: text indexes may be out of order.
    pub fn changed_collations(&self) -> Vec<String> {
        let changed = |a: &Option<String>, b: &Option<String>| a.is_some() && a != b;
        let version = |v: &Option<String>| v.clone().unwrap_or_else(|| "none".to_owned());
        let mut words = Vec::new();
        if changed(&self.collation_recorded, &self.collation_actual) {
            words.push(format!(
                "default collation of database {} has version {}, the database was made with {}",
                self.name,
                version(&self.collation_actual),
                version(&self.collation_recorded)
            ));
        }
        for c in self.collations.iter().filter(|c| changed(&c.recorded, &c.actual)) {
            words.push(format!(
                "collation {} of database {} has version {}, it was made with {}",
                c.name,
                self.name,
                version(&c.actual),
                version(&c.recorded)
            ));
        }
        words
    }
}

impl ServerFacts {
    /// The major version, as in 15.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// What a person should know before the server is cloned or upgraded, in words.
    pub fn warnings(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.superuser {
            words.push(format!(
                "role {} is no superuser: passwords and large objects cannot be compared, and tables of others perhaps not",
                self.role
            ));
        }
        for t in &self.tablespaces {
            words
                .push(format!("tablespace {} lies outside of the data directory, at {}", t.name, t.location));
        }
        if self.prepared_transactions > 0 {
            words.push(format!(
                "{} prepared transactions hold locks, also on a clone",
                self.prepared_transactions
            ));
        }
        for name in &self.unreadable_databases {
            words.push(format!("database {name} allows no connections and cannot be compared"));
        }
        for d in &self.databases {
            words.extend(d.changed_collations().into_iter().map(|w| format!("{w}: reindex text")));
            for table in &d.unlogged {
                words.push(format!(
                    "table {table} of database {} is unlogged: a crash, a base backup and a clone of the running server empty it",
                    d.name
                ));
            }
            if d.foreign_tables > 0 {
                words.push(format!(
                    "database {} has {} foreign tables; their rows are elsewhere and are not part of the store",
                    d.name, d.foreign_tables
                ));
            }
        }
        words
    }
}

fn parse<T: serde::de::DeserializeOwned>(database: &str, line: &Texts) -> Result<T> {
    serde_json::from_str(line.text(1)?).map_err(|e| PgError::protocol(database, e.to_string()))
}

/// Asks one database about itself.
pub(super) fn database_facts(psql: &dyn Psql, name: &str) -> Result<DatabaseFacts> {
    match session::lines(psql, name, &session::reading(DATABASE_SQL), &|| false)?.as_slice() {
        [line] => parse(name, line),
        other => Err(PgError::protocol(name, format!("{} lines of facts", other.len()))),
    }
}

/// Asks the server, and each of its databases.
pub fn server_facts(psql: &dyn Psql) -> Result<ServerFacts> {
    let mut facts: Option<ServerFacts> = None;
    let mut versions = BTreeMap::new();
    let mut rules = Some(Vec::new());
    for line in session::cluster_lines(psql, &session::reading(FACTS_SQL), &|| false)? {
        match line.tag() {
            "f" => facts = Some(parse("", &line)?),
            "h" => rules.get_or_insert_default().push(parse("", &line)?),
            "v" => {
                let version = |i| line.optional(i).map(str::to_owned);
                versions.insert(line.owned(1)?, (version(2), version(3)));
            }
            "X" => rules = None,
            other => return Err(PgError::protocol("", format!("line {other:?}"))),
        }
    }
    let mut facts = facts.ok_or_else(|| PgError::protocol("", "no facts"))?;
    facts.hba = rules;
    for name in session::databases(psql)? {
        let mut database = database_facts(psql, &name)?;
        if let Some((recorded, actual)) = versions.remove(&name) {
            (database.collation_recorded, database.collation_actual) = (recorded, actual);
        }
        facts.databases.push(database);
    }
    Ok(facts)
}
