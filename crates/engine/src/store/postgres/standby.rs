//! A clone by base backup and streaming, where the file system cannot share blocks.
//!
//! Owns the commands and the SQL of that plan, and the reasons for which it is refused. It runs no
//! program itself. A password goes into the environment only; `pg_basebackup -R` writes it into the
//! clone's `postgresql.auto.conf`, from where [`promote`] removes it.

use super::facts::{HbaRule, ServerFacts, SlotFact};
use super::harmless::harmless_settings;
use super::names::literal;
use super::{PgError, Psql, Result, session};
use std::fmt;

/// Slots that this program makes begin so.
pub const SLOT_PREFIX: &str = "switchback_";

/// Longest name of a slot, in bytes (NAMEDATALEN - 1).
const SLOT_BYTES: usize = 63;

/// How long a promotion may take, in seconds; measured: 0.3 s.
const PROMOTE_SECONDS: u32 = 60;

/// Connections that a backup with `-X stream` takes: one for files, one for WAL.
const SENDERS: u32 = 2;

/// Slots that are in use at one time: the backup's own, and the temporary one that takes over from it.
const SLOTS: u64 = 2;

/// What the standby's server is started with besides. It listens to nobody but its own container, which shares
/// the network of the primary. It needs little memory beside the primary, and little to write when it is stopped.
/// A slot of its own that vanishes with its connection (Postgres 13) leaves nothing on the primary.
const SETTINGS: [(&str, &str); 7] = [
    ("hot_standby", "on"),
    ("listen_addresses", ""),
    ("shared_buffers", "128MB"),
    ("autovacuum", "off"),
    ("recovery_min_apply_delay", "0"),
    ("wal_retrieve_retry_interval", "500ms"),
    ("wal_receiver_create_temp_slot", "on"),
];

/// The name of the replication slot of a run. Slots may have only `a-z`, `0-9` and `_`.
pub fn slot_name(run: &str) -> String {
    let lower = run.to_ascii_lowercase();
    let plain = !run.is_empty()
        && run.len() + SLOT_PREFIX.len() <= SLOT_BYTES
        && run.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    if plain {
        // Run ids are ULIDs: upper-case, so lowering them loses nothing.
        format!("{SLOT_PREFIX}{lower}")
    } else {
        format!("{SLOT_PREFIX}x_{}", &blake3::hash(run.as_bytes()).to_hex()[..32])
    }
}

/// A place in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads the form `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.trim().split_once('/')?;
        let part = |t: &str| if t.len() <= 8 { u32::from_str_radix(t, 16).ok() } else { None };
        Some(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// How the server is reached from the container that the backup runs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Folder of the socket, or `127.0.0.1` where only the network namespace is shared.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password, if one is needed.
    pub password: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
}

impl Connection {
    fn over_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// A program to run in a container of the user's image.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments; never a password.
    pub argv: Vec<String>,
    /// Variables for it; may hold the password.
    pub env: Vec<(String, String)>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command").field("argv", &self.argv).field("env", &names).finish()
    }
}

/// Where a tablespace goes in the clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its folder as the server sees it.
    pub from: String,
    /// An absolute, empty or missing folder, as the backup's container sees it.
    pub to: String,
}

/// The base backup: makes the slot, streams the WAL meanwhile, and writes `standby.signal` and the
/// connection. `dir` must be empty or missing.
pub fn base_backup(connection: &Connection, slot: &str, dir: &str, mappings: &[Mapping]) -> Command {
    let mut argv: Vec<String> = [
        "pg_basebackup",
        "-X",
        "stream",
        "-c",
        "fast",
        "-C",
        "-S",
        slot,
        "-R",
        "--no-manifest",
        "--no-password",
        "-D",
        dir,
    ]
    .map(str::to_owned)
    .to_vec();
    argv.extend(["-h".to_owned(), connection.host.clone()]);
    argv.extend(["-p".to_owned(), connection.port.to_string()]);
    argv.extend(["-U".to_owned(), connection.user.clone()]);
    for mapping in mappings {
        let escape = |path: &str| path.replace('\\', "\\\\").replace('=', "\\=");
        argv.extend(["-T".to_owned(), format!("{}={}", escape(&mapping.from), escape(&mapping.to))]);
    }
    let mut env = vec![("LC_ALL".to_owned(), "C".to_owned())];
    env.extend(connection.password.iter().map(|p| ("PGPASSWORD".to_owned(), p.clone())));
    Command { argv, env }
}

