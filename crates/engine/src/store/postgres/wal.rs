//! The write-ahead log of a server, as it is archived: its state, the slot that keeps what was not archived, and marks in it.
//!
//! Owns that SQL. The slot is advanced only after segments are in the repository, so nothing is lost whoever is killed; the server
//! itself bounds what it keeps for it.

use super::names::literal;
use super::standby::Lsn;
use super::{PgError, Psql, Result, session};

/// The slot. One for each cluster; a clone has it, too, and with it the place where its chain goes on.
pub const SLOT: &str = "switchback_wal";
/// Advancing slots came with version 11, bounding what they keep with 13.
const SINCE: u32 = 130_000;

/// The log of a server that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The same for a cluster and its clones.
    pub system: String,
    /// Its time line.
    pub timeline: u32,
    /// Bytes of a segment.
    pub size: u64,
    /// Where it writes now.
    pub now: Lsn,
    /// What the slot keeps from on; `None` if there is no slot, or it has lost what it kept.
    pub slot: Option<Lsn>,
    /// Whether there is a slot at all.
    pub has_slot: bool,
}

/// A commit, and the end of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The moment just before the commit; UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// The last segment that is complete.
    pub last: u64,
}

fn lsn(text: &str) -> Result<Lsn> {
    Lsn::parse(text).ok_or_else(|| PgError::protocol("", format!("malformed place in the log: {text:?}")))
}

/// The state of the log.
pub fn state(psql: &dyn Psql) -> Result<State> {
    let sql = session::reading(
        "COPY (SELECT 'v', current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery()) TO STDOUT;",
    );
    let lines = session::cluster_lines(psql, &sql, &|| false)?;
    let Some(line) = lines.first() else { return Err(PgError::protocol("", "no version")) };
    let unsupported = |why: String| PgError::Unsupported { what: "archiving the log".to_owned(), why };
    if line.number::<u32>(1)? < SINCE {
        return Err(unsupported("this needs Postgres 13 or later".to_owned()));
    }
    if line.owned(2)? == "minimal" {
        return Err(unsupported("wal_level is minimal: set it to replica and restart the server".to_owned()));
    }
    if line.owned(3)? == "t" {
        return Err(unsupported("the server is a standby".to_owned()));
    }
    let sql = session::reading(&format!(
        "COPY (SELECT 's', (SELECT system_identifier FROM pg_control_system()), \
         (SELECT timeline_id FROM pg_control_checkpoint()), \
         (SELECT bytes_per_wal_segment FROM pg_control_init()), pg_current_wal_insert_lsn()) TO STDOUT;\n\
         COPY (SELECT 'r', COALESCE(restart_lsn::text, ''), COALESCE(wal_status, 'lost') FROM pg_replication_slots \
         WHERE slot_name = {}) TO STDOUT;",
        literal(SLOT)
    ));
    let (mut state, mut slot, mut has_slot) = (None, None, false);
    for line in session::cluster_lines(psql, &sql, &|| false)? {
        if line.tag() == "s" {
            state = Some((line.owned(1)?, line.number(2)?, line.number(3)?, lsn(&line.owned(4)?)?));
        } else {
            has_slot = true;
            let kept = line.owned(1)?;
            if line.owned(2)? != "lost" && !kept.is_empty() {
                slot = Some(lsn(&kept)?);
            }
        }
    }
    let Some((system, timeline, size, now)) = state else { return Err(PgError::protocol("", "no state")) };
    Ok(State { system, timeline, size, now, slot, has_slot })
}

/// Makes the slot anew, and bounds what the server keeps for slots, if nobody did.
pub fn open(psql: &dyn Psql, limit_gib: u64) -> Result<()> {
    drop_slot(psql)?;
    // Only the server itself can keep to a limit while nobody looks.
    let sql = session::reading("COPY (SELECT 'l', current_setting('max_slot_wal_keep_size')) TO STDOUT;");
    let lines = session::cluster_lines(psql, &sql, &|| false)?;
    let unlimited = lines.first().is_none_or(|l| l.owned(1).is_ok_and(|v| v == "-1"));
    let mut body = String::new();
    if unlimited {
        body.push_str(&format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{limit_gib}GB';\nSELECT pg_reload_conf();\n"
        ));
    }
    body.push_str(&format!("SELECT pg_create_physical_replication_slot({}, true);", literal(SLOT)));
    write(psql, &body).map(|_| ())
}

/// Drops the slot, if it is there.
pub fn drop_slot(psql: &dyn Psql) -> Result<()> {
    let slot = literal(SLOT);
    let body = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {slot} AND NOT active;"
    );
    write(psql, &body).map(|_| ())
}

/// Commits something after the present moment, and begins a new segment: everything up to that commit is in complete ones.
pub fn mark(psql: &dyn Psql, size: u64) -> Result<Mark> {
    // Whatever is usual for roles and databases here.
    let body = "SET default_transaction_read_only = off;\n\
                SET synchronous_commit = local;\n\
                SELECT 'moment ' || floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;\n\
                SELECT 'commit ' || txid_current();\n\
                SELECT 'switched ' || pg_switch_wal();";
    let (mut at_ms, mut end) = (None, None);
    for line in write(psql, body)? {
        match line.split_once(' ') {
            Some(("moment", value)) => at_ms = value.parse().ok(),
            Some(("switched", value)) => end = Some(lsn(value)?),
            _ => {}
        }
    }
    match (at_ms, end) {
        // The end is one byte behind the last record of the segment.
        (Some(at_ms), Some(end)) => Ok(Mark { at_ms, last: end.0.saturating_sub(1) / size.max(1) }),
        _ => Err(PgError::protocol("", "the log was not marked")),
    }
}

/// Lets the server forget what lies before a segment.
pub fn release(psql: &dyn Psql, next: u64, size: u64) -> Result<()> {
    let to = Lsn(next.saturating_mul(size));
    let slot = literal(SLOT);
    // Nothing can be released that is not written yet, nor twice.
    let body = format!(
        "SELECT pg_replication_slot_advance(slot_name, LEAST('{to}'::pg_lsn, pg_current_wal_flush_lsn())) FROM pg_replication_slots \
         WHERE slot_name = {slot} AND restart_lsn < LEAST('{to}'::pg_lsn, pg_current_wal_flush_lsn());"
    );
    write(psql, &body).map(|_| ())
}

/// The moment of the last transaction that was replayed, and whether replaying is over.
pub fn replayed(psql: &dyn Psql) -> Result<Option<i64>> {
    let sql = session::reading(
        "COPY (SELECT 'r', floor(extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000)::bigint) TO STDOUT;",
    );
    let lines = session::cluster_lines(psql, &sql, &|| false)?;
    Ok(lines.first().and_then(|l| l.owned(1).ok()).and_then(|v| v.parse().ok()))
}

/// Runs statements that commit one by one; the first column of what they answer.
fn write(psql: &dyn Psql, body: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let sql = session::writing(body);
    psql.script("postgres", &sql, &mut out, &|| false).or_else(|e| match e {
        PgError::Server { ref sqlstate, .. } if sqlstate.is_empty() => {
            out.clear();
            psql.script("template1", &sql, &mut out, &|| false)
        }
        other => Err(other),
    })?;
    Ok(String::from_utf8_lossy(&out).lines().map(str::to_owned).collect())
}

/// Where replaying of a data folder would begin, from what `pg_controldata` says of it: system, time line, segment.
pub fn begins(controldata: &str) -> Result<(String, u32, u64)> {
    let find = |name: &str| {
        controldata
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_owned()))
            .ok_or_else(|| PgError::protocol("", format!("pg_controldata says nothing about {name:?}")))
    };
    let number = |name: &str| -> Result<u64> {
        find(name)?.parse().map_err(|_| PgError::protocol("", format!("pg_controldata: malformed {name}")))
    };
    let redo = lsn(&find("Latest checkpoint's REDO location")?)?;
    let size = number("Bytes per WAL segment")?.max(1);
    let timeline = u32::try_from(number("Latest checkpoint's TimeLineID")?).unwrap_or(u32::MAX);
    Ok((find("Database system identifier")?, timeline, redo.0 / size))
}