/// Reads the control file of a stopped server; for [`parse_controldata`].
pub fn controldata(dir: &str) -> Command {
    Command {
        argv: ["pg_controldata", "-D", dir].map(str::to_owned).to_vec(),
        env: vec![("LC_ALL".to_owned(), "C".to_owned())],
    }
}

/// What the control file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// As in "shut down", "in production", "shut down in recovery".
    pub state: String,
    /// Where the latest checkpoint is.
    pub checkpoint: Lsn,
    /// Its time line.
    pub timeline: u32,
    /// The same for a cluster and its clones.
    pub system_identifier: String,
}

impl ControlData {
    /// The checkpoint that a clean stop wrote last. An error if the server did not stop cleanly.
    pub fn shutdown_checkpoint(&self) -> Result<Lsn> {
        if self.state == "shut down" {
            return Ok(self.checkpoint);
        }
        Err(PgError::Unsupported {
            what: "the old server".to_owned(),
            why: format!(
                "its state is {:?} and not \"shut down\": start it and stop it cleanly, so that nothing is missing in the clone",
                self.state
            ),
        })
    }
}

/// Reads the output of `pg_controldata` (with `LC_ALL=C`).
pub fn parse_controldata(text: &str) -> Result<ControlData> {
    let find = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_owned()))
            .ok_or_else(|| PgError::protocol("", format!("pg_controldata says nothing about {name:?}")))
    };
    let malformed = |name: &str| PgError::protocol("", format!("pg_controldata: malformed {name}"));
    let checkpoint = find("Latest checkpoint location")?;
    let timeline = find("Latest checkpoint's TimeLineID")?;
    Ok(ControlData {
        state: find("Database cluster state")?,
        checkpoint: Lsn::parse(&checkpoint).ok_or_else(|| malformed("checkpoint"))?,
        timeline: timeline.parse().map_err(|_| malformed("time line"))?,
        system_identifier: find("Database system identifier")?,
    })
}

/// Settings for the standby's server, as `-c name=value`: those that must not be lower than the primary's
/// (which may have them from its command line), and what keeps it from acting on the world.
pub fn standby_settings(primary: &dyn Psql) -> Result<Vec<(String, String)>> {
    let sql = session::reading(
        "COPY (SELECT 'v', current_setting('server_version_num')) TO STDOUT;\n\
         COPY (SELECT 'g', name, setting FROM pg_settings WHERE name IN ('max_connections', \
         'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', \
         'max_locks_per_transaction') ORDER BY name) TO STDOUT;",
    );
    let own = SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut settings: Vec<(String, String)> = own.collect();
    for line in session::cluster_lines(primary, &sql, &|| false)? {
        if line.tag() == "v" {
            let major = line.number::<u32>(1)? / 10_000;
            let keeps = |name: &str| !name.starts_with("primary_");
            settings.extend(harmless_settings(major).into_iter().filter(|(name, _)| keeps(name)));
        } else {
            settings.push((line.owned(1)?, line.owned(2)?));
        }
    }
    Ok(settings)
}

/// Why this server cannot be cloned by a base backup; empty if it can.
pub fn refusals(facts: &ServerFacts, connection: &Connection, mappings: &[Mapping]) -> Vec<String> {
    let mut reasons = Vec::new();
    if facts.version_num < 130_000 {
        reasons.push(format!("Postgres {}: this needs 13 or later", facts.version));
    }
    if facts.in_recovery {
        reasons.push("the server is a standby itself: clone its primary".to_owned());
    }
    if !facts.superuser && !facts.replication {
        reasons.push(format!(
            "role {} may not replicate: ALTER ROLE ... REPLICATION, or use the superuser of the image",
            facts.role
        ));
    }
    if facts.wal_level == "minimal" {
        reasons.push("wal_level is minimal: set it to replica and restart the server".to_owned());
    }
    let free = facts.max_wal_senders.saturating_sub(facts.wal_senders);
    if free < SENDERS {
        reasons.push(format!(
            "max_wal_senders is {} and {} are in use: {SENDERS} free ones are needed",
            facts.max_wal_senders, facts.wal_senders
        ));
    }
    let free = u64::from(facts.max_replication_slots).saturating_sub(facts.slots.len() as u64);
    if free < SLOTS {
        reasons.push(format!(
            "max_replication_slots is {} and {} are in use: {SLOTS} free ones are needed",
            facts.max_replication_slots,
            facts.slots.len()
        ));
    }
    for t in facts.tablespaces.iter().filter(|t| !mappings.iter().any(|m| m.from == t.location)) {
        reasons.push(format!("tablespace {} at {} has no place in the clone", t.name, t.location));
    }
    if let Some(rules) = &facts.hba {
        reasons.extend(hba_refusal(rules, connection));
    }
    reasons
}

/// What a person should know about a clone by base backup: what it may cost.
pub fn warnings(facts: &ServerFacts) -> Vec<String> {
    let mut words = Vec::new();
    if facts.max_slot_wal_keep_size == "-1" {
        words.push(
            "max_slot_wal_keep_size is not set: if the clone stops reading, WAL piles up until the disk of \
             production is full"
                .to_owned(),
        );
    }
    if facts.hba.is_none() {
        words.push(
            "role may not read pg_hba_file_rules: whether replication is allowed shows when it is tried"
                .to_owned(),
        );
    }
    words
}

/// Whether the rules let the connection in: the first that matches decides.
fn hba_refusal(rules: &[HbaRule], connection: &Connection) -> Option<String> {
    let place = if connection.over_socket() { "the socket".to_owned() } else { connection.host.clone() };
    let advice = format!(
        "pg_hba.conf lets nobody replicate as {} over {place}: add a line such as \"{}\" and reload",
        connection.user,
        if connection.over_socket() {
            format!("local replication {} trust", connection.user)
        } else {
            format!("host replication {} {}/32 scram-sha-256", connection.user, connection.host)
        }
    );
    match rules.iter().find(|r| matches(r, connection)) {
        None => Some(advice),
        Some(rule) if rule.method == "reject" => {
            Some(format!("line {} of pg_hba.conf rejects it; {advice}", rule.line))
        }
        Some(rule) if needs_password(&rule.method) && connection.password.is_none() => Some(format!(
            "line {} of pg_hba.conf asks for a password ({}), and the store has none",
            rule.line, rule.method
        )),
        Some(_) => None,
    }
}

fn needs_password(method: &str) -> bool {
    matches!(method, "password" | "md5" | "scram-sha-256")
}

fn matches(rule: &HbaRule, connection: &Connection) -> bool {
    // Groups and patterns cannot be judged from here: let the server decide.
    let user = rule
        .users
        .iter()
        .any(|u| u == "all" || *u == connection.user || u.starts_with('+') || u.starts_with('/'));
    let kind = match rule.kind.as_str() {
        "local" => connection.over_socket(),
        // pg_basebackup prefers TLS, and falls back: either kind can match.
        _ => !connection.over_socket() && address(rule, &connection.host),
    };
    user && kind
}

fn address(rule: &HbaRule, host: &str) -> bool {
    let Some(text) = rule.address.as_deref() else { return true };
    if matches!(text, "all" | "samehost" | "samenet") || text == host {
        return true;
    }
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "::1");
    if text == "localhost" {
        return loopback;
    }
    let parse = |t: &str| t.parse::<std::net::IpAddr>().ok();
    let (Some(network), Some(mask)) = (parse(text), rule.netmask.as_deref().and_then(parse)) else {
        // A host name: only the server can look it up.
        return network_name(text);
    };
    let hosts: &[&str] = if host == "localhost" { &["127.0.0.1", "::1"] } else { &[host] };
    hosts.iter().any(|h| match (parse(h), network, mask) {
        (Some(std::net::IpAddr::V4(h)), std::net::IpAddr::V4(n), std::net::IpAddr::V4(m)) => {
            h.to_bits() & m.to_bits() == n.to_bits() & m.to_bits()
        }
        (Some(std::net::IpAddr::V6(h)), std::net::IpAddr::V6(n), std::net::IpAddr::V6(m)) => {
            h.to_bits() & m.to_bits() == n.to_bits() & m.to_bits()
        }
        _ => false,
    })
}

fn network_name(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_err()
}

/// Whether the standby has replayed the record at `lsn`.
///
/// The server tells the end of the last record it replayed, which lies behind that record's beginning.
pub fn caught_up(standby: &dyn Psql, lsn: Lsn) -> Result<bool> {
    let sql = session::reading(&format!(
        "COPY (SELECT 'c', coalesce(pg_last_wal_replay_lsn() > {}::pg_lsn, false)) TO STDOUT;",
        literal(&lsn.to_string())
    ));
    match session::cluster_lines(standby, &sql, &|| false)?.as_slice() {
        [line] => line.flag(1),
        _ => Err(PgError::protocol("", "no answer about replay")),
    }
}

/// Where the primary's log ends now, and the port that it listens on.
pub fn position(primary: &dyn Psql) -> Result<(Lsn, u16)> {
    let sql = session::reading("COPY (SELECT 'l', pg_current_wal_lsn(), current_setting('port')) TO STDOUT;");
    match session::cluster_lines(primary, &sql, &|| false)?.as_slice() {
        [line] => {
            let lsn = Lsn::parse(line.text(1)?).ok_or_else(|| PgError::protocol("", "malformed position"))?;
            Ok((lsn, line.number(2)?))
        }
        _ => Err(PgError::protocol("", "no answer about the log")),
    }
}

/// How far a standby has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progressed {
    /// End of the last record that was replayed.
    pub replayed: Lsn,
    /// Whether it receives from the primary now.
    pub streaming: bool,
    /// The slot through which it does.
    pub slot: Option<String>,
}

/// Asks a standby how far it has got.
pub fn progressed(standby: &dyn Psql) -> Result<Progressed> {
    let sql = session::reading(
        "COPY (SELECT 'w', coalesce(pg_last_wal_replay_lsn(), '0/0'), coalesce(r.status = 'streaming', false), r.slot_name \
         FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true) TO STDOUT;",
    );
    match session::cluster_lines(standby, &sql, &|| false)?.as_slice() {
        [line] => Ok(Progressed {
            replayed: Lsn::parse(line.text(1)?).ok_or_else(|| PgError::protocol("", "malformed position"))?,
            streaming: line.flag(2)?,
            slot: line.optional(3).filter(|s| !s.is_empty()).map(str::to_owned),
        }),
        _ => Err(PgError::protocol("", "no answer about the standby")),
    }
}

/// Lets a standby go on with a temporary slot, which vanishes with its connection, and writes out what it has
/// replayed, so that stopping it takes less. The backup's slot is in use until [`progressed`] names another.
pub fn leave_slot(standby: &dyn Psql) -> Result<()> {
    let sql = session::writing(
        "CHECKPOINT;\nALTER SYSTEM RESET primary_slot_name;\nCOPY (SELECT 'r', pg_reload_conf()) TO STDOUT;\n",
    );
    session::cluster_lines(standby, &sql, &|| false).map(|_| ())
}

/// The size of all databases, bytes.
pub fn size_bytes(server: &dyn Psql) -> Result<u64> {
    let sql = session::reading("COPY (SELECT 's', sum(pg_database_size(oid)) FROM pg_database) TO STDOUT;");
    match session::cluster_lines(server, &sql, &|| false)?.as_slice() {
        [line] => line.number(1),
        _ => Err(PgError::protocol("", "no answer about the size")),
    }
}

/// Promotes a standby and takes the primary's address (with its password) out of its configuration.
pub fn promote(standby: &dyn Psql) -> Result<()> {
    let sql = session::writing(&format!("COPY (SELECT 'p', pg_promote(true, {PROMOTE_SECONDS})) TO STDOUT;"));
    let promoted = match session::cluster_lines(standby, &sql, &|| false)?.as_slice() {
        [line] => line.flag(1)?,
        _ => false,
    };
    if !promoted {
        return Err(PgError::Unsupported {
            what: "the standby".to_owned(),
            why: format!("it was not promoted within {PROMOTE_SECONDS} s; its log says why"),
        });
    }
    let sql =
        session::writing("ALTER SYSTEM RESET primary_conninfo;\nALTER SYSTEM RESET primary_slot_name;\n");
    session::cluster_lines(standby, &sql, &|| false).map(|_| ())
}

/// Drops a slot, if it exists. An active one is an error: stop the standby first.
pub fn drop_slot(primary: &dyn Psql, slot: &str) -> Result<()> {
    let sql = session::writing(&format!(
        "COPY (SELECT pg_drop_replication_slot(slot_name)::text FROM pg_replication_slots WHERE slot_name = {}) TO STDOUT;",
        literal(slot)
    ));
    session::cluster_lines(primary, &sql, &|| false).map(|_| ())
}

/// Slots of this program that nobody streams from and that belong to none of the given runs.
pub fn abandoned_slots<'a>(facts: &'a ServerFacts, running: &[String]) -> Vec<&'a SlotFact> {
    let kept: Vec<String> = running.iter().map(|r| slot_name(r)).collect();
    facts
        .slots
        .iter()
        .filter(|s| s.name.starts_with(SLOT_PREFIX) && !s.active && !kept.contains(&s.name))
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
#[path = "standby_tests.rs"]
mod tests;
